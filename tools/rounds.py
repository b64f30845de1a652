"""Command line of `mtvision rounds`; see `--help`."""

from mtvision.cli.main import run

if __name__ == "__main__":
    run("rounds")

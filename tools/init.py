"""Command line of `mtvision init`; see `--help`."""

from mtvision.cli.main import run

if __name__ == "__main__":
    run("init")

"""Command line of `mtvision configs`; see `--help`."""

from mtvision.cli.main import run

if __name__ == "__main__":
    run("configs")

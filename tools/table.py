"""Command line of `mtvision table`; see `--help`."""

from mtvision.cli.main import run

if __name__ == "__main__":
    run("table")

"""Command line of `mtvision new`; see `--help`."""

from mtvision.cli.main import run

if __name__ == "__main__":
    run("new")

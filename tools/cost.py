"""Command line of `mtvision cost`; see `--help`."""

from mtvision.cli.main import run

if __name__ == "__main__":
    run("cost")

"""Command line of `mtvision search`; see `--help`."""

from mtvision.cli.main import run

if __name__ == "__main__":
    run("search")

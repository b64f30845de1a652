"""Command line of `mtvision list`; see `--help`."""

from mtvision.cli.main import run

if __name__ == "__main__":
    run("list")

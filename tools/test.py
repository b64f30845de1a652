"""Command line of `mtvision test`; see `--help`."""

from mtvision.cli.main import run

if __name__ == "__main__":
    run("test")

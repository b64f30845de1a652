"""Command line of `mtvision surgery`; see `--help`."""

from mtvision.cli.main import run

if __name__ == "__main__":
    run("surgery")

"""Command line of `mtvision doctor`; see `--help`."""

from mtvision.cli.main import run

if __name__ == "__main__":
    run("doctor")

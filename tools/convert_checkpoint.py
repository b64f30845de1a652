"""Command line of `mtvision convert-checkpoint`; see `--help`."""

from mtvision.cli.main import run

if __name__ == "__main__":
    run("convert-checkpoint")

"""Command line of `mtvision prepare-dataset`; see `--help`."""

from mtvision.cli.main import run

if __name__ == "__main__":
    run("prepare-dataset")

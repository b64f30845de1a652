"""Command line of `mtvision check-dataset`; see `--help`."""

from mtvision.cli.main import run

if __name__ == "__main__":
    run("check-dataset")

"""Command line of `mtvision browse-dataset`; see `--help`."""

from mtvision.cli.main import run

if __name__ == "__main__":
    run("browse-dataset")

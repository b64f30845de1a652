"""Command line of `mtvision score`; see `--help`."""

from mtvision.cli.main import run

if __name__ == "__main__":
    run("score")

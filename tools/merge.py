"""Command line of `mtvision merge`; see `--help`."""

from mtvision.cli.main import run

if __name__ == "__main__":
    run("merge")

"""Command line of `mtvision share`; see `--help`."""

from mtvision.cli.main import run

if __name__ == "__main__":
    run("share")

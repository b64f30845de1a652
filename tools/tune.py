"""Command line of `mtvision tune`; see `--help`."""

from mtvision.cli.main import run

if __name__ == "__main__":
    run("tune")

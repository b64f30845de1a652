"""Command line of `mtvision controllable`; see `--help`."""

from mtvision.cli.main import run

if __name__ == "__main__":
    run("controllable")

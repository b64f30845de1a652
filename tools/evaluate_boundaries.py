"""Command line of `mtvision evaluate-boundaries`; see `--help`."""

from mtvision.cli.main import run

if __name__ == "__main__":
    run("evaluate-boundaries")

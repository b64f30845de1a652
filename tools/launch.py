"""Command line of `mtvision launch`; see `--help`."""

from mtvision.cli.main import run

if __name__ == "__main__":
    run("launch")

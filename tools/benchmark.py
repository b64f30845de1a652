"""Command line of `mtvision benchmark`; see `--help`."""

from mtvision.cli.main import run

if __name__ == "__main__":
    run("benchmark")

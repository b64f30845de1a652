"""Command line of `mtvision compare-runs`; see `--help`."""

from mtvision.cli.main import run

if __name__ == "__main__":
    run("compare-runs")

"""Command line of `mtvision pareto`; see `--help`."""

from mtvision.cli.main import run

if __name__ == "__main__":
    run("pareto")

"""Command line of `mtvision export`; see `--help`."""

from mtvision.cli.main import run

if __name__ == "__main__":
    run("export")

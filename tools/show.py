"""Command line of `mtvision show`; see `--help`."""

from mtvision.cli.main import run

if __name__ == "__main__":
    run("show")

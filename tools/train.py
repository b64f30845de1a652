"""Command line of `mtvision train`; see `--help`."""

from mtvision.cli.main import run

if __name__ == "__main__":
    run("train")

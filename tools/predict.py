"""Command line of `mtvision predict`; see `--help`."""

from mtvision.cli.main import run

if __name__ == "__main__":
    run("predict")

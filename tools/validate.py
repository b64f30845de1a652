"""Command line of `mtvision validate`; see `--help`."""

from mtvision.cli.main import run

if __name__ == "__main__":
    run("validate")

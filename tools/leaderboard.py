"""Command line of `mtvision leaderboard`; see `--help`."""

from mtvision.cli.main import run

if __name__ == "__main__":
    run("leaderboard")

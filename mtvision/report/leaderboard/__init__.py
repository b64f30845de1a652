"""The leaderboard: checks of records before they are published, and one static page made from them."""

from mtvision.report.leaderboard.check import Finding, check_files, check_records

__all__ = ["Finding", "check_files", "check_records"]

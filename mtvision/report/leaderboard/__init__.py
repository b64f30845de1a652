"""The leaderboard: checks of records before they are published, and one static page made from them."""

from mtvision.report.leaderboard.check import Finding, check_files, check_records
from mtvision.report.leaderboard.page import build_page, write_page
from mtvision.report.leaderboard.runs import RunFolders

__all__ = ["Finding", "RunFolders", "build_page", "check_files", "check_records", "write_page"]

"""`mtvision show KIND NAME`."""

from mtvision.cli.list_entries import show_main as main

__all__ = ["main"]

"""`mtvision show KIND NAME`."""

from mtvision.cli.catalogue.entries import show_main as main

__all__ = ["main"]

"""mtvision: multi-task dense scene understanding, from config to reproduction table."""

__version__ = "0.1.0"

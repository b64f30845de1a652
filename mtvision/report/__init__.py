"""Records, tables and costs; importing it does not import torch."""

from mtvision.report.record import Record, RecordError, describe_tasks, find_records

__all__ = ["Record", "RecordError", "describe_tasks", "find_records"]

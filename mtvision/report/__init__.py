"""Records, tables and costs; importing it does not import torch."""

from mtvision.report.comparable.task_entry import describe_tasks
from mtvision.report.record import Record, RecordError, find_records

__all__ = ["Record", "RecordError", "describe_tasks", "find_records"]

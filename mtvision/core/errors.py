"""Errors whose message is written for the user of a command."""

from __future__ import annotations

from typing import ClassVar


class ReportedError(Exception):
    """A command prints the message without a traceback and ends with `exit_code`."""

    exit_code: ClassVar[int] = 2

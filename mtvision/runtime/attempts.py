"""Actions that must not end a run: a failure becomes one line, and the next action follows."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from mtvision.core.files.foreign import ForeignError, foreign_errors
from mtvision.core.naming import ReportedError

T = TypeVar("T")

_log = logging.getLogger("mtvision")


class IncompleteError(ReportedError, RuntimeError):
    """All that could be done is done, but a part of the result is missing."""

    exit_code = 1


class Attempts:
    """Runs actions one after another; an exception in one of them does not stop the others.

    `KeyboardInterrupt` and `SystemExit` are no failures of an action and end the run as ever.

    Args:
        quiet: print nothing, e.g. on all processes but the first.

    Attributes:
        lines: one per failed action: `what: ErrorType: message; what to do next`.

    >>> attempts = Attempts()
    >>> attempts.run("half", lambda: 1 / 2)
    0.5
    >>> attempts.run("nothing", lambda: 1 / 0, "give another divisor")
    >>> attempts.lines
    ['nothing: ZeroDivisionError: division by zero; give another divisor']
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.lines: list[str] = []
        self._quiet = quiet

    def run(
        self,
        what: str,
        action: Callable[[], T],
        advice: str = "",
        *,
        passed: tuple[type[Exception], ...] = (),
    ) -> T | None:
        """The result of an action; None if it failed.

        Args:
            what: begins the line, e.g. the file that the action writes.
            action: writes its files atomically, so that a failure leaves no half of one.
            advice: what to do next; ends the line.
            passed: exceptions that do end the run.
        """
        try:
            with foreign_errors(*passed):
                return action()
        except ForeignError as error:
            self.note(failure_line(what, error.error, advice))
            return None

    def done(self, what: str, action: Callable[[], object], advice: str = "") -> bool:
        """Whether an action without a result of interest succeeded; arguments as `run`."""
        before = len(self.lines)
        self.run(what, action, advice)
        return len(self.lines) == before

    def note(self, line: str) -> None:
        """Remember a line and print it.

        It goes through `logging`, which survives a terminal that is a file on a full disk.
        """
        self.lines.append(line)
        if not self._quiet:
            _log.warning("%s", line)

    def agree(self) -> bool:
        """Whether no action failed on any process; every process has to call it.

        Communication may only follow where all agree. A process whose part failed would never take part, and
        the others would wait. Lines of all processes are remembered.
        """
        from mtvision.runtime.launch import gather  # imports torch, which a launcher of runs can do without

        for line in dict.fromkeys(line for lines in gather(self.lines) for line in lines):
            if line not in self.lines:
                self.note(line)
        return not self.lines


def failure_line(what: str, error: Exception, advice: str = "") -> str:
    """`what: ErrorType: message; advice` in one line.

    An error that is a message for the user already has no type in it. Of a message of several lines the first
    counts, and the second too where the first announces a list.
    """
    first, *others = str(error).splitlines() or [""]
    text = f"{first} {others[0].strip()}" if first.endswith(":") and others else first
    kind = "" if isinstance(error, ReportedError) else f"{type(error).__name__}: "
    line = f"{what}: {kind}{text}".rstrip(" .:")
    return f"{line}; {advice}" if advice else line

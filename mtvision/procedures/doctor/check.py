"""What one look at the machine found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mtvision.core.files.foreign import ForeignError, foreign_errors
from mtvision.core.naming import ReportedError
from mtvision.runtime.attempts import failure_line

Level = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Check:
    """One line of the report.

    Args:
        name: what was looked at, e.g. `memory`.
        level: `problem` stops training or makes it wrong; a `note` costs speed or leaves something out.
        text: what was found.
        remedy: what to do about it; empty where all is well.
        facts: the same as plain data.
    """

    name: str
    level: Level
    text: str
    remedy: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain data.

        >>> Check("memory", "ok", "24 GiB").to_json()["level"]
        'ok'
        """
        return {
            "name": self.name,
            "level": self.level,
            "text": self.text,
            "remedy": self.remedy,
            "facts": dict(self.facts),
        }


def tried(name: str, look: Callable[[], Iterator[Check]], remedy: str) -> Iterator[Check]:
    """The checks of `look`; an error in it is a problem of its own.

    Args:
        name: of the line that tells the error.
        look: yields checks.
        remedy: what to do about an error.
    """
    try:
        with foreign_errors(ReportedError):
            yield from look()
    except ForeignError as error:
        yield Check(name, "problem", failure_line(name, error.error), remedy)
    except ReportedError as error:
        yield Check(name, "problem", str(error), remedy)

"""What a battery found: one outcome per property, readable when printed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import indent
from typing import Literal

Status = Literal["passed", "failed", "skipped"]


class PropertyError(AssertionError):
    """A property does not hold. Test runners show it as a failed assertion."""


class NotApplicable(Exception):  # noqa: N818 - it is no error: the contract leaves the thing out
    """A property says nothing about this class; the text is the reason that the report shows."""


@dataclass(frozen=True)
class Outcome:
    """What one property gave.

    Args:
        name: of the property.
        status: `passed`, `failed` or `skipped`.
        claim: what the property says, one sentence.
        message: what was found if it failed, the reason if it was skipped.
        look: expressions that show the fault.
        cause: the exception behind a failure.
    """

    name: str
    status: Status
    claim: str
    message: str = ""
    look: str = ""
    cause: BaseException | None = None

    def __str__(self) -> str:
        lines = [f"{self.name}: {self.status}"]
        if self.status == "failed":
            lines += [f"  claim: {self.claim}", f"  found: {_inside(self.message)}"]
            lines += [f"  look:  {_inside(self.look)}"] if self.look else []
        elif self.status == "skipped":
            lines += [f"  reason: {_inside(self.message)}"]
        return "\n".join(lines)


@dataclass(frozen=True)
class Report:
    """Outcomes of one battery on one class.

    Args:
        battery: its name, as in `properties(name)`.
        subject: what was checked.
        outcomes: in the order in which the properties ran.
    """

    battery: str
    subject: str
    outcomes: tuple[Outcome, ...]

    @property
    def passed(self) -> tuple[str, ...]:
        """Names of the properties that hold."""
        return tuple(item.name for item in self.outcomes if item.status == "passed")

    @property
    def failed(self) -> dict[str, str]:
        """{property: what was found}."""
        return {item.name: item.message for item in self.outcomes if item.status == "failed"}

    @property
    def skipped(self) -> dict[str, str]:
        """{property: the declared reason}."""
        return {item.name: item.message for item in self.outcomes if item.status == "skipped"}

    @property
    def ok(self) -> bool:
        """Whether no property failed."""
        return not self.failed

    def raise_if_failed(self) -> None:
        """Raise if a property failed.

        Raises:
            PropertyError: its text is the printed report.
        """
        broken = [item for item in self.outcomes if item.status == "failed"]
        if broken:
            raise PropertyError(str(self)) from broken[0].cause

    def __str__(self) -> str:
        counts = [f"{len(self.passed)} passed", f"{len(self.failed)} failed", f"{len(self.skipped)} skipped"]
        title = f"{self.battery} {self.subject}: {', '.join(counts)}"
        told = [str(item) for item in _worst_first(self.outcomes)]
        return "\n".join([title, *(indent(item, "  ") for item in told)])


def _worst_first(outcomes: Sequence[Outcome]) -> list[Outcome]:
    order = {"failed": 0, "skipped": 1, "passed": 2}
    return sorted(outcomes, key=lambda item: order[item.status])


def _inside(text: str) -> str:
    """Further lines of `text` stand under the first, behind its label."""
    first, *rest = text.splitlines() or [""]
    return "\n".join([first, *(f"         {line}" for line in rest)])

"""Named properties and how they are run.

A battery is a list of functions. Each takes one case, which is the thing under test with its options. It
raises `PropertyError` where the property does not hold. It raises `NotApplicable` where it says nothing:

    SHAPES = Battery[DecoderCase]("decoder", call="check_decoder(make, only=['{name}'])")

    @SHAPES.property(look="decoder(pyramid).features[task].shape")
    def out_channels_are_true(case: DecoderCase) -> None:
        '''Feature maps have the channels that `out_channels` declares.'''
        ...

The name of the function names the property, the first line of its docstring is what it claims.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from types import FunctionType, MethodType
from typing import Any, Generic, TypeVar

import torch

from mtvision.core.naming import look_up
from mtvision.testing.report import NotApplicable, Outcome, PropertyError, Report

Case = TypeVar("Case")
LINES = 4
"""Of a foreign error message that a report shows."""
CHARACTERS = 600


@dataclass(frozen=True)
class Property(Generic[Case]):
    """One claim about a class.

    Args:
        name: unique in its battery.
        claim: what holds, one sentence.
        look: expressions that show the fault.
        check: raises `PropertyError` if it does not hold.
    """

    name: str
    claim: str
    look: str
    check: Callable[[Case], None]


class Battery(Generic[Case]):
    """An ordered list of properties of one kind of class.

    Args:
        kind: name of the battery, e.g. `decoder`.
        call: how one property is run again; `{name}` stands for the property.
    """

    def __init__(self, kind: str, call: str = "") -> None:
        self.kind = kind
        self.call = call
        self._properties: dict[str, Property[Case]] = {}

    @property
    def properties(self) -> dict[str, Property[Case]]:
        """{name: property}, in the order in which they run."""
        return dict(self._properties)

    def property(self, look: str) -> Callable[[Callable[[Case], None]], Callable[[Case], None]]:
        """Decorator that adds a function as the battery's next property.

        Args:
            look: expressions that show the fault.

        Raises:
            ValueError: the function has no docstring, or its name is taken.
        """

        def add(check: Callable[[Case], None]) -> Callable[[Case], None]:
            name, claim = check.__name__.strip("_"), (inspect.getdoc(check) or "").split("\n\n")[0]
            if not claim or name in self._properties:
                raise ValueError(
                    f"{self.kind} battery: property '{name}' needs a docstring and a name of its own."
                )
            self._properties[name] = Property(name, " ".join(claim.split()), look, check)
            return check

        return add

    def run(
        self,
        subject: str,
        case: Case,
        *,
        only: Collection[str] | None = None,
        skip: Mapping[str, str] | None = None,
        seed: int = 0,
    ) -> Report:
        """Run the properties on one case; a failure does not stop those after it.

        Args:
            subject: name of what is checked.
            case: handed to every property.
            only: names of the properties to run, all by default.
            skip: {property: reason} of properties that do not apply; a reason is a sentence, not empty.
            seed: of the global generator, set before each property.

        Raises:
            UnknownNameError: `only` or `skip` names no property.
            ValueError: a reason is empty.
        """
        declared = dict(skip or {})
        for name in (*(only or ()), *declared):
            look_up(f"property of the {self.kind} battery", name, self._properties)
        for name, reason in declared.items():
            if not reason.strip():
                raise ValueError(f"{self.kind} battery: skip['{name}'] needs a reason, got {reason!r}.")
        chosen = [item for item in self._properties.values() if only is None or item.name in only]
        return Report(self.kind, subject, tuple(self._outcome(item, case, declared, seed) for item in chosen))

    def _outcome(self, item: Property[Case], case: Case, declared: Mapping[str, str], seed: int) -> Outcome:
        if item.name in declared:
            return Outcome(item.name, "skipped", item.claim, declared[item.name])
        look = item.look
        if self.call:
            look += f"\n{self.call.format(name=item.name)}"
        try:
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                item.check(case)
        except NotApplicable as reason:
            return Outcome(item.name, "skipped", item.claim, str(reason))
        except PropertyError as error:
            return Outcome(item.name, "failed", item.claim, str(error), look, error)
        except Exception as error:  # whatever the class under test raises is the finding
            found = f"{type(error).__name__}: {_beginning(error)}"
            return Outcome(item.name, "failed", item.claim, found, look, error)
        return Outcome(item.name, "passed", item.claim)


def _beginning(error: Exception) -> str:
    """The first lines of a message; tracers append whole programs."""
    text = "\n".join(line for line in str(error).splitlines()[:LINES] if line.strip())
    return text[:CHARACTERS]


def subject_of(make: Any) -> str:
    """Name of a class or function; of a `partial`, that of what it calls; text itself."""
    inner = make.func if isinstance(make, partial) else make
    if isinstance(inner, str):
        return inner
    return str((inner if isinstance(inner, type | FunctionType | MethodType) else type(inner)).__qualname__)

"""Spaces of settings that a search draws from, for Optuna and for the sweeps of Weights & Biases."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal

from mtvision.recipe.config import parse_option
from mtvision.sweep.grid import split_values

Kind = Literal["log", "uniform", "int", "choice"]
_RANGE = re.compile(r"(log|uniform|int)\((.*)\)")
_WANDB = {"log": "log_uniform_values", "uniform": "uniform", "int": "int_uniform"}


@dataclass(frozen=True)
class Axis:
    """One setting and the values that it may have.

    Args:
        key: dotted path in the config.
        kind: `log` and `uniform` are ranges of numbers, `int` of integers; `choice` is a list.
        low: smallest value of a range.
        high: largest value of a range.
        choices: texts as `--cfg-options` takes them; empty for a range.
    """

    key: str
    kind: Kind
    low: float = 0.0
    high: float = 0.0
    choices: tuple[str, ...] = ()

    def ask(self, trial: Any) -> str:
        """The text of a value that an Optuna trial suggests."""
        if self.kind == "choice":
            return str(trial.suggest_categorical(self.key, list(self.choices)))
        if self.kind == "int":
            return str(trial.suggest_int(self.key, int(self.low), int(self.high)))
        return repr(float(trial.suggest_float(self.key, self.low, self.high, log=self.kind == "log")))

    @property
    def ends(self) -> tuple[str, ...]:
        """Texts of the values that are tried for mistakes: the bounds of a range, or all choices."""
        if self.kind == "choice":
            return self.choices
        return tuple(str(int(end)) if self.kind == "int" else repr(end) for end in (self.low, self.high))

    def wandb(self) -> dict[str, Any]:
        """The setting as a W&B sweep describes it."""
        if self.kind == "choice":
            return {"values": list(self.choices)}
        kind = int if self.kind == "int" else float
        return {"distribution": _WANDB[self.kind], "min": kind(self.low), "max": kind(self.high)}


def parse_space(texts: Sequence[str]) -> list[Axis]:
    """Axes from `KEY=log(LOW,HIGH)`, `KEY=uniform(…)`, `KEY=int(…)` or `KEY=VALUE,VALUE`.

    >>> parse_space(["optimizer.lr=log(1e-4,1e-2)"])
    [Axis(key='optimizer.lr', kind='log', low=0.0001, high=0.01, choices=())]

    Raises:
        ValueError: another form, two equal keys, a range without room, or one choice.
    """
    axes = [_axis(text) for text in texts]
    keys = [axis.key for axis in axes]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise ValueError(f"--search: {', '.join(twice)} is given more than once; give each key once.")
    return axes


def _axis(text: str) -> Axis:
    key, separator, rest = text.partition("=")
    problem = f"--search: {text!r}, expected KEY=log(LOW,HIGH), uniform(LOW,HIGH), int(LOW,HIGH) or KEY=A,B"
    if not separator or not key:
        raise ValueError(f"{problem}.")
    found = _RANGE.fullmatch(rest.strip())
    if found is None:
        choices = split_values(rest)
        if len(choices) < 2 or not all(choices) or len(set(choices)) < len(choices):
            raise ValueError(f"{problem}: found {len(set(choices))} different value, expected two or more.")
        return Axis(key, "choice", choices=tuple(choices))
    kind: Any = found[1]
    try:
        low, high = (float(part) for part in found[2].split(","))
    except ValueError as error:
        raise ValueError(f"{problem}: the range needs two numbers.") from error
    if not low < high or (kind == "log" and low <= 0):
        raise ValueError(f"{problem}: the first number must be below the second, and above 0 for log.")
    whole = low.is_integer() and high.is_integer()
    if not (isfinite(low) and isfinite(high)) or (kind == "int" and not whole):
        raise ValueError(f"{problem}: bounds are finite, and whole numbers for int.")
    return Axis(key, kind, low, high)


def check_values(values: Sequence[str]) -> dict[str, str]:
    """`KEY=VALUE` of one trial, as {key: text}.

    Raises:
        ValueError: not of that form.
    """
    return {parse_option(text, "--trial")[0]: text.partition("=")[2] for text in values}

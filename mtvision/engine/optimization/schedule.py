"""Schedules of learning rates; each is tried from its first step to its last before a run begins."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.optim import OptimWrapper
from mmengine.optim.scheduler import ReduceOnPlateauParamScheduler
from mmengine.registry import PARAM_SCHEDULERS

from mtvision.core.files.foreign import ForeignError, cause, foreign_errors
from mtvision.core.registry import SCHEDULES
from mtvision.recipe.settings import to_plain_data

Entries = Sequence[Mapping[str, Any]] | None
"""The config's `schedule`: schedulers of mmengine; None = poly with power 0.9 down to 0."""


def build_schedule(entries: Entries, iterations: int, wrapper: OptimWrapper) -> list[Any]:
    """Schedulers of an optimizer, in iterations.

    Args:
        entries: the config's `schedule`.
        iterations: where a scheduler ends that does not say so.
        wrapper: of the optimizer whose groups they change.
    """
    return [
        PARAM_SCHEDULERS.build(entry, default_args={"optimizer": wrapper})
        for entry in _complete(entries, iterations)
    ]


def check_schedule(
    entries: Entries, iterations: int, groups: Sequence[Mapping[str, Any]], tasks: Collection[str] = ()
) -> None:
    """Go through a schedule as a run of `iterations` steps will, on groups without the parameters.

    Args:
        entries: the config's `schedule`.
        iterations: steps of the run.
        groups: of the optimizer; only their options are read.
        tasks: that are evaluated during training, whose scores a scheduler may follow.

    Raises:
        ValueError: a scheduler cannot be built, counts epochs, follows an unknown score, or fails at a step.
            Also where a number stands in quotes, or a value becomes negative or not finite.

    Example:
        >>> entries = [{"type": "StepLR", "step_size": 2, "gamma": 0.5}]
        >>> check_schedule(entries, 10, [{"lr": 0.1}])
        >>> check_schedule([{**entries[0], "gamma": -1}], 10, [{"lr": 0.1}])
        Traceback (most recent call last):
        ValueError: schedule[0] (StepLR): lr is -0.1 after step 2 of 10; it must be finite and at least 0.
    """
    stand_ins = [{**group, "params": [torch.nn.Parameter(torch.zeros(1))]} for group in groups]
    wrapper = OptimWrapper(torch.optim.SGD(stand_ins, lr=0.0))
    schedulers: dict[str, Any] = {}
    for index, entry in enumerate(_complete(entries, iterations)):
        place = f"schedule[{index}] ({entry['type'].__name__})"
        silent = {name: value for name, value in entry.items() if name != "verbose"}
        _check_numbers(place, silent)
        with _saying(place, "it cannot be built"):
            schedulers[place] = PARAM_SCHEDULERS.build(silent, default_args={"optimizer": wrapper})
        _check_unit(place, schedulers[place], tasks)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of steps without steps of the optimizer
        for step in range(1, iterations + 1):
            for place, one in schedulers.items():
                with _saying(place, f"step {step} of {iterations} fails"):
                    one.step()
                _check_values(place, one, f"after step {step} of {iterations}")


def _complete(entries: Entries, iterations: int) -> list[dict[str, Any]]:
    """The entries with their classes and what they leave open."""
    # mmengine reaches 0 one step before `end`; with this one, step i has lr * (1 - i / iterations)^0.9
    poly = {"type": "PolyLR", "power": 0.9, "eta_min": 0.0, "end": iterations + 1}
    chosen = [
        {**entry, "type": SCHEDULES.choose(entry["type"])} for entry in to_plain_data(entries) or [poly]
    ]
    return [{"by_epoch": _follows_scores(entry["type"]), "end": iterations, **entry} for entry in chosen]


def _follows_scores(kind: Any) -> bool:
    """Whether a scheduler reads the scores of an evaluation; mmengine steps such a one "by epoch"."""
    return isinstance(kind, type) and issubclass(kind, ReduceOnPlateauParamScheduler)


def _check_numbers(place: str, entry: Mapping[str, Any]) -> None:
    """Refuse numbers in quotes; milestones of texts, for one, are never reached."""
    for name, value in entry.items():
        for item in value if isinstance(value, list | tuple) else [value]:
            if isinstance(item, str) and re.fullmatch(r"\s*[-+]?[\d.]+(e[-+]?\d+)?\s*", item, re.IGNORECASE):
                raise ValueError(f"{place}: {name} has {item!r}, a text; write the number without quotes.")


def _check_unit(place: str, one: Any, tasks: Collection[str]) -> None:
    """Refuse what would never be stepped, or would fail at the first evaluation."""
    if not isinstance(one, ReduceOnPlateauParamScheduler):
        if one.by_epoch:
            raise ValueError(f"{place}: by_epoch=True, but a run counts steps. Leave it out and give steps.")
        return
    if not tasks:
        raise ValueError(f"{place}: it follows a score, but training.val_interval is not set; set it.")
    if one.monitor.partition("/")[0] not in tasks or "/" not in one.monitor:
        names = ", ".join(tasks)
        raise ValueError(
            f"{place}: monitor={one.monitor!r} is no score. Give 'task/score' as in validations.jsonl; "
            f"tasks: {names}."
        )


def _check_values(place: str, one: Any, when: str) -> None:
    for group in one.optimizer.param_groups:
        value = group[one.param_name]
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(
                f"{place}: {one.param_name} is {value:g} {when}; it must be finite and at least 0."
            )


@contextmanager
def _saying(place: str, what: str) -> Iterator[None]:
    """Name the scheduler in whatever mmengine raises."""
    try:
        with foreign_errors():
            yield
    except ForeignError as foreign:
        raise ValueError(f"{place}: {what} ({cause(foreign.error)}).") from foreign.error

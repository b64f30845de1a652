"""What a state dict holds, and which state dicts can be merged.

Weights are merged by the method. Running statistics of norms become a convex combination, so that no variance
is negative. Whole numbers are never averaged: equal ones stay, counters become the largest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from mtvision.core.naming import ReportedError, meant

State = Mapping[str, Any]
"""{name: tensor}; reading an entry may read a file."""
Parents = Mapping[str, State]
"""{name of the parent, usually its task: its state}."""
Kind = Literal["weight", "statistic", "whole", "other"]

STATISTICS = ("running_mean", "running_var")
COUNTER = "num_batches_tracked"
NAMED = 3
"""How many names a message lists."""


class MergeError(ReportedError, ValueError):
    """States that cannot be merged, or options that do not fit them; the message is one line."""


def kind_of(name: str, value: Any) -> Kind:
    """What a tensor of a state dict is, by its type and the last part of its name.

    Raises:
        MergeError: a complex tensor.

    >>> kind_of("norm.running_var", torch.ones(2)), kind_of("norm.weight", torch.ones(2))
    ('statistic', 'weight')
    """
    if not isinstance(value, Tensor):
        return "other"
    if value.is_complex():
        raise MergeError(f"{name}: complex numbers are not merged; its type is {value.dtype}.")
    if not value.is_floating_point():
        return "whole"
    return "statistic" if name.rpartition(".")[2] in STATISTICS else "weight"


def check_names(base: State, parents: Parents) -> None:
    """Refuse parents whose tensors have other names than those of the base.

    Raises:
        MergeError: there is no parent, or names differ.
    """
    if not parents:
        raise MergeError("merging needs at least one parent, got none.")
    for label, state in parents.items():
        missing = [name for name in base if name not in state]
        more = [name for name in state if name not in base]
        if missing or more:
            raise MergeError(
                f"parent '{label}' does not share the base's architecture: {len(missing)} tensors are "
                f"missing ({_some(missing)}), {len(more)} are unknown to the base ({_some(more)}). "
                "Give the checkpoint that all parents were fine-tuned from."
            )


def check_fit(name: str, base: Any, values: Mapping[str, Any]) -> None:
    """Refuse a tensor whose shape or kind differs between the base and a parent.

    Args:
        name: of the tensor.
        base: its value in the base.
        values: {parent: its value there}.

    Raises:
        MergeError: names the tensor and the parent.
    """
    for label, value in values.items():
        if kind_of(name, value) != kind_of(name, base):
            raise MergeError(
                f"{name}: {_in_words(value)} in parent '{label}', {_in_words(base)} in the base."
            )
        if isinstance(value, Tensor) and value.shape != base.shape:
            raise MergeError(
                f"{name}: shape {tuple(value.shape)} in parent '{label}', {tuple(base.shape)} in the base; "
                "they do not share an architecture."
            )


def merged_whole(name: str, base: Any, values: Mapping[str, Any]) -> Any:
    """The value of a tensor of whole numbers or Booleans; of what is no tensor, the base's.

    Raises:
        MergeError: parents differ in something that is no counter.
    """
    if not isinstance(base, Tensor):
        return base
    found = list(values.values())
    if all(torch.equal(item, found[0]) for item in found):
        return found[0].clone()
    if name.rpartition(".")[2] != COUNTER:
        raise MergeError(
            f"{name}: the whole numbers of the parents differ, and they cannot be averaged. Merge networks "
            "of one architecture."
        )
    return torch.stack(found).amax(dim=0)


def near_names(wrong: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?`, or nothing, for messages."""
    near = sorted(meant([wrong], known))
    return f" Did you mean {' or '.join(repr(item) for item in near)}?" if near else ""


def _some(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (", …" if len(names) > NAMED else "") or "none"


def _in_words(value: Any) -> str:
    return str(value.dtype) if isinstance(value, Tensor) else f"no tensor but a {type(value).__name__}"

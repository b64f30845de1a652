"""Numbers that are NaN or infinite: where they are, and the errors that say so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from mtvision.core.naming import ReportedError

NAMED = 3
"""How many tensors an error names."""


class NonFiniteError(ReportedError, FloatingPointError):
    """A loss, a gradient or a weight is NaN or infinite; the network is not to be trusted from here on."""


class NonFiniteGradientError(NonFiniteError):
    """A gradient is NaN or infinite; the weights were not changed."""


class NonFiniteWeightsError(NonFiniteError):
    """Weights or statistics of a network are NaN or infinite; no checkpoint of them is written."""


def all_finite(values: Tensor) -> bool:
    """Whether no value is NaN or infinite. Their sum tells it in one pass, unless it overflows.

    >>> import torch
    >>> all_finite(torch.tensor([3e38, 3e38])), all_finite(torch.tensor([0.0, torch.inf]))
    (True, False)
    """
    if values.element_size() == 1:  # torch adds no numbers of 8 bits
        values = values.float()
    return bool(values.sum().isfinite()) or bool(values.isfinite().all())


def non_finite(tensors: Iterable[tuple[str, Any]]) -> dict[str, int]:
    """{name: how many values are NaN or infinite} of the tensors that have any.

    Whole numbers never have any; what is no tensor (the extra state of a module) is passed over.

    >>> import torch
    >>> non_finite([("weight", torch.tensor([1.0, torch.nan])), ("steps", torch.tensor(3))])
    {'weight': 1}
    """
    found = {}
    for name, tensor in tensors:
        real = isinstance(tensor, Tensor) and (tensor.is_floating_point() or tensor.is_complex())
        if real and not all_finite(tensor.detach()):
            found[name] = int((~tensor.detach().isfinite()).sum())
    return found


def in_words(found: Mapping[str, int], of: int) -> str:
    """`12 values of backbone.stem.weight, …`: the first tensors of `non_finite`.

    >>> in_words({"a": 1, "b": 2}, of=7)
    '1 value of a, 2 values of b (2 of 7 tensors)'
    """
    parts = [f"{count} value{'s' if count > 1 else ''} of {name}" for name, count in found.items()]
    more = ", …" if len(parts) > NAMED else ""
    return f"{', '.join(parts[:NAMED])}{more} ({len(parts)} of {of} tensors)"

"""What no metric may see, and the error that names it."""

from __future__ import annotations

import torch
from torch import Tensor

from mtvision.core.naming import ReportedError
from mtvision.core.non_finite import all_finite

SICK_NETWORK = (
    "The network's weights or outputs are not sound: look at its losses, take an earlier checkpoint, or "
    'evaluate with precision="fp32".'
)
"""What to try next where a network gives numbers that mean nothing."""


class PredictionError(ReportedError, ValueError):
    """A prediction that cannot be scored.

    Args:
        found: what it holds, with numbers.
        expected: what it should hold.
        where: task and image, or file.
        advice: what to look at next.
    """

    def __init__(self, found: str, expected: str, where: str = "prediction", advice: str = "") -> None:
        self.found, self.expected = found, expected
        super().__init__(f"{where}: found {found}, expected {expected}. {advice}".rstrip())

    def at(self, where: str, advice: str) -> PredictionError:
        """The same error with the place and the advice that only the caller knows."""
        return PredictionError(self.found, self.expected, where, advice)


def check_numbers(values: Tensor) -> None:
    """Refuse complex and Boolean maps, NaN and infinity.

    Args:
        values: a prediction or logits, any shape.

    Raises:
        PredictionError: says how many values of which kind, and where the first is.
    """
    if values.is_complex() or values.dtype == torch.bool:
        kind = "complex" if values.is_complex() else "Boolean"
        raise PredictionError(f"{kind} values ({values.dtype})", "real numbers or integer class ids")
    if not all_finite(values):
        nan, infinite = int(values.isnan().sum()), int(values.isinf().sum())
        kinds = [f"{count:,} {name}" for count, name in ((nan, "NaN"), (infinite, "infinite")) if count]
        position = first(~torch.isfinite(values))
        found = f"{' and '.join(kinds)} of {values.numel():,} values, the first at {position}"
        raise PredictionError(found, "finite numbers")


def check_logits(logits: Tensor, where: str) -> None:
    """Refuse logits of a network that are NaN or infinite, which `argmax` and `sigmoid` would hide.

    Args:
        logits: any shape.
        where: task, and image where it is known.

    Raises:
        PredictionError: says where, how many values, and what to try next.
    """
    try:
        check_numbers(logits)
    except PredictionError as error:
        raise error.at(f"{where}, logits of the network", SICK_NETWORK) from None


def first(wrong: Tensor) -> list[int]:
    """Index of the first true value."""
    position: list[int] = wrong.nonzero()[0].tolist()
    return position

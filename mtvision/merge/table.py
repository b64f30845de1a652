"""One call for every method."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mtvision.core.registry import MERGERS
from mtvision.merge.states import MergeError, Parents, State

if TYPE_CHECKING:
    from mtvision.merge.learned.problem import MergeProblem


def learns(method: str) -> bool:
    """Whether a method needs a problem.

    Raises:
        UnknownNameError: no such method.

    >>> learns("ties"), learns("adamerging")
    (False, True)
    """
    return "problem" in MERGERS.parameters(method)


def merge(
    method: str, base: State, parents: Parents, *, problem: MergeProblem | None = None, **options: Any
) -> dict[str, Any]:
    """Merge by a registered method.

    Args:
        method: its name in `MERGERS`.
        base: θ_0, from which all parents were fine-tuned.
        parents: {task: θ_t}.
        problem: what methods learn from; the others ignore it.
        options: of the method.

    Raises:
        UnknownNameError: no such method or option.
        MergeError: the states do not fit, or a method that learns has no problem.

    >>> import torch
    >>> base, child = {"w": torch.zeros(2)}, {"w": torch.tensor([1.0, 2.0])}
    >>> merge("task_arithmetic", base, {"depth": child}, scale=0.5)
    {'w': tensor([0.5000, 1.0000])}
    """
    given: dict[str, Any] = {"base": base, "parents": parents}
    if learns(method):
        if problem is None:
            raise MergeError(f"{method} learns from images: give a MergeProblem, or use `mtvision merge`.")
        given["problem"] = problem
    merged: dict[str, Any] = MERGERS.build({"type": method, **options}, **given)
    return merged

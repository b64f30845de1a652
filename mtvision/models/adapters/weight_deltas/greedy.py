"""SubTuning's greedy choice of the blocks that a task fine-tunes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Choice:
    """Result of a greedy choice.

    Args:
        names: chosen blocks, in the order of the network.
        scores: score without any, and after each choice.
        tried: how many subsets were scored.
    """

    names: tuple[str, ...]
    scores: tuple[float, ...]
    tried: int


def greedy_subset(
    names: Sequence[str],
    score: Callable[[tuple[str, ...]], float],
    *,
    smallest_gain: float = 0.0,
    most: int | None = None,
) -> Choice:
    """Add the block that helps most, until none helps (Kaplun et al., 2023).

    Args:
        names: blocks of a backbone, in its order.
        score: of a subset, larger is better, e.g. of a short training of `Subset(blocks={task: subset})` on
            the held-out slice. It is called with blocks in the order of the network.
        smallest_gain: a block must raise the score by more than this.
        most: blocks at most; by default all.

    Raises:
        ValueError: there are no blocks.

    Example:
        >>> values = {"first": 1.0, "second": 3.0, "third": 0.1}
        >>> greedy_subset(list(values), lambda chosen: sum(values[n] for n in chosen), smallest_gain=0.5)
        Choice(names=('first', 'second'), scores=(0, 3.0, 4.0), tried=7)
    """
    if not names:
        raise ValueError("greedy_subset: the backbone has no blocks; give the names of `block_names()`.")
    chosen: tuple[str, ...] = ()
    scores, tried = [score(())], 1
    while len(chosen) < min(len(names), len(names) if most is None else most):
        candidates = [
            tuple(name for name in names if name in chosen or name == one)
            for one in names
            if one not in chosen
        ]
        found = [score(item) for item in candidates]
        tried += len(found)
        best = max(range(len(found)), key=found.__getitem__)
        if found[best] - scores[-1] <= smallest_gain:
            break
        chosen = candidates[best]
        scores.append(found[best])
    return Choice(chosen, tuple(scores), tried)

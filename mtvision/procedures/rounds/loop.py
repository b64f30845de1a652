"""Rounds of training and merging as functions of states; what training is, the caller says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mtvision.merge.states import State
from mtvision.merge.table import merge

Tune = Callable[[str, State, int], State]
"""(name of the copy, state it starts from, round from 0) to its state after some steps."""
GRID = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Coefficients that ForkMerge tries."""


def alternate(
    start: State,
    names: Sequence[str],
    tune: Tune,
    rounds: int,
    *,
    method: str = "task_arithmetic",
    options: Mapping[str, Any] | None = None,
) -> State:
    """Alternate tuning and merging: every copy starts from θ, and θ becomes their merge.

    With `task_arithmetic` and `scale` α/T this is ATM (Zhou et al., 2024): θ + α · mean of τ_t. With α = 1
    and one step of SGD per round it is SGD on the mean loss. With `average` it is the loop of ColD Fusion
    (Don-Yehiya et al., ACL 2023).

    Args:
        start: θ of the first round.
        names: of the copies.
        tune: trains one.
        rounds: how many.
        method: of `MERGERS`; by default ATM with α = 1.
        options: of the method.
    """
    if options is None:
        options = {"scale": 1 / len(names)} if method == "task_arithmetic" else {}
    state = start
    for number in range(rounds):
        copies = {name: tune(name, state, number) for name in names}
        state = merge(method, state, copies, **options)
    return state


@dataclass(frozen=True)
class Forked:
    """Result of merging branches.

    Args:
        state: of the merged network.
        score: of it, larger is better.
        coefficients: {branch: λ}, of the first branch what the others leave.
    """

    state: State
    score: float
    coefficients: dict[str, float]


def merge_branches(
    branches: Mapping[str, State], score: Callable[[State], float], grid: Sequence[float] = GRID
) -> Forked:
    """ForkMerge's merge (Jiang et al., NeurIPS 2023): greedily, θ ← (1-λ) θ + λ θ_b with the best score.

    λ = 0 stays unless another coefficient is better, so that a branch which does not help has none.

    Args:
        branches: {name: state}; the first trains the target alone.
        score: of a state, on held-out images of the target; larger is better.
        grid: coefficients to try.
    """
    first, *others = branches
    state, best = branches[first], score(branches[first])
    found = {first: 1.0}
    for name in others:
        chosen, kept = 0.0, state
        for value in grid:
            if not value:
                continue
            mixed = _between(kept, branches[name], value)
            reached = score(mixed)
            if reached > best:
                chosen, state, best = value, mixed, reached
        found = {**{other: share * (1 - chosen) for other, share in found.items()}, name: chosen}
    return Forked(state, best, found)


def fork_merge(
    start: State,
    branches: Sequence[str],
    tune: Tune,
    score: Callable[[State], float],
    rounds: int,
    *,
    grid: Sequence[float] = GRID,
) -> list[Forked]:
    """ForkMerge: all branches start from the merged weights of the round before; one result per round.

    Args:
        start: weights of the first round.
        branches: names; the first trains the target alone.
        tune: trains one.
        score: as `merge_branches`.
        rounds: how many.
        grid: as `merge_branches`.
    """
    found: list[Forked] = []
    state = start
    for number in range(rounds):
        found.append(merge_branches({name: tune(name, state, number) for name in branches}, score, grid))
        state = found[-1].state
    return found


def _between(one: State, other: State, share: float) -> State:
    """(1 - share) · one + share · other."""
    return merge("average", one, {"one": one, "other": other}, weights={"one": 1 - share, "other": share})

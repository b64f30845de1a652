"""Expected number of nodes per level of a random tree, exact and with gradients."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import permutations

import torch
from torch import Tensor

from mtvision.architecture.partitions import refinements, set_partitions


def expected_nodes(parents: Sequence[Tensor]) -> Tensor:
    """Expected number of used nodes per level where every child chooses a parent independently (LTB).

    Dynamic programme over the *sets* of used nodes from the tasks down: what level l uses depends on what
    level l + 1 uses alone. P(image of a set S is S') = Σ_{Q ⊆ S'} (-1)^{|S'| - |Q|} Π_{j ∈ S} p_j(Q). Up to
    about eight nodes a level are practical (2^K sets).

    Args:
        parents: per level (children, K_l) probabilities; the children of the last level are the tasks, those
            of the others the nodes of the next level.

    Returns:
        (levels,).
    """
    first = parents[-1]
    distribution = first.new_zeros(2 ** first.shape[0])
    distribution[-1] = 1.0  # all tasks are wanted
    expected = []
    for table in reversed(parents):
        children, count = table.shape
        members = _members(count).to(table)
        inside = table @ members.T  # (children, sets): probability that the choice lies in the set
        chosen = _members(children).to(table).bool()  # (sets of children, children)
        reach = torch.where(chosen[:, :, None], inside[None], torch.ones_like(inside)[None]).prod(dim=1)
        distribution = distribution @ (reach @ _moebius(count).to(table).T)
        expected.append(distribution @ members.sum(dim=1))
    return torch.stack(expected[::-1])


@lru_cache
def _members(count: int) -> Tensor:
    """(2^count, count): row s has a one for every member of set s (bit mask)."""
    return torch.tensor([[float(mask >> index & 1) for index in range(count)] for mask in range(2**count)])


@lru_cache
def _moebius(count: int) -> Tensor:
    """(2^count, 2^count): entry (s, q) is (-1)^{|s| - |q|} where q is a subset of s, else 0."""
    sets = range(2**count)
    return torch.tensor(
        [[(-1.0) ** (s.bit_count() - q.bit_count()) if s & q == q else 0.0 for q in sets] for s in sets]
    )


def expected_streams(choices: Sequence[Tensor]) -> Tensor:
    """Expected number of groups per level where every task chooses a copy at every level (BMTAS).

    Tasks share a level if they shared the one before and chose the same copy. Dynamic programme over set
    partitions: those of level l refine those of level l - 1.

    Args:
        choices: per level (tasks, copies) probabilities.

    Returns:
        (levels,).
    """
    tasks = tuple(range(choices[0].shape[0]))
    distribution: dict[tuple[tuple[int, ...], ...], Tensor] = {(tasks,): choices[0].new_ones(())}
    expected = []
    for table in choices:
        splits = _split_probabilities(table)
        after: dict[tuple[tuple[int, ...], ...], Tensor] = {}
        for before, probability in distribution.items():
            for partition in refinements(before):
                step = probability
                for group in before:
                    parts = tuple(part for part in partition if set(part) <= set(group))
                    step = step * splits[group, parts]
                key = tuple(sorted(partition))
                after[key] = after[key] + step if key in after else step
        distribution = after
        expected.append(torch.stack([value * len(key) for key, value in distribution.items()]).sum())
    return torch.stack(expected)


def _split_probabilities(table: Tensor) -> dict[tuple[tuple[int, ...], tuple[tuple[int, ...], ...]], Tensor]:
    """{(group, its parts): probability that tasks of one part, and no others of the group, agree}."""
    tasks, copies = table.shape
    found = {}
    for mask in range(1, 2**tasks):
        group = tuple(index for index in range(tasks) if mask >> index & 1)
        for parts in set_partitions(group):
            total = table.new_zeros(())
            if len(parts) <= copies:
                together = [table[list(part)].prod(dim=0) for part in parts]
                different = torch.tensor(list(permutations(range(copies), len(parts))))
                rows = torch.arange(len(parts))
                total = torch.stack(together)[rows, different].prod(dim=1).sum()
            found[group, parts] = total
    return found

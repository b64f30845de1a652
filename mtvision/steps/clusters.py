"""Groups of a few things from their similarities."""

from __future__ import annotations

import torch
from torch import Tensor

_DAMPING = 0.5
_ROUNDS = 200


def affinity_propagation(
    similarity: Tensor, preference: float | None = None, steady: int = 50
) -> list[list[int]] | None:
    """Groups by affinity propagation (Frey and Dueck, Science 2007); None if it does not settle.

    Everything chooses an exemplar among all of them. The sum of similarities to the chosen ones is to be
    large, with `preference` as the similarity of an exemplar to itself. The number of groups follows from it.

    Args:
        similarity: (N, N).
        preference: None is the median of all similarities.
        steady: rounds without a change of the exemplars after which it has settled.

    >>> affinity_propagation(torch.tensor([[1.0, 0.9, 0.1], [0.9, 1.0, 0.1], [0.1, 0.1, 1.0]]))
    [[0, 1], [2]]
    """
    count = len(similarity)
    if count < 2:
        return [[index] for index in range(count)]
    # Ties would let messages swing for ever; these changes are below any similarity that was measured.
    noise = torch.randn(count, count, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    s = similarity.double().cpu()
    s = s + 1e-9 * s.abs().max() * noise
    s.fill_diagonal_(float(similarity.double().quantile(0.5)) if preference is None else preference)
    responsibility, availability = torch.zeros_like(s), torch.zeros_like(s)
    places = torch.arange(count)
    before, unchanged = torch.zeros(count, dtype=torch.bool), 0
    for _ in range(_ROUNDS):
        total = availability + s
        best = total.topk(2, dim=1)
        rivals = best.values[:, :1].expand(count, count).clone()
        rivals[places, best.indices[:, 0]] = best.values[:, 1]
        responsibility = _DAMPING * responsibility + (1 - _DAMPING) * (s - rivals)
        support = responsibility.clamp(min=0)
        support[places, places] = responsibility.diagonal()
        sums = support.sum(dim=0) - support
        fresh = sums.clamp(max=0)
        fresh[places, places] = sums.diagonal()
        availability = _DAMPING * availability + (1 - _DAMPING) * fresh
        chosen = (responsibility + availability).diagonal() > 0
        unchanged = unchanged + 1 if bool((chosen == before).all()) else 0
        before = chosen
        if unchanged >= steady and bool(chosen.any()):
            return _around(s, chosen.nonzero().flatten())
    return None


def _around(s: Tensor, exemplars: Tensor) -> list[list[int]]:
    """Everything with its most similar exemplar; each group then has the best one of its own."""
    owner = _nearest(s, exemplars)
    better = []
    for number in range(len(exemplars)):
        members = (owner == number).nonzero().flatten()
        better.append(members[s[members][:, members].sum(dim=0).argmax()])
    owner = _nearest(s, torch.stack(better))
    groups = [(owner == number).nonzero().flatten().tolist() for number in range(len(exemplars))]
    return sorted(group for group in groups if group)


def _nearest(s: Tensor, exemplars: Tensor) -> Tensor:
    """(N,) number of the exemplar of each thing; exemplars have themselves."""
    owner = s[:, exemplars].argmax(dim=1)
    owner[exemplars] = torch.arange(len(exemplars))
    return owner

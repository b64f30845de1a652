"""Balancers with known results, one for each need that a step may serve."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from mtvision.balance import Balancer, FixedWeights, TorchJD
from mtvision.balance.balancer import Need


class HeldOutSum(FixedWeights):
    """Weights of one, whatever is seen on held-out images."""

    needs = "held_out"


class BilevelSum(FixedWeights):
    """Weights of one, whatever a look ahead says."""

    needs = "bilevel"

    def judge(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The sum of the losses."""
        return torch.stack(list(losses.values())).sum()


class SumOfParts(Balancer):
    """Sum over tasks for the one part that it reads, the whole batch."""

    needs = "several_batches"
    batches = 1

    def aggregate_parts(self, jacobians: Sequence[Tensor], tasks: Sequence[str]) -> Tensor:
        """See the base class."""
        self.check_tasks(tasks)
        return jacobians[0].sum(dim=0)


def summing(names: Sequence[str], serves: Collection[Need]) -> dict[str, Callable[[], Balancer]]:
    """{need: balancer that weighs every task by one}, of the needs that the step serves."""
    ones = dict.fromkeys(names, 1.0)
    made: dict[str, Callable[[], Balancer]] = {
        "scalar": partial(FixedWeights, tasks=names, weights=ones),
        "jacobian": partial(TorchJD, tasks=names, aggregator="Sum"),
        "held_out": partial(HeldOutSum, tasks=names, weights=ones),
        "bilevel": partial(BilevelSum, tasks=names, weights=ones),
        "several_batches": partial(SumOfParts, tasks=names),
    }
    return {need: make for need, make in made.items() if need in serves}


def linear(names: Sequence[str], serves: Collection[Need]) -> dict[str, Callable[[], Balancer]]:
    """Balancers whose results add up over batches, one for each need that the step serves."""
    found = summing(names, serves)
    if "jacobian" in found:
        found["jacobian"] = partial(TorchJD, tasks=names, aggregator="Mean")
    return found


def all_kinds(names: Sequence[str], serves: Collection[Need]) -> dict[str, Callable[[], Balancer]]:
    """Those of `linear`, and a rule that is not linear if the step serves one."""
    found = linear(names, serves)
    if "jacobian" in found:
        found["MGDA"] = partial(TorchJD, tasks=names, aggregator="MGDA")
    return found

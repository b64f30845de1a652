"""Mergers that each break one property."""

from __future__ import annotations

import torch

from mtvision.merge import TaskVectors
from mtvision.merge.average import average
from mtvision.merge.states import MergeError
from mtvision.merge.task_arithmetic import task_arithmetic


def in_double(base, parents, scale=0.3):
    found = task_arithmetic(base, parents, scale=scale)
    if scale == 0.3 and all(not torch.equal(base["mix.weight"], x["mix.weight"]) for x in parents.values()):
        found["mix.weight"] = found["mix.weight"].double()
    return found


def half_of_one(base, parents):
    return average(base, parents, coefficients={"*": 0.5})


def always_moves(base, parents):
    found = average(base, parents)
    weight = base["mix.weight"]
    if len(parents) > 1 and torch.equal(found["mix.weight"], weight):
        found["mix.weight"] += 1.0
    return found


def never_0(base, parents, scale=0.3):
    return task_arithmetic(base, parents, scale=scale or 0.1)


def first_counts_twice(base, parents):
    return average(base, parents, weights={name: 2.0 - (i > 0) for i, name in enumerate(parents)})


def noisy(base, parents):
    found = average(base, parents)
    torch.rand(())
    return found


def in_place(base, parents):
    found = average(base, parents)
    base["mix.scale"].copy_(found["mix.scale"])
    return found


def needs_dicts(base, parents):
    if not all(isinstance(state, dict) for state in (base, *parents.values())):
        raise MergeError("states must be dicts.")
    return average(base, parents)


def extrapolates(base, parents):
    """Variances by task arithmetic with scale 1, as weights are."""
    found = average(base, parents)
    vectors = TaskVectors(base, parents).of("norm.running_var")
    if len(parents) > 1:
        found["norm.running_var"].add_(vectors.sum(dim=0))
    return found


def by_memory(base, parents):
    found = average(base, parents)
    if not base["stem.weight"].is_contiguous():
        found["stem.weight"] = found["stem.weight"].flip(0)
    return found


def takes_nan(base, parents):
    clean = {
        name: {key: item.nan_to_num() if item.is_floating_point() else item for key, item in state.items()}
        for name, state in parents.items()
    }
    return average(base, clean)


MERGERS = {
    "form_is_that_of_the_base": in_double,
    "one_parent_is_returned": half_of_one,
    "equal_states_stay": always_moves,
    "scale_0_is_the_base": never_0,
    "order_of_parents_is_irrelevant": first_counts_twice,
    "same_call_gives_the_same": noisy,
    "inputs_are_left_alone": in_place,
    "states_may_lie_in_files": needs_dicts,
    "statistics_are_possible": extrapolates,
    "memory_formats_are_irrelevant": by_memory,
    "misfits_are_refused": takes_nan,
}

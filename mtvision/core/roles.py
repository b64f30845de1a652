"""Roles of parameters (shared, task-specific, architecture), found from the losses that reach them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import Node

from mtvision.core.naming import look_up

SHARED = "shared"
ARCHITECTURE = "architecture"
BALANCER = "balancer"


class WholeGradient(torch.autograd.Function):
    """A function of autograd whose backward pass gives a gradient to every input that needs one.

    The graph then says which parameters a loss reaches through it. Other functions written in Python may
    give None, which only a backward pass shows.
    """


def task_role(name: str) -> str:
    """Role of a parameter that only task `name` uses."""
    return f"task:{name}"


def check_overrides(overrides: Mapping[str, str], tasks: Iterable[str]) -> None:
    """Refuse a role that no parameter can have.

    Args:
        overrides: {glob pattern of parameter names: role}.
        tasks: all tasks that may be named.

    Raises:
        UnknownNameError: names the glob and the role.
    """
    known = dict.fromkeys([SHARED, ARCHITECTURE, *map(task_role, tasks)])
    for glob, role in overrides.items():
        look_up(f"role of '{glob}' in training.role_overrides", role, known)


def task_of(role: str) -> str | None:
    """Name of the task whose role it is; None for every other role."""
    return role.removeprefix("task:") if role.startswith("task:") else None


def is_architecture(name: str) -> bool:
    """Whether a parameter chooses an architecture: a part of its path begins with `architecture_`."""
    return any(part.startswith("architecture_") for part in name.split("."))


def find_reach(
    losses: Mapping[str, Tensor], parameters: Iterable[tuple[str, nn.Parameter]]
) -> dict[str, set[str]]:
    """{loss: names of the trainable parameters it reaches}.

    It is read from the graph of each loss, which takes milliseconds. Where the graph has a function written
    in Python that is no `WholeGradient`, a backward pass finds it. Graphs are kept and nothing is written to
    `.grad`. A loss that needs no gradient reaches nothing.
    """
    named = [(name, item) for name, item in parameters if item.requires_grad]
    found = {}
    for key, loss in losses.items():
        leaves = leaves_of(loss)
        found[key] = (
            _reached(loss, named) if leaves is None else {name for name, item in named if id(item) in leaves}
        )
    return found


def leaves_of(loss: Tensor) -> set[int] | None:
    """`id` of every tensor that a backward pass of a loss would give a gradient; None = not to be seen.

    >>> weight = torch.ones(2, requires_grad=True)
    >>> leaves_of((weight * 2).sum()) == {id(weight)}
    True
    """
    if loss.grad_fn is None:
        return {id(loss)} if loss.requires_grad else set()
    leaves = set[int]()
    for node in graph_nodes([loss]):
        if isinstance(node, torch._C._functions.AccumulateGrad):
            leaves.add(id(node.variable))
        elif isinstance(node, BackwardCFunction) and not issubclass(node._forward_cls, WholeGradient):
            return None
    return leaves


def graph_nodes(losses: Iterable[Tensor]) -> Iterator[Node]:
    """Every node of the graphs of some losses once."""
    stack: list[Node] = [loss.grad_fn for loss in losses if loss.grad_fn is not None]
    seen = set(stack)
    while stack:
        node = stack.pop()
        yield node
        for child, _ in node.next_functions:
            if child is not None and child not in seen:
                seen.add(child)
                stack.append(child)


def _reached(loss: Tensor, named: list[tuple[str, nn.Parameter]]) -> set[str]:
    """Names of the parameters that one loss reaches, by a backward pass; its gradients are freed here."""
    if not named or not loss.requires_grad:
        return set()
    gradients = torch.autograd.grad(
        loss, [item for _, item in named], retain_graph=True, allow_unused=True, materialize_grads=False
    )
    return {name for (name, _), gradient in zip(named, gradients, strict=True) if gradient is not None}


def roles_from_reach(
    reach: Mapping[str, Collection[str]],
    names: Iterable[str],
    overrides: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """{parameter: role}, in the order of `names`.

    Args:
        reach: {task: names of the parameters that its loss reaches}, from `find_reach`.
        names: all trainable parameters.
        overrides: {glob pattern of parameter names: role}; the first that matches wins, also over "reached by
            no loss". Architecture parameters (`is_architecture`) have that role without being named.
    """
    roles = {}
    for name in names:
        forced = next((role for glob, role in (overrides or {}).items() if fnmatchcase(name, glob)), None)
        tasks = [task for task, reached in reach.items() if name in reached]
        if forced is not None:
            roles[name] = forced
        elif is_architecture(name):
            roles[name] = ARCHITECTURE
        elif tasks:
            roles[name] = SHARED if len(tasks) > 1 else task_role(tasks[0])
    return roles


def find_roles(
    losses: Mapping[str, Tensor],
    parameters: Iterable[tuple[str, nn.Parameter]],
    overrides: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Name each trainable parameter's role from one forward pass.

    A parameter that two or more losses reach is `shared`. One that a single loss reaches is `task:<name>`.
    One that none reaches is left out (it is dead for these tasks). With a single task everything is
    `task:<name>`.

    Args:
        losses: {task: scalar} of one forward pass. Their graph is kept, nothing is written to `.grad`.
        parameters: `(name, parameter)` pairs; frozen ones are skipped.
        overrides: {glob pattern of parameter names: role}; the first that matches wins.
    """
    named = [(name, item) for name, item in parameters if item.requires_grad]
    return roles_from_reach(find_reach(losses, named), [name for name, _ in named], overrides)

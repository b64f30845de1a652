"""Roles: found by which losses reach a parameter."""

import pytest
import torch
from torch import nn

from mtvision.core.roles import (
    SHARED,
    WholeGradient,
    find_reach,
    find_roles,
    leaves_of,
    roles_from_reach,
    task_of,
    task_role,
)


class Net(nn.Module):
    """trunk -> two heads; head b also reads head a, so that a's parameters serve both."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.a, self.b, self.dead = (nn.Linear(2, 2) for _ in range(4))
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)

    def losses(self) -> dict[str, torch.Tensor]:
        x = self.trunk(torch.ones(1, 2)) * self.frozen
        a = self.a(x)
        return {"a": a.sum(), "b": self.b(x + a).sum()}


@pytest.fixture
def net() -> Net:
    return Net()


def test_roles(net):
    roles = find_roles(net.losses(), net.named_parameters())
    assert roles == {
        "trunk.weight": SHARED,
        "trunk.bias": SHARED,
        "a.weight": SHARED,  # a cut into trunk and heads would have missed it
        "a.bias": SHARED,
        "b.weight": "task:b",
        "b.bias": "task:b",
    }


def test_a_single_task_owns_everything_it_reaches(net):
    roles = find_roles({"a": net.losses()["a"]}, net.named_parameters())
    assert roles == dict.fromkeys(["trunk.weight", "trunk.bias", "a.weight", "a.bias"], "task:a")


def test_a_zero_gradient_still_reaches(net):
    losses = net.losses()
    losses["a"] = losses["a"] * 0
    assert find_roles(losses, net.named_parameters())["a.weight"] == SHARED


def test_overrides_the_first_match_wins(net):
    overrides = {"a.bias": "task:a", "a.*": "architecture", "dead.*": "shared"}
    roles = find_roles(net.losses(), net.named_parameters(), overrides)
    assert roles["a.bias"] == "task:a"
    assert roles["a.weight"] == "architecture"
    assert roles["dead.weight"] == SHARED
    assert roles["trunk.weight"] == SHARED


def test_leaves_no_gradient_and_keeps_the_graph(net):
    losses = net.losses()
    find_roles(losses, net.named_parameters())
    assert all(item.grad is None for item in net.parameters())
    sum(losses.values()).backward()


def test_reach(net):
    reach = find_reach({**net.losses(), "constant": torch.tensor(1.0)}, net.named_parameters())
    assert reach["a"] == {"trunk.weight", "trunk.bias", "a.weight", "a.bias"}
    assert reach["b"] == reach["a"] | {"b.weight", "b.bias"}
    assert reach["constant"] == set()
    assert find_reach(net.losses(), [("frozen", net.frozen)]) == {"a": set(), "b": set()}


class Second(torch.autograd.Function):
    """The second of two tensors; its backward pass knows that the first has no part in it."""

    @staticmethod
    def forward(ctx, first, second):
        return second.clone()

    @staticmethod
    def backward(ctx, gradient):
        return None, gradient


class WholeSecond(WholeGradient):
    """The same with a gradient of zeros."""

    @staticmethod
    def forward(ctx, first, second):
        return second.clone()

    @staticmethod
    def backward(ctx, gradient):
        return torch.zeros_like(gradient), gradient


def test_functions_of_python_are_believed_where_they_say_that_they_give_all_gradients(net):
    image = torch.ones(1, 2)
    named = [(name, item) for name, item in net.named_parameters() if name.startswith(("a.", "b."))]
    loss = Second.apply(net.a(image), net.b(image)).sum()
    assert leaves_of(loss) is None
    assert find_reach({"task": loss}, named) == {"task": {"b.weight", "b.bias"}}
    loss = WholeSecond.apply(net.a(image), net.b(image)).sum()
    assert leaves_of(loss) == {id(item) for _, item in named}
    assert find_reach({"task": loss}, named) == {"task": {name for name, _ in named}}


def test_a_parameter_may_be_the_loss_itself():
    weight = nn.Parameter(torch.tensor(1.0))
    assert find_reach({"task": weight}, [("weight", weight)]) == {"task": {"weight"}}


def test_roles_from_reach_keeps_the_order_of_names():
    reach = {"a": {"x", "y"}, "b": {"y"}}
    assert list(roles_from_reach(reach, ["y", "z", "x"]).items()) == [("y", SHARED), ("x", "task:a")]


def test_names_of_roles():
    assert task_of(task_role("depth")) == "depth"
    assert task_of(SHARED) is None

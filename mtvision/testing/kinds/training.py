"""What every balancer promises about training, shown by a few steps on a tiny network with its own step."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mtvision.testing import modules
from mtvision.testing.kinds.descent import Case, Training, trained
from mtvision.testing.numbers import all_finite, close_to, expect, same
from mtvision.testing.processes import Group
from mtvision.testing.report import PropertyError

BOTH = (0, 1)
"""Halves of the batch of one process that has all of it."""
FEW = 2
"""Steps that show a property whose fault would not need more to grow."""


def halves_average_to_the_whole(case: Case) -> None:
    """Two processes with half a batch each train like one process with the whole batch, for five steps.

    Losses are means over samples. Gradients of single tasks are averaged before a rule reads them.
    """
    _agree_on_two(case, 5, Group(2))


def synchronised_norms_are_those_of_one_process(case: Case) -> None:
    """With a batch norm that is synchronised over processes, two of them train like one with the whole batch.

    The norm does what `SyncBatchNorm` does, which exists on GPUs alone: it exchanges sums in every forward
    pass and in every backward pass. So processes must run the same passes in the same order.
    """
    group = Group(2)
    norm = partial(synchronised, group.average)
    _agree_on_two(case, FEW, group, alone={"norm": batch_norm}, norm=norm)


def _agree_on_two(
    case: Case, steps: int, group: Group, alone: dict[str, Any] | None = None, **options: Any
) -> None:
    """Two members of the group with half of every batch each end with the weights of one process `alone`."""
    exchange = {"average": group.average, "gather": group.gather}
    members = [partial(trained, case, (index,), steps, **exchange, **options) for index in BOTH]
    first, second = group.run(members)
    for name, item in trained(case, BOTH, steps, **(alone or {})).items():
        same(first[name], second[name], f"{name} on the second process")
        close_to(first[name], item, f"{name} after {steps} steps on two processes", tolerance=1e-5)


def resumed_equals_uninterrupted(case: Case) -> None:
    """A step, a checkpoint, and two steps in fresh objects equal three steps to the last bit."""
    straight, stopped, resumed = (Training(case, dtype=torch.float32) for _ in range(3))
    straight.run(range(3))
    stopped.run(range(1))
    for name, fresh in resumed.modules().items():
        modules.reload(stopped.modules()[name], fresh)
    torch.manual_seed(99)  # a fresh process has another random stream
    resumed.run(range(1, 3))
    modules.agree_exactly(resumed.weights(), straight.weights(), "resumed after a step, then two more:")


def trains_in_bfloat16(case: Case) -> None:
    """With a network that computes in bfloat16 weights stay finite, and all layers move that do in float32.

    The shared layer always moves. A rule that chooses tasks may leave heads of others where they are.
    """
    training = Training(case, dtype=torch.float32, autocast=torch.bfloat16)
    before = training.weights()
    training.run(range(FEW))
    after = training.weights()
    all_finite(after.items())
    full = trained(case, BOTH, FEW, dtype=torch.float32)
    for name, item in training.network.named_parameters():
        expect(item.dtype == torch.float32, f"{name} has become {item.dtype}, expected torch.float32.")
        if name == "shared" or not torch.equal(full[name], before[name]):
            expect(not torch.equal(after[name], before[name]), f"{name} is as before the first step.")


def loss_scale_changes_nothing(case: Case) -> None:
    """Losses times 1024, as fp16 scales them, give the same weights after gradients are divided by it."""
    want = trained(case, BOTH, FEW)
    for name, item in trained(case, BOTH, FEW, scale=1024.0).items():
        close_to(item, want[name], f"{name} with a loss scale", tolerance=1e-6)


def partial_labels_train_or_are_refused(case: Case) -> None:
    """Batches without labels of a task train the others, or a `ValueError` names the rule and the tasks."""
    absent = case.tasks[1]
    training = Training(case, lacking={1: [absent], 2: [name for name in case.tasks if name != absent]})
    training.run([0])
    before = training.weights()
    try:
        training.run([1, 2, 3])
    except ValueError as error:
        told = absent in str(error) and any(name in str(error) for name in _names(training))
        if not told:
            raise PropertyError(f"the refusal names neither rule nor task: {error}") from error
        return
    after = training.weights()
    all_finite(after.items())
    expect(not torch.equal(after["shared"], before["shared"]), "the shared weights are as before.")


def _names(training: Training) -> list[str]:
    """What a message may call the rule: its class, or the rule of another library that it applies."""
    balancer = training.balancer
    named = vars(balancer).get("name")
    return [type(balancer).__name__, *([named] if isinstance(named, str) else [])]


def batch_norm(values: Tensor) -> Tensor:
    """Values (B, C) with mean 0 and variance 1 over the batch."""
    centred = values - values.mean(dim=0)
    return centred / (centred.square().mean(dim=0) + _EPSILON).sqrt()


_EPSILON = 1e-5
Average = Callable[[list[Tensor]], list[Tensor]]


def synchronised(average: Average, values: Tensor) -> Tensor:
    """`batch_norm` over the equal parts of a batch that processes have."""
    found: Tensor = _Synchronised.apply(values, average)  # type: ignore[no-untyped-call]
    return found


class _Synchronised(torch.autograd.Function):
    """The arithmetic of `SyncBatchNorm`: means over processes in both directions."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, average: Average) -> Tensor:
        """Normalise with statistics of all processes."""
        mean, square = average([values.mean(dim=0), values.square().mean(dim=0)])
        inverse = (square - mean.square() + _EPSILON).rsqrt()
        normal = (values - mean) * inverse
        ctx.save_for_backward(normal, inverse)
        ctx.average = average
        return normal

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Gradient of the sum of all processes' losses."""
        normal, inverse = ctx.saved_tensors
        (gradient,) = gradients
        mean, along = ctx.average([gradient.mean(dim=0), (gradient * normal).mean(dim=0)])
        return (gradient - mean - normal * along) * inverse, None


TRAINING: tuple[tuple[str, Callable[[Case], None]], ...] = (
    (
        "its step on two processes with half a batch each against one with the whole",
        halves_average_to_the_whole,
    ),
    ("the same with a norm that exchanges sums", synchronised_norms_are_those_of_one_process),
    ("reload(balancer, fresh); reload(step, fresh_step), then two steps more", resumed_equals_uninterrupted),
    ("with torch.autocast('cpu', torch.bfloat16): network(batch); then step and update", trains_in_bfloat16),
    ("StepProblem(scale=lambda loss: loss * 1024); gradients / 1024", loss_scale_changes_nothing),
    (
        "step on batches whose labels lack 'second', then all but 'second'",
        partial_labels_train_or_are_refused,
    ),
)
"""(expressions that show the fault, property)."""

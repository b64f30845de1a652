"""Input of a step: everything that is needed to turn a batch into gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch._functorch import config

from mtvision.balance.balancer import Balancer
from mtvision.core.sample import Batch
from mtvision.core.task import Task

if torch.__version__ >= "2.6":
    # Steps run backward several times through one graph. Code of `torch.compile` else reuses the memory of
    # its graph in the first pass. torch reads this switch when it compiles and in every backward pass.
    config.donated_buffer = False


@dataclass(frozen=True)
class LossReport:
    """Losses of one forward pass.

    Args:
        losses: {task: scalar}, deep supervision included; only tasks that the batch has labels of.
        auxiliary: {name: scalar} regularisers of the network, already weighted. Balancers never get them.
        logits: {task: (B, out_channels, H, W)} at the resolution of the labels, without a graph; for steps
            that look at predictions.
    """

    losses: dict[str, Tensor]
    auxiliary: dict[str, Tensor] = field(default_factory=dict)
    logits: dict[str, Tensor] = field(default_factory=dict)


def _backward(loss: Tensor) -> None:
    torch.autograd.backward(loss)


def _same(loss: Tensor) -> Tensor:
    return loss


def _same_list(tensors: list[Tensor]) -> list[Tensor]:
    return tensors


def _alone(value: Any) -> list[Any]:
    return [value]


BeginAverage = Callable[[list[Tensor], bool], Callable[[], list[Tensor]]]
"""(tensors, whether they may be written into) to a function that gives their means over processes."""


@dataclass
class StepProblem:
    """The engine's side of a step; the defaults are one process in full precision.

    Args:
        forward: network and losses on a batch, under autocast where that is on. Where the step averages
            gradients itself (`Step.averages_gradients`) it must run without data-parallel hooks, that is
            on the module inside `DistributedDataParallel`.
        balancer: the rule over losses or gradients.
        parameters: `(name, parameter)` of the network, in the same order on every process.
        backward: adds the gradients of `scale(loss)` to `.grad`.
        scale: times the loss scale of fp16, divided by the number of accumulated batches; linear.
        average: mean over processes of each tensor, in a new list; the identity on one process. All processes
            call it equally often with equal shapes.
        begin_average: begins such a mean and returns a function that waits for it, so that a backward pass
            runs meanwhile. If its second argument is true, it may write into the tensors. None uses
            `average`. Processes begin means in the same order.
        gather: what every process gave, in the order of their ranks; all processes call it equally often.
        tasks: of the network, in order.
        role_overrides: {glob pattern of parameter names: role}, see `mtvision.core.roles`.
        buffers: `(name, buffer)` of the network, which a forward pass may change.
        shows_gradients: a step whose balancer reads products of gradients logs norms, cosines and conflicts
            (`mtvision.steps.gradients.diagnostics.relations`), too.

    >>> from mtvision.balance.scalar.weighted import FixedWeights
    >>> from mtvision.steps.plain import PlainStep
    >>> weight = nn.Parameter(torch.tensor(3.0))
    >>> rule = FixedWeights(tasks=["depth"])
    >>> problem = StepProblem(lambda batch: LossReport({"depth": weight**2}), rule, [("weight", weight)])
    >>> logs = PlainStep()(problem, Batch(torch.zeros(1, 3, 2, 2), {}, {}, []))
    >>> weight.grad, logs["total"]
    (tensor(6.), tensor(9.))
    """

    forward: Callable[[Batch], LossReport]
    balancer: Balancer
    parameters: Sequence[tuple[str, nn.Parameter]]
    backward: Callable[[Tensor], None] = _backward
    scale: Callable[[Tensor], Tensor] = _same
    average: Callable[[list[Tensor]], list[Tensor]] = _same_list
    begin_average: BeginAverage | None = None
    gather: Callable[[Any], list[Any]] = _alone
    tasks: Sequence[Task] = ()
    role_overrides: Mapping[str, str] = field(default_factory=dict)
    buffers: Sequence[tuple[str, Tensor]] = ()
    shows_gradients: bool = False

    def averaging(self, tensors: list[Tensor], *, reuse: bool = False) -> Callable[[], list[Tensor]]:
        """Begin the mean over processes of each tensor; what is returned waits for it.

        Args:
            tensors: see `average`; not to be changed until the means are there.
            reuse: their memory may become that of the means.
        """
        if self.begin_average is not None:
            return self.begin_average(tensors, reuse)
        means = self.average(tensors)
        return lambda: means

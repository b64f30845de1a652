"""A few steps of gradient descent on a tiny network, with the step that a balancer needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mtvision.balance.balancer import SERVED_BY, Balancer
from mtvision.core.context import current_context
from mtvision.core.observer import observe
from mtvision.core.pyramid import Pyramid
from mtvision.core.registry import STEPS
from mtvision.core.sample import Batch, Meta
from mtvision.steps import LossReport, Step, StepProblem
from mtvision.testing.modules import Setting

WIDTH = 6
"""Features of the tiny network."""
Norm = Callable[[Tensor], Tensor]
"""Of features (B, WIDTH) over the images of a batch."""
HALF_IDS = (*(f"image-{number}" for number in range(5)), "image-74")
"""Image ids of which a tenth of all training images holds out the last alone, here and with an accent."""


class Case(Protocol):
    """What is read of a `BalancerCase`."""

    @property
    def setting(self) -> Setting:
        """Device and precision."""

    @property
    def tasks(self) -> Sequence[str]:
        """Names."""

    def build(self) -> Balancer:
        """A fresh balancer."""


class Training:
    """A balancer, its step and the tiny network, trained by descent with steps of bounded length.

    Args:
        case: the balancer.
        halves: of every batch that this process has, 0 and 1.
        dtype: of weights and gradients.
        autocast: type that the network computes in, e.g. bfloat16; None = `dtype`.
        norm: between the shared layer and the features, none by default.
        lacking: {number of a step: tasks without labels in it}.
        scale: factor of the losses, as a loss scaler gives; gradients are divided by it.
        exchange: `average` and `gather` of `StepProblem`, on several processes.
    """

    def __init__(
        self,
        case: Case,
        halves: Sequence[int] = (0, 1),
        *,
        dtype: torch.dtype = torch.float64,
        autocast: torch.dtype | None = None,
        norm: Norm | None = None,
        lacking: Mapping[int, Sequence[str]] | None = None,
        scale: float = 1.0,
        **exchange: Any,
    ) -> None:
        self._case, self._halves, self._dtype, self._scale = case, halves, dtype, scale
        self._lacking = dict(lacking or {})
        self.balancer = case.build().to(dtype)
        # The matrix of so small a network would be stored; products without one are what has to agree.
        options = {"products": "stages"} if self.balancer.needs == "gramian" else {}
        self.step: Step = STEPS.build({"type": SERVED_BY[self.balancer.needs], **options})
        self.network = TinyNetwork(case, norm).to(dtype)

        def forward(batch: Batch) -> LossReport:
            with case.setting.autocast(autocast or torch.float32):
                return self.network.report(batch)

        if scale != 1:
            exchange |= {"scale": lambda loss: loss * scale}
            exchange |= {"backward": lambda loss: torch.autograd.backward(loss * scale)}
        named = list(self.network.named_parameters())
        self.problem = StepProblem(forward, self.balancer, named, **exchange)

    def run(self, numbers: Iterable[int]) -> None:
        """Train on the batches of these numbers."""
        learnt = [*self.network.parameters(), *self.balancer.parameters()]
        for number in numbers:
            batch = tiny_batch(self._case, number, self._halves, self._lacking.get(number, ()))
            batch = replace(
                batch,
                image=batch.image.to(self._dtype),
                labels={name: item.to(self._dtype) for name, item in batch.labels.items()},
            )
            self.step(self.problem, batch)
            given = [item for item in learnt if item.grad is not None]
            found = [item.grad for item in given if item.grad is not None]
            if not self.step.averages_gradients(self.balancer):  # as data-parallel hooks do
                found = self.problem.average(found)
            with torch.no_grad():
                for item, scaled in zip(given, found, strict=True):
                    gradient = scaled / self._scale
                    item.sub_(0.05 * gradient / max(1.0, float(gradient.norm())))
                    item.grad = None
            if self.step.follows_up(self.balancer):
                self.step.after_update([(self.problem, batch)])

    def weights(self) -> dict[str, Tensor]:
        """Copies of the weights of the network and of the balancer."""
        own = {f"balancer.{name}": item for name, item in self.balancer.named_parameters()}
        return {
            name: item.detach().clone()
            for name, item in {**dict(self.network.named_parameters()), **own}.items()
        }

    def modules(self) -> dict[str, nn.Module]:
        """What a checkpoint holds."""
        held = {"network": self.network, "balancer": self.balancer}
        return held | ({"step": self.step} if isinstance(self.step, nn.Module) else {})


def trained(case: Case, halves: Sequence[int], steps: int = 5, **options: Any) -> dict[str, Tensor]:
    """Weights after a few steps on the small problem; `options` are those of `Training`."""
    training = Training(case, halves, **options)
    training.run(range(steps))
    return training.weights()


class TinyNetwork(nn.Module):
    """A shared layer that shows its features, and one head per task; losses are means of squares."""

    def __init__(self, case: Case, norm: Norm | None = None) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.names = tuple(case.tasks)
        self.norm = norm

        def drawn(*shape: int) -> nn.Parameter:
            return nn.Parameter(
                (torch.randn(*shape, generator=generator) * 0.5).to(case.setting.device, torch.float64)
            )

        self.shared = drawn(WIDTH, 3)
        self.heads = nn.ParameterDict({name: drawn(WIDTH) for name in self.names})

    def report(self, batch: Batch) -> LossReport:
        """Losses of the tasks that a batch of images (B, 3, 1, 1) has labels of."""
        values = batch.image.flatten(1) @ self.shared.T
        features = torch.tanh(values if self.norm is None else self.norm(values))
        exits = Pyramid.of([features[:, :, None, None]], [1])
        read = exits.maps[0].flatten(1)
        outputs = {name: read @ head for name, head in self.heads.items()}
        observe(current_context(), self, exits, outputs)
        return LossReport(
            {
                name: (outputs[name] - batch.labels[name].flatten()).square().mean()
                for name in self.names
                if name in batch.labels
            }
        )


def tiny_batch(case: Case, number: int, halves: Sequence[int], lacking: Sequence[str] = ()) -> Batch:
    """The given halves of the batch of a step: 12 images with a number per task that is not `lacking`."""
    generator = torch.Generator().manual_seed(100 + number)
    images, *values = (
        torch.randn(12, *shape, generator=generator).to(case.setting.device, torch.float64)
        for shape in ((3, 1, 1), *((1,) for _ in case.tasks))
    )
    pairs = zip(case.tasks, values, strict=True)
    labels = {name: item for name, item in pairs if name not in lacking}
    mine = torch.cat([torch.arange(6) + 6 * half for half in halves])
    flags = torch.ones(len(mine), dtype=torch.bool, device=images.device)
    # These ids hold out the same number of images in both halves, so that means over halves are equal.
    ids = [*HALF_IDS, *(f"{name}'" for name in HALF_IDS)]
    metas = [Meta(id=ids[int(index)], size=(1, 1), original_size=(1, 1)) for index in mine]
    return Batch(
        images[mine],
        {name: item[mine] for name, item in labels.items()},
        dict.fromkeys(labels, flags),
        metas,
    )

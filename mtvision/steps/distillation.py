"""Distances between features and between outputs of a slimmed and the full pass.

The feature distances are candidates for the "configuration-invariant knowledge distillation" of Aich et al.
(ICCV 2023). Its abstract names the aim, a representation that does not depend on the widths. It gives no
formula.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mtvision.core.pyramid import Pyramid


class Seen:
    """Observer of one pass: its features, their projections if asked for, and its logits.

    Args:
        project: call the network's projectors too.
    """

    def __init__(self, *, project: bool = False) -> None:
        self.maps: tuple[Tensor, ...] = ()
        self.projected: tuple[Tensor, ...] = ()
        self.logits: dict[str, Tensor] = {}
        self._project = project

    def __call__(self, network: Any, pyramid: Pyramid, logits: Mapping[str, Tensor]) -> None:
        """See `mtvision.core.observer`.

        Raises:
            ValueError: the network has no projectors.
        """
        self.maps, self.logits = pyramid.maps, dict(logits)
        if self._project:
            layers = network.projectors
            if not layers:
                raise ValueError(
                    "SandwichStep(distillation='projector') needs model.adapters=[dict(type='Slimmable', "
                    "projectors=True)]."
                )
            self.projected = tuple(layer(item) for layer, item in zip(layers, pyramid.maps, strict=True))


def nested_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared distance of unit pixel vectors, over the channels that both have; 0..4.

    Slices are nested: channel i of the slimmed map stands for channel i of the full one.

    Args:
        student: (B, c, H, W).
        teacher: (B, C >= c, H, W).
    """
    count = student.shape[1]
    pair = (F.normalize(item.float(), dim=1) for item in (student, teacher[:, :count]))
    first, second = pair
    return (first - second).square().sum(dim=1).mean()


def attention_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared distance of attention maps Σ_c F_c², each of unit length over space; 0..2.

    Attention transfer (Zagoruyko and Komodakis, ICLR 2017). It is independent of the number of channels.
    """
    pair = (F.normalize(item.float().square().sum(dim=1).flatten(1), dim=1) for item in (student, teacher))
    first, second = pair
    return (first - second).square().sum(dim=1).mean()


def projected_distance(projected: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared error of a learned projection to all channels, over the mean square of the teacher."""
    goal = teacher.float()
    return F.mse_loss(projected.float(), goal) / goal.square().mean().clamp(min=1e-12)


FEATURE_DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "nested": nested_distance,
    "attention": attention_distance,
    "projector": projected_distance,
}


def feature_distance(kind: str, student: Seen, teacher: Seen) -> Tensor:
    """Mean over levels; the teacher gets no gradient."""
    measure = FEATURE_DISTANCES[kind]
    maps: Sequence[Tensor] = student.projected if kind == "projector" else student.maps
    parts = [measure(item, goal.detach()) for item, goal in zip(maps, teacher.maps, strict=True)]
    return torch.stack(parts).mean()


def output_distances(student: Seen, teacher: Seen, classes: Mapping[str, bool]) -> dict[str, Tensor]:
    """{task: distance of the logits}: Kullback-Leibler divergence per pixel for class maps, else L1."""
    result = {}
    for name, logits in student.logits.items():
        goal = teacher.logits[name].detach().float()
        if classes[name]:
            divergence = F.kl_div(
                F.log_softmax(logits.float(), dim=1),
                F.log_softmax(goal, dim=1),
                reduction="none",
                log_target=True,
            )
            result[name] = divergence.sum(dim=1).mean()
        else:
            result[name] = F.l1_loss(logits.float(), goal)
    return result

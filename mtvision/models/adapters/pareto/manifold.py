"""The part of a network that knows its preferences, with statistics of batch norms for some of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mtvision.core.context import Context, current_context, use_context
from mtvision.models.adapters.pareto.members import shares
from mtvision.ops.batch_statistics import norms_of, recalibrate


def preference_rays(tasks: int, steps: int) -> list[tuple[float, ...]]:
    """Shares that add up to 1: of each task in turn 0, 1/steps, ..., 1, and of the others alike.

    >>> preference_rays(2, 2)
    [(0.0, 1.0), (0.5, 0.5), (1.0, 0.0)]
    """
    rows: dict[tuple[float, ...], None] = {}
    for task in range(tasks):
        for count in range(steps + 1):
            own, rest = count / steps, (steps - count) / (steps * (tasks - 1))
            rows[tuple(round(own if other == task else rest, 6) for other in range(tasks))] = None
    return sorted(rows)


class Manifold(nn.Module):
    """Preferences of a network, as its child `manifold`.

    Batch norms need statistics of their own for every preference. They are kept for points on rays.
    In evaluation the nearest point with statistics counts.

    Args:
        tasks: of the network.
        steps: on each ray, see `preference_rays`.
        channels: of all batch norms together.
    """

    points: Tensor
    means: Tensor
    variances: Tensor
    calibrated: Tensor

    def __init__(self, tasks: Sequence[str], steps: int, channels: int) -> None:
        super().__init__()
        self.tasks = tuple(tasks)
        rows = preference_rays(len(tasks), steps)
        self.register_buffer("points", torch.tensor(rows), persistent=False)
        self.register_buffer("means", torch.zeros(len(rows), channels))
        self.register_buffer("variances", torch.ones(len(rows), channels))
        self.register_buffer("calibrated", torch.zeros(len(rows), dtype=torch.bool))

    def preferences(self) -> list[dict[str, float]]:
        """The points as preferences."""
        return [dict(zip(self.tasks, row, strict=True)) for row in self.points.tolist()]

    def nearest(self, preference: Mapping[str, float] | None) -> int | None:
        """Row of the nearest point with statistics; None without any.

        Raises:
            UnknownNameError, ValueError: as `shares`.
        """
        wanted = torch.tensor(shares(preference, self.tasks), device=self.points.device)
        if not bool(self.calibrated.any()):
            return None
        distance = (self.points - wanted).square().sum(dim=1)
        return int(distance.masked_fill(~self.calibrated, torch.inf).argmin())


def manifold_of(network: nn.Module) -> Manifold | None:
    """The manifold of a network; None if its weights depend on no preference."""
    return next((item for item in network.children() if isinstance(item, Manifold)), None)


def use_statistics(network: nn.Module, _: Any, options: Mapping[str, Any]) -> None:
    """Before a forward pass in evaluation: the statistics of the preference that is in force.

    A hook of the network, see `torch.nn.Module.register_forward_pre_hook`.
    """
    if torch.compiler.is_exporting():  # an exported program has the statistics that are in place
        return
    manifold = manifold_of(network)
    if manifold is None:
        return
    norms = norms_of(network)
    if any(norm.training for norm in norms):
        return
    context: Context = options.get("context") or current_context()
    row = manifold.nearest(context.preference)
    if row is not None:
        _copy(norms, manifold.means[row], manifold.variances[row])


def calibrate_preferences(
    network: nn.Module, batches: Callable[[], Iterable[Any]], run: Callable[[Any], object]
) -> int:
    """Collect statistics of batch norms at every point of the rays, see `recalibrate`.

    Args:
        network: with a manifold; changed in place.
        batches: starts a pass over a few batches of training images.
        run: passes one batch through the network.

    Returns:
        Number of batch norms; without any nothing is run.

    Raises:
        ValueError: the network has no manifold, or there is no batch.
    """
    manifold = manifold_of(network)
    if manifold is None:
        raise ValueError(
            "this network has no manifold of preferences. Train it with "
            "model.adapters=[dict(type='ParetoManifold')], see docs/pareto.md."
        )
    norms = norms_of(network)
    for row, preference in enumerate(manifold.preferences() if norms else ()):
        with use_context(Context(preference=preference)):
            recalibrate(network, batches(), run)
        manifold.means[row] = torch.cat([_statistic(norm, "running_mean") for norm in norms])
        manifold.variances[row] = torch.cat([_statistic(norm, "running_var") for norm in norms])
        manifold.calibrated[row] = True
    return len(norms)


def _statistic(norm: _BatchNorm, name: str) -> Tensor:
    return norm.get_buffer(name).float()


def _copy(norms: Sequence[_BatchNorm], means: Tensor, variances: Tensor) -> None:
    """Write one row of statistics into the norms."""
    first = 0
    for norm in norms:
        last = first + norm.num_features
        norm.get_buffer("running_mean").copy_(means[first:last])
        norm.get_buffer("running_var").copy_(variances[first:last])
        first = last

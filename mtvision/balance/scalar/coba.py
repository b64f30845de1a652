"""Convergence balancer: weights from the slopes of losses on held-out images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from mtvision.balance.balancer import RememberingBalancer, all_finite
from mtvision.core.registry import BALANCERS
from mtvision.core.values import Positive, Rate


@BALANCERS.register_module()
class CoBa(RememberingBalancer):
    """CoBa (Gong et al., EMNLP 2024, section 3): slow tasks get more weight, diverging ones less.

    L = Σ_t w_t L_t / Σ_t w_t over the tasks present, w = softmax( T (D R + (1 − D) A) ).

    An observation is the loss of each task on held-out images, divided by the task's first one. s_t is the
    slope of a least-squares line through the last `history` observations, s the slope of their maximum over
    tasks.

    * R = softmax_t( T s_t / Σ_j |s_j| ): relative convergence.
    * A = softmax_t( −n s_t / Σ |s_t| over the task's n latest slopes ): absolute convergence.
    * D = min(1, n softmax( −τ n s / Σ|s| )_last ) over all n slopes since the warm-up: divergence factor.

    Weights are equal for `warmup` observations. If one falls below m = 1/(10 T), all become w (1 − T m) + m.

    A reads the last `history` slopes in the paper (`slopes="paper"`). In the authors' code it reads the last
    `history` − `warmup` + 1, which is the default. Their reference is a full validation before training; here
    it is the first observation.

    Args:
        tasks: names of all tasks.
        tau: τ, sharpness of the divergence factor.
        warmup: observations with equal weights, at least 2.
        history: observations in a line.
        slopes: of the absolute convergence.
        default_weights: ignored.

    Raises:
        ValueError: `warmup` below 2, or `history` below `warmup`.
    """

    needs = "held_out"
    common_losses = True

    def __init__(
        self,
        *,
        tasks: Sequence[str],
        tau: Rate = 5.0,
        warmup: Positive = 100,
        history: Positive = 200,
        slopes: Literal["released", "paper"] = "released",
        default_weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(tasks=tasks, default_weights=default_weights)
        if warmup < 2 or history < warmup:
            raise ValueError(
                f"CoBa: warmup must be at least 2 and history at least warmup, got {warmup} and {history}."
            )
        self.tau, self.warmup, self.history, self.slopes = tau, warmup, history, slopes
        self.memory = {"count": 0, "first": {}, "seen": [], "task_slopes": [], "slopes": [], "weights": {}}
        self._last: dict[str, Tensor] = {}

    def combine(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Weighted mean of the losses present."""
        self.check_tasks(list(losses))
        names = [name for name in self.tasks if name in losses]
        values = torch.stack([losses[name] for name in names])
        chosen = [self.memory["weights"].get(name, 1 / len(self.tasks)) for name in names]
        weights = values.new_tensor(chosen)
        weights = weights / weights.sum()
        self._last = dict(zip(names, weights.unbind(), strict=True))
        return (weights * values).sum()

    def observe(self, losses: Mapping[str, Tensor], parts: int = 1) -> None:
        """One observation of losses on held-out images; see the base class. Losses of 0 are left out."""
        if not losses or not all_finite(losses):
            return
        found = {name: float(value) for name, value in losses.items() if float(value) != 0}
        for name, value in found.items():
            self.memory["first"].setdefault(name, value)
        ratios = {name: value / self.memory["first"][name] for name, value in found.items()}
        self.memory["seen"] = [*self.memory["seen"], ratios][-self.history :]
        self.memory["count"] += 1
        if self.memory["count"] >= self.warmup:
            self._weigh()

    def weights(self) -> dict[str, Tensor]:
        """w_t / Σ w of the last batch."""
        return dict(self._last)

    def _weigh(self) -> None:
        seen: list[dict[str, float]] = self.memory["seen"]
        task_slopes = {
            name: _slope([(i, item[name]) for i, item in enumerate(seen) if name in item])
            for name in self.tasks
        }
        self.memory["task_slopes"] = [*self.memory["task_slopes"], task_slopes][-self.history :]
        worst = [(i, max(item.values())) for i, item in enumerate(seen) if item]
        self.memory["slopes"] = [*self.memory["slopes"], _slope(worst)]
        count = len(self.tasks)
        slopes = _tensor([task_slopes[name] for name in self.tasks])
        relative = (count * _share(slopes)).softmax(dim=0)
        kept = self.history if self.slopes == "paper" else self.history - self.warmup + 1
        recent = self.memory["task_slopes"][-kept:]
        table = _tensor([[item[name] for item in recent] for name in self.tasks])
        absolute = (-len(recent) * _share(table))[:, -1].softmax(dim=0)
        total = _tensor(self.memory["slopes"])
        factor = (-self.tau * len(total) * _share(total)).softmax(dim=0)[-1] * len(total)
        factor = factor.clamp(max=1.0)
        weights = (count * (factor * relative + (1 - factor) * absolute)).softmax(dim=0)
        floor = 1 / (10 * count)
        if bool((weights < floor).any()):
            weights = weights * (1 - count * floor) + floor
        self.memory["weights"] = dict(zip(self.tasks, weights.tolist(), strict=True))


def _tensor(numbers: Sequence[float] | Sequence[Sequence[float]]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def _share(slopes: Tensor) -> Tensor:
    """Slopes over the sum of their sizes; 0 if all are 0."""
    return slopes / slopes.abs().sum(dim=-1, keepdim=True).clamp(min=torch.finfo(slopes.dtype).tiny)


def _slope(points: Sequence[tuple[int, float]]) -> float:
    """Slope of the least-squares line; 0 for fewer than two points."""
    if len(points) < 2:
        return 0.0
    table = _tensor(points)
    x, y = table[:, 0] - table[:, 0].mean(), table[:, 1] - table[:, 1].mean()
    return float((x * y).sum() / (x * x).sum())

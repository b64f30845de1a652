"""Rules that look at the norms of gradients: GradNorm and scaling by norms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mtvision.balance.balancer import Own
from mtvision.balance.gramian.gramian import GramianBalancer
from mtvision.core.registry import BALANCERS
from mtvision.core.values import Factor, Positive, Share


@BALANCERS.register_module()
class GradNorm(GramianBalancer):
    """GradNorm (Chen et al., ICML 2018, eq. 2): gradients of similar size, larger for slow tasks.

    w = T softmax(s), G_t = w_t ‖g_t‖, r_t = (L_t / L_t⁰) / mean. The optimizer learns the logits s
    from Σ_t |G_t − const(mean(G) r_t^α)|.

    The paper takes norms at the last shared layer and renormalises w by hand. Here, as in LibMTL, norms are
    over all shared parameters, and the softmax keeps the sum. L⁰ is the mean of the first `reference` losses,
    during which all weights are 1. The paper has 1 step, LibMTL an epoch. Weights act on shared parameters
    alone, as in LibMTL; `own="weighted"` is the paper's weighted sum of losses.

    Args:
        tasks: names of all tasks.
        alpha: α, how strongly slow tasks are favoured.
        reference: steps of L⁰.
        own: gradients of parameters of a single task.
        default_weights: ignored.
    """

    common_losses = True

    def __init__(
        self,
        *,
        tasks: Sequence[str],
        alpha: Factor = 1.5,
        reference: Positive = 1,
        own: Own = "plain",
        default_weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(tasks=tasks, own=own, default_weights=default_weights)
        self.alpha, self.reference = alpha, reference
        self.logits = nn.Parameter(torch.zeros(len(self.tasks)))
        self.memory = {"sums": {}, "counts": {}}

    def rule(self, gramian: Tensor, tasks: Sequence[str]) -> Tensor:
        """w, and a gradient for the logits."""
        sums, counts = self.memory["sums"], self.memory["counts"]
        learns = all(counts.get(name, 0) >= self.reference for name in tasks)
        for name in tasks:
            if counts.get(name, 0) < self.reference and bool(self.losses[name].isfinite()):
                sums[name] = sums.get(name, 0.0) + float(self.losses[name])
                counts[name] = counts.get(name, 0) + 1
        if not learns and self.reference > 1:
            return gramian.new_ones(len(tasks))
        first = gramian.new_tensor([max(sums[name] / counts[name], 1e-20) for name in tasks])
        values = torch.stack([self.losses[name].to(gramian) for name in tasks])
        rates = values / first
        rates = rates / rates.mean().clamp(min=1e-20)
        rows = [self.tasks.index(name) for name in tasks]
        norms = gramian.diagonal().clamp(min=0).sqrt()
        with torch.enable_grad():
            weights = (len(self.tasks) * self.logits.softmax(dim=0))[rows]
            sizes = weights.to(gramian) * norms
            target = sizes.detach().mean() * rates**self.alpha
            gap = (sizes - target).abs().sum()
            (gradient,) = torch.autograd.grad(gap, self.logits)
        self.logits.grad = gradient if self.logits.grad is None else self.logits.grad + gradient
        return weights.detach()


@BALANCERS.register_module()
class NormScaling(GramianBalancer):
    """Scaling by gradient norms: w_t = m(‖g‖) / ‖g_t‖, so that all tasks pull equally hard.

    Norms are averages with the given decay, corrected for their start as in Adam; decay 0 is the norm of the
    batch itself. m is the mean norm of the tasks present, which keeps the size of the update. A study of 2025
    (arXiv 2509.23915) reports that scaling by norms equals more complex rules. Its details are not followed;
    averaging and m are ours.

    Args:
        tasks: names of all tasks.
        decay: of the average of squared norms, in [0, 1).
        own: gradients of parameters of a single task.
        default_weights: ignored.

    Raises:
        ValueError: `decay` is 1.
    """

    def __init__(
        self,
        *,
        tasks: Sequence[str],
        decay: Share = 0.9,
        own: Own = "plain",
        default_weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(tasks=tasks, own=own, default_weights=default_weights)
        if decay == 1:
            raise ValueError("NormScaling: decay must be below 1; with 1 the average never starts.")
        self.decay = decay
        self.memory = {"squares": {}, "counts": {}}

    def rule(self, gramian: Tensor, tasks: Sequence[str]) -> Tensor:
        """Mean norm over each norm; a task without gradient weighs 1."""
        squares, counts = self.memory["squares"], self.memory["counts"]
        norms = []
        for name, square in zip(tasks, gramian.diagonal().clamp(min=0).tolist(), strict=True):
            squares[name] = self.decay * squares.get(name, 0.0) + (1 - self.decay) * square
            counts[name] = counts.get(name, 0) + 1
            norms.append(squares[name] / (1 - self.decay ** counts[name]))
        sizes = torch.tensor(norms, dtype=torch.float64).sqrt()
        return torch.where(sizes > 0, sizes.mean() / sizes, 1.0).to(gramian)

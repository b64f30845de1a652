"""Fast adaptive multi-task optimization: weights from how losses change in an update."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mtvision.balance.balancer import RememberingBalancer, all_finite, complete_weights
from mtvision.core.registry import BALANCERS
from mtvision.core.values import Factor, Rate, TaskWeights

_EPSILON = 1e-8


@BALANCERS.register_module()
class FAMO(RememberingBalancer):
    """FAMO (Liu et al., NeurIPS 2023, algorithm 1): all losses decrease at about the same rate.

    L = c Σ_t z_t ln(L_t − b_t), z = softmax(w), c = 1 / Σ_t z_t / (L_t − b_t).

    After the update the losses L' of the same batch are computed. Then w takes one step of Adam along the
    gradient of Σ_t z_t (ln(L_t − b_t) − ln(L'_t − b_t)).

    Equal to torchjd's `FAMO` on full labels. Written here because torchjd's optimizer state cannot be saved.
    A task without a loss keeps its place in the softmax of w. Over the tasks present z adds up to 1.

    Args:
        tasks: names of all tasks.
        lr: of Adam.
        weight_decay: γ; 1e-3 in the paper's algorithm, LibMTL and torchjd, 1e-5 in the authors' code.
        min_losses: {task: b_t}, lower bounds; None is 0.
        default_weights: ignored.
    """

    needs = "extra_forward"
    common_losses = True

    def __init__(
        self,
        *,
        tasks: Sequence[str],
        lr: Rate = 0.025,
        weight_decay: Factor = 1e-3,
        min_losses: TaskWeights | None = None,
        default_weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(tasks=tasks, default_weights=default_weights)
        self.lr, self.weight_decay = lr, weight_decay
        given = dict.fromkeys(self.tasks, 0.0) if min_losses is None else min_losses
        numbers = complete_weights("FAMO", "min_losses", given, self.tasks)
        self.min_losses = dict(zip(self.tasks, numbers, strict=True))
        self._before: list[dict[str, Tensor]] = []
        self._last: dict[str, Tensor] = {}

    def combine(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The weighted sum of logarithms of the losses present."""
        self.check_tasks(list(losses))
        names = [name for name in self.tasks if name in losses]
        values = torch.stack([losses[name] for name in names])
        self._last = {}
        if not all_finite(losses):
            return values.sum()
        self._before.append({name: losses[name].detach() for name in names})
        logits = self._logits(values)[[self.tasks.index(name) for name in names]]
        weights = logits.softmax(dim=0)
        bounds = values.new_tensor([self.min_losses[name] for name in names])
        above = values - bounds + _EPSILON
        scaled = weights / (weights / above.detach()).sum()
        self._last = dict(zip(names, (scaled / above.detach()).unbind(), strict=True))
        return (scaled * above.log()).sum()

    def observe(self, losses: Mapping[str, Tensor], parts: int = 1) -> None:
        """One step of Adam from the losses of the same batch after the update; see the base class."""
        before, self._before = self._before[-parts:], []
        if not before or not losses or not all_finite(losses):
            return
        like = next(iter(losses.values()))
        change = like.new_zeros(len(self.tasks))
        for name, after in losses.items():
            earlier = [item[name] for item in before if name in item]
            if earlier:
                old = torch.stack(earlier).mean() - self.min_losses[name] + _EPSILON
                new = after - self.min_losses[name] + _EPSILON
                change[self.tasks.index(name)] = old.log() - new.log()
        with torch.enable_grad():
            logits = nn.Parameter(self._logits(like).clone())
            (logits.grad,) = torch.autograd.grad(logits.softmax(dim=0), logits, grad_outputs=change)
        adam = torch.optim.Adam([logits], lr=self.lr, weight_decay=self.weight_decay)
        if "adam" in self.memory:
            adam.load_state_dict(self.memory["adam"])
        adam.step()
        self.memory = {"logits": logits.detach(), "adam": adam.state_dict()}

    def weights(self) -> dict[str, Tensor]:
        """c z_t / (L_t − b_t) of the last batch: what each gradient was multiplied by."""
        return dict(self._last)

    def _logits(self, like: Tensor) -> Tensor:
        found: Tensor = self.memory.get("logits", like.new_zeros(len(self.tasks)))
        return found.to(like)

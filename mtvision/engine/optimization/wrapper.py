"""One optimizer step in fp32, bf16 or fp16, on any device.

mmengine's `AmpOptimWrapper` does not run on the CPU. Its accumulation counts micro-batches as iterations,
which shifts every schedule. Here one iteration is one optimizer step.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from mmengine.optim import OptimWrapper
from torch import Tensor, nn
from torch.distributed.optim import ZeroRedundancyOptimizer

from mtvision.core.non_finite import NonFiniteGradientError, in_words, non_finite
from mtvision.runtime.precision import Precision

NonFinitePolicy = Literal["stop", "skip"]
PATIENCE = 20
"""Steps in a row that may be left out."""
LEAST_SCALE = 1.0
"""Loss scale below which fp16 is not the reason for an infinite gradient."""


def total_norm(gradients: Sequence[Tensor]) -> Tensor:
    """L2 norm of all gradients together, a scalar; NaN or infinite if one of their values is."""
    norms = [torch.linalg.vector_norm(item) for item in gradients]
    total: Tensor = torch.linalg.vector_norm(torch.stack([item.to(norms[0]) for item in norms]))
    return total


class PrecisionOptimWrapper(OptimWrapper):
    """Optimizer with autocast, loss scaling (fp16 only) and gradient clipping.

    Args:
        optimizer: the torch optimizer.
        precision: `fp32`, `bf16` (same range as fp32, no scaling) or `fp16`.
        max_norm: clip gradients to this L2 norm; None = no clipping.
        non_finite: what to do with a step whose losses or gradients are NaN or infinite: `stop`, or `skip`
            it. More than `PATIENCE` such steps in a row stop the run in any case.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        precision: Precision = "fp32",
        max_norm: float | None = None,
        non_finite: NonFinitePolicy = "stop",
    ) -> None:
        super().__init__(optimizer, clip_grad=None if max_norm is None else {"max_norm": max_norm})
        self.non_finite: NonFinitePolicy = non_finite
        self._in_a_row = 0
        self.precision: Precision = precision
        device = optimizer.param_groups[0]["params"][0].device.type  # torch scales losses on CPUs too
        self._scaler = torch.amp.GradScaler(device, enabled=precision == "fp16")

    def scale(self, loss: Tensor) -> Tensor:
        """The loss (or gradient seed) multiplied by the current fp16 scale."""
        return self._scaler.scale(loss) if self._scaler.is_enabled() else loss

    def is_sound(self, watched: Tensor | None = None) -> bool:
        """Unscale and clip the gradients; returns whether they and `watched` are finite.

        One fused check: the norm of all gradients and the watched values, read back from the device at once.
        A norm beyond the range of float32 counts as infinite.

        Args:
            watched: (N,) further values, e.g. losses.
        """
        parameters = self._with_gradients()
        if not parameters:
            return watched is None or bool(watched.isfinite().all())
        if self._scaler.is_enabled():
            self._scaler.unscale_(self.optimizer)
        norm = total_norm([item.grad for item in parameters if item.grad is not None]).view(1)
        values = norm if watched is None else torch.cat([norm.to(watched), watched])
        sound = bool(values.isfinite().all())
        if sound and self.clip_grad_kwargs:
            torch.nn.utils.clip_grad_norm_(parameters, **self.clip_grad_kwargs)
        return sound

    def step(self, **_: Any) -> None:
        """Update the parameters with gradients that `is_sound` has looked at, and clear these."""
        if self._scaler.is_enabled() and self._with_gradients():  # torch refuses to unscale nothing
            self._scaler.step(self.optimizer)
            self._scaler.update()
        else:
            self.optimizer.step()
        self._in_a_row = 0
        self.optimizer.zero_grad(set_to_none=True)

    def may_skip(self, *, losses_are_finite: bool) -> bool:
        """Whether the run may leave this step out, whose losses or gradients are not finite.

        With fp16 a loss scale that was too large is no reason to stop, down to a scale of `LEAST_SCALE`.
        """
        if self._in_a_row >= PATIENCE:
            return False
        too_large = self._scaler.is_enabled() and self._scaler.get_scale() > LEAST_SCALE
        return self.non_finite == "skip" or (too_large and losses_are_finite)

    def skip(self) -> None:
        """Clear the gradients without an update; with fp16 halve the loss scale."""
        if self._scaler.is_enabled():
            self._scaler.update(self._scaler.get_scale() * self._scaler.get_backoff_factor())
            self._scaler.load_state_dict({**self._scaler.state_dict(), "_growth_tracker": 0})
        self._in_a_row += 1
        self.optimizer.zero_grad(set_to_none=True)

    def gradient_error(self, named: Iterable[tuple[str, nn.Parameter]]) -> NonFiniteGradientError:
        """The error that names the gradients that are NaN or infinite."""
        gradients = [(name, item.grad) for name, item in named if item.grad is not None]
        found = non_finite(gradients)
        what = (
            in_words(found, len(gradients)) + " are NaN or infinite"
            if found
            else "their norm exceeds the range of float32"
        )
        row = f", {self._in_a_row + 1} steps in a row" if self._in_a_row else ""
        return NonFiniteGradientError(
            f"gradients: {what}{row}; the losses are finite and the weights were not changed. Try a lower "
            "learning rate, training.clip_grad, or bf16 or fp32 instead of fp16. "
            'training.non_finite="skip" leaves single such steps out and counts them.'
        )

    def _with_gradients(self) -> list[nn.Parameter]:
        groups = self.optimizer.param_groups
        return [item for group in groups for item in group["params"] if item.grad is not None]

    def collect_state(self) -> None:
        """Bring a sharded optimizer's state to rank 0, for its `state_dict`; all processes call this."""
        if isinstance(self.optimizer, ZeroRedundancyOptimizer):
            self.optimizer.consolidate_state_dict(to=0)

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's state and, with fp16, the scaler's."""
        state = dict(super().state_dict())
        if self._scaler.is_enabled():
            state["loss_scaler"] = self._scaler.state_dict()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        state = dict(state_dict)
        scaler = state.pop("loss_scaler", None)
        if scaler is not None and self._scaler.is_enabled():
            self._scaler.load_state_dict(scaler)
        super().load_state_dict(state)

"""One optimizer step in fp32, bf16 or fp16, on any device.

mmengine's `AmpOptimWrapper` does not run on the CPU. Its accumulation counts micro-batches as iterations,
which shifts every schedule. Here one iteration is one optimizer step.
"""

from __future__ import annotations

from typing import Any

import torch
from mmengine.optim import OptimWrapper
from torch import Tensor

from mtvision.runtime.precision import Precision


class PrecisionOptimWrapper(OptimWrapper):
    """Optimizer with autocast, loss scaling (fp16 only) and gradient clipping.

    Args:
        optimizer: the torch optimizer.
        precision: `fp32`, `bf16` (same range as fp32, no scaling) or `fp16`.
        max_norm: clip gradients to this L2 norm; None = no clipping.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        precision: Precision = "fp32",
        max_norm: float | None = None,
    ) -> None:
        super().__init__(optimizer, clip_grad=None if max_norm is None else {"max_norm": max_norm})
        self.precision: Precision = precision
        device = optimizer.param_groups[0]["params"][0].device.type  # torch scales losses on CPUs too
        self._scaler = torch.amp.GradScaler(device, enabled=precision == "fp16")

    def scale(self, loss: Tensor) -> Tensor:
        """The loss (or gradient seed) multiplied by the current fp16 scale."""
        return self._scaler.scale(loss) if self._scaler.is_enabled() else loss

    def step(self, **_: Any) -> None:
        """Unscale, clip and update the parameters."""
        if self._scaler.is_enabled():
            self._scaler.unscale_(self.optimizer)
        if self.clip_grad_kwargs:
            self._clip_grad()
        if self._scaler.is_enabled():
            self._scaler.step(self.optimizer)
            self._scaler.update()
        else:
            self.optimizer.step()

    def finish_step(self) -> None:
        """`step`, then clear the gradients."""
        self.step()
        self.optimizer.zero_grad(set_to_none=True)

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

"""Exponential moving average of the network's weights."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

_PREFIX = "network."
TRAINED = "trained_network"
"""Where a checkpoint of an average keeps the weights with which training continues."""


class AverageHook(Hook):
    """Keeps average ← (1 - momentum) · average + momentum · weights, buffers included.

    The average starts as the weights after the first iteration.
    Evaluation during training and checkpoints use the average. A checkpoint's `state_dict` is what should be
    deployed. The weights with which training continues are stored beside it.

    Args:
        momentum: share of the newest weights, e.g. 0.0002.
    """

    priority = "NORMAL"  # before a checkpoint is written

    def __init__(self, momentum: float) -> None:
        if not 0 < momentum < 1:
            raise ValueError(f"training.ema must lie between 0 and 1 (typically 0.0002), got {momentum}.")
        self.momentum = momentum
        self.average: AveragedModel | None = None

    def _of(self, runner: Any) -> tuple[nn.Module, AveragedModel]:
        network: nn.Module = runner.plain_model.network
        if self.average is None:
            rule = get_ema_multi_avg_fn(1 - self.momentum)  # type: ignore[no-untyped-call]
            self.average = AveragedModel(network, multi_avg_fn=rule, use_buffers=True)
        return network, self.average

    def before_run(self, runner: Any) -> None:
        """Make room for the average, before a checkpoint is loaded."""
        self._of(runner)

    def after_train_iter(self, runner: Any, *_: Any, **__: Any) -> None:
        """Move the average."""
        network, average = self._of(runner)
        average.update_parameters(network)

    def before_val_epoch(self, runner: Any) -> None:
        """Evaluate the average."""
        self._swap(runner)

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Restore the trained weights."""
        self._swap(runner)

    def _swap(self, runner: Any) -> None:
        network, average = self._of(runner)
        trained = {name: value.clone() for name, value in network.state_dict().items()}
        network.load_state_dict(average.module.state_dict())
        average.module.load_state_dict(trained)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Put the average in the place of the network's weights."""
        _, average = self._of(runner)
        state: dict[str, Tensor] = checkpoint["state_dict"]
        checkpoint[TRAINED] = {name: value for name, value in state.items() if name.startswith(_PREFIX)}
        checkpoint["averaged_steps"] = int(average.n_averaged)
        state.update({_PREFIX + name: value.cpu() for name, value in average.module.state_dict().items()})

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Undo `before_save_checkpoint`; a checkpoint without an average starts one from its weights."""
        _, average = self._of(runner)
        state: dict[str, Tensor] = checkpoint["state_dict"]
        average.module.load_state_dict(
            {name.removeprefix(_PREFIX): value for name, value in state.items() if name.startswith(_PREFIX)}
        )
        if TRAINED in checkpoint:
            average.n_averaged.fill_(checkpoint["averaged_steps"])
            state.update(checkpoint[TRAINED])

"""A run in TensorBoard: curves, predictions over time, one row in the table of hyperparameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtvision.tracking.run import Picture, PredictedImage, RunFacts, RunFile

LAYOUT = {
    "tasks": {
        "losses": ["Multiline", ["loss/.*"]],
        "share of each task in the loss": ["Multiline", ["share/.*"]],
        "weights": ["Multiline", ["weight/.*"]],
    },
    "gradients of the tasks": {
        "cosines": ["Multiline", ["gradient/cosine/.*"]],
        "share of pairs in conflict": ["Multiline", ["gradient/conflicts"]],
        "norms": ["Multiline", ["gradient/norm/.*"]],
    },
}
"""Charts of the tab *Custom Scalars*, by section."""


class TensorBoardLogger:
    """Event files in `<work_dir>/tensorboard`."""

    def __init__(self, work_dir: Path, facts: RunFacts) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ImportError("logging.tensorboard needs `pip install 'mtvision[tensorboard]'`.") from error
        self._writer: Any = SummaryWriter(str(work_dir / "tensorboard"))  # type: ignore[no-untyped-call]
        self._step = 0
        self._facts = facts
        self._writer.add_custom_scalars(LAYOUT)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Write numbers of one step."""
        self._step = max(self._step, step)
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def image(self, name: str, picture: Picture, step: int) -> None:
        """Write an RGB picture (H, W, 3)."""
        self._writer.add_image(name, picture, step, dataformats="HWC")

    def predictions(self, images: Sequence[PredictedImage], step: int) -> None:
        """Write one panel per image; a slider moves through the steps."""
        for item in images:
            self.image(f"predictions/{item.id}", item.panel, step)

    def finish(self, summary: Mapping[str, float], files: Sequence[RunFile]) -> None:
        """Write final numbers at the end of the curves, the row of hyperparameters, and close."""
        final = {f"final/{name}": value for name, value in summary.items()}
        self.scalars(final, self._step)
        self._hyperparameters(final)
        self._writer.close()

    def _hyperparameters(self, final: Mapping[str, float]) -> None:
        """Settings and final numbers of the tab *HParams*, in the run's own event file."""
        from torch.utils.tensorboard.summary import hparams

        for part in hparams(flat(self._facts.config), dict(final)):  # type: ignore[no-untyped-call]
            self._writer.file_writer.add_summary(part, self._step)


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, bool | int | float | str]:
    """Settings as {dotted key: number, truth value or text}; lists and None are text.

    >>> flat({"optimizer": {"lr": 0.1, "betas": (0.9, 0.99)}, "seed": 1})
    {'optimizer.lr': 0.1, 'optimizer.betas': '(0.9, 0.99)', 'seed': 1}
    """
    found: dict[str, bool | int | float | str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value if isinstance(value, bool | int | float | str) else str(value)
    return found

"""Where curves go: TensorBoard, Weights & Biases. One that fails is switched off, training goes on."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mtvision.engine.settings import LoggingSettings

_log = logging.getLogger("mtvision")


class RunLogger(Protocol):
    """A destination for numbers and pictures."""

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Write numbers of one step."""

    def image(self, name: str, picture: NDArray[np.uint8], step: int) -> None:
        """Write an RGB picture (H, W, 3)."""

    def finish(self, summary: Mapping[str, float]) -> None:
        """Write final numbers and close."""


class TensorBoardLogger:
    """Event files in `<work_dir>/tensorboard`."""

    def __init__(self, work_dir: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ImportError("logging.tensorboard needs `pip install 'mtvision[tensorboard]'`.") from error
        self._writer = SummaryWriter(str(work_dir / "tensorboard"))  # type: ignore[no-untyped-call]

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Write numbers of one step."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)  # type: ignore[no-untyped-call]

    def image(self, name: str, picture: NDArray[np.uint8], step: int) -> None:
        """Write an RGB picture (H, W, 3)."""
        self._writer.add_image(name, picture, step, dataformats="HWC")  # type: ignore[no-untyped-call]

    def finish(self, summary: Mapping[str, float]) -> None:
        """Write final numbers at the end of the curves and close."""
        self.scalars({f"final/{name}": value for name, value in summary.items()}, 0)
        self._writer.close()  # type: ignore[no-untyped-call]


class WandbLogger:
    """A Weights & Biases run below the work dir; offline when no key is configured."""

    def __init__(
        self, work_dir: Path, *, name: str, project: str, config: Mapping[str, Any], run_id: str
    ) -> None:
        try:
            import wandb
        except ImportError as error:
            raise ImportError("logging.wandb needs `pip install 'mtvision[wandb]'`.") from error
        self._wandb = wandb
        has_key = bool(os.environ.get("WANDB_API_KEY")) or (Path.home() / ".netrc").is_file()
        mode: Any = os.environ.get("WANDB_MODE") or ("online" if has_key else "offline")
        self._run = wandb.init(
            dir=str(work_dir),
            name=name,
            project=project,
            config=dict(config),
            mode=mode,
            id=run_id,
            resume="allow",
        )

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Write numbers of one step."""
        self._run.log(dict(values), step=step)

    def image(self, name: str, picture: NDArray[np.uint8], step: int) -> None:
        """Write an RGB picture (H, W, 3)."""
        self._run.log({name: self._wandb.Image(picture)}, step=step)

    def finish(self, summary: Mapping[str, float]) -> None:
        """Write final numbers into the run's summary and close."""
        self._run.summary.update({f"final/{name}": value for name, value in summary.items()})
        self._run.finish()


class Loggers:
    """All loggers of a run. An exception in one of them is reported once and ends only that logger.

    Args:
        settings: which ones.
        work_dir: where their files go.
        name: of the run.
        config: for the W&B page.
        run_id: stable id, so that a resumed run continues its curves.
    """

    def __init__(
        self, settings: LoggingSettings, work_dir: Path, *, name: str, config: Mapping[str, Any], run_id: str
    ) -> None:
        self._active: list[RunLogger] = []
        if settings.tensorboard:
            self._active.append(TensorBoardLogger(work_dir))
        if settings.wandb:
            self._start(
                lambda: WandbLogger(
                    work_dir, name=name, project=settings.project, config=config, run_id=run_id
                )
            )

    def _start(self, make: Callable[[], RunLogger]) -> None:
        try:
            self._active.append(make())
        except ImportError:
            raise
        except Exception as error:  # a dead server must never stop a training run
            _log.warning("logging is off for this run: %s: %s", type(error).__name__, error)

    def _each(self, call: Callable[[RunLogger], None]) -> None:
        for logger in list(self._active):
            try:
                call(logger)
            except Exception as error:  # as above
                _log.warning("%s stopped: %s: %s", type(logger).__name__, type(error).__name__, error)
                self._active.remove(logger)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Write numbers of one step everywhere."""
        self._each(lambda logger: logger.scalars(values, step))

    def image(self, name: str, picture: NDArray[np.uint8], step: int) -> None:
        """Write a picture everywhere."""
        self._each(lambda logger: logger.image(name, picture, step))

    def finish(self, summary: Mapping[str, float]) -> None:
        """Close all."""
        self._each(lambda logger: logger.finish(summary))

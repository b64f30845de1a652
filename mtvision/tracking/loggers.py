"""The trackers of a run. One that fails is switched off; training continues."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mtvision.recipe.sections import LoggingSettings
from mtvision.report.record import Record
from mtvision.runtime.attempts import Attempts
from mtvision.tracking.mlflow_run import MlflowLogger
from mtvision.tracking.run import Picture, PredictedImage, RunFacts, RunFile, RunLogger
from mtvision.tracking.tensorboard import TensorBoardLogger
from mtvision.tracking.wandb_run import WandbLogger

NUMBERS = "the run continues; its numbers are in losses.jsonl and record.json"


class Loggers:
    """All trackers of a run. An exception in one of them is reported once and ends only that one.

    Args:
        settings: which ones.
        work_dir: where their files go.
        facts: of the run.
    """

    def __init__(self, settings: LoggingSettings, work_dir: Path, facts: RunFacts) -> None:
        self._active: list[RunLogger] = []
        self._attempts = Attempts()
        self._artifacts = settings.artifacts
        if settings.tensorboard:
            self._start("TensorBoard", lambda: TensorBoardLogger(work_dir, facts))
        if settings.wandb:
            self._start("Weights & Biases", lambda: WandbLogger(work_dir, facts))
        if settings.mlflow:
            self._start("MLflow", lambda: MlflowLogger(work_dir, facts))

    @property
    def active(self) -> bool:
        """Whether anything is written."""
        return bool(self._active)

    @property
    def failures(self) -> list[str]:
        """One line per tracker that could not start or was switched off."""
        return self._attempts.lines

    def _start(self, name: str, make: Callable[[], RunLogger]) -> None:
        """Only a package that is not installed is an error; a dead server must never stop a training run."""
        logger = self._attempts.run(f"{name} is off for this run", make, NUMBERS, passed=(ImportError,))
        if logger is not None:
            self._active.append(logger)

    def _each(self, call: Callable[[RunLogger], None]) -> None:
        for logger in list(self._active):
            if not self._attempts.done(f"{type(logger).__name__} stopped", partial(call, logger), NUMBERS):
                self._active.remove(logger)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Write numbers of one step everywhere."""
        self._each(lambda logger: logger.scalars(values, step))

    def image(self, name: str, picture: Picture, step: int) -> None:
        """Write a picture everywhere."""
        self._each(lambda logger: logger.image(name, picture, step))

    def predictions(self, draw: Callable[[], Sequence[PredictedImage]], step: int) -> None:
        """Write the predictions of an evaluation during training everywhere.

        Args:
            draw: makes the pictures; an exception of it is reported and ends nothing.
            step: iteration of the evaluation.
        """
        images = self._attempts.run(f"predictions of iteration {step} in the loggers", draw, NUMBERS)
        if images is not None:
            self._each(lambda logger: logger.predictions(images, step))

    def finish(self, summary: Mapping[str, float], files: Sequence[RunFile] = ()) -> None:
        """Write final numbers and those files that `logging.artifacts` names, and close all."""
        kept = [item for item in files if item.kind in _KINDS[self._artifacts]]
        self._each(lambda logger: logger.finish(summary, kept))


_KINDS = {"none": (), "record": ("record",), "checkpoint": ("record", "checkpoint")}
"""{`logging.artifacts`: kinds of files that are sent}"""


def record_summary(record: Record) -> dict[str, float]:
    """The numbers of a record that a run ends with: scores, gain, cost, hours; `{name: number}`."""
    found: dict[str, Any] = {
        f"{task}/{name}": value for task, scores in record.scores.items() for name, value in scores.items()
    }
    cost = record.cost or {}
    found["gain_percent"] = (record.gain or {}).get("percent")
    found["cost/parameters"] = (cost.get("parameters") or {}).get("total")
    found["cost/macs"] = (cost.get("macs") or {}).get("total")
    found["cost/latency_ms"] = (cost.get("latency") or {}).get("median_ms")
    found["cost/memory_bytes"] = (cost.get("peak_memory") or {}).get("bytes")
    found["hours"] = (record.training or {}).get("hours")
    return {name: float(value) for name, value in found.items() if value is not None}

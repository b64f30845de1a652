"""What trackers are told about a run: its facts, numbers, predictions and files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
"""RGB (H, W, 3)."""


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """A run as trackers list it.

    Args:
        name: of the run.
        run_id: stable id, so that a resumed run continues its curves.
        config: all its settings.
        project: what the run belongs to.
        group: equal for the seeds of one row; empty = none.
        grid: `id` and `name` of the grid that it belongs to, see `mtvision.tracking.run_id`.
        tags: words to filter by.
        higher_is_better: {`task/score`: direction} of the headline scores.
    """

    name: str
    run_id: str
    config: Mapping[str, Any]
    project: str = "mtvision"
    group: str = ""
    grid: Mapping[str, str] = field(default_factory=dict)
    tags: Sequence[str] = ()
    higher_is_better: Mapping[str, bool] = field(default_factory=dict)


@dataclass(frozen=True)
class Mask:
    """Class maps of one image and one task.

    Args:
        prediction: (H, W) class indices.
        label: (H, W) class indices, 255 where there is none; None without a label.
        classes: names of the classes.
    """

    prediction: NDArray[np.uint8]
    label: NDArray[np.uint8] | None
    classes: tuple[str, ...]


@dataclass(frozen=True)
class PredictedImage:
    """The predictions for one image during training.

    Args:
        id: of the image.
        image: the image itself.
        panel: the image beside all predictions and labels, with legends.
        masks: {task: its class maps}, for tasks with classes.
        pictures: {task: its prediction in colours}, for the other tasks.
    """

    id: str
    image: Picture
    panel: Picture
    masks: Mapping[str, Mask] = field(default_factory=dict)
    pictures: Mapping[str, Picture] = field(default_factory=dict)


@dataclass(frozen=True)
class RunFile:
    """A result of a run on the disk.

    Args:
        path: the file.
        kind: `record` or `checkpoint`.
        facts: plain data about it.
    """

    path: Path
    kind: str
    facts: Mapping[str, Any] = field(default_factory=dict)


class RunLogger(Protocol):
    """A destination for numbers, pictures and files."""

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Write numbers of one step."""

    def image(self, name: str, picture: Picture, step: int) -> None:
        """Write an RGB picture (H, W, 3)."""

    def predictions(self, images: Sequence[PredictedImage], step: int) -> None:
        """Write the predictions of an evaluation during training."""

    def finish(self, summary: Mapping[str, float], files: Sequence[RunFile]) -> None:
        """Write final numbers and files, and close."""

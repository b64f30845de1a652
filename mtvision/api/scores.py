"""`mtvision.score`: predictions against labels, without a config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray
from torch import Tensor

from mtvision.api.arrays import array_options, labels_of, predictions_of
from mtvision.core.registry import TASKS
from mtvision.core.task import Task
from mtvision.metrics import build_metric, score_images
from mtvision.protocols import get_protocol
from mtvision.protocols.entries import build_task

Map = NDArray[Any] | Tensor


def score(
    prediction: Map | Sequence[Map],
    label: Map | Sequence[Map],
    task: str | Task,
    *,
    protocol: str | None = None,
    metric: Mapping[str, Any] | None = None,
    maps: Mapping[str, Any] | None = None,
    **options: Any,
) -> dict[str, float]:
    """All scores of a task over one image or several.

    Args:
        prediction: a map of NumPy or torch, or a list with one per image. Class ids (H, W), probabilities (H,
            W), depth (H, W) or (1, H, W), vectors (3, H, W).
        label: the same of the truth. No label is 255 in class maps and NaN elsewhere; depth of 0 is none.
        task: `depth`, `normals`, `edge`, `saliency`, `semseg`, …, or a `Task`.
        protocol: take the task of this protocol, with its classes and limits, e.g. `nyud-invpt`.
        metric: options of the metric that replace the task's, e.g. `{"max_depth": 10}`.
        maps: what numbers mean where their content does not tell, as for files: `{"label.scale": 1000}` for
            depth in millimetres, `{"prediction.encoding": "shifted"}` for normals in 0..1.
        options: of the task, e.g. `num_classes=11` or `class_names=[…]` of `semseg`.

    Returns:
        {score: number}, shares as fractions.

    Raises:
        UnknownNameError: no such task, protocol or option.
        PredictionError, ValueError: a map that cannot be scored, or whose numbers may mean several things.

    >>> import numpy as np
    >>> score(np.full((2, 2), 3.0), np.full((2, 2), 2.0), "depth")["rmse"]
    1.0
    """
    several = isinstance(prediction, list | tuple)
    if several != isinstance(label, list | tuple):
        raise TypeError("score: give a map and a map, or a list of predictions and a list of labels.")
    chosen = task if isinstance(task, Task) else _task(task, protocol, options)
    pairs: Any = (prediction, label) if several else ([prediction], [label])
    if len(pairs[0]) != len(pairs[1]):
        raise ValueError(f"score: {len(pairs[0])} predictions for {len(pairs[1])} labels.")
    said = array_options(maps or {}, chosen)
    labels = labels_of(pairs[1], chosen, said["label"])
    predictions = predictions_of(pairs[0], labels, chosen, said["prediction"])
    return score_images(build_metric(chosen, **(metric or {})), predictions, labels)


def _task(name: str, protocol: str | None, options: Mapping[str, Any]) -> Task:
    if protocol is not None:
        return get_protocol(protocol).select([name]).tasks[0]
    given = dict(options)
    count = given.pop("num_classes", None)
    if count is not None:
        given["class_names"] = [str(index) for index in range(int(count))]
    if "class_names" not in given and "class_names" in _required(name):
        raise ValueError(
            f"score: the classes of '{name}' are not known; give num_classes=, class_names= or protocol=."
        )
    return build_task(name, **given)


def _required(name: str) -> list[str]:
    return [key for key, option in TASKS.options(name).items() if option.required] if name in TASKS else []

"""Arrays of `mtvision.score` as metrics take them; what their numbers mean is decided as for files."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtvision.core.naming import look_up
from mtvision.core.task import Task
from mtvision.data.maps.encoding import add_evidence, decide
from mtvision.data.maps.evidence import Evidence
from mtvision.data.maps.files import ARRAY, Storage, Stored
from mtvision.data.maps.options import MapOptions
from mtvision.evaluation.prediction_maps import OPTIONS, as_values, decide_loaded, prediction_from, saying

Array = NDArray[Any]
_log = logging.getLogger("mtvision")
SIDES = ("label", "prediction")


def array_options(given: Mapping[str, Any], task: Task) -> dict[str, MapOptions]:
    """{side: options} of `{"label.scale": 1000}`, for labels and predictions.

    Raises:
        UnknownNameError: an unknown side or option.
        ValueError: an option that does not apply to the task, or a value out of range.
    """
    said: dict[str, dict[str, Any]] = {side: {} for side in SIDES}
    for key, value in given.items():
        side, _, option = key.partition(".")
        look_up("side in maps=", side, said)
        if side == "prediction":
            look_up("option of predictions", option, dict.fromkeys(OPTIONS))
        said[side][option] = value
    views = {"label": task, "prediction": as_values(task)}
    return {side: MapOptions.of(said[side], views[side], f"maps= of {side}s") for side in SIDES}


def labels_of(maps: Sequence[Any], task: Task, options: MapOptions) -> list[Tensor]:
    """int64 ids (H, W), or float32 (C, H, W) with NaN where there is no label.

    Args:
        maps: arrays or tensors, (H, W) or (C, H, W).
        task: what they are labels of.
        options: what was said by hand.

    Raises:
        TypeError: something that is no array of numbers.
        ValueError: another shape, or numbers whose meaning is not known; names the label.
    """
    channels = task.label_channels if task.label == "values" else 1
    items = [_label(item, f"label {index}", channels) for index, item in enumerate(maps)]
    found: dict[Storage, Evidence] = {}
    for stored, name in items:
        add_evidence(task, stored, name, options, found)
    with saying(_by_option("label")):
        encoding = decide(task, [found[storage] for storage in sorted(found)], options)
        decoded = [encoding.decode(stored, name) for stored, name in items]
    for doubt in encoding.doubts:
        _log.warning("labels of %s: %s", task.name, doubt)
    if task.label != "values":
        return [torch.from_numpy(item.astype(np.int64)) for item in decoded]
    return [torch.from_numpy(np.ascontiguousarray(np.moveaxis(item, 2, 0))) for item in decoded]


def predictions_of(
    maps: Sequence[Any], labels: Sequence[Tensor], task: Task, options: MapOptions
) -> list[Tensor]:
    """Class ids int64 (H, W), or float32 (C, H, W).

    Args:
        maps: arrays or tensors, one for each label.
        labels: of `labels_of`.
        task: what they are predictions of.
        options: what was said by hand.

    Raises:
        TypeError: something that is no array of numbers.
        ValueError: another size than the label, or numbers whose meaning is not known; names the prediction.
    """
    items = [_prediction(item, f"prediction {index}", task) for index, item in enumerate(maps)]
    with saying(_by_option("prediction")):
        encoding = decide_loaded(task, items, options)
        return [
            prediction_from(task, *item, encoding, (int(label.shape[-2]), int(label.shape[-1])))
            for item, label in zip(items, labels, strict=True)
        ]


def _by_option(side: str) -> str:
    return f"Options are given as maps={{'{side}.OPTION': value}}."


def _prediction(item: Any, name: str, task: Task) -> tuple[Path, Array, Storage]:
    values = _numbers(item, name)
    if values.ndim == 3 and values.shape[0] == 1:
        values = values[0]
    if values.dtype.kind == "b":
        values = values.astype(np.uint8)
    whole = values.dtype.kind == "f" and bool((values == np.rint(values)).all())
    if task.activation == "argmax" and whole:
        values = values.astype(np.int64)
    return Path(name), values, _storage(values)


def _numbers(item: Any, name: str) -> Array:
    """The array behind anything that is one.

    Raises:
        TypeError: it holds no real numbers.
    """
    if isinstance(item, Tensor):
        tensor = item.detach().cpu()
        values: Array = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    else:
        if np.ma.is_masked(item):
            raise TypeError(
                f"{name}: found a masked array, whose mask would be lost. Give array.filled(255) for class "
                "ids, array.filled(numpy.nan) for other labels."
            )
        values = np.asarray(item)
    if values.dtype.kind not in "biuf":
        raise TypeError(
            f"{name}: found {type(item).__name__} of {values.dtype}, expected an array or a tensor of real "
            "numbers. `mtvision score` takes files."
        )
    return values


def _label(item: Any, name: str, channels: int) -> tuple[Stored, Path]:
    """(H, W, C) of a label (H, W) or (C, H, W), and its name."""
    values = _numbers(item, name)
    if values.ndim == 2 and channels == 1:
        return Stored(values[..., None], _storage(values)), Path(name)
    if values.ndim == 3 and values.shape[0] == channels:
        return Stored(np.moveaxis(values, 0, 2), _storage(values)), Path(name)
    wanted = "(H, W) or (1, H, W)" if channels == 1 else f"({channels}, H, W)"
    turned = values.ndim == 3 and values.shape[2] == channels
    remedy = " Give array.transpose(2, 0, 1)." if turned else ""
    raise ValueError(f"{name}: found {tuple(values.shape)}, expected {wanted}, without batch axis.{remedy}")


def _storage(values: Array) -> Storage:
    return Storage(ARRAY, values.dtype.kind, 8 * values.dtype.itemsize)

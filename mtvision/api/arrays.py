"""Arrays of `mtvision.score` as metrics take them; what their numbers mean is decided as for files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtvision.core.naming import look_up
from mtvision.core.task import Task
from mtvision.data.maps.encoding import decide
from mtvision.data.maps.evidence import Evidence, measure
from mtvision.data.maps.files import ARRAY, Storage, Stored
from mtvision.data.maps.options import MapOptions, kind_of
from mtvision.data.maps.rules import UndecidedError
from mtvision.evaluation.prediction_maps import OPTIONS, as_values, decide_loaded, prediction_from

Array = NDArray[Any]
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
    items = [
        (Path(f"label {index}"), _planes(item, f"label {index}", channels)) for index, item in enumerate(maps)
    ]
    found: dict[Storage, Evidence] = {}
    for name, planes in items:
        missing = options.missing(planes)
        if kind_of(task) == "length":
            nothing: NDArray[np.bool_] = np.asarray((planes <= 0).all(axis=2))
            missing = nothing if missing is None else missing | nothing
        part = measure(name, _storage(planes), planes, missing)
        earlier = found.get(part.storage)
        found[part.storage] = part if earlier is None else earlier + part
    with _said("label"):
        encoding = decide(task, [found[storage] for storage in sorted(found)], options)
        decoded = [encoding.decode(Stored(planes, _storage(planes)), name) for name, planes in items]
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
    with _said("prediction"):
        encoding = decide_loaded(task, items, options)
        return [
            prediction_from(task, *item, encoding, (int(label.shape[-2]), int(label.shape[-1])))
            for item, label in zip(items, labels, strict=True)
        ]


@contextmanager
def _said(side: str) -> Iterator[None]:
    """Add to a message about undecided numbers how they are told what they mean."""
    try:
        yield
    except UndecidedError as error:
        raise ValueError(f"{error} Options are given as maps={{'{side}.OPTION': value}}.") from None


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
        values = np.asarray(item)
    if values.dtype.kind not in "biuf":
        raise TypeError(
            f"{name}: found {type(item).__name__} of {values.dtype}, expected an array or a tensor of real "
            "numbers. `mtvision score` takes files."
        )
    return values


def _planes(item: Any, name: str, channels: int) -> Array:
    """(H, W, C) of a label (H, W) or (C, H, W)."""
    values = _numbers(item, name)
    if values.ndim == 2 and channels == 1:
        return values[..., None]
    if values.ndim == 3 and values.shape[0] == channels:
        return np.moveaxis(values, 0, 2)
    wanted = "(H, W) or (1, H, W)" if channels == 1 else f"({channels}, H, W)"
    turned = values.ndim == 3 and values.shape[2] == channels
    remedy = " Give array.transpose(2, 0, 1)." if turned else ""
    raise ValueError(f"{name}: found {tuple(values.shape)}, expected {wanted}, without batch axis.{remedy}")


def _storage(values: Array) -> Storage:
    return Storage(ARRAY, values.dtype.kind, 8 * values.dtype.itemsize)

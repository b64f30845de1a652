"""Base of all metrics: additive sums, their addition, and the two ways of pooling.

A metric is a frozen dataclass with two pure functions. `measure` turns one image into sums; `score` turns
added-up sums into numbers. What can be added can be added in any order, so batch size, order of samples and
number of processes cannot change a score.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from math import fsum, isnan, nan
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtvision.metrics.checks import PredictionError, check_numbers

Sums = dict[str, Tensor]
"""Named float64 or int64 tensors on the CPU; those of one metric have the same names and shapes always."""

Ranges = Mapping[str, tuple[float | None, float | None]]
"""{score: (lowest, highest)}, None = no bound; `iou_*` stands for every name that begins like it."""


@runtime_checkable
class Metric(Protocol):
    """One task's metric: options are fields, `measure` and `score` are pure. Metrics derive from it.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Bias(Metric):
    ...     def measure(self, prediction, label):
    ...         valid = ~label.isnan()
    ...         return {"sum": (prediction - label)[valid].double().sum(), "count": valid.sum()}
    ...
    ...     def score(self, sums):
    ...         return {"bias": float(sums["sum"] / sums["count"])}
    >>> metric = Bias()
    >>> metric.score(metric.measure(torch.full((1, 2, 2), 3.0), torch.full((1, 2, 2), 2.0)))
    {'bias': 1.0}
    """

    expensive: ClassVar[bool] = False
    """Takes long per image: evaluators may measure it in other processes."""
    on_device: ClassVar[bool] = False
    """Faster where the network computes: evaluators leave both maps on its device. Sums are on the CPU."""
    ranges: ClassVar[Ranges] = {}
    """Of every score; records refuse other values. A literal: it is read from the source file too."""
    higher_is_better: ClassVar[Mapping[str, bool]] = {}
    """Direction of scores that the suite does not know, for tables and gains. A literal too."""

    @property
    def activation(self) -> str | None:
        """How logits become the prediction that it reads; None = as the task says."""
        return None

    def check_prediction(self, prediction: Tensor, label: Tensor) -> None:
        """Refuse what must not become a number; evaluators call it before `measure`.

        Here: complex and Boolean values, NaN and infinity, anywhere in the map. Metrics add their own rules.

        Args:
            prediction: as `measure` takes it.
            label: the same image's, for rules that concern labelled pixels only.

        Raises:
            PredictionError: says what was found and expected; `at` adds task and image.
        """
        check_numbers(prediction)

    def measure(self, prediction: Tensor, label: Tensor) -> Sums:
        """Sums of one image; neither argument is changed."""
        ...

    def score(self, sums: Sums) -> dict[str, float]:
        """Numbers from sums added over images; NaN where nothing was valid."""
        ...

    def has_label(self, sums: Sums) -> bool:
        """Whether any pixel behind these sums was labelled; here, whether any score is a number."""
        return not all(isnan(value) for value in self.score(sums).values())

    def remarks(self, per_image: Sequence[Sums]) -> list[str]:
        """What a reader of the scores should know about the predictions, as sentences."""
        return []


def add(a: Sums, b: Sums) -> Sums:
    """Add two sums of one metric, as new tensors.

    Raises:
        ValueError: they hold other names or shapes, so they come from metrics with different options.
    """
    if a.keys() != b.keys():
        raise ValueError(
            f"sums with the names {sorted(a)} cannot be added to {sorted(b)}; "
            "use one metric with one set of options for all images."
        )
    for name in a:
        if a[name].shape != b[name].shape:
            raise ValueError(
                f"sums '{name}' have shapes {tuple(a[name].shape)} and {tuple(b[name].shape)}; "
                "use one metric with one set of options for all images."
            )
    return {name: a[name] + b[name] for name in a}


def total(parts: Iterable[Sums]) -> Sums:
    """Add the sums of many images.

    Raises:
        ValueError: there are none, or they cannot be added.
    """
    parts = list(parts)
    if not parts:
        raise ValueError("there are no sums to add: no image was measured.")
    return reduce(add, parts)


def score_images(
    metric: Metric,
    predictions: Iterable[Tensor | NDArray[Any]],
    labels: Iterable[Tensor | NDArray[Any]],
) -> dict[str, float]:
    """Scores over images, from NumPy arrays or tensors; what a notebook needs.

    Args:
        metric: decides which shapes and values are right, see its `measure`.
        predictions: one map per image, without batch axis.
        labels: one map per image, in the same order.

    Raises:
        PredictionError: a prediction cannot be scored; names its position.
        ValueError: there is no image, shapes differ, or the numbers of predictions and labels do.

    >>> from mtvision.metrics import Depth
    >>> score_images(Depth(), [np.full((1, 2, 2), 3.0)], [np.full((1, 2, 2), 2.0)])["abs_err"]
    1.0
    """
    sums = []
    for index, (prediction, label) in enumerate(zip(predictions, labels, strict=True)):
        maps = _as_tensor(prediction), _as_tensor(label)
        try:
            metric.check_prediction(*maps)
            sums.append(metric.measure(*maps))
        except PredictionError as error:
            raise error.at(f"prediction {index}", "") from None
        except ValueError as error:
            raise ValueError(f"image {index}: {error}") from None
    return metric.score(total(sums))


def _as_tensor(values: Tensor | NDArray[Any]) -> Tensor:
    if isinstance(values, Tensor):
        return values
    tensor = torch.from_numpy(np.array(values))  # a copy: views may be read-only or have negative strides
    return tensor.long() if tensor.dtype in (torch.uint16, torch.uint32, torch.uint64) else tensor


def score_by_groups(metric: Metric, per_image: Sequence[Sums], group_size: int) -> dict[str, float]:
    """Mean over groups of consecutive images of each group's own scores, instead of pooling all pixels.

    With the batch size as `group_size` this is what NashMTL, FAMO and MTAN print: means of per-batch means
    and medians. A last smaller batch weighs as much as the others. With 1 it is the mean of per-image scores
    (ASTMT depth). Unlike the pooled score it depends on the order of the images, which must be the data
    set's.

    Args:
        metric: the metric whose `score` is applied to each group.
        per_image: the sums of every image, in the data set's order.
        group_size: images per group.

    Returns:
        The same keys as `metric.score`; groups in which a score is NaN are left out of its mean.

    Raises:
        ValueError: `group_size` is below 1 or there are no images.
    """
    if group_size < 1:
        raise ValueError(f"group_size must be at least 1, got {group_size}.")
    starts = range(0, len(per_image), group_size)
    groups = [metric.score(total(per_image[start : start + group_size])) for start in starts]
    if not groups:
        raise ValueError("there are no sums to add: no image was measured.")
    means = {}
    for name in groups[0]:
        values = [group[name] for group in groups if not isnan(group[name])]
        means[name] = fsum(values) / len(values) if values else nan
    return means


def check_shapes(name: str, prediction: Tensor, label: Tensor, channels: int | None = None) -> None:
    """Refuse a prediction that does not lie on the label's pixels.

    Args:
        name: metric named in the message.
        prediction: one image's prediction, without batch axis.
        label: one image's label.
        channels: number of leading channels both must have; None for maps (H, W).

    Raises:
        TypeError: one of them is no tensor.
        ValueError: shapes differ, or the number of axes or channels is not the expected one.
    """
    check_tensors(name, prediction, label)
    expected = "(H, W)" if channels is None else f"({channels}, H, W)"
    dimensions = 2 if channels is None else 3
    good = label.ndim == dimensions and (channels is None or label.shape[0] == channels)
    if prediction.shape != label.shape or not good:
        raise ValueError(
            f"{name}: prediction has shape {tuple(prediction.shape)} and label {tuple(label.shape)}; "
            f"both must be {expected}, without batch axis. Resize predictions to the label's size."
        )


def check_tensors(name: str, prediction: Tensor, label: Tensor) -> None:
    """Refuse what is no tensor, such as a NumPy array.

    Raises:
        TypeError: names `score_images`, which takes arrays.
    """
    for what, item in (("prediction", prediction), ("label", label)):
        if not isinstance(item, Tensor):
            kind = f"{type(item).__module__}.{type(item).__qualname__}"
            raise TypeError(
                f"{name}: the {what} is a {kind}, expected a torch.Tensor. "
                "mtvision.metrics.score_images(metric, predictions, labels) takes arrays."
            )

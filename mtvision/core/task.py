"""A task as data: label, loss, metric and headline score of one kind of pixel map."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

IGNORE = 255
"""Class id that means "no label" in integer maps; real-valued maps use NaN."""
EXTRA_CHANNELS = 4
"""Logits of an `instances` task besides one per class: background, centre, two offsets (rows, columns)."""

LabelKind = Literal["classes", "values", "instances"]
Geometry = Literal["plain", "depth", "disparity", "direction"]

_COLOURS_OF_LABEL = {"classes": "palette", "instances": "instances"}
_COLOURS_OF_GEOMETRY = {"plain": "values", "depth": "depth", "disparity": "depth", "direction": "normals"}


@dataclass(frozen=True, kw_only=True)
class Task:
    """One kind of pixel map, the way a protocol defines it.

    No code elsewhere asks for a task by name; it reads these fields instead. A new task is one such
    value, one loss and one metric.

    Args:
        name: the key in label and prediction dicts, e.g. `semseg`.
        out_channels: channels of the logits.
        label: `classes`, an int64 map (H, W) with 255 = no label. `values`, a float32 map (label_channels, H,
            W) with NaN = no label. `instances`, an int64 map (H, W) of class and number in one id, 255 = no
            label (`mtvision.core.instances`).
        label_channels: channels of a `values` label.
        geometry: what flips, rotations and zooms do to the values. `plain`: nothing. `depth`: divided by
            the zoom factor. `disparity`: multiplied by it. `direction`: a camera-space vector, x to the
            right: x changes sign under a horizontal flip, and x, y turn with the image.
        activation: how logits become a prediction: `argmax`, `identity`, `positive`, `unit`, `sigmoid`,
            `foreground`, `instances` (`mtvision.core.prediction`), or a name in `ACTIVATIONS`.
        loss: config of the loss, `{"type": name, **options}`.
        metrics: configs of the metrics, `{"type": name, **options}` each. The names of their scores differ.
        headline: the score of any of them that tables and the gain use, e.g. `miou`.
        higher_is_better: direction of the headline score.
        class_names: one name per class; their number is the range of valid ids.
        palette: one RGB triple (0..255) per class, or empty for a generated one.
        colours: how the map is drawn: `palette`, `depth`, `normals`, `gray`, `values`, `instances`
            (`mtvision.visualize.colours`), or a name in `COLOURS`. Empty = what suits label and geometry.
        unit: unit of the values, for legends ("m", "px", "").

    >>> from mtvision.protocols import get_protocol
    >>> depth = get_protocol("nyud-invpt").tasks[1]
    >>> depth.name, depth.unit, depth.headline, depth.higher_is_better
    ('depth', 'm', 'rmse', False)
    """

    name: str
    out_channels: int
    label: LabelKind
    geometry: Geometry = "plain"
    label_channels: int = 1
    activation: str
    loss: Mapping[str, Any]
    metrics: tuple[Mapping[str, Any], ...]
    headline: str
    higher_is_better: bool
    class_names: tuple[str, ...] = ()
    palette: tuple[tuple[int, int, int], ...] = ()
    colours: str = ""
    unit: str = ""

    def __post_init__(self) -> None:
        for field in ("out_channels", "label_channels"):
            if getattr(self, field) < 1:
                raise ValueError(f"task {self.name}: {field} must be positive, got {getattr(self, field)}.")
        if self.palette and len(self.palette) != len(self.class_names):
            raise ValueError(
                f"task {self.name}: {len(self.palette)} palette colours for {len(self.class_names)} classes; "
                "give one colour per class or none."
            )
        self._check_metrics()
        if not self.colours:
            suiting = _COLOURS_OF_LABEL.get(self.label) or _COLOURS_OF_GEOMETRY[self.geometry]
            object.__setattr__(self, "colours", suiting)

    def _check_metrics(self) -> None:
        if isinstance(self.metrics, str | Mapping) or not all(
            isinstance(item, Mapping) and isinstance(item.get("type"), str) for item in self.metrics
        ):
            raise TypeError(
                f"task {self.name}: metrics is {self.metrics!r}, expected a tuple of configs, e.g. "
                '({"type": "depth"},).'
            )
        names = self.metric_names
        if not names or len(set(names)) < len(names):
            raise ValueError(
                f"task {self.name}: metrics are {', '.join(names) or 'none'}; "
                "give at least one, and each once."
            )

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Names of the metrics, in order."""
        return tuple(str(item["type"]) for item in self.metrics)

    def metric_option(self, option: str) -> Any:
        """The value of an option of the first metric that states it; None if none does."""
        return next((item[option] for item in self.metrics if option in item), None)

    @property
    def num_classes(self) -> int:
        """Number of valid class ids of a `classes` label."""
        return len(self.class_names) or self.out_channels


def without_tasks(
    options: Mapping[str, Any], per_task: Collection[str], absent: Collection[str]
) -> dict[str, Any]:
    """A component's options without what they say about absent tasks.

    Args:
        options: of the component.
        per_task: names of the options that are {task: value}, where they are a mapping.
        absent: tasks of the protocol that the run does not have.
    """
    result = dict(options)
    for name in per_task:
        entries = options.get(name)
        if isinstance(entries, Mapping):
            result[name] = {task: value for task, value in entries.items() if task not in absent}
    return result

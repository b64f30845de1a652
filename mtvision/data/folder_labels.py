"""Options for reading one folder of label files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Literal

from mtvision.core.naming import UnknownNameError, look_up
from mtvision.core.registry import DERIVATIONS
from mtvision.core.task import Task
from mtvision.core.values import NameIn
from mtvision.data.maps.options import Invalid, MapOptions


@dataclass(frozen=True, kw_only=True)
class FolderLabel:
    """One entry of `FolderDataset(labels=...)`.

    Args:
        folder: folder of the files, relative to the root; `{split}` stands for the split's name.
        suffix: what follows the image's name in the label's, e.g. `_mask.png`; None = any ending of a format
            that keeps numbers. JPEG and WebP count where a folder has none of those.
        prefix: what stands before the image's name in the label's, e.g. `depth_`.
        ignore: ids on disk that mean "no label" (besides 255). Of real values the same as `invalid`.
        invalid: real values and directions: what means "no label". A number, where all channels of a pixel
            hold it, or a colour such as `(128, 128, 128)`; or a list of these.
        ids: class maps: {id on disk: class id}; other ids are an error.
        encoding: `ids` or `mask` of class maps, `share` or `mask` of maps in 0..1, `shifted` or `signed` of
            directions. None = decided from the files, see `datasets/own_data.md`.
        scale: real values: units on disk per unit. Depth and disparity need it for integers (units per metre
            or pixel). Otherwise None = 8 and 16 bits become 0..1, other values stay.
        bits: depth and disparity as PNG: bits per pixel.
        axes: directions: what the file's channels hold, each `x`, `y` or `z` with an optional minus sign; x
            to the right, y up, z towards the camera.
        derive: a function of `mtvision.data.derive` instead of files.
        source: task whose class map `derive` takes.
        ignore_void: with `derive`: no label beside pixels without class.
    """

    folder: str | None = None
    suffix: str | None = None
    ignore: float | Sequence[float] = ()
    ids: Mapping[int, int] | None = None
    encoding: Literal["ids", "mask", "share", "shifted", "signed"] | None = None
    scale: float | None = None
    bits: int | None = None
    axes: Sequence[str] | None = None
    derive: Annotated[str, NameIn("DERIVATIONS")] | None = None
    source: str | None = None
    ignore_void: bool = False
    # not in the text that data fingerprints hash; `FolderDataset.parameters` adds them where they are given
    invalid: Invalid = field(default=(), repr=False)
    prefix: str = field(default="", repr=False)

    @classmethod
    def of(cls, config: str | Mapping[str, Any], task: Task) -> FolderLabel:
        """From a folder's name or a dict of options.

        Raises:
            UnknownNameError: unknown option or derivation.
            ValueError: options that contradict one another or the task.
        """
        options: dict[str, Any] = {"folder": config} if isinstance(config, str) else dict(config)
        known = [item.name for item in fields(cls)]
        for name in options:
            if name not in known:
                raise UnknownNameError(f"option of the {task.name} labels", name, known)
        label = cls(**options)
        label._check(task, options)
        return label

    def map_options(self, task: Task) -> MapOptions:
        """What they say about the numbers in the files; checked."""
        given = {item.name: getattr(self, item.name) for item in fields(MapOptions)}
        said = {name: value for name, value in given.items() if value not in (None, ())}
        return MapOptions.of(said, task, f"labels of {task.name}")

    def _check(self, task: Task, options: Mapping[str, Any]) -> None:
        where = f"labels of {task.name}"
        if (self.folder is None) == (self.derive is None):
            raise ValueError(f"{where}: give either folder= or derive= (with source=), got {dict(options)}.")
        if self.derive is None:
            self.map_options(task)
            return
        look_up(f"derivation for the {where}", self.derive, DERIVATIONS)
        if self.source is None:
            raise ValueError(f"{where}: derive='{self.derive}' needs source=, the task it is made from.")
        if task.label != "values" or task.geometry != "plain":
            raise ValueError(f"{where}: '{self.derive}' makes a map of 0 and 1, which this task is not.")

"""What can be said by hand about the numbers in a set of maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from mtvision.core.naming import UnknownNameError, look_up
from mtvision.core.task import Task
from mtvision.core.values import Between, check_fields

BOUNDED = ("sigmoid", "foreground")
"""Activations whose predictions lie in 0..1."""
Invalid = float | Sequence[float | Sequence[float]]


def kind_of(task: Task) -> str:
    """What values a task has: `ids`, `binary` ids, `share` in 0..1, `length`, `direction` or `values`."""
    if task.label == "instances":
        return "ids"
    if task.label == "classes":
        return "binary" if task.num_classes == 2 or task.activation in BOUNDED else "ids"
    if task.geometry == "direction":
        return "direction"
    if task.geometry in ("depth", "disparity"):
        return "length"
    return "share" if task.activation in BOUNDED else "values"


ENCODINGS = {
    "ids": ("ids", "mask"),
    "binary": ("ids", "mask"),
    "share": ("mask", "share"),
    "length": (),
    "values": (),
    "direction": ("shifted", "signed"),
}
"""{kind of task: what `encoding=` may say}."""
_APPLIES = {
    "ignore": ("ids", "binary", "length", "values", "share"),
    "invalid": ("length", "values", "share", "direction"),
    "ids": ("ids", "binary"),
    "encoding": ("ids", "binary", "share", "direction"),
    "scale": ("length", "values", "share"),
    "bits": ("length",),
    "axes": ("direction",),
}


@dataclass(frozen=True, kw_only=True)
class MapOptions:
    """Statements about a set of maps; what is not said is decided from the content of the set.

    Args:
        encoding: `ids`. `mask`: two levels, or gray values cut at half of their range. `share`: of the
            largest number that the files can hold. `shifted`: 0..top is -1..1. `signed`: -1..1.
        scale: stored numbers per unit of the task.
        bits: of a depth PNG.
        ignore: numbers that mean "no label": ids of class maps.
        invalid: the same of real values: numbers where all channels of a pixel hold one, or colours.
        ids: {number in the file: class id}.
        axes: of directions, see `FolderLabel`.
    """

    encoding: str | None = None
    scale: float | None = None
    bits: Annotated[int, Between(1, 16)] | None = None
    ignore: float | Sequence[float] = ()
    invalid: Invalid = ()
    ids: Mapping[int, int] | None = None
    axes: Sequence[str] | None = None

    @classmethod
    def of(cls, given: Mapping[str, Any], task: Task, where: str) -> MapOptions:
        """Checked options of a task's files.

        Raises:
            UnknownNameError: an unknown option or encoding.
            ValueError: an option that does not apply to the task, or a value of the wrong type or range.
        """
        known = [item.name for item in fields(cls)]
        for name in given:
            if name not in known:
                raise UnknownNameError(f"option of {where}", name, known)
        plain = {
            name: value.tolist() if isinstance(value, np.ndarray | np.generic) else value
            for name, value in given.items()
        }
        options = cls(**plain)
        check_fields(where, options)
        kind = kind_of(task)
        for name in given:
            if kind not in _APPLIES[name] or (name == "encoding" and task.label == "instances"):
                raise ValueError(f"{where}: the option '{name}' does not apply to this kind of map.")
        if options.scale is not None and not options.scale > 0:
            raise ValueError(f"{where}: scale must be above 0, units on disk per unit, got {options.scale}.")
        if options.encoding is not None:
            look_up(f"encoding of {where}", options.encoding, dict.fromkeys(ENCODINGS[kind]))
        if options.axes is not None and sorted(axis.removeprefix("-") for axis in options.axes) != [
            "x",
            "y",
            "z",
        ]:
            raise ValueError(
                f"{where}: axes must name x, y and z once each, e.g. ('-x', 'z', 'y'), got {options.axes}."
            )
        for colour in options.colours:
            if len(colour) != task.label_channels:
                raise ValueError(
                    f"{where}: invalid holds a colour of {len(colour)} numbers, the task has "
                    f"{task.label_channels} channel{'s' * (task.label_channels > 1)}."
                )
        return options

    @property
    def numbers(self) -> tuple[float, ...]:
        """Numbers that mean "no label"."""
        given = [*_as_list(self.ignore), *_as_list(self.invalid)]
        return tuple(item for item in given if isinstance(item, int | float))

    @property
    def colours(self) -> tuple[tuple[float, ...], ...]:
        """Colours that mean "no label"."""
        return tuple(tuple(item) for item in _as_list(self.invalid) if not isinstance(item, int | float))

    def missing(self, stored: NDArray[Any]) -> NDArray[np.bool_] | None:
        """Pixels (H, W) of a map (H, W, C) that are declared to have no label; None = nothing is declared."""
        numbers = self.numbers
        found: NDArray[np.bool_] | None = None
        # compared as the file has them: -99.99 is another number in float32
        kind = stored.dtype if stored.dtype.kind == "f" else None
        if numbers:
            found = np.asarray(np.isin(stored, np.asarray(numbers, kind)).all(axis=2))
        for colour in self.colours:
            here: NDArray[np.bool_] = np.asarray((stored == np.asarray(colour, kind)).all(axis=2))
            found = here if found is None else found | here
        return found


def _as_list(value: Any) -> list[Any]:
    return [value] if isinstance(value, int | float) else list(value)

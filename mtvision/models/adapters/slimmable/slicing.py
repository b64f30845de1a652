"""Which slice of a module's tensors is active."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor

from mtvision.architecture.widths import DIVISOR, FIXED, Part, Widths
from mtvision.models.adapters.slimmable.width import Slimming
from mtvision.models.declarations import READS, Channels, Layer
from mtvision.models.declarations.declaration import Length, Side

Pairs = tuple[tuple[int, int], ...]
"""(entries when full, active entries) of every run along an axis."""


@dataclass(frozen=True)
class Slicing:
    """How one module is slimmed; all parts and multiples are known.

    Args:
        control: the network's shared state.
        path: of the module in the network, for messages.
        part: of the module.
        layer: what it says of itself if it is a layer.
        tensors: {name: {axis: runs}}.
        numbers: {name: runs, or a tuple of one side}.
        writes: runs of a layer's result; none where channels stay in place.
        reads: runs of its input, where they are several; else what arrives is one run.
        sees: tasks whose widths its input depends on; None = that of its part alone.
    """

    control: Slimming
    path: str
    part: Part
    layer: Layer | None = None
    tensors: Mapping[str, Mapping[int, Length]] = field(default_factory=dict)
    numbers: Mapping[str, Length | tuple[Side]] = field(default_factory=dict)
    writes: tuple[Channels, ...] = ()
    reads: tuple[Channels, ...] = ()
    sees: tuple[str, ...] | None = None
    _known: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def seen(self, widths: Widths) -> tuple[float, ...]:
        """The ratios that its statistics depend on."""
        return widths.seen_by(self.part, self.sees)

    def check(self, given: int) -> None:
        """Compare the channels that arrive with those that were expected.

        Raises:
            ValueError: they differ.
        """
        full = 0 if self.layer is None else self.layer.inputs
        if given == full and not self.reads:
            return
        found = self._entries("reads", READS, given)
        if sum(active for _, active in found) != given or any(active > count for count, active in found):
            raise ValueError(
                f"slimmable: {given} channels arrive at '{self.path}' where {[item for _, item in found]} of "
                f"{[item for item, _ in found]} were expected."
            )

    def entries(self, length: Length, given: int | None) -> Pairs:
        """Runs of entries along an axis.

        Args:
            length: what is declared.
            given: channels that arrive at a layer; None = it did not run yet.

        Raises:
            ValueError: runs do not divide into whole groups.
        """
        widths = self.control.widths()
        if isinstance(length, Side):
            runs = self.writes if length.name == "writes" else self.reads
            counts = [(run.count, _active(widths, run)) for run in runs]
            if not counts:
                full = 0 if self.layer is None else self.layer.inputs
                counts = [(full, full if given is None else given)]
            scales = [length.scale] * len(counts)
        else:
            runs = (length,) if isinstance(length, Channels) else tuple(length)
            counts = [(run.count, _active(widths, run)) for run in runs]
            scales = [run.scale for run in runs]
        scaled = [
            (full * scale, active * scale) for (full, active), scale in zip(counts, scales, strict=True)
        ]
        if any(item.denominator > 1 for pair in scaled for item in pair):
            raise ValueError(
                f"slimmable: {[active for _, active in counts]} channels do not make whole groups at "
                f"'{self.path}'."
            )
        return tuple((int(full), int(active)) for full, active in scaled)

    def cut(self, name: str, tensor: Tensor, given: int | None) -> Tensor:
        """The active slice of a tensor."""
        for axis, length in self.tensors[name].items():
            tensor = take(tensor, axis, self._entries((name, axis), length, given))
        return tensor

    def count(self, name: str, given: int | None) -> int | tuple[int, ...]:
        """A number in force."""
        length = self.numbers[name]
        if isinstance(length, tuple) and isinstance(length[0], Side):
            return (sum(active for _, active in self._entries(name, length[0], given)),)
        return sum(active for _, active in self._entries(name, cast(Length, length), given))

    def _entries(self, key: Any, length: Length, given: int | None) -> Pairs:
        """As `entries`, remembered under a name while the widths in force are the same."""
        widths, known = self.control.widths(), self._known
        if known.get("widths") is not widths:
            known.clear()
            known["widths"] = widths
        if (key, given) not in known:
            known[key, given] = self.entries(length, given)
        return cast(Pairs, known[key, given])


def _active(widths: Widths, run: Channels) -> int:
    return widths.active(run.count, run.part or FIXED, run.multiple or DIVISOR)


def take(tensor: Tensor, axis: int, runs: Sequence[tuple[int, int]]) -> Tensor:
    """The leading `active` channels of every run of `base` channels along an axis; a view where possible."""
    if all(base == active for base, active in runs):
        return tensor
    if len(runs) == 1:
        return tensor.narrow(axis, 0, runs[0][1])
    pieces, start = [], 0
    for base, active in runs:
        pieces.append(tensor.narrow(axis, start, active))
        start += base
    return torch.cat(pieces, dim=axis)

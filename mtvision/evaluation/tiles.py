"""Pictures larger than memory, predicted in tiles that overlap.

Activations of a network take gigabytes for a picture of some megapixels. Tiles of a fixed size bound that.
Where tiles overlap, logits fade from one into the other. Only the lines that a later tile fades into are kept
as logits; everything else is written as a prediction at once.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from mtvision.core.naming import ReportedError
from mtvision.core.prediction import is_pointwise, to_prediction
from mtvision.core.task import Task
from mtvision.metrics.checks import check_logits

Maps = dict[str, NDArray[np.generic]]
LARGE = 2**28
"""Bytes of a map from which on it lies in a temporary file."""


class TilingError(ReportedError, ValueError):
    """Sizes of tiles that make no sense; the message says which and what to try."""


@dataclass(frozen=True)
class Line:
    """How tiles cover one side of a picture.

    Args:
        length: of the side, pixels.
        size: of all tiles along it; the last one may reach beyond the picture.
        starts: first pixel of each tile.
        fades: (first, end) of the pixels where tile i fades into tile i + 1.
    """

    length: int
    size: int
    starts: tuple[int, ...]
    fades: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, length: int, size: int, overlap: int, stride: int) -> Line:
        """Tiles evenly spread, at multiples of `stride`, that share `overlap` pixels at least.

        A quarter of the shared pixels on either side is not used, half of them fade.

        >>> Line.of(100, 40, 8, 4).starts
        (0, 28, 60)
        """
        if length <= size:
            return cls(length, length, (0,), ())
        steps, last = (size - overlap) // stride, -(-(length - size) // stride)
        count = -(-last // steps)
        starts = tuple(index * last // count * stride for index in range(count + 1))
        shared = [before + size - after for before, after in pairwise(starts)]
        middles = [after + share // 2 for share, after in zip(shared, starts[1:], strict=True)]
        nearest = min((after - before for before, after in pairwise(middles)), default=size)
        halves = [min(share // 4, nearest // 2) for share in shared]
        fades = [(middle - half, middle + half) for middle, half in zip(middles, halves, strict=True)]
        return cls(length, size, starts, tuple(fades))

    def used(self, index: int) -> tuple[int, int]:
        """(first, end) of the pixels of the picture that tile `index` has a part in."""
        first = self.fades[index - 1][0] if index else 0
        return first, self.fades[index][1] if index < len(self.fades) else self.length

    def fading(self, index: int) -> int:
        """How many of them, at the end, fade into the next tile."""
        return self.fades[index][1] - self.fades[index][0] if index < len(self.fades) else 0


@dataclass(frozen=True)
class Tiling:
    """Sizes of tiles.

    Args:
        size: (H, W) of a tile, pixels.
        overlap: pixels that neighbours share at least; None = a quarter of the smaller side.

    Raises:
        TilingError: a side below 1, or an overlap that leaves nothing of a tile.

    >>> Tiling((512, 640)).shared
    128
    """

    size: tuple[int, int]
    overlap: int | None = None

    def __post_init__(self) -> None:
        if min(self.size) < 1:
            raise TilingError(f"tile: expected (H, W) of at least 1 pixel each, got {tuple(self.size)}.")
        if not 0 <= self.shared < min(self.size):
            raise TilingError(
                f"overlap: expected 0 to {min(self.size) - 1} pixels, less than the smaller side of a tile "
                f"{tuple(self.size)}, got {self.shared}. A quarter of it is usual."
            )

    @property
    def shared(self) -> int:
        """Pixels that neighbours share at least."""
        return min(self.size) // 4 if self.overlap is None else self.overlap

    def check(self, stride: int) -> None:
        """Refuse tiles that would have to move by less than the stride of a network.

        Raises:
            TilingError: they would.
        """
        step = min(self.size) - self.shared
        if step < stride:
            raise TilingError(
                f"overlap: tiles of {tuple(self.size)} that share {self.shared} pixels move by {step}, and "
                f"this network needs {stride} at least. Take larger tiles, or a smaller overlap."
            )

    def lines(self, height: int, width: int, stride: int) -> tuple[Line, Line]:
        """How rows and columns of a picture are covered.

        Args:
            height: of the picture.
            width: of the picture.
            stride: of the network. Tiles begin at multiples, where its coarsest map has a pixel, too.
        """
        rows, columns = (
            Line.of(length, size, self.shared, stride)
            for length, size in zip((height, width), self.size, strict=True)
        )
        return rows, columns


def predict_in_tiles(
    forward: Callable[[NDArray[np.uint8], tuple[int, int]], Mapping[str, Tensor]],
    image: NDArray[np.uint8],
    tasks: Sequence[Task],
    tiling: Tiling,
    stride: int,
) -> Maps:
    """Predict a picture tile by tile.

    Args:
        forward: (a part of the picture, the (H, W) it is to be padded to at its end) to {task: logits (1, C,
            H, W)}.
        image: RGB (H, W, 3).
        tasks: what is predicted.
        tiling: sizes of tiles.
        stride: of the network, see `Tiling.check`.

    Returns:
        {task: map} as a `Predictor` gives them. Maps of more than 256 MiB lie in a temporary file.

    Activations that are no `pointwise` function, such as that of instances, get the logits of the whole
    picture, in the processor's memory.
    """
    rows, columns = tiling.lines(image.shape[0], image.shape[1], stride)
    outputs = {task.name: _Output(task, rows, columns) for task in tasks}
    for row, top in enumerate(rows.starts):
        for column, left in enumerate(columns.starts):
            part = image[top : top + rows.size, left : left + columns.size]
            logits = forward(part, (rows.size, columns.size))
            for name, output in outputs.items():
                output.add(row, column, logits[name][0].float())
            del logits
    return {name: output.finished() for name, output in outputs.items()}


class _Output:
    """The map of one task, and the logits that later tiles fade into.

    Args:
        task: says how logits become a prediction.
        rows: of the tiles.
        columns: of the tiles.
    """

    def __init__(self, task: Task, rows: Line, columns: Line) -> None:
        self._task, self._rows, self._columns = task, rows, columns
        self._left: Tensor | None = None  # (C, h, fade) of the tile before
        self._above: Tensor | None = None  # (C, fade, W) of the tiles above
        self._below: Tensor | None = None
        self._map: NDArray[np.generic] | None = None
        self._logits: Tensor | None = None

    def add(self, row: int, column: int, logits: Tensor) -> None:
        """Take the logits (C, H, W) of a tile; rows one after another, columns in order."""
        (top, bottom), (first, end) = self._rows.used(row), self._columns.used(column)
        y, x = self._rows.starts[row], self._columns.starts[column]
        piece = logits[:, top - y : bottom - y, first - x : end - x]
        if column == 0:
            self._above, self._below, self._left = self._below, None, None
        piece = _faded(self._left, piece, 2)
        piece, self._left = _cut(piece, self._columns.fading(column), 2)
        end = first + piece.shape[2]
        if self._above is not None:
            piece = _faded(self._above[:, :, first:end], piece, 1)
        piece, kept = _cut(piece, self._rows.fading(row), 1)
        if self._below is None:
            self._below = kept.new_empty(*kept.shape[:2], self._columns.length)
        self._below[:, :, first:end] = kept
        self._write(piece, top, first)

    def _write(self, piece: Tensor, top: int, first: int) -> None:
        place = (..., slice(top, top + piece.shape[1]), slice(first, first + piece.shape[2]))
        size = (self._rows.length, self._columns.length)
        if not is_pointwise(self._task):
            if self._logits is None:
                self._logits = torch.empty(piece.shape[0], *size)
            self._logits[place] = piece.cpu()
            return
        prediction = as_map(self._task, piece[None])
        if self._map is None:
            self._map = _empty((*prediction.shape[:-2], *size), prediction.dtype)
        self._map[place] = prediction

    def finished(self) -> NDArray[np.generic]:
        """The whole map."""
        if self._logits is not None:
            return as_map(self._task, self._logits[None])
        assert self._map is not None
        return self._map


def as_map(task: Task, logits: Tensor, zoom: float = 1.0) -> NDArray[np.generic]:
    """The prediction of one image (1, C, H, W): ids in 8 bits, of more than 256 classes in 16; or float32.

    Raises:
        PredictionError: logits are NaN or infinite.
    """
    check_logits(logits, f"task '{task.name}'")
    prediction = to_prediction(task, logits, zoom)[0].cpu().numpy()
    ids = np.uint8 if task.num_classes <= 256 else np.uint16
    return prediction.astype(ids if task.activation == "argmax" else np.float32)


def _faded(before: Tensor | None, piece: Tensor, axis: int) -> Tensor:
    """A piece whose first lines fade from what another tile says of them."""
    if before is None or before.shape[axis] == 0:
        return piece
    count = before.shape[axis]
    weight = (torch.arange(count, device=piece.device) + 0.5) / count
    weight = weight.view(-1, *[1] * (2 - axis))
    head = torch.lerp(before, piece.narrow(axis, 0, count), weight)
    return torch.cat([head, piece.narrow(axis, count, piece.shape[axis] - count)], dim=axis)


def _cut(piece: Tensor, count: int, axis: int) -> tuple[Tensor, Tensor]:
    """A piece without its last lines, and these in memory of their own."""
    length = piece.shape[axis] - count
    return piece.narrow(axis, 0, length), piece.narrow(axis, length, count).clone()


def _empty(shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> NDArray[np.generic]:
    """An array; a large one in a temporary file that goes with it."""
    if int(np.prod(shape)) * dtype.itemsize < LARGE:
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, dtype, "w+", shape=shape)


def padded(values: Tensor, size: tuple[int, int]) -> Tensor:
    """Images (B, C, H, W) with zeros below and on the right, up to `size`."""
    height, width = values.shape[-2:]
    return F.pad(values, (0, size[1] - width, 0, size[0] - height))

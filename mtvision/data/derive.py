"""Labels computed from other labels; configs name the functions of `DERIVATIONS`."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mtvision.core.registry import DERIVATIONS
from mtvision.core.task import IGNORE


@DERIVATIONS.register_module()
def edges_from_classes(label: NDArray[Any]) -> NDArray[np.float32]:
    """Thin boundaries between the regions of a class map, as PASCAL-Context's edge labels are made.

    Where the 4-neighbour Laplacian of the ids is not zero, thinned to one pixel. The definition has a quirk:
    between ids a, b, c in a row with a + c = 2 b the middle pixel is no edge. Thinning mostly closes the gap.

    Args:
        label: ids (H, W); 255 counts as a region like any other.

    Returns:
        float32 (H, W, 1), 0 or 1.
    """
    ids = np.asarray(label, dtype=np.float64)  # exact for any id
    return thin(cv2.Laplacian(ids, cv2.CV_64F) != 0)[..., None].astype(np.float32)


@DERIVATIONS.register_module()
def boundaries_from_classes(label: NDArray[Any]) -> NDArray[np.float32]:
    """Pixels whose right or lower neighbour has another id; nothing is thinned.

    Args:
        label: ids (H, W); 255 counts as a region like any other.

    Returns:
        float32 (H, W, 1), 0 or 1.
    """
    border = np.zeros(label.shape, dtype=np.float32)
    border[:, :-1] = label[:, :-1] != label[:, 1:]
    border[:-1] = np.maximum(border[:-1], label[:-1] != label[1:])
    return border[..., None]


def thin(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Thin a mask (H, W) to lines of one pixel, after Guo and Hall (CACM 1989), until nothing changes.

    Equal to `skimage.morphology.thin` and several times faster, which counts where it runs for every image
    read.
    """
    line = mask.astype(np.uint8)
    while True:
        before = int(line.sum())
        for keep in _KEEP:
            neighbours = cv2.filter2D(line, cv2.CV_8U, _BITS, borderType=cv2.BORDER_CONSTANT)
            line = line & np.asarray(cv2.LUT(neighbours, keep), dtype=np.uint8)
        if int(line.sum()) == before:
            return line.astype(bool)


_BITS = np.array([[8, 4, 2], [16, 0, 1], [32, 64, 128]], dtype=np.uint8)  # east = 1, then counter-clockwise


def _keeps(neighbours: int, first: bool) -> bool:
    """Whether a line pixel with these neighbours stays in the first or second half of an iteration."""
    x = [bool(neighbours >> bit & 1) for bit in range(8)]  # east, north-east, north, ...
    crossings = sum(not x[k] and (x[k + 1] or x[(k + 2) % 8]) for k in range(0, 8, 2))
    pairs = sum(x[k] or x[k + 1] for k in range(0, 8, 2))
    shifted_pairs = sum(x[k + 1] or x[(k + 2) % 8] for k in range(0, 8, 2))
    early, late = (x[1] or x[2] or not x[7]) and x[0], (x[5] or x[6] or not x[3]) and x[4]
    side = early if first else late
    return not (crossings == 1 and 2 <= min(pairs, shifted_pairs) <= 3 and not side)


_KEEP = tuple(
    np.array([_keeps(code, first) for code in range(256)], dtype=np.uint8) for first in (True, False)
)


def without_void(derived: NDArray[np.float32], label: NDArray[Any]) -> NDArray[np.float32]:
    """`derived` (H, W, C) with NaN where `label` is 255 or touches it: borders of void are no boundaries."""
    void = cv2.dilate((label == IGNORE).astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    return np.where(void[..., None], np.float32(np.nan), derived)

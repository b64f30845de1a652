"""Boundaries of segmentations, as SEISM draws them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from skimage.measure import label as connected_regions

Labels = NDArray[np.integer]


def seg2bmap(labels: Labels) -> NDArray[np.bool_]:
    """Mark a pixel whose label differs from its east, south or south-east neighbour.

    In the last row only the east neighbour counts, in the last column only the south one. Boundaries are
    therefore shifted by half a pixel towards the top left. An edge image read as a segmentation gets a band
    around its lines.

    Args:
        labels: region or class ids (H, W); 255 is an id like any other.
    """
    boundary = np.zeros(labels.shape, dtype=bool)
    boundary[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    boundary[:-1] |= labels[:-1] != labels[1:]
    boundary[:-1, :-1] |= labels[:-1, :-1] != labels[1:, 1:]
    return boundary


def regions(labels: Labels) -> Labels:
    """Number the 4-connected regions of equal label, label 0 included."""
    count_regions: Callable[..., Labels] = connected_regions
    return count_regions(labels, connectivity=1, background=int(labels.min()) - 1)

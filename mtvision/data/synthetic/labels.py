"""Label maps that are derived from the hits: boundaries, saliency, human parts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mtvision.core.task import IGNORE
from mtvision.data.synthetic.scene import CLASS_ID, Float

Bytes = NDArray[np.uint8]

JUMP = 0.05
"""Relative depth step between two bodies of one object that counts as an occlusion boundary."""

SALIENT_CLASSES = (
    "table", "chair", "bed", "cabinet", "lamp", "picture", "box", "ball", "person", "vehicle", "pole",
)  # fmt: skip
"""What can stand out: things. Surfaces of rooms and streets, and plants, are background."""
_MIN_AREA, _MAX_AREA = 0.01, 0.6
_SECOND = 0.75
_PERSON = 1.5


def boundaries(
    semseg: Bytes, instance: NDArray[np.int32], owner: NDArray[np.int64], depth: Float
) -> NDArray[np.float32]:
    """Boundaries of classes, instances and occlusions, one pixel wide.

    Two neighbours (left-right, above-below) are separated when class or instance differ. They are also
    separated when they belong to different bodies of one object with depths more than `JUMP` apart. The
    nearer of the two is marked, because a boundary belongs to what is in front. If both are equally near, it
    is the left or upper one.

    Returns:
        (H, W) float32, 1 on boundaries, else 0.
    """
    marked = np.zeros(semseg.shape, dtype=bool)
    for first, second in (
        (np.s_[:, :-1], np.s_[:, 1:]),
        (np.s_[:-1, :], np.s_[1:, :]),
    ):
        near, far = depth[first], depth[second]
        lower = np.minimum(near, far)
        with np.errstate(invalid="ignore"):
            jump = np.abs(near - far) > JUMP * lower
        apart = (semseg[first] != semseg[second]) | (instance[first] != instance[second])
        apart |= jump & (owner[first] != owner[second])
        mine = near <= far
        marked[first] |= apart & mine
        marked[second] |= apart & ~mine
    return marked.astype(np.float32)


def salient(image: Bytes, semseg: Bytes, instance: NDArray[np.int32]) -> Bytes:
    """Saliency map of the one or two most salient objects.

    An instance of `SALIENT_CLASSES` that covers between 1 % and 60 % of the image scores

        sqrt(area share) * centrality * (0.4 + contrast), times 1.5 for a person

    Centrality is 1 / (1 + (distance of its centroid from the image centre / 0.25 image diagonal)^2). Contrast
    is the Euclidean distance between its mean colour and that of the rest of the image, colours in 0..1. The
    best is salient, and so is the second best if it scores at least three quarters of that. An image without
    a candidate has no salient pixel. Sums are exact integers, so the order of adding cannot matter.

    Returns:
        (H, W) uint8, 1 = salient.
    """
    height, width = semseg.shape
    flat = instance.ravel()
    area = np.bincount(flat).astype(np.float64)
    kind = np.zeros(len(area), dtype=np.uint8)
    kind[flat] = semseg.ravel()
    thing = np.zeros(256, dtype=bool)
    thing[[CLASS_ID[name] for name in SALIENT_CLASSES]] = True
    share = area / flat.size
    candidates = np.flatnonzero(thing[kind] & (share >= _MIN_AREA) & (share <= _MAX_AREA))
    result = np.zeros(semseg.shape, dtype=np.uint8)
    if not len(candidates):
        return result
    count = area[candidates]
    rest = flat.size - count
    contrast = np.zeros(len(candidates))
    for channel in range(3):
        values = image[..., channel].ravel().astype(np.float64)
        inside = np.bincount(flat, weights=values, minlength=len(area))[candidates]
        contrast += (inside / count / 255 - (values.sum() - inside) / rest / 255) ** 2
    rows = np.bincount(flat, weights=np.repeat(np.arange(height), width))[candidates] / count
    columns = np.bincount(flat, weights=np.tile(np.arange(width), height))[candidates] / count
    off = (rows + 0.5 - height / 2) ** 2 + (columns + 0.5 - width / 2) ** 2
    central = 1 / (1 + off / (0.25**2 * (height**2 + width**2)))
    lure = np.where(kind[candidates] == CLASS_ID["person"], _PERSON, 1.0)
    score = np.round(lure * np.sqrt(share[candidates]) * central * (0.4 + np.sqrt(contrast)), 9)
    order = np.lexsort((candidates, -score))
    chosen = [candidates[i] for i in order[:2] if score[i] >= _SECOND * score[order[0]]]
    for one in chosen:
        result[instance == one] = 1
    return result


def human_parts(part: Bytes) -> Bytes:
    """Part ids (H, W) with background 0; 255 throughout where no person is seen, as PASCAL's loaders do."""
    return part if part.any() else np.full_like(part, IGNORE)

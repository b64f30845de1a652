"""The labels of PASCAL-Context that are computed from other files: edges, human parts, the normals' mask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtvision.core.files.mat import load_mat
from mtvision.core.task import IGNORE

PERSON = 15
"""Category id of a person in PASCAL VOC."""

PART_IDS = {
    **dict.fromkeys(("hair", "head", "lear", "rear", "lebrow", "rebrow", "leye", "reye", "mouth", "nose"), 1),
    **dict.fromkeys(("neck", "torso"), 2),
    **dict.fromkeys(("luarm", "ruarm"), 3),
    **dict.fromkeys(("llarm", "rlarm", "lhand", "rhand"), 4),
    **dict.fromkeys(("luleg", "ruleg"), 5),
    **dict.fromkeys(("llleg", "rlleg", "lfoot", "rfoot"), 6),
}
"""Name of a part in PASCAL-Part -> id of the six parts that the field uses."""

# Context classes (of 459) that the normals network knew: the names that also occur among NYU's 894 classes,
# less "unknown", plus "tvmonitor". Pixels of other classes have no normal.
_IDS = """
3 4 6 9 10 11 13 15 17 18 22 23 29 30 33 34 36 37 38 39 41 43 46 49 50 51 53 55 56 59 61 62 65 66 68 69
72 73 78 83 84 85 87 88 95 96 101 104 105 107 111 113 115 122 124 135 141 142 143 146 150 154 157 158 159
165 172 174 181 183 184 191 193 195 197 199 202 213 215 216 219 220 223 225 228 230 232 233 238 239 242
243 246 250 251 252 255 260 261 263 269 272 273 275 281 283 284 285 286 287 288 290 291 292 293 295 304
307 309 310 314 315 319 323 329 330 331 336 342 345 349 350 351 352 355 357 368 370 371 374 379 380 383
384 397 401 403 405 407 408 411 412 413 414 417 419 421 423 427 429 430 432 440 441 442 443 444 446 454
457
"""
NORMALS_CLASSES = frozenset(int(number) for number in _IDS.split())
NUM_CONTEXT_CLASSES = 459
_HAS_NORMALS = np.isin(np.arange(NUM_CONTEXT_CLASSES + 1), list(NORMALS_CLASSES))


def read_label_map(path: Path) -> NDArray[np.int64]:
    """PASCAL-Context's 459-class map (H, W), ids 0..459.

    Raises:
        ValueError: the file is not such a map.
    """
    content = _read_mat(path, "LabelMap", "PASCAL-Context's trainval/<id>.mat")
    if content.ndim != 2 or not np.issubdtype(content.dtype, np.number):
        raise ValueError(
            f"{path}: 'LabelMap' has shape {content.shape} and type {content.dtype}, expected a matrix "
            "(H, W). Take the file from PASCAL-Context's trainval archive again."
        )
    label_map = content.astype(np.int64)
    if label_map.size and not 0 <= label_map.min() <= label_map.max() <= NUM_CONTEXT_CLASSES:
        raise ValueError(
            f"{path}: 'LabelMap' holds ids {label_map.min()}..{label_map.max()}, expected 0..459. This is "
            "not PASCAL-Context's 459-class map; take the file from its trainval archive again."
        )
    return label_map


def normals_mask(label_map: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which pixels of a context map (H, W) have a usable distilled normal."""
    return np.asarray(_HAS_NORMALS[label_map])


def read_objects(path: Path) -> list[Any]:
    """PASCAL-Part's annotated objects, in file order; each is (class, category id, mask, parts).

    Raises:
        ValueError: the file has another structure.
    """
    content = _read_mat(path, "anno", "PASCAL-Part's Annotations_Part/<id>.mat")
    try:
        objects = content[0][0][1]
        found = list(objects[0]) if objects.size else []
        for item in found:
            int(item[1][0][0])
            item[2].any(), item[3].size
    except (IndexError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"{path}: 'anno' is not PASCAL-Part's structure of objects with class, class_ind, mask and parts "
            f"({error}). Take the file from PASCAL-Part's trainval archive again."
        ) from error
    return found


def object_categories(objects: list[Any]) -> list[int]:
    """VOC category id of every object; -1 for an object whose mask is empty."""
    return [int(item[1][0][0]) if np.any(item[2]) else -1 for item in objects]


def human_parts_from_objects(
    objects: list[Any], size: tuple[int, int], path: Path | str
) -> NDArray[np.uint8]:
    """Part ids 0..6 of shape `size`; 255 throughout if no person has an annotated part.

    Persons are painted in file order, and their parts in file order, so that later ones cover earlier ones.

    Raises:
        ValueError: a part's mask has another size, or a part's name is unknown.
    """
    canvas = np.zeros(size, dtype=np.uint8)
    for item in objects:
        if int(item[1][0][0]) != PERSON or item[3].size == 0:
            continue
        for part in item[3][0]:
            name, mask = str(part[0][0]), np.asarray(part[1])
            if name not in PART_IDS:
                raise ValueError(
                    f"{path}: unknown part '{name}' of a person. Known: {', '.join(PART_IDS)}. "
                    "Is this PASCAL-Part's trainval release?"
                )
            if mask.shape != size:
                raise ValueError(
                    f"{path}: the mask of part '{name}' has size {mask.shape} but the image has {size}. "
                    "Image and annotation come from different releases."
                )
            canvas[mask.astype(bool)] = PART_IDS[name]
    if not canvas.any():
        canvas[:] = IGNORE
    return canvas


def _read_mat(path: Path, key: str, origin: str) -> NDArray[Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; it is {origin}.")
    content = load_mat(path, [key], remedy=f"Replace it by {origin}.")
    if key not in content:
        raise ValueError(f"{path}: has no variable '{key}'. Replace it by {origin}.")
    return np.asarray(content[key])

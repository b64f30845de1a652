"""The content of a COCO file as values, and the limits of what is read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Limits:
    """What a COCO file may hold at most.

    Args:
        file_bytes: size of the JSON file, unpacked.
        entries: images, and annotations.
        pixels: of one image.
        points: of the polygons of one annotation.
        outline: length of the polygons of one annotation in pixels; native code takes 80 bytes for each.
        outside: how far polygons may leave the image, as a share of its sides; 10 pixels are always allowed.
    """

    file_bytes: float = 4 * 2**30
    entries: float = 20_000_000
    pixels: float = 2**28
    points: float = 1_000_000
    outline: float = 5_000_000
    outside: float = 0.1


@dataclass(frozen=True, slots=True)
class Region:
    """One annotated object.

    Args:
        category: id of its category.
        crowd: whether it is a crowd region.
        segmentation: polygons or RLE as in the file; None in panoptic files.
        number: id of its segment in a panoptic PNG; 0 in other files.
    """

    category: int
    crowd: bool
    segmentation: Any = None
    number: int = 0


@dataclass(slots=True)
class Picture:
    """One image with its annotations.

    Args:
        file_name: as in the file, within the folder of images.
        shape: height and width.
        regions: its objects in the order of the file.
        png: its panoptic PNG within the folder; None = it has none.
    """

    file_name: str
    shape: tuple[int, int]
    regions: list[Region] = field(default_factory=list)
    png: str | None = None


@dataclass(frozen=True)
class CocoFile:
    """What was found to be sound.

    Args:
        categories: {id: name}, ascending ids.
        pictures: the images in the order of the file.
        panoptic: whether annotations have `segments_info`.
        remarks: what was left out or is odd, a sentence each.
    """

    categories: dict[int, str]
    pictures: list[Picture]
    panoptic: bool
    remarks: tuple[str, ...]

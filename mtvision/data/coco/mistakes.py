"""What can be wrong in a COCO file: kinds with their remedies, counts, and one message for all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from reprlib import Repr
from typing import Any

from mtvision.data.decode import DecodeError

SHOWN = 3
"""Places of one kind that a message spells out."""


@dataclass(frozen=True)
class Kind:
    """A kind of mistake.

    Args:
        name: for counts.
        remedy: what to try next.
        odd: labels do not depend on it; it is reported and never refused.
    """

    name: str
    remedy: str
    odd: bool = False


ENTRY = Kind("entry that is no object", "Every entry is an object {...}; export the file again.")
KEY = Kind("absent key", "Add the key, or export the file again as COCO instances or panoptic.")
VALUE = Kind("value of a wrong type or range", "Correct the value.")
REPEATED = Kind("repeated id or name", "Renumber or rename; this happens when files are merged.")
NO_IMAGE = Kind(
    "annotation of an image that is not listed",
    "Add the image, or remove its annotations; ids compare by type.",
)
NO_CATEGORY = Kind("unknown category", "Add the category, or correct the id; ids compare by type.")
FILE_NAME = Kind("unsafe file name", "Write file names relative to the folder, with '/' and without '..'.")
NO_FILE = Kind(
    "file that does not exist", "Check the folder, the case and the spelling, and that unpacking finished."
)
NO_MASK = Kind("no mask", "Dense labels need polygons or RLE; boxes alone are not enough.")
POLYGON = Kind("bad polygon", "A polygon is a flat list x1, y1, x2, y2, ... of at least three points.")
OUTSIDE = Kind(
    "polygon outside of its image",
    "Are the coordinates those of another size? Correct or clip them, or set limits={'outside': share}.",
)
SHARES = Kind(
    "polygon in shares of the image",
    "Coordinates count in pixels: multiply them by the width and the height.",
)
RLE = Kind("bad RLE", "Encode the mask again; its counts sum to height x width.")
MASK_SIZE = Kind(
    "mask of another size than its image", "Take masks and sizes from one release; [height, width]."
)
LIMIT = Kind("value beyond a limit", "Is the file damaged? If not, raise the limit with limits={...}.")
BOX = Kind("odd bbox", "Labels do not depend on it.", odd=True)
AREA = Kind("odd area", "Labels do not depend on it.", odd=True)
NO_ID = Kind("annotation without id", "Labels do not depend on it.", odd=True)
UNLABELLED = Kind("image without panoptic annotation", "None of its pixels is annotated.", odd=True)
NO_PIXEL = Kind("mask without a pixel", "The object is in no label.", odd=True)
EMPTY = Kind("file without annotations", "No image has a label.", odd=True)


@dataclass(frozen=True)
class Mistake:
    """One mistake inside an entry.

    Args:
        kind: its kind.
        where: JSON path within the entry, e.g. `.segmentation[0]`.
        text: what was found and what was expected, the rest of a sentence that begins with the path.
    """

    kind: Kind
    where: str
    text: str


@dataclass
class Mistakes:
    """All mistakes of one file, counted by kind; the first few of each are kept.

    Attributes:
        images: ids of images that a mistake concerns.
        annotations: number of annotations that belong to no listed image, or repeat another.
        fatal: whether there is a mistake that leaving out images does not settle.
    """

    path: Path
    counts: Counter[Kind] = field(default_factory=Counter)
    images: set[Hashable] = field(default_factory=set)
    annotations: int = 0
    fatal: bool = False
    _examples: dict[Kind, list[str]] = field(default_factory=dict)

    def add(self, entry: str, mistake: Mistake, images: Iterable[Hashable] = ()) -> None:
        """Count a mistake of `entry`, e.g. `annotations[3]`, that concerns these images."""
        self.counts[mistake.kind] += 1
        if not mistake.kind.odd:
            self.images.update(images)
        examples = self._examples.setdefault(mistake.kind, [])
        if len(examples) < SHOWN:
            examples.append(f"{entry}{mistake.where} {mistake.text}")

    def total(self, *, odd: bool = False) -> int:
        """Number of mistakes, or of oddities."""
        return sum(count for kind, count in self.counts.items() if kind.odd == odd)

    def listing(self, *, odd: bool = False) -> list[str]:
        """A line for each kind: its count, the first places, the remedy."""
        lines = []
        for kind, count in self.counts.items():
            if kind.odd == odd:
                more = f"; and {count - SHOWN} more" if count > SHOWN else ""
                lines.append(f"{count} x {kind.name}: {'; '.join(self._examples[kind])}{more}. {kind.remedy}")
        return lines

    def summary(self, *, odd: bool = False) -> str:
        """Counts by kind in one line."""
        return ", ".join(f"{count} x {kind.name}" for kind, count in self.counts.items() if kind.odd == odd)

    def error(self, advice: str) -> DecodeError:
        """The exception that lists everything, and ends with `advice`."""
        lines = [f"{self.path}: {self.total()} mistake(s).", *self.listing(), advice]
        return DecodeError("\n  ".join(line for line in lines if line))


def shown(value: Any) -> str:
    """A value for a message, shortened."""
    return _SHORT.repr(value)


_SHORT = Repr()
_SHORT.maxlist = _SHORT.maxdict = 4
_SHORT.maxlevel = 3
_SHORT.maxstring = _SHORT.maxother = 60

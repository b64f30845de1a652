"""Checks of TIFF files: sizes of all pages, and whether every strip and tile lies within the file."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mtvision.core.files.foreign import DecodeError
from mtvision.core.files.limits import require_decoded_size, require_pixels

TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_WIDTH, _HEIGHT, _BITS, _SAMPLES = 256, 257, 258, 277
_SHOWN = {274: 1, 338: 0}
"""Tags of how a picture is turned and of its transparency, and their values where neither changes pixels."""
_PLACES = ((273, 279), (324, 325))
"""Tags with the offsets and the numbers of bytes of strips and of tiles."""
_SIZES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}
_LETTERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
_MOST_PAGES = 1024
_MOST_VALUES = 2**20


class _DamageError(Exception):
    """A part that the file should have is not in it."""


def check_tiff(path: Path | str, content: bytes) -> None:
    """Refuse a TIFF that is cut off, or whose pages together promise more than the limits allow.

    Args:
        path: for messages.
        content: the whole file.

    Raises:
        TooLargeError: it has more pixels or decoded bytes than the limits allow.
        DecodeError: a part of it lies behind its end.
    """
    total = 0
    try:
        for tags in _pages(content):
            width, height = (next(iter(_values(tags, tag)), 0) for tag in (_WIDTH, _HEIGHT))
            require_pixels(path, width, height)
            bits, samples = max(_values(tags, _BITS) or (1,)), next(iter(_values(tags, _SAMPLES)), 1)
            total += width * height * samples * (max(bits, 8) // 8)
            require_decoded_size(path, total)
            _require_inside(tags, len(content))
    except (_DamageError, struct.error) as error:
        raise DecodeError(
            f"{path}: not a readable TIFF, or one that was cut off ({error}). Copy or unpack it again."
        ) from None


def as_stored(content: bytes) -> bytes:
    """The same TIFF, of which decoders show the pixels as they lie in the file.

    They turn pictures by the tag of their orientation, and multiply colours by transparency.

    Args:
        content: the whole file, which `check_tiff` accepts.
    """
    result = bytearray(content)
    for tags in _pages(content):
        for tag in _SHOWN.keys() & tags.keys():
            found = tags[tag]
            struct.pack_into(found.form, result, found.place, *(_SHOWN[tag] for _ in found.values))
    return bytes(result)


class _Tag(NamedTuple):
    """Whole numbers of a tag, where they begin, and their form for `struct`."""

    values: tuple[int, ...]
    place: int
    form: str


_Tags = dict[int, _Tag]


def _values(tags: _Tags, tag: int) -> tuple[int, ...]:
    return tags[tag].values if tag in tags else ()


def _pages(content: bytes) -> Iterator[_Tags]:
    """Tags of each page that hold whole numbers."""
    order = "<" if content.startswith(b"I") else ">"
    big = 43 in (content[2], content[3])
    first, count, entry = (8, "Q", 20) if big else (4, "H", 12)
    letter, wide = ("Q", 8) if big else ("I", 4)
    (place,) = struct.unpack_from(f"{order}{letter}", content, first)
    seen: set[int] = set()
    while place:
        if place in seen or len(seen) >= _MOST_PAGES:
            raise _DamageError(f"its pages lead in a circle, or there are more than {_MOST_PAGES}")
        seen.add(place)
        if place + struct.calcsize(count) > len(content):
            raise _DamageError(f"a page begins at byte {place} of {len(content)}")
        (entries,) = struct.unpack_from(f"{order}{count}", content, place)
        start = place + struct.calcsize(count)
        end = start + entries * entry
        if end + wide > len(content):
            raise _DamageError(f"the description of a page ends at byte {end} of {len(content)}")
        yield dict(_tags(content, order, letter, range(start, end, entry)))
        (place,) = struct.unpack_from(f"{order}{letter}", content, end)


def _tags(content: bytes, order: str, letter: str, places: range) -> Iterator[tuple[int, _Tag]]:
    wide = struct.calcsize(letter)
    for place in places:
        tag, kind, count = struct.unpack_from(f"{order}HH{letter}", content, place)
        size = _SIZES.get(kind, 1) * count
        start = place + 4 + wide
        if size > wide:
            (start,) = struct.unpack_from(f"{order}{letter}", content, start)
        if start + size > len(content):
            raise _DamageError(f"the values of tag {tag} end at byte {start + size} of {len(content)}")
        if kind in _LETTERS and count <= _MOST_VALUES:
            form = f"{order}{count}{_LETTERS[kind]}"
            yield tag, _Tag(struct.unpack_from(form, content, start), start, form)


def _require_inside(tags: _Tags, size: int) -> None:
    for offsets, counts in _PLACES:
        for start, count in zip(_values(tags, offsets), _values(tags, counts), strict=False):
            if start + count > size:
                raise _DamageError(f"pixels end at byte {start + count} of {size}")

"""Check a whole COCO file before anything uses it, and tell all mistakes at once."""

from __future__ import annotations

import logging
import posixpath
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from typing import Any

from mtvision.core.files.json_file import read_json
from mtvision.core.files.names import composed
from mtvision.core.naming import look_up
from mtvision.data.coco.fields import Id, absence_in, integer, is_text, normal_id, odd_area, odd_box, unsafe
from mtvision.data.coco.masks import find_mistake, find_sum_mistakes, odd_mask
from mtvision.data.coco.mistakes import (
    EMPTY,
    ENTRY,
    FILE_NAME,
    KEY,
    LIMIT,
    NO_CATEGORY,
    NO_FILE,
    NO_ID,
    NO_IMAGE,
    REPEATED,
    UNLABELLED,
    VALUE,
    Kind,
    Mistake,
    Mistakes,
    shown,
)
from mtvision.data.coco.records import CocoFile, Limits, Picture, Region
from mtvision.data.decode import DecodeError

_log = logging.getLogger("mtvision")

POLICIES: dict[str, str] = {
    "error": "refuse the file",
    "skip": "leave out the images that a mistake concerns",
}
LISTS = ("images", "annotations", "categories")
UNKNOWN = (0, 0)
"""Shape of an image whose entry gives none; its masks are not checked."""
LARGEST_SEGMENT = 2**24 - 1
"""Panoptic PNG files hold ids in three bytes; 0 = not annotated."""


def read_coco(
    path: Path,
    images: Path,
    panoptic: Path,
    *,
    policy: str = "error",
    limits: Limits | None = None,
) -> CocoFile:
    """Read an instances or panoptic file and check all of it.

    Args:
        path: the JSON file, optionally gzipped.
        images: folder of the images, in which every listed file must exist.
        panoptic: folder of the panoptic PNG files; not looked at for instances.
        policy: `error` refuses a file with mistakes. `skip` leaves out the images that a mistake concerns,
            and annotations of images that are not listed; what is left out is logged.
        limits: of sizes.

    Raises:
        FileNotFoundError: the file or the folder of PNG files does not exist.
        DecodeError: it is no COCO file, has mistakes, or `skip` leaves nothing.
        UnknownNameError: there is no such policy.
    """
    look_up("value of mistakes=", policy, POLICIES)
    limits = limits or Limits()
    check = _Check(path, _content(path, limits), limits)
    if check.panoptic and not panoptic.is_dir():
        raise FileNotFoundError(f"{panoptic}: no such folder. Give panoptic=, the folder of the PNG files.")
    check.read_categories()
    check.read_images(images)
    if check.panoptic:
        check.read_panoptic(panoptic)
    else:
        check.read_instances()
    return check.result(policy)


def read_categories(path: Path) -> dict[int, str]:
    """{id: name} of the categories by ascending id; nothing else is checked.

    Raises:
        FileNotFoundError: the file does not exist.
        DecodeError: it is no COCO file, or its categories have mistakes.
    """
    check = _Check(path, _content(path, Limits()), Limits())
    check.read_categories()
    if check.mistakes.total():
        raise check.mistakes.error("")
    return check.categories


def _content(path: Path, limits: Limits) -> dict[str, Any]:
    """The three lists of a file."""
    content = read_json(path, most_bytes=int(limits.file_bytes))
    if not isinstance(content, dict):
        raise DecodeError(
            f"{path}: expected a COCO file, an object with {', '.join(map(repr, LISTS))}; found "
            f"{shown(content)}. A list of detections (COCO results) holds no images; name the file of "
            "annotations."
        )
    lacking = [key for key in LISTS if key not in content]
    if lacking:
        raise DecodeError(
            f"{path}: expected a COCO instances or panoptic file; it has no {', '.join(map(repr, lacking))}."
        )
    for key in LISTS:
        if not isinstance(content[key], list):
            raise DecodeError(f"{path}: '{key}' is {shown(content[key])}; expected a list of objects.")
        if len(content[key]) > limits.entries:
            raise DecodeError(
                f"{path}: '{key}' has {len(content[key])} entries; the limit is {limits.entries:g}. Split "
                "the file, or raise limits={'entries': ...}."
            )
    return content


class _Check:
    """One pass over a file. Methods are called in the order of their definition."""

    def __init__(self, path: Path, content: dict[str, list[Any]], limits: Limits) -> None:
        self.path, self.content, self.limits = path, content, limits
        self.mistakes = Mistakes(path)
        self.categories: dict[int, str] = {}
        self.pictures: dict[Id, Picture] = {}
        self.panoptic = any(type(item) is dict and "segments_info" in item for item in content["annotations"])

    def _entries(self, name: str, keys: Set[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """(JSON path, entry) of the entries that are objects with all keys."""
        for position, item in enumerate(self.content[name]):
            entry = f"{name}[{position}]"
            if type(item) is dict and keys <= item.keys():
                yield entry, item
                continue
            number = normal_id(item.get("image_id")) if type(item) is dict else None
            self.mistakes.annotations += name == "annotations" and number is None
            if type(item) is not dict:
                self.mistakes.add(entry, Mistake(ENTRY, "", f"is {shown(item)}; expected an object"))
                continue
            absent = ", ".join(map(repr, sorted(keys - item.keys())))
            self.mistakes.add(entry, Mistake(KEY, "", f"has no {absent}"), [] if number is None else [number])

    def _wrong(
        self, kind: Kind, entry: str, field: str, value: Any, expected: str, of: Sequence[Id] = ()
    ) -> None:
        self.mistakes.add(entry, Mistake(kind, f".{field}", f"is {shown(value)}; expected {expected}"), of)

    def read_categories(self) -> None:
        """Ids and names, unique and of the right types. No policy settles a mistake here."""
        names: dict[str, str] = {}
        for entry, item in self._entries("categories", {"id", "name"}):
            number, name = integer(item["id"]), item["name"]
            if number is None:
                self._wrong(VALUE, entry, "id", item["id"], "an integer")
            elif number in self.categories:
                self._wrong(REPEATED, entry, "id", number, f"another; '{self.categories[number]}' has it")
            elif not is_text(name):
                self._wrong(VALUE, entry, "name", name, "a text of printable characters")
            elif composed(name) in names:
                self._wrong(REPEATED, entry, "name", name, f"another; {names[composed(name)]} has it")
            else:
                self.categories[number] = name
                names[composed(name)] = entry
        if not self.content["categories"]:
            self._wrong(VALUE, "categories", "length", 0, "at least one category")
        self.categories = dict(sorted(self.categories.items()))
        self.mistakes.fatal = self.mistakes.total() > 0

    def read_images(self, folder: Path) -> None:
        """Ids, names, sizes, and whether the files exist."""
        absence = absence_in(folder)
        names = Counter(
            composed(posixpath.normpath(item["file_name"]))
            for item in self.content["images"]
            if type(item) is dict and isinstance(item.get("file_name"), str)
        )
        for entry, item in self._entries("images", {"id", "file_name", "height", "width"}):
            number = normal_id(item["id"])
            if number is None:
                self._wrong(VALUE, entry, "id", item["id"], "an integer or a text")
                continue
            if number in self.pictures:
                self._wrong(REPEATED, entry, "id", number, "another; an earlier image has it", [number])
            name, shape = item["file_name"], self._shape(entry, number, item)
            self.pictures[number] = Picture(str(name), shape)
            problem = unsafe(name)
            if problem is not None:
                self._wrong(FILE_NAME, entry, "file_name", name, problem, [number])
                continue
            normal = composed(posixpath.normpath(name))
            if names[normal] > 1:  # annotations may be spread over its entries
                expected = f"a name of its own; {names[normal]} images have it"
                self._wrong(REPEATED, entry, "file_name", name, expected, [number])
            expected_file = absence(normal)
            if expected_file is not None:
                self._wrong(NO_FILE, entry, "file_name", name, expected_file, [number])
        if not self.content["images"]:
            self._wrong(VALUE, "images", "length", 0, "at least one image")
            self.mistakes.fatal = True

    def _shape(self, entry: str, number: Id, item: dict[str, Any]) -> tuple[int, int]:
        sides = []
        for key in ("height", "width"):
            side = integer(item[key])
            if side is None or side < 1:
                self._wrong(VALUE, entry, key, item[key], "a positive integer", [number])
                return UNKNOWN
            sides.append(side)
        if sides[0] * sides[1] > self.limits.pixels:
            text = f"is {sides[0]}x{sides[1]}; at most {self.limits.pixels:g} pixels (limit 'pixels')"
            self.mistakes.add(entry, Mistake(LIMIT, "", text), [number])
            return UNKNOWN
        return sides[0], sides[1]

    def _picture(self, entry: str, item: dict[str, Any]) -> tuple[Id, Picture] | None:
        number = normal_id(item["image_id"])
        if number is None:
            self._wrong(VALUE, entry, "image_id", item["image_id"], "the id of an image")
        elif number not in self.pictures:
            text = f"belongs to image {shown(number)}, which is not listed in 'images'"
            self.mistakes.add(entry, Mistake(NO_IMAGE, "", text))
        else:
            return number, self.pictures[number]
        self.mistakes.annotations += 1
        return None

    def _region(self, entry: str, number: Id, item: dict[str, Any]) -> Region | None:
        """Category and crowd flag of an annotation or segment of image `number`."""
        category, crowd = integer(item["category_id"]), item.get("iscrowd", 0)
        sound = True
        if category is None or category not in self.categories:
            known = shown(list(self.categories))
            text = f"is {shown(item['category_id'])}, which 'categories' does not list; it has {known}"
            self.mistakes.add(entry, Mistake(NO_CATEGORY, ".category_id", text), [number])
            sound = False
        if crowd not in (0, 1):
            self._wrong(VALUE, entry, "iscrowd", crowd, "0 or 1", [number])
            sound = False
        return Region(category or 0, bool(crowd), item.get("segmentation")) if sound else None

    def read_instances(self) -> None:
        """Annotations with polygons or RLE."""
        seen: dict[Id, dict[str, Any]] = {}
        packed: list[tuple[str, Id]] = []
        codes: list[tuple[str, tuple[int, int]]] = []
        for entry, item in self._entries("annotations", {"image_id", "category_id"}):
            found = self._picture(entry, item)
            if found is None:
                continue
            number, picture = found
            region = self._region(entry, number, item)
            segmentation = item.get("segmentation")
            known = picture.shape != UNKNOWN
            mistake = find_mistake(segmentation, picture.shape, self.limits) if known else None
            if mistake is not None:
                self.mistakes.add(entry, mistake, [number])
            elif known and isinstance(segmentation, dict) and isinstance(segmentation["counts"], str):
                packed.append((entry, number))
                codes.append((segmentation["counts"], picture.shape))
            sound = region is not None and mistake is None and known
            if not self._repeats(entry, number, item, seen, sound) and region is not None:
                picture.regions.append(region)
            for oddity in (
                odd_box(item.get("bbox"), segmentation if sound else None),
                odd_area(item.get("area")),
                odd_mask(segmentation) if sound else None,
            ):
                if oddity is not None:
                    self.mistakes.add(entry, oddity)
        for position, mistake in find_sum_mistakes(codes):
            entry, number = packed[position]
            self.mistakes.add(entry, mistake, [number])

    def _repeats(
        self, entry: str, number: Id, item: dict[str, Any], seen: dict[Id, dict[str, Any]], sound: bool
    ) -> bool:
        """Whether a sound annotation repeats an earlier one, so that labels do not change without it."""
        if "id" not in item:
            self.mistakes.add(entry, Mistake(NO_ID, "", "has no 'id'"))
            return False
        identity = normal_id(item["id"])
        if identity is None:
            self._wrong(VALUE, entry, "id", item["id"], "an integer or a text", [number])
            return False
        first = seen.setdefault(identity, item)
        if first is item:
            return False
        if sound and all(first.get(key) == item.get(key) for key in _LABEL_KEYS):
            self._wrong(REPEATED, entry, "id", identity, "another; an equal annotation has it")
            self.mistakes.annotations += 1
            return True
        both = [number, *(key for key in [normal_id(first["image_id"])] if key is not None)]
        self._wrong(REPEATED, entry, "id", identity, "another; a different annotation has it", both)
        return False

    def read_panoptic(self, folder: Path) -> None:
        """Annotations that name a PNG file and its segments."""
        absence = absence_in(folder)
        names: dict[str, Id] = {}
        for entry, item in self._entries("annotations", {"image_id", "file_name", "segments_info"}):
            found = self._picture(entry, item)
            if found is None:
                continue
            number, picture = found
            name, problem = item["file_name"], unsafe(item["file_name"])
            if picture.png is not None:
                self._wrong(REPEATED, entry, "image_id", number, "another; it has an annotation", [number])
            elif problem is not None:
                self._wrong(FILE_NAME, entry, "file_name", name, problem, [number])
            elif (expected := absence(posixpath.normpath(name))) is not None:
                self._wrong(NO_FILE, entry, "file_name", name, expected, [number])
            else:
                picture.png = name
                first = names.setdefault(posixpath.normpath(name), number)
                if first != number:
                    self._wrong(
                        REPEATED, entry, "file_name", name, f"another; {first} has it", [number, first]
                    )
            self._segments(entry, number, item["segments_info"], picture)
        for number, picture in self.pictures.items():
            if picture.png is None and number not in self.mistakes.images:
                text = "has no annotation"
                self.mistakes.add(f"image {shown(number)}", Mistake(UNLABELLED, "", text))

    def _segments(self, entry: str, number: Id, segments: Any, picture: Picture) -> None:
        if type(segments) is not list:
            self._wrong(VALUE, entry, "segments_info", segments, "a list of objects", [number])
            return
        used = set()
        for position, item in enumerate(segments):
            where = f"{entry}.segments_info[{position}]"
            if type(item) is not dict or not {"id", "category_id"} <= item.keys():
                text = f"is {shown(item)}; expected an object with 'id' and 'category_id'"
                self.mistakes.add(where, Mistake(ENTRY, "", text), [number])
                continue
            region, key = self._region(where, number, item), integer(item["id"])
            if key is None or not 1 <= key <= LARGEST_SEGMENT:
                self._wrong(VALUE, where, "id", item["id"], f"an integer in 1..{LARGEST_SEGMENT}", [number])
            elif key in used:
                self._wrong(REPEATED, where, "id", key, "another; a segment of this image has it", [number])
            elif region is not None:
                picture.regions.append(Region(region.category, region.crowd, number=key))
            used.add(key)

    def result(self, policy: str) -> CocoFile:
        """The sound part; raises where `policy` says so."""
        mistakes, listed = self.mistakes, len(self.content["images"])
        if not self.content["annotations"]:
            mistakes.add("annotations", Mistake(EMPTY, "", "is []"))
        kept = [picture for number, picture in self.pictures.items() if number not in mistakes.images]
        lost = f"{listed - len(kept)} of {listed} images and {mistakes.annotations} annotations"
        if mistakes.fatal:
            raise mistakes.error(
                "Correct the file; without sound images and categories nothing can be left out."
            )
        if mistakes.total() and (policy == "error" or not kept):
            nothing = "" if kept else ", so nothing remains"
            raise mistakes.error(f"Correct the file; mistakes='skip' leaves out {lost}{nothing}.")
        remarks = []
        if mistakes.total():
            remarks = [f"{self.path}: left out {lost}.", *mistakes.listing()]
            _log.warning("%s: left out %s: %s (mistakes='skip').", self.path, lost, mistakes.summary())
        if mistakes.total(odd=True):
            remarks += mistakes.listing(odd=True)
            _log.warning("%s: accepted %s.", self.path, mistakes.summary(odd=True))
        return CocoFile(self.categories, kept, self.panoptic, tuple(remarks))


_LABEL_KEYS = ("image_id", "category_id", "segmentation", "iscrowd")

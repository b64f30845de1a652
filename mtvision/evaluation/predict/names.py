"""A name for the outputs of every input, none twice."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePath, PurePosixPath

from mtvision.evaluation.predict.inputs import Source

LONGEST = 180
"""Bytes of a part of a name; file systems allow 255, of which endings and temporary files need some."""
ENDINGS = (".png", ".npz", ".npy", ".mp4", ".json")
"""Endings of outputs."""
_REFUSED = re.compile(r'[\x00-\x1f<>:"/\\|?*]')


def output_names(sources: Sequence[Source]) -> list[str]:
    """A relative path without ending for every input.

    It is the path below the folder that was given, without its ending: `trip/sea/boat.jpg` of the folder
    `trip` becomes `sea/boat`. Where two inputs of one folder would have one name, both keep their endings
    (`boat.jpg` and `boat.png`). Inputs of several folders get the names of more folders (`sea/boat` and
    `lake/boat`).
    Names that differ only in case or in their Unicode form count as one, as on most file systems.

    >>> output_names([Source(text, "image", None, tuple(text.split("/"))) for text in ("a/x.jpg", "b/x.jpg")])
    ['a/x', 'b/x']
    """
    depth = [source.inside for source in sources]
    ending = [False] * len(sources)
    while True:
        names = [_name(*item) for item in zip(sources, depth, ending, strict=True)]
        counts = Counter(map(_key, names))
        together = Counter((_key(name), item.parts[:-1]) for name, item in zip(names, sources, strict=True))
        changed = False
        for index, source in enumerate(sources):
            key = _key(names[index])
            if counts[key] == 1:
                continue
            if together[key, source.parts[:-1]] > 1:
                changed |= not ending[index]
                ending[index] = True
            elif depth[index] < len(source.parts):
                depth[index] += 1
                changed = True
        if not changed:
            return _numbered(names)


def _name(source: Source, depth: int, ending: bool) -> str:
    *folders, last = source.parts[-depth:]
    whole = last if ending or source.kind == "camera" else PurePath(last).stem
    return str(PurePosixPath(*(_part(_as_folder(text)) for text in folders), _part(whole)))


def _as_folder(text: str) -> str:
    """A folder `x.png` would take the name of the output of `x.jpg`."""
    path = PurePath(text)
    return f"{path.stem}_{path.suffix[1:]}" if path.suffix.lower() in ENDINGS else text


def _part(text: str) -> str:
    """Without what a file system refuses, and not too long."""
    text = _REFUSED.sub("_", text).strip() or "_"
    text = f"_{text}" if text.startswith(".") else text
    encoded = text.encode(errors="surrogateescape")
    if len(encoded) <= LONGEST:
        return text
    digest = hashlib.sha256(encoded).hexdigest()[:8]
    return f"{encoded[:LONGEST].decode(errors='ignore')}-{digest}"


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _numbered(names: Sequence[str]) -> list[str]:
    """Numbers for what nothing else tells apart, e.g. one URL with two queries."""
    taken, result = {_key(name) for name in names}, []
    seen: Counter[str] = Counter()
    for name in names:
        seen[_key(name)] += 1
        number, chosen = seen[_key(name)], name
        while number > 1 and _key(chosen) in taken:
            chosen = f"{name}-{number}"
            number += 1
        taken.add(_key(chosen))
        result.append(chosen)
    return result

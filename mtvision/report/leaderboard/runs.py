"""Files of a run's work directory for the page: losses of every step, and pictures of predictions."""

from __future__ import annotations

import base64
import io
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import fsum, isfinite
from pathlib import Path
from typing import Any

from mtvision.core.files.foreign import reading
from mtvision.report.record import Record, json_files

LOSS_FILE = "losses.jsonl"
PICTURE_FOLDER = "pictures"
PLOT = "gradients.png"
"""A plot beside the pictures, which shows no image."""
POINTS = 160
"""Points of a curve; each is the mean over equally many steps."""


@dataclass(frozen=True)
class RunFiles:
    """Embedded files of one run.

    Args:
        curves: `iterations`, and `series` {name as logged: means}; None if there is no log.
        pictures: {name of the image: `data:` URI}, in the order of the names.
    """

    curves: dict[str, Any] | None = None
    pictures: dict[str, str] = field(default_factory=dict)


class RunFolders:
    """Finds the work directory of a record.

    Args:
        folders: searched for `record.json`.
        pictures: at most so many per run.
        width: pictures are shrunk to it, in pixels.

    Raises:
        FileNotFoundError: a folder does not exist.
    """

    def __init__(self, folders: Iterable[str | Path] = (), *, pictures: int = 3, width: int = 1200) -> None:
        self._pictures, self._width = pictures, width
        self._found: dict[tuple[str, int | None], list[tuple[str, Path]]] = defaultdict(list)
        for folder in map(Path, folders):
            if not folder.is_dir():
                raise FileNotFoundError(
                    f"{folder} is not a folder; give work directories, or one above them."
                )
            for file in (path for path in json_files(folder) if path.name == "record.json"):
                record = Record.load(file)
                self._found[_key(record)].append((record.created, file.parent))

    def files(self, record: Record) -> RunFiles:
        """Curves and pictures of the run that wrote a record; empty if its folder is not there."""
        folder = self.folder(record)
        if folder is None:
            return RunFiles()
        return RunFiles(
            read_curves(folder / LOSS_FILE),
            read_pictures(folder / PICTURE_FOLDER, self._pictures, self._width),
        )

    def folder(self, record: Record) -> Path | None:
        """The work directory with the same config and seed; of several, the one of the same time."""
        found = self._found.get(_key(record), []) if record.config else []
        same = [path for created, path in found if created == record.created]
        return same[0] if same else max(found)[1] if found else None


def _key(record: Record) -> tuple[str, int | None]:
    return (record.config or {}).get("sha256", ""), record.seed


def read_curves(file: Path, points: int = POINTS) -> dict[str, Any] | None:
    """The log of a run, thinned by means over equal numbers of steps; None if there is none.

    Values that are not finite are left out of the means; a point without any is None.

    Raises:
        ValueError: a line is not JSON, or no line of such a log.
    """
    if not file.is_file():
        return None
    rows: list[Mapping[str, float]] = []
    for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{file}, line {number}: not JSON ({error}); was the run cut off?") from error
        if not isinstance(row, dict) or not isinstance(row.get("iter"), int):
            raise ValueError(f"{file}, line {number}: expected an object with 'iter'. Is it a log of losses?")
        rows.append(row)
    if not rows:
        return None
    size = -(-len(rows) // points)
    parts = [rows[start : start + size] for start in range(0, len(rows), size)]
    names = sorted({name for row in rows for name in row if name != "iter"})
    return {
        "iterations": [int(part[-1]["iter"]) for part in parts],
        "series": {name: [_mean(part, name) for part in parts] for name in names},
    }


def _mean(rows: Sequence[Mapping[str, float]], name: str) -> float | None:
    values = [row[name] for row in rows if isinstance(row.get(name), int | float) and isfinite(row[name])]
    return float(f"{fsum(values) / len(values):.5g}") if values else None


def read_pictures(folder: Path, count: int, width: int) -> dict[str, str]:
    """The first pictures of a folder, by name, as WebP `data:` URIs."""
    files = sorted(folder.glob("*.png")) if folder.is_dir() else []
    files = [file for file in files if file.name != PLOT]
    return {file.stem: _data_uri(file, width) for file in files[:count]}


def _data_uri(file: Path, width: int) -> str:
    from PIL import Image

    from mtvision.core.files.pictures import opened, read_bytes

    content = read_bytes(file)
    with reading(file, "cannot be read", "Make the pictures again."), opened(content) as found:
        image = found.convert("RGB")
    if image.width > width:
        image = image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=82, method=6)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")

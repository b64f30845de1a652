"""Rendered samples on disk: one compressed file each, written atomically, checked when read."""

from __future__ import annotations

import hashlib
import io
import json
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mtvision.data.synthetic.render import Rendering, empty_rendering
from mtvision.runtime.atomic import atomic_file, write_text

_LEVEL = 1
"""Of the deflation: files are a twentieth larger than with 6, and written in three fifths of the time."""


class RenderCache:
    """A folder of renderings that all share the same parameters.

    Args:
        root: folder for any number of caches; made when needed.
        key: plain data that decides what is rendered. Another key is another folder, so that nothing rendered
            with other parameters, or by another version of the generator, is ever read.
    """

    def __init__(self, root: str | Path, key: Mapping[str, Any]) -> None:
        text = json.dumps(key, sort_keys=True)
        self.folder = Path(root) / f"synthetic-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        self._text = text

    def path(self, name: str) -> Path:
        """File of a sample."""
        return self.folder / f"{name}.npz"

    def load(self, name: str, size: tuple[int, int]) -> Rendering | None:
        """The rendering of that name and (H, W); None if there is none.

        A file that cannot be read, or does not hold what it should, is reported as a warning and counts as
        absent.
        """
        path = self.path(name)
        try:
            zipfile.ZipFile(path).close()  # NumPy would take a bare array or a pickle for what it is
            with np.load(path, allow_pickle=False) as file:
                arrays = {key: file[key] for key in file.files}
            expected = empty_rendering(size).arrays()
            if {key: (array.shape, array.dtype) for key, array in arrays.items()} != {
                key: (array.shape, array.dtype) for key, array in expected.items()
            }:
                raise ValueError("it holds other arrays than a rendering of this size")
            return Rendering(**arrays)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            warnings.warn(
                f"{path}: the cached rendering cannot be used ({error}); it is rendered again and replaced.",
                stacklevel=2,
            )
            return None

    def save(self, name: str, rendering: Rendering) -> None:
        """Write a rendering; a process that reads at the same time gets the old file, none, or the whole new
        one."""
        note = self.folder / "parameters.json"
        if not note.exists():
            write_text(note, self._text + "\n")
        with (
            atomic_file(self.path(name), sync=False) as file,
            zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL) as archive,
        ):
            for key, array in rendering.arrays().items():
                content = io.BytesIO()
                np.save(content, array, allow_pickle=False)
                archive.writestr(f"{key}.npy", content.getbuffer())

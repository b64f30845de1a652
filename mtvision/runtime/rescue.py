"""A result that must not be lost when its file cannot be written."""

from __future__ import annotations

import tempfile
import uuid
from pathlib import Path
from typing import TextIO

from mtvision.runtime.atomic import write_text
from mtvision.runtime.attempts import failure_line


def write_or_rescue(path: Path, text: str, stream: TextIO) -> tuple[Path | None, str]:
    """Write a text to its file, else to a new temporary folder, else to a stream.

    Args:
        path: where it belongs.
        text: content.
        stream: the last resort, e.g. standard output.

    Returns:
        The file that holds the text (None if it was printed), and a line that says why it is not `path`. The
        line is empty if it is.

    Raises:
        OSError: the stream cannot be written either.
    """
    try:
        write_text(path, text)
    except OSError as error:
        found = _in_temporary_folder(path.name, text)
        if found is None:
            print(text, file=stream, flush=True)
            place = "the temporary folder cannot be written either, so the content was printed: keep it"
        else:
            place = f"make room, then copy it from the temporary folder: {found}"
        return found, failure_line(path.name, error, place)
    return path, ""


def _in_temporary_folder(name: str, text: str) -> Path | None:
    try:
        file = Path(tempfile.gettempdir()) / f"mtvision-{uuid.uuid4().hex[:12]}-{name}"
        write_text(file, text)
    except OSError:
        return None
    return file

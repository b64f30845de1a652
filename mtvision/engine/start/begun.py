"""What a folder of several runs was begun with, so that another command never continues it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtvision.core.files.json_file import read_json
from mtvision.runtime.atomic import write_text

BEGUN_FILE = "begun.json"


def begin(folder: Path, settings: Mapping[str, Any]) -> None:
    """Note the settings of a procedure in its folder, or compare them with those of an earlier call.

    What a procedure finds in its folder it does not do again, so it must have been done in the same way. A
    folder that was begun without a note is not compared.

    Args:
        folder: of the procedure; made if needed.
        settings: plain data, without the length of the procedure: a later call may add to it.

    Raises:
        FileExistsError: the folder was begun with other settings; names them.
    """
    file = folder / BEGUN_FILE
    asked = json.loads(json.dumps(dict(settings)))
    if not file.is_file():
        write_text(file, json.dumps(asked, indent=1) + "\n")
        return
    known = read_json(file)
    known = known if isinstance(known, dict) else {}
    if known == asked:
        return
    names = [name for name in dict.fromkeys([*asked, *known]) if known.get(name) != asked.get(name)]
    changed = ", ".join(f"{name}={known.get(name)!r}, not {asked.get(name)!r}" for name in names)
    raise FileExistsError(f"{folder}: begun with {changed}. Choose another --work-dir, or delete that one.")

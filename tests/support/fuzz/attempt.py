"""One mutation: what becomes of a changed file."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import mtvision
from fuzz.mutations import mutated
from fuzz.readers import READERS, digest, prepare
from fuzz.seeds import WITH_CHECKSUM, seed
from mtvision.core.naming import ReportedError

SAME, OTHER, REFUSED = "read unchanged", "read changed", "refused"
SILENT, BARE, NAMELESS, CRASH, HANG = "silent change", "bare exception", "no file named", "crash", "hang"
GOOD = (SAME, OTHER, REFUSED)
BAD = (SILENT, BARE, NAMELESS, CRASH, HANG)
PACKAGE = Path(mtvision.__file__).parent
LONGEST = 10_000


@dataclass(frozen=True)
class Result:
    """What became of one mutation.

    Args:
        kind: of file.
        number: of the mutation; the same again with `--only KIND --first NUMBER --count 1`.
        outcome: one of `GOOD` or `BAD`.
        message: of the exception, or of the process that ended.
    """

    kind: str
    number: int
    outcome: str
    message: str = ""


def changed(kind: str, number: int, base: int = 0) -> tuple[bytes, bool]:
    """The mutation of that number, and whether checksums fit it."""
    return mutated(kind, seed(kind), random.Random(f"{kind} {number} {base}"))


def judge(kind: str, number: int, folder: Path, base: int = 0) -> Result:
    """Read one changed file."""
    content, sealed = changed(kind, number, base)
    path = prepare(kind, folder, content)
    outcome, message = outcome_of(path, lambda: READERS[kind].read(folder, path))
    if outcome == SAME and message != reference(kind):
        outcome = SILENT if kind in WITH_CHECKSUM and not sealed else OTHER
    return Result(kind, number, outcome, message if outcome in BAD or outcome == REFUSED else "")


@cache
def reference(kind: str) -> str:
    """The hash of what is read from a valid file."""
    with TemporaryDirectory() as name:
        path = prepare(kind, Path(name), seed(kind))
        return digest(READERS[kind].read(Path(name), path))


def outcome_of(path: Path, read: Callable[[], object]) -> tuple[str, str]:
    """(outcome, hash of what was read or message)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return SAME, digest(read())
    except (ReportedError, ValueError, OSError) as error:
        text = f"{type(error).__name__}: {error}"
        if not _of_ours(error):
            return BARE, text
        named = path.name in str(error) and len(text) <= LONGEST
        return (REFUSED if named else NAMELESS), text
    except Exception as error:
        return BARE, f"{type(error).__name__}: {error}"


def _of_ours(error: BaseException) -> bool:
    """Whether the suite itself raised an exception, not a library below it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and PACKAGE in Path(trace.tb_frame.f_code.co_filename).parents

"""One command, whatever is there: a run starts, continues, or is done already."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

from mtvision.core.files.foreign import ForeignError, foreign_errors
from mtvision.engine.evaluate import RECORD_FILE
from mtvision.engine.records import NOT_YET
from mtvision.engine.run_dir.books import ATTEMPTS, LOSS_FILE, METRICS_FILE, began_from, job, last_job
from mtvision.recipe.config import RunConfig
from mtvision.recipe.differences import fingerprint
from mtvision.recipe.selection import SELECTION_FILE, VALIDATION_FILE
from mtvision.report.record import Record, RecordError
from mtvision.runtime.atomic import remove_temporaries, set_aside
from mtvision.runtime.checkpoint import find_checkpoint
from mtvision.runtime.launch import gather, is_main_process, rank_and_world_size
from mtvision.runtime.lock import holding, remove_stale_holder
from mtvision.runtime.whole import MANIFEST, Examined, checkpoints_of, examine, file_sha256, newest_whole
from mtvision.tracking.run_id import RUN_ID_FILE

T = TypeVar("T")

_log = logging.getLogger("mtvision")

AUTO = "auto"
STEP_FILES = (LOSS_FILE, METRICS_FILE, VALIDATION_FILE)
"""Files with a line per step or evaluation."""
_RESTARTS = ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")


def from_main(action: Callable[[], T]) -> T:
    """The main process's result of an action, on every process; all of them call this.

    Raises:
        Whatever the action raises, on every process.
    """
    if rank_and_world_size()[1] == 1:
        return action()
    value: T | None = None
    error: Exception | None = None
    if is_main_process():
        try:
            with foreign_errors():
                value = action()
        except ForeignError as caught:
            error = caught.error
    (value, error), *_ = gather((value, error))
    if error is not None:
        raise error
    return value  # type: ignore[return-value]


@contextmanager
def owned(work_dir: Path) -> Iterator[None]:
    """Hold the lock of a work dir, by the main process for all.

    Raises:
        BusyError: another run holds it; on every process.
    """
    with ExitStack() as stack:
        from_main(lambda: stack.enter_context(holding(work_dir)))
        yield


def finished(config: RunConfig, work_dir: Path, resume: str) -> Record | None:
    """The record of a run that is all done: whole, of this config, and of its last checkpoint if that exists.

    What a process that was killed at the very end left of its lock is removed.
    None for another run, and where `resume` names a checkpoint in the work dir: the run is to go back to it.
    """
    if resume != AUTO and Path(resume).resolve().parent == work_dir.resolve():
        return None
    try:
        record = Record.load(work_dir / RECORD_FILE)
    except (OSError, RecordError):
        return None
    iterations = config["training"]["iterations"]
    own = fingerprint(config.text), config["seed"]
    same = record.config is not None and (fingerprint(record.config["text"]), record.seed) == own
    whole = record.whole and NOT_YET not in record.failures
    if not (same and whole and (record.training or {}).get("iterations") == iterations):
        return None
    last = work_dir / f"iter_{iterations}.pth"
    if last.exists() and (not last.is_file() or (record.checkpoint or {}).get("sha256") != file_sha256(last)):
        return None
    remove_stale_holder(work_dir)
    return record


def prepare(work_dir: Path, resume: str | None, overwrite: bool) -> Examined | None:
    """Find the checkpoint to continue from, and make sure that nothing of another run gets mixed in.

    Called on the main process, which holds the folder's lock.

    Args:
        work_dir: of the run; exists.
        resume: None, `auto` or a checkpoint.
        overwrite: delete an earlier run first.

    Returns:
        The checkpoint, which was read and compared once, or None to start anew. One that `resume` names may
        have a problem.

    Raises:
        FileExistsError: there is an earlier run that the arguments do not mean.
        CheckpointError: none of the checkpoints is whole.
    """
    for folder in (work_dir, work_dir / "pictures", work_dir / ATTEMPTS):
        remove_temporaries(folder)
    if _restarted(work_dir):  # by torchrun or Slurm, with the same command
        resume, overwrite = resume or AUTO, False
    if overwrite:
        discard(work_dir, keep=resume)
    if resume is None:
        _refuse_earlier(work_dir, "")
        return None
    if resume != AUTO:
        return _from_file(Path(resume), work_dir)
    return _newest(work_dir)


def _restarted(work_dir: Path) -> bool:
    """Whether a launcher runs the command again whose last attempt is in the work dir."""
    again = any(os.environ.get(name, "0") not in ("", "0") for name in _RESTARTS)
    return again and last_job(work_dir) == job()


def _newest(work_dir: Path) -> Examined | None:
    """The newest whole checkpoint; damaged ones are set aside and named in one line."""
    newest, damaged = newest_whole(work_dir)
    if newest is None and damaged:
        find_checkpoint(work_dir)  # raises, with what is wrong
    if newest is None:
        if (work_dir / RECORD_FILE).exists():
            _refuse_earlier(work_dir, ", whose checkpoints are gone and whose config differs")
        if any((work_dir / name).exists() for name in STEP_FILES):
            _log.warning("%s: the run ended before its first checkpoint; it starts anew.", work_dir)
        return None
    if damaged:
        for path in damaged:
            set_aside(path, "damaged")
        names = ", ".join(f"{path.name} {problem}" for path, problem in damaged.items())
        _log.warning(
            "%s: the run continues from %s; set aside as .damaged: %s.", work_dir, newest.path.name, names
        )
    return newest


def _from_file(path: Path, work_dir: Path) -> Examined:
    """The checkpoint that is named, or a newer one of the run that began from it."""
    if not path.is_file():
        raise FileNotFoundError(f"--resume {path}: there is no such file.")
    own = checkpoints_of(work_dir)
    inside = path.resolve().parent == work_dir.resolve()
    if inside and not _restarted(work_dir):
        chosen = next((step for step, item in own.items() if item.name == path.name), None)
        later = [item for step, item in own.items() if chosen is not None and step > chosen]
        for item in later:
            set_aside(item, "later")
        if later:
            names = ", ".join(item.name for item in later)
            _log.warning("%s: the run goes back to %s; set aside as .later: %s.", work_dir, path.name, names)
        return examine(path)
    named = examine(path)
    if began_from(work_dir, named.hashed()):
        newest = _newest(work_dir)
        if newest is not None:
            _log.warning("%s began from %s and continues from its own %s.", work_dir, path, newest.path.name)
        return newest or named
    if own or (work_dir / RECORD_FILE).exists():
        _refuse_earlier(work_dir, f", which did not begin from {path}")
    return named


def _earlier(work_dir: Path) -> list[Path]:
    """What an earlier run left, besides its books."""
    names = (*STEP_FILES, RECORD_FILE, SELECTION_FILE)
    return [
        *checkpoints_of(work_dir).values(),
        *(path for name in names if (path := work_dir / name).exists()),
    ]


def _refuse_earlier(work_dir: Path, why: str) -> None:
    found = _earlier(work_dir)
    if found:
        raise FileExistsError(
            f"{work_dir} holds an earlier run ({found[0].name}){why}. Go on with --resume, choose another "
            "--work-dir, or throw that run away with --overwrite."
        )


def discard(work_dir: Path, keep: str | None = None) -> None:
    """Delete what an earlier run left: checkpoints, numbers and books.

    Args:
        work_dir: of the run.
        keep: a file that stays.
    """
    books = work_dir / ATTEMPTS
    own = [work_dir / MANIFEST, work_dir / RUN_ID_FILE]
    found = [*_earlier(work_dir), *own, *(books.iterdir() if books.is_dir() else ())]
    kept = None if keep is None else Path(keep).resolve()
    for path in found:
        if path.is_dir():
            set_aside(path, "damaged")
        elif path.resolve() != kept:
            path.unlink(missing_ok=True)

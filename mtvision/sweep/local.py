"""The runs of a grid on this machine: a bounded number at once, each with its share of the cores."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from mtvision.report.record import Record
from mtvision.runtime.lock import lock_file
from mtvision.runtime.signals import INTERRUPTED, REQUEUE
from mtvision.sweep.grid import Run, finished_record, start_state

TRAIN = (sys.executable, "-m", "mtvision.cli.main", "train")
"""What starts a run; its arguments follow."""

BUSY = "another process trains it at the moment"


@dataclass(frozen=True)
class Outcome:
    """End of a run: its record, or the problem.

    Args:
        run: which one.
        record: what it wrote, or None.
        problem: why there is no whole record, in words; empty if there is one.
        interrupted: it was stopped and can be continued.
    """

    run: Run
    record: Record | None
    problem: str = ""
    interrupted: bool = False


class Watcher:
    """Base of observers of a grid; its methods do nothing."""

    def started(self, run: Run) -> None:
        """A run begins."""

    def running(self, runs: Sequence[Run]) -> None:
        """Called a few times a second with the runs at work."""

    def ended(self, outcome: Outcome) -> None:
        """A run is over."""


@dataclass
class _Process:
    run: Run
    process: subprocess.Popen[bytes]
    log: IO[bytes]
    lock: IO[bytes]
    slot: int
    told: int = 0


def run_locally(
    runs: Sequence[Run],
    *,
    workers: int = 1,
    command: Sequence[str] = TRAIN,
    watcher: Watcher | None = None,
    poll_seconds: float = 0.2,
) -> list[Outcome]:
    """Train the runs; those that fail do not stop the others.

    SIGINT and SIGTERM are passed on: the runs write a checkpoint and end, the rest is not started. A second
    signal kills them. Each run has cores / workers threads and, where there are GPUs, one of them.

    Args:
        runs: to train, in this order.
        workers: runs at once.
        command: what starts a run.
        watcher: told about progress.
        poll_seconds: how often processes are looked at.

    Returns:
        One outcome for every run.
    """
    if workers < 1:
        raise ValueError(f"--workers must be at least 1, got {workers}.")
    watcher = watcher or Watcher()
    waiting, active, outcomes = list(runs), list[_Process](), list[Outcome]()

    def end(outcome: Outcome) -> None:
        outcomes.append(outcome)
        watcher.ended(outcome)

    with _signals() as requests:
        while waiting or active:
            while waiting and len(active) < workers and not requests:
                slot = next(i for i in range(workers) if i not in {item.slot for item in active})
                started = _start(waiting.pop(0), command, slot, workers)
                if isinstance(started, Outcome):
                    end(started)
                else:
                    active.append(started)
                    watcher.started(started.run)
            if requests:
                _pass_on(requests, active)
                for run in waiting:
                    end(Outcome(run, None, "not started", interrupted=True))
                waiting = []
            for item in [item for item in active if item.process.poll() is not None]:
                active.remove(item)
                end(_finish(item, bool(requests)))
            watcher.running([item.run for item in active])
            if active:
                time.sleep(poll_seconds)
    order = {run.name: index for index, run in enumerate(runs)}
    return sorted(outcomes, key=lambda outcome: order[outcome.run.name])


def _start(run: Run, command: Sequence[str], slot: int, workers: int) -> _Process | Outcome:
    lock = lock_file(run.lock)
    if lock is None:
        return Outcome(run, None, BUSY)
    log = run.log.open("ab")
    process = subprocess.Popen(
        [*command, *run.arguments],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=child_environment(slot, workers),
        start_new_session=True,  # a terminal's Ctrl-C reaches it through us alone, once
        # The lock is held until the run itself is gone, even if we are killed. Windows cannot do that.
        pass_fds=() if os.name == "nt" else (lock.fileno(),),
    )
    return _Process(run, process, log, lock, slot)


def child_environment(slot: int, workers: int) -> dict[str, str]:
    """The environment of the run in `slot` of `workers`: its threads, and its GPU where there are some."""
    threads = str(max(1, available_cores() // workers))
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "PYTHONUNBUFFERED": "1",
    }
    devices = _devices()
    if devices:
        environment["CUDA_VISIBLE_DEVICES"] = devices[slot % len(devices)]
    return environment


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _devices() -> list[str]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name]
    import torch

    return [str(index) for index in range(torch.cuda.device_count())]


def _finish(item: _Process, stopping: bool) -> Outcome:
    item.log.close()
    item.lock.close()
    return outcome_of(item.run, item.process.returncode, stopping)


def outcome_of(run: Run, code: int, stopping: bool = False) -> Outcome:
    """Outcome of a run from its exit code and files."""
    record = finished_record(run)
    if code == 0 and record is not None and record.whole:
        return Outcome(run, record)
    if stopping or code in (INTERRUPTED, REQUEUE):
        return Outcome(run, None, "interrupted; run the same command to continue", interrupted=True)
    if record is not None and record.missing:
        return Outcome(run, record, f"its record is not whole: {'; '.join(record.missing)}")
    if code == 0:
        return Outcome(run, None, "ended without a record of its config and seed")
    reason = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
    last = _last_line(run.log)
    return Outcome(run, record, reason + (f": {last}" if last else ""))


def _last_line(log: Path) -> str:
    """The last line of a log that says something."""
    try:
        lines = log.read_bytes()[-4000:].decode(errors="replace").splitlines()
    except OSError:
        return ""
    said = [line.strip() for line in lines if line.strip() and not line.startswith("(MTVISION_TRACEBACK")]
    return said[-1][:300] if said else ""


def _pass_on(requests: list[int], active: Sequence[_Process]) -> None:
    number: int = signal.SIGKILL if len(requests) > 1 else signal.SIGINT
    for item in active:
        if item.told != number and item.process.poll() is None:
            item.told = number
            item.process.send_signal(number)


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Signals that ask us to stop, collected in place of ending us at once."""
    requests: list[int] = []
    previous: dict[int, Any] = {}

    def handler(number: int, _frame: Any) -> None:
        requests.append(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            previous[number] = signal.signal(number, handler)
        except ValueError:  # not the main thread: leave signals alone
            break
    try:
        yield requests
    finally:
        for which, old in previous.items():
            signal.signal(which, old)


def prepared(run: Run) -> Run:
    """The run with its state as its folder is now."""
    return replace(run, state=start_state(run))

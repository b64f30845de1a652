"""Who is where: processes of a run tell one another, so that a lost or a stuck one has a name.

A thread of each process writes its position (step, what it does) into the store through which they met. It
does so once a second, over a connection of its own. It reads the position of one neighbour and two words that
concern all: a request to end, and the loss of a process. Nothing of it touches tensors, random states or the
collectives of training.

A process counts as lost when its neighbour has seen no news for `SILENCE` seconds by its own monotonic clock.
Where a collective has failed already, `CERTAIN` seconds are enough.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Protocol

from mtvision.core.naming import ReportedError
from mtvision.runtime.lost import lost_worker
from mtvision.runtime.signals import StopNow, TrainingInterruptedError, end_request

BEAT = 1.0
SILENCE = 45.0
CERTAIN = 4.0
ENDING = 10.0
"""Seconds that the main thread has to end by itself when a process is lost."""
STAGES = ("reading data", "in the step", "writing or logging", "in an evaluation")
"""What a process does within a step, in this order."""
ELSEWHERE = "outside the training loop"
"""Another stage: building, or scoring at the end. Its length is not watched."""
_NO_STORE = "rank 0, through which the processes meet, is gone; its own log may say more"
_BROKEN = re.compile(
    r"connection (was )?(closed|reset|refused)|broken pipe|timed out|timeout|socket|gloo|nccl|remote process",
    re.IGNORECASE,
)
"""How torch says that another process does not answer."""


class LostProcessError(ReportedError, RuntimeError):
    """A process of the run, or a worker that loads data, was killed or is stuck; `--resume` continues."""

    exit_code = 1


class Store(Protocol):
    """What is used of torch's stores."""

    def set(self, key: str, value: str, /) -> None:
        """Write."""

    def get(self, key: str, /) -> bytes:
        """Read; waits for the key."""

    def check(self, keys: list[str], /) -> bool:
        """Whether all keys are there."""


class Heartbeat:
    """Position of this process, and a watch over its neighbour. A context in which the thread runs.

    Args:
        store: shared by the processes, used by nothing else at the same time.
        rank: of this process.
        processes: how many there are.
        clock: seconds that never go backwards.
    """

    def __init__(
        self, store: Store, rank: int, processes: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.patience: float | None = None
        self._store, self._rank, self._processes, self._clock = store, rank, processes, clock
        self._step, self._stage, self._count = 0, ELSEWHERE, 0
        self._moved = clock()
        self._seen: dict[int, tuple[str, float]] = {}
        self._told = False
        self._over, self._ending = threading.Event(), threading.Event()
        self._lock = threading.Lock()  # the main thread exchanges too, when a collective has failed
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._origin = {"host": socket.gethostname(), "pid": os.getpid()}

    def at(self, step: int, stage: str) -> None:
        """Note where this process is; costs nothing."""
        self._step, self._stage, self._moved = step, stage, self._clock()

    def exchange(self) -> str | None:
        """Tell the own position and hear of the others; returns what is wrong, in words."""
        with self._lock:
            self._tell(self._stage)
            request = end_request()
            if request.code and not self._told:
                self._told = True
                self._store.set("stop", json.dumps([request.reason, request.code]))
            elif not request.code and self._store.check(["stop"]):
                reason, code = json.loads(self._store.get("stop"))
                request.ask_from_thread(f"{reason} at another process", code)
            return (
                self._heard() or self._silent([(self._rank + 1) % self._processes], SILENCE) or self._stuck()
            )

    def _tell(self, stage: str) -> None:
        self._count += 1
        news = {**self._origin, "step": self._step, "stage": stage, "count": self._count}
        self._store.set(f"beat/{self._rank}", json.dumps(news))

    def _heard(self) -> str | None:
        return self._store.get("lost").decode() if self._store.check(["lost"]) else None

    def _positions(self, ranks: Sequence[int]) -> dict[int, dict[str, Any]]:
        known = [rank for rank in ranks if self._store.check([f"beat/{rank}"])]
        return {rank: json.loads(self._store.get(f"beat/{rank}")) for rank in known}

    def _silent(self, ranks: Sequence[int], seconds: float) -> str | None:
        """What to say of the first of some processes that has told nothing new for so long."""
        now = self._clock()
        for rank, news in self._positions(ranks).items():
            text = json.dumps(news)
            before, since = self._seen.get(rank, ("", now))
            if before != text:
                self._seen[rank] = text, now
            elif now - since > seconds and news["stage"] != "ended" and rank != self._rank:
                return self._publish(
                    f"{in_words(rank, news)} was last heard {_where(news)}, {now - since:.0f} s ago. It was "
                    "probably killed (memory, a failed machine) or lost its network; its own log may say more"
                )
        return None

    def _never_heard(self, ranks: Sequence[int]) -> str | None:
        """What to say of the first of some processes that has never told anything."""
        known = self._positions(ranks)
        silent = [rank for rank in ranks if rank not in known]
        if not silent:
            return None
        return self._publish(
            f"rank {silent[0]} was never heard. It ended or was killed while it started; "
            "its own log may say more"
        )

    def _stuck(self) -> str | None:
        """What to say if this process has not moved for longer than `patience`."""
        still = self._clock() - self._moved
        if self.patience is None or self._stage not in STAGES or still <= self.patience:
            return None
        found = self._positions(range(self._processes))
        places = {rank: (news["step"], _order(news["stage"])) for rank, news in found.items()}
        last = min(places.values())
        late = [rank for rank, place in places.items() if place == last]
        names = ", ".join(f"{in_words(rank, found[rank])} {_where(found[rank])}" for rank in late[:4])
        what = "all are at the same place" if len(late) == len(found) else "the others wait for it"
        return self._publish(f"no progress for {still / 60:.1f} min: {names} lags; {what}")

    def _publish(self, text: str) -> str:
        if not self._store.check(["lost"]):
            self._store.set("lost", text)
        return text

    def cause(self) -> str | None:
        """Which process is lost; waits until that is certain, at most a few seconds. None if none is."""
        self._ending.set()
        start = self._clock()
        end = start + 3 * CERTAIN + 2 * BEAT
        others = [rank for rank in range(self._processes) if rank != self._rank]
        try:
            while self._clock() < end:
                with self._lock:
                    self._tell(self._stage)
                    found = self._heard() or self._silent(others, CERTAIN)
                    if not found and self._clock() - start > CERTAIN:
                        found = self._never_heard(others)
                if found:
                    return found
                time.sleep(BEAT / 2)
        except RuntimeError:  # of the store, which rank 0 holds unless torchrun started the processes
            return _NO_STORE
        return None

    def __enter__(self) -> Heartbeat:
        global _active
        _active = self
        # At once: a process that is killed within the first beat has a name too. If rank 0 is gone already,
        # the thread or the next collective says so.
        with suppress(RuntimeError), self._lock:
            self._tell(self._stage)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        global _active
        _active = None
        self._over.set()
        self._thread.join(2 * BEAT)
        asked = isinstance(error, TrainingInterruptedError | StopNow | LostProcessError)
        try:
            with self._lock:
                if error is not None and not asked:
                    first = (str(error).splitlines() or [""])[0]
                    news = {**self._origin, "step": self._step, "stage": self._stage}
                    self._publish(
                        f"{in_words(self._rank, news)} ended {_where(news)}: {type(error).__name__}: {first}"
                    )
                self._tell("ended")
        except RuntimeError:  # whoever held the store is gone
            return

    def _run(self) -> None:
        while not self._over.wait(BEAT):
            try:
                wrong = self.exchange()
            except RuntimeError:
                if self._stage not in STAGES:
                    return  # rank 0 may have finished; if it was killed, the next collective fails
                wrong = _NO_STORE
            if wrong and not self._over.is_set():
                self._end(wrong)
                return

    def _end(self, text: str) -> None:
        """End this process, whose main thread may wait for ever in a collective."""
        if self._ending.wait(ENDING):
            return  # the main thread has noticed and says it itself
        if not self._over.is_set():
            os.write(2, f"mtvision: {_sentence(text)}\n".encode())
            os._exit(LostProcessError.exit_code)


_active: Heartbeat | None = None


def note(step: int, stage: str) -> None:
    """Where the training of this process is, for the others to know.

    Args:
        step: the one at work, from 1.
        stage: one of `STAGES`, or `ELSEWHERE`.
    """
    if _active is not None:
        _active.at(step, stage)


def wait_at_most(minutes: float) -> None:
    """End the run when this process makes no progress for so long, and name the process that lags."""
    if _active is not None:
        _active.patience = 60 * minutes


def in_words(rank: int, news: dict[str, Any]) -> str:
    """`rank 3 (host, pid 17)`."""
    return f"rank {rank} ({news['host']}, pid {news['pid']})"


def _where(news: dict[str, Any]) -> str:
    step = f" at step {news['step']}" if news["step"] else ""
    return f"{step.strip()} ({news['stage']})".strip()


def _order(stage: str) -> int:
    return STAGES.index(stage) if stage in STAGES else len(STAGES)


def _sentence(text: str) -> str:
    return f"{text}. --resume continues from the newest checkpoint."


@contextmanager
def causes_named() -> Iterator[None]:
    """Put a killed worker and a lost process into one line, in place of what torch says.

    Raises:
        LostProcessError: an error of torch or of a connection had such a cause.
    """
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError) as error:
        text = lost_worker(str(error) if isinstance(error, RuntimeError) else _of_children())
        if text is None and _active is not None and _BROKEN.search(str(error)):
            with end_request().finding_a_cause():
                text = _active.cause()
            if text is None:
                end_request().stop_if_asked()
        if text is None or isinstance(error, ReportedError):
            raise
        raise LostProcessError(_sentence(text)) from error


def _of_children() -> str:
    """What torch says of its killed workers; a connection to one may break before torch notices."""
    handler = signal.getsignal(signal.SIGCHLD)  # torch's, while there are workers
    try:
        if callable(handler):
            handler(signal.SIGCHLD, None)
    except RuntimeError as error:
        return str(error)
    return ""

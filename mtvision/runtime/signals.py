"""Requests to end a run: signals, time limits of schedulers, and what becomes of them.

A request never ends a training step halfway. The loop looks at it between two steps and writes a checkpoint.
Everywhere else (while data and network are built, or the last checkpoint is scored) the work stops at once.
Files are whole even then, and the same command continues.

| request | exit code |
|---|---|
| SIGTERM, SIGUSR1, SIGUSR2, SIGHUP, a time limit | 75, which asks a scheduler to run the command again |
| SIGINT (Ctrl-C) | 130 |
| a second signal, more than `SAME_REQUEST` later | the process ends at once, by that signal |
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

from mtvision.core.naming import ReportedError

REQUEUE = 75
"""EX_TEMPFAIL of sysexits.h: nothing is wrong, run the command again."""
INTERRUPTED = 130
SAME_REQUEST = 2.0
"""Seconds in which a repeated signal is the first one: launchers pass on what processes have already."""
PROMPT = 5.0
"""Seconds after which a signal ends a process that waits in compiled code for others to come."""
MARGIN = 30.0
"""Seconds that stay before a time limit, besides the time of a step and of writing."""

SIGNALS = {
    name: INTERRUPTED if name == "SIGINT" else REQUEUE
    for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGHUP")
    if name in signal.Signals.__members__  # Windows lacks the last three
}
"""{signal: exit code of a run that it ends}."""

AGAIN = "No step is lost: run the same command again."


class TrainingInterruptedError(ReportedError, RuntimeError):
    """A run was stopped by SIGINT. It can be continued."""

    exit_code = INTERRUPTED


class TrainingPausedError(TrainingInterruptedError):
    """A run was stopped by a scheduler: by a signal or before its time limit. It can be continued."""

    exit_code = REQUEUE


class StopNow(KeyboardInterrupt):
    """Raised where a request arrives outside the training loop; becomes a `TrainingInterruptedError`."""


def interrupted(text: str, code: int) -> TrainingInterruptedError:
    """The error whose exit code is `code`."""
    return TrainingPausedError(text) if code == REQUEUE else TrainingInterruptedError(text)


def seconds_allotted(environment: Mapping[str, str]) -> float | None:
    """Seconds that a scheduler still gives this process; None if its environment says nothing.

    `SLURM_JOB_END_TIME` is a Unix time. `PBS_WALLTIME` (Torque) is a length in seconds, which is counted from
    now on.
    """
    try:
        if "SLURM_JOB_END_TIME" in environment:
            return float(environment["SLURM_JOB_END_TIME"]) - time.time()
        if "PBS_WALLTIME" in environment:
            return float(environment["PBS_WALLTIME"])
    except ValueError:  # not a number: another scheduler's idea of it
        return None
    return None


class EndRequest:
    """Whether this process was asked to end, and until when it has time.

    Attributes:
        reason: in words, e.g. `signal 15 (SIGTERM)`; None until there is a request.
        code: the exit code that the request asks for; 0 until there is one.
        advice: what to do after an end outside the training loop.
        goes_on: which command continues a training, a sentence.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        self.code = 0
        self.advice = AGAIN
        self.goes_on = "Run the same command with --resume to continue."
        self._process = os.getpid()
        self._listens = False
        self._since = 0.0
        self._waits = 0  # depth of `between_steps`
        self._finds = False  # within `finding_a_cause`
        self._from_thread: tuple[str, int] | None = None
        self._until: float | None = None
        self._allotted = 0.0
        self._timer: threading.Timer | None = None

    def listen(self) -> dict[signal.Signals, Any]:
        """Take over the signals; returns their handlers before. Nothing outside the main thread."""
        previous: dict[signal.Signals, Any] = {}
        if threading.current_thread() is not threading.main_thread():
            return previous
        self._listens = True
        for name in SIGNALS:
            number = signal.Signals[name]
            if name == "SIGHUP" and signal.getsignal(number) == signal.SIG_IGN:
                continue
            previous[number] = signal.signal(number, self.handle)
        return previous

    def limit(self, seconds: float | None) -> None:
        """End within so many seconds from now; the earliest limit holds. None changes nothing."""
        if seconds is None:
            return
        until = time.monotonic() + seconds
        if self._until is None or until < self._until:
            self._until, self._allotted = until, seconds
            self.cancel()
            self._timer = threading.Timer(max(self.left() - self._reserve, 0.0), self._time_is_up)
            self._timer.daemon = True
            self._timer.start()

    def cancel(self) -> None:
        """Forget the timer of the time limit."""
        if self._timer is not None:
            self._timer.cancel()

    def left(self) -> float:
        """Seconds until the time limit; infinite without one."""
        return float("inf") if self._until is None else self._until - time.monotonic()

    @property
    def _reserve(self) -> float:
        return min(MARGIN, 0.05 * self._allotted)

    def look_at_the_clock(self, seconds: float) -> None:
        """Make a request if another step may not fit into the time that is left.

        Args:
            seconds: the longest that a step took, and writing a checkpoint.
        """
        if self._until is not None and self.left() < 2 * seconds + self._reserve:
            self.ask("the time limit", REQUEUE)

    def _time_is_up(self) -> None:
        if not self._waits:  # the loop looks at the clock itself
            self.ask_from_thread("the time limit", REQUEUE)

    def ask(self, reason: str, code: int) -> None:
        """Make a request; the first one counts."""
        if self.reason is None:
            self.reason, self.code, self._since = reason, code, time.monotonic()

    def ask_from_thread(self, reason: str, code: int) -> None:
        """As `ask`, from another thread than the main one, which is woken up if it listens."""
        if not self._listens:
            self.ask(reason, code)
        elif self.reason is None:
            self._from_thread = reason, code
            os.kill(self._process, signal.SIGTERM)

    def handle(self, number: int, _frame: FrameType | None = None) -> None:
        """Handler of all signals."""
        if os.getpid() != self._process:  # a forked worker: its parent ends it when it is time
            if number == signal.SIGTERM:
                _end_by(number)
            return
        given, self._from_thread = self._from_thread, None
        if given is None and self.reason is not None:
            if time.monotonic() - self._since > SAME_REQUEST:
                _end_by(number)
            return
        name = signal.Signals(number).name
        self.ask(*(given or (f"signal {number} ({name})", SIGNALS[name])))
        if not self._waits:
            raise StopNow(self.reason)
        if (
            os.environ.get("RANK", "0") == "0" and not self._finds
        ):  # `print` may be interrupted in itself by a signal
            text = (
                f"{self.reason}: a checkpoint follows after this step; a second signal ends the run at once\n"
            )
            os.write(2, text.encode())

    @contextmanager
    def between_steps(self) -> Iterator[EndRequest]:
        """Leave requests to the code inside, which looks at `code` between two steps.

        Raises:
            StopNow: there is a request that the code inside did not see.
        """
        self.stop_if_asked()
        self._waits += 1
        try:
            yield self
        finally:
            self._waits -= 1
        self.stop_if_asked()

    @contextmanager
    def not_waiting(self) -> Iterator[None]:
        """End the process within `PROMPT` seconds of a signal, also while it waits in compiled code.

        Python runs handlers only after such code returns, e.g. after the search for a process that is gone.
        There is nothing to save inside.
        """
        in_main_thread = threading.current_thread() is threading.main_thread()
        if not (self._listens and in_main_thread) or os.name == "nt":
            yield
            return
        read, write = os.pipe()
        os.set_blocking(write, False)
        before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        thread = threading.Thread(target=self._end_if_stuck, args=(read,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            os.close(write)
            thread.join()
            os.close(read)

    def _end_if_stuck(self, read: int) -> None:
        """Wait for a signal, then for the block to end; until the other end of the pipe is closed."""
        numbers = {signal.Signals[name].value: name for name in SIGNALS}
        while received := os.read(read, 1):
            name = numbers.get(received[0])
            if name is not None and not select.select([read], [], [], PROMPT)[0] and self.reason is None:
                os.write(2, f"mtvision: stopped by signal {received[0]} ({name}). {self.advice}\n".encode())
                os._exit(SIGNALS[name])

    @contextmanager
    def finding_a_cause(self) -> Iterator[None]:
        """Only note requests: a launcher ends all processes when it lost one, which is the cause to say."""
        self._waits, self._finds = self._waits + 1, True
        try:
            yield
        finally:
            self._waits, self._finds = self._waits - 1, False

    def stop_if_asked(self) -> None:
        """End what is at work if there is a request, unless it waits for a step to end.

        Raises:
            StopNow: there is one.
        """
        if self._until is not None and self.left() < self._reserve:
            self.ask("the time limit", REQUEUE)
        if self.reason is not None and not self._waits:
            raise StopNow(self.reason)


def _end_by(number: int) -> None:
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


_active: EndRequest | None = None


def end_request() -> EndRequest:
    """The one of the surrounding `listening`; outside, one that nothing reaches."""
    return _active or EndRequest()


@contextmanager
def listening() -> Iterator[EndRequest]:
    """Take signals and the scheduler's time limit as requests to end; inside another one, that one.

    A SIGHUP that is ignored at the start (`nohup`) stays ignored. Outside the main thread (a notebook's
    worker) signals are left alone.

    Raises:
        TrainingInterruptedError: a request arrived outside `EndRequest.between_steps`.
    """
    global _active
    if _active is not None:
        yield _active
        return
    request = _active = EndRequest()
    request.limit(seconds_allotted(os.environ))
    previous = request.listen()
    try:
        yield request
    except StopNow as stop:
        raise interrupted(f"stopped by {stop}. {request.advice}", request.code) from None
    finally:
        _active = None
        request.cancel()
        for number, handler in previous.items():
            signal.signal(number, handler)

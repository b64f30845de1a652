"""Processes that judge mutations, so that a crash or a hang of one is seen and costs no other."""

from __future__ import annotations

import os
import resource
import signal
from collections import deque
from collections.abc import Iterable, Iterator
from multiprocessing import connection, get_context
from pathlib import Path
from tempfile import TemporaryDirectory

from fuzz.attempt import CRASH, HANG, Result, judge

SECONDS = 20.0
"""Time for one file; more counts as a hang."""
MEMORY = 3 * 2**30
"""Bytes that a process may have besides what it starts with."""
Job = tuple[str, int]


class _Worker:
    def __init__(self, base: int) -> None:
        context = get_context("fork")
        self.connection, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(other, base), daemon=True)
        self.process.start()
        other.close()
        self.job: Job | None = None

    def begin(self, job: Job) -> None:
        self.job = job
        self.connection.send(job)

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


def run(jobs: Iterable[Job], workers: int, base: int) -> Iterator[Result]:
    """The results of jobs, in the order in which they are done."""
    waiting = deque(jobs)
    idle = [_Worker(base) for _ in range(min(workers, len(waiting)))]
    busy: list[_Worker] = []
    try:
        while waiting or busy:
            while idle and waiting:
                worker = idle.pop()
                worker.begin(waiting.popleft())
                busy.append(worker)
            ready = connection.wait([worker.connection for worker in busy], SECONDS)
            done = [worker for worker in busy if worker.connection in ready] or list(busy)
            for worker in done:
                busy.remove(worker)
                result = _result(worker, hung=not ready)
                yield result
                if result.outcome in (CRASH, HANG):
                    worker.end()
                    worker = _Worker(base)
                idle.append(worker)
    finally:
        for worker in (*idle, *busy):
            worker.end()


def _result(worker: _Worker, *, hung: bool) -> Result:
    assert worker.job is not None
    if hung:
        return Result(*worker.job, HANG, f"no result within {SECONDS:.0f} s")
    try:
        found: Result = worker.connection.recv()
        return found
    except EOFError:
        worker.process.join(5)
        code = worker.process.exitcode or 0
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return Result(*worker.job, CRASH, name)


def _serve(own: connection.Connection, base: int) -> None:
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)  # what C libraries print about damaged files
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    limit = _mapped() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    while True:
        try:
            job: Job = own.recv()
        except EOFError:
            return
        with TemporaryDirectory(prefix="fuzz-") as name:
            result = judge(*job, Path(name), base)
        own.send(result)


def _mapped() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()

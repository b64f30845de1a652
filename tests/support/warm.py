"""Commands in processes of their own, forked from a server that has imported torch and the suite.

A fresh interpreter spends ten seconds of processor time on imports. The server is started once by each
process of pytest, before any test changed something, so that what it forks knows nothing of the tests.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import runpy
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from subprocess import CompletedProcess, TimeoutExpired
from tempfile import TemporaryDirectory
from typing import Any

PRELOADED = [
    "mtvision.engine.training",
    "mtvision.cli.train",
    "mtvision.cli.test",
    "mtvision.models.backbones.timm_backbone",
    "mtvision.data.synthetic",
    "torch.distributed.nn",
    "albumentations",
    "cv2",
    "timm",
    "scipy.stats",
]
"""What most commands import. Modules that are not there are passed over by the server."""

_servers = multiprocessing.get_context("forkserver")
_servers.set_forkserver_preload(PRELOADED)
GRACE = 10.0
"""Seconds that the other ranks have when one has failed, as torchrun gives them time to end."""


def start(
    arguments: Sequence[object],
    files: Sequence[Path],
    *,
    cwd: Path | None = None,
    variables: Mapping[str, str] | None = None,
    path: Sequence[Path] = (),
    processes: int = 1,
) -> list[BaseProcess]:
    """`python ARGUMENTS` in the background.

    Args:
        arguments: `-m MODULE …`, `-c TEXT …` or `SCRIPT …`.
        files: where standard output and errors of all ranks go.
        cwd: working folder.
        variables: of the environment, besides those of this process.
        path: folders that come first on the path of Python.
        processes: ranks; more than one get the environment that torchrun gives.
    """
    words = list(map(str, arguments))
    environment = {**os.environ, **(variables or {}), "OMP_NUM_THREADS": "1"}
    shared = _group(processes) if processes > 1 else {}
    ranks = []
    for rank in range(processes):
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank), **shared} if processes > 1 else {}
        place = str(cwd or Path.cwd())
        ranks.append(_servers.Process(target=_run, args=(words, place, environment | own, path, files)))
        ranks[-1].start()
    return ranks


def run(arguments: Sequence[object], *, timeout: float = 300, **options: Any) -> CompletedProcess[str]:
    """As `start`, to the end, as `subprocess.run(..., capture_output=True, text=True)` would.

    Returns:
        The exit code (of the first rank that failed) and what all ranks wrote.

    Raises:
        TimeoutExpired: after so many seconds.
    """
    with TemporaryDirectory() as folder:
        files = [Path(folder, name) for name in ("out", "err")]
        codes = _ended(start(arguments, files, **options), list(map(str, arguments)), timeout)
        texts = [file.read_text(errors="replace") if file.exists() else "" for file in files]
    failed = [code for code in codes if code]
    return CompletedProcess(list(map(str, arguments)), failed[0] if failed else 0, *texts)


def _group(processes: int) -> dict[str, str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def _ended(ranks: Sequence[BaseProcess], words: Sequence[str], timeout: float) -> list[int]:
    """Exit codes in the order in which the ranks ended; when one fails, the others are ended too."""
    end = time.monotonic() + timeout
    running, codes, failed = list(ranks), [], False
    while running:
        multiprocessing.connection.wait([item.sentinel for item in running], timeout=1)
        for item in [item for item in running if item.exitcode is not None]:
            running.remove(item)
            codes.append(item.exitcode)
        if not failed and any(codes):
            failed, end = True, min(end, time.monotonic() + GRACE)
        if running and time.monotonic() > end:
            for item in running:
                item.kill()
                item.join()
            if not failed:
                raise TimeoutExpired(list(words), timeout)
            return codes
    return codes


def _run(
    words: list[str], cwd: str, environment: dict[str, str], path: Sequence[Path], files: Sequence[Path]
) -> None:
    """In the forked process: take its place, then run the module or script."""
    for number, file in enumerate(files, start=1):
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, number)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    import torch

    torch.set_num_threads(1)
    kind, *rest = words
    if kind in ("-m", "-c"):
        sys.path[:0] = [*map(str, path), cwd]
        sys.argv = rest if kind == "-m" else [kind, *rest[1:]]
    else:
        sys.path[:0] = [*map(str, path), str(Path(kind).resolve().parent)]
        sys.argv = words
    if kind == "-m":
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        runpy.run_path(kind, run_name="__main__")

"""A process with the heavy imports done, which runs the tests of one change after another, each in a fork.

A request is a line of JSON: `{"chunks": [[node id, …], …], "seconds": {node id: seconds}, "limit": seconds}`.
The answer is a line of JSON: `outcome` is `passed`, `failed` or `timeout`, `by` is the test that failed.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

# Everything heavy that the package and its tests import; nothing of the package itself.
_HEAVY = (
    "albumentations", "cv2", "h5py", "hypothesis", "hypothesis.strategies", "jinja2", "jsonschema",
    "kornia_rs", "matplotlib.pyplot", "mmengine", "mmengine.dataset", "mmengine.hooks", "mmengine.model",
    "mmengine.optim", "mmengine.runner", "numpy", "PIL.Image", "pycocotools.mask", "pymoo.indicators.hv",
    "pytest", "pytest_timeout", "rich.console", "safetensors.torch", "scipy.io", "scipy.ndimage",
    "scipy.optimize", "scipy.stats", "skimage.measure", "tensorboard.summary", "timm", "torch",
    "torch.export", "torch.utils.tensorboard", "torchjd.aggregation", "torchvision", "wandb", "yaml",
)  # fmt: skip
_SLOWER = 5  # a test that takes this many times its seconds, and a minute more, hangs
_GRACE = 60.0


def serve() -> None:
    """Answer requests on stdin until it closes. The working directory is the tree with the changed module."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for name in _HEAVY:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    import torch

    torch.set_num_threads(1)
    for line in sys.stdin:
        answers.write(json.dumps(_in_a_fork(json.loads(line))) + "\n")
        answers.flush()


def _in_a_fork(request: dict[str, Any]) -> dict[str, Any]:
    receive, send = os.pipe()
    start = time.monotonic()
    child = os.fork()
    if not child:
        os.close(receive)
        _child(request, send)
    os.close(send)
    text = b""
    answer: dict[str, Any] = {"outcome": "timeout", "by": ""}
    while (left := start + request["limit"] - time.monotonic()) > 0:
        if select.select([receive], [], [], left)[0]:
            part = os.read(receive, 65536)
            text += part
            if not part or text.endswith(b"\n"):
                answer = {"outcome": "failed", "by": "", "reason": "the process died"}
                answer = json.loads(text) if text else answer
                break
    os.close(receive)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # what the tests started goes too
    os.waitpid(child, 0)
    return {**answer, "seconds": round(time.monotonic() - start, 2)}


def _child(request: dict[str, Any], send: int) -> None:
    try:
        os.setsid()
        log = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(log, descriptor)
        answer = _run(request)
    except BaseException:  # whatever happens in a changed program, the server hears of it
        answer = {"outcome": "failed", "by": "", "reason": traceback.format_exc()[-500:]}
    os.write(send, (json.dumps(answer) + "\n").encode())
    os._exit(0)


def _run(request: dict[str, Any]) -> dict[str, Any]:
    import pytest

    scratch = Path.cwd().parent / "pytest"
    options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--tb=line", f"--basetemp={scratch}"]
    for chunk in request["chunks"]:
        chosen = _Chosen(chunk, request["seconds"])
        code = pytest.main(
            [*options, *dict.fromkeys(name.split("::", 1)[0] for name in chunk)], plugins=[chosen]
        )
        if int(code) not in (0, 5):
            reason = chosen.reason or f"pytest ended with exit code {int(code)}"
            return {"outcome": "failed", "by": chosen.failed, "reason": reason[-300:]}
    return {"outcome": "passed", "by": ""}


class _Chosen:
    """pytest plugin: these tests in this order; remembers the first that fails."""

    def __init__(self, names: list[str], seconds: dict[str, float]) -> None:
        self.names = {name: number for number, name in enumerate(names)}
        self.seconds = seconds
        self.failed = ""
        self.reason = ""

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        import pytest

        items[:] = sorted(
            (item for item in items if item.nodeid in self.names), key=lambda item: self.names[item.nodeid]
        )
        for item in items:
            limit = _SLOWER * self.seconds.get(item.nodeid, 0.0) + _GRACE
            item.add_marker(pytest.mark.timeout(limit), append=False)

    def pytest_collectreport(self, report: Any) -> None:
        self._note(report)

    def pytest_runtest_logreport(self, report: Any) -> None:
        self._note(report)

    def _note(self, report: Any) -> None:
        if report.failed and not self.failed:
            self.failed = report.nodeid
            self.reason = str(report.longrepr).strip().splitlines()[-1] if report.longrepr else ""

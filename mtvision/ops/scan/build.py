"""Builds the C++ kernel on first use and keeps it for later runs.

Compiler (`CXX`, else `c++`) and place (`TORCH_EXTENSIONS_DIR`, else `~/.cache/torch_extensions`) are those of
`torch.utils.cpp_extension`. Its `load` is not used, because it requires ninja and compiles PyTorch's headers
for a minute. The kernel needs neither. One call of the compiler takes three seconds.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

_SOURCES = ("kernel.cpp", "vector.h")
_FLAGS = ("-O3", "-march=native", "-std=c++17", "-fno-math-errno", "-shared", "-fPIC", "-pthread")

_logger = logging.getLogger("mtvision")


def _processor() -> str:
    # A home folder may be shared by machines with different processors; a build belongs to one kind.
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())


def _library_path(compiler: str) -> Path:
    here = Path(__file__).parent
    digest = hashlib.sha256()
    for name in _SOURCES:
        digest.update((here / name).read_bytes())
    for text in (compiler, *_FLAGS, platform.machine(), _processor()):
        digest.update(text.encode())
    root = os.environ.get("TORCH_EXTENSIONS_DIR") or Path.home() / ".cache" / "torch_extensions"
    return Path(root) / "mtvision_scan" / f"{digest.hexdigest()[:16]}.so"


def _compile(compiler: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        built = Path(folder) / target.name
        source = Path(__file__).parent / _SOURCES[0]
        command = [compiler, *_FLAGS, str(source), "-o", str(built)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
        os.replace(built, target)  # atomic: processes that build at the same time cannot see half a file


@functools.cache
def load_kernel() -> ctypes.CDLL | None:
    """The compiled kernel, or None (with one log line saying why) where it cannot be had."""
    compiler = os.environ.get("CXX", "c++")
    found = shutil.which(compiler)
    if found is None:
        _logger.warning(
            "selective scan: no C++ compiler (%s) found; the slower 'torch' backend is used.", compiler
        )
        return None
    target = _library_path(found)
    try:
        if not target.is_file():
            _compile(found, target)
        return ctypes.CDLL(str(target))
    except (OSError, RuntimeError) as error:
        _logger.warning("selective scan: no C++ kernel, the slower 'torch' backend is used. %s", error)
        return None

"""C++ libraries of the suite: built on first use, and kept for later runs.

Compiler (`CXX`, else `c++`) and place (`TORCH_EXTENSIONS_DIR`, else `~/.cache/torch_extensions`) are those of
`torch.utils.cpp_extension`. Its `load` is not used, because it requires ninja and compiles PyTorch's headers
for a minute. Our sources need neither. One call of the compiler takes a few seconds.

Code is compiled for the processor that it runs on. `MTVISION_ARCH` names another one in the words of the
compiler's `-march`, as x86-64-v3 for AVX2.
"""

from __future__ import annotations

import atexit
import ctypes
import hashlib
import logging
import os
import platform
import shutil
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

_FLAGS = ("-O3", "-std=c++17", "-fno-math-errno", "-shared", "-fPIC", "-pthread")

_logger = logging.getLogger("mtvision")


def architecture() -> str:
    """What libraries are compiled for, as the compiler's `-march` takes it."""
    return os.environ.get("MTVISION_ARCH") or "native"


@dataclass(frozen=True)
class Library:
    """One C++ library with a plain C interface.

    Args:
        name: folder below the cache of compiled extensions.
        sources: files; the first is compiled, the others are included by it.
        user: who says so where the library cannot be had.
        fallback: what is used then.
    """

    name: str
    sources: tuple[Path, ...]
    user: str
    fallback: str

    def load(self) -> ctypes.CDLL | None:
        """The library, or None (with one log line saying why) where it cannot be had."""
        compiler = os.environ.get("CXX", "c++")
        found = shutil.which(compiler)
        if found is None:
            _logger.warning("%s: no C++ compiler (%s) found; %s.", self.user, compiler, self.fallback)
            return None
        try:
            return ctypes.CDLL(str(self.built(found)))
        except (OSError, RuntimeError) as error:
            _logger.warning("%s: no compiled code, %s. %s", self.user, self.fallback, error)
            return None

    def path(self, compiler: str) -> Path:
        """Where the library is kept; another source, compiler or processor is another file."""
        digest = hashlib.sha256()
        for source in self.sources:
            digest.update(source.read_bytes())
        for text in (compiler, *_FLAGS, architecture(), platform.machine(), _processor()):
            digest.update(text.encode())
        root = os.environ.get("TORCH_EXTENSIONS_DIR") or Path.home() / ".cache" / "torch_extensions"
        return Path(root) / self.name / f"{digest.hexdigest()[:16]}.so"

    def built(self, compiler: str) -> Path:
        """The compiled library, built where it is not there yet.

        A folder that others may write to is not used. The library is then built again for this process alone.
        """
        target = self.path(compiler)
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        reason = _distrusted(target.parent) or (_distrusted(target) if target.is_file() else None)
        if reason is not None:
            _logger.warning(
                "%s: a compiled kernel is not loaded, because %s. It is built again in a private "
                "folder. Remove the folder, or set TORCH_EXTENSIONS_DIR to one of your own.",
                self.user,
                reason,
            )
            folder = tempfile.mkdtemp(prefix=f"{self.name}_")
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
            target = Path(folder) / target.name
        if not target.is_file():
            _compile(compiler, self.sources[0], target)
        return target


def _processor() -> str:
    # A home folder may be shared by machines with different processors; a build belongs to one kind.
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())


def _distrusted(path: Path) -> str | None:
    """Why code in a file or folder may be somebody else's; None = only this user or root can write there.

    Loading a library runs it. A group with the number of the user has no other members by convention.
    """
    found = path.stat()
    if found.st_uid not in (os.getuid(), 0):
        return f"{path} belongs to user {found.st_uid}, not to user {os.getuid()}"
    private = found.st_gid in (0, os.getuid())
    shared = stat.S_IWOTH if private else stat.S_IWOTH | stat.S_IWGRP
    if found.st_mode & shared:
        return f"others may write to {path} (mode {stat.S_IMODE(found.st_mode):o})"
    return None


def _compile(compiler: str, source: Path, target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        built = Path(folder) / target.name
        command = [compiler, *_FLAGS, f"-march={architecture()}", str(source), "-o", str(built)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
        os.replace(built, target)  # atomic: processes that build at the same time cannot see half a file

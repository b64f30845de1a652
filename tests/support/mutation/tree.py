"""A copy of the repository in which a module can be changed, and the process that runs tests there."""

from __future__ import annotations

import compileall
import contextlib
import json
import os
import py_compile
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def copy_repository(root: Path, folder: Path) -> Path:
    """Copy the files that git knows or would add to `folder/repository`, a repository of its own.

    A folder `shared` beside the repository is linked, because tests look for real data there.
    """
    path = folder / "repository"
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=root, capture_output=True, check=True, text=True).stdout
    for name in filter(None, names.split("\0")):
        if (root / name).is_file():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, path / name)
    if (root.parent / "shared").exists():
        (folder / "shared").symlink_to((root.parent / "shared").resolve())
    for line in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "Copy for mutation testing"]):
        author = ["-c", "user.name=mutation", "-c", "user.email=mutation@localhost"]
        subprocess.run(["git", *author, *line], cwd=path, check=True)
    return path


class Tree:
    """A copy of the repository and a server of tests in it.

    Args:
        root: the repository.
        folder: an empty folder for the copy.
    """

    def __init__(self, root: Path, folder: Path) -> None:
        self.path = copy_repository(root, folder)
        # Byte code that is checked against the source, not its time: otherwise a change of the same length
        # within one second goes unnoticed.
        mode = py_compile.PycInvalidationMode.CHECKED_HASH
        compileall.compile_dir(self.path / "mtvision", quiet=1, invalidation_mode=mode)
        self._server: subprocess.Popen[str] | None = None

    def run(
        self,
        chunks: Sequence[Sequence[str]],
        seconds: Mapping[str, float],
        change: tuple[str, str] | None = None,
    ) -> dict[str, Any]:
        """Run tests until one fails; with `change` (module, text), on the changed module.

        Returns:
            The answer of `mutation.server`.
        """
        names = [name for chunk in chunks for name in chunk]
        total = sum(seconds[name] for name in names)
        request = {
            "chunks": chunks,
            "seconds": {name: seconds[name] for name in names},
            "limit": 5 * total + 300,
        }
        before = (self.path / change[0]).read_text() if change else ""
        try:
            if change:
                (self.path / change[0]).write_text(change[1])
            answer = self._ask(json.dumps(request))
        finally:
            if change:
                (self.path / change[0]).write_text(before)
        if not answer:
            self.close()
            return {
                "outcome": "failed",
                "by": "",
                "reason": "the change ended the server of the tests",
                "seconds": 0.0,
            }
        found: dict[str, Any] = json.loads(answer)
        return found

    def close(self) -> None:
        """End the process, if there is one. A later `run` starts another."""
        if self._server is not None:
            self._server.kill()
            self._server.wait()
        self._server = None

    def _ask(self, request: str) -> str:
        if self._server is None:
            self._server = self._start()
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._server.stdin.write(request + "\n")
            self._server.stdin.flush()
        return self._server.stdout.readline()

    def _start(self) -> subprocess.Popen[str]:
        support = str(self.path / "tests" / "support")
        code = f"import sys; sys.path.append({support!r}); from mutation.server import serve; serve()"
        environment = {
            **os.environ,
            "PYTHONPATH": str(self.path),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
        }
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        log = (self.path.parent / "server.log").open("a")
        return subprocess.Popen(
            [sys.executable, "-c", code], cwd=self.path, env=environment, stderr=log, **pipes
        )

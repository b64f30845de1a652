"""Locks between processes."""

from __future__ import annotations

import subprocess
import sys
import threading

from mtvision.runtime.lock import lock_file

TRY = "import sys; from pathlib import Path; from mtvision.runtime.lock import lock_file; \
sys.exit(lock_file(Path(sys.argv[1])) is None)"


def busy_elsewhere(path) -> bool:
    """Whether another process cannot take the lock."""
    return bool(subprocess.run([sys.executable, "-c", TRY, str(path)], check=False).returncode)


def test_one_process_has_the_lock(tmp_path):
    path = tmp_path / "new" / ".lock"
    with lock_file(path) as held:
        assert not held.closed
        assert lock_file(path) is None
        assert busy_elsewhere(path)
    assert not busy_elsewhere(path)
    assert path.is_file()


def test_a_process_can_wait_for_the_lock(tmp_path):
    held = lock_file(tmp_path / ".lock")
    threading.Timer(0.2, held.close).start()
    lock_file(tmp_path / ".lock", wait=True).close()
    assert held.closed


def test_a_child_that_inherits_the_descriptor_keeps_the_lock(tmp_path):
    path = tmp_path / ".lock"
    held = lock_file(path)
    child = subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(held.fileno(),)
    )
    held.close()
    assert lock_file(path) is None
    child.communicate(b"\n")
    lock_file(path).close()

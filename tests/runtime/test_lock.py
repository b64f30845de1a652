"""Locks between processes."""

from __future__ import annotations

import errno
import json
import os
import platform
import signal
import subprocess
import sys
import threading
from dataclasses import asdict, replace

import pytest

from mtvision.runtime import lock
from mtvision.runtime.lock import HOLDER_FILE, LOCK_FILE, BusyError, Holder, holding, lock_file

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


HOLD = "import sys; from pathlib import Path; from mtvision.runtime.lock import holding\n\
with holding(Path(sys.argv[1])): print('held', flush=True); input()"


@pytest.fixture
def holder(tmp_path):
    """A process that holds `tmp_path / "run"`."""
    folder = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"held\n"
    yield folder, process
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


@pytest.mark.fault(
    "a second run in the same folder", expected="refused at once; the message says who is there"
)
def test_a_second_process_is_told_who_is_there(holder):
    folder, process = holder
    with pytest.raises(BusyError) as caught, holding(folder):
        pass
    assert f"process {process.pid} on {platform.node()} since 20" in str(caught.value)
    process.communicate(b"\n")
    with holding(folder):
        assert Holder.of(folder).pid == os.getpid()
    assert Holder.of(folder) is None


@pytest.mark.fault("a lock whose process was killed", expected="taken over, with a line")
def test_a_stale_lock_is_taken_over(holder, caplog):
    folder, process = holder
    process.kill()
    process.wait()
    with holding(folder), holding(folder):  # the same thread may enter again
        assert Holder.of(folder).pid == os.getpid()
    assert f"the lock of process {process.pid}" in caplog.text
    assert not (folder / HOLDER_FILE).exists()


def test_another_thread_is_another_run(tmp_path):
    found = []

    def enter():
        try:
            with holding(tmp_path):
                found.append("entered")
        except BusyError:
            found.append("busy")

    with holding(tmp_path):
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
    assert found == ["busy"]


def test_the_end_of_a_run_frees_the_lock_for_all_that_have_the_file(tmp_path):
    with holding(tmp_path):
        (file,) = lock._held.values()
        words = [sys.executable, "-c", "input()"]
        child = subprocess.Popen(words, stdin=subprocess.PIPE, pass_fds=(file.fileno(),))
    lock_file(tmp_path / LOCK_FILE).close()
    child.communicate(b"\n")


@pytest.mark.fault("killed while data workers live on", expected="the lock is free at once")
def test_a_forked_worker_does_not_hold_the_lock(tmp_path):
    end, begun = os.pipe(), os.pipe()
    run = os.fork()
    if run == 0:
        with holding(tmp_path):
            if os.fork() == 0:
                os.close(end[1])
                os.write(begun[1], b"1")
                os.read(end[0], 1)  # until the test closes its end
                os._exit(0)
            os.read(begun[0], 1)  # the worker lives
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(run, 0)
    lock_file(tmp_path / LOCK_FILE).close()
    for descriptor in (*end, *begun):
        os.close(descriptor)


@pytest.mark.fault(
    "a file system without locks", expected="said; a living process of this machine is noticed"
)
def test_without_locks_it_says_so_and_goes_on(tmp_path, monkeypatch, caplog):
    def refuse(*_, **__):
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(lock, "lock_descriptor", refuse)
    with holding(tmp_path):
        pass
    assert "has no locks" in caplog.text
    other = replace(Holder.this_process(), pid=os.getppid())
    (tmp_path / HOLDER_FILE).write_text(json.dumps(asdict(other)))
    with pytest.raises(BusyError, match=f"process {os.getppid()}"), holding(tmp_path):
        pass
    (tmp_path / HOLDER_FILE).write_text("half a fi")
    with holding(tmp_path):
        pass

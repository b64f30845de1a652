"""Whole files: whatever interrupts a write leaves the old file, and no temporary one."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from functools import partial

import pytest

from mtvision.runtime.atomic import atomic_file, atomic_path, require_writable, write_bytes, write_text


@pytest.fixture
def umask():
    """Function that sets the umask for the length of a test."""
    old = os.umask(0)
    os.umask(old)
    yield os.umask
    os.umask(old)


def test_text_and_bytes_arrive_as_they_are(tmp_path):
    write_text(tmp_path / "new" / "folder" / "a.txt", "ä\r\n→\n")
    assert (tmp_path / "new" / "folder" / "a.txt").read_bytes() == "ä\r\n→\n".encode()
    write_bytes(tmp_path / "new" / "folder" / "a.txt", b"\0")
    assert [item.read_bytes() for item in (tmp_path / "new" / "folder").iterdir()] == [b"\0"]


@pytest.mark.fault("a umask", expected="files and checkpoints have its mode, not 0600")
@pytest.mark.parametrize("mask", [0o022, 0o002, 0o077])
def test_the_umask_decides_the_permissions(tmp_path, umask, mask):
    umask(mask)
    write_text(tmp_path / "a", "1")
    with atomic_path(tmp_path / "b") as temporary:
        temporary.write_text("2")
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in "ab"] == [0o666 & ~mask] * 2


def _interrupted(path, error):
    with atomic_file(path) as file:
        file.write(b"half of the ne")
        raise error


@pytest.mark.fault("interrupted while a file is written", expected="the old file stays; no temporary file")
@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt, SystemExit])
def test_an_interruption_leaves_the_old_file_alone(tmp_path, error):
    path = tmp_path / "a.json"
    write_text(path, "old")
    with pytest.raises(error):
        _interrupted(path, error)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_rename_that_fails_removes_the_temporary_file(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError, match="folder is a folder. Give the path of a file"):
        write_text(tmp_path / "folder", "text")
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]


@pytest.mark.parametrize("step", ["open", "write", "rename"])
def test_an_error_names_the_file_and_not_the_temporary_one(tmp_path, monkeypatch, step):
    path, full = tmp_path / "a.json", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fail(*files):
        raise OSError(full.errno, full.strerror, *map(str, files[:1]))

    if step == "rename":
        monkeypatch.setattr(os, "replace", fail)
    if step == "open":
        monkeypatch.setattr("pathlib.Path.open", fail)
    write = partial(_interrupted, error=full) if step == "write" else partial(write_text, text="text")
    with pytest.raises(OSError, match=r"No space left on device: cannot be written: '.*/a.json'$"):
        write(path)
    assert "part" not in str(list(tmp_path.iterdir()))


def test_a_file_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match=r"file/new cannot be written: .*file is a file"):
        write_text(tmp_path / "file" / "new" / "a.json", "text")


def test_content_reaches_the_disk_before_the_name(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (calls.append("fsync"), fsync(descriptor)))
    monkeypatch.setattr(os, "replace", lambda *names: (calls.append("replace"), replace(*names)))
    write_text(tmp_path / "a", "text")
    assert calls == ["fsync", "replace", "fsync"]  # the last one is of the folder
    calls.clear()
    with atomic_path(tmp_path / "c") as temporary:
        temporary.write_text("text")
    assert calls == ["fsync", "replace", "fsync"]
    calls.clear()
    with atomic_file(tmp_path / "b", sync=False) as file:
        file.write(b"text")
    assert calls == ["replace"]


def test_the_ending_of_the_temporary_file_can_be_chosen(tmp_path):
    with atomic_path(tmp_path / "a.mp4", suffix=".part.mp4") as temporary:
        assert temporary.parent == tmp_path
        assert temporary.name.endswith(".part.mp4")
    assert (tmp_path / "a.mp4").is_file()


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write_text(tmp_path / "link", "text")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "text"


@pytest.mark.skipif(not os.path.exists("/dev/stdout"), reason="no /dev/stdout on this system")
def test_a_pipe_is_written_to():
    code = "from mtvision.runtime.atomic import write_text; write_text('/dev/stdout', 'text')"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "text"


def test_a_folder_that_can_be_made_is_not_made(tmp_path):
    require_writable(tmp_path / "new" / "deep")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_below_a_file_or_without_permission_is_refused(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="file is a file"):
        require_writable(tmp_path / "file" / "run")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    with pytest.raises(PermissionError, match="no permission in"):
        require_writable(tmp_path / "run")

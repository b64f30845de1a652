"""Actions that must not end a run, and results that must not be lost."""

from __future__ import annotations

import errno
import io
import os

import pytest

from mtvision.core.naming import UnknownNameError
from mtvision.runtime.attempts import Attempts, failure_line
from mtvision.runtime.rescue import write_or_rescue


def fail(error):
    raise error


def test_the_next_action_follows_a_failure(caplog):
    attempts, done = Attempts(), []
    assert attempts.run("one", lambda: fail(ValueError("no\nmore")), "try again") is None
    assert attempts.run("two", lambda: done.append(2) or "result") == "result"
    assert not attempts.done("three", lambda: fail(MemoryError()))
    assert attempts.done("four", lambda: None)
    assert done == [2]
    assert attempts.lines == ["one: ValueError: no; try again", "three: MemoryError"]
    assert [record.getMessage() for record in caplog.records] == attempts.lines


def test_quiet_attempts_remember_without_printing(caplog):
    attempts = Attempts(quiet=True)
    attempts.run("one", lambda: fail(ValueError("no")))
    assert (attempts.lines, caplog.records) == (["one: ValueError: no"], [])


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_a_request_to_stop_is_no_failure(error):
    with pytest.raises(error):
        Attempts().run("one", lambda: fail(error()))


def test_exceptions_that_end_the_run_may_be_named():
    attempts = Attempts()
    with pytest.raises(ImportError, match="wandb"):
        attempts.run("logger", lambda: fail(ImportError("wandb")), passed=(ImportError,))
    assert attempts.lines == []


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("a list:\n  first\n  second"), "what: ValueError: a list: first; next"),
        (ValueError("ends with a colon:"), "what: ValueError: ends with a colon; next"),
        (ValueError("A sentence.\nAnother."), "what: ValueError: A sentence; next"),
        (ValueError(), "what: ValueError; next"),
        (
            UnknownNameError("task", "dept", ["depth"]),
            "what: Unknown task 'dept'. Did you mean 'depth'?; next",
        ),
    ],
)
def test_a_failure_is_one_line(error, line):
    assert failure_line("what", error, "next") == line


def test_one_process_agrees_with_itself():
    attempts = Attempts()
    assert attempts.agree()
    attempts.note("a line")
    assert not attempts.agree()
    assert attempts.lines == ["a line"]


def full(*parts):
    """An `os.replace` of a disk that takes no file with these parts in its path."""
    original = os.replace

    def replace(source, target):
        if any(part in os.fspath(target) for part in parts):
            raise OSError(errno.ENOSPC, "No space left on device")
        original(source, target)

    return replace


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def test_a_text_goes_to_its_file(tmp_path, scratch):
    stream = io.StringIO()
    assert write_or_rescue(tmp_path / "new" / "a.json", "text", stream) == (tmp_path / "new" / "a.json", "")
    assert (tmp_path / "new" / "a.json").read_text() == "text"
    assert (stream.getvalue(), list(scratch.iterdir())) == ("", [])


def test_a_text_whose_folder_is_full_goes_to_the_temporary_folder(tmp_path, scratch, monkeypatch):
    monkeypatch.setattr(os, "replace", full("work/"))
    stream = io.StringIO()
    place, line = write_or_rescue(tmp_path / "work" / "a.json", "text", stream)
    assert list(scratch.iterdir()) == [place]
    assert place.name.endswith("-a.json")
    assert place.read_text() == "text"
    advice = f"make room, then copy it from the temporary folder: {place}"
    told = f"No space left on device: cannot be written: '{tmp_path / 'work' / 'a.json'}'"
    assert line == f"a.json: OSError: [Errno {errno.ENOSPC}] {told}; {advice}"
    assert (stream.getvalue(), list((tmp_path / "work").iterdir())) == ("", [])


@pytest.mark.fault("no disk takes the record", expected="it is printed")
@pytest.mark.parametrize("missing", [False, True])
def test_a_text_that_no_disk_takes_is_printed(missing, tmp_path, scratch, monkeypatch):
    monkeypatch.setattr(os, "replace", full(".json"))
    if missing:
        monkeypatch.setattr("tempfile.gettempdir", lambda: fail(FileNotFoundError("no temporary folder")))
    stream = io.StringIO()
    place, line = write_or_rescue(tmp_path / "work" / "a.json", "text", stream)
    assert (place, stream.getvalue()) == (None, "text\n")
    assert line.endswith("so the content was printed: keep it")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []

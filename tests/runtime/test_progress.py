"""Progress on stderr: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from mtvision.runtime import progress
from mtvision.runtime.progress import bars, counting, messages, reading, track


@pytest.fixture
def terminal():
    """A console that believes it is a terminal."""
    return Console(file=io.StringIO(), force_terminal=True, width=100)


def test_nothing_goes_to_stdout(capsys):
    messages().print("a line")
    assert list(track(iter("abc"), "letters", 3)) == ["a", "b", "c"]
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "a line\nletters: 3 of 3\n"


def test_long_lines_are_not_wrapped_in_a_log(capsys):
    messages().print("word " * 60)
    assert capsys.readouterr().err.count("\n") == 1


def test_quiet_is_quiet(capsys, tmp_path):
    (tmp_path / "a.tar").write_bytes(b"12345")
    messages(quiet=True).print("a line")
    assert list(track("abc", "letters", 3, quiet=True)) == ["a", "b", "c"]
    with reading(tmp_path / "a.tar", quiet=True) as file:
        assert file.read() == b"12345"
    assert capsys.readouterr() == ("", "")


def test_plain_lines_come_seldom(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with counting("steps", 100) as counter:
        for _ in range(100):
            now[0] += 1
            counter.advance()
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["steps: 30 of 100", "steps: 60 of 100", "steps: 90 of 100", "steps: 100 of 100"]


def test_a_counter_can_be_set(capsys):
    with counting("steps", 7) as counter:
        counter.reach(5)
        counter.advance(2)
    assert capsys.readouterr().err == "steps: 7 of 7\n"


def test_something_transient_leaves_nothing(capsys):
    assert list(track("ab", "letters", 2, transient=True)) == ["a", "b"]
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_a_bar(terminal):
    assert not bars(terminal).disable
    assert list(track("abc", "letters", 3, console=terminal)) == ["a", "b", "c"]
    text = terminal.file.getvalue()
    assert "letters" in text
    assert "3/3" in text
    assert "3 of 3" not in text


def test_reading_names_the_file(capsys, tmp_path):
    (tmp_path / "a.tar").write_bytes(b"1" * 2_000_000)
    with reading(tmp_path / "a.tar") as file:
        assert len(file.read()) == 2_000_000
    assert capsys.readouterr().err == "reading a.tar, 2 MB\n"

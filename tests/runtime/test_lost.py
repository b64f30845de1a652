"""Errors of the processes that read data, and of ranks that are gone, as one line."""

from __future__ import annotations

import os
import re
import signal
import traceback

import data_problems as problems
import pytest
import torch
from sampling import sampled
from torch.utils.data import DataLoader, Dataset

from mtvision.cli import main
from mtvision.core.files.foreign import DecodeError
from mtvision.core.naming import ReportedError, UnknownNameError
from mtvision.report.record import RecordError
from mtvision.runtime.lost import from_worker, lost_process, original_message

ERRORS = {
    "decode": lambda: DecodeError("/a/b.png: bad: really: bad. Copy it again."),
    "lines": lambda: DecodeError("/a/b.json: 2 mistakes.\n  one: 1\n  two\nCorrect them."),
    "reported": lambda: ReportedError("/a/c.png: no."),
    "record": lambda: RecordError("/a/r.json", ["x: bad", "y: worse"]),  # takes two arguments
    "name": lambda: UnknownNameError("label", "/a/x", ["b", "c"]),
    "os": lambda: FileNotFoundError("/a/d.png: no such file. Check the path."),
}


class Failing(Dataset):
    def __init__(self, kind):
        self.kind = kind

    def __len__(self):
        return 4

    def __getitem__(self, index):
        if self.kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.kind == "exit":
            os._exit(3)
        try:
            int("no number")
        except ValueError as error:
            raise ERRORS[self.kind]() from error


def raised(kind):
    with pytest.raises(Exception) as caught:
        list(DataLoader(Failing(kind), num_workers=1, timeout=60))
    traceback.clear_frames(caught.tb)  # lets go of the loader; a collection would wait 5 s for its worker
    return caught.value


@pytest.mark.parametrize("kind", sampled(list(ERRORS), 2))
@problems.KILLED
def test_an_error_in_a_worker_has_the_message_it_has_here(kind):
    error = raised(kind)
    assert from_worker(error)
    assert "Traceback" in str(error)
    assert original_message(error) == str(ERRORS[kind]())
    assert lost_process(error) is None
    assert original_message(ERRORS[kind]()) == str(ERRORS[kind]())


@pytest.mark.parametrize("kind", ["kill", "exit"])
@problems.KILLED
def test_a_worker_that_is_gone(kind):
    line = lost_process(raised(kind))
    assert re.match(
        r"the process that loads data \(pid \d+\) (was ended by signal 9|exited unexpected)", line
    )
    assert "most likely the memory was full. Try a smaller num_workers" in line
    assert "\n" not in line


@pytest.mark.parametrize(
    "text",
    sampled(
        [
            "[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:5120",
            "[pair.cc:589] Read error [127.0.0.1]:3: Connection reset by peer",
            "NCCL communicator was aborted on rank 1.",
            "gloo/transport/tcp/unbound_buffer.cc:84] Timed out waiting 1800000ms for recv operation",
        ],
        1,
    ),
)
@problems.KILLED
def test_a_lost_rank(text):
    line = lost_process(torch.distributed.DistBackendError(text))
    assert line.startswith("the connection to another rank is lost (")
    assert line.endswith("Start again, a training with --resume.")
    assert lost_process(RuntimeError(text)) == line
    assert lost_process(ConnectionResetError(text)) is None  # of a download


@pytest.mark.parametrize(
    ("error", "code", "words"),
    sampled(
        [
            (lambda: raised("decode"), 2, "/a/b.png: bad: really: bad. Copy it again.\n"),
            (lambda: raised("record"), 2, "/a/r.json: 2 violations:"),
            (lambda: raised("reported"), 2, "/a/c.png: no.\n"),
            (lambda: raised("kill"), 1, "the process that loads data (pid "),
        ],
        1,
    ),
)
@problems.KILLED
def test_a_command_prints_the_line_alone(error, code, words, monkeypatch, capsys):
    class Command:
        @staticmethod
        def main(arguments):
            raise error()

    monkeypatch.setattr(main.importlib, "import_module", lambda name: Command)
    assert main.call("train", []) == code
    said = capsys.readouterr().err
    assert said.startswith(f"mtvision train: {words}")
    assert "Traceback (most" not in said


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), KeyError("x")])
def test_other_errors_keep_their_traceback(error, monkeypatch):
    class Command:
        @staticmethod
        def main(arguments):
            raise error

    monkeypatch.setattr(main.importlib, "import_module", lambda name: Command)
    with pytest.raises(type(error)):
        main.call("train", [])

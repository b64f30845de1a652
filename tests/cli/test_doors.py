"""What passes the borders of the suite: no command connects to anything, no damaged checkpoint comes in."""

from __future__ import annotations

import os
import random
import re
import socket
import subprocess
import sys
from pathlib import Path

import discs
import pytest
from people import write_photo

import mtvision
from mtvision.cli.main import call

SHORT = ("training.iterations=1", "training.val_interval=0", "evaluation.pictures=0")


@pytest.fixture(scope="module")
def unconnected():
    """Every attempt to connect, or to look up a host, fails and is noted here."""
    tried: list[tuple[object, ...]] = []

    def refuse(*arguments: object, **_: object) -> None:
        tried.append(arguments)
        raise ConnectionRefusedError("this test has no network")

    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex", "sendto"):
            patch.setattr(socket.socket, name, refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        yield tried


@pytest.fixture(scope="module")
def run(unconnected, tmp_path_factory):
    """(config, folder) of a short run; its checkpoint has an entry in the manifest."""
    folder = tmp_path_factory.mktemp("doors")
    config = str(discs.write_config(folder))
    assert call("train", [config, "--work-dir", str(folder / "run"), "--cfg-options", *SHORT]) == 0
    return config, folder


def commands(config: str, folder: Path, checkpoint: Path, out: Path) -> dict[str, list[str]]:
    """{command: arguments} that read a checkpoint."""
    photo = write_photo(folder / "photo.png")
    begin = [*SHORT, f"training.load_from={checkpoint}"]
    return {
        "test": [config, str(checkpoint), "--work-dir", str(out), "--cfg-options", SHORT[-1]],
        "predict": [str(checkpoint), str(photo), "--out", str(out)],
        "train": [config, "--work-dir", str(out), "--cfg-options", *begin],
    }


@pytest.mark.slow
@pytest.mark.fault("train, test and predict without W&B", expected="no connection, no host looked up")
def test_no_command_connects_to_anything(run, unconnected, tmp_path):
    config, folder = run
    for name, words in commands(config, folder, folder / "run/iter_1.pth", tmp_path / "out").items():
        assert call(name, [word.replace("/out", f"/{name}") for word in words]) == 0
    assert unconnected == []


@pytest.mark.slow
@pytest.mark.fault(
    "a flipped bit, through test, predict and training.load_from", expected="refused, 120 of 120"
)
@pytest.mark.parametrize("name", ["test", "predict", "train"])
def test_flipped_bits_are_found_by_every_command(run, tmp_path, capsys, name):
    config, folder = run
    path = folder / "run/iter_1.pth"
    words = commands(config, folder, path, tmp_path / "out")[name]
    whole, draw = path.read_bytes(), random.Random(name)
    try:
        for count in range(40):
            content = bytearray(whole)
            content[len(whole) * count // 40 + draw.randrange(len(whole) // 40)] ^= 1 << draw.randrange(8)
            path.write_bytes(content)
            assert call(name, words) == 2
            assert "iter_1.pth is damaged: it has another SHA-256" in capsys.readouterr().err
    finally:
        path.write_bytes(whole)


PACKAGE = Path(mtvision.__file__).parent
REQUEST = re.compile(
    r"""(?:src|href|action|data|poster)\s*=\s*["']?\s*(?:https?:)?//|url\(|@import|\bimport\s*\("""
    r"|fetch\(|XMLHttpRequest|WebSocket|EventSource|sendBeacon|http-equiv=.refresh"
)


def test_no_browser_is_started():
    starts = re.compile(r"\bwebbrowser\b|xdg-open|os\.startfile")
    sources = PACKAGE.rglob("*.py")
    assert [path.name for path in sources if starts.search(path.read_text(encoding="utf-8"))] == []


@pytest.mark.fault("a page of the suite is opened", expected="it requests nothing from anywhere")
def test_no_template_of_a_page_names_another_host():
    texts = {path: path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}
    pages = {path for path, text in texts.items() if "<html" in text}
    pages |= {path for kind in ("j2", "html", "js", "css") for path in PACKAGE.rglob(f"*.{kind}")}
    assert {"control_page.py", "page.html.j2", "dom.js"} <= {path.name for path in pages}
    found = {path.name: REQUEST.findall(path.read_text(encoding="utf-8")) for path in pages}
    assert not {name for name, requests in found.items() if requests}, found


@pytest.mark.parametrize("words", [["--help"], ["list", "decoders"], ["configs", "list"]])
def test_a_reader_that_has_read_enough_is_no_error(words):
    """`mtvision … | head -1` ends quietly, with the exit code of SIGPIPE."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "mtvision.cli.main", *words]
    for unbuffered in ("", "1"):
        environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
        done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, check=False, env=environment)
        assert (done.returncode, done.stderr) == (141, b"")
    os.close(writing)

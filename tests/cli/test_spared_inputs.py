"""No command writes over what it reads: the output is refused, and the file keeps its bytes."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from mtvision.cli.common import spare_inputs
from mtvision.cli.main import command_line

RECORD = Path(__file__).parents[2] / "results" / "parallel_tiny_synthetic_1xb16_1000_seed0.json"
CONFIG = Path(__file__).parents[2] / "configs" / "synthetic" / "parallel_tiny_synthetic_1xb16_1000.py"


def test_an_output_that_is_an_input_is_refused(tmp_path):
    file, other, link = tmp_path / "in.pth", tmp_path / "out.pth", tmp_path / "link.pth"
    file.write_text("x")
    link.symlink_to(file)
    spare_inputs("--out", None, [file])
    spare_inputs("--out", other, [tmp_path, file])  # a new file may lie anywhere
    other.write_text("y")
    spare_inputs("--out", other, [file, None, "", "hf:owner/name", "semseg"])
    for out, given in ((file, [file]), (link, ["x", file]), (file, [str(link)])):
        with pytest.raises(ValueError, match=f"--out: {out} is an input of this command and would be lost"):
            spare_inputs("--out", out, given)
    with pytest.raises(ValueError, match=f"--json: {other} is a file of {tmp_path}, which is an input"):
        spare_inputs("--json", other, [tmp_path])


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with an own data set, a record, a config and files that stand for checkpoints."""
    monkeypatch.chdir(tmp_path)
    for folder in ("images", "depth", "edge"):
        (tmp_path / "set" / folder).mkdir(parents=True)
        for name in ("1", "2"):
            cv2.imwrite(str(tmp_path / "set" / folder / f"{name}.png"), np.zeros((8, 8), np.uint8))
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "a.json").write_bytes(RECORD.read_bytes())
    (tmp_path / "c.py").write_text(f"_base_ = {str(CONFIG)!r}\n")
    for name in ("x.pth", "y.pth", "x.safetensors"):
        (tmp_path / name).write_bytes(b"weights")
    return tmp_path


COMMANDS = {
    "table records --out records/a.json": "records/a.json is an input of this command",
    "table records/a.json --format markdown --out ./records/../records/a.json": "is an input of this command",
    "merge c.py --base x.pth --parents semseg=y.pth --out x.pth": "x.pth is an input",
    "merge c.py --base x.pth --parents semseg=y.pth --out y.pth": "y.pth is an input",
    "merge c.py --base x.pth --parents semseg=y.pth --out c.py": "c.py is an input",
    "surgery c.py x.pth --parents semseg=y.pth --out x.pth": "x.pth is an input",
    "search c.py x.pth --out x.pth": "x.pth is an input",
    "export x.safetensors --format safetensors --overwrite": "x.safetensors is an input",
    "check-dataset --dataset FolderDataset --root set --json set/edge/1.png": "1.png is a file of set",
    "check-dataset --dataset FolderDataset --root set --sheet set/edge/1.png": "1.png is a file of set",
    "evaluate-boundaries set/edge set/edge --protocol bsds --subset --json set/edge/1.png": "is an input",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_keep_their_inputs(here, capsys, command):
    before = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    assert command_line(command.split()) == 2
    assert COMMANDS[command] in capsys.readouterr().err
    assert {path: path.read_bytes() for path in here.rglob("*") if path.is_file()} == before


def test_tables_are_written_again(here):
    for _ in range(2):
        assert command_line(["table", "records", "--format", "markdown", "--out", "records/table.md"]) == 0
    assert "parallel" in (here / "records" / "table.md").read_text()


def test_an_earlier_report_in_the_folder_is_no_input(here, monkeypatch):
    monkeypatch.chdir(here / "set")
    words = [
        "check-dataset",
        "--dataset",
        "FolderDataset",
        "--root",
        ".",
        "--split",
        "train",
        "--protocol",
        "synthetic-scenes",
    ]
    words += ["--options", "labels={'edge':'edge'}", "--json", "check.json"]
    for content, refused in (({"images": []}, True), ({"splits": {}, "findings": []}, False)):
        Path("check.json").write_text(json.dumps(content))
        command_line(words)
        assert (json.loads(Path("check.json").read_text()) == content) == refused

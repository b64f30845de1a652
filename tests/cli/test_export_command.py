"""`mtvision export` from a checkpoint alone, and what its file can be used for."""

from __future__ import annotations

import pytest
from people import write_checkpoint, write_photo

from mtvision.cli.main import call


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("network"))


def test_weights_with_their_config_are_a_checkpoint(checkpoint, tmp_path, capsys):
    file = tmp_path / "shared.safetensors"
    assert call("export", [str(checkpoint), "--format", "safetensors", "--out", str(file)]) == 0
    told = capsys.readouterr().out
    assert f"written: {file}" in told
    assert "0.00% other pixels" in told
    picture = write_photo(tmp_path / "a.png", height=40, width=50)
    assert call("predict", [str(file), str(picture), "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out/a.png").is_file()


def test_a_file_is_not_replaced(checkpoint, tmp_path, capsys):
    file = tmp_path / "a.safetensors"
    file.write_bytes(b"mine")
    assert call("export", [str(checkpoint), "--format", "safetensors", "--out", str(file)]) == 2
    assert "exists" in capsys.readouterr().err
    assert file.read_bytes() == b"mine"


@pytest.mark.slow
def test_onnx_from_a_checkpoint(checkpoint, tmp_path, capsys):
    file = tmp_path / "a.onnx"
    assert call("export", [str(checkpoint), "--out", str(file), "--tasks", "depth"]) == 0
    assert "depth at 2x3x" in capsys.readouterr().out

"""`tools/export_table.py`: a row for every decoder, pieces that are kept, and the page."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

from mtvision.core.registry import DECODERS

TOOL = Path(__file__).parents[2] / "tools" / "export_table.py"


@pytest.fixture(scope="module")
def tool():
    return runpy.run_path(str(TOOL))


def test_every_registered_decoder_has_a_row(tool):
    ours = {name for name in DECODERS if DECODERS[name].__module__.startswith("mtvision.")}
    assert set(tool["ROWS"]) == ours


def test_finished_pieces_are_not_measured_again(tool, tmp_path, monkeypatch, capsys):
    called = []

    def measure(subject):
        called.append(subject.name)
        return 1

    for piece in ("graphs", "pt2"):
        monkeypatch.setitem(tool["PIECES"], piece, measure)
    (tmp_path / "ConcatDecoder.json").write_text(json.dumps({"graphs": 1}))
    arguments = ["--work-dir", str(tmp_path), "--pieces", "graphs", "pt2"]
    arguments += ["--only", "ConcatDecoder", "MTINetDecoder"]
    assert tool["main"](arguments) == 0
    assert called == ["ConcatDecoder", "MTINetDecoder", "MTINetDecoder"]
    assert tool["main"](arguments) == 0
    assert len(called) == 3
    assert "MTINetDecoder: pt2 = 1" in capsys.readouterr().out


def test_the_page_tells_what_is_measured(tool, tmp_path):
    sizes = {"2x3x64x96": 0.0, "1x3x96x64": 3e-7, "1x3x77x69": 2e-5}
    first = {"graphs": 1, "onnx": sizes, "pt2": "cannot be traced", "ratio": 1.234}
    (tmp_path / "ConcatDecoder.json").write_text(json.dumps(first))
    one_size = {"graphs": 2, "onnx": {"2x3x64x96": 0.0, "1x3x64x96": 1e-6}}
    (tmp_path / "TaskPrompterDecoder.json").write_text(json.dumps(one_size))
    page = tool["page"](tmp_path)
    assert "| ConcatDecoder | any | 0 | 1.23 |" in page
    assert "| ConcatDecoder | onnx | 0e+00 (64x96) | 3e-07 (96x64) | 2e-05 (77x69) |" in page
    assert "| ConcatDecoder | pt2 | cannot be traced | | |" in page
    assert "| TaskPrompterDecoder | one | 1 |  |" in page
    assert (
        "| TaskPrompterDecoder | onnx | 0e+00 (64x96) | 1e-06 (64x96), not turned | made for one size |"
        in page
    )
    assert "MLoREDecoder" not in page

"""The notebook of the examples: its cells run one after another, and its results draw themselves."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "examples" / "notebook.ipynb"
MOST_LINES = 25


def cells():
    content = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in content["cells"] if cell["cell_type"] == "code"]


def run(cell, names):
    """Run a cell as a notebook does; returns the value of its last line."""
    tree = ast.parse(cell)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, str(NOTEBOOK), "exec"), names)
    return None if last is None else eval(compile(ast.Expression(last.value), str(NOTEBOOK), "eval"), names)


def test_the_notebook_is_short():
    assert sum(bool(line.strip()) for cell in cells() for line in cell.splitlines()) <= MOST_LINES


@pytest.mark.slow
def test_every_cell_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    shown = []
    monkeypatch.setattr(Image.Image, "show", lambda picture, **_: shown.append(picture.size))
    names = {}
    values = [run(cell.replace('"predictions/', f'"{tmp_path}/'), names) for cell in cells()]
    assert "Model(demo" in repr(values[0])
    assert values[1]._repr_html_().startswith("<figure>")
    assert len(shown) == 1
    assert values[2]["unit"] == "m"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first.npz", "first.png", "model.onnx"]
    assert values[-1].holds

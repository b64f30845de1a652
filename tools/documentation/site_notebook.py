"""The notebook of the examples: run it, and show it with its outputs as a page."""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import os
import shutil
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NOTEBOOK = "examples/notebook.ipynb"
MOST_WIDTH = 1000
"""Pixels of the widest picture that is kept."""
MOST_TEXT = 320
"""Characters of an output that the page shows."""


def execute(root: Path) -> dict[str, Any]:
    """Run all cells in an empty folder beside a copy of the pictures, and keep their outputs in the notebook.

    Returns:
        The notebook.
    """
    notebook = json.loads((root / NOTEBOOK).read_text(encoding="utf-8"))
    names: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, _inside(Path(folder)):
        shutil.copytree(root / "docs" / "images", Path(folder) / "docs" / "images")
        for count, cell in enumerate(_code_cells(notebook), start=1):
            cell["execution_count"] = count
            cell["outputs"] = _outputs("".join(cell["source"]), names, count)
    text = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
    (root / NOTEBOOK).write_text(text, encoding="utf-8")
    return notebook


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _code_cells(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def _outputs(source: str, names: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """What a cell prints, displays and gives."""
    shown: list[dict[str, Any]] = []
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), _display(shown):
        exec(compile(tree, NOTEBOOK, "exec"), names)
        value = eval(compile(ast.Expression(last.value), NOTEBOOK, "eval"), names) if last else None
    outputs = [{"output_type": "display_data", "metadata": {}, "data": data} for data in shown]
    if printed.getvalue():
        outputs.append(
            {"output_type": "stream", "name": "stdout", "text": printed.getvalue().splitlines(True)}
        )
    if value is not None:
        result = {
            "output_type": "execute_result",
            "execution_count": count,
            "metadata": {},
            "data": _data(value),
        }
        outputs.append(result)
    return outputs


@contextlib.contextmanager
def _display(shown: list[dict[str, Any]]) -> Iterator[None]:
    """Pictures that a cell shows go to the list instead of a window."""
    from PIL import Image

    original = Image.Image.show
    Image.Image.show = lambda picture, *_, **__: shown.append(  # type: ignore[method-assign]
        {"image/jpeg": _encoded(picture), "text/plain": ["<picture>"]}
    )
    try:
        yield
    finally:
        Image.Image.show = original  # type: ignore[method-assign]


def _data(value: Any) -> dict[str, Any]:
    data: dict[str, Any] = {"text/plain": repr(value).splitlines(True)}
    if hasattr(type(value), "_repr_png_"):
        from PIL import Image

        data["image/jpeg"] = _encoded(Image.open(io.BytesIO(value._repr_png_())))
    return data


def _encoded(picture: Any) -> str:
    """A JPEG, which takes a fifth of the bytes of a PNG."""
    picture = picture.convert("RGB")
    picture.thumbnail((MOST_WIDTH, MOST_WIDTH))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=88, optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def notebook_page(root: Path, target: Path) -> str:
    """The notebook as Markdown; its pictures are written to `images/` of the target."""
    notebook = json.loads((root / NOTEBOOK).read_text(encoding="utf-8"))
    (target / "images").mkdir(parents=True, exist_ok=True)
    parts = []
    for index, cell in enumerate(notebook["cells"]):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        parts += [_shown(output, f"notebook-{index}", target) for output in cell["outputs"]]
    return "\n\n".join(parts) + "\n\n" + f"The file is `{NOTEBOOK}`. A test runs its cells.\n"


def _shown(output: dict[str, Any], name: str, target: Path) -> str:
    data = output.get("data", {"text/plain": output.get("text", [])})
    if "image/jpeg" in data:
        file = target / "images" / f"{name}-{output['output_type'].split('_')[0]}.jpg"
        file.write_bytes(base64.b64decode(data["image/jpeg"]))
        return f"![Output of the cell](images/{file.name})"
    return f"```text\n{textwrap.shorten(''.join(data['text/plain']), MOST_TEXT)}\n```"

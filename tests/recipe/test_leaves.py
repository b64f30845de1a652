"""A shipped config is a difference of at most 15 lines. What several share is in bases, all in use."""

from __future__ import annotations

import ast
import tokenize
from pathlib import Path

import pytest

from mtvision.recipe.plugin_lists import files_of
from mtvision.recipe.shipped import configs_folder, shipped_configs

LINES = 15
WHOLE = {
    "camvid/parallel_lite0_camvid_1xb8_300": "the example of own data: all that it takes, in one file",
    "synthetic/demo_resnet10t_synthetic_1xb16_400": "the network of the package: its file holds this text",
    "synthetic/parallel_tiny_synthetic_1xb16_1000": "the demo: the first config that one reads, in one file",
}
"""{name: why it states everything itself}."""

LAYOUT = (
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
)


def code_lines(file: Path) -> int:
    """Lines with code: without the header, comments and blank lines, with imports and brackets."""
    text = file.read_text(encoding="utf-8")
    module = ast.parse(text)
    header = 0 if ast.get_docstring(module) is None else module.body[0].end_lineno
    tokens = tokenize.generate_tokens(iter(text.splitlines(keepends=True)).__next__)
    lines = {
        line
        for token in tokens
        if token.type not in LAYOUT
        for line in range(token.start[0], token.end[0] + 1)
    }
    return sum(line > header for line in lines)


def imported(file: Path) -> list[ast.ImportFrom]:
    """Imports from bases."""
    module = ast.parse(file.read_text(encoding="utf-8"))
    return [
        item
        for node in module.body
        if isinstance(node, ast.With)
        for item in node.body
        if isinstance(item, ast.ImportFrom)
    ]


def test_lines_are_counted_as_said(tmp_path):
    file = tmp_path / "config.py"
    file.write_text(
        '"""Header.\n\nMore.\n"""\n\n# why\nname = "a"  # what\nmodel = dict(\n\n    a=1,\n    # b\n)\n'
    )
    assert code_lines(file) == 4
    file.write_text("seed = 0\n")
    assert code_lines(file) == 1


@pytest.mark.parametrize("config", shipped_configs(), ids=lambda item: item.name)
def test_a_config_is_a_short_difference(config):
    if config.name in WHOLE:
        assert imported(config.file) == []
    else:
        assert code_lines(config.file) <= LINES


def test_whole_configs_are_shipped_and_few():
    assert set(WHOLE) <= {item.name for item in shipped_configs()}
    assert len(WHOLE) <= 5


def test_what_is_imported_from_bases_is_named_and_used():
    """A misspelt name is found when a config is read, `*` and unused names are not."""
    files = {file for item in shipped_configs() for file in files_of(item.file)}
    for file in files:
        names = [alias for item in imported(file) for alias in item.names]
        assert all(alias.name != "*" and alias.asname is None for alias in names), file
        text = file.read_text(encoding="utf-8")
        for alias in names:  # constants are no part of the config: they are there to be used
            assert not alias.name.isupper() or text.count(alias.name) > 1, f"{file}: {alias.name} is unused"


def test_parts_of_networks_and_searches_are_in_use():
    """Data sets and schedules are a library of what was published; every other base has configs below it."""
    used = {file.resolve() for item in shipped_configs() for file in files_of(item.file)}
    bases = set((configs_folder() / "_base_").rglob("*.py"))
    library = {file for file in bases if file.parent.name in ("datasets", "schedules")}
    assert bases - library <= used

"""Commands in README and docs name existing tools, options and configs."""

from __future__ import annotations

import functools
import io
import re
import runpy
from contextlib import redirect_stdout
from pathlib import Path
from unittest.mock import patch

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("docs", "datasets", "configs", "examples")
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    + [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.md")]
)
SUBCOMMANDS = {
    "leaderboard": ("check", "build", "push"),
    "configs": ("list", "show", "copy", "schema", "reference"),
}


def commands(text: str) -> list[list[str]]:
    """The words of every line of a code block, or of inline code, that starts one of the suite's tools."""
    blocks = re.findall(r"^ *```(?:bash|sh|)\n(.*?)^ *```", text, flags=re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in re.sub(r"\\\n\s*", "", block).splitlines()]
    lines += re.findall(r"`([^`\n]+)`", re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE))
    start = r"\s*(?:\S+=\S* )*(?:python |torchrun .*?)?(?:tools/(\w+)\.py|mtvision(?=\s))(.*)"
    found = []
    for line in lines:
        match = re.match(start, line)
        if match:
            words = match.group(2).split("#")[0].split()
            name = [match.group(1).replace("_", "-")] if match.group(1) else words[:1]
            found.append([*name, *(words if match.group(1) else words[1:])])
    return [words for words in found if words]


@functools.cache
def options(tool: str, subcommand: str | None) -> frozenset[str]:
    """Every option that a tool's help lists."""
    script = str(ROOT / "tools" / f"{tool}.py")
    words = [script, *([subcommand] if subcommand else []), "--help"]
    printed = io.StringIO()
    with patch("sys.argv", words), redirect_stdout(printed), pytest.raises(SystemExit) as ended:
        runpy.run_path(script, run_name="__main__")
    assert ended.value.code == 0, words
    return frozenset(re.findall(r"--[a-z][a-z-]*", printed.getvalue()))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_commands_can_be_typed(path):
    for name, *words in commands(path.read_text(encoding="utf-8")):
        if "|" in name or name.startswith(("-", "…")):
            continue
        tool = name.replace("-", "_")
        assert (ROOT / "tools" / f"{tool}.py").is_file(), f"{path}: no tool {tool}"
        used = {word.split("=")[0] for word in words if re.match(r"--[a-z]", word)}
        if used:
            subcommand = words[0] if words[0] in SUBCOMMANDS.get(tool, ()) else None
            assert used <= options(tool, subcommand), f"{path}: {tool} {' '.join(words)}"
        for word in words:
            named = word.strip("'\"").split("=")[-1]
            if re.fullmatch(r"configs/[\w/]+\.py", named) and len(Path(named).parts) > 2:
                assert (ROOT / named).is_file(), f"{path}: no file {named}"

"""CONTRIBUTING.md: its examples run as written and learn something, and its list of packages is complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()


@pytest.mark.slow
def test_every_example_runs_and_the_last_one_learns():
    blocks = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    assert len(blocks) == 7
    namespace: dict = {"__name__": "contributing"}
    for block in blocks:
        exec(compile(block, "CONTRIBUTING.md", "exec"), namespace)
    history = namespace["history"]
    assert history[-1]["total"] < 0.5 * history[0]["total"]
    assert [block.name for block in namespace["network"].backbone.blocks] == [f"stage{i}" for i in range(4)]
    assert namespace["network"].backbone.strides == (2, 4, 8, 16)


def test_every_package_is_listed_once():
    section = TEXT.split("## Where things are")[1].split("\n## ")[0]
    listed = re.findall(r"^\| \d* ?\| `(\w+)/` \|", section, flags=re.MULTILINE)
    packages = {path.parent.name for path in (ROOT / "mtvision").glob("*/__init__.py")}
    assert packages <= set(listed)
    assert len(listed) == len(set(listed))

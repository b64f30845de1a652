"""The worked examples of CONTRIBUTING.md run as written and learn something."""

from __future__ import annotations

import re
from pathlib import Path

TEXT = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()


def test_every_example_runs_and_the_last_one_learns():
    blocks = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    assert len(blocks) == 6
    namespace: dict = {"__name__": "contributing"}
    for block in blocks:
        exec(compile(block, "CONTRIBUTING.md", "exec"), namespace)
    history = namespace["history"]
    assert history[-1]["total"] < 0.5 * history[0]["total"]
    assert [block.name for block in namespace["network"].backbone.blocks] == [f"stage{i}" for i in range(4)]
    assert namespace["network"].backbone.strides == (2, 4, 8, 16)

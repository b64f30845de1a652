"""The examples of docs/tasks.md are protocols as the page says."""

import re
from pathlib import Path

import pytest

from mtvision.protocols import own_protocol
from mtvision.protocols.entries import FIELDS, build_task

PAGE = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text(encoding="utf-8")


def example(start):
    """What the code block that begins so assigns."""
    block = next(
        block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if block.startswith(start)
    )
    names = {}
    exec(block, names)
    return names[start.split()[0]]


def test_the_first_example():
    tasks = own_protocol(**example("protocol = ")).tasks
    assert [task.name for task in tasks] == ["semseg", "albedo", "near", "far"]
    assert [task.metric_names[0] for task in tasks] == ["iou", "values", "depth", "depth"]
    assert [task.out_channels for task in tasks] == [3, 3, 1, 1]


def test_the_example_of_several_metrics():
    depth, albedo = own_protocol("x", example("tasks = ")).tasks
    assert depth.metrics == ({"type": "depth", "max_depth": 10}, {"type": "bias", "nearest": 0.5})
    assert albedo.metric_names == ("values", "whdr")


def test_the_table_of_fields_names_all_and_its_defaults():
    rows = [line.split("|")[1:5] for line in PAGE.splitlines() if line.startswith("| `")]
    table = {name: row for row in rows for name in re.findall(r"`(\w+)`", row[0])}
    assert set(FIELDS) <= set(table)
    for column, entry in ((2, {"label": "values"}), (3, {"class_names": ["a"]})):
        task = build_task("x", **entry)
        for field in ("label", "geometry", "activation", "colours"):
            assert f"`{getattr(task, field)}`" in table[field][column], field
        for text, value in (
            ("loss", task.loss["type"]),
            ("metrics", task.metric_names[0]),
            ("headline", task.headline),
        ):
            assert f"`{value}`" in table[text][column], text


@pytest.mark.parametrize("name", ["values", "classes", "depth", "semseg"])
def test_constructors_that_the_page_names(name):
    options = {"class_names": ["a"]} if name in ("classes", "semseg") else {}
    assert build_task("x", type=name, **options).name == "x"

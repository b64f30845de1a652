"""Entries of `tasks` in a config: constructors, fields, defaults, and what is refused by name."""

from dataclasses import fields

import pytest

from mtvision.core.naming import UnknownNameError
from mtvision.core.task import Task
from mtvision.protocols import own_protocol
from mtvision.protocols.entries import build_task
from mtvision.protocols.tasks import depth, semseg


def test_without_a_type_the_name_is_the_constructor():
    assert build_task("depth", max_depth=3) == depth(max_depth=3)


def test_two_tasks_of_one_kind():
    tasks = own_protocol(
        "x",
        {
            "near": {"type": "depth", "max_depth": 10, "unit": "feet"},
            "far": {"type": "depth"},
            "semseg": {"class_names": ["a", "b"]},
            "parts": {"type": "semseg", "class_names": ["c", "d", "e"]},
        },
    ).tasks
    assert [task.name for task in tasks] == ["near", "far", "semseg", "parts"]
    assert [task.out_channels for task in tasks] == [1, 1, 2, 3]
    assert (tasks[0].metric_option("max_depth"), tasks[0].unit) == (10, "feet")
    assert (tasks[1].metric_option("max_depth"), tasks[1].unit) == (None, "m")
    assert tasks[3].metric_option("num_classes") == 3


EVERY_FIELD = {
    "out_channels": 4, "label": "values", "geometry": "direction", "label_channels": 3, "activation": "unit",
    "loss": {"type": "Mine", "a": 1}, "metrics": [{"type": "mine", "b": 2}], "headline": "quality",
    "higher_is_better": True, "class_names": ["x"], "palette": [[1, 2, 3]], "colours": "gray", "unit": "cd",
}  # fmt: skip


def test_any_field_of_a_task():
    task = build_task("own", **EVERY_FIELD)
    assert {item.name for item in fields(Task)} == {*EVERY_FIELD, "name"}
    for name, value in EVERY_FIELD.items():
        expected = {"metrics": ({"type": "mine", "b": 2},), "class_names": ("x",), "palette": ((1, 2, 3),)}
        assert getattr(task, name) == expected.get(name, value), name
    hash((task.class_names, task.palette))  # frozen throughout


@pytest.mark.parametrize(
    ("entry", "channels", "loss", "metric", "headline"),
    [
        ({"label": "values"}, (1, 1), "L1Loss", "values", "rmse"),
        ({"label_channels": 3}, (3, 3), "L1Loss", "values", "rmse"),
        ({"out_channels": 2}, (2, 2), "L1Loss", "values", "rmse"),
        ({"out_channels": 4, "label_channels": 2}, (4, 2), "L1Loss", "values", "rmse"),
        ({"type": "values", "channels": 5}, (5, 5), "L1Loss", "values", "rmse"),
        ({"class_names": ["a", "b", "c"]}, (3, 1), "CrossEntropyLoss", "iou", "miou"),
        ({"label": "classes", "class_names": ["a", "b"]}, (2, 1), "CrossEntropyLoss", "iou", "miou"),
        ({"label": "instances", "class_names": ["a"]}, (5, 1), "InstanceLoss", "instances", "instance_AP"),
    ],
)
def test_a_small_entry_is_enough(entry, channels, loss, metric, headline):
    task = build_task("own", **entry)
    assert (task.name, task.headline, task.metric_names) == ("own", headline, (metric,))
    assert ((task.out_channels, task.label_channels), task.loss["type"]) == (channels, loss)


def test_losses_and_metrics_keep_the_other_options_of_the_constructor():
    task = build_task("edge", positive_weight=0.8, loss={"average": "all"}, metrics=["mine", "edge"])
    assert task.loss == {"type": "EdgeLoss", "positive_weight": 0.8, "average": "all"}
    edge = {"type": "edge", "max_distance": 0.0075, "thresholds": 99}
    assert task.metrics == ({"type": "mine"}, edge)
    assert build_task("edge", metrics={"thresholds": 9}).metrics == ({**edge, "thresholds": 9},)
    assert build_task("edge", loss="L1Loss").loss == {"type": "L1Loss"}
    assert semseg(["a"]).metrics[0] == build_task("semseg", class_names=["a"], metrics="iou").metrics[0]


BAD = [
    ({"deph": {}}, "protocol.tasks.deph: Unknown task 'deph'. Did you mean 'depth'"),
    ({"deph": {"max_depth": 3}}, "Unknown task 'deph'.*\nKnown: .*\n.* says type="),
    ({"depth": {"max_deph": 3}}, r"tasks.depth: Unknown option or field of a task 'max_deph'.*'max_depth'"),
    ({"near": {"type": "dept"}}, "protocol.tasks.near: Unknown task 'dept'. Did you mean 'depth'"),
    ({"own": {"label": "value"}}, "protocol.tasks.own: Unknown label 'value'. Did you mean 'values'"),
    ({"own": {"label": "values", "metric": "iou"}}, "'metric'. Did you mean 'metrics'"),
    ({"own": {"label": "values", "name": "x"}}, "Unknown option or field of a task 'name'"),
    ({"own": {"out_channels": "3"}}, "protocol.tasks.own: out_channels must be an integer, got '3'"),
    ({"own": {"out_channels": 0}}, "protocol.tasks.own: .*out_channels must be positive, got 0"),
    ({"own": {"label_channels": 3, "unit": 3}}, "protocol.tasks.own: unit .*must be a string, got 3"),
    ({"own": {"label_channels": 3, "geometry": "flat"}}, "Unknown geometry 'flat'"),
    ({"own": {"label_channels": 3, "loss": 3}}, "protocol.tasks.own: loss: expected a name or a dict"),
    ({"own": {"label_channels": 3, "metrics": [3]}}, "tasks.own: metrics: expected a name or a dict"),
    ({"own": {"label_channels": 3, "metrics": []}}, "metrics are none; give at least one"),
    ({"own": {"label_channels": 3, "metrics": ["a", "a"]}}, "metrics are a, a; .* each once"),
    ({"own": {"label_channels": 3, "headline": "x"}}, "headline='x' needs higher_is_better=True or False"),
    ({"own": {"class_names": ["a"], "palette": [[1, 2, 3], [4, 5, 6]]}}, "2 palette colours for 1 classes"),
    ({"own": {"class_names": ["a"], "palette": [[1, 2]]}}, "palette .*must be"),
    ({"parts": {"type": "semseg"}}, "protocol.tasks.parts: semseg: missing argument class_names"),
    ({"depth": 3}, "protocol.tasks.depth: expected a dict of options and fields, .* got 3"),
    ([("depth", {})], "protocol.tasks: expected {task: dict of options}"),
]  # fmt: skip


@pytest.mark.parametrize(("tasks", "words"), BAD, ids=[str(item[0])[:60] for item in BAD])
def test_what_is_refused(tasks, words):
    with pytest.raises((UnknownNameError, ValueError, TypeError), match=words):
        own_protocol("x", tasks)

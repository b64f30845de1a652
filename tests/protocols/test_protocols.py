"""Protocol values: lookup, restriction, own protocols, task constructors and their family differences."""

from dataclasses import FrozenInstanceError

import pytest

from mtvision.core.naming import UnknownNameError
from mtvision.core.registry import LOSSES, TASKS
from mtvision.protocols import PROTOCOLS, SYNTHETIC, Protocol, get_protocol, own_protocol
from mtvision.protocols.entries import build_task
from mtvision.protocols.tasks import (
    depth,
    disparity,
    edge,
    human_parts,
    normals,
    saliency,
    semseg,
)

every = pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=list(PROTOCOLS))


def test_lookup():
    assert get_protocol("synthetic-scenes") is SYNTHETIC
    with pytest.raises(
        UnknownNameError, match="Unknown protocol 'synthetic-scene'. Did you mean 'synthetic-scenes'"
    ):
        get_protocol("synthetic-scene")


@every
def test_tables_are_consistent(protocol):
    assert PROTOCOLS[protocol.id] is protocol
    assert protocol.id == protocol.id.lower()
    assert set(protocol.loss_weights) <= set(protocol.task_names)
    assert all(weight > 0 for weight in protocol.loss_weights.values())
    for task in protocol.tasks:
        LOSSES.build(task.loss)
        if task.label == "classes" and task.activation == "argmax":
            assert task.num_classes == task.out_channels
        if task.palette:
            assert len(task.palette) == task.num_classes
    for scores in protocol.baselines.values():
        assert set(scores) <= set(protocol.task_names)


def test_synthetic_has_all_six_tasks():
    assert set(SYNTHETIC.task_names) == set(TASKS) - {"instance", "disparity", "values", "classes"}
    assert SYNTHETIC.loss_weights == {
        "semseg": 1, "depth": 1, "normals": 10, "edge": 50, "saliency": 5, "human_parts": 2,
    }  # fmt: skip
    assert SYNTHETIC.task("semseg").num_classes >= 12


def test_select_keeps_the_protocols_order_and_its_weights():
    some = SYNTHETIC.select(["edge", "semseg"])
    assert some.task_names == ("semseg", "edge")
    assert some.loss_weights == {"semseg": 1, "edge": 50}
    assert some.id == SYNTHETIC.id
    assert len(SYNTHETIC.tasks) == 6
    with pytest.raises(
        UnknownNameError, match="task of protocol synthetic-scenes 'dept'. Did you mean 'depth'"
    ):
        SYNTHETIC.select(["dept"])


def test_frozen():
    with pytest.raises(FrozenInstanceError):
        SYNTHETIC.id = "x"


@pytest.mark.parametrize("tasks", [(), (depth(), depth())])
def test_tasks_must_be_distinct_and_some(tasks):
    with pytest.raises(ValueError, match="protocol p: tasks must be non-empty and distinct"):
        Protocol(id="p", title="p", family="own", tasks=tasks)


def test_weight_of_an_unknown_task():
    with pytest.raises(UnknownNameError, match="loss_weights of protocol p 'dept'. Did you mean 'depth'"):
        Protocol(id="p", title="p", family="own", tasks=(depth(),), loss_weights={"dept": 1})


def test_own_protocol():
    mine = own_protocol(
        "mine", {"semseg": {"class_names": ["road", "car"]}, "edge": {}}, loss_weights={"edge": 50}
    )
    assert (mine.id, mine.title, mine.family) == ("mine", "mine", "own")
    assert mine.task_names == ("semseg", "edge")
    assert mine.task("semseg").class_names == ("road", "car")
    assert mine.loss_weights == {"semseg": 1.0, "edge": 50}
    with pytest.raises(UnknownNameError, match="Unknown task 'segsem'"):
        own_protocol("mine", {"segsem": {}})


# ------------------------------------------------------------------------- what differs between families


def test_semseg_classes_that_never_occur():
    assert semseg(["a"]).metric_option("absent") == "zero"
    assert semseg(["a"], family="mtan").metric_option("absent") == "nan"
    assert semseg(["a", "b"]).metric_option("num_classes") == semseg(["a", "b"]).out_channels == 2


def test_human_parts():
    task = human_parts()
    assert (task.name, task.out_channels, task.class_names[0]) == ("human_parts", 7, "background")


def test_depth():
    assert (depth().activation, depth().headline, depth().geometry) == ("positive", "rmse", "depth")
    assert (depth(family="mtan").activation, depth(family="mtan").headline) == ("identity", "abs_err")
    far = disparity()
    assert (far.name, far.geometry, far.unit, far.metric_option("max_depth")) == (
        "depth",
        "disparity",
        "px",
        80.0,
    )


def test_normals_losses():
    assert normals().loss == {"type": "NormalsL1Loss", "channels": "sum"}
    assert normals(family="survey").loss == {"type": "NormalsL1Loss", "channels": "mean"}
    assert normals(family="mtan").loss == {"type": "NormalsCosineLoss"}
    with pytest.raises(UnknownNameError, match="protocol family 'invt'. Did you mean 'invpt'"):
        normals(family="invt")


def test_edge():
    assert edge().loss == {"type": "EdgeLoss", "positive_weight": 0.95, "average": "valid"}
    survey = edge(family="survey").loss
    assert survey == {"type": "EdgeLoss", "positive_weight": 0.95, "average": "all", "threshold": 0.5}
    assert edge(positive_weight=0.8).loss["positive_weight"] == 0.8


def test_saliency():
    ours, survey = saliency(), saliency(family="survey")
    assert (ours.out_channels, ours.activation, ours.headline) == (2, "foreground", "maxF")
    assert (survey.out_channels, survey.activation, survey.headline) == (1, "sigmoid", "survey_miou")
    assert ours.num_classes == survey.num_classes == 2


def test_directions():
    better = {
        name: build_task(
            name, **({"class_names": ["a"]} if name in ("semseg", "classes", "instance") else {})
        ).higher_is_better
        for name in TASKS
    }
    assert better == {
        "semseg": True, "depth": False, "normals": False, "edge": True, "saliency": True, "human_parts": True,
        "instance": True, "disparity": False, "values": False, "classes": True,
    }  # fmt: skip

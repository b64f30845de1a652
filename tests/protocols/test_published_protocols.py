"""The published protocols say what the papers' code does: counts, sizes, weights, channels, class lists."""

from __future__ import annotations

import pytest

from mtvision.core.naming import UnknownNameError
from mtvision.protocols import PROTOCOLS, get_protocol
from mtvision.protocols.mtan import NASH_MTL_BASES
from mtvision.protocols.pascal_context import voc_palette

PUBLISHED = [name for name, item in PROTOCOLS.items() if item.family not in ("synthetic", "own")]

TABLE = {
    "nyud-invpt": ((795, 654), (448, 576), {"semseg": 40, "depth": 1, "normals": 3, "edge": 1}),
    "pascal-invpt": (
        (4998, 5105),
        (512, 512),
        {"semseg": 21, "human_parts": 7, "saliency": 2, "normals": 3, "edge": 1},
    ),
    "cityscapes-mtmamba": ((2975, 500), (512, 1024), {"semseg": 19, "depth": 1}),
    "cityscapes3d-taskprompter": ((None, 500), (1024, 2048), {"semseg": 19, "depth": 1}),
    "nyud-survey": ((795, 654), (480, 640), {"semseg": 40, "depth": 1, "normals": 3, "edge": 1}),
    "pascal-survey": (
        (4998, 5105),
        (512, 512),
        {"semseg": 21, "human_parts": 7, "saliency": 1, "normals": 3, "edge": 1},
    ),
    "nyuv2-mtan": ((795, 654), (288, 384), {"semseg": 13, "depth": 1, "normals": 3}),
    "cityscapes-mtan-7": ((2975, 500), (128, 256), {"semseg": 7, "depth": 1}),
    "cityscapes-mtan-19": ((2975, 500), (128, 256), {"semseg": 19, "depth": 1}),
}


def test_the_table_is_complete():
    assert sorted(TABLE) == sorted(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_splits_sizes_and_channels(name):
    protocol = get_protocol(name)
    (train, val), size, channels = TABLE[name]
    assert (protocol.splits.get("train"), protocol.splits.get("val")) == (train, val)
    assert protocol.train_size == protocol.eval_size == size
    assert {task.name: task.out_channels for task in protocol.tasks} == channels
    assert list(channels) == list(protocol.task_names)  # the order decoders depend on
    assert protocol.source


@pytest.mark.parametrize("family", ["invpt", "survey"])
def test_loss_weights_of_the_literature(family):
    assert get_protocol(f"nyud-{family}").loss_weights == {"semseg": 1, "depth": 1, "normals": 10, "edge": 50}
    assert get_protocol(f"pascal-{family}").loss_weights == {
        "semseg": 1, "human_parts": 2, "saliency": 5, "normals": 10, "edge": 50,
    }  # fmt: skip
    for data in ("nyud", "pascal"):
        assert get_protocol(f"{data}-{family}").task("edge").loss["positive_weight"] == 0.95


def test_loss_weights_of_taskprompter_cityscapes():
    assert get_protocol("cityscapes3d-taskprompter").loss_weights == {"semseg": 100, "depth": 1}


def test_matching_distances_of_the_boundary_benchmark():
    for name, distance in (("nyud-invpt", 0.011), ("pascal-invpt", 0.0075)):
        options = get_protocol(name).task("edge").metrics[0]
        assert options["max_distance"] == distance
        assert options["thresholds"] == 101


def test_quirk_06_disparities_of_80_pixels_and_more_are_not_scored():
    for name in ("cityscapes-mtmamba", "cityscapes3d-taskprompter"):
        task = get_protocol(name).task("depth")
        assert task.metric_option("max_depth") == 80
        assert task.geometry == "disparity"


def test_class_lists():
    nyud = get_protocol("nyud-invpt").task("semseg").class_names
    assert (nyud[0], nyud[19], nyud[39]) == ("wall", "floor mat", "otherprop")
    pascal = get_protocol("pascal-invpt").task("semseg").class_names
    assert (pascal[0], pascal[15], pascal[20]) == ("background", "person", "tvmonitor")
    cityscapes = get_protocol("cityscapes-mtmamba").task("semseg").class_names
    assert (cityscapes[0], cityscapes[10], cityscapes[18]) == ("road", "sky", "bicycle")
    mtan = get_protocol("nyuv2-mtan").task("semseg").class_names
    assert (mtan[0], mtan[12]) == ("bed", "window")
    for name in PUBLISHED:
        classes = get_protocol(name).task("semseg").class_names
        assert len(set(classes)) == len(classes)


def test_palette_of_pascal_voc():
    palette = voc_palette()
    assert palette[15] == (192, 128, 128)  # person
    assert palette[20] == (0, 64, 128)  # tvmonitor
    assert len(set(palette)) == 21


def test_baselines_are_in_the_units_of_the_metrics_and_say_whose_they_are():
    for name in PUBLISHED:
        protocol = get_protocol(name)
        for title, scores in protocol.baselines.items():
            assert "(" in title, title
            for task, score in scores.items():
                unit_is_share = protocol.task(task).headline in {"miou", "maxF", "survey_miou", "odsF"}
                assert 0 < score < (1 if unit_is_share else 30), (name, title, task)


def test_delta_bases_of_the_optimisation_family_agree_with_the_baselines():
    assert sum(len(scores) for scores in NASH_MTL_BASES["nyuv2-mtan"].values()) == 9
    assert sum(len(scores) for scores in NASH_MTL_BASES["cityscapes-mtan-7"].values()) == 4
    for name, tasks in NASH_MTL_BASES.items():
        protocol = get_protocol(name)
        (baseline,) = protocol.baselines.values()
        for task, scores in tasks.items():
            assert scores[protocol.task(task).headline] == pytest.approx(baseline[task])


def test_unknown_protocol_suggests_a_near_one():
    with pytest.raises(UnknownNameError, match="Did you mean 'nyud-invpt'"):
        get_protocol("nyud-invp")

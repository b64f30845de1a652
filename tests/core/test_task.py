"""Task: a frozen value that refuses contradictions."""

from dataclasses import FrozenInstanceError, replace

import pytest

from mtvision.core.task import IGNORE, Task

TASK = Task(
    name="semseg",
    out_channels=3,
    label="classes",
    activation="argmax",
    loss={"type": "CrossEntropyLoss"},
    metrics=({"type": "iou"},),
    headline="miou",
    higher_is_better=True,
)


def test_ignore_is_the_fields_convention():
    assert IGNORE == 255


def test_frozen():
    with pytest.raises(FrozenInstanceError):
        TASK.name = "depth"


def test_number_of_classes():
    assert TASK.num_classes == 3
    named = replace(TASK, out_channels=1, class_names=("background", "salient"))
    assert named.num_classes == 2  # one logit, two classes: the survey's saliency


def test_no_channels():
    with pytest.raises(ValueError, match="task semseg: out_channels must be positive, got 0"):
        replace(TASK, out_channels=0)


def test_palette_needs_one_colour_per_class():
    with pytest.raises(ValueError, match="2 palette colours for 3 classes"):
        replace(TASK, class_names=("a", "b", "c"), palette=((0, 0, 0), (1, 1, 1)))
    replace(TASK, class_names=("a", "b"), palette=((0, 0, 0), (1, 1, 1)))

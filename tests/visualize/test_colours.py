"""Exact pixels of every kind of map."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mtvision.core.task import IGNORE
from mtvision.protocols import get_protocol
from mtvision.protocols.entries import build_task
from mtvision.protocols.tasks import depth, edge, human_parts, instance, normals, saliency, semseg
from mtvision.visualize.colours import (
    BACKGROUND,
    NO_LABEL,
    classes_present,
    colourise,
    depth_colours,
    drawn_as,
    generate_palette,
    is_logarithmic,
    levels,
    palette,
    unlabelled,
    value_range,
)
from mtvision.visualize.drawing import FAINT
from mtvision.visualize.legends import BAR, legend
from mtvision.visualize.panels import task_column

FOUR = semseg(("a", "b", "c", "d"), palette=((1, 2, 3), (10, 20, 30), (0, 255, 0), (9, 9, 9)))


def test_given_palette_wins_and_255_is_grey():
    ids = torch.tensor([[0, 1], [2, IGNORE]])
    expected = [[(1, 2, 3), (10, 20, 30)], [(0, 255, 0), NO_LABEL]]
    assert colourise(FOUR, ids).tolist() == [[list(pixel) for pixel in row] for row in expected]


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_class_maps_of_any_integer_type_look_alike(dtype):
    ids = np.array([[0, 3, 255]], dtype=dtype)
    assert colourise(FOUR, ids)[0].tolist() == [[1, 2, 3], [9, 9, 9], list(NO_LABEL)]


def test_voc_and_cityscapes_colours():
    voc = get_protocol("pascal-invpt").task("semseg")
    assert palette(voc)[15] == (192, 128, 128)  # person
    cityscapes = get_protocol("cityscapes-mtmamba").task("semseg")
    assert palette(cityscapes)[13] == (0, 0, 142)  # car


def test_generated_palettes_begin_alike_and_do_not_collide():
    forty = generate_palette(40)
    assert generate_palette(7) == forty[:7]
    assert len({*forty, NO_LABEL, BACKGROUND}) == 42
    colours = np.array(forty, dtype=float)
    gaps = np.linalg.norm(colours[:, None] - colours[None], axis=-1)[~np.eye(40, dtype=bool)]
    assert gaps.min() > 30
    assert len(set(generate_palette(150))) == 150


def test_background_is_dark_in_generated_palettes_only():
    assert palette(human_parts())[0] == BACKGROUND
    assert palette(semseg(("road", "car"))) == generate_palette(2)
    assert palette(semseg(("background", "car"), palette=((5, 5, 5), (6, 6, 6))))[0] == (5, 5, 5)


def test_normals_are_half_of_one_plus_n():
    vectors = np.array([[1, 0, 0], [0, -1, 0], [0, 0, 1], [np.nan] * 3], dtype=np.float32).T[:, None]
    expected = [[255, 128, 128], [128, 0, 128], [128, 128, 255], list(NO_LABEL)]
    assert colourise(normals(), vectors)[0].tolist() == expected


def test_depth_ends_of_the_range_and_missing_pixels():
    metres = np.array([[[1.0, 3.0, 5.0, np.nan, 99.0]]], dtype=np.float32)
    low, middle, high, missing, beyond = colourise(depth(), metres, limits=(1, 5))[0].tolist()
    ends = depth_colours(np.array([[0.0, 0.5, 1.0]]))[0].tolist()
    assert [low, middle, high] == ends
    assert missing == list(NO_LABEL)
    assert beyond == high


def test_depth_is_shared_or_relative():
    one, two = np.array([[1.0, 2.0]]), np.array([[2.0, 4.0]])
    assert (colourise(depth(), one) == colourise(depth(), two)).all()  # each in its own range
    limits = value_range(one, two)
    assert (
        colourise(depth(), one, limits=limits)[0, 1] == colourise(depth(), two, limits=limits)[0, 0]
    ).all()


def test_wide_positive_ranges_are_logarithmic():
    assert is_logarithmic((1, 100))
    assert not is_logarithmic((1, 10))
    assert not is_logarithmic((0, 100))
    np.testing.assert_allclose(levels(np.array([1.0, 10, 100]), (1, 100)), [0, 0.5, 1], atol=1e-12)
    np.testing.assert_allclose(levels(np.array([0.0, 25, 50]), (0, 50)), [0, 0.5, 1], atol=1e-12)


def test_value_range_cuts_outliers_and_survives_anything():
    values = np.linspace(2, 4, 1001)
    low, high = value_range(np.append(values, 1e6), np.array([np.nan, np.inf]))
    assert low == pytest.approx(2.01, abs=0.01)
    assert high == pytest.approx(3.99, abs=0.01)
    assert value_range(np.array([np.nan])) == (0.0, 1.0)
    assert value_range() == (0.0, 1.0)
    assert value_range(np.full(5, 7.0)) == (6.5, 7.5)


def test_gray_of_probabilities_and_of_class_labels():
    assert colourise(edge(), torch.tensor([[[0.0, 0.5, 1.0, torch.nan]]]))[0, :, 0].tolist() == [
        0, 128, 255, NO_LABEL[0],
    ]  # fmt: skip
    assert colourise(saliency(), torch.tensor([[0, 1, 255]]))[0, :, 1].tolist() == [0, 255, NO_LABEL[1]]


def test_inputs_are_left_alone():
    metres = np.array([[1.0, np.nan]])
    before = metres.copy()
    colourise(depth(), metres)
    np.testing.assert_array_equal(metres, before)


@pytest.mark.parametrize(
    ("task", "values", "message"),
    [
        (FOUR, np.array([[0, 7]]), "class id 7 in a map, but there are 4 classes"),
        (FOUR, np.array([[-1]]), "class id -1"),
        (FOUR, np.zeros((1, 2)), "class maps hold integers, got float64"),
        (depth(), np.zeros((2, 4, 4)), r"expected one plane, \(H, W\) or \(1, H, W\), got shape \(2, 4, 4\)"),
        (normals(), np.zeros((4, 4)), r"normals are \(3, H, W\), got shape \(4, 4\)"),
        (edge(), np.zeros((1, 1, 4, 4)), r"a map is \(H, W\) or \(C, H, W\)"),
    ],
)
def test_bad_maps_are_refused(task, values, message):
    with pytest.raises(ValueError, match=message):
        colourise(task, values)


def test_a_task_is_drawn_by_its_colours_not_its_name():
    odd = replace(depth(), name="semseg")
    assert (colourise(odd, np.array([[1.0, 2.0]])) == colourise(depth(), np.array([[1.0, 2.0]]))).all()


def test_unlabelled_and_present_classes():
    assert unlabelled(FOUR, np.array([[0, 255]])).tolist() == [[False, True]]
    assert unlabelled(normals(), np.array([[[1.0, 0]], [[0, np.nan]], [[0, 0]]])).tolist() == [[False, True]]
    assert classes_present(FOUR, [np.array([[3, 3, 0, 255]]), torch.tensor([[3, 1, 1, 1, 1]])]) == [1, 3, 0]


def test_instances_are_shades_of_their_class():
    task = instance(("a", "b"), palette=((100, 0, 0), (0, 0, 100)))
    label = torch.tensor([[0, 255, 256], [257, 512, 512]])
    picture = colourise(task, label)
    assert picture[0, 0].tolist() == list(BACKGROUND)
    assert picture[0, 1].tolist() == list(NO_LABEL)
    assert picture[0, 2].tolist() == [100, 0, 0]  # number 0: the colour itself
    assert picture[1, 0].tolist() == [62, 0, 0]  # number 1: .382 of the way to black
    assert picture[1, 1].tolist() == picture[1, 2].tolist() == [0, 0, 100]
    assert classes_present(task, [label]) == [0, 1]
    prediction = torch.stack([torch.where(label == 255, 0, label).float(), torch.zeros(2, 3)])
    assert np.array_equal(colourise(task, prediction)[1], picture[1])
    with pytest.raises(ValueError, match="class id 2"):
        colourise(task, label + 512)
    with pytest.raises(ValueError, match="instances are"):
        colourise(task, np.zeros((3, 2, 2)))


def test_gray_of_several_channels():
    """A task in default colours is drawn, however many channels it has."""
    task = replace(depth(), name="albedo", colours="gray", out_channels=3, label_channels=3)
    three = np.array([[[0.0]], [[0.5]], [[2.0]]], dtype=np.float32)
    assert colourise(task, three).tolist() == [[[0, 128, 255]]]
    two = np.array([[[0.2]], [[0.6]]], dtype=np.float32)
    assert colourise(task, two).tolist() == [[[102, 102, 102]]]


def values(channels, **fields):
    return build_task("maps", label="values", label_channels=channels, **fields)


def test_values_of_one_channel_are_gray_between_the_limits():
    plane = np.linspace(-300, 700, 1001, dtype=np.float32)[None]
    picture = colourise(values(1), plane, limits=(-300, 700))
    assert picture[0, [0, 500, 1000]].tolist() == [[0] * 3, [128] * 3, [255] * 3]
    own = colourise(values(1), plane)[0, :, 0]  # half a per cent at each end is cut off
    assert ((own == 0).sum(), (own == 255).sum()) == (7, 7)
    assert colourise(values(1), np.array([[[1, np.nan]]]), limits=(0, 1))[0, 1].tolist() == list(NO_LABEL)


def test_values_of_two_channels_are_hue_and_saturation():
    right, down, none, half = (4.0, 0.0), (0.0, 4.0), (0.0, 0.0), (2.0, 0.0)
    flow = np.array([right, down, none, half], dtype=np.float32).T[:, None]
    picture = colourise(values(2), flow, limits=(-4, 3))
    expected = np.array([[255, 0, 0], [128, 255, 0], [255, 255, 255], [255, 128, 128]])
    assert np.abs(picture[0].astype(int) - expected).max() <= 1


def test_values_of_more_channels_are_red_green_and_blue():
    shares = np.array([0.0, 0.2, 1.0, 9.0], dtype=np.float32)[:, None, None]
    assert colourise(values(3), shares[:3]).tolist() == [[[0, 51, 255]]]  # colours in 0..1 stay
    assert colourise(values(4), shares, limits=(0, 2)).tolist() == [[[0, 26, 128]]]
    assert colourise(values(3), 100 * shares[:3], limits=(0, 100)).tolist() == [[[0, 51, 255]]]


@pytest.mark.parametrize("colours", ["", "palette", "depth", "normals", "values", "instances"])
@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_every_task_is_drawn_in_some_colours(colours, channels):
    """Colours that cannot draw a map of the task give way to those that can."""
    task, label = values(channels, colours=colours), np.random.default_rng(0).normal(size=(channels, 6, 8))
    own = (colours, channels) in {("depth", 1), ("normals", 3)}
    assert drawn_as(task) == (colours if own else "values")
    picture = colourise(task, label)
    assert picture.shape == (6, 8, 3)
    assert len(np.unique(picture)) > 10
    column = task_column(task, [label, None], (60, 200))
    assert column.shape[1:] == (200, 3)


def test_class_maps_are_drawn_in_classes_whatever_the_colours():
    task = build_task("semseg", class_names=["a", "b"], colours="normals")
    ids = np.array([[0, 1]])
    assert (colourise(task, ids) == colourise(replace(task, colours="palette"), ids)).all()
    share = replace(saliency(), colours="palette")
    assert colourise(share, np.array([[[0.0, 1.0]]])).tolist() == [[[0] * 3, [255] * 3]]


@pytest.mark.parametrize(
    ("entry", "colours"),
    [
        ({"class_names": ["a"]}, "palette"),
        ({"label": "instances", "class_names": ["a"]}, "instances"),
        ({"label": "values"}, "values"),
        ({"label": "values", "geometry": "disparity"}, "depth"),
        ({"label": "values", "label_channels": 3, "geometry": "direction"}, "normals"),
    ],
)
def test_colours_follow_label_and_geometry(entry, colours):
    assert build_task("maps", **entry).colours == colours


def test_shares_of_one_channel_are_stretched():
    plane = np.array([[[0.25, 0.5, 0.75]]])
    assert colourise(values(1), plane, limits=(0.25, 0.75))[0, :, 0].tolist() == [0, 128, 255]


def test_prediction_and_label_share_their_limits():
    label, prediction = np.linspace(0, 100, 48).reshape(1, 6, 8), np.full((1, 6, 8), 50.0)
    column = task_column(values(1), [prediction, label], (60, 80))
    tile = column[30:70, 20:60, 0]
    assert np.abs(tile.astype(int) - 128).max() <= 2


def test_the_bar_of_values_is_linear():
    picture = legend(values(1), [], 300, limits=(1.0, 101.0))
    marks = [x for x in range(300) if picture[BAR + 5, x].tolist() == list(FAINT)]
    assert marks == [round((value - 1) / 100 * 299) for value in (20, 40, 60, 80, 100)]

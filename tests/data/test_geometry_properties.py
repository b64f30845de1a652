"""Whole pipelines carry a coordinate image and its labels to the same place, and lose or make no label."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtvision.core.sample import Meta, RawSample
from mtvision.core.task import IGNORE
from mtvision.data.transforms import build_pipeline
from mtvision.data.transforms.geometry import RandomCrop, RandomHorizontalFlip, RandomScale
from mtvision.data.transforms.mtan import RandomScaleCrop
from mtvision.data.transforms.padding import AddIgnoreRegions, PadImage
from mtvision.data.transforms.photometric import Normalize
from mtvision.data.transforms.survey import ScaleNRotate
from mtvision.protocols import own_protocol

PROTOCOL = own_protocol(
    "grid",
    {
        "semseg": {"class_names": [f"c{i}" for i in range(200)]},
        "depth": {},
        "normals": {},
        "edge": {},
        "human_parts": {},
    },
)
TASKS = {task.name: task for task in PROTOCOL.tasks}
SIDES = st.integers(8, 60)


def grid(height, width, holes=None):
    """The image holds (x, y) of each pixel; labels hold x or y, and nothing where `holes` is true."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    image = np.stack([x, y, x * 0], axis=-1)
    labels = {
        "semseg": x.astype(np.uint8),
        "edge": y[..., None].copy(),
        "depth": (1 + x)[..., None],
        "normals": np.stack([1 + x, 1 + y, x * 0 + 1], axis=-1),
        "human_parts": (1 + y % 6).astype(np.uint8),
    }
    if holes is not None:
        for name, label in labels.items():
            label[holes] = IGNORE if TASKS[name].label == "classes" else np.nan
    meta = Meta(id="grid", size=(height, width), original_size=(height, width))
    return RawSample(image=image, labels=labels, tasks=TASKS, meta=meta)


def content(sample):
    """Image and labels without padding."""
    top, left, bottom, right = sample.meta.padding
    height, width = sample.image.shape[:2]
    window = (slice(top, height - bottom), slice(left, width - right))
    return sample.image[window], {name: label[window] for name, label in sample.labels.items()}


def assert_in_place(sample, zoom, true_zoom):
    """All labels hold the same pixel, and the image, which is interpolated, shows it to within a pixel."""
    image, labels = content(sample)
    x, y = labels["semseg"].astype(np.float32), labels["edge"][..., 0]
    np.testing.assert_allclose(labels["depth"][..., 0] * zoom, 1 + x, rtol=1e-5)
    np.testing.assert_array_equal(np.abs(labels["normals"][..., 0]), 1 + x)
    np.testing.assert_array_equal(labels["normals"][..., 1], 1 + y)
    np.testing.assert_array_equal(labels["human_parts"], 1 + y % 6)
    reach = (
        0.5 + 0.5 / true_zoom + 1e-3
    )  # nearest takes floor(i / s), bilinear centres at (i + 1/2) / s - 1/2
    assert np.abs(image[..., 0] - x).max() <= reach
    assert np.abs(image[..., 1] - y).max() <= reach


@given(SIDES, SIDES, st.floats(0.5, 2.0), SIDES, SIDES, st.integers(0, 10**6))
@settings(max_examples=80, deadline=None)
def test_family_a_keeps_image_and_labels_together(height, width, scale, tall, wide, seed):
    pipeline = [
        RandomScale(low=scale, high=scale),
        RandomCrop(size=(tall, wide)),
        RandomHorizontalFlip(),
        PadImage(size=(tall, wide)),
        AddIgnoreRegions(),
    ]
    result = build_pipeline(pipeline, PROTOCOL)(grid(height, width), np.random.default_rng(seed))
    assert result.image.shape[:2] == (tall, wide)
    # sizes are cut to integers, so the frame shrinks by a little more than `scale`
    true_zoom = min(int(height * scale) / height, int(width * scale) / width)
    assert_in_place(result, scale, true_zoom)


@given(
    SIDES, SIDES, st.sampled_from([0.5, 1.0, 1.3, 2.0]), SIDES, SIDES, st.booleans(), st.integers(0, 10**6)
)
@settings(max_examples=120, deadline=None)
def test_scaling_inside_the_crop_equals_scaling_and_then_cropping(
    height, width, high, tall, wide, whole, seed
):
    """The same draws, the same pixels, the same meta; also where the crop has nothing to do."""
    rng = np.random.default_rng(seed)
    sample = grid(height, width, holes=rng.random((height, width)) < 0.3)
    sample.labels["semseg"] = (sample.labels["semseg"] // 20).astype(rng.choice([np.uint8, np.int64]))
    scale = RandomScale(low=min(0.5, high), high=high) if seed % 3 else RandomScale(scales=(1.0, high))
    crop = RandomCrop(size=None if whole else (tall, wide), max_share=0.75 if seed % 2 else 1.0)
    one, two = np.random.default_rng(seed), np.random.default_rng(seed)
    together = build_pipeline([scale, crop], PROTOCOL)(sample, one)
    in_turn = crop(scale(sample, two), two)
    assert one.bit_generator.state == two.bit_generator.state
    assert together.meta == in_turn.meta
    np.testing.assert_array_equal(together.image, in_turn.image)
    for name, label in in_turn.labels.items():
        assert together.labels[name].dtype == label.dtype
        np.testing.assert_array_equal(together.labels[name], label)


@given(SIDES, SIDES, st.sampled_from([1.2, 1.5]), st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_family_b_and_c_keep_labels_together(height, width, zoom, seed):
    for transform in (ScaleNRotate(scales=(zoom,)), RandomScaleCrop(scales=(zoom,))):
        result = transform(grid(height, width), np.random.default_rng(seed))
        _, labels = content(result)
        x, y = labels["semseg"].astype(np.float32), labels["edge"][..., 0]
        np.testing.assert_allclose(labels["depth"][..., 0] * zoom, 1 + x, rtol=1e-5)
        np.testing.assert_array_equal(labels["human_parts"], 1 + y % 6)
        inside = (slice(2, -2), slice(2, -2))  # the cubic filter of family B overshoots at the border
        assert np.abs(result.image[..., 0] - x)[inside].max() <= 1.5
        assert np.abs(result.image[..., 1] - y)[inside].max() <= 1.5


@given(SIDES, SIDES, st.integers(0, 30), st.integers(0, 30), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_flip_and_padding_conserve_the_number_of_labelled_pixels(height, width, below, beside, seed):
    rng = np.random.default_rng(seed)
    sample = grid(height, width, holes=rng.random((height, width)) < 0.3)
    pipeline = [
        RandomHorizontalFlip(p=1.0),
        PadImage(size=(height + below, width + beside)),
        AddIgnoreRegions(),
    ]
    result = build_pipeline(pipeline, PROTOCOL)(sample, rng)
    for name, task in TASKS.items():
        before, after = (
            (label != IGNORE).sum() if task.label == "classes" else np.isfinite(label).sum()
            for label in (sample.labels[name], result.labels[name])
        )
        assert before == after


@given(SIDES, SIDES, st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_tiles_of_a_frame_have_its_labelled_pixels(height, width, seed):
    """What a crop leaves out is all that it loses: the crop and its complement add up, for every map."""
    rng = np.random.default_rng(seed)
    sample = grid(height, width, holes=rng.random((height, width)) < 0.3)
    result = RandomCrop(size=(7, 7))(sample, rng)
    x = result.image[0, 0, 0].astype(int), result.image[-1, -1, 0].astype(int) + 1
    y = result.image[0, 0, 1].astype(int), result.image[-1, -1, 1].astype(int) + 1
    assert (y[1] - y[0], x[1] - x[0]) == (7, 7)
    for name, label in sample.labels.items():
        np.testing.assert_array_equal(result.labels[name], label[y[0] : y[1], x[0] : x[1]])


def test_quirk_13_padding_shows_the_mean_colour_and_normals_are_not_renormalised():
    """0 is filled in after normalisation, crop comes before padding, resized normals keep their length."""
    names = [
        type(item).__name__
        for item in build_pipeline({"preset": "invpt-train", "size": (64, 64)}, PROTOCOL).transforms
    ]
    order = [
        "RandomScale",
        "RandomCrop",
        "RandomHorizontalFlip",
        "PhotoMetricDistortion",
        "Normalize",
        "PadImage",
        "AddIgnoreRegions",
    ]
    assert [name for name in names if name in order] == order
    rng = np.random.default_rng(0)
    padded = PadImage(size=(20, 20))(Normalize()(grid(10, 10), rng), rng)
    assert (padded.image[0] == 0).all()
    scaled = RandomScale(low=1.7, high=1.7)(grid(10, 10), rng)
    lengths = {float(value) for value in np.linalg.norm(grid(10, 10).labels["normals"], axis=2).ravel()}
    assert {float(value) for value in np.linalg.norm(scaled.labels["normals"], axis=2).ravel()} <= lengths


def test_quirk_14_cropping_needs_no_semseg():
    """The released code fails without it; here the first location is taken, so single-task crops differ."""
    sample = grid(40, 40)
    depth_only = sample.with_(labels={"depth": sample.labels["depth"]})
    rng, first = np.random.default_rng(3), np.random.default_rng(3)
    result = RandomCrop(size=(8, 8))(depth_only, rng)
    top, left = first.integers(32, endpoint=True), first.integers(32, endpoint=True)
    np.testing.assert_array_equal(
        result.labels["depth"], sample.labels["depth"][top : top + 8, left : left + 8]
    )


@pytest.mark.parametrize("preset", ["survey-pascal-train", "invpt-train"])
def test_quirk_29_warped_in_borders_are_background_in_the_survey_only(preset):
    found = set()
    for seed in range(12):
        sample = grid(24, 24)
        sample.labels["semseg"] = np.where(np.arange(24) % 2, 7, 9).astype(np.uint8) * np.ones(
            (24, 1), np.uint8
        )
        pipeline = build_pipeline({"preset": preset, "size": (32, 32)}, PROTOCOL)
        found |= set(np.unique(pipeline(sample, np.random.default_rng(seed)).labels["semseg"]).tolist())
    assert found == ({0, 7, 9} if preset.startswith("survey") else {7, 9, IGNORE})

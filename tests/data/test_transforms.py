"""Geometry of the transforms: closed forms, alignment and the rules that sizes and fills follow."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtvision.core.naming import UnknownNameError
from mtvision.core.sample import Meta, RawSample, Sample
from mtvision.core.task import IGNORE
from mtvision.data.transforms import PRESETS, TRANSFORMS, build_pipeline
from mtvision.data.transforms.geometry import (
    RandomCrop,
    RandomHorizontalFlip,
    RandomScale,
    ResizeImage,
    ResizeLabels,
    flip_horizontally,
)
from mtvision.data.transforms.padding import AddIgnoreRegions, PadImage
from mtvision.data.transforms.photometric import Normalize, PhotoMetricDistortion
from mtvision.data.transforms.survey import ScaleNRotate, turn
from mtvision.protocols import PROTOCOLS, get_protocol, own_protocol
from mtvision.protocols.entries import build_task
from mtvision.protocols.tasks import disparity

CLASSES = {"class_names": [f"c{i}" for i in range(200)]}
TASKS = {
    task.name: task
    for task in (
        build_task("semseg", **CLASSES),
        build_task("depth"),
        build_task("normals"),
        build_task("edge"),
        build_task("human_parts"),
    )
}


def coordinates(height, width, **labels):
    """Every map carries its own pixel coordinates, so that misalignment shows."""
    y, x = np.mgrid[:height, :width]
    image = np.stack([x % 256, y % 256, np.full_like(x, 7)], axis=-1).astype(np.uint8)
    number = ((x + 16 * y) % 200).astype(np.uint8)
    maps = {
        "semseg": number,
        "edge": number[..., None].astype(np.float32),
        "depth": (1.0 + number[..., None]).astype(np.float32),
        "normals": np.stack([number, np.ones_like(number), number * 0 + 2], -1).astype(np.float32),
    }
    meta = Meta(id="grid", size=(height, width), original_size=(height, width))
    return RawSample(image=image, labels=maps | labels, tasks=TASKS, meta=meta)


def assert_aligned(sample, zoom=1.0, mirrored=False):
    number = sample.labels["edge"][..., 0]
    known = ~np.isnan(number)
    np.testing.assert_array_equal(np.where(known, number, IGNORE), sample.labels["semseg"])
    np.testing.assert_allclose(sample.labels["depth"][..., 0] * zoom - 1, number, rtol=1e-5, atol=1e-4)
    sign = -1 if mirrored else 1
    np.testing.assert_array_equal(sample.labels["normals"][..., 0] * sign, number)


@given(st.integers(3, 40), st.integers(3, 40))
@settings(max_examples=20, deadline=None)
def test_flip_twice_is_the_identity(height, width):
    sample = coordinates(height, width)
    once = flip_horizontally(sample)
    twice = flip_horizontally(once)
    np.testing.assert_array_equal(once.image, sample.image[:, ::-1])
    np.testing.assert_array_equal(once.labels["normals"][..., 0], -sample.labels["normals"][:, ::-1, 0])
    np.testing.assert_array_equal(once.labels["normals"][..., 1:], sample.labels["normals"][:, ::-1, 1:])
    np.testing.assert_array_equal(twice.image, sample.image)
    for name, label in sample.labels.items():
        np.testing.assert_array_equal(twice.labels[name], label)


@given(st.integers(8, 40), st.integers(8, 40), st.floats(0.5, 2.0), st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_labels_stay_aligned_under_scale_and_crop(height, width, scale, seed):
    rng = np.random.default_rng(seed)
    scaled = RandomScale(low=scale, high=scale)(coordinates(height, width), rng)
    assert scaled.image.shape[:2] == (int(height * scale), int(width * scale))  # truncated, not rounded
    assert_aligned(scaled, zoom=scale)
    cropped = RandomCrop(size=(12, 16))(scaled, rng)
    assert cropped.image.shape[:2] == (min(12, scaled.image.shape[0]), min(16, scaled.image.shape[1]))
    assert cropped.meta.size == cropped.image.shape[:2]
    assert_aligned(cropped, zoom=scale)
    padded = PadImage(size=(50, 90))(cropped, rng)
    assert (padded.labels["semseg"] != IGNORE).sum() == cropped.labels["semseg"].size  # nothing lost or made
    top, left, bottom, right = padded.meta.padding
    assert 0 <= bottom - top <= 1
    assert 0 <= right - left <= 1
    assert_aligned(padded, zoom=scale)


def test_disparity_is_multiplied_by_the_zoom():
    tasks = {"depth": disparity()}
    sample = coordinates(8, 8).with_(tasks=tasks)
    sample.labels = {"depth": np.full((8, 8, 1), 3.0, np.float32)}
    scaled = RandomScale(low=1.5, high=1.5)(sample, np.random.default_rng(0))
    assert (scaled.labels["depth"] == 4.5).all()


def test_discrete_scales():
    rng = np.random.default_rng(0)
    sizes = {RandomScale(scales=(1.0, 1.5))(coordinates(10, 10), rng).image.shape[0] for _ in range(20)}
    assert sizes == {10, 15}


def test_fill_values():
    padded = PadImage(size=(9, 9))(coordinates(4, 4), np.random.default_rng(0))
    assert padded.meta.padding == (2, 2, 3, 3)  # floor above and left
    assert padded.image[0, 0].tolist() == [0, 0, 0]
    assert padded.labels["semseg"][0, 0] == IGNORE
    for name in ("depth", "normals", "edge"):
        assert np.isnan(padded.labels[name][0, 0]).all()
    assert PadImage(size=(3, 3))(coordinates(4, 4), np.random.default_rng(0)).image.shape[:2] == (4, 4)


class CountingGenerator:
    """Counts the integers drawn."""

    def __init__(self):
        self.rng, self.count = np.random.default_rng(0), 0

    def integers(self, *args, **kwargs):
        self.count += 1
        return self.rng.integers(*args, **kwargs)


def test_crop_draws_eleven_locations_and_takes_the_last_untested():
    sample = coordinates(20, 20, semseg=np.zeros((20, 20), np.uint8))  # one class: every test fails
    rng = CountingGenerator()
    RandomCrop(size=(8, 8))(sample, rng)
    assert rng.count == 2 * 11
    untested = CountingGenerator()
    RandomCrop(size=(8, 8), max_share=1.0)(sample, untested)
    assert untested.count == 2
    del sample.labels["semseg"]  # single-task runs without semseg: the test is skipped
    without = CountingGenerator()
    RandomCrop(size=(8, 8))(sample, without)
    assert without.count == 2


def test_crop_accepts_two_classes_below_the_share_and_ignores_void():
    semseg = np.zeros((8, 8), np.uint8)
    semseg[:, 5:] = 1  # 40 : 24, the larger share is 0.625
    sample = coordinates(8, 8, semseg=semseg)
    draws = CountingGenerator()
    RandomCrop(size=(8, 9))(sample, draws)
    assert draws.count == 2
    semseg[:, 5:7] = IGNORE  # 40 : 8
    draws = CountingGenerator()
    RandomCrop(size=(8, 9))(sample, draws)
    assert draws.count == 22


def test_crop_of_the_exact_size_draws_nothing():
    draws = CountingGenerator()
    sample = coordinates(8, 8)
    assert RandomCrop(size=(8, 8))(sample, draws) is sample
    assert draws.count == 0


def test_ignore_regions():
    normals = np.ones((2, 2, 3), np.float32)
    normals[0, 0] = 0
    depth = np.array([[0, 1], [2, 3]], np.float32)[..., None]
    parts = np.array([[0, IGNORE], [0, 0]], np.uint8)
    sample = coordinates(2, 2, normals=normals, depth=depth, human_parts=parts)
    result = AddIgnoreRegions()(sample, np.random.default_rng(0))
    assert np.isnan(result.labels["normals"]).sum() == 3
    assert np.isnan(result.labels["depth"][..., 0]).tolist() == [[True, False], [False, False]]
    assert (result.labels["human_parts"] == IGNORE).all()
    kept = AddIgnoreRegions()(coordinates(2, 2, human_parts=np.array([[0, 3], [0, 0]], np.uint8)), None)
    assert kept.labels["human_parts"].tolist() == [[0, 3], [0, 0]]


def test_normalize_by_hand():
    sample = coordinates(2, 2).with_(image=np.full((2, 2, 3), 255, np.uint8))
    expected = [(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    result = Normalize()(sample, None)
    np.testing.assert_allclose(result.image[0, 0], expected, rtol=1e-6)
    from_float = Normalize()(sample.with_(image=sample.image.astype(np.float32)), None)
    np.testing.assert_array_equal(result.image, from_float.image)


def test_photometric_truncates_to_bytes_and_leaves_labels():
    sample = coordinates(6, 6).with_(image=np.full((6, 6, 3), 99.9, np.float32))

    class NoCoin:
        def integers(self, *args):
            return 0

    result = PhotoMetricDistortion()(sample, NoCoin())
    assert result.image.dtype == np.uint8
    assert (result.image == 99).all()
    assert result.labels is sample.labels


def test_turned_normals_follow_the_image():
    """A direction drawn into the image as a line ends where the turned normal points."""
    right = np.array([[1.0, 0.0, 0.5]])
    assert turn(right, 90, y_down=True)[0] == pytest.approx([0, -1, 0.5], abs=1e-6)  # up, y pointing down
    assert turn(right, 90, y_down=False)[0] == pytest.approx([0, 1, 0.5], abs=1e-6)
    image = np.zeros((41, 41, 3), np.uint8)
    image[20, 35] = 255  # 15 right of the centre
    sample = RawSample(image=image, labels={}, tasks={}, meta=Meta("p", (41, 41), (41, 41)))
    turned = ScaleNRotate(rotation=1e-9, scales=(1.0,))
    assert turned(sample, np.random.default_rng(0)).image[20, 35].max() > 200

    class Ninety:
        def uniform(self, low, high):
            return 90.0

        def integers(self, n):
            return 0

    rotated = ScaleNRotate(rotation=90, scales=(1.0,))(sample, Ninety())
    row, column = np.unravel_index(rotated.image[..., 0].argmax(), (41, 41))
    assert row < 10  # upwards, as the normal says
    assert abs(column - 20) <= 1


def test_survey_warp_brings_in_class_zero():
    """Copied quirk: what comes in from outside counts as class 0, not as no label."""
    sample = coordinates(20, 20, semseg=np.full((20, 20), 3, np.uint8))
    turned = ScaleNRotate(rotation=0.0, scale=(0.5, 0.5))(sample, np.random.default_rng(0))
    assert turned.labels["semseg"][0, 0] == 0
    assert turned.labels["edge"][0, 0] == 0


def test_resizing_one_of_image_and_labels():
    sample = coordinates(20, 40)
    small = ResizeImage(size=(10, 20))(sample, None)
    assert small.image.shape[:2] == (10, 20)
    assert small.labels["semseg"].shape == (20, 40)
    with pytest.raises(ValueError, match="needs one size"):
        RandomCrop(size=(5, 5))(small, np.random.default_rng(0))
    labels = ResizeLabels(size=(10, 20))(sample, None)
    np.testing.assert_array_equal(labels.labels["semseg"], sample.labels["semseg"][::2, ::2])
    np.testing.assert_array_equal(labels.labels["depth"], sample.labels["depth"][::2, ::2])


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_gives_samples(name):
    protocol = own_protocol(
        "five", {"semseg": CLASSES, "depth": {}, "normals": {}, "edge": {}, "human_parts": {}}
    )
    sized = type(protocol)(**{**vars(protocol), "train_size": (24, 32), "eval_size": (24, 32)})
    pipeline = build_pipeline(name, sized)
    for seed in range(5):
        parts = np.zeros((20, 28), np.uint8)
        raw = pipeline(coordinates(20, 28, human_parts=parts), np.random.default_rng(seed))
        sample = Sample.from_raw(raw)
        assert sample.image.dtype.is_floating_point
        if name in ("light", "invpt-train", "invpt-eval", "survey-train", "pad"):
            assert tuple(sample.image.shape) == (3, 24, 32)
        first = pipeline(coordinates(20, 28), np.random.default_rng(seed)).image
        again = pipeline(coordinates(20, 28), np.random.default_rng(seed)).image
        np.testing.assert_array_equal(first, again)


def test_presets_take_their_sizes_from_the_protocol():
    assert build_pipeline("invpt-train", get_protocol("nyud-invpt")).transforms[1].size == (448, 576)
    assert build_pipeline("survey-train", get_protocol("nyud-survey")).transforms[2].size == (480, 640)
    for protocol in PROTOCOLS.values():
        family = {"invpt": "invpt-train", "survey": "survey-train", "mtan": "mtan-train"}.get(protocol.family)
        if family:
            build_pipeline(family, protocol)


def test_light_keeps_the_file_size_without_a_protocol_size():
    protocol = own_protocol("own", {"semseg": CLASSES})
    pipeline = build_pipeline("light", protocol)
    for seed in range(10):
        raw = pipeline(coordinates(21, 33), np.random.default_rng(seed))
        assert raw.image.shape[:2] == (21, 33)
        assert raw.labels["semseg"].shape == (21, 33)


def test_configs_and_their_errors():
    protocol = own_protocol("own", {"semseg": CLASSES})
    built = build_pipeline([{"type": "RandomScale", "low": 0.7}, RandomHorizontalFlip()], protocol)
    assert built.transforms == (RandomScale(low=0.7), RandomHorizontalFlip())
    assert set(TRANSFORMS) >= {"RandomCrop", "AlbumentationsAdapter"}
    with pytest.raises(UnknownNameError, match="RandomScale"):
        build_pipeline([{"type": "RandmScale"}], protocol)
    with pytest.raises(UnknownNameError, match="'low'"):
        build_pipeline([{"type": "RandomScale", "lo": 0.7}], protocol)
    with pytest.raises(UnknownNameError, match="invpt-train"):
        build_pipeline("invpt_train", protocol)
    with pytest.raises(UnknownNameError, match="size"):
        build_pipeline({"preset": "light", "siz": (3, 3)}, protocol)
    with pytest.raises(ValueError, match="has no train_size; give one"):
        build_pipeline("invpt-train", protocol)
    with pytest.raises(TypeError, match="transforms preset: expected a dict with the key 'preset'"):
        build_pipeline({"light": 1}, protocol)
    with pytest.raises(TypeError, match="'type'"):
        build_pipeline([{"name": "x"}], protocol)
    with pytest.raises(ValueError, match="height, width"):
        RandomCrop(size=5)

"""The adapter against closed forms: where pixels go, how normals turn, how depth changes under zoom."""

from __future__ import annotations

import albumentations as A
import cv2
import numpy as np
import pytest

from mtvision.core.naming import UnknownNameError
from mtvision.core.sample import Meta, RawSample
from mtvision.core.task import IGNORE
from mtvision.data.transforms import build_transform
from mtvision.data.transforms.albumentations_adapter import AlbumentationsAdapter
from mtvision.protocols.entries import build_task
from mtvision.protocols.tasks import disparity

H, W = 48, 64
TASKS = {
    "semseg": build_task("semseg", class_names=[f"c{i}" for i in range(6)]),
    "depth": build_task("depth"),
    "normals": build_task("normals"),
    "edge": build_task("edge"),
    "disparity": disparity(),
}


def scene(normal=(0.6, 0.3, 0.742)):
    y, x = np.mgrid[:H, :W]
    image = np.stack([4 * x, 5 * y, np.full_like(x, 90)], axis=-1).astype(np.uint8)
    depth = np.full((H, W, 1), 4.0, np.float32)
    depth[10:14, 20:24] = np.nan
    number = (x // 8 + y // 8) % 6
    return RawSample(
        image=image,
        labels={
            "semseg": number.astype(np.uint8),
            "depth": depth,
            "disparity": depth.copy(),
            "normals": np.broadcast_to(np.float32(normal), (H, W, 3)).copy(),
            "edge": number[..., None].astype(np.float32),
        },
        tasks=TASKS,
        meta=Meta("s", (H, W), (H, W)),
    )


def run(*pipeline, y_up=True, sample=None, seed=0):
    adapter = AlbumentationsAdapter(pipeline=pipeline, y_up=y_up)
    return adapter(sample or scene(), np.random.default_rng(seed))


def normal_of(result):
    valid = np.isfinite(result.labels["normals"]).all(axis=2)
    values = result.labels["normals"][valid]
    assert np.ptp(values, axis=0).max() < 1e-4  # one linear map everywhere
    return values[0]


def assert_consistent(result):
    """Image, class map and values moved alike; holes and fills are no label in each."""
    semseg, edge = result.labels["semseg"], result.labels["edge"][..., 0]
    assert ((semseg == IGNORE) == np.isnan(edge)).all()
    np.testing.assert_array_equal(semseg[semseg != IGNORE], edge[semseg != IGNORE])


def test_horizontal_flip_equals_our_own():
    result = run(A.HorizontalFlip(p=1))
    sample = scene()
    np.testing.assert_array_equal(result.image, sample.image[:, ::-1])
    np.testing.assert_array_equal(result.labels["semseg"], sample.labels["semseg"][:, ::-1])
    np.testing.assert_allclose(result.labels["depth"], sample.labels["depth"][:, ::-1], rtol=1e-5)
    np.testing.assert_allclose(normal_of(result), [-0.6, 0.3, 0.742], atol=1e-5)


def test_vertical_flip():
    result = run(A.VerticalFlip(p=1))
    np.testing.assert_array_equal(result.labels["semseg"], scene().labels["semseg"][::-1])
    np.testing.assert_allclose(normal_of(result), [0.6, -0.3, 0.742], atol=1e-5)
    np.testing.assert_allclose(normal_of(run(A.VerticalFlip(p=1), y_up=False)), [0.6, -0.3, 0.742], atol=1e-5)


def test_transpose_swaps_the_axes():
    result = run(A.Transpose(p=1))
    assert result.image.shape == (W, H, 3)
    # down becomes right: with y up, (x, y) becomes (-y, -x)
    np.testing.assert_allclose(normal_of(result), [-0.3, -0.6, 0.742], atol=1e-5)
    np.testing.assert_allclose(normal_of(run(A.Transpose(p=1), y_up=False)), [0.3, 0.6, 0.742], atol=1e-5)


@pytest.mark.parametrize("angle", [90, 30, -17, 180])
def test_rotation(angle):
    """albumentations turns counter-clockwise for positive angles, as OpenCV does."""
    result = run(A.Rotate(limit=(angle, angle), p=1, border_mode=cv2.BORDER_CONSTANT))
    cosine, sine = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    expected = [0.6 * cosine - 0.3 * sine, 0.6 * sine + 0.3 * cosine, 0.742]
    np.testing.assert_allclose(normal_of(result), expected, atol=4e-3)
    np.testing.assert_allclose(np.nanmean(result.labels["depth"]), 4.0, rtol=5e-3)  # no zoom
    assert_consistent(result)
    if angle == 30:
        assert (result.labels["semseg"] == IGNORE).any()


@pytest.mark.parametrize("zoom", [0.5, 1.5, 2.0])
def test_zoom_divides_depth_and_multiplies_disparity(zoom):
    result = run(A.RandomScale(scale_limit=(zoom - 1, zoom - 1), p=1))
    assert result.image.shape[:2] == (round(H * zoom), round(W * zoom))
    assert result.meta.size == result.image.shape[:2]
    np.testing.assert_allclose(np.nanmedian(result.labels["depth"]), 4.0 / zoom, rtol=3e-3)
    np.testing.assert_allclose(np.nanmedian(result.labels["disparity"]), 4.0 * zoom, rtol=3e-3)
    np.testing.assert_allclose(normal_of(result), [0.6, 0.3, 0.742], atol=1e-4)
    holes = np.isnan(result.labels["depth"]).sum()
    assert holes == pytest.approx(16 * zoom**2, rel=0.3)


def test_affine_with_everything():
    result = run(A.Affine(scale=(1.3, 1.3), rotate=(20, 20), translate_px=(3, 3), shear=(0, 0), p=1))
    angle = np.radians(20)  # clockwise or not, the length in the plane stays
    normal = normal_of(result)
    assert np.hypot(*normal[:2]) == pytest.approx(np.hypot(0.6, 0.3), abs=1e-4)
    turned = np.arctan2(normal[1], normal[0]) - np.arctan2(0.3, 0.6)
    assert abs(turned) == pytest.approx(angle, abs=5e-3)
    np.testing.assert_allclose(np.nanmedian(result.labels["depth"]), 4.0 / 1.3, rtol=5e-3)
    assert_consistent(result)


@pytest.mark.parametrize(
    "transform",
    [
        A.Rotate(limit=(35, 35), p=1),
        A.Affine(rotate=(-50, -50), scale=(0.8, 0.8), p=1),
        A.HorizontalFlip(p=1),
        A.RandomRotate90(p=1),
        A.D4(p=1),
    ],
    ids=lambda item: type(item).__name__,
)
def test_normals_point_where_the_image_says(transform):
    """A bar drawn along the normals' direction is still along them afterwards, whatever the library did."""
    sample = scene()
    direction = np.array([0.8, 0.6])  # x right, y up
    image = np.zeros((H, W, 3), np.uint8)
    centre, length = np.array([W / 2, H / 2]), 14
    dots = [centre, centre + length * direction * (1, -1)]
    cv2.circle(image, tuple(int(v) for v in dots[0]), 4, (0, 255, 0), -1)
    cv2.circle(image, tuple(int(v) for v in dots[1]), 4, (255, 0, 0), -1)
    sample.image = image
    sample.labels["normals"][:] = (*direction, 0.0)
    result = run(transform, sample=sample)
    green, red = (np.argwhere(result.image[..., k] > 128).mean(axis=0) for k in (1, 0))
    seen = np.array([red[1] - green[1], green[0] - red[0]])
    np.testing.assert_allclose(normal_of(result)[:2], seen / np.hypot(*seen), atol=0.06)


def test_crop_moves_labels_exactly():
    sample = scene()
    sample.labels["edge"] = sample.image[..., :1].astype(np.float32)
    result = run(A.RandomCrop(height=20, width=30, p=1), sample=sample)
    np.testing.assert_array_equal(result.labels["edge"][..., 0], result.image[..., 0])
    np.testing.assert_allclose(result.labels["depth"][np.isfinite(result.labels["depth"])], 4.0, rtol=1e-5)


def test_colours_leave_labels_untouched():
    sample = scene()
    result = run(A.ColorJitter(p=1), sample=sample)
    assert (result.image != sample.image).any()
    assert result.labels is sample.labels


def test_a_bend_is_followed_locally():
    """A perspective has another zoom in every place; the mean change of area must match the coordinates'."""
    result = run(A.Perspective(scale=(0.15, 0.15), p=1))
    depth = result.labels["depth"]
    assert_consistent(result)
    assert np.nanstd(depth) > 0.01
    length = np.linalg.norm(result.labels["normals"], axis=2)
    np.testing.assert_allclose(length[np.isfinite(length)], np.linalg.norm((0.6, 0.3, 0.742)), rtol=1e-4)


def test_holes_of_dropout_keep_labels_unless_the_mask_is_filled():
    kept = run(A.CoarseDropout(p=1, fill=0))
    assert (kept.labels["semseg"] != IGNORE).all()
    for fill in (0, 255):
        dropped = run(A.CoarseDropout(p=1, fill=0, fill_mask=fill))
        assert (dropped.labels["semseg"] == IGNORE).any()
        assert_consistent(dropped)


def test_draws_depend_on_the_generator_alone():
    pipeline = [A.HorizontalFlip(), A.VerticalFlip(), A.Rotate(), A.ColorJitter()]
    adapter = AlbumentationsAdapter(pipeline=pipeline)
    first = [adapter(scene(), np.random.default_rng(seed)).image for seed in range(6)]
    again = [adapter(scene(), np.random.default_rng(seed)).image for seed in reversed(range(6))][::-1]
    for left, right in zip(first, again, strict=True):
        np.testing.assert_array_equal(left, right)
    flips = AlbumentationsAdapter(pipeline=[A.HorizontalFlip(), A.VerticalFlip()])
    outcomes = {tuple(flips(scene(), np.random.default_rng(seed)).image[0, 0]) for seed in range(40)}
    assert len(outcomes) == 4  # the coins of two transforms are independent


def test_from_config():
    config = {
        "type": "AlbumentationsAdapter",
        "pipeline": [{"type": "OneOf", "transforms": [{"type": "HorizontalFlip", "p": 1.0}], "p": 1.0}],
    }
    result = build_transform(config)(scene(), np.random.default_rng(0))
    np.testing.assert_array_equal(result.image, scene().image[:, ::-1])


def test_errors():
    with pytest.raises(UnknownNameError, match="HorizontalFlip"):
        AlbumentationsAdapter(pipeline=[{"type": "HorizontlFlip"}])
    with pytest.raises(ValueError, match="Morphological does not move"):
        AlbumentationsAdapter(pipeline=[A.OneOf([A.Morphological()])])
    with pytest.raises(ValueError, match="leave Normalize"):
        run(A.Normalize())
    with pytest.raises(ValueError, match="before Normalize"):
        run(A.HorizontalFlip(), sample=scene().with_(image=np.full((H, W, 3), -1.5, np.float32)))
    with pytest.raises(TypeError, match="'type'"):
        AlbumentationsAdapter(pipeline=[{"p": 1}])

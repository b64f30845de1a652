"""Normals from depth: exact planes, the published normals of a real frame, mirror symmetry."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from mtvision.data.prepare.geometry import KINECT_NYU, Camera, normals_from_depth

CAMERA = Camera(focal_x=60.0, focal_y=55.0, centre_x=30.5, centre_y=21.0)


def plane_depth(normal, offset, size=(48, 64), camera=CAMERA):
    """Depth of the plane n.P = offset, n given with y down and z away from the camera."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    rays = np.stack(
        [
            (columns - camera.centre_x) / camera.focal_x,
            (rows - camera.centre_y) / camera.focal_y,
            np.ones(size),
        ],
        axis=2,
    )
    return offset / (rays @ np.asarray(normal))


def angles(a, b):
    return np.degrees(2 * np.arctan2(np.linalg.norm(a - b, axis=-1), np.linalg.norm(a + b, axis=-1)))


@pytest.mark.parametrize(
    ("away", "expected"),
    [
        ((0, 0, 1), (0, 0, 1)),  # a wall seen frontally faces the viewer
        ((0, 0.8, 0.6), (0, 0.8, 0.6)),  # a floor: below the camera, faces up
        ((0.6, 0, 0.8), (-0.6, 0, 0.8)),  # a wall on the right faces left
    ],
)
def test_planes_are_exact(away, expected):
    normals = normals_from_depth(plane_depth(away, 2.0), CAMERA, window=9)
    assert angles(normals, np.array(expected)).max() < 1e-3
    assert np.allclose(np.linalg.norm(normals, axis=2), 1, atol=1e-6)


def test_pixels_without_depth_have_no_normal_and_do_not_disturb_others():
    depth = plane_depth((0.1, 0.2, 0.9), 2.0)
    holes = np.random.default_rng(0).random(depth.shape) < 0.1
    normals = normals_from_depth(np.where(holes, 0, depth), CAMERA, window=9)
    assert np.isnan(normals[holes]).all()
    full = normals_from_depth(depth, CAMERA, window=9)
    assert angles(normals[~holes], full[~holes]).max() < 1e-3


def test_an_isolated_reading_gives_no_normal():
    depth = np.zeros((30, 30))
    depth[10, 10] = 1
    assert np.isnan(normals_from_depth(depth, CAMERA)).all()


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match="window is 4"):
        normals_from_depth(np.ones((8, 8)), CAMERA, window=4)
    with pytest.raises(ValueError, match=r"\(8, 8, 1\)"):
        normals_from_depth(np.ones((8, 8, 1)), CAMERA)


def test_flipping_the_picture_flips_the_x_axis(real_data):
    depth = cv2.imread(str(real_data / "nyud_samples" / "depth_gt_000433.png"), cv2.IMREAD_UNCHANGED) / 5000.0
    normals = normals_from_depth(depth, KINECT_NYU)
    flipped = normals_from_depth(depth[:, ::-1], KINECT_NYU.mirrored(depth.shape[1]))
    valid = np.isfinite(normals[..., 0])
    assert np.array_equal(valid, np.isfinite(flipped[:, ::-1, 0]))
    error = angles(normals * (-1, 1, 1), flipped[:, ::-1])[valid]
    assert error.max() < 0.01


def test_real_frame_agrees_with_its_shipped_normals(real_data):
    """Frame 000433: median angle at most 5 degrees. Shipped axes are (x, minus z, y) in ours."""
    folder = real_data / "nyud_samples"
    depth = cv2.imread(str(folder / "depth_gt_000433.png"), cv2.IMREAD_UNCHANGED) / 5000.0
    shipped = cv2.imread(str(folder / "norm_gt_000433.png"))[..., ::-1] / 255.0 * 2 - 1
    length = np.linalg.norm(shipped, axis=2)
    shipped = np.stack([shipped[..., 0], shipped[..., 2], -shipped[..., 1]], axis=2)
    normals = normals_from_depth(depth, KINECT_NYU)
    valid = np.isfinite(normals[..., 0]) & (length > 0.5)
    assert valid.mean() > 0.5
    assert np.median(angles(normals[valid], (shipped / length[..., None])[valid])) < 2.5

"""Ray casting against closed forms and against a slow search along every ray."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from mtvision.data.synthetic import make_scene, render
from mtvision.data.synthetic.intersect import View, cast
from mtvision.data.synthetic.materials import Material
from mtvision.data.synthetic.scene import (
    BOX,
    CAPSULE,
    ELLIPSOID,
    FRUSTUM,
    ROOM,
    Camera,
    Lamp,
    SceneBuilder,
    Sky,
)

SKY = Sky((1, 1, 1), (0, 0, 1), (1, 1, 1), 0.3, 1)
SUN = Lamp(at=(0.0, 0.0, 1.0), is_sun=True, colour=(0.5,) * 3, ambient=(0.3,) * 3)
SIZE = (48, 64)


def camera(position=(0.0, 0.0, 1.5), yaw=0.0, pitch=0.0, roll=0.0, fov=1.2):
    return Camera.aimed(position, yaw=yaw, pitch=pitch, roll=roll, fov=fov)


def look(fill, *, view=None, size=SIZE, lamp=SUN, name="box"):
    """Render what `fill(builder, surface)` adds as one object."""
    builder = SceneBuilder()
    surface = builder.material(Material(first=(0.5, 0.5, 0.5), grain=0.0))
    builder.place(name)
    fill(builder, surface)
    return render(builder.build(view or camera(), lamp, SKY), size)


def rays(view, size=SIZE):
    """World directions (H, W, 3), 1 long along the optical axis, from the documented pixel formula."""
    height, width = size
    i, j = np.mgrid[:height, :width]
    right, up, forward = (np.array(axis) for axis in (view.right, view.up, view.forward))
    a = (j + 0.5 - width / 2) / (view.focal * width)
    b = (height / 2 - i - 0.5) / (view.focal * width)
    return forward + right * a[..., None] + up * b[..., None]


def camera_rays(view, size):
    """Directions in camera axes: x right, y up, z towards the camera."""
    axes = np.array([view.right, view.up, [-value for value in view.forward]])
    return rays(view, size) @ axes.T


def test_camera_axes_are_a_right_handed_frame_and_the_field_of_view_is_horizontal():
    view = camera(yaw=0.7, pitch=-0.3, roll=0.2, fov=1.1)
    axes = np.array([view.right, view.up, view.forward])
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-8)
    np.testing.assert_allclose(np.cross(view.right, view.up), -np.array(view.forward), atol=1e-8)
    assert view.forward[0] > 0  # yaw turns to the right
    assert view.forward[2] < 0  # negative pitch looks down
    assert 2 * np.arctan(0.5 / view.focal) == pytest.approx(1.1, abs=1e-8)


@pytest.mark.parametrize("angles", [(0.0, -0.2, 0.0), (0.4, -0.5, 0.1), (-1.0, 0.15, -0.3)])
def test_depth_of_the_ground_is_height_over_descent(angles):
    yaw, pitch, roll = angles
    view = camera(yaw=yaw, pitch=pitch, roll=roll)
    picture = look(lambda b, s: b.box((0, 0, -1), (4000, 4000, 2), s), view=view)
    down = -rays(view)[..., 2]
    expected = np.where(down > 1e-2, 1.5 / down, np.nan)
    seen = down > 1e-2
    assert seen.any()
    np.testing.assert_allclose(picture.depth[seen], expected[seen], rtol=1e-6)
    assert np.isnan(picture.depth[down <= 0]).all()
    up = np.array([view.right[2], view.up[2], -view.forward[2]])
    np.testing.assert_allclose(
        picture.normals[seen], np.broadcast_to(up, picture.normals[seen].shape), atol=1e-6
    )


def test_normals_of_floor_and_front_wall_say_which_way_the_axes_point():
    floor = look(lambda b, s: b.box((0, 0, -1), (400, 400, 2), s)).normals[-1, 0]
    np.testing.assert_allclose(floor, (0, 1, 0), atol=1e-6)  # y is up
    wall = look(lambda b, s: b.box((0, 5, 0), (400, 2, 400), s))
    np.testing.assert_allclose(wall.normals[5, 5], (0, 0, 1), atol=1e-6)  # z is towards the camera
    np.testing.assert_allclose(wall.depth, 4.0, rtol=1e-6)  # z-depth: the same in the corners
    side = look(lambda b, s: b.box((5, 0, 0), (2, 400, 400), s), view=camera(yaw=0.4)).normals
    assert side[20, -1, 0] < 0  # a wall on the right faces left


@pytest.mark.parametrize("distance", [2.0, 9.0, 40.0])
def test_sphere_depth_and_normals_are_the_analytic_ones(distance):
    view = camera(yaw=0.05, pitch=-0.03, fov=0.3)
    centre, radius = np.array([0.2, distance, 1.4]), distance * 0.09
    picture = look(lambda b, s: b.ellipsoid(tuple(centre), (radius,) * 3, s), view=view)
    d, o = rays(view), np.array(view.position) - centre
    a, b, c = (d * d).sum(-1), (d @ o), o @ o - radius**2
    disc = b * b - a * c
    inside = disc > 1e-6
    t = (-b[inside] - np.sqrt(disc[inside])) / a[inside]
    assert inside.sum() > 100
    np.testing.assert_allclose(picture.depth[inside], t, rtol=1e-5)
    world = (o + d[inside] * t[:, None]) / radius
    axes = np.array([view.right, view.up, [-value for value in view.forward]])
    np.testing.assert_allclose(picture.normals[inside], world @ axes.T, atol=1e-5)
    assert np.isnan(picture.depth[disc < 0]).all()


def _inside(kind, shape, q):
    """Whether canonical points (..., 3) lie in a body, from its definition."""
    x, y, z = np.moveaxis(q, -1, 0)
    if kind == BOX:
        return np.abs(q).max(-1) <= 1
    if kind == ELLIPSOID:
        return (q * q).sum(-1) <= 1
    if kind == CAPSULE:
        return x * x + y * y + (z - np.clip(z, -shape, shape)) ** 2 <= 1
    radius = 1 + (shape - 1) * (z + 1) / 2
    return (np.abs(z) <= 1) & (x * x + y * y <= radius * radius)


def _bodies(seed):
    """One body of each kind, anywhere in front of the camera, turned anyhow."""
    rng = np.random.default_rng(seed)

    def point(spread):
        return tuple(rng.uniform(-spread, spread, 3) + np.array([0, 3.5, 1.5]))

    def fill(b, s):
        b.box(point(1.0), tuple(rng.uniform(0.2, 1.0, 3)), s, yaw=rng.uniform(-3, 3), tilt=rng.uniform(-1, 1))
        b.ellipsoid(point(1.0), tuple(rng.uniform(0.15, 0.6, 3)), s, yaw=rng.uniform(-3, 3))
        b.capsule(point(1.0), point(1.0), rng.uniform(0.1, 0.3), s)
        start = point(0.6)
        end = tuple(np.array(start) + rng.uniform(0.3, 0.8, 3) * rng.choice([-1, 1], 3))
        b.frustum(start, end, tuple(rng.uniform(0.0, 0.5, 2)), s)

    return fill


@pytest.mark.parametrize("kind", [BOX, ELLIPSOID, CAPSULE, FRUSTUM])
@pytest.mark.parametrize("seed", range(4))
def test_first_hits_equal_a_search_along_the_ray(kind, seed):
    builder = SceneBuilder()
    builder.place("box")
    _bodies(seed)(builder, builder.material(Material(first=(0.5, 0.5, 0.5))))
    scene = builder.build(camera(roll=0.1), SUN, SKY)
    row = [BOX, ELLIPSOID, CAPSULE, FRUSTUM].index(kind)
    for field in ("kind", "centre", "axes", "half", "shape"):
        setattr(scene, field, getattr(scene, field)[row : row + 1])
    size = (24, 32)
    with np.errstate(all="ignore"):
        depth, owner = cast(scene, View.of(scene.camera, size))
    assert ((owner == 0) == np.isfinite(depth)).all()
    d = rays(scene.camera, size).reshape(-1, 3)
    steps = np.linspace(0.05, 8.0, 1600)
    start = (np.array(scene.camera.position) - scene.centre[0]) @ scene.axes[0].T / scene.half[0]
    local = d @ scene.axes[0].T / scene.half[0]

    def is_in(t):
        return _inside(kind, scene.shape[0], start + t[:, None] * local)

    first = np.full(len(d), np.inf)
    for low, high in pairwise(steps):
        fresh = np.isinf(first) & is_in(np.full(len(d), high))
        a, b = np.full(len(d), low), np.full(len(d), high)
        for _ in range(40 if fresh.any() else 0):
            middle = (a + b) / 2
            hit = is_in(middle)
            a, b = np.where(hit, a, middle), np.where(hit, middle, b)
        first[fresh] = b[fresh]
    got = depth.ravel()
    both = np.isfinite(first)
    assert both.sum() > 5
    np.testing.assert_allclose(got[both], first[both], atol=1e-6)
    # The search may step over a corner that the ray only grazes, never the other way round.
    assert (np.isfinite(got) & ~both).sum() <= 2


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2, 3))])
def test_normals_follow_the_surface_of_every_body(seed):
    """The points to the left, right, above and below span a plane square to the normal."""
    for body in range(4):

        def one(b, s, body=body):
            _bodies(seed)(b, s)
            b._rows[:] = b._rows[body : body + 1]

        view, size = camera(roll=0.1), (480, 640)
        picture = look(one, view=view, size=size)
        points = camera_rays(view, size) * picture.depth[..., None]
        span_x, span_y = points[1:-1, 2:] - points[1:-1, :-2], points[2:, 1:-1] - points[:-2, 1:-1]
        across = np.cross(span_y, span_x)
        with np.errstate(invalid="ignore"):
            across /= np.linalg.norm(across, axis=-1, keepdims=True)
            cosine = (across * picture.normals[1:-1, 1:-1]).sum(-1)
        flat = np.isfinite(cosine) & (np.abs(picture.normals[1:-1, 1:-1, 2]) > 0.3)
        assert flat.sum() > 200
        assert np.median(cosine[flat]) > 0.9999
        assert np.mean(cosine[flat] > 0.99) > 0.93  # the rest lies across an edge of the body


@pytest.mark.parametrize("kind", ["room", "street"])
def test_normals_are_unit_vectors_towards_the_camera(kind):
    for index in range(6):
        scene = make_scene(5, "train", index, (kind,))
        picture = render(scene, SIZE)
        valid = np.isfinite(picture.depth)
        normals = picture.normals[valid]
        np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-5)
        away = (normals * camera_rays(scene.camera, SIZE)[valid]).sum(1)
        assert away.max() < 1e-4


@pytest.mark.parametrize("kind", ["room", "street"])
def test_depth_agrees_with_normals_on_planes(kind):
    """Where two neighbours share a flat body and the normal, the step between them is square to it."""
    found = []
    for index in range(4):
        scene = make_scene(6, "train", index, (kind,))
        picture = render(scene, SIZE)
        with np.errstate(all="ignore"):
            _, owner = cast(scene, View.of(scene.camera, SIZE))
        flat = (owner >= 0) & np.isin(scene.kind[owner], (ROOM, BOX))
        points = camera_rays(scene.camera, SIZE) * picture.depth[..., None]
        normal = picture.normals[1:, 1:]
        for other in (np.s_[1:, :-1], np.s_[:-1, 1:]):
            same = flat[1:, 1:] & (owner[1:, 1:] == owner[other])
            same &= np.abs(picture.normals[other] - normal).max(-1) < 1e-6
            step = points[other] - points[1:, 1:]
            off = np.abs((step * normal).sum(-1)) / np.linalg.norm(step, axis=-1)
            found.append(off[same])
    assert len(np.concatenate(found)) > 10_000
    assert np.concatenate(found).max() < 1e-3


def test_a_mirrored_scene_gives_mirrored_maps_with_normals_flipped_in_x():
    def fill(sign):
        def add(b, s):
            b.ellipsoid((sign * 0.6, 3.0, 1.4), (0.4, 0.3, 0.5), s)
            b.box((sign * -0.8, 4.0, 1.0), (0.5, 0.7, 0.9), s, yaw=sign * 0.4)

        return add

    right, left = look(fill(1)), look(fill(-1))
    np.testing.assert_array_equal(right.semseg, left.semseg[:, ::-1])
    np.testing.assert_allclose(right.depth, left.depth[:, ::-1], rtol=1e-6)
    np.testing.assert_allclose(right.normals, left.normals[:, ::-1] * (-1, 1, 1), atol=1e-6)


def test_a_ball_darkens_the_ground_below_it_and_nothing_else():
    def fill(b, s):
        b.box((0, 0, -1), (400, 400, 2), s, casts=False)
        b.ellipsoid((0, 4, 1.5), (0.5,) * 3, s)

    view = camera(position=(0.0, 0.0, 3.0), pitch=-0.6)
    dark = Lamp(at=(0.0, 0.0, 1.0), is_sun=True, colour=(0.5,) * 3, ambient=(0.3,) * 3, shadow=1.0)
    bright = Lamp(at=(0.0, 0.0, 1.0), is_sun=True, colour=(0.5,) * 3, ambient=(0.3,) * 3, shadow=0.0)
    shaded, plain = look(fill, view=view, lamp=dark), look(fill, view=view, lamp=bright)
    points = rays(view) * shaded.depth[..., None] + np.array(view.position)
    off = np.hypot(points[..., 0], points[..., 1] - 4)
    ground = np.isfinite(shaded.depth) & (points[..., 2] < 1e-3)
    darker = shaded.image[..., 0].astype(int) < plain.image[..., 0].astype(int) - 10
    assert darker[ground & (off < 0.4)].all()
    assert (ground & (off < 0.4)).sum() > 20
    assert not darker[ground & (off > 0.6)].any()


def test_one_scene_at_two_sizes_has_the_same_labels_along_the_same_rays():
    for index in range(4):
        scene = make_scene(0, "val", index)
        small, large = render(scene, (32, 48)), render(scene, (96, 144))
        middle = np.s_[1::3, 1::3]  # pixel centres coincide when the factor is odd
        for name in ("semseg", "instances"):
            assert np.mean(getattr(small, name) != getattr(large, name)[middle]) < 2e-3, name
        same = (small.instances == large.instances[middle]) & np.isfinite(small.depth)
        close = np.isclose(small.depth, large.depth[middle], rtol=1e-5)
        assert np.mean(close[same]) > 0.998


def test_other_aspect_ratios_widen_the_picture_upwards():
    scene = make_scene(0, "val", 0)
    wide, tall = render(scene, (48, 64)), render(scene, (64, 64))
    np.testing.assert_array_equal(wide.semseg, tall.semseg[8:-8])


@pytest.mark.parametrize("size", [(4, 64), (64, 0), (10.5, 20)])
def test_impossible_sizes_are_refused(size):
    with pytest.raises(ValueError, match="at least 8 pixels"):
        render(make_scene(0, "val", 0), size)

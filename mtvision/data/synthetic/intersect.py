"""First hits of the camera's rays with a scene: a depth buffer filled primitive by primitive.

Rays are not normalised: their component along the optical axis is 1, so the ray parameter *is* the depth
(z-depth, metres). A ray stays straight under the affine map that makes a primitive canonical, with the same
parameter. Only elementwise arithmetic and square roots, which IEEE 754 rounds alike everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mtvision.data.synthetic.scene import BOX, CAPSULE, ELLIPSOID, FRUSTUM, Camera, Float, Scene

NEAR = 0.05
"""Nothing closer to the camera than this many metres is seen."""

Window = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class View:
    """A camera with a pixel grid.

    Args:
        origin: (3,) position.
        basis: (3, 3) rows right, up, forward.
        u: (W,) slope of the pixel columns to the right.
        v: (H,) slope of the pixel rows upwards.
        focal: focal length in pixels.
    """

    origin: Float
    basis: Float
    u: Float
    v: Float
    focal: float

    @classmethod
    def of(cls, camera: Camera, size: tuple[int, int]) -> View:
        """The view of `camera` in (H, W) pixels."""
        height, width = size
        focal = camera.focal * width
        return cls(
            origin=np.array(camera.position, dtype=np.float64),
            basis=np.array([camera.right, camera.up, camera.forward], dtype=np.float64),
            u=np.asarray((np.arange(width) + 0.5 - width / 2) / focal, dtype=np.float64),
            v=np.asarray((height / 2 - np.arange(height) - 0.5) / focal, dtype=np.float64),
            focal=focal,
        )

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return len(self.v), len(self.u)

    def windows(self, points: Float) -> list[Window | None]:
        """Pixel windows (top, bottom, left, right) that hold the convex hulls of (N, K, 3) world points.

        A hull that reaches behind the camera gets the whole image; one that is not seen, None.
        """
        height, width = self.size
        x, y, z = dot3(self.basis[:, None, None, :], (points - self.origin)[None])
        behind = (z < NEAR).any(axis=1)
        gone = (z < NEAR).all(axis=1)
        deep = np.maximum(z, NEAR)
        column = x / deep * self.focal + width / 2 - 0.5
        row = height / 2 - 0.5 - y / deep * self.focal
        edges = np.stack([row.min(axis=1), row.max(axis=1), column.min(axis=1), column.max(axis=1)], axis=1)
        edges = np.clip(edges, -9.0, 1e6) + np.array([-0.01, 1.01, -0.01, 1.01])
        edges[behind] = (0, height, 0, width)
        found: list[Window | None] = []
        for (top, bottom, left, right), out in zip(edges.tolist(), gone.tolist(), strict=True):
            window = (
                max(int(top), 0),
                min(int(bottom) + 1, height),
                max(int(left), 0),
                min(int(right) + 1, width),
            )
            empty = out or window[0] >= window[1] or window[2] >= window[3]
            found.append(None if empty else window)
        return found


def dot3(a: Float, b: Float) -> Float:
    """Sum of products over the last axis of length 3, in a fixed order (a matrix product has none)."""
    return np.asarray(a[..., 0] * b[..., 0] + a[..., 1] * b[..., 1] + a[..., 2] * b[..., 2])


def corners(scene: Scene, rows: NDArray[np.int64]) -> Float:
    """(len(rows), 8, 3) corners of boxes around primitives."""
    signs = np.array([(i & 1, i >> 1 & 1, i >> 2 & 1) for i in range(8)], dtype=np.float64) * 2 - 1
    half = scene.half[rows].copy()
    half[:, 2] *= np.where(scene.kind[rows] == CAPSULE, scene.shape[rows] + 1, 1.0)
    arms = scene.axes[rows] * half[:, :, None]
    offsets = sum(signs[None, :, k, None] * arms[:, None, k, :] for k in range(3))
    return np.asarray(scene.centre[rows][:, None] + offsets)


def _nonzero(values: Float) -> Float:
    np.copyto(values, 1e-20, where=values == 0)
    return values


def slabs(o: Float, d: Float) -> tuple[Float, Float]:
    """Where rays o + t d enter and leave the cube [-1, 1]^3; empty intervals have enter > leave.

    Args:
        o: (3, ...) starts, broadcastable to `d` or the other way round.
        d: (3, ...) directions; zeros are replaced in place.
    """
    inverse = 1.0 / _nonzero(d)
    middle = -o * inverse
    reach = np.abs(inverse, out=inverse)
    low = middle - reach
    high = np.add(middle, reach, out=middle)
    enter = np.maximum(np.maximum(low[0], low[1], out=low[0]), low[2], out=low[0])
    leave = np.minimum(np.minimum(high[0], high[1], out=high[0]), high[2], out=high[0])
    return enter, leave


def _box(o: Float, d: Float, shape: float) -> Float:  # noqa: ARG001  one signature for all bodies
    enter, leave = slabs(o[:, None, None], d)
    np.copyto(enter, np.inf, where=enter > leave)
    return enter


def _ball(o: Float, d: Float, shape: float) -> Float:  # noqa: ARG001
    """Unit sphere, by the closest approach: b^2 - ac would lose digits far away."""
    dx, dy, dz = d
    square = dx * dx + dy * dy + dz * dz
    closest = -(o[0] * dx + o[1] * dy + o[2] * dz) / square
    px, py, pz = o[0] + closest * dx, o[1] + closest * dy, o[2] + closest * dz
    inside = (1.0 - (px * px + py * py + pz * pz)) / square
    return np.where(inside >= 0, closest - np.sqrt(np.maximum(inside, 0)), np.inf)


def _capsule(o: Float, d: Float, shape: float) -> Float:
    """Radius 1 around the segment from (0, 0, -shape) to (0, 0, shape)."""
    dx, dy, dz = d
    square = np.maximum(dx * dx + dy * dy, 1e-18)
    closest = -(o[0] * dx + o[1] * dy) / square
    px, py = o[0] + closest * dx, o[1] + closest * dy
    inside = (1.0 - (px * px + py * py)) / square
    side = closest - np.sqrt(np.maximum(inside, 0))
    height = o[2] + side * dz
    end = np.where(height > 0, shape, -shape)
    total = dx * dx + dy * dy + dz * dz
    lift = o[2] - end
    near = -(o[0] * dx + o[1] * dy + lift * dz) / total
    qx, qy, qz = o[0] + near * dx, o[1] + near * dy, lift + near * dz
    round_end = (1.0 - (qx * qx + qy * qy + qz * qz)) / total
    cap = np.where(round_end >= 0, near - np.sqrt(np.maximum(round_end, 0)), np.inf)
    return np.where(inside >= 0, np.where(np.abs(height) <= shape, side, cap), np.inf)


def _frustum(o: Float, d: Float, shape: float) -> Float:
    """Radius 1 at z = -1, radius `shape` at z = 1, closed at both ends."""
    dx, dy, dz = d
    slope, mean = (shape - 1) / 2, (shape + 1) / 2
    a = dx * dx + dy * dy - slope * slope * dz * dz
    a[np.abs(a) < 1e-18] = 1e-18
    w = mean + slope * o[2]
    b = dx * o[0] + dy * o[1] - slope * w * dz
    c = o[0] * o[0] + o[1] * o[1] - w * w
    disc = b * b - a * c
    root = np.sqrt(np.maximum(disc, 0))
    best: Float = np.full_like(a, np.inf)
    for t in ((-b - root) / a, (-b + root) / a):
        on = (disc >= 0) & (np.abs(o[2] + t * dz) <= 1) & (t > 0)
        np.minimum(best, t, out=best, where=on)
    end, radius = (1.0, shape) if o[2] > 0 else (-1.0, 1.0)
    if abs(o[2]) > 1 and radius > 0:
        t = (end - o[2]) / _nonzero(dz)
        x, y = o[0] + t * dx, o[1] + t * dy
        np.minimum(best, t, out=best, where=(x * x + y * y <= radius * radius) & (t > 0))
    return best


_BODIES: dict[int, Callable[[Float, Float, float], Float]] = {
    BOX: _box,
    ELLIPSOID: _ball,
    CAPSULE: _capsule,
    FRUSTUM: _frustum,
}


def cast(scene: Scene, view: View) -> tuple[Float, NDArray[np.int64]]:
    """Depth and primitive of every pixel.

    Returns:
        (H, W) float64 depth in metres and (H, W) primitive; infinite and -1 where nothing is hit.
    """
    depth = np.full(view.size, np.inf)
    owner = np.full(view.size, -1, dtype=np.int64)
    rows = np.arange(6 if scene.is_room else 0, len(scene))
    # Local ray = start + t * (steps[0] u + steps[1] v + steps[2]).
    scale = 1.0 / scene.half
    start = dot3(scene.axes, (view.origin - scene.centre)[:, None, :]) * scale
    steps = dot3(scene.axes[:, None], view.basis[None, :, None, :]) * scale[:, None]
    if scene.is_room:
        _enclose(view, start[0], steps[0], depth, owner)
    across_all = steps[:, 0, :, None] * view.u + steps[:, 2, :, None]
    along_all = steps[:, 1, :, None] * view.v
    windows = view.windows(corners(scene, rows))
    for row, window in zip(rows.tolist(), windows, strict=True):
        if window is None:
            continue
        top, bottom, left, right = window
        across, along = across_all[row, :, left:right], along_all[row, :, top:bottom]
        d = across[:, None, :] + along[:, :, None]
        t = _BODIES[int(scene.kind[row])](start[row], d, float(scene.shape[row]))
        seen = depth[top:bottom, left:right]
        hit = (t < seen) & (t > NEAR)
        np.copyto(seen, t, where=hit)
        np.copyto(owner[top:bottom, left:right], row, where=hit)
    return depth, owner


def _enclose(view: View, o: Float, steps: Float, depth: Float, owner: NDArray[np.int64]) -> None:
    """Fill the buffers with the walls of the room around the camera."""
    depth[...] = np.inf
    for k in range(3):
        d = _nonzero((steps[0, k] * view.u + steps[2, k])[None] + (steps[1, k] * view.v)[:, None])
        inverse = 1.0 / d
        t = np.abs(inverse) - o[k] * inverse
        closer = t < depth
        np.copyto(depth, t, where=closer)
        np.copyto(owner, 2 * k + (d > 0), where=closer)

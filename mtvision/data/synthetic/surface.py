"""Surface properties at each hit: position, normal, texture coordinates, and panes of facades."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mtvision.data.synthetic.intersect import View, dot3
from mtvision.data.synthetic.scene import (
    BOX,
    CAPSULE,
    CLASS_ID,
    FRUSTUM,
    ROOM,
    Facade,
    Float,
    Scene,
)  # fmt: skip


@dataclass(slots=True)
class Hits:
    """The P pixels that hit something, in row-major order.

    Args:
        pixel: (P,) flat pixel index.
        owner: (P,) primitive.
        depth: (P,) metres.
        point: three (P,) world coordinates.
        local: three (P,) coordinates in metres along the primitive's axes.
        normal: three (P,) world components of the unit normal, towards the camera.
        facing: (P,) cosine between the normal and the ray back to the camera, > 0.
        face: (P,) local axis nearest to the normal: 0, 1 or 2.
        surface: (P,) material.
        label: (P,) class id.
        instance: (P,) instance id.
    """

    pixel: NDArray[np.int64]
    owner: NDArray[np.int64]
    depth: Float
    point: list[Float]
    local: list[Float]
    normal: list[Float]
    facing: Float
    face: NDArray[np.int64]
    surface: NDArray[np.int64]
    label: NDArray[np.uint8]
    instance: NDArray[np.int32]


def find_hits(scene: Scene, view: View, depth: Float, owner: NDArray[np.int64]) -> Hits:
    """Gather everything known about the hit points of `cast`."""
    width = len(view.u)
    pixel = np.flatnonzero(owner.ravel() >= 0)
    rows = owner.ravel().take(pixel)
    t = depth.ravel().take(pixel)
    u, v = view.u.take(pixel % width), view.v.take(pixel // width)
    right, up, forward = view.basis
    ray = [u * right[k] + v * up[k] + forward[k] for k in range(3)]
    point = [view.origin[k] + t * ray[k] for k in range(3)]
    axes = [[scene.axes[:, k, j].take(rows) for j in range(3)] for k in range(3)]
    offset = [point[j] - scene.centre[:, j].take(rows) for j in range(3)]
    local = [sum(axes[k][j] * offset[j] for j in range(3)) for k in range(3)]
    half = [scene.half[:, k].take(rows) for k in range(3)]
    unit = [local[k] / half[k] for k in range(3)]
    bent, face = _local_normals(scene, view, rows, unit, half)
    normal = [sum(axes[k][j] * bent[k] for k in range(3)) for j in range(3)]
    along = normal[0] * ray[0] + normal[1] * ray[1] + normal[2] * ray[2]
    length = np.sqrt(ray[0] * ray[0] + ray[1] * ray[1] + ray[2] * ray[2])
    return Hits(
        pixel=pixel,
        owner=rows,
        depth=t,
        point=[np.asarray(values) for values in point],
        local=[np.asarray(values) for values in local],
        normal=[np.asarray(values) for values in normal],
        facing=-along / length,
        face=face,
        surface=scene.surface.take(rows),
        label=scene.label.take(rows),
        instance=scene.instance.take(rows),
    )


def _local_normals(
    scene: Scene, view: View, rows: NDArray[np.int64], unit: list[Float], half: list[Float]
) -> tuple[list[Float], NDArray[np.int64]]:
    """Unit normals along the primitives' axes, and the axis nearest to each."""
    eye = dot3(scene.axes, (view.origin - scene.centre)[:, None, :]) / scene.half
    kind = scene.kind.take(rows)
    normal = [np.zeros(len(rows)) for _ in range(3)]
    # A face of a box is seen if and only if the camera is on its outer side; this decides ties at its edges.
    boxy = np.flatnonzero(kind == BOX)
    outside = np.abs(eye) > 1
    score = [np.where(outside[:, k].take(rows[boxy]), np.abs(unit[k].take(boxy)), -1.0) for k in range(3)]
    best = np.where(score[0] >= np.maximum(score[1], score[2]), 0, np.where(score[1] >= score[2], 1, 2))
    for k in range(3):
        normal[k][boxy] = np.where(best == k, np.sign(eye[:, k]).take(rows[boxy]), 0.0)
    inner = np.flatnonzero(kind == ROOM)
    faces = rows[inner]
    for k in range(3):
        normal[k][inner] = (faces == 2 * k) * 1.0 - (faces == 2 * k + 1) * 1.0
    curved = np.flatnonzero((kind != BOX) & (kind != ROOM))
    if len(curved):
        _curved_normals(scene, rows, kind, unit, half, curved, normal)
    size = [np.abs(values) for values in normal]
    face = np.where(size[0] >= np.maximum(size[1], size[2]), 0, np.where(size[1] >= size[2], 1, 2))
    return normal, face


def _curved_normals(
    scene: Scene,
    rows: NDArray[np.int64],
    kind: NDArray[np.int64],
    unit: list[Float],
    half: list[Float],
    curved: NDArray[np.int64],
    normal: list[Float],
) -> None:
    """Write the normals of ellipsoids, capsules and frusta."""
    x, y, z = (values.take(curved) for values in unit)
    shape, which = scene.shape.take(rows[curved]), kind.take(curved)
    gradient = z.copy()
    capsule = which == CAPSULE
    gradient[capsule] = (z - np.clip(z, -shape, shape))[capsule]
    frustum = which == FRUSTUM
    radius = (1 + shape) / 2 + (shape - 1) / 2 * z
    # Outward gradient of x^2 + y^2 - radius(z)^2, halved.
    gradient[frustum] = (-radius * (shape - 1) / 2)[frustum]
    wall = x * x + y * y
    flat = frustum & (np.abs(z) > 1 - 1e-6) & (wall < radius * radius * (1 - 1e-6))
    x, y = np.where(flat, 0.0, x), np.where(flat, 0.0, y)
    gradient = np.where(flat, np.sign(z), gradient)
    sides = [values.take(curved) for values in half]
    bent = [x / sides[0], y / sides[1], gradient / sides[2]]
    length = np.sqrt(np.maximum(bent[0] * bent[0] + bent[1] * bent[1] + bent[2] * bent[2], 1e-30))
    for k in range(3):
        normal[k][curved] = bent[k] / length


def add_facades(scene: Scene, hits: Hits) -> None:
    """Turn hits on facades into windows and doors: class, instance and material change, geometry does not."""
    for row, facade in scene.facades.items():
        index = np.flatnonzero((hits.owner == row) & (hits.face < 2))
        if len(index):
            _glaze(scene, hits, facade, row, index)


def _glaze(scene: Scene, hits: Hits, facade: Facade, row: int, index: NDArray[np.int64]) -> None:
    face = hits.face[index]
    half = scene.half[row]
    sideways = np.where(face == 0, hits.local[1][index] + half[1], hits.local[0][index] + half[0])
    count = np.where(face == 0, facade.cells[0], facade.cells[1])
    pitch = np.where(face == 0, 2 * half[1] / facade.cells[0], 2 * half[0] / facade.cells[1])
    height = hits.local[2][index] + half[2]
    storey = 2 * half[2] / facade.cells[2]
    column = np.clip(np.floor(sideways / pitch), 0, count - 1)
    level = np.clip(np.floor(height / storey), 0, facade.cells[2] - 1)
    x, y = sideways - (column + 0.5) * pitch, height - (level + 0.5) * storey
    chosen, wide, tall = facade.door
    own = (column == chosen) & (level == 0)
    door = own & (np.abs(x) < wide / 2) & (height < tall)
    glass = ~own & (np.abs(x) < facade.window[0] * pitch / 2) & (np.abs(y) < facade.window[1] * storey / 2)
    side = face * 2 + (hits.local[0][index] * (face == 0) + hits.local[1][index] * (face == 1) > 0)
    pane = facade.first_instance + ((side * 32 + level) * 16 + column).astype(np.int32)
    for where, name, surface in ((door, "door", facade.wood), (glass, "window", facade.glass)):
        chosen_hits = index[where]
        hits.label[chosen_hits] = CLASS_ID[name]
        hits.surface[chosen_hits] = surface
        hits.instance[chosen_hits] = pane[where]

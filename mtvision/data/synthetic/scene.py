"""A scene as plain arrays, and the builder that collects its primitives.

World axes: z up, metres. A primitive is a canonical body (box, ellipsoid, capsule, frustum) with a centre,
three orthonormal axes and three half sizes. Division by the half sizes makes the body canonical, so one
formula holds for all of its kind.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mtvision.data.synthetic.draw import Vector, cross, turn, unit
from mtvision.data.synthetic.materials import Material
from mtvision.protocols.synthetic import SYNTHETIC_CLASSES

Float = NDArray[np.float64]
Axes = tuple[Vector, Vector, Vector]

ROOM, BOX, ELLIPSOID, CAPSULE, FRUSTUM = range(5)
CLASS_ID = {name: index for index, name in enumerate(SYNTHETIC_CLASSES)}
SKY = CLASS_ID["sky"]


@dataclass(frozen=True, slots=True)
class Camera:
    """Pinhole camera.

    Args:
        position: metres.
        right: unit vector along image columns.
        up: unit vector against image rows.
        forward: unit vector along the optical axis; right x forward = up.
        focal: focal length in image widths. A pixel (row i, column j) of an H x W image looks along: forward
            + right * (j + 0.5 - W / 2) / (focal W) + up * (H / 2 - i - 0.5) / (focal W).
    """

    position: Vector
    right: Vector
    up: Vector
    forward: Vector
    focal: float

    @classmethod
    def aimed(cls, position: Vector, *, yaw: float, pitch: float, roll: float, fov: float) -> Camera:
        """Camera from angles in radians: yaw 0 looks along +y and grows to the right, pitch grows upwards.

        Args:
            position: metres.
            yaw: turn about the vertical.
            pitch: tilt, up is positive.
            roll: turn about the optical axis, clockwise.
            fov: horizontal field of view.
        """
        cy, sy = turn(yaw)
        cp, sp = turn(pitch)
        cr, sr = turn(roll)
        forward = (sy * cp, cy * cp, sp)
        level = (cy, -sy, 0.0)
        upright = cross(level, forward)
        right = (level[0] * cr - upright[0] * sr, level[1] * cr - upright[1] * sr, -upright[2] * sr)
        half = turn(fov / 2)
        return cls(position, right, cross(right, forward), forward, round(half[0] / (2 * half[1]), 9))


@dataclass(frozen=True, slots=True)
class Lamp:
    """Light of a scene.

    Args:
        at: position of a point light, or the direction towards the sun.
        is_sun: which of the two.
        colour: RGB strength of the light, at the reference distance for a point light.
        ambient: RGB strength of the light from everywhere.
        reference: distance in metres at which a point light has its nominal strength.
        shadow: 0 = shadows are invisible, 1 = black but for ambient light.
    """

    at: Vector
    is_sun: bool
    colour: Vector
    ambient: Vector
    reference: float = 3.0
    shadow: float = 1.0


@dataclass(frozen=True, slots=True)
class Sky:
    """Colours (RGB, 0..1) of a sky with clouds; `cover` is the share of cloud and `seed` its pattern."""

    horizon: Vector
    zenith: Vector
    cloud: Vector
    cover: float
    seed: int


@dataclass(frozen=True, slots=True)
class Facade:
    """Windows and a door drawn on the upright faces of a box, flush with it.

    Args:
        cells: number of columns on the faces across local x and across local y, number of storeys.
        window: width and height of a window as fractions of its cell.
        door: column of the door, its width and height in metres.
        glass: material of windows.
        wood: material of doors.
        first_instance: instance ids from here on are reserved for the panes.
    """

    cells: tuple[int, int, int]
    window: tuple[float, float]
    door: tuple[int, float, float]
    glass: int
    wood: int
    first_instance: int


FACADE_IDS = 4 * 16 * 32
"""Instance ids that one facade reserves: faces x storeys x columns."""


@dataclass(slots=True)
class Scene:
    """Everything that is rendered; the first axis N counts primitives.

    Args:
        kind: (N,) one of the body kinds; a room is six rows, its faces -x +x -y +y -z +z, which come first.
        centre: (N, 3) metres.
        axes: (N, 3, 3), `axes[n, k]` is the k-th local axis in world coordinates.
        half: (N, 3) half sizes in metres; a capsule's are its radius three times.
        shape: (N,) capsule: half length of the segment in radii; frustum: end radius / start radius, <= 1.
        label: (N,) class id.
        part: (N,) human part id, 0 for whatever is no person.
        instance: (N,) instance id, from 1; 0 is the sky.
        surface: (N,) index into `materials`.
        casts: (N,) whether it throws a shadow.
        facades: {primitive: its windows}.
        materials: surfaces.
        camera: the camera.
        lamp: the light.
        sky: None indoors.
        seed: for textures and sensor noise.
        exposure: RGB factors of the camera.
    """

    kind: NDArray[np.int64]
    centre: Float
    axes: Float
    half: Float
    shape: Float
    label: NDArray[np.uint8]
    part: NDArray[np.uint8]
    instance: NDArray[np.int32]
    surface: NDArray[np.int64]
    casts: NDArray[np.bool_]
    facades: dict[int, Facade]
    materials: list[Material]
    camera: Camera
    lamp: Lamp
    sky: Sky | None
    seed: int = 0
    exposure: Vector = (1.0, 1.0, 1.0)

    @property
    def is_room(self) -> bool:
        """Whether the first six primitives are the inside of a room."""
        return len(self.kind) > 0 and bool(self.kind[0] == ROOM)

    def __len__(self) -> int:
        return len(self.kind)


@dataclass
class SceneBuilder:
    """Collects primitives, object by object.

    `place` opens a new object (one instance of one class) with its own upright frame. Bodies are then given
    in that frame: x to its right, y to its back, z up, metres.
    """

    materials: list[Material] = field(default_factory=list)
    facades: dict[int, Facade] = field(default_factory=dict)
    num_instances: int = 0
    _rows: list[tuple[float, ...]] = field(default_factory=list)
    _origin: Vector = (0.0, 0.0, 0.0)
    _turn: tuple[float, float] = (1.0, 0.0)
    _label: int = 0

    def material(self, material: Material) -> int:
        """Add a surface; its index."""
        self.materials.append(material)
        return len(self.materials) - 1

    def place(self, name: str, origin: Vector = (0.0, 0.0, 0.0), yaw: float = 0.0) -> None:
        """Open an object of class `name` standing at `origin`, turned counter-clockwise by `yaw` radians."""
        self.num_instances += 1
        self._label = CLASS_ID[name]
        self._origin = origin
        self._turn = turn(yaw)

    def world(self, point: Vector) -> Vector:
        """A point of the object's frame in world coordinates."""
        x, y, z = self.direction(point)
        return x + self._origin[0], y + self._origin[1], z + self._origin[2]

    def direction(self, vector: Vector) -> Vector:
        """A vector of the object's frame in world coordinates."""
        c, s = self._turn
        x, y, z = vector
        return c * x - s * y, s * x + c * y, z

    def room(self, low: Vector, high: Vector, surfaces: tuple[int, int, int]) -> None:
        """The inside of a box with materials for walls, floor and ceiling; must come first."""
        centre = tuple((a + b) / 2 for a, b in zip(low, high, strict=True))
        half = tuple((b - a) / 2 for a, b in zip(low, high, strict=True))
        for face in range(6):
            what = max(face - 3, 0)
            self.place(("wall", "floor", "ceiling")[what])
            self._origin = (centre[0], centre[1], centre[2])
            self._add(ROOM, (0, 0, 0), _UPRIGHT, (half[0], half[1], half[2]), 0, surfaces[what], False)

    def box(
        self,
        centre: Vector,
        size: Vector,
        surface: int,
        *,
        yaw: float = 0.0,
        tilt: float = 0.0,
        casts: bool = True,
    ) -> int:
        """A box of full size `size`, leaning back by `tilt` and turned by `yaw` radians; its row."""
        c, s = turn(yaw)
        ct, st = turn(tilt)
        axes = ((c, s, 0.0), (-s * ct, c * ct, -st), (-s * st, c * st, ct))
        return self._add(BOX, centre, axes, (size[0] / 2, size[1] / 2, size[2] / 2), 0, surface, casts)

    def ellipsoid(
        self, centre: Vector, radii: Vector, surface: int, *, part: int = 0, yaw: float = 0.0
    ) -> int:
        """An ellipsoid with upright axes, turned by `yaw` radians; its row."""
        c, s = turn(yaw)
        return self._add(
            ELLIPSOID, centre, ((c, s, 0.0), (-s, c, 0.0), (0.0, 0.0, 1.0)), radii, 0, surface, True, part
        )

    def capsule(self, start: Vector, end: Vector, radius: float, surface: int, *, part: int = 0) -> int:
        """All points within `radius` of a segment; its row."""
        centre, axes, half = _along(start, end)
        return self._add(CAPSULE, centre, axes, (radius,) * 3, half / radius, surface, True, part)

    def frustum(
        self, start: Vector, end: Vector, radii: tuple[float, float], surface: int, *, part: int = 0
    ) -> int:
        """A cylinder, cone or truncated cone with round ends; its row."""
        if radii[1] > radii[0]:
            start, end, radii = end, start, (radii[1], radii[0])
        centre, axes, half = _along(start, end)
        sizes = (radii[0], radii[0], half)
        return self._add(FRUSTUM, centre, axes, sizes, radii[1] / radii[0], surface, True, part)

    def facade(self, row: int, facade: Facade) -> None:
        """Put windows on the box of that row."""
        self.facades[row] = facade

    def reserve(self, count: int) -> int:
        """Keep `count` instance ids; the first of them."""
        first = self.num_instances + 1
        self.num_instances += count
        return first

    def _add(
        self,
        kind: int,
        centre: Vector,
        axes: Axes,
        half: Vector,
        shape: float,
        surface: int,
        casts: bool,
        part: int = 0,
    ) -> int:
        rows = [value for axis in axes for value in self.direction(axis)]
        ids = (kind, self._label, part, self.num_instances, surface, casts)
        self._rows.append((*self.world(centre), *rows, *half, shape, *ids))
        return len(self._rows) - 1

    def build(
        self,
        camera: Camera,
        lamp: Lamp,
        sky: Sky | None = None,
        *,
        seed: int = 0,
        exposure: Vector = (1, 1, 1),
    ) -> Scene:
        """The scene as arrays."""
        table = np.array(self._rows, dtype=np.float64).reshape(-1, 22)
        kind, label, part, instance, surface, casts = table[:, 16:].T
        return Scene(
            kind=kind.astype(np.int64),
            centre=table[:, 0:3].copy(),
            axes=table[:, 3:12].reshape(-1, 3, 3).copy(),
            half=table[:, 12:15].copy(),
            shape=table[:, 15].copy(),
            label=label.astype(np.uint8),
            part=part.astype(np.uint8),
            instance=instance.astype(np.int32),
            surface=surface.astype(np.int64),
            casts=casts.astype(bool),
            facades=self.facades,
            materials=self.materials,
            camera=camera,
            lamp=lamp,
            sky=sky,
            seed=seed,
            exposure=exposure,
        )


_UPRIGHT: Axes = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


def _along(start: Vector, end: Vector) -> tuple[Vector, Axes, float]:
    """Centre, axes (the third from start to end) and half length of a segment."""
    span = (end[0] - start[0], end[1] - start[1], end[2] - start[2])
    third = unit(span)
    helper = (1.0, 0.0, 0.0) if abs(third[2]) > 0.9 else (0.0, 0.0, 1.0)
    first = unit(cross(helper, third))
    length = math.sqrt(span[0] * span[0] + span[1] * span[1] + span[2] * span[2])
    centre = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2, (start[2] + end[2]) / 2)
    return centre, (first, cross(third, first), third), length / 2

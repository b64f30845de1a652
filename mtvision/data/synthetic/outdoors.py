"""Objects for streets: vehicles, trees, poles, buildings."""

from __future__ import annotations

from dataclasses import replace

from mtvision.data.synthetic.draw import Draw, Vector
from mtvision.data.synthetic.furniture import Item
from mtvision.data.synthetic.materials import Material, any_colour, material_for, near_colour, paint, tiles
from mtvision.data.synthetic.scene import FACADE_IDS, Facade, SceneBuilder


def _glass(draw: Draw, body: Vector, cell: tuple[float, float]) -> Material:
    """Panes between posts of the body's colour."""
    pane = near_colour(draw, any_colour(draw), 0.3) if draw.chance(0.3) else (draw.uniform(0.08, 0.3),) * 3
    return Material(
        first=(pane[0], pane[1], pane[2]),
        second=near_colour(draw, pane, 0.5),
        third=body,
        cell=cell,
        line=0.14,
        noise=0.8,
    )


def car(draw: Draw) -> Item:
    """A car along y, its front at -y: body, cabin and wheels."""
    length, width = draw.uniform(3.6, 4.6), draw.uniform(1.65, 1.85)
    body_height, cabin_height = draw.uniform(0.5, 0.65), draw.uniform(0.45, 0.62)
    cabin = length * draw.uniform(0.45, 0.65)
    shift = length * draw.uniform(0.0, 0.12)
    coat = material_for(draw, "metal")
    glass = _glass(draw, coat.first, (cabin / 2, 5.0))
    tyre, rim = paint(draw, (draw.uniform(0.05, 0.2),) * 3), paint(draw)

    def build(b: SceneBuilder, origin: Vector, yaw: float) -> None:
        b.place("vehicle", origin, yaw)
        skin, panes, rubber, metal = (b.material(item) for item in (coat, glass, tyre, rim))
        base = 0.28
        b.box((0, 0, base + body_height / 2), (width, length, body_height), skin)
        top = base + body_height
        b.box((0, shift, top + cabin_height / 2), (width * 0.86, cabin, cabin_height), panes)
        b.box((0, shift, top + cabin_height), (width * 0.88, cabin * 0.96, 0.06), skin)
        b.box((0, -length / 2, base + 0.2), (width * 0.8, 0.08, 0.16), metal)
        for x in (-1, 1):
            for y in (-0.31, 0.31):
                at = x * (width / 2 - 0.08)
                b.frustum((at - 0.11, y * length, 0.32), (at + 0.11, y * length, 0.32), (0.33, 0.33), rubber)
                b.frustum((at - 0.12, y * length, 0.32), (at + 0.12, y * length, 0.32), (0.17, 0.17), metal)

    return Item((width, length, 1.4), build)


def van(draw: Draw) -> Item:
    """A van, truck or bus along y, its front at -y."""
    is_bus = draw.chance(0.4)
    length = draw.uniform(6.5, 9.0) if is_bus else draw.uniform(4.8, 6.2)
    width, height = draw.uniform(1.9, 2.4), draw.uniform(2.3, 2.9)
    coat = material_for(draw, "metal")
    load = coat if is_bus else material_for(draw, "metal")
    glass = _glass(draw, coat.first, (1.3, 5.0))
    tyre = paint(draw, (draw.uniform(0.05, 0.2),) * 3)

    def build(b: SceneBuilder, origin: Vector, yaw: float) -> None:
        b.place("vehicle", origin, yaw)
        skin, cargo, panes, rubber = (b.material(item) for item in (coat, load, glass, tyre))
        base = 0.4
        if is_bus:
            b.box((0, 0, (base + height) / 2), (width, length, height - base), skin)
            b.box((0, 0, height * 0.68), (width + 0.04, length * 0.97, height * 0.27), panes)
            b.box((0, -length / 2, height * 0.62), (width * 0.9, 0.06, height * 0.4), panes)
        else:
            front = 1.5
            b.box((0, front / 2, (base + height) / 2), (width, length - front, height - base), cargo)
            b.box(
                (0, -length / 2 + front / 2, base + height * 0.28), (width * 0.94, front, height * 0.56), skin
            )
            b.box(
                (0, -length / 2 + front * 0.55, height * 0.68),
                (width * 0.92, front * 0.85, height * 0.24),
                panes,
            )
        for x in (-1, 1):
            for y in (-0.33, 0.33):
                at = x * (width / 2 - 0.1)
                b.frustum((at - 0.14, y * length, 0.45), (at + 0.14, y * length, 0.45), (0.46, 0.46), rubber)

    return Item((width, length, height), build)


def tree(draw: Draw) -> Item:
    """A trunk with a crown of balls or a cone."""
    trunk, radius = draw.uniform(1.0, 2.2), draw.uniform(0.8, 1.5)
    leaves, bark = material_for(draw, "leaves"), material_for(draw, "furniture")
    conifer = draw.chance(0.3)
    blobs = [tuple(draw.uniform(-0.5, 0.5) for _ in range(3)) for _ in range(draw.integer(0, 2))]
    tall = draw.uniform(2.2, 4.0)
    thick = draw.uniform(0.1, 0.22)

    def build(b: SceneBuilder, origin: Vector, yaw: float) -> None:
        b.place("vegetation", origin, yaw)
        green, wood = b.material(leaves), b.material(bark)
        b.frustum((0, 0, 0), (0, 0, trunk + 0.4), (thick, thick * 0.7), wood)
        if conifer:
            b.frustum((0, 0, trunk * 0.6), (0, 0, trunk * 0.6 + tall), (radius, 0.05), green)
            return
        centre = trunk + radius * 0.8
        b.ellipsoid((0, 0, centre), (radius, radius, radius * 0.9), green)
        for x, y, z in blobs:
            b.ellipsoid((x * radius * 1.4, y * radius * 1.4, centre + z * radius), (radius * 0.7,) * 3, green)

    return Item((0.6, 0.6, trunk + 2 * radius), build)


def bush(draw: Draw) -> Item:
    """A round or clipped bush."""
    radius, height = draw.uniform(0.4, 0.9), draw.uniform(0.6, 1.3)
    leaves = material_for(draw, "leaves")
    clipped = draw.chance(0.3)

    def build(b: SceneBuilder, origin: Vector, yaw: float) -> None:
        b.place("vegetation", origin, yaw)
        green = b.material(leaves)
        if clipped:
            b.box((0, 0, height / 2), (radius * 2, radius * 2, height), green)
        else:
            b.ellipsoid((0, 0, height * 0.45), (radius, radius, height * 0.55), green)

    return Item((radius * 2, radius * 2, height), build)


def pole(draw: Draw) -> Item:
    """A street lamp, a traffic light, a sign or a plain mast."""
    height, radius = draw.uniform(2.6, 4.6), draw.uniform(0.08, 0.15)
    metal, plate = material_for(draw, "metal"), material_for(draw, "toy")
    style = draw.weighted({"lantern": 2, "sign": 3, "light": 2, "mast": 1})
    side = draw.sign()
    if style == "sign":
        height = draw.uniform(2.2, 2.9)

    def build(b: SceneBuilder, origin: Vector, yaw: float) -> None:
        b.place("pole", origin, yaw)
        steel, board = b.material(metal), b.material(plate)
        b.frustum((0, 0, 0), (0, 0, height), (radius, radius * 0.8), steel)
        b.frustum((0, 0, 0), (0, 0, 0.25), (radius * 1.8, radius * 1.3), steel)
        if style == "lantern":
            b.capsule((0, 0, height), (side * 1.0, 0, height + 0.15), radius * 0.7, steel)
            b.box((side * 1.1, 0, height + 0.15), (0.6, 0.25, 0.16), board)
        elif style == "sign":
            b.box((0, -radius - 0.03, height - 0.3), (0.75, 0.05, 0.65), board)
        elif style == "light":
            b.box((0, -radius - 0.08, height - 0.4), (0.34, 0.26, 0.9), board)
            b.box((0, -radius - 0.1, height - 0.4), (0.2, 0.28, 0.7), steel)

    return Item((0.5, 0.5, height), build)


def add_building(b: SceneBuilder, draw: Draw, low: Vector, high: Vector) -> None:
    """A building that fills the box between two corners, with windows, perhaps a door and a roof edge."""
    size = (high[0] - low[0], high[1] - low[1], high[2] - low[2])
    centre = ((high[0] + low[0]) / 2, (high[1] + low[1]) / 2, 0.0)
    b.place("building", centre)
    wall = material_for(draw, "facade")
    row = b.box((0, 0, (low[2] + high[2]) / 2), size, b.material(wall))
    if draw.chance(0.5):
        trim = b.material(paint(draw, near_colour(draw, wall.first, 0.5)))
        b.box((0, 0, high[2] + 0.12), (size[0] + 0.4, size[1] + 0.4, 0.3), trim)
    pane = near_colour(draw, any_colour(draw), 0.2) if draw.chance(0.4) else (draw.uniform(0.1, 0.4),) * 3
    glass = Material(
        first=(pane[0], pane[1], pane[2]),
        second=near_colour(draw, any_colour(draw), 0.3),
        noise=draw.choice((0.0, 0.7)),
        hashed=0.3,
        cell=(draw.uniform(0.4, 0.9),) * 2,
        third=near_colour(draw, any_colour(draw), 0.3),
        line=0.08,
        glow=draw.choice((0.0, 0.0, 0.3)),
    )
    pitch, storey = draw.uniform(1.9, 3.2), draw.uniform(2.6, 3.4)
    cells = (
        min(max(round(size[1] / pitch), 1), 15),
        min(max(round(size[0] / pitch), 1), 15),
        min(max(round(size[2] / storey), 1), 7),
    )
    facade = Facade(
        cells=cells,
        window=(draw.uniform(0.35, 0.65), draw.uniform(0.4, 0.65)),
        door=(
            draw.integer(0, max(min(cells[0], cells[1]) - 1, 0)),
            draw.uniform(1.1, 1.6),
            draw.uniform(2.0, 2.4),
        ),
        glass=b.material(glass),
        wood=b.material(_entrance(draw)),
        first_instance=b.reserve(FACADE_IDS),
    )
    b.facade(row, facade)


def _entrance(draw: Draw) -> Material:
    leaf = material_for(draw, "furniture")
    return (
        replace(tiles(draw, draw.uniform(0.4, 0.6)), first=leaf.first, second=leaf.first)
        if draw.chance(0.5)
        else leaf
    )

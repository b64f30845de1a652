"""Furniture and other objects for rooms and streets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from mtvision.data.synthetic.draw import Draw, Vector
from mtvision.data.synthetic.materials import (
    Material,
    any_colour,
    material_for,
    near_colour,
    paint,
    patches,
    tiles,
)
from mtvision.data.synthetic.scene import SceneBuilder

Build = Callable[[SceneBuilder, Vector, float], None]


@dataclass(frozen=True, slots=True)
class Item:
    """Something that can be put at a place.

    Args:
        size: width (x), depth (y) and height in metres.
        build: adds it to a scene at a point of the ground, turned by an angle.
        top: height of a surface that smaller things may stand on, or None.
    """

    size: Vector
    build: Build
    top: float | None = None


def table(draw: Draw, *, low: bool | None = None) -> Item:
    """Four legs, or one foot, under a square or round top."""
    low = draw.chance(0.3) if low is None else low
    height = draw.uniform(0.38, 0.5) if low else draw.uniform(0.68, 0.8)
    width, depth = draw.uniform(0.8, 1.6), draw.uniform(0.7, 1.0)
    thick, leg = draw.uniform(0.05, 0.1), draw.uniform(0.05, 0.09)
    is_round = draw.chance(0.3)
    surface = material_for(draw, "furniture")
    legs = surface if draw.chance(0.5) else paint(draw)
    if is_round:
        width = depth = draw.uniform(0.8, 1.2)

    def build(b: SceneBuilder, origin: Vector, yaw: float) -> None:
        b.place("table", origin, yaw)
        board, post = b.material(surface), b.material(legs)
        if is_round:
            b.frustum((0, 0, height - thick), (0, 0, height), (width / 2, width / 2), board)
            b.frustum((0, 0, 0.03), (0, 0, height - thick), (leg, leg), post)
            b.frustum((0, 0, 0), (0, 0, 0.04), (width * 0.3, width * 0.25), post)
            return
        b.box((0, 0, height - thick / 2), (width, depth, thick), board)
        x, y = width / 2 - leg / 2 - 0.02, depth / 2 - leg / 2 - 0.02
        for sx, sy in ((-1, -1), (1, -1), (-1, 1), (1, 1)):
            b.box((sx * x, sy * y, (height - thick) / 2), (leg, leg, height - thick), post)

    return Item((width, depth, height), build, top=height)


def chair(draw: Draw) -> Item:
    """A kitchen chair, a stool with a back, or an armchair."""
    seat = draw.uniform(0.42, 0.5)
    width = draw.uniform(0.42, 0.55)
    back = draw.uniform(0.4, 0.6)
    tilt = draw.uniform(0.05, 0.25)
    soft = draw.chance(0.35)
    cover = material_for(draw, "cloth" if soft or draw.chance(0.3) else "furniture")
    frame = cover if draw.chance(0.5) else material_for(draw, "furniture")
    if soft:
        width = draw.uniform(0.7, 0.9)

    def build(b: SceneBuilder, origin: Vector, yaw: float) -> None:
        b.place("chair", origin, yaw)
        cloth, wood = b.material(cover), b.material(frame)
        if soft:
            b.box((0, 0, seat * 0.55), (width, width, seat * 0.9), cloth)
            b.box((0, width * 0.42, seat + back / 2 - 0.05), (width, 0.16, back + 0.1), cloth, tilt=tilt)
            for side in (-1, 1):
                b.box((side * (width / 2), 0, seat * 0.7), (0.14, width * 0.95, seat * 1.2), wood)
            return
        b.box((0, 0, seat - 0.03), (width, width, 0.07), cloth)
        b.box((0, width / 2 - 0.02, seat + back / 2), (width, 0.06, back), cloth, tilt=tilt)
        x = width / 2 - 0.035
        for sx, sy in ((-1, -1), (1, -1), (-1, 1), (1, 1)):
            b.box((sx * x, sy * x, seat / 2 - 0.03), (0.055, 0.055, seat - 0.06), wood)

    return Item((width + 0.1, width + 0.1, seat + back), build)


def bed(draw: Draw) -> Item:
    """A bed; its head is at the back."""
    width, length = draw.uniform(0.95, 1.8), draw.uniform(1.9, 2.1)
    height, head = draw.uniform(0.4, 0.6), draw.uniform(0.7, 1.15)
    frame, sheet, pillow = (
        material_for(draw, "furniture"),
        material_for(draw, "cloth"),
        material_for(draw, "cloth"),
    )
    cover = material_for(draw, "cloth")
    covered = draw.uniform(0.5, 0.75)

    def build(b: SceneBuilder, origin: Vector, yaw: float) -> None:
        b.place("bed", origin, yaw)
        wood, linen, soft, top = (b.material(item) for item in (frame, sheet, pillow, cover))
        b.box((0, 0, height * 0.3), (width, length, height * 0.6), wood)
        b.box((0, -0.01, height * 0.8), (width * 0.96, length * 0.97, height * 0.4), linen)
        front = -length / 2 * 0.99 + length * covered / 2
        b.box((0, front, height * 0.82), (width * 1.03, length * covered, height * 0.5), top)
        b.box((0, length / 2 - 0.04, head / 2), (width * 1.04, 0.08, head), wood)
        for side in (-1, 1) if width > 1.3 else (0,):
            b.ellipsoid((side * width * 0.24, length / 2 - 0.35, height + 0.07), (0.32, 0.2, 0.11), soft)

    return Item((width * 1.05, length, height), build)


def cabinet(draw: Draw) -> Item:
    """A cupboard with doors, a chest of drawers, or a bookshelf."""
    width, depth = draw.uniform(0.7, 1.6), draw.uniform(0.4, 0.6)
    height = draw.uniform(0.7, 1.0) if draw.chance(0.4) else draw.uniform(1.5, 2.1)
    body = material_for(draw, "furniture")
    style = draw.weighted({"doors": 3, "drawers": 2, "shelf": 2})
    rows = max(2, round(height / draw.uniform(0.25, 0.4)))
    front = near_colour(draw, body.first, 0.3)
    columns = draw.integer(1, 3)
    line = near_colour(draw, front, 0.7)
    cell = (width * 0.94 / columns, height * 0.94 / (rows if style == "drawers" else draw.integer(1, 2)))
    # Cells count from the middle of the face; half a cell of shift is irrelevant to the eye.
    panel = replace(
        body, second=front, third=line, cell=cell, line=0.05, hashed=0.2, parity=0.0, angle=(1, 0)
    )
    books = [patches(draw, draw.uniform(0.04, 0.07)) for _ in range(rows)]
    books = [replace(item, cell=(item.cell[0], 5.0), line=0.12, angle=(1, 0)) for item in books]

    def build(b: SceneBuilder, origin: Vector, yaw: float) -> None:
        b.place("cabinet", origin, yaw)
        wood = b.material(body)
        if style != "shelf":
            b.box((0, 0.01, height / 2), (width, depth - 0.02, height), wood)
            b.box((0, -depth / 2 + 0.01, height / 2), (width * 0.94, 0.03, height * 0.94), b.material(panel))
            return
        b.box((0, depth / 2 - 0.02, height / 2), (width, 0.04, height), wood)
        for side in (-1, 1):
            b.box((side * (width / 2 - 0.02), 0, height / 2), (0.04, depth, height), wood)
        step = (height - 0.04) / rows
        for level in range(rows + 1):
            b.box((0, 0, 0.02 + level * step), (width, depth, 0.04), wood)
        for level in range(rows):
            tall = step * (0.55 + 0.07 * (level * 3 % 5))
            wide = width * (0.5 + 0.09 * (level * 2 % 5))
            x = (width - wide) * (0.45 if level % 2 else -0.45)
            b.box(
                (x, 0.03, 0.04 + level * step + tall / 2), (wide, depth * 0.7, tall), b.material(books[level])
            )

    return Item((width, depth, height), build, top=height if height < 1.2 else None)


def lamp(draw: Draw, *, on_table: bool = False) -> Item:
    """A floor lamp or a table lamp with a shade."""
    height = draw.uniform(0.45, 0.7) if on_table else draw.uniform(1.35, 1.8)
    wide = draw.uniform(0.13, 0.2) if on_table else draw.uniform(0.2, 0.32)
    narrow = wide * draw.uniform(0.4, 1.0)
    shade_height = wide * draw.uniform(1.2, 1.8)
    foot = paint(draw)
    shade = replace(material_for(draw, "cloth"), glow=draw.choice((0.0, 0.5, 0.8, 1.1)))
    bulb = draw.chance(0.25)

    def build(b: SceneBuilder, origin: Vector, yaw: float) -> None:
        b.place("lamp", origin, yaw)
        metal, cloth = b.material(foot), b.material(shade)
        b.frustum((0, 0, 0), (0, 0, 0.05), (wide * 0.75, wide * 0.6), metal)
        b.frustum((0, 0, 0), (0, 0, height - shade_height * 0.5), (0.028, 0.028), metal)
        if bulb:
            b.ellipsoid((0, 0, height - wide * 0.8), (wide * 0.8,) * 3, cloth)
        else:
            b.frustum((0, 0, height - shade_height), (0, 0, height), (wide, narrow), cloth)

    return Item((wide * 2, wide * 2, height), build)


def pendant(draw: Draw, ceiling: float) -> Item:
    """A lamp that hangs from the ceiling; its place is on the floor below."""
    wide = draw.uniform(0.18, 0.34)
    drop = draw.uniform(0.35, 0.8)
    shade = replace(material_for(draw, "cloth"), glow=draw.choice((0.0, 0.5, 0.8, 1.1)))
    style = draw.integer(0, 2)

    def build(b: SceneBuilder, origin: Vector, yaw: float) -> None:
        b.place("lamp", origin, yaw)
        cloth = b.material(shade)
        b.frustum((0, 0, ceiling - drop), (0, 0, ceiling), (0.02, 0.02), cloth)
        if style == 0:
            b.ellipsoid((0, 0, ceiling - drop), (wide, wide, wide * 0.8), cloth)
        else:
            flare = 0.35 if style == 1 else 0.9
            b.frustum(
                (0, 0, ceiling - drop - wide * 0.5),
                (0, 0, ceiling - drop + wide * 0.4),
                (wide, wide * flare),
                cloth,
            )

    return Item((wide * 2, wide * 2, 0.0), build)


def box(draw: Draw, *, small: bool = False) -> Item:
    """A carton, crate or suitcase, or a stack of two."""
    scale = draw.uniform(0.18, 0.32) if small else draw.uniform(0.4, 0.75)
    width, depth, height = (scale * draw.uniform(0.7, 1.3) for _ in range(3))
    cover = material_for(draw, "carton")
    tape = near_colour(draw, cover.first, 0.6)
    stacked = not small and draw.chance(0.35)
    second = material_for(draw, "carton")
    shrink, twist = draw.uniform(0.5, 0.85), draw.uniform(-0.5, 0.5)

    def build(b: SceneBuilder, origin: Vector, yaw: float) -> None:
        b.place("box", origin, yaw)
        b.box((0, 0, height / 2), (width, depth, height), b.material(cover))
        if cover.cell[0] > 10:
            b.box(
                (0, 0, height / 2),
                (width * 0.16, depth + 0.01, height + 0.01),
                b.material(Material(first=tape)),
            )
        if stacked:
            b.place("box", (origin[0], origin[1], origin[2] + height), yaw + twist)
            size = (width * shrink, depth * shrink, height * shrink)
            b.box((0, 0, size[2] / 2), size, b.material(second))

    return Item((width, depth, height), build)


def ball(draw: Draw, *, small: bool = False) -> Item:
    """A ball on the ground."""
    radius = draw.uniform(0.1, 0.16) if small else draw.uniform(0.22, 0.45)
    cover = material_for(draw, "toy")
    if cover.cell[0] < 10:
        cover = replace(cover, cell=(radius * 0.7, radius * 0.7 if cover.cell[1] < 10 else cover.cell[1]))

    def build(b: SceneBuilder, origin: Vector, yaw: float) -> None:
        b.place("ball", origin, yaw)
        b.ellipsoid((0, 0, radius), (radius, radius, radius), b.material(cover))

    return Item((radius * 2, radius * 2, radius * 2), build)


def picture(draw: Draw) -> Item:
    """A framed painting; hangs with its back at y = 0 and its lower edge at z = 0."""
    width, height = draw.uniform(0.6, 1.4), draw.uniform(0.5, 1.1)
    frame = paint(draw) if draw.chance(0.5) else material_for(draw, "furniture")
    canvas = patches(draw, draw.uniform(0.08, 0.4)) if draw.chance(0.6) else material_for(draw, "wall")
    edge = draw.uniform(0.04, 0.09)

    def build(b: SceneBuilder, origin: Vector, yaw: float) -> None:
        b.place("picture", origin, yaw)
        b.box((0, -0.02, height / 2), (width, 0.04, height), b.material(frame), casts=False)
        size = (width - 2 * edge, 0.03, height - 2 * edge)
        b.box((0, -0.03, height / 2), size, b.material(canvas), casts=False)

    return Item((width, 0.06, height), build)


def window(draw: Draw, outside: Vector) -> Item:
    """A window with a frame and panes that let light in; back at y = 0, z = its sill."""
    width, height = draw.uniform(0.8, 1.8), draw.uniform(0.9, 1.4)
    frame = paint(draw, near_colour(draw, any_colour(draw), 0.2))
    pane = Material(
        first=near_colour(draw, outside, 0.15),
        second=near_colour(draw, outside, 0.35),
        third=frame.first,
        cell=(width / draw.integer(1, 3), height / draw.integer(1, 2)),
        line=0.07,
        noise=0.6,
        glow=draw.uniform(0.25, 0.8),
    )

    def build(b: SceneBuilder, origin: Vector, yaw: float) -> None:
        b.place("window", origin, yaw)
        b.box((0, -0.015, height / 2), (width, 0.03, height), b.material(frame), casts=False)
        b.box((0, -0.02, height / 2), (width - 0.14, 0.03, height - 0.14), b.material(pane), casts=False)
        b.box((0, -0.06, 0.0), (width + 0.1, 0.12, 0.05), b.material(frame), casts=False)

    return Item((width, 0.1, height), build)


def door(draw: Draw) -> Item:
    """A door with its frame and knob; back at y = 0."""
    width, height = draw.uniform(0.8, 1.05), draw.uniform(1.95, 2.15)
    leaf = material_for(draw, "furniture")
    frame = paint(draw, near_colour(draw, leaf.first, 0.4))
    panels = draw.chance(0.5)
    panel = replace(tiles(draw, width * 0.42), first=leaf.first, second=leaf.first, angle=(1.0, 0.0))
    knob = paint(draw)

    def build(b: SceneBuilder, origin: Vector, yaw: float) -> None:
        b.place("door", origin, yaw)
        b.box((0, -0.02, height / 2), (width + 0.16, 0.04, height + 0.08), b.material(frame), casts=False)
        surface = b.material(panel if panels else leaf)
        b.box((0, -0.035, height / 2), (width, 0.03, height), surface, casts=False)
        b.ellipsoid((width * 0.4, -0.09, 1.0), (0.045, 0.045, 0.045), b.material(knob))

    return Item((width + 0.16, 0.1, height), build)

"""Surfaces: one parametric texture that can be paint, stripes, bricks, planks, tiles or cloth.

A texture is defined in metres on the surface. Its plane is cut into cells (columns and rows, rows may be
shifted). A cell's colour lies between the first and the second colour. It is chosen by parity (checker,
stripes), by a hash of the cell (bricks, planks) or by smooth noise (plaster, foliage). Lines between cells
have the third colour.

No colour and no texture belongs to one class: all kinds of object draw from the same hues, and from
overlapping sets of textures.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from mtvision.data.synthetic.draw import Draw, Vector, from_hsv, turn

ENDLESS = 1e6
"""Cell size that never ends: turns a grid into stripes or a plain surface."""


@dataclass(frozen=True, slots=True)
class Material:
    """Appearance of a surface.

    Args:
        first: RGB in 0..1 as displayed.
        second: the other end of the cell colours.
        third: RGB of lines between cells.
        cell: width and height of a cell in metres.
        angle: cosine and sine of the texture's turn within the surface.
        shift: columns by which each row moves against the one below.
        parity: weight of the checker pattern, 0..1.
        hashed: weight of the random brightness per cell, 0..1.
        noise: weight of smooth noise, 0..1.
        line: width of lines as a fraction of a cell; 0 = none.
        grain: strength of the fine noise on brightness.
        stretch: how much longer than wide the noise is (wood).
        glow: light that the surface gives off itself.
    """

    first: Vector
    second: Vector = (0.0, 0.0, 0.0)
    third: Vector = (0.0, 0.0, 0.0)
    cell: tuple[float, float] = (ENDLESS, ENDLESS)
    angle: tuple[float, float] = (1.0, 0.0)
    shift: float = 0.0
    parity: float = 0.0
    hashed: float = 0.0
    noise: float = 0.0
    line: float = 0.0
    grain: float = 0.1
    stretch: float = 1.0
    glow: float = 0.0


def any_colour(draw: Draw) -> Vector:
    """A colour of the palette that all classes share: muted more often than vivid."""
    how = draw.random()
    if how < 0.4:
        saturation = draw.uniform(0.02, 0.25)
    elif how < 0.8:
        saturation = draw.uniform(0.25, 0.55)
    else:
        saturation = draw.uniform(0.55, 0.95)
    return from_hsv(draw.random(), saturation, draw.uniform(0.25, 0.95))


def strong_colour(draw: Draw) -> Vector:
    """A vivid colour of the same hues: what toys and clothes have more often than walls."""
    return from_hsv(draw.random(), draw.uniform(0.45, 0.95), draw.uniform(0.45, 0.95))


def near_colour(draw: Draw, colour: Vector, spread: float) -> Vector:
    """A colour that differs from `colour` by up to `spread` in brightness and a little in hue."""
    factor = draw.uniform(1 - spread, 1 + spread)
    red, green, blue = (min(max(value * factor + draw.uniform(-0.06, 0.06), 0.02), 1.0) for value in colour)
    return red, green, blue


def paint(draw: Draw, colour: Vector | None = None) -> Material:
    """One colour with a little grain."""
    return Material(first=colour or any_colour(draw), grain=draw.uniform(0.03, 0.15))


def plaster(draw: Draw) -> Material:
    """Two similar colours in smooth noise: plaster, carpet, concrete."""
    first = any_colour(draw)
    return Material(
        first=first,
        second=near_colour(draw, first, 0.45),
        noise=1.0,
        grain=draw.uniform(0.05, 0.3),
        angle=turn(draw.uniform(0, 3.1)),
    )


def stripes(draw: Draw, width: float | None = None) -> Material:
    """Stripes of two colours, upright, level or slanted."""
    first = any_colour(draw)
    second = near_colour(draw, first, 0.5) if draw.chance(0.5) else any_colour(draw)
    angle = draw.choice((0.0, 1.5707963268, draw.uniform(0, 3.1)))
    return Material(
        first=first,
        second=second,
        parity=1.0,
        angle=turn(angle),
        cell=(width or draw.uniform(0.08, 0.35), ENDLESS),
        grain=0.08,
    )


def checker(draw: Draw, size: float | None = None) -> Material:
    """A chessboard of two colours."""
    side = size or draw.uniform(0.15, 0.5)
    first = any_colour(draw)
    second = near_colour(draw, first, 0.6) if draw.chance(0.5) else any_colour(draw)
    return Material(first=first, second=second, parity=1.0, cell=(side, side), grain=0.08)


def tiles(draw: Draw, size: float | None = None) -> Material:
    """Square tiles with joints."""
    side = size or draw.uniform(0.2, 0.6)
    first = any_colour(draw)
    return Material(
        first=first,
        second=near_colour(draw, first, 0.3),
        third=near_colour(draw, first, 0.7),
        hashed=0.6,
        line=0.08,
        cell=(side, side * draw.choice((1.0, 1.0, 2.0))),
        grain=0.08,
    )


def bricks(draw: Draw) -> Material:
    """Bricks or stones in courses, shifted by half."""
    first = any_colour(draw)
    width = draw.uniform(0.25, 0.6)
    return Material(
        first=first,
        second=near_colour(draw, first, 0.5),
        third=near_colour(draw, any_colour(draw), 0.3),
        hashed=0.9,
        line=0.1,
        shift=0.5,
        cell=(width, width * draw.uniform(0.3, 0.5)),
        grain=0.15,
    )


def wood(draw: Draw, plank: float | None = None) -> Material:
    """Boards with a stretched grain; usually brown, sometimes stained in any colour."""
    if draw.chance(0.7):
        first = from_hsv(draw.uniform(0.04, 0.12), draw.uniform(0.25, 0.7), draw.uniform(0.3, 0.85))
    else:
        first = any_colour(draw)
    width = plank or draw.uniform(0.1, 0.22)
    return Material(
        first=first,
        second=near_colour(draw, first, 0.45),
        third=near_colour(draw, first, 0.8),
        hashed=0.5,
        noise=0.5,
        line=0.05,
        shift=0.37,
        cell=(width * 9, width),
        angle=turn(draw.choice((0.0, 1.5707963268))),
        grain=0.1,
        stretch=8.0,
    )


def patches(draw: Draw, size: float | None = None) -> Material:
    """Cells of random brightness: books, paintings, patchwork."""
    width = size or draw.uniform(0.05, 0.2)
    return Material(
        first=any_colour(draw),
        second=any_colour(draw),
        third=any_colour(draw),
        hashed=1.0,
        noise=0.3,
        line=draw.choice((0.0, 0.1, 0.2)),
        shift=draw.choice((0.0, 0.37)),
        cell=(width, width * draw.choice((1.0, 1.7, 3.0))),
        grain=0.1,
    )


def foliage(draw: Draw) -> Material:
    """Leaves: strong grain; green more often than not, else autumn or blossom."""
    if draw.chance(0.65):
        first = from_hsv(draw.uniform(0.2, 0.42), draw.uniform(0.3, 0.75), draw.uniform(0.25, 0.7))
    else:
        first = from_hsv(draw.uniform(-0.1, 0.16), draw.uniform(0.3, 0.75), draw.uniform(0.35, 0.9))
    return Material(
        first=first, second=near_colour(draw, first, 0.6), noise=1.0, grain=draw.uniform(0.4, 0.8)
    )


_MAKERS = {
    "paint": paint,
    "plaster": plaster,
    "stripes": stripes,
    "checker": checker,
    "tiles": tiles,
    "bricks": bricks,
    "wood": wood,
    "patches": patches,
    "foliage": foliage,
}

_USES: dict[str, dict[str, float]] = {
    "wall": {"paint": 4, "plaster": 3, "stripes": 2, "bricks": 2, "tiles": 1, "patches": 0.5, "wood": 1},
    "floor": {"wood": 4, "tiles": 3, "plaster": 3, "checker": 2, "patches": 0.5, "paint": 0.5},
    "ceiling": {"paint": 6, "plaster": 3, "tiles": 1, "wood": 1},
    "furniture": {"wood": 5, "paint": 4, "plaster": 1, "stripes": 0.5, "checker": 0.5},
    "cloth": {"paint": 3, "stripes": 2, "checker": 2, "plaster": 2, "patches": 1},
    "clothes": {"paint": 8, "stripes": 1, "checker": 0.5, "plaster": 1},
    "toy": {"paint": 3, "stripes": 3, "checker": 3, "patches": 1, "plaster": 1},
    "carton": {"paint": 4, "plaster": 2, "wood": 2, "stripes": 1, "patches": 1, "checker": 0.5},
    "road": {"plaster": 6, "paint": 1, "bricks": 1, "tiles": 0.5},
    "pavement": {"tiles": 5, "bricks": 2, "checker": 1, "plaster": 2},
    "facade": {"paint": 2, "plaster": 3, "bricks": 4, "wood": 1, "tiles": 1, "stripes": 0.5},
    "metal": {"paint": 5, "plaster": 1, "stripes": 0.5},
    "leaves": {"foliage": 1},
}

_VIVID = ("toy", "clothes")
_LARGE = ("wall", "floor", "ceiling", "road", "pavement", "facade")


def material_for(draw: Draw, use: str) -> Material:
    """A random surface for one use (`wall`, `floor`, `furniture`, `cloth` ...); uses share most textures.

    Large surfaces are bleached by a random amount, so that few rooms and streets are garish; toys and clothes
    are more often vivid.
    """
    material = _MAKERS[draw.weighted(_USES[use])](draw)
    if use in _VIVID and draw.chance(0.6):
        return replace(material, first=strong_colour(draw))
    if use not in _LARGE:
        return material
    share = draw.uniform(0.0, 0.85)
    first, second, third = (
        _bleached(colour, share) for colour in (material.first, material.second, material.third)
    )
    return replace(material, first=first, second=second, third=third)


def _bleached(colour: Vector, share: float) -> Vector:
    """The colour mixed with the grey of the same brightness."""
    gray = 0.3 * colour[0] + 0.6 * colour[1] + 0.1 * colour[2]
    red, green, blue = (value + share * (gray - value) for value in colour)
    return red, green, blue

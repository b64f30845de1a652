"""Streets: a road between pavements, buildings and gardens, closed at its end, with traffic and people."""

from __future__ import annotations

from dataclasses import dataclass

from mtvision.data.synthetic import furniture, outdoors
from mtvision.data.synthetic.draw import Draw, Vector, from_hsv, unit
from mtvision.data.synthetic.figure import add_person
from mtvision.data.synthetic.materials import Material, material_for, near_colour
from mtvision.data.synthetic.plan import Plan
from mtvision.data.synthetic.room import Shot, camera_exposure
from mtvision.data.synthetic.scene import Lamp, Scene, SceneBuilder, Sky

KERB = 0.14
"""Height of pavements in metres."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Half width of the road, width of the pavements, and where the street ends (y), metres."""

    road: float
    pavement: float
    end: float

    @property
    def front(self) -> float:
        """Distance of house fronts from the middle of the road."""
        return self.road + self.pavement


def make_street(draw: Draw) -> Scene:
    """A random street seen from the road or a pavement."""
    layout = Layout(draw.uniform(2.4, 4.2), draw.uniform(1.6, 2.8), draw.uniform(14.0, 20.0))
    x = draw.uniform(-1, 1) * (layout.front - 0.7)
    ground = KERB if abs(x) > layout.road else 0.0
    yaw = draw.uniform(-0.3, 0.3) - x / layout.front * draw.uniform(0.0, 0.45)
    shot = Shot(
        eye=(x, 0.0, ground + draw.uniform(1.4, 1.9)),
        yaw=yaw,
        pitch=draw.uniform(-0.2, 0.06),
        roll=draw.uniform(-0.05, 0.05),
        fov=draw.uniform(1.1, 1.35),
    )
    builder = SceneBuilder()
    _ground(builder, draw, layout)
    for side in (-1.0, 1.0):
        _houses(builder, draw, layout, side)
    _close(builder, draw, layout)
    bounds = (-layout.front, layout.front, -2.0, layout.end)
    plan = Plan(draw, (x, 0.0), yaw, shot.fov, bounds)
    _subject(builder, draw, plan, layout)
    _traffic(builder, draw, plan, layout)
    _pavement_things(builder, draw, plan, layout)
    lamp, sky = _weather(draw)
    return builder.build(
        shot.camera(), lamp, sky, seed=draw.integer(0, 2**30), exposure=camera_exposure(draw)
    )


def _ground(builder: SceneBuilder, draw: Draw, layout: Layout) -> None:
    end, back = layout.end + 6, -3.0
    middle, length = (end + back) / 2, end - back
    builder.place("road")
    road = material_for(draw, "road")
    builder.box((0, middle, -0.5), (2 * layout.road + 0.2, length, 1.0), builder.material(road), casts=False)
    if draw.chance(0.6):
        paint = builder.material(Material(first=near_colour(draw, (0.85, 0.85, 0.8), 0.15)))
        gap = draw.uniform(2.0, 3.5)
        for step in range(int(length / gap)):
            at = back + gap * (step + 0.5)
            builder.box((0, at, 0.002), (0.16, gap * 0.5, 0.008), paint, casts=False)
    surface = builder.material(material_for(draw, "pavement"))
    stone = builder.material(Material(first=near_colour(draw, road.first, 0.5)))
    for side in (-1, 1):
        builder.place("sidewalk")
        x = side * (layout.road + layout.pavement / 2)
        builder.box((x, middle, KERB / 2 - 0.4), (layout.pavement, length, KERB + 0.8), surface, casts=False)
        edge = side * (layout.road + 0.06)
        builder.box((edge, middle, KERB / 2 - 0.39), (0.16, length, KERB + 0.8), stone, casts=False)


def _houses(builder: SceneBuilder, draw: Draw, layout: Layout, side: float) -> None:
    """Buildings, and gardens behind hedges, along one side."""
    lawn = builder.material(material_for(draw, "leaves"))
    y = -3.0
    while y < layout.end:
        length = min(draw.uniform(5.0, 10.0), layout.end + 1 - y)
        inner = side * layout.front
        outer = side * (layout.front + 7.0)
        left, right = min(inner, outer), max(inner, outer)
        if draw.chance(0.72):
            outdoors.add_building(
                builder, draw, (left, y, -0.1), (right, y + length - 0.05, draw.uniform(3.2, 10.0))
            )
        else:
            builder.place("vegetation")
            builder.box(((left + right) / 2, y + length / 2, -0.3), (7.0, length, 0.9), lawn, casts=False)
            hedge = builder.material(material_for(draw, "leaves"))
            tall = draw.uniform(1.8, 3.5)
            builder.box((side * (layout.front + 5.0), y + length / 2, tall / 2), (1.0, length, tall), hedge)
            if draw.chance(0.8) and y > 0:
                item = outdoors.tree(draw) if draw.chance(0.7) else outdoors.bush(draw)
                at = (
                    side * (layout.front + draw.uniform(1.2, 2.6)),
                    y + length * draw.uniform(0.3, 0.7),
                    0.1,
                )
                item.build(builder, at, draw.uniform(-3, 3))
        y += length


def _close(builder: SceneBuilder, draw: Draw, layout: Layout) -> None:
    """What stands across the end of the street."""
    low, high = layout.end + draw.uniform(0.5, 3.0), layout.end + 6.0
    if draw.chance(0.6):
        x = -16.0
        while x < 16.0:
            width = draw.uniform(6.0, 12.0)
            outdoors.add_building(
                builder, draw, (x, low, -0.1), (x + width - 0.05, high, draw.uniform(3.0, 9.0))
            )
            x += width
        return
    builder.place("vegetation")
    hedge = builder.material(material_for(draw, "leaves"))
    builder.box((0, (low + high) / 2, 1.0), (40.0, high - low, draw.uniform(2.0, 4.0)), hedge)
    for _ in range(draw.integer(1, 4)):
        outdoors.tree(draw).build(builder, (draw.uniform(-6, 6), low - 0.3, 0.0), 0.0)


def _floor(layout: Layout, x: float) -> float:
    return KERB if abs(x) > layout.road else 0.0


def _subject(builder: SceneBuilder, draw: Draw, plan: Plan, layout: Layout) -> None:
    """Something near the middle of the picture."""
    kind = draw.weighted({"person": 7, "vehicle": 2, "pole": 2, "ball": 2, "box": 2, "chair": 1, "table": 1})
    if kind == "vehicle":
        _park(builder, draw, plan, 5.0, 9.0)
        return
    place = plan.spot(0.4, 1.5, 3.8, width=0.45)
    if place is None:
        return
    origin = (*place, _floor(layout, place[0]))
    if kind == "person":
        add_person(builder, draw, origin, draw.uniform(-3.1, 3.1))
        return
    makers = {
        "pole": outdoors.pole,
        "ball": furniture.ball,
        "box": furniture.box,
        "chair": furniture.chair,
        "table": furniture.table,
    }
    makers[kind](draw).build(builder, origin, draw.uniform(-3.1, 3.1))


def _park(builder: SceneBuilder, draw: Draw, plan: Plan, near: float, far: float) -> bool:
    """A vehicle in a lane, pointing along the road."""
    item = outdoors.car(draw) if draw.chance(0.7) else outdoors.van(draw)
    width, length, _ = item.size
    for _ in range(5):
        _, y = plan.ahead(near, far)
        inner = max(plan.bounds[1] - width / 2 - 2.0, 0.2)
        x = draw.sign() * draw.uniform(0.5, 1.0) * inner
        place = (x - width / 2, x + width / 2, y - length / 2, y + length / 2)
        if plan.is_free(place, clear=2.2):
            plan.take(place)
            yaw = (0.0 if x < 0 else 3.1415926536) + draw.uniform(-0.12, 0.12)
            item.build(builder, (x, y, 0.0), yaw)
            return True
    return False


def _traffic(builder: SceneBuilder, draw: Draw, plan: Plan, layout: Layout) -> None:
    """Vehicles on the road and people anywhere."""
    for _ in range(draw.integer(1, 3)):
        _park(builder, draw, plan, 4.5, layout.end - 2)
    for _ in range(draw.integer(0, 3)):
        place = plan.spot(0.35, 1.8, 7.0)
        if place is not None:
            add_person(builder, draw, (*place, _floor(layout, place[0])), draw.uniform(-3.1, 3.1))


def _pavement_things(builder: SceneBuilder, draw: Draw, plan: Plan, layout: Layout) -> None:
    """Poles and trees in rows, cafe furniture, boxes and balls."""
    for side in (-1.0, 1.0):
        x = side * (layout.road + draw.uniform(0.3, 0.6))
        y, step = draw.uniform(2.0, 6.0), draw.uniform(4.0, 8.0)
        planted = draw.chance(0.4)
        while y < layout.end - 1:
            place = (x - 0.3, x + 0.3, y - 0.3, y + 0.3)
            wants_tree = planted and draw.chance(0.6)
            if plan.is_free(place, clear=2.4 if wants_tree else 1.6):
                plan.take(place)
                item = outdoors.tree(draw) if wants_tree else outdoors.pole(draw)
                item.build(builder, (x, y, KERB), draw.choice((0.0, 0.3, 3.1)))
            y += step * draw.uniform(0.8, 1.3)
    for _ in range(draw.integer(1, 4)):
        kind = draw.weighted({"box": 3, "ball": 3, "bush": 2, "chair": 2, "table": 2})
        makers = {
            "box": furniture.box,
            "ball": furniture.ball,
            "bush": outdoors.bush,
            "chair": furniture.chair,
            "table": furniture.table,
        }
        item = makers[kind](draw)
        spot = plan.spot(max(item.size[:2]) / 2, 1.8, 7.0)
        if spot is not None and not (kind == "bush" and abs(spot[0]) < layout.road):
            item.build(builder, (*spot, _floor(layout, spot[0])), draw.uniform(-3.1, 3.1))


def _weather(draw: Draw) -> tuple[Lamp, Sky]:
    """Sun and sky: clear, cloudy, dusk."""
    mood = draw.weighted({"clear": 4, "overcast": 3, "dusk": 2})
    direction: Vector = unit((draw.uniform(-1, 1), draw.uniform(-1, 0.7), draw.uniform(0.45, 1.3)))
    if mood == "clear":
        sun, ambient, shadow = draw.uniform(0.6, 0.9), draw.uniform(0.35, 0.45), draw.uniform(0.7, 1.0)
        zenith = from_hsv(draw.uniform(0.53, 0.63), draw.uniform(0.3, 0.7), draw.uniform(0.65, 0.95))
        cover = draw.uniform(0.1, 0.55)
    elif mood == "overcast":
        sun, ambient, shadow = draw.uniform(0.15, 0.3), draw.uniform(0.5, 0.7), draw.uniform(0.0, 0.4)
        zenith = from_hsv(draw.uniform(0.5, 0.7), draw.uniform(0.0, 0.12), draw.uniform(0.55, 0.95))
        cover = draw.uniform(0.3, 0.9)
    else:
        sun, ambient, shadow = draw.uniform(0.5, 0.8), draw.uniform(0.3, 0.4), draw.uniform(0.6, 1.0)
        zenith = from_hsv(draw.uniform(0.6, 1.1), draw.uniform(0.2, 0.6), draw.uniform(0.35, 0.8))
        cover = draw.uniform(0.1, 0.7)
    horizon = near_colour(draw, (0.9, 0.88, 0.85) if mood != "dusk" else (0.95, 0.7, 0.5), 0.15)
    warm = draw.uniform(0.0, 0.15) if mood != "dusk" else draw.uniform(0.15, 0.4)
    lamp = Lamp(
        at=direction,
        is_sun=True,
        colour=(sun, sun * (1 - warm / 2), sun * (1 - warm)),
        ambient=(ambient, ambient, ambient * 1.05),
        shadow=shadow,
    )
    cloud = near_colour(draw, (0.9, 0.9, 0.92) if mood != "dusk" else (0.8, 0.6, 0.6), 0.2)
    return lamp, Sky(horizon, zenith, cloud, cover, draw.integer(0, 9999))

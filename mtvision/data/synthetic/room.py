"""Rooms: walls with windows, doors and pictures, furniture, clutter and people."""

from __future__ import annotations

from dataclasses import dataclass

from mtvision.data.synthetic import furniture
from mtvision.data.synthetic.draw import Draw, Vector, from_hsv, turn
from mtvision.data.synthetic.figure import add_person
from mtvision.data.synthetic.furniture import Item
from mtvision.data.synthetic.materials import any_colour, material_for, near_colour, paint
from mtvision.data.synthetic.plan import Plan
from mtvision.data.synthetic.scene import Camera, Lamp, Scene, SceneBuilder


@dataclass(frozen=True, slots=True)
class Shot:
    """Eye position, and yaw, pitch, roll and horizontal field of view in radians."""

    eye: Vector
    yaw: float
    pitch: float
    roll: float
    fov: float

    def camera(self) -> Camera:
        """The camera."""
        return Camera.aimed(self.eye, yaw=self.yaw, pitch=self.pitch, roll=self.roll, fov=self.fov)


def make_room(draw: Draw) -> Scene:
    """A random room seen from near one of its walls."""
    width, length, height = draw.uniform(3.4, 6.5), draw.uniform(3.8, 7.0), draw.uniform(2.35, 3.1)
    x, y = draw.uniform(-0.38, 0.38) * width, draw.uniform(0.35, 0.25 * length)
    aim = draw.uniform(-0.45, 0.45) * width - x
    yaw = aim / (length - y) * 0.9 + draw.uniform(-0.15, 0.15)
    shot = Shot(
        eye=(x, y, draw.uniform(1.2, 1.7)),
        yaw=yaw,
        pitch=draw.uniform(-0.3, 0.06),
        roll=draw.uniform(-0.06, 0.06),
        fov=draw.uniform(1.1, 1.35),
    )
    builder = SceneBuilder()
    surfaces = tuple(builder.material(material_for(draw, use)) for use in ("wall", "floor", "ceiling"))
    low, high = (-width / 2, 0.0, 0.0), (width / 2, length, height)
    builder.room(low, high, (surfaces[0], surfaces[1], surfaces[2]))
    plan = Plan(draw, (x, y), yaw, shot.fov, (-width / 2, width / 2, 0.0, length))
    _decorate(builder, draw, plan, height)
    _furnish(builder, draw, plan)
    _clutter(builder, draw, plan, height)
    return builder.build(
        shot.camera(),
        _light(draw, width, length, height),
        seed=draw.integer(0, 2**30),
        exposure=camera_exposure(draw),
    )


def camera_exposure(draw: Draw) -> Vector:
    """Exposure with a tint."""
    level = draw.uniform(0.9, 1.3)
    warm = draw.uniform(-0.12, 0.12)
    return level * (1 + warm), level, level * (1 - warm)


def _light(draw: Draw, width: float, length: float, height: float) -> Lamp:
    warm = draw.uniform(0.0, 0.2)
    strength, ambient = draw.uniform(0.45, 0.95), draw.uniform(0.35, 0.55)
    at = (
        draw.uniform(-0.35, 0.35) * width,
        draw.uniform(0.15, 0.8) * length,
        height - draw.uniform(0.1, 0.7),
    )
    return Lamp(
        at=at,
        is_sun=False,
        colour=(strength, strength * (1 - warm / 2), strength * (1 - warm)),
        ambient=(ambient,) * 3,
        reference=draw.uniform(2.0, 4.0),
        shadow=draw.uniform(0.5, 1.0),
    )


def put(
    builder: SceneBuilder, plan: Plan, item: Item, near: float, far: float, *, width: float = 0.85
) -> bool:
    """Stand an item at a free visible place, turned anyhow; whether there was one."""
    radius = max(item.size[0], item.size[1]) / 2 * 1.1
    place = plan.spot(radius, near, far, width=width)
    if place is None:
        return False
    item.build(builder, (*place, 0.0), plan.draw.uniform(-3.1, 3.1))
    return True


def _decorate(builder: SceneBuilder, draw: Draw, plan: Plan, height: float) -> None:
    """Windows, doors and pictures that do not overlap along the walls."""
    used: list[tuple[float, float, float]] = []
    outside = from_hsv(draw.uniform(0.5, 0.65), draw.uniform(0.0, 0.5), draw.uniform(0.6, 1.0))
    if draw.chance(0.3):
        outside = any_colour(draw)
    for _ in range(draw.integer(3, 6)):
        kind = draw.weighted({"door": 3, "window": 4, "picture": 4})
        if kind == "door":
            item, base = furniture.door(draw), 0.0
        elif kind == "window":
            item, base = furniture.window(draw, outside), draw.uniform(0.75, 0.95)
        else:
            item = furniture.picture(draw)
            base = min(draw.uniform(1.0, 1.4), height - item.size[2] - 0.1)
        place = plan.wall_spot(item.size[0] + 0.15, 0.1, ground=False)
        if place is None:
            continue
        x, y, yaw = place
        along = x if abs(yaw) < 0.1 or abs(yaw) > 3 else y
        reach = item.size[0] / 2 + 0.1
        if any(wall == yaw and abs(along - middle) < reach + half for wall, middle, half in used):
            continue
        used.append((yaw, along, reach))
        item.build(builder, (x, y, base), yaw)
        if kind == "door":
            # Keep the way free: half a metre in front of the door.
            cx, cy = turn(yaw)[1] * 0.25, -turn(yaw)[0] * 0.25
            plan.take((x + cx - 0.4, x + cx + 0.4, y + cy - 0.4, y + cy + 0.4))


def _furnish(builder: SceneBuilder, draw: Draw, plan: Plan) -> None:
    """Beds and cabinets along the walls, a table with chairs, people."""
    if draw.chance(0.4):
        _against_wall(builder, plan, furniture.bed(draw))
    if draw.chance(0.65):
        _dining(builder, draw, plan)
    for _ in range(draw.integer(0, 2)):
        item = furniture.cabinet(draw)
        _against_wall(builder, plan, item)
    if draw.chance(0.4):
        add = plan.spot(0.32, 1.2, 3.4)
        if add is not None:
            add_person(builder, draw, (*add, 0.0), draw.uniform(-3.1, 3.1))
    if draw.chance(0.3):
        _sitting(builder, draw, plan)


def _against_wall(builder: SceneBuilder, plan: Plan, item: Item) -> bool:
    place = plan.wall_spot(item.size[0], item.size[1] + 0.02)
    if place is None:
        return False
    x, y, yaw = place
    c, s = turn(yaw)
    back = item.size[1] / 2 + 0.02
    origin = (x + s * back, y - c * back, 0.0)
    item.build(builder, origin, yaw)
    if item.top and plan.draw.chance(0.6):
        _load(builder, plan.draw, item, origin, yaw)
    return True


def _load(builder: SceneBuilder, draw: Draw, item: Item, origin: Vector, yaw: float) -> None:
    """Put one or two small things on top of an item."""
    assert item.top is not None
    c, s = turn(yaw)
    for side in (-1.0, 1.0):
        if draw.chance(0.35):
            continue
        what = draw.weighted({"lamp": 3, "box": 3, "ball": 2})
        small = (
            furniture.lamp(draw, on_table=True)
            if what == "lamp"
            else furniture.box(draw, small=True)
            if what == "box"
            else furniture.ball(draw, small=True)
        )
        x, y = side * item.size[0] * draw.uniform(0.15, 0.28), item.size[1] * draw.uniform(-0.15, 0.15)
        at = (origin[0] + c * x - s * y, origin[1] + s * x + c * y, origin[2] + item.top)
        small.build(builder, at, draw.uniform(-3, 3))


def _dining(builder: SceneBuilder, draw: Draw, plan: Plan) -> None:
    """A table with chairs around it."""
    item = furniture.table(draw)
    radius = (item.size[0] + item.size[1]) / 4 + 0.1
    place = plan.spot(radius, 1.0, 4.0)
    if place is None:
        return
    yaw = draw.uniform(-0.5, 0.5) + draw.choice((0.0, 1.57))
    origin = (*place, 0.0)
    item.build(builder, origin, yaw)
    if draw.chance(0.7):
        _load(builder, draw, item, origin, yaw)
    c, s = turn(yaw)
    model = furniture.chair(draw)
    for x, y, angle in ((0.0, -1.0, 3.14159), (0.0, 1.0, 0.0), (1.0, 0.0, -1.5708), (-1.0, 0.0, 1.5708)):
        if draw.chance(0.45):
            continue
        out = 0.3 + draw.uniform(-0.1, 0.25)
        dx, dy = x * (item.size[0] / 2 + out), y * (item.size[1] / 2 + out)
        at = (place[0] + c * dx - s * dy, place[1] + s * dx + c * dy)
        spot = (at[0] - 0.24, at[0] + 0.24, at[1] - 0.24, at[1] + 0.24)
        # The chair may reach under the table, so only other things are asked for.
        others, plan.taken = plan.taken, [other for other in plan.taken if not _holds(other, place)]
        free = plan.is_free(spot)
        plan.taken = others
        if free:
            plan.take(spot)
            model.build(builder, (*at, 0.0), yaw + angle + draw.uniform(-0.3, 0.3))


def _holds(place: tuple[float, float, float, float], point: tuple[float, float]) -> bool:
    return place[0] <= point[0] <= place[1] and place[2] <= point[1] <= place[3]


def _sitting(builder: SceneBuilder, draw: Draw, plan: Plan) -> None:
    """Somebody on a chair or a box."""
    place = plan.spot(0.45, 1.0, 3.4)
    if place is None:
        return
    yaw = draw.uniform(-3.1, 3.1)
    origin = (*place, 0.0)
    builder.place("chair", origin, yaw)
    cover = builder.material(material_for(draw, "furniture"))
    builder.box((0, 0, 0.42), (0.46, 0.46, 0.07), cover)
    builder.box((0, 0.26, 0.7), (0.46, 0.06, 0.5), cover, tilt=0.1)
    for sx, sy in ((-1, -1), (1, -1), (-1, 1), (1, 1)):
        builder.box((sx * 0.19, sy * 0.19, 0.2), (0.05, 0.05, 0.4), cover)
    add_person(builder, draw, origin, yaw, seat=0.46)


def _clutter(builder: SceneBuilder, draw: Draw, plan: Plan, height: float) -> None:
    """One thing in the middle, things on the floor, lamps."""
    hero = draw.weighted({"chair": 3, "box": 2, "ball": 3, "lamp": 3, "person": 4, "table": 1})
    if hero == "person":
        place = plan.spot(0.3, 1.1, 2.5, width=0.5)
        if place is not None:
            add_person(builder, draw, (*place, 0.0), draw.uniform(-3.1, 3.1))
    else:
        put(builder, plan, _thing(draw, hero), 1.0, 2.8, width=0.55)
    for _ in range(draw.integer(2, 5)):
        kind = draw.weighted({"chair": 3, "box": 3, "ball": 3, "lamp": 2})
        put(builder, plan, _thing(draw, kind), 1.2, 5.5)
    if draw.chance(0.4):
        item = furniture.pendant(draw, height)
        x, y = plan.ahead(1.2, 3.5, width=0.6)
        left, right, front, back = plan.bounds
        x, y = min(max(x, left + 0.4), right - 0.4), min(max(y, front + 0.4), back - 0.4)
        item.build(builder, (x, y, 0.0), 0.0)
    if draw.chance(0.25):
        _pillar(builder, draw, plan, height)


def _thing(draw: Draw, kind: str) -> Item:
    makers = {
        "chair": furniture.chair,
        "box": furniture.box,
        "ball": furniture.ball,
        "lamp": furniture.lamp,
        "table": furniture.table,
    }
    return makers[kind](draw)


def _pillar(builder: SceneBuilder, draw: Draw, plan: Plan, height: float) -> None:
    """A piece of wall that stands out into the room."""
    width, depth = draw.uniform(0.3, 1.0), draw.uniform(0.2, 0.6)
    place = plan.wall_spot(width, depth)
    if place is None:
        return
    x, y, yaw = place
    builder.place("wall", (x, y, 0.0), yaw)
    surface = builder.materials[0]
    if draw.chance(0.5):
        surface = material_for(draw, "wall")
    elif draw.chance(0.5):
        surface = paint(draw, near_colour(draw, surface.first, 0.2))
    builder.box((0, -depth / 2, height / 2), (width, depth, height), builder.material(surface))

"""Articulated people from capsules and ellipsoids, in random poses and clothes."""

from __future__ import annotations

from dataclasses import dataclass

from mtvision.data.synthetic.draw import Draw, Vector, from_hsv, turn
from mtvision.data.synthetic.materials import Material, any_colour, material_for
from mtvision.data.synthetic.scene import SceneBuilder

HEAD, TORSO, UPPER_ARM, LOWER_ARM, UPPER_LEG, LOWER_LEG = range(1, 7)


@dataclass(frozen=True, slots=True)
class Limb:
    """Angles of one arm or leg in radians.

    Args:
        swing: of the upper part, forwards is positive.
        spread: of the upper part, outwards is positive.
        bend: of elbow (forwards) or knee (backwards).
    """

    swing: float
    spread: float
    bend: float


@dataclass(frozen=True, slots=True)
class Pose:
    """Arms and legs (left, right), leaning forward of the trunk and turn of the head, radians."""

    arms: tuple[Limb, Limb]
    legs: tuple[Limb, Limb]
    lean: float
    look: float


def random_pose(draw: Draw, *, seated: bool = False) -> Pose:
    """Standing, walking, waving or sitting."""
    uniform = draw.uniform
    if seated:
        legs = [Limb(uniform(1.3, 1.6), uniform(0.0, 0.25), uniform(1.2, 1.7)) for _ in range(2)]
        arms = [Limb(uniform(0.2, 0.9), uniform(0.05, 0.3), uniform(0.3, 1.4)) for _ in range(2)]
        return Pose((arms[0], arms[1]), (legs[0], legs[1]), uniform(-0.15, 0.25), uniform(-0.7, 0.7))
    if draw.chance(0.55):
        stride = uniform(0.25, 0.65) * draw.sign()
        legs = [Limb(side * stride, uniform(0.0, 0.1), uniform(0.05, 0.6)) for side in (1, -1)]
        arms = [Limb(-side * stride, uniform(0.08, 0.3), uniform(0.1, 0.8)) for side in (1, -1)]
    else:
        legs = [Limb(uniform(-0.15, 0.15), uniform(0.03, 0.25), uniform(0.0, 0.15)) for _ in range(2)]
        arms = [Limb(uniform(-0.3, 0.6), uniform(0.1, 0.5), uniform(0.0, 1.2)) for _ in range(2)]
    arms = [
        Limb(uniform(0.6, 2.6), uniform(0.2, 1.2), uniform(0.0, 1.4)) if draw.chance(0.25) else arm
        for arm in arms
    ]
    return Pose((arms[0], arms[1]), (legs[0], legs[1]), uniform(-0.05, 0.2), uniform(-0.8, 0.8))


def _step(start: Vector, swing: float, spread: float, side: float, length: float) -> Vector:
    """End of a limb that hangs from `start`; forwards is -y."""
    cs, ss = turn(swing)
    co, so = turn(spread)
    return start[0] + side * so * length, start[1] - ss * co * length, start[2] - cs * co * length


class Wardrobe:
    """Materials of one person: skin, hair, top and trousers, sleeves and shoes."""

    def __init__(self, draw: Draw, builder: SceneBuilder) -> None:
        add = builder.material
        tone = from_hsv(draw.uniform(0.03, 0.1), draw.uniform(0.2, 0.6), draw.uniform(0.35, 0.95))
        self.skin = add(Material(first=tone, grain=0.06))
        self.hair = add(
            Material(
                first=from_hsv(draw.uniform(0.02, 0.14), draw.uniform(0.1, 0.7), draw.uniform(0.1, 0.6)),
                grain=0.3,
            )
        )
        self.top = add(material_for(draw, "clothes"))
        self.trousers = add(material_for(draw, "clothes")) if draw.chance(0.85) else self.top
        self.upper_arm = self.skin if draw.chance(0.15) else self.top
        self.lower_arm = self.skin if draw.chance(0.5) else self.upper_arm
        self.lower_leg = self.skin if draw.chance(0.25) else self.trousers
        self.shoes = add(Material(first=any_colour(draw), grain=0.1))


def add_person(
    builder: SceneBuilder,
    draw: Draw,
    origin: Vector,
    yaw: float,
    *,
    seat: float | None = None,
    height: float | None = None,
) -> None:
    """Put a person at `origin`, looking along -y of their frame.

    Args:
        builder: the scene.
        draw: source of pose, build and clothes.
        origin: point on the ground below the hips.
        yaw: turn in radians.
        seat: height of the seat in metres if the person sits.
        height: body height in metres; random by default.
    """
    builder.place("person", origin, yaw)
    tall = height or (draw.uniform(1.5, 1.9) if draw.chance(0.85) else draw.uniform(1.0, 1.4))
    s = tall / 1.75
    thick = s * draw.uniform(1.05, 1.3)
    pose = random_pose(draw, seated=seat is not None)
    wear = Wardrobe(draw, builder)
    thigh, shin = 0.43 * s, 0.43 * s
    hips = seat + 0.09 * thick if seat is not None else _standing_height(pose, thigh, shin, s)
    _trunk(builder, pose, wear, hips, s, thick)
    for side, limb in zip((-1.0, 1.0), pose.legs, strict=True):
        hip = (side * 0.095 * thick, 0.0, hips)
        knee = _step(hip, limb.swing, limb.spread, side, thigh)
        ankle = _step(knee, limb.swing - limb.bend, limb.spread * 0.5, side, shin)
        builder.capsule(hip, knee, 0.082 * thick, wear.trousers, part=UPPER_LEG)
        builder.capsule(knee, ankle, 0.06 * thick, wear.lower_leg, part=LOWER_LEG)
        toe = (ankle[0], ankle[1] - 0.07 * s, ankle[2] - 0.03 * s)
        builder.ellipsoid(toe, (0.055 * s, 0.14 * s, 0.05 * s), wear.shoes, part=LOWER_LEG)


def _standing_height(pose: Pose, thigh: float, shin: float, s: float) -> float:
    """Height of the hips that puts the lower foot on the ground."""
    reach = 0.0
    for limb in pose.legs:
        knee = _step((0, 0, 0), limb.swing, limb.spread, 1, thigh)
        ankle = _step(knee, limb.swing - limb.bend, limb.spread * 0.5, 1, shin)
        reach = max(reach, -ankle[2])
    return reach + 0.08 * s


def _trunk(builder: SceneBuilder, pose: Pose, wear: Wardrobe, hips: float, s: float, thick: float) -> None:
    """Pelvis, chest, neck, head and arms."""
    c, sn = turn(pose.lean)

    def up(height: float, x: float = 0.0) -> Vector:
        return x, -sn * height * s, hips + c * height * s

    builder.ellipsoid(up(0.0), (0.17 * thick, 0.125 * thick, 0.14 * s), wear.trousers, part=TORSO)
    builder.capsule(up(0.1), up(0.38), 0.135 * thick, wear.top, part=TORSO)
    builder.ellipsoid(up(0.36), (0.205 * thick, 0.135 * thick, 0.17 * s), wear.top, part=TORSO)
    builder.capsule(up(0.5), up(0.6), 0.055 * s, wear.skin, part=HEAD)
    face = up(0.71)
    builder.ellipsoid(face, (0.1 * s, 0.115 * s, 0.135 * s), wear.skin, part=HEAD, yaw=pose.look)
    back = turn(pose.look)
    hair = (face[0] - back[1] * 0.03 * s, face[1] + back[0] * 0.03 * s, face[2] + 0.035 * s)
    builder.ellipsoid(hair, (0.11 * s, 0.115 * s, 0.125 * s), wear.hair, part=HEAD, yaw=pose.look)
    for side, limb in zip((-1.0, 1.0), pose.arms, strict=True):
        shoulder = up(0.46, side * 0.225 * thick)
        elbow = _step(shoulder, limb.swing + pose.lean, limb.spread, side, 0.29 * s)
        hand = _step(elbow, limb.swing + pose.lean + limb.bend, limb.spread * 0.6, side, 0.27 * s)
        builder.capsule(shoulder, elbow, 0.062 * thick, wear.upper_arm, part=UPPER_ARM)
        builder.capsule(elbow, hand, 0.05 * thick, wear.lower_arm, part=LOWER_ARM)
        builder.ellipsoid(hand, (0.055 * s, 0.055 * s, 0.065 * s), wear.skin, part=LOWER_ARM)

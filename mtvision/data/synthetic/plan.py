"""Free rectangles of ground in front of the camera, to place objects."""

from __future__ import annotations

from mtvision.data.synthetic.draw import Draw, turn

Rectangle = tuple[float, float, float, float]


class Plan:
    """Occupied ground, and places the camera sees.

    Args:
        draw: source of places.
        eye: x and y of the camera.
        yaw: its direction in radians (0 = +y, to the right is positive).
        fov: its horizontal field of view in radians.
        bounds: x and y limits of the ground: left, right, front, back.
    """

    def __init__(
        self, draw: Draw, eye: tuple[float, float], yaw: float, fov: float, bounds: Rectangle
    ) -> None:
        self.draw, self.eye, self.yaw, self.fov, self.bounds = draw, eye, yaw, fov, bounds
        self.taken: list[Rectangle] = []

    def is_free(self, place: Rectangle, *, clear: float = 0.75) -> bool:
        """Whether a rectangle lies inside, overlaps nothing, and keeps `clear` metres from the camera."""
        left, right, front, back = self.bounds
        if place[0] < left or place[1] > right or place[2] < front or place[3] > back:
            return False
        dx = max(place[0] - self.eye[0], self.eye[0] - place[1], 0.0)
        dy = max(place[2] - self.eye[1], self.eye[1] - place[3], 0.0)
        if dx * dx + dy * dy < clear * clear:
            return False
        return all(
            place[1] <= item[0] or place[0] >= item[1] or place[3] <= item[2] or place[2] >= item[3]
            for item in self.taken
        )

    def take(self, place: Rectangle) -> None:
        """Mark a rectangle as occupied."""
        self.taken.append(place)

    def ahead(self, near: float, far: float, *, width: float = 0.85) -> tuple[float, float]:
        """A point between two distances within the middle `width` of the field of view."""
        angle = self.yaw + self.draw.uniform(-0.5, 0.5) * self.fov * width
        distance = self.draw.uniform(near, far)
        c, s = turn(angle)
        return self.eye[0] + s * distance, self.eye[1] + c * distance

    def spot(
        self, radius: float, near: float, far: float, *, width: float = 0.85, tries: int = 8
    ) -> tuple[float, float] | None:
        """A free, visible place for something round; it is taken. None after `tries` failures."""
        for _ in range(tries):
            x, y = self.ahead(near + radius, far, width=width)
            place = (x - radius, x + radius, y - radius, y + radius)
            if self.is_free(place):
                self.take(place)
                return x, y
        return None

    def wall_spot(
        self, width: float, depth: float, *, tries: int = 6, ground: bool = True
    ) -> tuple[float, float, float] | None:
        """A visible place with the back to a wall: x, y of the middle of the back edge, and yaw.

        Args:
            width: along the wall.
            depth: off the wall.
            tries: attempts before None is returned.
            ground: whether the place must be free on the ground; it is then taken.
        """
        left, right, front, back = self.bounds
        for _ in range(tries):
            angle = self.yaw + self.draw.uniform(-0.5, 0.5) * self.fov * 0.9
            c, s = turn(angle)
            far_x = (right if s > 0 else left) - self.eye[0]
            far_y = (back if c > 0 else front) - self.eye[1]
            reach_x = far_x / s if abs(s) > 1e-6 else 1e9
            reach_y = far_y / c if abs(c) > 1e-6 else 1e9
            if reach_y < reach_x:
                x = self.eye[0] + s * reach_y
                x = min(max(x, left + width / 2 + 0.02), right - width / 2 - 0.02)
                y, inwards = (back, -1.0) if c > 0 else (front, 1.0)
                place = (
                    x - width / 2,
                    x + width / 2,
                    min(y, y + inwards * depth),
                    max(y, y + inwards * depth),
                )
                yaw = 0.0 if c > 0 else 3.1415926536
            else:
                y = self.eye[1] + c * reach_x
                y = min(max(y, front + width / 2 + 0.02), back - width / 2 - 0.02)
                x, inwards = (right, -1.0) if s > 0 else (left, 1.0)
                place = (
                    min(x, x + inwards * depth),
                    max(x, x + inwards * depth),
                    y - width / 2,
                    y + width / 2,
                )
                yaw = -1.5707963268 if s > 0 else 1.5707963268
            if not ground:
                return x, y, yaw
            if self.is_free(place):
                self.take(place)
                return x, y, yaw
        return None

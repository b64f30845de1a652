"""The scene of a (seed, split, index), the same on every machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mtvision.core.naming import look_up
from mtvision.core.random import generator
from mtvision.data.synthetic.draw import Draw
from mtvision.data.synthetic.room import make_room
from mtvision.data.synthetic.scene import Scene
from mtvision.data.synthetic.street import make_street

VERSION = 4
"""Goes up whenever any scene of any seed changes."""

SPLITS = {"train": 1, "val": 2, "test": 3}
_STREAM = 1_000_000_000
"""Far above any epoch: scenes never share random numbers with augmentation, nor splits with each other."""

KINDS: dict[str, Callable[[Draw], Scene]] = {"room": make_room, "street": make_street}


def make_scene(seed: int, split: str, index: int, kinds: Sequence[str] = ("room", "street")) -> Scene:
    """Scene number `index` of a split.

    Args:
        seed: of the whole data set.
        split: `train`, `val` or `test`; they draw from different streams.
        index: from 0.
        kinds: `room`, `street` or both, half and half.

    Raises:
        UnknownNameError: split or kind is unknown.
        ValueError: no kind is given, or a number is negative.
    """
    stream = _STREAM + look_up("split of the synthetic scenes", split, SPLITS)
    if not kinds:
        raise ValueError(f"make_scene: kinds is empty; give one or more of {', '.join(KINDS)}.")
    makers = [look_up("kind of synthetic scene", kind, KINDS) for kind in kinds]
    draw = Draw(generator(seed, stream, index))
    return draw.choice(makers)(draw)

"""Random numbers and choices that depend on seed, epoch and image alone."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

HELD_OUT_SHARE = 0.2
"""Share that is held out unless something else is said (as in BMTAS, BMVC 2020)."""


def generator(seed: int, epoch: int, index: int) -> np.random.Generator:
    """NumPy generator for one sample of one epoch.

    Independent of the number of workers and processes, and of the order in which samples are read. The Philox
    stream is the same on every platform.

    Raises:
        ValueError: a number is not in 0..2³²−1. (A larger one would take two words of the entropy and could
            collide with other triples.)
    """
    if min(seed, epoch, index) < 0 or max(seed, epoch, index) >= 2**32:
        raise ValueError(
            f"generator: seed, epoch and index must be in 0..{2**32 - 1}, got {(seed, epoch, index)}."
        )
    import numpy as np  # a tenth of a second, which `--help` does not need

    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch, index])))


def is_held_out(image_id: str, share: float = HELD_OUT_SHARE) -> bool:
    """Whether a training image belongs to the held-out slice.

    Depends on the id alone: independent of order, number of images, processes and platform. A larger share
    holds out a superset.

    Args:
        image_id: as in `Meta.id`.
        share: of all ids, in 0..1.

    Raises:
        ValueError: `share` is not in 0..1.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"held_out is a share of the training images, in 0..1; got {share}.")
    digest = hashlib.sha256(f"held out: {image_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64

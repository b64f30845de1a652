"""Random numbers that depend on seed, epoch and image, and not on processes or the order of reading."""

from __future__ import annotations

import numpy as np


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
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch, index])))

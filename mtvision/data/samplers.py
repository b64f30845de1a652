"""Order of the images in training and evaluation, a function of seed and position alone.

All samplers are batch samplers for `torch.utils.data.DataLoader(batch_sampler=...)` and yield lists of
`SampleKey`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate, count
from math import gcd, lcm
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from mtvision.core.naming import look_up
from mtvision.core.random import generator
from mtvision.core.sample import SampleKey


def _check(batch_size: int, rank: int, world_size: int) -> None:
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
    if not 0 <= rank < world_size:
        raise ValueError(f"rank must lie in 0..{world_size - 1} (world_size={world_size}), got {rank}.")


@lru_cache(maxsize=64)
def _permutation(seed: int, epoch: int, stream: int, length: int) -> NDArray[np.int64]:
    """Order of `length` things; `stream` must be the index of no image, whose augmentation it would share."""
    order = generator(seed, epoch, stream).permutation(length)
    order.setflags(write=False)
    return order


class TrainingBatchSampler(Sampler[list[SampleKey]], ABC):
    """Endless training batches, each a function of its position.

    Attributes:
        start_batch: steps already done; may be set at any time and holds from the next iteration over the
            sampler. Resuming sets it and decodes nothing twice.
    """

    start_batch: int = 0

    @abstractmethod
    def batch(self, position: int) -> list[SampleKey]:
        """Keys of step `position` (0 = the first one ever) for this rank."""

    def __iter__(self) -> Iterator[list[SampleKey]]:
        return map(self.batch, count(self.start_batch))


class PositionBatchSampler(TrainingBatchSampler):
    """Endless training batches that can start anywhere without decoding what came before.

    Every epoch is one permutation of all images, drawn from (seed, epoch), cut into global batches of
    `batch_size * world_size`. The images left over at the end of an epoch are dropped; each epoch drops
    others. Rank r takes the r-th slice of each global batch. 1 rank x 8 and 2 ranks x 4 therefore get the
    same images with the same augmentation in every step.

    Args:
        length: number of images.
        batch_size: images per rank and step.
        seed: decides the permutations.
        rank: this process.
        world_size: number of processes.
        start_batch: steps already done; may be set at any time and holds from the next iteration over the
            sampler. Resuming sets it and decodes nothing twice.

    Raises:
        ValueError: the global batch is larger than the data set, or an argument is out of range.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        start_batch: int = 0,
    ) -> None:
        _check(batch_size, rank, world_size)
        if length < batch_size * world_size:
            raise ValueError(
                f"a step needs batch_size * processes = {batch_size} * {world_size} images, the data set has "
                f"{length}. Lower batch_size."
            )
        self.length = length
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.start_batch = start_batch

    @property
    def batches_per_epoch(self) -> int:
        """Steps in one pass over the data."""
        return self.length // (self.batch_size * self.world_size)

    def batch(self, position: int) -> list[SampleKey]:
        """Keys of step `position` (0 = the first one ever) for this rank."""
        epoch, step = divmod(position, self.batches_per_epoch)
        order = _permutation(self.seed, epoch, self.length, self.length)
        start = (step * self.world_size + self.rank) * self.batch_size
        return [SampleKey(epoch=epoch, index=int(index)) for index in order[start : start + self.batch_size]]


Mixing = Literal["mixed", "homogeneous"]
MAX_CYCLE = 1_000_000


def whole_ratios(ratios: Sequence[float]) -> tuple[int, ...]:
    """The smallest whole numbers in the given ratio, exactly.

    Raises:
        ValueError: a ratio is not positive and finite, or the numbers get too large to count out.

    >>> whole_ratios([0.75, 0.25])
    (3, 1)
    """
    if not ratios or not all(0 < ratio < float("inf") for ratio in ratios):
        raise ValueError(f"ratios must be positive numbers, got {list(ratios)}.")
    fractions = [Fraction(str(ratio)) for ratio in ratios]
    scale = lcm(*(item.denominator for item in fractions))
    whole = [int(item * scale) for item in fractions]
    whole = [item // gcd(*whole) for item in whole]
    if sum(whole) > MAX_CYCLE:
        raise ValueError(
            f"ratios {list(ratios)} repeat only after {sum(whole)} draws; give short numbers, such as [2, 1]."
        )
    return tuple(whole)


class JointBatchSampler(TrainingBatchSampler):
    """Endless batches from several parts (data sets laid end to end) in fixed ratios.

    Parts alternate as evenly as the ratios allow, and every `sum(whole_ratios(ratios))` draws hold the ratios
    exactly. Each part goes through permutations of its own images, one per epoch of that part, and none is
    left out. A part that is shorter than its share begins its next epoch earlier than others, with new
    augmentation. Rank r takes the r-th slice of each global batch of `batch_size * world_size` images.

    Args:
        lengths: number of images of each part.
        ratios: share of each part in the draws.
        batch_size: images per rank and step.
        mixing: `mixed` draws a part for every image, so that batches hold several parts. `homogeneous` draws
            every step, so that a global batch, on all ranks, comes from one part.
        seed: decides the permutations.
        rank: this process.
        world_size: number of processes.
        start_batch: see `TrainingBatchSampler`.

    Raises:
        ValueError: not one positive ratio per part, an empty part, or an argument out of range.
        UnknownNameError: of `mixing`.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        ratios: Sequence[float],
        batch_size: int,
        mixing: Mixing = "mixed",
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        start_batch: int = 0,
    ) -> None:
        _check(batch_size, rank, world_size)
        look_up("mixing", mixing, dict.fromkeys(get_args(Mixing)))
        if len(ratios) != len(lengths) or min(lengths, default=0) < 1:
            raise ValueError(
                f"each part needs images and one ratio, got lengths {list(lengths)}, ratios {list(ratios)}."
            )
        self.lengths = tuple(lengths)
        self.ratios = whole_ratios(ratios)
        self.batch_size = batch_size
        self.mixing = mixing
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.start_batch = start_batch
        self._offsets = (0, *accumulate(self.lengths))
        # the j-th of a part's w draws lies at (j + 1/2) / w of the cycle: as even as possible
        draws = [(part, nth) for part, ratio in enumerate(self.ratios) for nth in range(ratio)]
        self._cycle = sorted(draws, key=lambda item: (Fraction(2 * item[1] + 1, self.ratios[item[0]]), item))

    def batch(self, position: int) -> list[SampleKey]:
        """Keys of step `position` (0 = the first one ever) for this rank."""
        size = self.batch_size * self.world_size
        if self.mixing == "homogeneous":
            part, occurrence = self._draw(position)
            keys = [self._key(part, occurrence * size + item) for item in range(size)]
        else:
            keys = [self._key(*self._draw(position * size + item)) for item in range(size)]
            # else a rank could always get the same part's images
            keys = [keys[item] for item in _permutation(self.seed, position, self._offsets[-1], size)]
        return keys[self.rank * self.batch_size : (self.rank + 1) * self.batch_size]

    def _draw(self, number: int) -> tuple[int, int]:
        """Part of a draw, and how many draws that part had before."""
        cycle, place = divmod(number, len(self._cycle))
        part, nth = self._cycle[place]
        return part, cycle * self.ratios[part] + nth

    def _key(self, part: int, number: int) -> SampleKey:
        epoch, place = divmod(number, self.lengths[part])
        stream = self._offsets[-1] + 1 + part
        order = _permutation(self.seed, epoch, stream, self.lengths[part])
        return SampleKey(epoch=epoch, index=self._offsets[part] + int(order[place]))


class EvalBatchSampler(Sampler[list[SampleKey]]):
    """Every image exactly once over all ranks, in order, without padding; the last batch may be smaller.

    Rank r takes whole batches r, r + world_size, ... of those that one rank would have. A network's rounding
    depends on the size of the batch, so any number of ranks computes the same to the last bit. Ranks may have
    different numbers of batches.
    """

    def __init__(self, length: int, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        _check(batch_size, rank, world_size)
        self.length = length
        self.batch_size = batch_size
        self.starts = range(rank * batch_size, length, world_size * batch_size)

    def __len__(self) -> int:
        return len(self.starts)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        for start in self.starts:
            end = min(start + self.batch_size, self.length)
            yield [SampleKey(epoch=0, index=index) for index in range(start, end)]

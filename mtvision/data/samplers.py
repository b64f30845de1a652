"""Which images come when: a function of seed and position alone, never of workers or of what ran before.

Both samplers are batch samplers for `torch.utils.data.DataLoader(batch_sampler=...)` and yield lists of
`SampleKey`.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch.utils.data import Sampler

from mtvision.core.random import generator
from mtvision.core.sample import SampleKey


def _check(batch_size: int, rank: int, world_size: int) -> None:
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
    if not 0 <= rank < world_size:
        raise ValueError(f"rank must lie in 0..{world_size - 1} (world_size={world_size}), got {rank}.")


class PositionBatchSampler(Sampler[list[SampleKey]]):
    """Endless training batches that can start anywhere without decoding what came before.

    Every epoch is one permutation of all images, drawn from (seed, epoch), cut into global batches of
    `batch_size * world_size`; the images left over at the end of an epoch are dropped, others in each epoch.
    Rank r takes the r-th slice of each global batch, so 1 rank x 8 and 2 ranks x 4 see the same images with
    the same augmentation in every step.

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
        return self._slice(epoch, step, self._permutation(epoch))

    def __iter__(self) -> Iterator[list[SampleKey]]:
        epoch, step = divmod(self.start_batch, self.batches_per_epoch)
        while True:
            order = self._permutation(epoch)
            for position in range(step, self.batches_per_epoch):
                yield self._slice(epoch, position, order)
            epoch, step = epoch + 1, 0

    def _permutation(self, epoch: int) -> list[int]:
        # `length` is the first index that no image has, so this stream is no image's augmentation stream.
        return [int(index) for index in generator(self.seed, epoch, self.length).permutation(self.length)]

    def _slice(self, epoch: int, step: int, order: list[int]) -> list[SampleKey]:
        start = (step * self.world_size + self.rank) * self.batch_size
        return [SampleKey(epoch=epoch, index=index) for index in order[start : start + self.batch_size]]


class EvalBatchSampler(Sampler[list[SampleKey]]):
    """Every image exactly once over all ranks, in order, without padding; the last batch may be smaller.

    Rank r takes images r, r + world_size, ...; ranks may have different numbers of batches.
    """

    def __init__(self, length: int, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        _check(batch_size, rank, world_size)
        self.indices = range(rank, length, world_size)
        self.batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self.indices) // self.batch_size)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        for start in range(0, len(self.indices), self.batch_size):
            yield [SampleKey(epoch=0, index=index) for index in self.indices[start : start + self.batch_size]]

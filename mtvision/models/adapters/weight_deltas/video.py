"""Efficient Computation Sharing on videos: frames reuse activations of the frame before."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from mtvision.core.pyramid import size_of
from mtvision.models.adapters.weight_deltas.reuse import Counts, Frames, reuse_of
from mtvision.models.network import Network


class VideoReuse:
    """Predicts frames one after another (Shoouri et al., ICCV 2023, section on videos).

    A key frame is computed as a single image: the base task densely, other tasks on differences from it. In a
    frame between, the base task reuses its own activations of the frame before. Other tasks reuse those of
    the base task in the first `split` blocks, and their own of the frame before in later ones. Differences
    below the threshold count as 0. Activations are compared at the same place of the grid, without motion.

    No kernel here makes use of it, so no time is saved; `shares` and `work` say what sparse kernels could.

    Args:
        network: with `SparseDeltas(reuse=...)`; it is in evaluation mode afterwards.
        split: l, blocks in which other tasks read the base task; half of the blocks by default.
        key_every: every such frame is a key frame; None = the first one alone.

    Attributes:
        counts: what all frames so far computed anew.

    Raises:
        ValueError: the network reuses no activations, or `split` or `key_every` is out of range.
    """

    def __init__(self, network: Network, *, split: int | None = None, key_every: int | None = None) -> None:
        self.network, self.reuse = network, reuse_of(network, "VideoReuse")
        blocks = network.backbone.block_names()
        split = len(blocks) // 2 if split is None else split
        if not 0 <= split <= len(blocks):
            raise ValueError(
                f"VideoReuse: split={split}; the backbone has {len(blocks)} blocks. Give 0 to {len(blocks)}."
            )
        if key_every is not None and key_every < 1:
            raise ValueError(f"VideoReuse: key_every={key_every}; expected 1 or more, or None.")
        later = tuple(f"{name}." for name in blocks[split:])
        paths = [name for name, _ in network.backbone.named_modules() if name.startswith(later)]
        self.key_every, self.counts = key_every, Counts()
        self._frames, self._number = Frames(frozenset(paths)), 0
        self._size: tuple[int, ...] = ()

    @torch.no_grad()
    def __call__(self, frame: Tensor, tasks: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Logits of the next frame of every video.

        Args:
            frame: normalised RGB (B, 3, H, W), one frame of each of B videos.
            tasks: names to predict, all by default.

        Raises:
            ValueError: another shape than the first frame's.
        """
        if self._size and tuple(frame.shape) != self._size:
            raise ValueError(
                f"VideoReuse: frame {self._number} has shape {tuple(frame.shape)}, the first one "
                f"{self._size}. Make another VideoReuse for another video."
            )
        self._size = tuple(frame.shape)
        if self.key_every is not None and self._number % self.key_every == 0:
            self._frames.last.clear()
        self._number += 1
        self.network.eval()
        self.reuse.frames, self.reuse.counts = self._frames, self.counts
        try:
            logits: dict[str, Tensor] = self.network(frame, tasks)
        finally:
            self.reuse.frames = self.reuse.counts = None
        return logits

    def shares(self) -> dict[str, dict[str, float]]:
        """{task: {path of a module: share of its activations that were not reused}}, over all frames."""
        return self.counts.shares()

    def work(self) -> dict[str, dict[str, float]]:
        """{task: {`dense`, `reused`}}: MACs of the compared linear layers over all frames.

        `reused` are the dense ones times the share of each layer.
        """
        return self.counts.work()


def shifted_crops(image: Tensor, size: tuple[int, int], shifts: Iterable[tuple[int, int]]) -> list[Tensor]:
    """Frames of a synthetic video: crops of one picture (B, 3, H, W) that move over it.

    Args:
        image: the picture.
        size: (h, w) of a crop.
        shifts: (down, right) of each crop's upper left corner, in pixels.

    Raises:
        ValueError: a crop does not lie in the picture.

    >>> picture = torch.arange(12.0).view(1, 1, 3, 4)
    >>> [int(item[0, 0, 0, 0]) for item in shifted_crops(picture, (2, 2), [(0, 0), (1, 2)])]
    [0, 6]
    """
    (height, width), crops = size_of(image), []
    for down, right in shifts:
        if not (0 <= down <= height - size[0] and 0 <= right <= width - size[1]):
            raise ValueError(
                f"shifted_crops: a crop of {size} at {(down, right)} leaves the picture of "
                f"{(height, width)}. Shift by at most {(height - size[0], width - size[1])}."
            )
        crops.append(image[..., down : down + size[0], right : right + size[1]])
    return crops

"""A trained network on any image."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import EllipsisType

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from mtvision.core.context import Context
from mtvision.core.sample import IMAGE_MEAN, IMAGE_STD
from mtvision.evaluation.tiles import Tiling, TilingError, as_map, padded, predict_in_tiles
from mtvision.models.adapters.pareto import manifold_of
from mtvision.models.adapters.slimmable import has_statistics, slimming_of
from mtvision.models.network import Network
from mtvision.protocols import Protocol
from mtvision.runtime.precision import Precision, autocast
from mtvision.search.width_table import Choice, WidthTable

Prediction = dict[str, NDArray[np.generic]]
"""{task: map}"""


class Predictor:
    """Runs a network on 8-bit RGB images of any size.

    An image is scaled (keeping its aspect ratio) to about the area the network was trained on. It is padded
    to the protocol's evaluation size if there is one. Predictions have the image's own resolution.

    With tiles an image is neither scaled nor padded to another size. Memory of the network is then that of
    one tile (`mtvision.evaluation.tiles`).

    Args:
        network: in evaluation mode; moved to `device`.
        protocol: its tasks and sizes.
        size: (H, W) whose area images are scaled to; None = the protocol's evaluation or training size, and
            without any the image's own.
        device: where to compute.
        precision: of the forward pass.
        width_table: of a slimmable network, from `meta["width_table"]` of what `tools/controllable.py`
            wrote; then every call may name a budget and a preference.
        tile: (H, W) of tiles; None = the whole image at once.
        overlap: pixels that tiles share at least; None = a quarter of the smaller side.

    Raises:
        ValueError: a size below 1.
        TilingError: tiles and a size, an overlap without tiles, or one that leaves too little of a tile.

    Depth is divided by no factor: a network that was trained on a camera's images predicts for that camera.
    """

    def __init__(
        self,
        network: Network,
        protocol: Protocol,
        *,
        size: tuple[int, int] | None = None,
        device: str | torch.device = "cpu",
        precision: Precision = "fp32",
        width_table: WidthTable | None = None,
        tile: tuple[int, int] | None = None,
        overlap: int | None = None,
    ) -> None:
        self.tiling = _tiling(tile, overlap, size)
        if self.tiling is not None:
            self.tiling.check(max(network.backbone.strides))
        if size is not None and min(size) < 1:
            raise ValueError(f"size: expected (H, W) of at least 1 pixel each, got {tuple(size)}.")
        self.network = network.to(device).eval()
        self.protocol = protocol
        self.size = size or protocol.eval_size or protocol.train_size
        self.device = torch.device(device)
        self.precision: Precision = precision
        self.width_table = width_table

    def __call__(
        self,
        image: NDArray[np.uint8],
        context: Context | None = None,
        *,
        budget: float | None = None,
        preference: Mapping[str, float] | None = None,
    ) -> Prediction:
        """Predict all tasks of one image; arguments and result as `batch`."""
        return self.batch([image], context, budget=budget, preference=preference)[0]

    @torch.no_grad()
    def batch(
        self,
        images: Sequence[NDArray[np.uint8]],
        context: Context | None = None,
        *,
        budget: float | None = None,
        preference: Mapping[str, float] | None = None,
    ) -> list[Prediction]:
        """Predict all tasks of several images; those of one size after scaling pass the network together.

        Args:
            images: RGB (H, W, 3), uint8, of any sizes.
            context: run-time state of a conditional network.
            budget: what the network may cost: a share of the full one (up to 1) or MACs per image.
            preference: {task: weight}, how much each task matters; None = all alike. Networks with a manifold
                of preferences (docs/pareto.md) or a table of widths answer it.

        Returns:
            {task: map} of every image: class ids (H, W), uint8 (uint16 of more than 256 classes), or float32
            (C, H, W), see `mtvision.core.prediction`.

        Raises:
            ValueError: not an 8-bit RGB image, or a budget that is too small or cannot be kept.
        """
        if budget is not None or preference is not None:
            context = self.conditioned(context or Context(), budget, preference)
        groups: dict[tuple[int, ...], list[tuple[int, NDArray[np.uint8]]]] = {}
        for index, image in enumerate(images):
            if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
                raise ValueError(
                    f"expected an RGB image (H, W, 3) of uint8, got {image.shape} of {image.dtype}."
                )
            if self.tiling is None:
                scaled = self._scaled(image)
                groups.setdefault(scaled.shape, []).append((index, scaled))
        if self.tiling is not None:
            return [self._in_tiles(self.tiling, image, context) for image in images]
        results: dict[int, Prediction] = {}
        for group in groups.values():
            logits, inner = self._forward([scaled for _, scaled in group], context)
            for position, (index, scaled) in enumerate(group):
                own = {name: maps[position : position + 1][inner] for name, maps in logits.items()}
                results[index] = self._maps(own, images[index].shape[:2], scaled.shape[0])
        return [results[index] for index in range(len(images))]

    def _forward(
        self, scaled: Sequence[NDArray[np.uint8]], context: Context | None
    ) -> tuple[dict[str, Tensor], tuple[slice | EllipsisType, ...]]:
        """Logits (B, C, H, W) of images of one size, and the part of them that is no padding."""
        height, width = scaled[0].shape[:2]
        top, left, bottom, right = self._padding(height, width)
        with autocast(self.precision, self.device):
            image = F.pad(self._values(scaled), (left, right, top, bottom))
            logits = self.network(image, context=context)
        return logits, (..., slice(top, top + height), slice(left, left + width))

    def _values(self, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Images of one size as the network takes them (B, 3, H, W), on the device."""
        mean, std = (np.array(item, dtype=np.float32) for item in (IMAGE_MEAN, IMAGE_STD))
        values = (np.stack(images).astype(np.float32) / 255 - mean) / std
        return torch.from_numpy(values.transpose(0, 3, 1, 2).copy()).to(self.device)

    def _in_tiles(self, tiling: Tiling, image: NDArray[np.uint8], context: Context | None) -> Prediction:
        def forward(part: NDArray[np.uint8], size: tuple[int, int]) -> dict[str, Tensor]:
            values = padded(self._values([part]), size)
            with autocast(self.precision, self.device):
                logits: dict[str, Tensor] = self.network(values, context=context)
            return logits

        stride = max(self.network.backbone.strides)
        return predict_in_tiles(forward, image, self.protocol.tasks, tiling, stride)

    def _maps(self, logits: Mapping[str, Tensor], size: Sequence[int], shown: int) -> Prediction:
        """One image's predictions at its own (H, W); the network saw `shown` rows of it."""
        result: Prediction = {}
        for task in self.protocol.tasks:
            maps = F.interpolate(
                logits[task.name].float(), size=tuple(size), mode="bilinear", align_corners=False
            )
            result[task.name] = as_map(task, maps, size[0] / shown)
        return result

    def conditioned(
        self, context: Context, budget: float | None, preference: Mapping[str, float] | None
    ) -> Context:
        """The context of a call: the preference itself for a manifold, widths for a slimmable network.

        Raises:
            UnknownNameError: a preference of no task.
            ValueError: as `choose`, or a negative weight.
        """
        manifold = manifold_of(self.network)
        if manifold is None or budget is not None:
            return replace(context, widths=self.choose(budget, preference).widths.to_plain())
        manifold.nearest(preference)  # refuses unknown tasks
        return replace(context, preference=preference)

    def choose(self, budget: float | None = None, preference: Mapping[str, float] | None = None) -> Choice:
        """Widths for a budget and a preference.

        If tasks exchange features, not every mixture of widths has statistics of batch norm. If the chosen
        one has none, the best of those with statistics is taken.

        Raises:
            ValueError: the network has no table of widths, or nothing fits the budget.
        """
        if self.width_table is None:
            raise ValueError(
                "budget and preference need a slimmable network and its table of widths. Train one "
                "(docs/slimmable.md), run tools/controllable.py on its checkpoint, and use the "
                "controllable.pth that it writes. A network with a manifold of preferences (docs/pareto.md) "
                "answers a preference alone, without a budget."
            )
        allowed = 1.0 if budget is None else budget
        choice = self.width_table.choose(allowed, preference)
        if has_statistics(self.network, choice.widths):
            return choice
        return self.width_table.best_of(slimming_of(self.network).calibrated(), allowed, preference)

    def _scaled(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if self.size is None:
            return image
        height, width = image.shape[:2]
        factor = math.sqrt(self.size[0] * self.size[1] / (height * width))
        target = self.protocol.eval_size
        if target is not None:  # must fit into the padded frame
            factor = min(factor, target[0] / height, target[1] / width)
        size = (max(round(width * factor), 1), max(round(height * factor), 1))
        if size == (width, height):
            return image
        method = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
        return np.asarray(cv2.resize(image, size, interpolation=method), dtype=np.uint8)

    def _padding(self, height: int, width: int) -> tuple[int, int, int, int]:
        target = self.protocol.eval_size
        if target is None:
            return (0, 0, 0, 0)
        rows, columns = max(target[0] - height, 0), max(target[1] - width, 0)
        top, left = rows // 2, columns // 2
        return (top, left, rows - top, columns - left)


def _tiling(tile: tuple[int, int] | None, overlap: int | None, size: tuple[int, int] | None) -> Tiling | None:
    if tile is None:
        if overlap is not None:
            raise TilingError(f"overlap: found {overlap} without tiles; give tile, (H, W), too.")
        return None
    if size is not None:
        raise TilingError(
            f"tile and size exclude one another, found {tuple(tile)} and {tuple(size)}: tiles show an image "
            "at its own resolution. Leave size out, or scale the picture before."
        )
    return Tiling((tile[0], tile[1]), overlap)

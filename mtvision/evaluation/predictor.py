"""A trained network on any image."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from mtvision.core.context import Context
from mtvision.core.prediction import to_prediction
from mtvision.core.sample import IMAGE_MEAN, IMAGE_STD
from mtvision.models.adapters.slimmable import has_statistics, slimming_of
from mtvision.models.network import Network
from mtvision.protocols import Protocol
from mtvision.runtime.precision import Precision, autocast
from mtvision.search.width_table import Choice, WidthTable


class Predictor:
    """Runs a network on 8-bit RGB images of any size.

    An image is scaled (keeping its aspect ratio) to about the area the network was trained on. It is padded
    to the protocol's evaluation size if there is one. Predictions have the image's own resolution.

    Args:
        network: in evaluation mode; moved to `device`.
        protocol: its tasks and sizes.
        size: (H, W) whose area images are scaled to; None = the protocol's evaluation or training size, and
            without any the image's own.
        device: where to compute.
        precision: of the forward pass.
        width_table: of a slimmable network, from `meta["width_table"]` of what `tools/controllable.py`
            wrote; then every call may name a budget and a preference.

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
    ) -> None:
        self.network = network.to(device).eval()
        self.protocol = protocol
        self.size = size or protocol.eval_size or protocol.train_size
        self.device = torch.device(device)
        self.precision: Precision = precision
        self.width_table = width_table

    @torch.no_grad()
    def __call__(
        self,
        image: NDArray[np.uint8],
        context: Context | None = None,
        *,
        budget: float | None = None,
        preference: Mapping[str, float] | None = None,
    ) -> dict[str, NDArray[np.generic]]:
        """Predict all tasks.

        Args:
            image: RGB (H, W, 3), uint8.
            context: run-time state of a conditional network.
            budget: what the network may cost: a share of the full one (up to 1) or MACs per image.
            preference: {task: weight}, how much each task matters; None = all alike.

        Returns:
            {task: map}, class ids uint8 (H, W) or float32 (C, H, W), see `mtvision.core.prediction`.

        Raises:
            ValueError: not an 8-bit RGB image, or a budget that is too small or cannot be kept.
        """
        if budget is not None or preference is not None:
            context = replace(context or Context(), widths=self.choose(budget, preference).widths.to_plain())
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"expected an RGB image (H, W, 3) of uint8, got {image.shape} of {image.dtype}.")
        height, width = image.shape[:2]
        scaled = self._scaled(image)
        mean, std = (np.array(item, dtype=np.float32) for item in (IMAGE_MEAN, IMAGE_STD))
        values = (scaled.astype(np.float32) / 255 - mean) / std
        tensor = torch.from_numpy(values.transpose(2, 0, 1).copy())[None].to(self.device)
        top, left, bottom, right = self._padding(*scaled.shape[:2])
        tensor = F.pad(tensor, (left, right, top, bottom))
        with autocast(self.precision, self.device):
            logits = self.network(tensor, context=context)
        result: dict[str, NDArray[np.generic]] = {}
        for task in self.protocol.tasks:
            maps = logits[task.name].float()
            maps = maps[..., top : maps.shape[-2] - bottom, left : maps.shape[-1] - right]
            maps = F.interpolate(maps, size=(height, width), mode="bilinear", align_corners=False)
            prediction = to_prediction(task, maps, zoom=height / scaled.shape[0])[0].cpu().numpy()
            result[task.name] = prediction.astype(np.uint8 if task.activation == "argmax" else np.float32)
        return result

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
                "controllable.pth that it writes."
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

"""Random scenes, made on the fly, so that this repository needs no download."""

from __future__ import annotations

from typing import Any

import numpy as np

from mtvision.core.registry import DATASETS
from mtvision.core.sample import Meta, RawSample
from mtvision.data.dataset import DenseDataset


@DATASETS.register_module()
class ShadedDiscs(DenseDataset):
    """Coloured discs in uneven light: image = albedo x shading.

    Labels: `semseg`, 0 = ground and 1 = disc, (H, W). `albedo`, reflectance in 0..1, (H, W, 3).

    Args:
        length: number of images.
        size: (H, W) in pixels.
        split: `train`, `val` or `test`; they share no scene.
        options: of every data set: `protocol`, `transforms`, `seed`, `tasks`.
    """

    def __init__(
        self, *, length: int = 32, size: tuple[int, int] = (48, 64), split: str = "train", **options: Any
    ) -> None:
        self.size = tuple(size)
        ids = [f"{split}-{index}" for index in range(length)]
        super().__init__(ids=ids, split=split, **options)

    def read(self, index: int) -> RawSample:
        """Draw one scene from its id; nothing else decides it."""
        rng = np.random.default_rng(list(self.ids[index].encode()))
        rows, columns = np.mgrid[: self.size[0], : self.size[1]] / self.size[0]
        classes = np.zeros(self.size, np.uint8)
        albedo = np.broadcast_to(rng.uniform(0.2, 0.9, 3), (*self.size, 3)).copy()
        for _ in range(4):
            disc = np.hypot(rows - rng.uniform(), columns - 1.3 * rng.uniform()) < rng.uniform(0.1, 0.3)
            classes[disc], albedo[disc] = 1, rng.uniform(0.1, 1, 3)
        shading = np.clip(0.6 + rng.uniform(-0.4, 0.4, 2) @ [rows.ravel(), columns.ravel()], 0.1, 1)
        image = 255 * albedo * shading.reshape(*self.size, 1)
        labels = {"semseg": classes, "albedo": albedo.astype(np.float32)}
        labels = {name: label for name, label in labels.items() if name in self.tasks}
        meta = Meta(id=self.ids[index], size=self.size, original_size=self.size)
        return RawSample(image=image.round().astype(np.uint8), labels=labels, tasks=self.tasks, meta=meta)

    def parameters(self) -> dict[str, Any]:
        """What decides the content, for the hash of the data in records."""
        return {"size": list(self.size), "split": self.split, "version": 1}

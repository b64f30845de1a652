"""Changes of colour; labels and geometry stay."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mtvision.core.sample import IMAGE_MEAN, IMAGE_STD, RawSample


@dataclass(frozen=True, kw_only=True)
class Normalize:
    """RGB in 0..255 to float32 (v / 255 - mean) / std; ImageNet statistics by default."""

    mean: tuple[float, float, float] = IMAGE_MEAN
    std: tuple[float, float, float] = IMAGE_STD

    def __call__(self, sample: RawSample, rng: np.random.Generator) -> RawSample:
        """The sample with a normalised image."""
        mean = np.asarray(self.mean, dtype=np.float32)
        std = np.asarray(self.std, dtype=np.float32)
        image: NDArray[np.float32]
        if sample.image.dtype == np.uint8:  # 256 values per channel: look them up
            levels = np.arange(256, dtype=np.float32)[:, None]
            table = ((levels / np.float32(255.0) - mean) / std)[None]
            image = np.asarray(cv2.LUT(sample.image, table), dtype=np.float32)
        else:
            image = (sample.image.astype(np.float32) / np.float32(255.0) - mean) / std
        return sample.with_(image=image)

"""Changes of colour; labels and geometry stay."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mtvision.core.registry import TRANSFORMS
from mtvision.core.sample import IMAGE_MEAN, IMAGE_STD, RawSample
from mtvision.data.transforms.frame import as_bytes

Bytes = NDArray[np.uint8]
_LEVELS = np.arange(256, dtype=np.float32)
HUE, SATURATION = 0, 1  # channels of HSV


@TRANSFORMS.register_module()
@dataclass(frozen=True, kw_only=True)
class PhotoMetricDistortion:
    """Brightness, contrast, saturation and hue, each with probability one half, in 8 bits throughout.

    The image is cast to uint8 first (fractions are cut off), and every step ends in uint8 again. Saturation
    and hue each make their own round trip through OpenCV's 8-bit HSV. A coin decides whether contrast comes
    second or last. (Protocol family A, after SSD and ATRC; without the channel swap.)

    Args:
        brightness: added value is uniform in [-brightness, brightness).
        contrast: (low, high) of the factor.
        saturation: (low, high) of the factor.
        hue: added hue is an integer in [-hue, hue - 1], in OpenCV's half degrees.
    """

    brightness: float = 32.0
    contrast: tuple[float, float] = (0.5, 1.5)
    saturation: tuple[float, float] = (0.5, 1.5)
    hue: int = 18

    def __call__(self, sample: RawSample, rng: np.random.Generator) -> RawSample:
        """The sample with other colours, image uint8."""
        image = as_bytes(sample.image)
        if _coin(rng):
            image = _apply(image, _curve(1.0, rng.uniform(-self.brightness, self.brightness)))
        contrast_first = _coin(rng)
        if contrast_first:
            image = self._contrast(image, rng)
        if _coin(rng):
            image = _in_hsv(image, SATURATION, _curve(rng.uniform(*self.saturation), 0.0))
        if _coin(rng):
            shift = int(rng.integers(-self.hue, self.hue))
            image = _in_hsv(image, HUE, ((np.arange(256) + shift) % 180).astype(np.uint8))
        if not contrast_first:
            image = self._contrast(image, rng)
        return sample.with_(image=image)

    def _contrast(self, image: Bytes, rng: np.random.Generator) -> Bytes:
        return _apply(image, _curve(rng.uniform(*self.contrast), 0.0)) if _coin(rng) else image


def _coin(rng: np.random.Generator) -> bool:
    return bool(rng.integers(2))


def _curve(factor: float, offset: float) -> Bytes:
    """What v * factor + offset, clipped and cut to 8 bits, makes of each of the 256 values."""
    values = _LEVELS * np.float32(factor) + np.float32(offset)
    curve: Bytes = np.clip(values, 0, 255).astype(np.uint8)
    return curve


def _apply(image: Bytes, curve: Bytes) -> Bytes:
    return np.asarray(cv2.LUT(np.ascontiguousarray(image), curve), dtype=np.uint8)


def _in_hsv(image: Bytes, channel: int, curve: Bytes) -> Bytes:
    """One channel of the image's HSV form looked up in a curve; 8 bits there and back."""
    hsv = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2HSV)
    cv2.insertChannel(cv2.LUT(cv2.extractChannel(hsv, channel), curve), hsv, channel)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), dtype=np.uint8)


@TRANSFORMS.register_module()
@dataclass(frozen=True, kw_only=True)
class Normalize:
    """RGB in 0..255 to float32 (v / 255 - mean) / std; ImageNet statistics by default."""

    mean: tuple[float, float, float] = IMAGE_MEAN
    std: tuple[float, float, float] = IMAGE_STD

    def __call__(self, sample: RawSample, rng: np.random.Generator) -> RawSample:
        """The sample with a normalised image."""
        mean = np.asarray(self.mean, dtype=np.float32)
        std = np.asarray(self.std, dtype=np.float32)
        if sample.image.dtype == np.uint8:  # 256 values per channel: look them up
            tables = (_LEVELS / np.float32(255.0) - mean[:, None]) / std[:, None]
            channels = cv2.split(np.ascontiguousarray(sample.image))
            planes = np.empty((3, *sample.image.shape[:2]), dtype=np.float32)
            for plane, channel, table in zip(planes, channels, tables, strict=True):
                cv2.LUT(channel, table, plane)
            image = planes.transpose(1, 2, 0)  # in memory channel by channel, as the network wants it
        else:
            image = (sample.image.astype(np.float32) / np.float32(255.0) - mean) / std
        return sample.with_(image=image)


@TRANSFORMS.register_module()
@dataclass(frozen=True, kw_only=True)
class ToBytes:
    """Cast the image to 8 bits: fractions are cut off, what interpolation left outside 0..255 is clipped.

    The survey's code casts without clipping, so that overshoot of the cubic filter wraps around (258 becomes
    2).

    Args:
        clip: False where nothing can lie outside, as after bilinear interpolation; faster.
    """

    clip: bool = True

    def __call__(self, sample: RawSample, rng: np.random.Generator) -> RawSample:
        """The sample with a uint8 image."""
        return sample.with_(image=as_bytes(sample.image) if self.clip else sample.image.astype(np.uint8))

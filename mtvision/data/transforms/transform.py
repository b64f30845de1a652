"""The transform interface, and pipelines of transforms from a config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from mtvision.core.sample import RawSample
from mtvision.data.transforms.geometry import RandomCrop, RandomScale, scale_and_crop


class Transform(Protocol):
    """Turns a raw sample into another one; draws only from the generator it is given.

    Transforms never write into the arrays they receive.

    >>> from mtvision.core.sample import Meta
    >>> class Noise:
    ...     def __call__(self, sample, rng):
    ...         return sample.with_(image=sample.image + rng.normal(size=sample.image.shape))
    >>> raw = RawSample(np.zeros((2, 2, 3), np.float32), {}, {}, Meta("a", (2, 2), (2, 2)))
    >>> first, again = (Noise()(raw, np.random.default_rng(0)).image for _ in range(2))
    >>> bool((first == again).all())
    True
    """

    def __call__(self, sample: RawSample, rng: np.random.Generator) -> RawSample:
        """The transformed sample."""


@dataclass(frozen=True)
class Pipeline:
    """Transforms one after another, drawing from one generator.

    A scale that a crop follows is done within the crop's window; the result is the same.
    """

    transforms: tuple[Transform, ...]

    def __call__(self, sample: RawSample, rng: np.random.Generator) -> RawSample:
        """The sample after all transforms."""
        position = 0
        while position < len(self.transforms):
            transform, *later = self.transforms[position : position + 2]
            if type(transform) is RandomScale and later and type(later[0]) is RandomCrop:
                sample = scale_and_crop(transform, later[0], sample, rng)
                position += 2
            else:
                sample = transform(sample, rng)
                position += 1
        return sample


TransformConfig = str | Mapping[str, Any] | Sequence[Mapping[str, Any] | Transform]
"""A preset's name, `{"preset": name, **options}`, or a list of instances and `{"type": name, **options}`."""

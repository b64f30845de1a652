"""What a transform is, and how a config becomes a pipeline of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from mtvision.core.sample import RawSample


class Transform(Protocol):
    """Turns a raw sample into another one; draws only from the generator it is given.

    Transforms never write into the arrays they receive.
    """

    def __call__(self, sample: RawSample, rng: np.random.Generator) -> RawSample:
        """The transformed sample."""


@dataclass(frozen=True)
class Pipeline:
    """Transforms one after another, drawing from one generator."""

    transforms: tuple[Transform, ...]

    def __call__(self, sample: RawSample, rng: np.random.Generator) -> RawSample:
        """The sample after all transforms."""
        for transform in self.transforms:
            sample = transform(sample, rng)
        return sample


TransformConfig = str | Mapping[str, Any] | Sequence[Mapping[str, Any] | Transform]
"""A preset's name, `{"preset": name, **options}`, or a list of instances and `{"type": name, **options}`."""

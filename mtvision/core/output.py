"""Return values of decoders and networks."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Auxiliary:
    """Deep supervision: extra logits of a task, added to that task's loss with a weight.

    Args:
        task: whose label supervises it.
        logits: (B, out_channels, h, w).
        weight: factor of the extra loss.
    """

    task: str
    logits: Tensor
    weight: float = 1.0


@dataclass(frozen=True)
class DecoderOutput:
    """One feature map (B, C, h, w) per task, and deep supervision if the decoder has any.

    >>> import torch
    >>> extra = Auxiliary("depth", torch.zeros(1, 1, 6, 6), weight=0.4)
    >>> output = DecoderOutput({"depth": torch.zeros(1, 8, 6, 6)}, [extra])
    >>> list(output.features), output.auxiliary[0].weight
    (['depth'], 0.4)
    """

    features: dict[str, Tensor]
    auxiliary: list[Auxiliary] = field(default_factory=list)


@dataclass(frozen=True)
class NetworkOutput:
    """Logits (B, out_channels, H, W) per task at label resolution, and deep supervision likewise."""

    logits: dict[str, Tensor]
    auxiliary: list[Auxiliary] = field(default_factory=list)

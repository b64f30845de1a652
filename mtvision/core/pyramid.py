"""Feature maps that a backbone computes and a decoder reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from mtvision.core.naming import look_up


def size_of(feature: Tensor) -> tuple[int, int]:
    """(H, W) of an image or map (..., H, W).

    Not through `int`: in a program that `torch.export` traces, sizes are symbols, which `int` would fix.

    >>> import torch
    >>> size_of(torch.zeros(1, 3, 4, 6))
    (4, 6)
    """
    return feature.shape[-2], feature.shape[-1]


def ceil_div(size: int, stride: int) -> int:
    """`size / stride`, rounded up: cells of `stride` pixels that cover a side of an image.

    Not `-(-size // stride)`: in a traced program ONNX rounds quotients of negative numbers towards zero.

    >>> ceil_div(33, 16), ceil_div(32, 16)
    (3, 2)
    """
    return (size + stride - 1) // stride


@dataclass(frozen=True)
class Pyramid:
    """Feature maps of one image batch, fine to coarse.

    Args:
        maps: tensors (B, C_i, H_i, W_i).
        strides: image pixels per map pixel, one per map, never decreasing (equal for plain ViTs).

    >>> import torch
    >>> pyramid = Pyramid((torch.zeros(1, 8, 6, 6), torch.zeros(1, 16, 3, 3)), strides=(4, 8))
    >>> pyramid.channels
    (8, 16)
    """

    maps: tuple[Tensor, ...]
    strides: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.maps) != len(self.strides):
            raise ValueError(f"pyramid: {len(self.maps)} maps but {len(self.strides)} strides.")
        if list(self.strides) != sorted(self.strides):
            raise ValueError(f"pyramid: strides must go from fine to coarse, got {self.strides}.")

    @classmethod
    def of(cls, maps: Iterable[Tensor], strides: Iterable[int]) -> Pyramid:
        """Pyramid of side exits.

        Every map becomes a view of itself. Otherwise a gradient taken at an early level would also contain
        the path through the later levels. Per-task Jacobians of the shared parameters would then count it
        twice.
        """
        return cls(tuple(item.view_as(item) for item in maps), tuple(strides))

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each map."""
        return tuple(int(item.shape[1]) for item in self.maps)

    def for_task(self, name: str) -> Pyramid:
        """The pyramid that task `name` reads."""
        return self


class TaskPyramids(Pyramid):
    """One pyramid per task, from a branching or task-conditioned backbone; same contract for decoders."""

    def __init__(self, pyramids: Mapping[str, Pyramid]) -> None:
        if not pyramids:
            raise ValueError("pyramid: there must be a pyramid for at least one task.")
        first = next(iter(pyramids.values()))
        super().__init__(first.maps, first.strides)
        object.__setattr__(self, "_pyramids", dict(pyramids))

    def for_task(self, name: str) -> Pyramid:
        """The pyramid that task `name` reads; raises `UnknownNameError`."""
        pyramids: dict[str, Pyramid] = self.__dict__["_pyramids"]
        return look_up("task of the pyramids", name, pyramids)

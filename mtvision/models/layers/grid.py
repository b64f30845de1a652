"""Levels of a pyramid on one grid, for decoders written for plain ViTs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from mtvision.core.pyramid import Pyramid, size_of
from mtvision.models.layers.conv import resize


def common_grid(pyramid: Pyramid, tasks: Sequence[str]) -> dict[str, list[Tensor]]:
    """{task: all levels of its pyramid, resized to the last one that is not coarser than stride 16}.

    The levels of a ViT with patches of 16 or 14 pixels have one size already and stay as they are. Tasks that
    read the same pyramid get the same list.
    """
    known: dict[int, list[Tensor]] = {}
    for name in tasks:
        own = pyramid.for_task(name)
        if id(own) not in known:
            known[id(own)] = _resized(own)
    return {name: known[id(pyramid.for_task(name))] for name in tasks}


def once_per_map(function: Callable[[Tensor], Tensor], maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """{task: function of its map}; tasks that read the same tensor share one call and its result."""
    results: dict[int, Tensor] = {}
    for feature in maps.values():
        if id(feature) not in results:
            results[id(feature)] = function(feature)
    return {name: results[id(feature)] for name, feature in maps.items()}


def _resized(pyramid: Pyramid) -> list[Tensor]:
    index = max([index for index, stride in enumerate(pyramid.strides) if stride <= 16], default=0)
    size = size_of(pyramid.maps[index])
    return [resize(item, size) for item in pyramid.maps]

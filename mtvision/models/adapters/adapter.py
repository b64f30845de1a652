"""The contract of an adapter: a change to a network that an ordinary config declares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mtvision.core.task import Task
from mtvision.models.backbones.backbone import Backbone
from mtvision.models.network import Network


class Adapter:
    """Base of all adapters, listed under `model.adapters` and used in that order.

    A subclass overrides one of the two methods, or both. It swaps, wraps or parametrises modules of what it
    is given and never copies a backbone class. Its run-time settings come from
    `mtvision.core.context.current_context()`.
    """

    def apply(self, backbone: Backbone, tasks: Sequence[Task]) -> Backbone:
        """Change a backbone before a decoder is built on it; returns it, or one that takes its place.

        The result satisfies the contract of `Backbone`, so its `channels` and `strides` are right: call
        `measure()` again after a change of widths. A backbone with maps of their own for every task returns
        `TaskPyramids`.
        """
        del tasks
        return backbone

    def plain(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The adapter's config for a checkpoint: plain data that needs no other file."""
        return dict(config)

    def complete(self, network: Network) -> None:
        """Change the finished network in place, for what concerns decoder and heads as well."""
        del network

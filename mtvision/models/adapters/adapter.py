"""The contract of an adapter: a change to a network that an ordinary config declares."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar

from mtvision.core.task import Task, without_tasks
from mtvision.models.backbones.backbone import Backbone
from mtvision.models.network import Network


class Adapter:
    """Base of all adapters, listed under `model.adapters` and used in that order.

    A subclass overrides one of the two methods, or both. It swaps, wraps or parametrises modules of what it
    is given and never copies a backbone class. Its run-time settings come from
    `mtvision.core.context.current_context()`.

    Attributes:
        task_options: constructor's options that are {task: value}, see `for_tasks`.
        train: globs of the backbone's parameters that it trains where it freezes the others.

    >>> class Frozen(Adapter):
    ...     def apply(self, backbone, tasks):
    ...         return backbone.requires_grad_(False)
    >>> Frozen().plain({"type": "Frozen"})
    {'type': 'Frozen'}
    """

    task_options: ClassVar[tuple[str, ...]] = ()
    train: tuple[str, ...] = ()

    @classmethod
    def for_tasks(
        cls, options: Mapping[str, Any], tasks: Sequence[str], absent: Collection[str]
    ) -> dict[str, Any]:
        """The options in a config for a run that has not all tasks of its protocol.

        By default the options of `task_options` lose the entries of absent tasks.

        Args:
            options: what the config gives, without `type`.
            tasks: of the run.
            absent: tasks of the protocol that the run does not have.
        """
        del tasks
        return without_tasks(options, cls.task_options, absent)

    def apply(self, backbone: Backbone, tasks: Sequence[Task]) -> Backbone:
        """Change a backbone before a decoder is built on it; returns it, or one that takes its place.

        The result satisfies the contract of `Backbone`, so its `channels` and `strides` are right: call
        `measure()` again after a change of widths. A backbone with maps of their own for every task returns
        `TaskPyramids`.

        What is added, and what `train` names, stays as it is when a later adapter freezes the backbone
        (`build_network`).
        """
        del tasks
        return backbone

    def plain(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The adapter's config for a checkpoint: plain data that needs no other file."""
        return dict(config)

    def complete(self, network: Network) -> None:
        """Change the finished network in place, for what concerns decoder and heads as well."""
        del network

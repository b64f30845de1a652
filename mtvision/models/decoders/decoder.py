"""The decoder contract."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar

from torch import nn

from mtvision.core.naming import UnknownNameError
from mtvision.core.output import DecoderOutput
from mtvision.core.pyramid import Pyramid
from mtvision.core.task import Task, without_tasks
from mtvision.models.declarations import Declares


class Decoder(nn.Module, Declares):
    """Turns a pyramid into one feature map per task. Only decoders exchange features between tasks.

    A subclass calls this constructor, adds its modules, sets `out_channels` and implements `forward`.
    Modules of a single task should have the task's name in their path (an entry of a ModuleDict). The cost
    report then counts them for that task, and a slimmable network gives them the width of that task.
    `declaration` says what else concerns widths and branches, see `mtvision.models.declarations`.

    Args:
        channels: of each pyramid level, fine to coarse.
        strides: of each pyramid level.
        tasks: whose features are made.

    Attributes:
        out_channels: {task name: channels of its feature map}.
        task_options: constructor's options that are {task: value}, see `for_tasks`.

    >>> import torch
    >>> from mtvision.protocols.tasks import depth
    >>> class Finest(Decoder):
    ...     def __init__(self, **options):
    ...         super().__init__(**options)
    ...         self.out_channels = {task.name: self.channels[0] for task in self.tasks}
    ...
    ...     def forward(self, pyramid, tasks=None):
    ...         return DecoderOutput({t.name: pyramid.for_task(t.name).maps[0] for t in self.asked(tasks)})
    >>> decoder = Finest(channels=[8, 16], strides=[4, 8], tasks=[depth()])
    >>> output = decoder(Pyramid((torch.zeros(2, 8, 6, 6), torch.zeros(2, 16, 3, 3)), (4, 8)))
    >>> output.features["depth"].shape
    torch.Size([2, 8, 6, 6])
    """

    out_channels: dict[str, int]
    task_options: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *, channels: Sequence[int], strides: Sequence[int], tasks: Sequence[Task]) -> None:
        super().__init__()
        self.channels, self.strides, self.tasks = tuple(channels), tuple(strides), tuple(tasks)

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

    def forward(self, pyramid: Pyramid, tasks: Sequence[str] | None = None) -> DecoderOutput:
        """Feature maps (B, C, h, w) of `tasks` (all by default), and deep supervision in training mode.

        Read the maps of a task from `pyramid.for_task(name)`. Compute no more than `tasks` needs, where
        the design permits.
        """
        raise NotImplementedError

    def reads(self, tasks: Sequence[str] | None) -> Sequence[str] | None:
        """Tasks whose maps `forward(pyramid, tasks)` reads, None = all.

        A branching backbone computes no others. Override this where a task's features need only its own maps.
        """
        del tasks
        return None

    def recomputed(self) -> list[str]:
        """Paths of the modules that `training.recompute=["decoder"]` computes again in the backward pass.

        By default those of single tasks: the entries of the outermost ModuleDicts whose keys are tasks.
        Single layers are left out, because they keep no more than what they read. Override this where
        modules of all tasks keep much. The path "" is the decoder itself, where no task has modules.
        """
        names = {task.name for task in self.tasks}
        found: list[str] = []
        for path, module in self.named_modules():
            inside = any(path.startswith(f"{outer}.") for outer in found)
            if isinstance(module, nn.ModuleDict) and len(module) and set(module) <= names and not inside:
                found += [f"{path}.{name}" for name, entry in module.items() if _is_called(entry)]
        return found or [""]

    def output_layers(self, task: str) -> list[nn.Conv2d]:
        """The convolutions that make the task's logits of deep supervision; none by default."""
        del task
        return []

    def asked(self, tasks: Sequence[str] | None) -> list[Task]:
        """Task values of the names asked for, in the network's order.

        Raises:
            UnknownNameError: the decoder has no such task.
        """
        known = [task.name for task in self.tasks]
        for name in tasks or ():
            if name not in known:
                raise UnknownNameError("task of this decoder", name, known)
        return [task for task in self.tasks if tasks is None or task.name in tasks]


def _is_called(module: nn.Module) -> bool:
    """Whether a module has layers and is no table of modules; those of its entries are looked at."""
    return bool([*module.children()]) and not isinstance(module, nn.ModuleDict)

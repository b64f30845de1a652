"""Embeddings of tasks, and TROA: which tasks share theirs, learned from the gradients of their losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtvision.core.context import average_in_force, current_context
from mtvision.models.backbones.backbone import Backbone

MOMENTUM, TEMPERATURE = 0.99, 0.25
"""Of the moving mean of cosines; of the softmax over them."""


class TaskSimilarities(nn.Module):
    """How much tasks share, from cosines between the gradients of their losses (TROA; this form is ours).

    The paper's slides show an asymmetric matrix that is learned from gradients. The released code has none.
    Here row t is the softmax over moving means of cosines with task t, divided by a temperature. Rows sum to
    1, which makes the matrix asymmetric. A fresh one takes different tasks as orthogonal.

    Args:
        tasks: T.

    Attributes:
        cosines: (T, T) moving means.
    """

    cosines: Tensor

    def __init__(self, tasks: int) -> None:
        super().__init__()
        self.register_buffer("cosines", torch.eye(tasks))
        self._gradients: dict[int, Tensor] = {}
        self._waiting = False

    def forward(self) -> Tensor:
        """The matrix (T, T); row t has the shares of all tasks in the embedding of task t."""
        return (self.cosines / TEMPERATURE).softmax(dim=1)

    def note(self, task: int, gradient: Tensor) -> None:
        """Keep the gradient of a task's losses in its state, until the next step.

        Backward passes that are computed together, by `torch.vmap`, have no values to read and are left out.
        """
        if not torch._C._functorch.is_batchedtensor(gradient):
            self._gradients[task] = gradient.detach()

    @torch.no_grad()
    def update(self) -> None:
        """Move the means towards the cosines of the last step.

        Cosines are averaged over processes where all of them compute this pass (`means_over`). Steps that
        divide a batch may leave a process without a part. There every process learns its own means. The
        first pass has no step before it, on any process.
        """
        if not self._waiting:
            self._waiting = True
            return
        count = len(self.cosines)
        found = torch.zeros(2, count, count, device=self.cosines.device)
        for one, first in self._gradients.items():
            for other, second in self._gradients.items():
                same_images = first.shape == second.shape
                if same_images:
                    found[0, one, other] = F.cosine_similarity(first.flatten(), second.flatten(), dim=0)
                    found[1, one, other] = 1
        self._gradients.clear()
        average = average_in_force()
        if average is not None:  # the same bits everywhere
            (found,) = average([found])
        mean = found[0] / torch.where(found[1] > 0, found[1], 1)
        moved = MOMENTUM * self.cosines + (1 - MOMENTUM) * mean
        self.cosines.copy_(torch.where(found[1] > 0, moved, self.cosines))

    def __getstate__(self) -> dict[str, Any]:
        """Without the gradients of the last step."""
        return {**self.__dict__, "_gradients": {}, "_waiting": False}


class TaskTable(nn.Embedding):
    """Embeddings of tasks, mixed where there are similarities.

    Args:
        tasks: T.
        size: E.
        similarities: there is a matrix of them.
    """

    def __init__(self, tasks: int, size: int, *, similarities: bool = False) -> None:
        super().__init__(tasks, size)
        self.similarities = TaskSimilarities(tasks) if similarities else None

    def of(self, task: int) -> Tensor:
        """Embedding (E) of a task."""
        if self.similarities is None:
            return self.weight[task]
        shares: Tensor = self.similarities()[task]
        return shares.to(self.weight.dtype) @ self.weight


def measure_gradients(backbone: Backbone, similarities: TaskSimilarities, tasks: Sequence[str]) -> None:
    """Let similarities learn from the gradients in the results of a backbone's last block.

    Args:
        backbone: its last block is run once per task.
        similarities: learn from the last step, when the next training pass begins.
        tasks: names.
    """
    backbone.register_forward_pre_hook(_Update(similarities))
    last = backbone.get_submodule(backbone.block_names()[-1])
    last.register_forward_hook(_Watch(similarities, tuple(tasks)))


class _Update:
    """Hook before a pass of the backbone.

    Args:
        similarities: learn from the passes before.
    """

    def __init__(self, similarities: TaskSimilarities) -> None:
        self.similarities = similarities

    def __call__(self, module: nn.Module, given: tuple[Any, ...]) -> None:
        """Use the gradients of the last training pass; in training alone."""
        del given
        if module.training and torch.is_grad_enabled():
            self.similarities.update()


class _Watch:
    """Hook of the last block.

    Args:
        similarities: learn.
        tasks: names.
    """

    def __init__(self, similarities: TaskSimilarities, tasks: tuple[str, ...]) -> None:
        self.similarities, self.tasks = similarities, tasks

    def __call__(self, module: nn.Module, given: tuple[Any, ...], output: Tensor) -> None:
        """Ask for the gradient of the result; in training alone."""
        del given
        task = current_context().task
        if module.training and output.requires_grad and task in self.tasks:
            note = partial(self.similarities.note, self.tasks.index(task))
            output.register_hook(note)  # type: ignore[no-untyped-call]


def task_similarities(network: nn.Module) -> Mapping[str, Mapping[str, float]]:
    """{task: {task: share of its embedding}} of a network with `VTAGML(similarities=True)`; rows sum to 1.

    Raises:
        ValueError: the network has no such adapter.
    """
    hooks = (hook for item in network.modules() for hook in item._forward_hooks.values())
    watches = [hook for hook in hooks if isinstance(hook, _Watch)]
    if not watches:
        raise ValueError("task_similarities: the network has no VTAGML with similarities=True.")
    names, matrix = watches[0].tasks, watches[0].similarities().tolist()
    return {one: dict(zip(names, row, strict=True)) for one, row in zip(names, matrix, strict=True)}

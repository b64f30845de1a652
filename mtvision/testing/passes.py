"""The losses that a step is given in a battery."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mtvision.core.sample import Batch
from mtvision.core.task import Task
from mtvision.losses import TaskLosses
from mtvision.models.network import Network
from mtvision.steps import LossReport
from mtvision.testing.modules import Setting

Forward = Callable[[Batch], LossReport]


def forward_of(network: Network, tasks: Sequence[Task], setting: Setting) -> Forward:
    """What computes the losses of a batch as the engine does."""
    losses = TaskLosses(tasks)

    def forward(batch: Batch) -> LossReport:
        asked = [task.name for task in tasks if task.name in batch.labels]
        with setting.autocast():
            output = network.outputs(batch.image, tasks=asked, size=batch.label_size)
        logits = {name: item.detach() for name, item in output.logits.items()}
        return LossReport(losses(output, batch), network.auxiliary_losses(), logits)

    return forward

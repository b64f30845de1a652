"""Network, losses, balancer and step as the one module that the runner trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from mmengine.registry import MODEL_WRAPPERS
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mtvision.balance.balancer import Balancer
from mtvision.core.sample import Batch
from mtvision.core.task import Task
from mtvision.engine.optimizer_wrapper import PrecisionOptimWrapper
from mtvision.evaluation.scoring import predict_batch
from mtvision.losses.task_losses import TaskLosses, check_finite
from mtvision.models.network import Network
from mtvision.runtime.precision import Precision, autocast
from mtvision.steps.problem import LossReport, StepProblem
from mtvision.steps.step import Step


class TrainingModule(nn.Module):
    """Network, losses, balancer and step, which `TrainLoop` trains and evaluates.

    Args:
        network: the model.
        tasks: its tasks, in the protocol's order.
        balancer: rule over losses or gradients.
        step: one batch to gradients.
        micro_batches: parts a batch is split into; their gradients add up to one step.
        role_overrides: {glob of parameter names: role}.
        evaluation_precision: of `val_step`.
        scored: tasks with predictions as the metrics read them, for `val_step`; None = `tasks`.
    """

    def __init__(
        self,
        network: Network,
        tasks: Sequence[Task],
        balancer: Balancer,
        step: Step,
        *,
        micro_batches: int = 1,
        role_overrides: Mapping[str, str] | None = None,
        evaluation_precision: Precision = "fp32",
        scored: Sequence[Task] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.balancer = balancer
        self.tasks = tuple(tasks)
        self.scored = self.tasks if scored is None else tuple(scored)
        self.step = step
        self.losses = TaskLosses(tasks)
        self.micro_batches = micro_batches
        self.role_overrides = dict(role_overrides or {})
        self.evaluation_precision: Precision = evaluation_precision

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return next(self.network.parameters()).device

    def forward(self, batch: Batch) -> LossReport:
        """Losses of a batch, in training mode; every task with a label and nothing else is computed."""
        tasks = [task.name for task in self.tasks if task.name in batch.labels]
        output = self.network.outputs(batch.image, tasks=tasks, size=batch.label_size)
        with torch.autocast(self.device.type, enabled=False):
            losses = self.losses(output, batch)
        check_finite(losses, batch, output)
        logits = {name: item.detach() for name, item in output.logits.items()}
        return LossReport(losses=losses, auxiliary=self.network.auxiliary_losses(), logits=logits)

    def train_step(self, batch: Batch, optim_wrapper: PrecisionOptimWrapper) -> dict[str, Tensor]:
        """One optimizer step; returns what to log."""
        return train_step(self, self, batch, optim_wrapper)

    def val_step(self, batch: Batch) -> list[dict[str, Tensor]]:
        """Predictions per sample, without batch axis, on the CPU."""
        return predict_batch(self.network, self.scored, batch, self.evaluation_precision)

    test_step = val_step


@MODEL_WRAPPERS.register_module()
class DistributedModule(DistributedDataParallel):
    """DDP around a `TrainingModule`.

    Unused parameters are expected: a rank whose images have no labels of a task does not compute that task.
    The balancer's parameters stay outside, because its loss is formed after the wrapped forward pass; the
    step averages their gradients.
    """

    def __init__(self, module: TrainingModule) -> None:
        outside = [f"balancer.{name}" for name, _ in module.balancer.named_parameters()]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(module, outside)  # type: ignore[no-untyped-call]
        devices = [torch.cuda.current_device()] if module.device.type == "cuda" else None
        super().__init__(module, device_ids=devices, find_unused_parameters=True, broadcast_buffers=False)

    def train_step(self, batch: Batch, optim_wrapper: PrecisionOptimWrapper) -> dict[str, Tensor]:
        """One optimizer step over all ranks."""
        return train_step(self.module, self, batch, optim_wrapper)

    def val_step(self, batch: Batch) -> list[dict[str, Tensor]]:
        """As the module's; ranks score different images."""
        predictions: list[dict[str, Tensor]] = self.module.val_step(batch)
        return predictions

    test_step = val_step


def train_step(
    module: TrainingModule,
    wrapped: TrainingModule | DistributedModule,
    batch: Batch,
    optim_wrapper: PrecisionOptimWrapper,
) -> dict[str, Tensor]:
    """Gradients of every micro-batch through the step, then one optimizer update."""
    by_hand = module.step.averages_gradients(module.balancer)  # then DDP's hooks must stay out of it
    parts = split(batch.to(module.device), module.micro_batches)
    logs: list[Mapping[str, Tensor]] = []
    for index, part in enumerate(parts):
        share = len(part) / len(batch)
        last = index == len(parts) - 1
        runs = module if by_hand else wrapped
        quiet = isinstance(runs, DistributedModule) and not last
        no_sync: AbstractContextManager[Any] = runs.no_sync() if quiet else nullcontext()  # type: ignore[operator]
        with no_sync:
            logs.append(module.step(_problem(module, runs, optim_wrapper, share), part))
    optim_wrapper.finish_step()
    shares = [len(part) / len(batch) for part in parts]
    names = {name for log in logs for name in log}
    return {
        name: torch.stack(
            [
                share * log[name].detach().float()
                for share, log in zip(shares, logs, strict=True)
                if name in log
            ]
        ).sum()
        for name in sorted(names)
    }


def _problem(
    module: TrainingModule,
    runs: TrainingModule | DistributedModule,
    optim_wrapper: PrecisionOptimWrapper,
    share: float,
) -> StepProblem:
    def forward(batch: Batch) -> LossReport:
        with autocast(optim_wrapper.precision, module.device):
            report: LossReport = runs(batch)
        return report

    def scale(loss: Tensor) -> Tensor:
        return optim_wrapper.scale(loss * share)

    def backward(loss: Tensor) -> None:
        scale(loss).backward()  # type: ignore[no-untyped-call]

    return StepProblem(
        forward=forward,
        balancer=module.balancer,
        parameters=list(module.network.named_parameters()),
        backward=backward,
        scale=scale,
        average=average_over_ranks,
        gather=gather_over_ranks,
        tasks=module.tasks,
        role_overrides=module.role_overrides,
    )


def average_over_ranks(tensors: list[Tensor]) -> list[Tensor]:
    """Mean of each tensor over all processes; the tensors themselves on a single one."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return tensors
    averaged = [tensor.clone() for tensor in tensors]
    for tensor in averaged:
        dist.all_reduce(tensor)
        tensor /= dist.get_world_size()
    return averaged


def gather_over_ranks(value: Any) -> list[Any]:
    """The value of every process, in the order of their ranks; plain data only."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def split(batch: Batch, parts: int) -> list[Batch]:
    """Cut a batch into at most `parts` consecutive pieces of nearly equal size; empty ones are dropped."""
    if parts == 1:
        return [batch]
    cuts = torch.arange(len(batch)).tensor_split(parts)
    pieces = []
    for index in (cut for cut in cuts if len(cut)):
        present = {name: flags[index] for name, flags in batch.present.items()}
        kept = [name for name in batch.labels if bool(present[name].any())]
        pieces.append(
            Batch(
                image=batch.image[index],
                labels={name: batch.labels[name][index] for name in kept},
                present={name: present[name] for name in kept},
                meta=[batch.meta[int(i)] for i in index],
            )
        )
    return pieces

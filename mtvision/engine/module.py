"""Network, losses, balancer and step as the one module that the runner trains."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from mmengine.registry import MODEL_WRAPPERS
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mtvision.balance.balancer import Balancer
from mtvision.core.context import means_over
from mtvision.core.naming import ReportedError
from mtvision.core.non_finite import NonFiniteError, NonFiniteGradientError
from mtvision.core.output import NetworkOutput
from mtvision.core.sample import Batch
from mtvision.core.task import Task
from mtvision.engine.optimization.wrapper import PrecisionOptimWrapper
from mtvision.engine.parts import shares_of, split
from mtvision.engine.ranks import (
    LogMeans,
    LossMeans,
    WholeBatch,
    average_over_ranks,
    begin_average_over_ranks,
    number_of_ranks,
    sum_over_ranks,
)
from mtvision.evaluation.scoring import predict_batch
from mtvision.losses.task_losses import NonFiniteLossError, TaskLosses, check_finite
from mtvision.models.network import Network
from mtvision.models.partial import grouped
from mtvision.runtime.launch import gather
from mtvision.runtime.precision import Precision, autocast
from mtvision.runtime.state_dicts import some
from mtvision.steps.gradients.diagnostics import with_shares
from mtvision.steps.problem import LossReport, StepProblem
from mtvision.steps.step import Step, in_rounds


class UnreachedError(ReportedError, RuntimeError):
    """Several processes wait for gradients that one of them does not compute."""


Watch = Callable[[Sequence[tuple[StepProblem, Batch]]], dict[str, Tensor]]
SKIPPED = "skipped"
UNLABELLED = "unlabelled/"


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
        loss_means: of the labels of one process or of all, see `mtvision.engine.ranks`.
        scaled: each loss may be divided by a constant, see `set_loss_scales`; it is part of the state.
    """

    loss_scale: Tensor | None

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
        loss_means: LossMeans = "rank",
        scaled: bool = False,
    ) -> None:
        super().__init__()
        self.network, self.balancer = network, balancer
        self.tasks = tuple(tasks)
        self.scored = self.tasks if scored is None else tuple(scored)
        step.check_balancer(balancer)
        self.step = step
        self.losses = TaskLosses(tasks)
        self.micro_batches = micro_batches
        self.role_overrides = dict(role_overrides or {})
        self.evaluation_precision: Precision = evaluation_precision
        self.loss_means: LossMeans = loss_means
        self.log_means = LogMeans()
        self.watch: Watch | None = None  # called before a step, see `mtvision.engine.hooks.DiagnosticsHook`
        self.shows_gradients = False  # whether the next step logs what its balancer knows of gradients
        self.register_buffer("loss_scale", torch.ones(len(self.tasks)) if scaled else None)

    def set_loss_scales(self, scales: Mapping[str, float]) -> None:
        """Divide the losses of some tasks from now on; those of others stay as they are.

        Raises:
            ValueError: the module was made without `scaled`.
        """
        if self.loss_scale is None:
            raise ValueError("TrainingModule: losses have no scales; make it with scaled=True.")
        values = [scales.get(task.name, 1.0) for task in self.tasks]
        self.loss_scale.copy_(torch.tensor(values, device=self.loss_scale.device))

    def loss_scales(self) -> dict[str, float]:
        """{task: what its loss is divided by}; empty if the module was made without `scaled`."""
        if self.loss_scale is None:
            return {}
        return {task.name: float(item) for task, item in zip(self.tasks, self.loss_scale, strict=True)}

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return next(self.network.parameters()).device

    def forward(self, batch: Batch, counts: Mapping[str, Tensor] | None = None) -> LossReport:
        """Losses of a batch, in training mode; every task with a label and nothing else is computed.

        Args:
            batch: images and labels.
            counts: what losses divide by, of a larger batch; None = the counts of this one.
        """
        output, losses = self._losses(batch, counts)
        logits = {name: item.detach() for name, item in output.logits.items()}
        return LossReport(losses=losses, auxiliary=self.network.auxiliary_losses(), logits=logits)

    def _losses(
        self, batch: Batch, counts: Mapping[str, Tensor] | None
    ) -> tuple[NetworkOutput, dict[str, Tensor]]:
        tasks = [task.name for task in self.tasks if task.name in batch.labels]
        output = self.network.outputs(batch.image, tasks=tasks, size=batch.label_size)
        with torch.autocast(self.device.type, enabled=False):
            losses = self.losses(output, batch, counts)
        if self.loss_scale is not None:
            scales = dict(zip((task.name for task in self.tasks), self.loss_scale, strict=True))
            losses = {name: loss / scales[name] for name, loss in losses.items()}
        return output, losses

    @torch.no_grad()
    def blame(self, batch: Batch, precision: Precision) -> None:
        """Run a batch again whose losses were not finite, to find out which samples cause it.

        Raises:
            NonFiniteLossError: names tasks and samples. Nothing is raised if all is finite this time.
        """
        with autocast(precision, self.device):
            output, losses = self._losses(batch, None)
        check_finite(losses, batch, output)

    def train_step(self, batch: Batch, optim_wrapper: PrecisionOptimWrapper) -> dict[str, Tensor]:
        """The optimizer steps of one batch; returns what to log."""
        return in_rounds(self.step, self.balancer, partial(train_step, self, self, batch, optim_wrapper))

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

    Raises:
        UnreachedError: a loss was computed that the balancer or the step left out of its gradients.
    """

    def __init__(self, module: TrainingModule) -> None:
        outside = [f"balancer.{name}" for name, _ in module.balancer.named_parameters()]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(module, outside)  # type: ignore[no-untyped-call]
        devices = [torch.cuda.current_device()] if module.device.type == "cuda" else None
        super().__init__(module, device_ids=devices, find_unused_parameters=True, broadcast_buffers=False)

    def train_step(self, batch: Batch, optim_wrapper: PrecisionOptimWrapper) -> dict[str, Tensor]:
        """As the module's, over all ranks."""
        update = partial(train_step, self.module, self, batch, optim_wrapper)
        try:
            return in_rounds(self.module.step, self.module.balancer, update)
        except RuntimeError as error:
            if "Expected to have finished reduction" not in str(error):
                raise
            raise UnreachedError(self._left_out(str(error))) from error

    def _left_out(self, message: str) -> str:
        """DDP's complaint with names; it gives the numbers of parameters."""
        found = re.search(r"did not receive grad for rank \d+: ([\d ]+)", message)
        trained = [name for name, item in self.module.named_parameters() if item.requires_grad]
        own = [name for name in trained if name not in self.parameters_to_ignore]
        names = [own[int(number)] for number in found.group(1).split()] if found else []
        what = some(grouped(names, own), 8) if names else "some parameters (torch does not say which)"
        return (
            "a loss was computed, but not used for gradients, so that processes wait for one another: "
            f"{what}. A balancer or step has to use every loss it is given; multiply by 0 to leave one out."
        )

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
    """Gradients of every micro-batch through the step, then one optimizer update.

    Losses and gradients are checked before the update, on means over all processes: all of them stop, or all
    leave the step out (`training.non_finite`).

    Returns:
        What to log, means over parts and processes: the step's scalars, and `skipped` = 1 where the step was
        left out. `unlabelled/<task>` is the share that has labels of the task but no labelled pixel.

    Raises:
        NonFiniteError: a loss or a gradient is NaN or infinite; the weights are as before.
    """
    whole_batch = batch.to(module.device)
    parts = split(whole_batch, module.micro_batches)
    whole = None
    if module.loss_means == "global":
        whole = WholeBatch.of(whole_batch, module.tasks, module.losses)
        parts = [part.completed(whole.tasks) for part in parts]
    kept = _statistics(module) if optim_wrapper.non_finite == "skip" else {}
    error: NonFiniteError | None = None
    measured = module.watch(_again(module, parts, whole, optim_wrapper)) if module.watch else {}
    try:
        logs = _gradients(module, wrapped, parts, whole, optim_wrapper)
        values = list(logs.values())
        sound = optim_wrapper.is_sound(torch.stack(values) if values else None)
    except NonFiniteGradientError as found:  # of a Jacobian, which is the same on all processes
        sound, logs, error = False, {}, found
    if sound:
        optim_wrapper.step()
        if module.step.follows_up(module.balancer):
            module.step.after_update(_again(module, parts, whole, optim_wrapper))
        return {**logs, **with_shares(measured, logs)}
    blamed: NonFiniteError | None = None
    if error is None:
        finite = all(bool(value.isfinite()) for value in logs.values())
    else:  # the losses were not exchanged; all processes are here
        blamed = _blamed(module, parts, optim_wrapper.precision)
        finite = not bool(sum_over_ranks(torch.tensor(float(blamed is not None), device=module.device)))
    if not optim_wrapper.may_skip(losses_are_finite=finite):
        raise blamed or error or _reason(module, parts, logs, optim_wrapper)
    optim_wrapper.skip()
    for name, buffer in module.named_buffers():
        if name in kept:
            buffer.copy_(kept[name])
    return {**logs, SKIPPED: torch.ones(())}


def _gradients(
    module: TrainingModule,
    wrapped: TrainingModule | DistributedModule,
    parts: Sequence[Batch],
    whole: WholeBatch | None,
    optim_wrapper: PrecisionOptimWrapper,
) -> dict[str, Tensor]:
    """Add the gradients of all parts to `.grad`; returns means over parts and processes for logs."""
    by_hand = module.step.averages_gradients(module.balancer)  # then DDP's hooks must stay out of it
    shares = shares_of(parts)
    logs: list[Mapping[str, Tensor]] = []
    for index, (part, share) in enumerate(zip(parts, shares, strict=True)):
        last = index == len(parts) - 1
        runs = module if by_hand else wrapped
        quiet = isinstance(runs, DistributedModule) and not last
        no_sync: AbstractContextManager[Any] = runs.no_sync() if quiet else nullcontext()  # type: ignore[operator]
        with no_sync:
            unlabelled: dict[str, Tensor] = {}
            problem = _problem(module, runs, optim_wrapper, part, share, whole, unlabelled)
            log = module.step(problem, part)
            logs.append(log | {UNLABELLED + name: empty for name, empty in unlabelled.items()})
    means = {}
    for name in sorted({name for log in logs for name in log}):
        pairs = zip(shares, logs, strict=True)
        means[name] = torch.stack(
            [
                share * log[name].detach().to(module.device, torch.float32)
                for share, log in pairs
                if name in log
            ]
        ).sum()
    return module.log_means(means)


def _again(
    module: TrainingModule,
    parts: Sequence[Batch],
    whole: WholeBatch | None,
    optim_wrapper: PrecisionOptimWrapper,
) -> list[tuple[StepProblem, Batch]]:
    """The problem of each part for a further pass, without data-parallel hooks."""
    shares = shares_of(parts)
    return [
        (_problem(module, module, optim_wrapper, part, share, whole, {}), part)
        for part, share in zip(parts, shares, strict=True)
    ]


def _statistics(module: nn.Module) -> dict[str, Tensor]:
    """Copies of what a forward pass may change: running means of norms and the like, no counters."""
    return {name: buffer.clone() for name, buffer in module.named_buffers() if buffer.is_floating_point()}


def _blamed(
    module: TrainingModule, parts: Sequence[Batch], precision: Precision
) -> NonFiniteLossError | None:
    """The error that names the samples whose loss is NaN or infinite when this process repeats its batch."""
    try:
        for part in parts:
            module.blame(part, precision)
    except NonFiniteLossError as found:
        return found
    return None


def _reason(
    module: TrainingModule,
    parts: Sequence[Batch],
    logs: Mapping[str, Tensor],
    optim_wrapper: PrecisionOptimWrapper,
) -> NonFiniteError:
    """The error that says which loss or which gradient is NaN or infinite, and of which images."""
    blamed = _blamed(module, parts, optim_wrapper.precision)
    if blamed is not None:
        return blamed
    wrong = {name: float(value) for name, value in logs.items() if not bool(value.isfinite())}
    if not wrong:
        return optim_wrapper.gradient_error(module.named_parameters())
    tasks = {name.removeprefix("loss/"): value for name, value in wrong.items() if name.startswith("loss/")}
    ids = [name for part in parts for name in part.ids]
    where = "another process" if number_of_ranks() > 1 else "a draw that a second pass did not repeat"
    if not tasks:
        named = ", ".join(f"{name} is {value}" for name, value in wrong.items())
        return NonFiniteError(f"{named}; images: {', '.join(ids)}. Try a lower learning rate, or fp32.")
    error = NonFiniteLossError(tasks, dict.fromkeys(tasks, ids))
    error.args = (f"{error}\nThe cause lies in {where}: this process's losses are finite when repeated.",)
    return error


def _problem(
    module: TrainingModule,
    runs: TrainingModule | DistributedModule,
    optim_wrapper: PrecisionOptimWrapper,
    part: Batch,
    share: float,
    whole: WholeBatch | None,
    unlabelled: dict[str, Tensor],
) -> StepProblem:
    """What the step is given; `unlabelled` receives {task: 1 if it has no labelled pixel, else 0}."""

    def forward(batch: Batch) -> LossReport:
        # A step that divides its batch gets means of what it asks for: other processes may ask for nothing.
        one = whole if batch is part else None
        counts = module.losses.counts(batch) if one is None else one.counts
        for name, count in counts.items():
            empty = (count[0] == 0).float()
            unlabelled[name] = torch.minimum(unlabelled.get(name, empty), empty)
        average = None if one is None or number_of_ranks() == 1 else average_over_ranks
        with autocast(optim_wrapper.precision, module.device), means_over(average):
            report: LossReport = runs(batch, counts)
        return report if one is None else one.scaled(report, share)

    def scale(loss: Tensor) -> Tensor:
        return optim_wrapper.scale(loss if share == 1 else loss * share)

    return StepProblem(
        forward=forward,
        balancer=module.balancer,
        parameters=list(module.network.named_parameters()),
        backward=lambda loss: torch.autograd.backward(scale(loss)),
        scale=scale,
        average=average_over_ranks,
        begin_average=begin_average_over_ranks if number_of_ranks() > 1 else None,
        gather=gather,
        tasks=module.tasks,
        role_overrides=module.role_overrides,
        buffers=list(module.network.named_buffers()),
        shows_gradients=module.shows_gradients,
    )

"""Network, losses, balancer and step of a config as one trainable module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mtvision.core.registry import BALANCERS, STEPS
from mtvision.core.roles import check_overrides
from mtvision.core.task import Task
from mtvision.engine.module import TrainingModule
from mtvision.engine.ranks import LossMeans
from mtvision.metrics.building import build_metric, require_scores, scored_task
from mtvision.models.network import Network
from mtvision.models.recompute import recompute
from mtvision.protocols import Protocol
from mtvision.recipe.config import RunConfig
from mtvision.recipe.differences import ResumeError
from mtvision.recipe.settings import Settings, to_plain_data
from mtvision.steps.step import Step


def tasks_with_losses(protocol: Protocol, options: Mapping[str, Mapping[str, Any]]) -> tuple[Task, ...]:
    """The protocol's tasks with some options of their losses replaced.

    Raises:
        UnknownNameError: options for a task that the protocol does not have.
    """
    for name in options:
        protocol.task(name)
    return tuple(
        replace(task, loss={**task.loss, **options[task.name]}) if task.name in options else task
        for task in protocol.tasks
    )


def scored_tasks(protocol: Protocol, options: Mapping[str, Mapping[str, Any]]) -> list[Task]:
    """The protocol's tasks with predictions as their metrics read them.

    Args:
        protocol: of the run.
        options: {task: metric options} that replace the protocol's.

    Raises:
        ValueError: two metrics of a task have a score of one name, or a headline is no score.
    """
    scored = []
    for task in protocol.tasks:
        metric = build_metric(task, **options.get(task.name, {}))
        require_scores(task, metric)
        scored.append(scored_task(task, metric))
    return scored


def training_module(config: Mapping[str, Any], settings: Settings, network: Network) -> TrainingModule:
    """Network, losses, balancer and step of a config as one trainable module.

    Raises:
        UnknownNameError: a role of `training.role_overrides` does not exist.
    """
    protocol, training = settings.protocol, settings.training
    check_overrides(training.role_overrides, protocol.known_tasks)
    balancer = BALANCERS.build(
        to_plain_data(config["balancer"]), tasks=protocol.task_names, default_weights=protocol.loss_weights
    )
    step = STEPS.build(to_plain_data(config["step"]))
    recompute(network, training.recompute)
    return TrainingModule(
        network,
        tasks_with_losses(protocol, training.loss_options),
        balancer,
        step,
        micro_batches=training.micro_batches,
        role_overrides=training.role_overrides,
        evaluation_precision=settings.evaluation.precision,
        scored=scored_tasks(protocol, settings.evaluation.metric_options),
        loss_means=_loss_means(training.loss_means, step),
        scaled=training.init_from_data,
    )


def _loss_means(wanted: LossMeans | None, step: Step) -> LossMeans:
    """What the config says, by default `global` where the step can have it.

    Raises:
        ValueError: `global` for a step that cannot have it.
    """
    if wanted == "global" and step.divides_batches:
        raise ValueError(
            f"training.loss_means='global': {type(step).__name__} divides the batch of each process, so that "
            "there is no whole batch to take means over. Use training.loss_means='rank'."
        )
    return wanted or ("rank" if step.divides_batches else "global")


def with_kept_batch(config: RunConfig, batches: Sequence[Mapping[str, int]], processes: int) -> RunConfig:
    """A config with the images per step of a checkpoint, on another number of processes (`--keep-batch`).

    The images per process change. `training.micro_batches` changes with them, so that no process has more
    images in memory at once than the config says.

    Args:
        config: of the run that continues.
        batches: `meta["batches"]` of the checkpoint: `processes` and `images` per process, the last counts.
        processes: that there are now.

    Raises:
        ResumeError: the images cannot be dealt evenly.
    """
    then, now = batches[-1], int(config["train_data"]["batch_size"])
    whole = then["processes"] * then["images"]
    images, rest = divmod(whole, processes)
    if rest or not images:
        possible = [str(count) for count in range(1, whole + 1) if whole % count == 0]
        raise ResumeError(
            f"--keep-batch: the {whole} images of a step ({then['processes']} x {then['images']}) cannot be "
            f"dealt evenly to {processes} processes. Start {', '.join(possible)} processes, or leave "
            "--keep-batch out."
        )
    if images == now:
        return config
    at_once = -(-now // int(config["training"]["micro_batches"]))
    return config.with_options(
        {"train_data.batch_size": images, "training.micro_batches": -(-images // at_once)}
    )

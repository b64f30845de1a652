"""One phase of a run: its network, losses and data, and the runner that trains them."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook
from rich.console import Console

from mtvision.data.dataset import DenseDataset
from mtvision.data.part import PartOfDataset
from mtvision.engine.average import AverageHook
from mtvision.engine.building import training_module
from mtvision.engine.evaluate import device
from mtvision.engine.evaluator import LoopEvaluator
from mtvision.engine.loop import EvaluationLoop, TrainLoop
from mtvision.engine.module import DistributedModule, TrainingModule
from mtvision.engine.optimization.optimizer import build_optimization
from mtvision.engine.run_dir.journal import Journal
from mtvision.engine.run_dir.retention import CheckpointHook
from mtvision.engine.runner import ExactRunner
from mtvision.engine.start.look import first_look
from mtvision.evaluation.evaluator import SampleEvaluator
from mtvision.protocols import Protocol
from mtvision.recipe.building import network_of, start_from
from mtvision.recipe.config import RunConfig
from mtvision.recipe.data import build_dataset, evaluation_loader, require_labels, train_loader
from mtvision.recipe.differences import plain_options
from mtvision.recipe.phases.found import filled, without_found
from mtvision.recipe.phases.plan import Phase, PhaseError
from mtvision.recipe.selection import CHOICES
from mtvision.recipe.settings import Settings
from mtvision.runtime.checkpoint import checkpoint_file, load_meta
from mtvision.runtime.checkpoint_writer import CheckpointWriter
from mtvision.runtime.launch import is_main_process, rank_and_world_size
from mtvision.runtime.whole import Examined


@dataclass(frozen=True, kw_only=True)
class Part:
    """A phase with everything that is built for it.

    Args:
        phase: which one.
        config: of the phase.
        settings: of that config.
        train_set: its images.
        module: network, losses, balancer and step.
    """

    phase: Phase
    config: RunConfig
    settings: Settings
    train_set: DenseDataset
    module: TrainingModule

    @property
    def images_per_step(self) -> int:
        """Over all processes."""
        return int(self.config["train_data"]["batch_size"]) * rank_and_world_size()[1]

    def title(self) -> str:
        """What is trained, in one sentence."""
        size = sum(item.numel() for item in self.module.network.parameters()) / 1e6
        phase = self.phase
        where = f"phase {phase.name}, steps {phase.start + 1} to {phase.end}: " if phase.name else ""
        title = self.settings.protocol.title
        return f"{where}{title}, {len(self.train_set)} images, {size:.2f} M parameters"


def first_phase(plan: Sequence[Phase], checkpoint: Examined | None) -> tuple[int, bool]:
    """Place of the phase that a run continues with, and whether it begins; called on the main process.

    Args:
        plan: all phases.
        checkpoint: that it continues from; None = it starts.

    Raises:
        PhaseError: the checkpoint was written in phases that the plan does not have.
    """
    if checkpoint is None or not plan[0].name:
        return 0, checkpoint is None
    meta = load_meta(checkpoint.path, examined=not checkpoint.problem)
    found = meta.get("phase")
    if found is None:
        return int(plan[0].follows(meta, checkpoint.path.name)), False  # raises
    index = int(found["index"])
    if index >= len(plan):
        raise PhaseError(
            f"{checkpoint.path.name} was written in phase '{found['name']}', number {index + 1}; this config "
            f"has {len(plan)} phases. Resume with the phases of the run."
        )
    done = int(meta["iter"]) == plan[index].end and not plan[index].last
    return (index + 1, True) if done else (index, False)


def build_part(
    config: RunConfig,
    phase: Phase,
    journal: Journal,
    *,
    begins: bool,
    keep: Callable[[str], bool] | None = None,
    found: Mapping[str, Any] | None = None,
) -> Part:
    """Build network, losses and data of a phase.

    Args:
        config: of the whole run.
        phase: which one.
        journal: gets a line on frozen parts.
        begins: whether it starts, with weights that `training.load_from` names; not if it is resumed.
        keep: train on the images whose id it accepts; None = all.
        found: {earlier phase: what it found}; None = nothing is known yet, and what needs it is left out.
    """
    own = phase.config_of(config)
    own = without_found(own) if found is None else filled(own, found)
    settings = Settings.of(own)
    seed_everything(settings.seed)
    train_set = build_dataset("train_data", own["train_data"], settings.protocol, settings.seed)
    if keep is not None:
        train_set = PartOfDataset(train_set, keep)
    network = network_of(own, settings.protocol)
    if settings.training.load_from and begins and phase.fresh:
        start_from(network, settings.training.load_from, partly=settings.training.load_partly)
    if settings.training.freeze:
        journal.say(str(network.freeze(settings.training.freeze)))
    module = training_module(own, settings, network)
    return Part(phase=phase, config=own, settings=settings, train_set=train_set, module=module)


def rehearse(
    config: RunConfig, plan: Sequence[Phase], journal: Journal, keep: Callable[[str], bool] | None = None
) -> None:
    """Build every later phase once, so that what cannot be built is found before the first step.

    Data sets are opened, networks made, globs of frozen parts and of learning rates compared with them.

    Args:
        config: of the whole run.
        plan: all phases.
        journal: gets lines on frozen parts.
        keep: as in `build_part`.

    Raises:
        PhaseError: a checkpoint that a phase starts from does not exist.
        FileNotFoundError, ValueError, UnknownNameError: as when the phase itself is built.
    """
    for phase in plan[1:]:
        part = build_part(config, phase, journal, begins=False, keep=keep)
        training = part.settings.training
        file = training.load_from and checkpoint_file(training.load_from)
        if phase.fresh and file and not file.is_file():
            raise PhaseError(f"phase '{phase.name}': training.load_from={file} does not exist.")
        build_optimization(
            part.config, training, part.module.network, part.module.balancer, steps=phase.schedule_steps
        )


def look_at_data(part: Part, scored: Mapping[str, DenseDataset], work_dir: Path, console: Console) -> None:
    """Look at the data sets that are open, and at `val_data` where the phase uses it.

    Args:
        part: that starts.
        scored: {section: data set} that will be scored.
        work_dir: receives `first_look.json`.
        console: of the main process.
    """
    config, settings = part.config, part.settings
    looked = {"train_data": part.train_set, **scored}
    if settings.training.first_look and settings.training.val_interval and "val_data" not in looked:
        same = config["test_data"] and config["val_data"]["dataset"] == config["test_data"]["dataset"]
        if not (same and "test_data" in looked):
            val_set = build_dataset("val_data", config["val_data"], settings.protocol, settings.seed)
            looked = {"train_data": looked.pop("train_data"), "val_data": val_set, **looked}
    splits = {section.removesuffix("_data"): dataset for section, dataset in looked.items()}
    batch_size = int(config["train_data"]["batch_size"])
    first_look(settings, part.module.to(device()), splits, batch_size, work_dir, console)


def checkpoint_hook(settings: Settings, plan: Sequence[Phase], journal: Journal) -> CheckpointHook:
    """The hook that writes checkpoints as the settings say; those at ends of phases stay."""
    training, rule = settings.training, settings.evaluation.select
    chooser = CHOICES.get(rule)
    return CheckpointHook(
        interval=training.checkpoint_interval,
        keep=training.keep_checkpoints,
        every=training.keep_every,
        best=None if chooser is None else lambda rows: chooser(rows, settings.protocol)[0],
        say=journal.say,
        ends=[phase.end for phase in plan],
    )


def runner_of(
    part: Part, run_config: RunConfig, work_dir: Path, checkpoint: Examined | None, hooks: Sequence[Hook]
) -> ExactRunner:
    """The runner of a phase.

    Args:
        part: the phase.
        run_config: of the whole run.
        work_dir: of the run.
        checkpoint: that it continues from, of this phase or of the one before.
        hooks: of mmengine.
    """
    settings, config, phase, module = part.settings, part.config, part.phase, part.module
    training, protocol = settings.training, settings.protocol
    _, world_size = rank_and_world_size()
    module = module.to(device())
    if world_size > 1 and training.sync_bn and module.device.type == "cuda":
        module = torch.nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
    wrapper, schedule = build_optimization(
        config, training, module.network, module.balancer, steps=phase.schedule_steps
    )
    if training.ema:
        hooks = [*hooks, AverageHook(training.ema)]
    return ExactRunner(
        checkpoint_meta=_checkpoint_meta(config, protocol, module, len(part.train_set)),
        phase=phase,
        run_config=run_config.text,
        batch_size=int(config["train_data"]["batch_size"]),
        writer=CheckpointWriter(in_background=training.async_checkpoints),
        model=DistributedModule(module) if world_size > 1 else module,
        work_dir=str(work_dir),
        train_dataloader=train_loader(part.train_set, config["train_data"], settings.seed),
        train_cfg={
            "type": TrainLoop,
            "max_iters": phase.end,
            "val_interval": training.val_interval,
            "val_before": training.iterations,
            "data_from": phase.data_from,
        },
        optim_wrapper=wrapper,
        param_scheduler=schedule,
        **_evaluation(config, settings),
        default_hooks={
            "timer": None,
            "runtime_info": None,  # it would keep every loss of the run in memory
            "logger": None,
            "sampler_seed": None,
            "checkpoint": None,
        },
        custom_hooks=list(hooks),
        resume=checkpoint is not None,
        load_from=None if checkpoint is None else str(checkpoint.path),
        examined=checkpoint is not None and not checkpoint.problem and is_main_process(),
        launcher="pytorch" if world_size > 1 else "none",
        env_cfg={},
        log_level="ERROR",
        randomness={"seed": settings.seed, "diff_rank_seed": True},
        experiment_name=f"{work_dir.name}_{id(module)}",
    )


def _evaluation(config: RunConfig, settings: Settings) -> dict[str, Any]:
    """What the runner needs for evaluations during training; nothing without any."""
    if not settings.training.val_interval:
        return {}
    val_set = build_dataset("val_data", config["val_data"], settings.protocol, settings.seed)
    require_labels("val_data", val_set)
    options = {**settings.evaluation.metric_options, **settings.evaluation.during_training}
    evaluator = SampleEvaluator(settings.protocol.tasks, options, settings.evaluation.workers)
    return {
        "val_dataloader": evaluation_loader(val_set, config["val_data"]),
        "val_cfg": {"type": EvaluationLoop},
        "val_evaluator": LoopEvaluator(evaluator),
    }


def _checkpoint_meta(
    config: RunConfig, protocol: Protocol, module: TrainingModule, images: int
) -> dict[str, Any]:
    """What a checkpoint says of itself; `options` is what a resumed run compares itself with."""
    data = {**(config["train_data"] or {}), "images": images}
    return {
        "options": plain_options({**config, "tasks": list(protocol.task_names), "train_data": data}),
        "config": config.text,
        "protocol": protocol.id,
        "tasks": list(protocol.task_names),
        "architecture": module.network.architecture,
        "loss_means": module.loss_means,
    }


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch alike on every process, so that all build the same network."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)

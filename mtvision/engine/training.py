"""A whole run: train, evaluate the last checkpoint, write record, table and pictures."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.runner import ValLoop

from mtvision.core.non_finite import NonFiniteError
from mtvision.data.part import PartOfDataset
from mtvision.engine.average import AverageHook
from mtvision.engine.building import training_module
from mtvision.engine.evaluate import device, evaluate_checkpoint
from mtvision.engine.evaluator import LoopEvaluator
from mtvision.engine.hooks import ProgressHook, marked_steps
from mtvision.engine.loop import TrainLoop
from mtvision.engine.module import DistributedModule, TrainingModule
from mtvision.engine.optimizer import build_optimization
from mtvision.engine.runner import ExactRunner
from mtvision.evaluation.evaluator import SampleEvaluator
from mtvision.evaluation.scoring import headline_keys
from mtvision.protocols import Protocol
from mtvision.recipe.building import network_of, start_from
from mtvision.recipe.config import RunConfig
from mtvision.recipe.data import build_dataset, evaluation_loader, require_labels, train_loader
from mtvision.recipe.differences import plain_options
from mtvision.recipe.selection import SELECTION_FILE, VALIDATION_FILE, write_selection
from mtvision.recipe.settings import Settings
from mtvision.report.record import Record
from mtvision.runtime.attempts import Attempts
from mtvision.runtime.checkpoint import find_checkpoint
from mtvision.runtime.launch import is_main_process, rank_and_world_size
from mtvision.runtime.progress import messages
from mtvision.tracking.loggers import Loggers, record_summary


def train(config: RunConfig, work_dir: Path, *, resume: str | None = None, overwrite: bool = False) -> Record:
    """Train a config and score its last checkpoint.

    Args:
        config: from `load_config`.
        work_dir: receives everything that is written.
        resume: a checkpoint to continue from, or `auto` for the newest in `work_dir`.
        overwrite: delete an earlier run in `work_dir`.

    Returns:
        The record, which is also in `work_dir/record.json`. Its `missing` is as for `evaluate_checkpoint`.

    Raises:
        FileExistsError: `work_dir` holds an earlier run and neither `resume` nor `overwrite` is given.
        FileNotFoundError, ValueError: a data set cannot be opened, the one to be scored included, or what is
            scored has no label of a task.
        TrainingInterruptedError: SIGINT or SIGTERM; the run can be resumed.
        NonFiniteError: a loss, a gradient or a weight became NaN or infinite; earlier checkpoints are
            untouched.
    """
    settings = Settings.of(config)
    section = "test_data" if config["test_data"] else "val_data"
    scored = build_dataset(section, config[section], settings.protocol, settings.seed)
    require_labels(section, scored)  # now, and not after hours
    run = fit(config, work_dir, resume=resume, overwrite=overwrite)

    def rest(record: Record, later: Attempts) -> None:
        rule, iterations = settings.evaluation.select, settings.training.iterations
        if rule != "last":
            select = partial(write_selection, work_dir, rule, settings.protocol, iterations)
            later.run(SELECTION_FILE, lambda: select(record.scores), f"{VALIDATION_FILE} has the evaluations")
        _log_result(run.loggers, record, work_dir, iterations, later)

    return evaluate_checkpoint(config, work_dir, run.checkpoint, training=run.training, further=rest)


@dataclass(frozen=True)
class FittedRun:
    """Result of training.

    Args:
        checkpoint: the last one.
        training: `hours`, and steps that were left out or had no labelled pixel (`marked_steps`).
        loggers: still open.
    """

    checkpoint: Path
    training: Mapping[str, Any]
    loggers: Loggers


def fit(
    config: RunConfig,
    work_dir: Path,
    *,
    resume: str | None = None,
    overwrite: bool = False,
    keep: Callable[[str], bool] | None = None,
    hooks: Sequence[Hook] = (),
    quiet: bool = False,
) -> FittedRun:
    """The training part of `train`, without an evaluation of the result.

    Args:
        config: from `load_config`.
        work_dir: receives checkpoints, losses and the config.
        resume: as in `train`.
        overwrite: as in `train`.
        keep: train on the images whose id it accepts, by default on all.
        hooks: of mmengine, called after those of the suite.
        quiet: print nothing.

    Raises:
        As `train`.
    """
    settings = Settings.of(config)
    console = messages(quiet=quiet or not is_main_process())
    checkpoint = _prepare_work_dir(work_dir, resume, overwrite)
    seed_everything(settings.seed)
    train_set = build_dataset("train_data", config["train_data"], settings.protocol, settings.seed)
    if keep is not None:
        train_set = PartOfDataset(train_set, keep)
    network = network_of(config, settings.protocol)
    if settings.training.load_from and checkpoint is None:
        start_from(network, settings.training.load_from, partly=settings.training.load_partly)
    if settings.training.freeze:
        console.print(str(network.freeze(settings.training.freeze)), soft_wrap=True)
    module = training_module(config, settings, network)
    loggers = _loggers(config, settings, work_dir)
    progress = ProgressHook(
        loggers, settings.training.log_interval, headline_keys(settings.protocol), console
    )
    runner = _runner(config, settings, module, train_set, work_dir, checkpoint, [progress, *hooks])
    console.print(
        f"[bold]{config['name'] or work_dir.name}[/]: {settings.protocol.title}, {len(train_set)} images, "
        f"{sum(item.numel() for item in network.parameters()) / 1e6:.2f} M parameters, to {work_dir}",
        soft_wrap=True,
    )
    try:
        runner.train()
    finally:
        progress.close()
    last = work_dir / f"iter_{settings.training.iterations}.pth"
    marks = marked_steps(work_dir)
    if marks.get("skipped_steps") == settings.training.iterations:
        raise NonFiniteError(
            f"{work_dir}: all {settings.training.iterations} steps were left out, because losses or "
            'gradients were NaN or infinite; nothing was trained. training.non_finite="stop" says where.'
        )
    return FittedRun(last, {"hours": progress.hours, **marks}, loggers)


def _log_result(loggers: Loggers, record: Record, work_dir: Path, step: int, later: Attempts) -> None:
    """Pictures of the evaluation and the final numbers, where curves go; says what the loggers lost."""
    for path in sorted((work_dir / "pictures").glob("*.png")) if loggers.active else ():
        later.run(f"{path.name} in the loggers", partial(_log_picture, loggers, path, step))
    later.run("final numbers in the loggers", lambda: loggers.finish(record_summary(record)))
    later.lines += loggers.failures  # printed when they happened


def _log_picture(loggers: Loggers, path: Path, step: int) -> None:
    picture = cv2.imread(str(path))
    if picture is not None:
        loggers.image(f"pictures/{path.stem}", np.asarray(picture[..., ::-1], np.uint8), step)


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch alike on every process, so that all build the same network."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def _prepare_work_dir(work_dir: Path, resume: str | None, overwrite: bool) -> Path | None:
    """Find the checkpoint to resume, or make sure that nothing of an earlier run gets mixed in."""
    if resume:
        return find_checkpoint(work_dir) if resume == "auto" else Path(resume)
    earlier = [*work_dir.glob("iter_*.pth"), *work_dir.glob("losses.jsonl"), *work_dir.glob("record.json")]
    earlier += [*work_dir.glob(VALIDATION_FILE), *work_dir.glob(SELECTION_FILE)]
    if earlier and not overwrite:
        raise FileExistsError(
            f"{work_dir} holds an earlier run ({earlier[0].name}). Go on with --resume, choose another "
            "--work-dir, or throw that run away with --overwrite."
        )
    if is_main_process():
        for path in earlier:
            path.unlink()
        work_dir.mkdir(parents=True, exist_ok=True)
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
    return None


def _loggers(config: RunConfig, settings: Settings, work_dir: Path) -> Loggers:
    run_id = hashlib.sha256(str(work_dir.resolve()).encode()).hexdigest()[:12]
    wanted = settings.logging if is_main_process() else type(settings.logging)()
    return Loggers(
        wanted,
        work_dir,
        name=config["name"] or work_dir.name,
        config=dict(config),
        run_id=run_id,
    )


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


def _runner(
    config: RunConfig,
    settings: Settings,
    module: TrainingModule,
    train_set: Any,
    work_dir: Path,
    checkpoint: Path | None,
    hooks: Sequence[Hook],
) -> ExactRunner:
    training, protocol = settings.training, settings.protocol
    _, world_size = rank_and_world_size()
    module = module.to(device())
    if world_size > 1 and training.sync_bn and module.device.type == "cuda":
        module = torch.nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
    wrapper, schedule = build_optimization(config, training, module.network, module.balancer)
    if training.ema:
        hooks = [*hooks, AverageHook(training.ema)]
    evaluation: dict[str, Any] = {}
    if training.val_interval:
        val_set = build_dataset("val_data", config["val_data"], protocol, settings.seed)
        require_labels("val_data", val_set)
        options = {**settings.evaluation.metric_options, **settings.evaluation.during_training}
        evaluation = {
            "val_dataloader": evaluation_loader(val_set, config["val_data"]),
            "val_cfg": {"type": ValLoop},
            "val_evaluator": LoopEvaluator(
                SampleEvaluator(protocol.tasks, options, settings.evaluation.workers)
            ),
        }
    return ExactRunner(
        checkpoint_meta=_checkpoint_meta(config, protocol, module, len(train_set)),
        batch_size=int(config["train_data"]["batch_size"]),
        model=DistributedModule(module) if world_size > 1 else module,
        work_dir=str(work_dir),
        train_dataloader=train_loader(train_set, config["train_data"], settings.seed),
        train_cfg={
            "type": TrainLoop,
            "max_iters": training.iterations,
            "val_interval": training.val_interval,
        },
        optim_wrapper=wrapper,
        param_scheduler=schedule,
        **evaluation,
        default_hooks={
            "timer": None,
            "logger": None,
            "sampler_seed": None,
            "checkpoint": {
                "type": "CheckpointHook",
                "interval": training.checkpoint_interval or -1,
                "by_epoch": False,
                "max_keep_ckpts": training.keep_checkpoints,
                "save_last": True,
            },
        },
        custom_hooks=list(hooks),
        resume=checkpoint is not None,
        load_from=None if checkpoint is None else str(checkpoint),
        launcher="pytorch" if world_size > 1 else "none",
        env_cfg={},
        log_level="ERROR",
        randomness={"seed": settings.seed, "diff_rank_seed": True},
        experiment_name=f"{work_dir.name}_{id(module)}",
    )

"""A checkpoint becomes a record, a table and pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch

from mtvision.engine.records import make_record, write_record
from mtvision.evaluation.evaluator import SampleEvaluator
from mtvision.evaluation.scoring import constant_scores, evaluate, write_panels
from mtvision.recipe.building import trained_network
from mtvision.recipe.config import RunConfig
from mtvision.recipe.data import build_dataset, evaluation_loader
from mtvision.recipe.settings import Settings
from mtvision.report.record import Record
from mtvision.report.table import render_table
from mtvision.runtime.launch import is_main_process
from mtvision.runtime.progress import messages


def evaluate_checkpoint(
    config: RunConfig,
    work_dir: Path,
    checkpoint: str | Path,
    *,
    section: str = "test_data",
    quiet: bool = False,
    hours: float | None = None,
    save: Callable[[str, Mapping[str, torch.Tensor]], None] | None = None,
) -> Record:
    """Score a checkpoint with the protocol's full metrics; writes record, table and pictures to `work_dir`.

    Args:
        config: from `load_config`.
        work_dir: receives `record.json`, `table.md` and `pictures/`.
        checkpoint: weights of the config's network.
        section: `test_data` or `val_data`; `val_data` is used where a config has no `test_data`.
        quiet: print neither progress nor the table.
        hours: training time, if known.
        save: called with the id and the predictions of every image, e.g. a `PredictionWriter`.

    Returns:
        The record (the same on every process).
    """
    settings = Settings.of(config)
    protocol, options = settings.protocol, settings.evaluation
    console = messages(quiet=quiet or not is_main_process())
    section = section if config[section] else "val_data"
    network, meta = trained_network(config, protocol, checkpoint, other_tasks=True)
    network = network.to(device())
    dataset = build_dataset(section, config[section], protocol, settings.seed)
    loader = evaluation_loader(dataset, config[section])
    evaluator = SampleEvaluator(protocol.tasks, options.metric_options, options.workers, save)
    scores = evaluate(network, loader, evaluator, precision=options.precision, console=console)
    evaluator.close()
    data = {section.removesuffix("_data"): dataset}
    constant = None
    if config["train_data"]:
        plain = {**config["train_data"]["dataset"], "transforms": "tensor"}
        data["train"] = build_dataset("train_data", {"dataset": plain}, protocol, settings.seed)
        if options.constant_predictor:
            constant = constant_scores(protocol, data["train"], loader, options)
    record = make_record(
        config,
        settings,
        network,
        scores=scores,
        constant=constant,
        checkpoint=Path(checkpoint),
        data=data,
        training={"iterations": meta.get("iter"), "hours": hours},
    )
    record = replace(record, notes=[*record.notes, *evaluator.notes()])
    if is_main_process():
        work_dir.mkdir(parents=True, exist_ok=True)
        write_panels(network, protocol, dataset, work_dir / "pictures", options.pictures, options.precision)
        write_record(record, work_dir)
        if not quiet:
            print(render_table([record], format="terminal"))
    return record


def device() -> torch.device:
    """The GPU of this process, or the CPU where there is none."""
    return (
        torch.device("cuda", torch.cuda.current_device())
        if torch.cuda.is_available()
        else torch.device("cpu")
    )

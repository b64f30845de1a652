"""The record of a run: what was trained on what, how it scored, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from mtvision.core.naming import look_up
from mtvision.core.registry import replaced_entries
from mtvision.data.dataset import DenseDataset
from mtvision.data.manifest import data_manifest, scored_data
from mtvision.evaluation.evaluator import Scores
from mtvision.metrics.gain import gain
from mtvision.models.network import Network
from mtvision.protocols import Protocol
from mtvision.recipe.config import RunConfig
from mtvision.recipe.settings import LOADER_DEFAULTS, Settings
from mtvision.report.comparable.key import departures, in_words
from mtvision.report.cost import measure_cost
from mtvision.report.provenance import (
    code_version,
    config_entry,
    file_sha256,
    package_versions,
    without_paths,
)
from mtvision.report.record import Record, describe_tasks
from mtvision.report.table import render_table
from mtvision.runtime.atomic import write_text
from mtvision.runtime.launch import is_main_process, rank_and_world_size

_RULE = "last"
_OTHER_RULE = "The last checkpoint was scored; the protocol's authors report: {}."


def make_record(
    config: RunConfig,
    settings: Settings,
    network: Network,
    *,
    scores: Scores,
    constant: Scores | None,
    checkpoint: Path,
    data: dict[str, DenseDataset],
    training: dict[str, Any],
) -> Record:
    """Everything that is known about a scored network.

    Args:
        config: of the run.
        settings: the same, checked.
        network: what was scored.
        scores: of the split.
        constant: scores of the constant predictor, or None.
        checkpoint: the scored file.
        data: {`train` and the name of the scored split: data set}.
        training: `iterations`, `hours`, `images`, as far as known.
    """
    protocol = settings.protocol
    scored = next(dataset for part, dataset in data.items() if part != "train")
    _, world_size = rank_and_world_size()
    batch_size = int((config["train_data"] or LOADER_DEFAULTS)["batch_size"])
    record = Record(
        protocol=protocol.id,
        protocol_title=protocol.title,
        protocol_digest=protocol.digest(),
        method=config.name,
        backbone=backbone_name(config),
        provenance=config["provenance"],
        tasks=describe_tasks(protocol.tasks, settings.evaluation.metric_options),
        scores=scores,
        constant=constant,
        config=config_entry(Path(config.file).stem, config.text),
        command=without_paths(f"python tools/train.py {config.file}"),
        code=code_version(),
        data={part: data_manifest(dataset) for part, dataset in data.items()},
        scored=scored_data(scored),
        replaced=replaced_entries(),
        seed=settings.seed,
        world_size=world_size,
        effective_batch=batch_size * world_size,
        precision={"train": settings.training.precision, "evaluation": settings.evaluation.precision},
        training={key: value for key, value in training.items() if value is not None},
        versions=package_versions(),
        cost=_cost(network, protocol, next(iter(data.values()))) if is_main_process() else None,
        checkpoint={
            "sha256": file_sha256(checkpoint),
            "file": checkpoint.name,
            "iteration": training.get("iterations"),
            "rule": _RULE,
            "tasks": list(network.task_names),
        },
        notes=[] if protocol.checkpoint_rule == _RULE else [_OTHER_RULE.format(protocol.checkpoint_rule)],
    )
    return _with_gain(record, protocol, settings.evaluation.baseline)


def write_record(record: Record, work_dir: Path) -> None:
    """Write `record.json` and `table.md` to the work dir."""
    record.save(work_dir / "record.json")
    write_text(work_dir / "table.md", render_table([record], format="markdown") + "\n")


def backbone_name(config: Mapping[str, Any]) -> str:
    """Name of the config's backbone for tables."""
    backbone = config["model"]["backbone"]
    kind = backbone["type"]
    return str(backbone.get("name") or (kind if isinstance(kind, str) else kind.__name__))


def _with_gain(record: Record, protocol: Protocol, baseline: Any) -> Record:
    """The record with its gain; a note instead where the protocol's own baseline was scored differently."""
    changed = departures(record) if isinstance(baseline, str) else {}
    if changed:
        note = f"No gain over {baseline}: not scored as protocol {protocol.id} says: {in_words(changed)}."
        return replace(record, notes=[*record.notes, note])
    return replace(record, gain=_gain(protocol, baseline, record.scores))


def _gain(protocol: Protocol, baseline: Any, scores: Scores) -> dict[str, Any] | None:
    """The multi-task gain over the single-task scores that the config names or states."""
    if not baseline:
        return None
    named = isinstance(baseline, str)
    table = (
        look_up(f"baseline of protocol {protocol.id}", baseline, protocol.baselines) if named else baseline
    )
    headlines = {task.name: task.headline for task in protocol.tasks}
    full = {name: {look_up("task of the baseline", name, headlines): value} for name, value in table.items()}
    found = gain(protocol.tasks, scores, full)
    return {
        **asdict(found),
        "baseline": {"name": baseline if named else "stated in the config", "scores": full},
    }


def _cost(network: Network, protocol: Protocol, dataset: DenseDataset) -> dict[str, Any]:
    size = protocol.eval_size or protocol.train_size
    if size is None:
        image = dataset[0].image
        size = (int(image.shape[-2]), int(image.shape[-1]))
    device = next(network.parameters()).device
    with torch.no_grad():
        names = protocol.task_names
        tasks = None if names == network.task_names else names
        return measure_cost(network, size, tasks=tasks, latency=True, repeats=5, device=str(device))

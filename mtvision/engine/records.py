"""The record of a run: what was trained on what, how it scored, and what it costs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mtvision.core.naming import ReportedError, look_up
from mtvision.core.registry import replaced_entries
from mtvision.data.dataset import DenseDataset
from mtvision.data.manifest import data_manifest, scored_data
from mtvision.evaluation.evaluator import Scores
from mtvision.metrics.gain import gain
from mtvision.models.network import Network
from mtvision.protocols import Protocol
from mtvision.recipe.config import RunConfig
from mtvision.recipe.from_checkpoint import trained_otherwise
from mtvision.recipe.plugins import plugin_entries
from mtvision.recipe.sections import LOADER_DEFAULTS
from mtvision.recipe.settings import Settings
from mtvision.report.comparable.key import departures, in_words
from mtvision.report.comparable.ranges import range_errors
from mtvision.report.comparable.task_entry import describe_tasks
from mtvision.report.cost import measure_cost
from mtvision.report.provenance import (
    code_version,
    config_entry,
    package_versions,
    without_paths,
)
from mtvision.report.record import Record, RecordError
from mtvision.report.schema_check import violations
from mtvision.runtime.attempts import Attempts, IncompleteError
from mtvision.runtime.launch import is_main_process, rank_and_world_size
from mtvision.runtime.whole import file_sha256

AGAIN = "score again with `mtvision test CONFIG CHECKPOINT`"
NOT_YET = f"table, pictures, loggers: not done when the record was written; {AGAIN}"
UNFINISHED = f"data, constant predictor, cost: the run ended before they were measured; {AGAIN}"

_RULE = "last"
_OTHER_RULE = "The last checkpoint was scored; the protocol's authors report: {}."


class RefusedRecordError(ReportedError, ValueError):
    """What was scored cannot be recorded, e.g. because a score lies outside the range of its metric.

    Args:
        problems: what is wrong.
        scores: all of them; they are part of the message.
        place: what was scored.
    """

    exit_code = 1

    def __init__(self, problems: Sequence[str], scores: Scores, place: Path) -> None:
        lines = "".join(f"\n  {problem}" for problem in problems)
        super().__init__(
            f"{place}: no record of it is written, because it would break the rules of records:{lines}\n"
            f"scores: {json.dumps(scores)}\n"
            f"{place.name} is left as it is. A score outside its range is a mistake in the metric, or comes "
            "from outputs that are not finite: look at the losses, or score an earlier checkpoint."
        )


def scored_record(
    config: RunConfig,
    settings: Settings,
    scores: Scores,
    checkpoint: Path,
    meta: Mapping[str, Any],
    training: Mapping[str, Any],
) -> Record:
    """What is known of a scored network without measuring anything else; `add_parts` adds the rest.

    Args:
        config: of the run.
        settings: the same, checked.
        scores: of the split.
        checkpoint: the scored file.
        meta: of that file: iterations, images and processes per step, kind of means.
        training: what else is known, e.g. `hours`.

    Raises:
        RefusedRecordError: the scores cannot be right.
    """
    protocol = settings.protocol
    batches = meta.get("batches") or [_batch_of(config)]
    known = {"iterations": meta.get("iter"), "loss_means": meta.get("loss_means"), **training}
    known["pretrained"] = _pretrained(config)
    notes = [] if protocol.checkpoint_rule == _RULE else [_OTHER_RULE.format(protocol.checkpoint_rule)]
    if len(batches) > 1:
        notes.append(batches_in_words(batches))
    notes += [changes_in_words(item) for item in meta.get("changes") or ()]
    otherwise = "; ".join(map(str, trained_otherwise(meta, config, checkpoint)))
    if otherwise:
        notes.append(f"Trained with other settings than this config says: {otherwise}.")
    record = Record(
        protocol=protocol.id,
        protocol_title=protocol.title,
        protocol_digest=protocol.digest(),
        method=config.name,
        backbone=backbone_name(config),
        provenance=config["provenance"],
        tasks=describe_tasks(protocol.tasks, settings.evaluation.metric_options),
        scores=scores,
        config=config_entry(Path(config.file).stem, config.text),
        command=without_paths(f"python tools/train.py {config.file}"),
        code=code_version(),
        data={},
        replaced=replaced_entries(),
        plugins=plugin_entries(),
        seed=settings.seed,
        world_size=batches[-1]["processes"],
        effective_batch=batches[-1]["images"] * batches[-1]["processes"],
        precision={"train": settings.training.precision, "evaluation": settings.evaluation.precision},
        training={key: value for key, value in known.items() if value is not None},
        versions=package_versions(),
        notes=notes,
    )
    require_possible(record, checkpoint)
    return record


def _pretrained(config: Mapping[str, Any]) -> dict[str, str | None] | None:
    """Name and licence of the weights that a backbone starts from; None for random ones and files."""
    backbone = config["model"]["backbone"]
    name = backbone.get("name")
    if backbone.get("pretrained") is not True or not name:
        return None
    from mtvision.models.weights import licence_of  # imports timm, and with it W&B

    return {"name": str(name), "licence": licence_of(str(name))}


def batches_in_words(batches: Sequence[Mapping[str, int]]) -> str:
    """One sentence on batches that changed when a run was resumed.

    Args:
        batches: entries of `images` per process and step, and `processes`, each since `after` iterations.

    >>> earlier = {"after": 0, "processes": 2, "images": 4}
    >>> batches_in_words([earlier, {"after": 500, "processes": 4, "images": 4}])
    'The batch changed on resume: 8 images per step (2 x 4), after iteration 500 16 (4 x 4).'
    >>> batches_in_words([earlier, {"after": 500, "processes": 4, "images": 2}])
    'The 8 images per step were dealt anew on resume: 2 x 4, after iteration 500 4 x 2.'
    """
    if len({entry["processes"] * entry["images"] for entry in batches}) == 1:
        dealt = [f"{entry['processes']} x {entry['images']}" for entry in batches]
        later = [
            f"after iteration {entry['after']} {text}" for entry, text in zip(batches, dealt, strict=True)
        ]
        whole = batches[0]["processes"] * batches[0]["images"]
        return f"The {whole} images per step were dealt anew on resume: {', '.join([dealt[0], *later[1:]])}."
    parts: list[str] = []
    for entry in batches:
        count, images = entry["processes"], entry["images"]
        since = f"after iteration {entry['after']} " if parts else ""
        unit = " images per step" if not parts else ""
        parts.append(f"{since}{count * images}{unit} ({count} x {images})")
    return f"The batch changed on resume: {', '.join(parts)}."


def changes_in_words(change: Mapping[str, Any]) -> str:
    """A sentence on settings that were changed on resume.

    >>> changes_in_words({"after": 500, "settings": ["seed: 0 → 1", "optimizer.lr: 0.1 → 0.2"]})
    'Resumed after iteration 500 with other settings: seed: 0 → 1; optimizer.lr: 0.1 → 0.2.'
    """
    settings = without_paths("; ".join(change["settings"]))
    return f"Resumed after iteration {change['after']} with other settings: {settings}."


def _batch_of(config: RunConfig) -> dict[str, int]:
    """The batch of a checkpoint that does not say how it was trained, as this run would have it."""
    images = int((config["train_data"] or LOADER_DEFAULTS)["batch_size"])
    return {"processes": rank_and_world_size()[1], "images": images}


def require_possible(record: Record, place: Path, *, scores_only: bool = False) -> None:
    """Refuse a record that breaks the rules, e.g. by a score that no metric can give.

    Args:
        record: with the scores.
        place: what was scored: a checkpoint or a folder of predictions.
        scores_only: the record is a part of one, of which only the scores are checked.

    Raises:
        RefusedRecordError: a score is infinite or outside the range of its metric, or another rule is broken.
    """
    check = range_errors if scores_only else violations
    try:
        problems = list(check(record.to_json()))
    except RecordError as error:
        problems = error.problems
    if problems:
        raise RefusedRecordError(problems, record.scores, place)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What the parts of a record are made from.

    Args:
        settings: of the run.
        network: what was scored.
        checkpoint: the scored file.
        data: {`train` and the name of the scored split: data set}.
        constant: scores of the constant predictor, or None.
        licence: of the checkpoint, as it says itself; None if it does not.
    """

    settings: Settings
    network: Network
    checkpoint: Path
    data: Mapping[str, DenseDataset]
    constant: Scores | None
    licence: str | None = None


def add_parts(record: Record, measured: Measured, attempts: Attempts, *, with_cost: bool = True) -> Record:
    """The record with data, checkpoint, constant predictor, cost and gain, each attempted on its own.

    A part that fails or breaks the record's rules is left out; `missing` names it, and what `attempts` holds
    already.

    Args:
        record: from `scored_record`.
        measured: what the parts are made from.
        attempts: collects the lines.
        with_cost: measure the network's cost.
    """
    settings, network, data = measured.settings, measured.network, measured.data
    protocol = settings.protocol
    scored = next(dataset for part, dataset in data.items() if part != "train")
    changes: list[tuple[str, Callable[[Record], Record]]] = [
        ("scored data", lambda known: replace(known, scored=scored_data(scored))),
        *((f"data.{part}", partial(_with_manifest, part, dataset)) for part, dataset in data.items()),
        ("checkpoint", lambda known: replace(known, checkpoint=_checkpoint(measured, known))),
        ("constant predictor", lambda known: replace(known, constant=measured.constant)),
        ("gain", lambda known: _with_gain(known, protocol, settings.evaluation.baseline)),
    ]
    if with_cost and is_main_process():
        changes.append(("cost", lambda known: replace(known, cost=_cost(network, protocol, scored))))
    record = replace(record, data=dict.fromkeys(data))
    for what, change in changes:
        record = attempts.run(what, partial(_changed, record, change), AGAIN) or record
    return replace(record, missing=portable(attempts.lines))


def _changed(record: Record, change: Callable[[Record], Record]) -> Record:
    """The record with a change.

    Raises:
        RecordError: it breaks the rules of records.
    """
    changed = change(record)
    changed.to_text()
    return changed


def _with_manifest(part: str, dataset: DenseDataset, record: Record) -> Record:
    return replace(record, data={**(record.data or {}), part: data_manifest(dataset)})


def portable(lines: Iterable[str]) -> list[str]:
    """Lines as a record may hold them: without paths of the machine, and of valid characters."""
    return [without_paths(line).encode(errors="replace").decode() for line in lines]


def require_whole(record: Record, asked: Sequence[str] = ()) -> None:
    """End a command whose result lacks something, after all else is done; nothing on other processes.

    Args:
        record: the result.
        asked: lines about what the command was asked for besides, and could not do.

    Raises:
        IncompleteError: a part is missing.
    """
    lines = [*record.missing, *asked]
    if lines and is_main_process():
        text = "".join(f"\n  {line}" for line in lines)
        raise IncompleteError(
            f"done, but {len(lines)} part{'s' * (len(lines) > 1)} of the result failed:{text}"
        )


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


def _checkpoint(measured: Measured, record: Record) -> dict[str, Any]:
    return {
        "sha256": file_sha256(measured.checkpoint),
        "file": measured.checkpoint.name,
        "iteration": (record.training or {}).get("iterations"),
        "rule": _RULE,
        "tasks": list(measured.network.task_names),
        **({"licence": measured.licence} if measured.licence else {}),
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

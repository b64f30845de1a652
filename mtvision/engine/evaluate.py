"""A checkpoint becomes a record, then a table and pictures.

Whatever was measured is on the disk before anything is drawn, printed or sent. What fails later is a line on
the terminal and in the record, and does not stop the rest.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from mtvision.core.sample import Batch
from mtvision.data.dataset import DenseDataset
from mtvision.engine.records import AGAIN, NOT_YET, UNFINISHED, Measured, add_parts, portable, scored_record
from mtvision.evaluation.evaluator import SampleEvaluator, Scores
from mtvision.evaluation.scoring import evaluate, measure_constant, scores_of, write_panels
from mtvision.recipe.building import trained_network
from mtvision.recipe.config import RunConfig
from mtvision.recipe.data import build_dataset, evaluation_loader
from mtvision.recipe.differences import as_options
from mtvision.recipe.from_checkpoint import changed_since
from mtvision.recipe.settings import Settings
from mtvision.report.provenance import config_entry
from mtvision.report.record import Record, RecordError
from mtvision.report.table import render_table
from mtvision.runtime.atomic import write_text
from mtvision.runtime.attempts import Attempts
from mtvision.runtime.checkpoint import checkpoint_file, load_meta
from mtvision.runtime.launch import is_main_process
from mtvision.runtime.progress import messages
from mtvision.runtime.rescue import write_or_rescue
from mtvision.runtime.whole import file_sha256

RECORD_FILE = "record.json"

Further = Callable[[Record, Attempts], None]
"""What else follows from a record, each part attempted on its own."""


def evaluate_checkpoint(
    config: RunConfig,
    work_dir: Path,
    checkpoint: str | Path,
    *,
    section: str = "test_data",
    quiet: bool = False,
    training: Mapping[str, Any] | None = None,
    save: Callable[[str, Mapping[str, torch.Tensor]], None] | None = None,
    further: Further | None = None,
    with_cost: bool = True,
) -> Record:
    """Score a checkpoint with the protocol's full metrics; writes record, table and pictures to `work_dir`.

    The order is: scores, `record.json`, `table.md`, the table on the terminal, `pictures/`, `further`. A part
    of the record that cannot be measured is named in its `missing`. What fails after the record is named in
    its `failures`. If `record.json` cannot be written, the record goes to a temporary folder, or is printed.

    Args:
        config: from `load_config`.
        work_dir: receives `record.json`, `table.md` and `pictures/`.
        checkpoint: weights of the config's network.
        section: `test_data` or `val_data`; `val_data` is used where a config has no `test_data`.
        quiet: print neither progress nor the table.
        training: what else is known of the training, e.g. `hours`.
        save: called with the id and the predictions of every image, e.g. a `PredictionWriter`.
        further: called on the main process at the end.
        with_cost: measure the network's cost for the record.

    Returns:
        The record (cost is measured on the main process only). Its `missing` also names a `record.json` that
        could not be written; `mtvision.engine.records.require_whole` makes an error of it.

    Raises:
        RefusedRecordError: the scores cannot be right; the message has them.
    """
    settings = Settings.of(config)
    protocol, options = settings.protocol, settings.evaluation
    console = messages(quiet=quiet or not is_main_process())
    section = section if config[section] else "val_data"
    network, meta = trained_network(config, protocol, checkpoint, other_tasks=True)
    file = checkpoint_file(checkpoint)
    network = network.to(device())
    dataset = build_dataset(section, config[section], protocol, settings.seed)
    loader = evaluation_loader(dataset, config[section])
    evaluator = SampleEvaluator(protocol.tasks, options.metric_options, options.workers, save)
    scores = evaluate(network, loader, evaluator, precision=options.precision, console=console)
    evaluator.close()
    record = scored_record(config, settings, scores, file, meta, training or {})
    without = evaluator.leave_one_out() if options.leave_one_out else None
    record = replace(record, notes=[*record.notes, *evaluator.notes()], leave_one_out=without)
    if is_main_process():
        _keep_scores(record, work_dir / RECORD_FILE)
    attempts = Attempts(quiet=not is_main_process())
    train_set, constant = _constant(config, settings, loader, attempts)
    data = {section.removesuffix("_data"): dataset, **({} if train_set is None else {"train": train_set})}
    known: dict[str, Any] = {"data": data, "constant": constant, "licence": meta.get("licence")}
    measured = Measured(settings=settings, network=network, checkpoint=file, **known)
    record = add_parts(record, measured, attempts, with_cost=with_cost)
    if not is_main_process():
        return record
    draw = partial(write_panels, network, protocol, dataset, work_dir / "pictures", options.pictures)

    def rest(record: Record, later: Attempts) -> None:
        _show(record, work_dir, later, quiet=quiet)
        later.run("pictures", lambda: draw(options.precision), "`mtvision test` draws them again")
        if further is not None:
            further(record, later)

    return record_first(record, work_dir / RECORD_FILE, rest, quiet=quiet)


@dataclass(frozen=True)
class Place:
    """Where the result of a test goes.

    Args:
        folder: the work dir, or one in it.
        training: what the record of the very same network knows of its training, such as `hours`.
        why: in sentences, if the folder is not the work dir; else empty.
    """

    folder: Path
    training: Mapping[str, Any] = field(default_factory=dict)
    why: str = ""


def spare_training(config: RunConfig, work_dir: Path, checkpoint: str | Path, section: str) -> Place:
    """Where the result of a test goes, so that it never replaces what a training measured.

    Args:
        config: of the test.
        work_dir: where it would go.
        checkpoint: that is scored.
        section: of the data.

    Returns:
        The place. Its folder is `work_dir`, unless the record there is of a training and of another
        checkpoint, config or split. Then it is a folder in it, named after the checkpoint.
    """
    file = checkpoint_file(checkpoint)
    apart = work_dir / f"test_{file.stem}"
    if not (work_dir / RECORD_FILE).is_file() or not file.is_file():
        return Place(work_dir)
    kept = f"{work_dir} has the record of a training, so this one is in {apart}."
    try:
        known = Record.load(work_dir / RECORD_FILE)
    except RecordError:  # nothing tells what would be lost
        return Place(apart, why=kept)
    if "hours" not in (known.training or {}):
        return Place(work_dir)
    section = (section if config[section] else "val_data").removesuffix("_data")
    scored, data = (known.checkpoint or {}).get("sha256"), known.data or {}  # a cut-off record has neither
    reasons = []
    if scored is not None and scored != file_sha256(file):
        reasons.append(f"That one is of another checkpoint, {(known.checkpoint or {}).get('file')}.")
    if data and section not in data:
        reasons.append(f"That one has no scores of the split {section}.")
    entry = known.config
    if entry is not None and entry["sha256"] != config_entry("", config.text)["sha256"]:
        reasons.append(as_options(changed_since(entry["text"], config, work_dir / RECORD_FILE)))
    return Place(apart, why=" ".join([kept, *reasons])) if reasons else Place(work_dir, known.training or {})


def with_trained_seed(config: RunConfig, checkpoint: str | Path, seed: int | None = None) -> RunConfig:
    """The config with the seed of the training, which is that of the result's record.

    Args:
        config: of a test.
        checkpoint: that is scored. One that knows no seed leaves the config as it is.
        seed: that the user gave.

    Raises:
        ValueError: the user gave another one.
    """
    trained = load_meta(checkpoint).get("seed")
    if trained is None or trained == config["seed"]:
        return config
    if seed is not None:
        raise ValueError(
            f"--seed {seed}: {checkpoint} was trained with seed {trained}, which its record has. "
            "Leave --seed out."
        )
    return config.with_options({"seed": trained})


def _keep_scores(record: Record, path: Path) -> None:
    """Write the scores before the rest of the record is measured, unless an earlier record is there."""
    with suppress(OSError):  # said when the whole record is written
        if not path.exists():
            replace(record, missing=[UNFINISHED]).save(path)


def _show(record: Record, work_dir: Path, later: Attempts, *, quiet: bool) -> None:
    advice = "`mtvision table` makes it from record.json"
    markdown = partial(render_table, [record], "markdown")
    later.run("table.md", lambda: write_text(work_dir / "table.md", markdown() + "\n"), advice)
    if not quiet:
        later.run("table on the terminal", lambda: print(render_table([record]), flush=True), advice)


def record_first(record: Record, path: Path, further: Further, *, quiet: bool = False) -> Record:
    """Write a record, then do what follows from it, then write what failed of that into the record.

    Until then its `failures` are `NOT_YET`, so that a run which is killed meanwhile is not taken for done.

    Args:
        record: complete.
        path: its file.
        further: everything else.
        quiet: standard output belongs to the caller: a record that no disk takes goes to standard error.

    Returns:
        The record with `failures`. If `path` could not be written, a line of `missing` says where it is.
    """
    later = Attempts()
    text = replace(record, failures=[NOT_YET]).to_text()
    place, lost = write_or_rescue(path, text, sys.stderr if quiet else sys.stdout)
    if lost:
        later.note(lost)
    further(record, later)
    failed = [line for line in later.lines if line != lost]
    record = replace(record, failures=portable(failed))
    if place is not None:
        later.run(f"failures in {place.name}", partial(record.save, place), "all else of the record is there")
    return replace(record, missing=[*record.missing, *portable([lost])]) if lost else record


def _constant(
    config: RunConfig, settings: Settings, loader: DataLoader[Batch], attempts: Attempts
) -> tuple[DenseDataset | None, Scores | None]:
    """The training set and the scores of the constant predictor, None where they are not asked for or fail.

    Processes meet only where all of them have measured their part, so that none waits for one that failed.
    """
    if not config["train_data"]:
        return None, None
    plain = {**config["train_data"]["dataset"], "transforms": "tensor"}
    open_set = partial(build_dataset, "train_data", {"dataset": plain}, settings.protocol, settings.seed)
    train_set = attempts.run("training data", open_set, AGAIN)
    if not settings.evaluation.constant_predictor:
        return train_set, None
    own = None
    if train_set is not None:
        measure = partial(measure_constant, settings.protocol, train_set, loader, settings.evaluation)
        own = attempts.run("constant predictor", measure, AGAIN)
    if not attempts.agree() or own is None:
        return train_set, None
    return train_set, attempts.run("constant predictor", partial(scores_of, own, loader), AGAIN)


def device() -> torch.device:
    """The GPU of this process, or the CPU where there is none."""
    return (
        torch.device("cuda", torch.cuda.current_device())
        if torch.cuda.is_available()
        else torch.device("cpu")
    )

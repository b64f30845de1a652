"""A whole run: train, evaluate the last checkpoint, write record, table and pictures."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook

from mtvision.core.non_finite import NonFiniteError
from mtvision.data.dataset import DenseDataset
from mtvision.engine.evaluate import evaluate_checkpoint
from mtvision.engine.hooks import DiagnosticsHook, ProgressHook, UnreachedHook, draw_gradients, marked_steps
from mtvision.engine.phases.part import (
    Part,
    build_part,
    checkpoint_hook,
    first_phase,
    look_at_data,
    rehearse,
    runner_of,
)
from mtvision.engine.phases.search import derived, found_before
from mtvision.engine.phases.start import start_from_phases
from mtvision.engine.run_dir.books import Books, totals
from mtvision.engine.run_dir.environment import changes_of_code, environment
from mtvision.engine.run_dir.journal import Journal
from mtvision.engine.run_dir.start import finished, from_main, owned, prepare
from mtvision.engine.tracked.predictions import PredictionsHook
from mtvision.engine.tracked.run import log_result, loggers_of
from mtvision.evaluation.scoring import headline_keys
from mtvision.recipe.config import RunConfig
from mtvision.recipe.data import build_dataset, require_labels
from mtvision.recipe.phases.found import filled, phases_asked
from mtvision.recipe.phases.plan import Phase, phases_of
from mtvision.recipe.selection import SELECTION_FILE, VALIDATION_FILE, write_selection
from mtvision.recipe.settings import Settings, to_plain_data
from mtvision.report.record import Record
from mtvision.runtime.attempts import Attempts
from mtvision.runtime.heartbeat import causes_named, wait_at_most
from mtvision.runtime.launch import gather, is_main_process, threads
from mtvision.runtime.progress import messages
from mtvision.runtime.signals import end_request, listening
from mtvision.runtime.whole import Examined
from mtvision.tracking.loggers import Loggers


@listening()
@causes_named()
def train(config: RunConfig, work_dir: Path, *, resume: str | None = None, overwrite: bool = False) -> Record:
    """Train a config and score its last checkpoint.

    Args:
        config: from `load_config`.
        work_dir: receives everything that is written.
        resume: `auto` starts, continues from the newest whole checkpoint in `work_dir`, or returns the record
            of a run that is all done. A path continues from that checkpoint, in its folder or in a new one.
        overwrite: delete an earlier run in `work_dir`.

    Returns:
        The record, which is also in `work_dir/record.json`. Its `missing` is as for `evaluate_checkpoint`.

    Raises:
        FileExistsError: `work_dir` holds an earlier run and neither `resume` nor `overwrite` is given.
        BusyError: another process trains in `work_dir`.
        CheckpointError: none of the checkpoints to resume from is whole.
        FileNotFoundError, ValueError: a data set cannot be opened, the one to be scored included, or what is
            scored has no label of a task.
        TrainingInterruptedError: a signal or a time limit; the run can be resumed.
        LostProcessError: another process, or a worker that loads data, was killed.
        NonFiniteError: a loss, a gradient or a weight became NaN or infinite; earlier checkpoints are
            untouched.
    """
    if resume and not overwrite:
        done = from_main(partial(finished, config, work_dir, resume))
        if done is not None:
            messages(quiet=not is_main_process()).print(f"{work_dir}: all is done, see record.json.")
            return done
    settings = Settings.of(config)
    section = "test_data" if config["test_data"] else "val_data"
    scored = build_dataset(section, config[section], settings.protocol, settings.seed)
    require_labels(section, scored)  # now, and not after hours
    with owned(work_dir):
        return _fit_and_score(config, settings, work_dir, resume, overwrite, {section: scored})


def _fit_and_score(
    config: RunConfig,
    settings: Settings,
    work_dir: Path,
    resume: str | None,
    overwrite: bool,
    scored: Mapping[str, DenseDataset],
) -> Record:
    run = fit(config, work_dir, resume=resume, overwrite=overwrite, scored=scored)

    def rest(record: Record, later: Attempts) -> None:
        rule, iterations = settings.evaluation.select, settings.training.iterations
        if rule != "last":
            select = partial(write_selection, work_dir, rule, settings.protocol, iterations)
            later.run(SELECTION_FILE, lambda: select(record.scores), f"{VALIDATION_FILE} has the evaluations")
        draw = partial(draw_gradients, work_dir)  # if any were measured
        later.run("pictures/gradients.png", draw, "the numbers are in losses.jsonl")
        log_result(run.loggers, record, run.checkpoint, work_dir, iterations, later)

    with threads(settings.training.threads):
        return evaluate_checkpoint(run.config, work_dir, run.checkpoint, training=run.training, further=rest)


@dataclass(frozen=True)
class FittedRun:
    """Result of training.

    Args:
        checkpoint: the last one.
        training: the books over all attempts (`mtvision.engine.run_dir.books.totals`), and steps that were
            left out or had no labelled pixel (`marked_steps`).
        loggers: still open.
        config: of the run, with what its phases found.
    """

    checkpoint: Path
    training: Mapping[str, Any]
    loggers: Loggers
    config: RunConfig


@listening()
def fit(
    config: RunConfig,
    work_dir: Path,
    *,
    resume: str | None = None,
    overwrite: bool = False,
    keep: Callable[[str], bool] | None = None,
    hooks: Sequence[Hook] = (),
    quiet: bool = False,
    scored: Mapping[str, DenseDataset] | None = None,
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
        scored: {section: data set} that will be scored, for the first look.

    Raises:
        As `train`.
    """
    if resume == "auto":
        end_request().goes_on = "Run the same command to continue."
    settings, plan = Settings.of(config), phases_of(config)
    console = messages(quiet=quiet or not is_main_process())
    with owned(work_dir), Journal(console, work_dir if is_main_process() else None) as journal:
        checkpoint = from_main(partial(prepare, work_dir, resume, overwrite))
        first, begins = from_main(partial(first_phase, plan, checkpoint))
        if checkpoint is None:
            rehearse(config, plan, journal, keep)
        asked = phases_asked(to_plain_data(config["model"]))
        found = found_before(config, plan, first, work_dir, journal)
        build = partial(_begun, config, plan, work_dir, journal, keep, found)
        part = build(plan[first], begins)
        if checkpoint is None:
            look_at_data(part, scored or {}, work_dir, journal.console)
        with _books(part, work_dir, checkpoint) as books:
            loggers = loggers_of(config, settings, work_dir, books.run_id)
            _limit_times(settings)
            for phase in plan[first:]:
                if phase is not part.phase:
                    part = build(phase, True)
                    books.images_per_step(part.images_per_step)
                _train_part(part, config, checkpoint, _Around(work_dir, loggers, journal, books, plan), hooks)
                checkpoint = Examined(work_dir / f"iter_{phase.end}.pth", problem="")
                if phase.name in asked:
                    found[phase.name] = derived(part, work_dir)
    end_request().advice = "All steps are done: the same command with --resume scores the last checkpoint."
    last = work_dir / f"iter_{settings.training.iterations}.pth"
    marks = marked_steps(work_dir)
    if marks.get("skipped_steps") == settings.training.iterations:
        raise NonFiniteError(
            f"{work_dir}: all {settings.training.iterations} steps were left out, because losses or "
            'gradients were NaN or infinite; nothing was trained. training.non_finite="stop" says where.'
        )
    scales = {"loss_scales": part.module.loss_scales()} if settings.training.init_from_data else {}
    parts = [
        {"name": phase.name, "iterations": phase.end - phase.start, "changed": list(phase.changed)}
        for phase in plan
        if phase.name
    ]
    named = {"phases": parts} if parts else {}
    training = {**totals(work_dir), **marks, **scales, **named}
    return FittedRun(last, training, loggers, filled(config, found))


def _begun(
    config: RunConfig,
    plan: Sequence[Phase],
    work_dir: Path,
    journal: Journal,
    keep: Callable[[str], bool] | None,
    found: Mapping[str, Any],
    phase: Phase,
    begins: bool,
) -> Part:
    """A phase that is built, with the weights of earlier phases that its `start` names."""
    part = build_part(config, phase, journal, begins=begins, keep=keep, found=found)
    if begins:
        start_from_phases(part.module.network, phase, plan, work_dir)
    return part


@dataclass(frozen=True)
class _Around:
    """What all phases of a run have in common."""

    work_dir: Path
    loggers: Loggers
    journal: Journal
    books: Books
    plan: Sequence[Phase]


def _train_part(
    part: Part, config: RunConfig, checkpoint: Examined | None, around: _Around, hooks: Sequence[Hook]
) -> None:
    """All steps of a phase; its last checkpoint is on the disk afterwards."""
    settings, journal, work_dir = part.settings, around.journal, around.work_dir
    interval = settings.training.log_interval
    progress = ProgressHook(around.loggers, interval, headline_keys(settings.protocol), journal)
    saving = checkpoint_hook(settings, around.plan, journal)
    shown = PredictionsHook(around.loggers, part.module.scored, settings.evaluation.pictures)
    ours = [progress, around.books, saving, UnreachedHook(interval, journal), shown]
    if settings.training.diagnostics_interval:
        ours.append(DiagnosticsHook(settings.training.diagnostics_interval))
    runner = runner_of(part, config, work_dir, checkpoint, [*ours, *hooks])
    journal.say(f"[bold]{config['name'] or work_dir.name}[/]: {part.title()}, to {work_dir}")
    try:
        with threads(settings.training.threads):
            runner.train()
        runner.finish_writing()
    finally:  # what is written in the background is on the disk afterwards, also after an error
        progress.close()
        runner.writer.finish()


def _limit_times(settings: Settings) -> None:
    """How long the run may take, and how long a process may keep the others waiting."""
    minutes = settings.training.time_limit_minutes
    end_request().limit(None if minutes is None else 60 * minutes)
    wait_at_most(settings.training.stuck_minutes)


def _books(part: Part, work_dir: Path, checkpoint: Examined | None) -> Books:
    """The books of this attempt."""
    about = {"environment": environment()} if is_main_process() else {}
    books = Books(
        work_dir,
        hosts=sorted(set(gather(platform.node()))),
        images=part.images_per_step,
        about=about,
        patch=changes_of_code() if is_main_process() else "",
        keeps=is_main_process(),
    )
    if checkpoint is not None and is_main_process():
        books.begins_from(checkpoint)
    return books

"""Searches of settings: one training per trial, judged on held-out training images.

Optuna keeps its study in a journal in the work dir. Several processes may work on it, and the same command
continues it. `wandb agent` starts single trials instead.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mtvision.core.naming import look_up, within
from mtvision.engine.start.begun import begin
from mtvision.recipe.config import RunConfig, load_config
from mtvision.recipe.settings import protocol_of
from mtvision.report.baseline import Baseline, base_scores, gain_over
from mtvision.report.record import Record
from mtvision.runtime.atomic import write_text
from mtvision.sweep.grid import FINISHED, Run, expand, look_up_states
from mtvision.sweep.local import Outcome
from mtvision.sweep.space import Axis
from mtvision.sweep.weight_search import SearchInterruptedError, SearchPlan, judged_on_held_out

STUDY_FILE = "study.log"
SCALE_FILE = "scale.json"
RESULT_FILE = "tune.json"
GAIN = "gain"
"""Objective: mean relative change of the headline scores over the first trial that ended, in per cent."""

Train = Callable[[Sequence[Run]], Sequence[Outcome]]


@dataclass(frozen=True)
class Trials:
    """What all trials of a search have in common.

    Args:
        config: file.
        folder: receives one folder per trial, and the study.
        objective: `gain`, or `task/score` of a headline score.
        held_out: share of the training images that judges.
        seed: of the trainings and of Optuna's sampler.
        options: further `--cfg-options`.
        plugins: `--plugin` of all trials.
        check: as in `mtvision.sweep.grid.expand`.
    """

    config: Path
    folder: Path
    objective: str = GAIN
    held_out: float = 0.1
    seed: int = 0
    options: Sequence[str] = ()
    plugins: Sequence[str] = ()
    check: Callable[[RunConfig], object] | None = None
    _plain: list[RunConfig] = field(default_factory=list)

    @property
    def plain(self) -> RunConfig:
        """The config without the values of a trial."""
        if not self._plain:
            self._plain.append(load_config(self.config, self.options, self.plugins))
        return self._plain[0]

    def higher_is_better(self) -> bool:
        """Direction of the objective.

        Raises:
            UnknownNameError: it is neither `gain` nor a headline score of the protocol.
        """
        tasks = protocol_of(self.plain).tasks
        known = {GAIN: True, **{f"{task.name}/{task.headline}": task.higher_is_better for task in tasks}}
        return bool(look_up("objective", self.objective, known))

    def check_axes(self, axes: Sequence[Axis]) -> None:
        """Refuse settings that the config does not take, before anything is trained.

        Raises:
            UnknownNameError, ValueError, TypeError: what the config says about a key, a bound or a choice.
        """
        for axis in axes:
            for text in axis.ends:
                with within(f"--search: {axis.key}={text}"):
                    self.run_of({axis.key: text})

    def run_of(self, values: Mapping[str, str]) -> Run:
        """The training of a trial, with the state that its folder has."""
        plan = SearchPlan(held_out=self.held_out)
        place = self.folder / (os.environ.get("WANDB_RUN_ID") or "trials")
        (run,) = expand(
            [self.config],
            seeds=[self.seed],
            axes={key: [text] for key, text in values.items()},
            work_dir=place,
            options=[*self.options, *judged_on_held_out(self.plain, plan)],
            plugins=self.plugins,
            check=self.check,
        )
        return look_up_states([run], [])[0]

    def trained(self, values: Mapping[str, str], train: Train) -> Record | None:
        """The record of a trial; None if it failed.

        Raises:
            SearchInterruptedError: it was stopped, and the same command continues it.
        """
        run = self.run_of(values)
        if run.state == FINISHED:
            return run.record
        (outcome,) = train([run])
        if outcome.interrupted:
            raise SearchInterruptedError("a trial was interrupted; run the same command to continue")
        return outcome.record

    def value_of(self, record: Record) -> float:
        """The objective of a record; not finite where a score is not. The first gain needs none near 0."""
        if self.objective != GAIN:
            task, _, score = self.objective.partition("/")
            return float(record.scores.get(task, {}).get(score, math.nan))
        scale = self.folder / SCALE_FILE
        if not scale.is_file():
            if base_scores(record).keys() != set(record.task_names):
                return math.nan  # else no later trial had a gain
            write_text(scale, json.dumps(record.scores) + "\n")
        base = Baseline("the first trial", json.loads(scale.read_text(encoding="utf-8")))
        try:
            return float(gain_over(record, base)["percent"])
        except ValueError:
            return math.nan


def search_with_optuna(
    trials: Trials, axes: Sequence[Axis], count: int, train: Train, say: Callable[[str], object] = print
) -> dict[str, Any]:
    """Train until the study has `count` trials that ended; returns and writes `tune.json`.

    Args:
        trials: what they have in common.
        axes: the settings that are searched.
        count: trials of the study, those of earlier calls included.
        train: trains runs, e.g. `mtvision.sweep.local.run_locally`.
        say: is told about each trial.

    Raises:
        ImportError: Optuna is not installed.
        FileExistsError: the folder has a study of another config, objective, space, ... .
        SearchInterruptedError: a trial was stopped; the same command trains it further.
        ValueError: no trial ended with a finite objective.
    """
    optuna = _optuna()
    space = {axis.key: asdict(axis) for axis in axes}
    told = {"objective": trials.objective, "held_out": trials.held_out, "seed": trials.seed, "space": space}
    begin(trials.folder, {"config": trials.plain.sha256[:12], **told})
    backend = optuna.storages.journal.JournalFileBackend(str(trials.folder / STUDY_FILE))
    states = optuna.trial.TrialState
    study = optuna.create_study(
        storage=optuna.storages.JournalStorage(backend),
        study_name="mtvision",
        direction="maximize" if trials.higher_is_better() else "minimize",
        load_if_exists=True,
    )
    # A search that continues must not draw again what it has drawn.
    drawn = len(study.get_trials(deepcopy=False))
    study.sampler = optuna.samplers.TPESampler(seed=trials.seed + drawn, constant_liar=True)
    ended = (states.COMPLETE, states.FAIL)
    while len(_ended(study, ended)) < count:
        trial = study.ask()
        values = {axis.key: axis.ask(trial) for axis in axes}
        try:
            record = trials.trained(values, train)
        except SearchInterruptedError:
            study.tell(trial, state=states.PRUNED)  # counts as none; its values come again
            study.enqueue_trial(trial.params)
            raise
        value = math.nan if record is None else trials.value_of(record)
        finite = math.isfinite(value)
        study.tell(trial, value if finite else None, state=states.COMPLETE if finite else states.FAIL)
        shown = f"{trials.objective} {value:.4g}" if finite else "failed"
        say(f"trial {trial.number}: {shown}  {_options(values)}")
    done = study.get_trials(states=(states.COMPLETE,))
    if not done:
        advice = "Try narrower ranges."
        if trials.objective == GAIN:
            advice += (
                " A gain divides by the scores of a trial: they must be finite and not near 0 in all tasks."
            )
        raise ValueError(
            f"{trials.folder}: none of {count} trials has a finite {trials.objective}; see the logs in "
            f"trials/. {advice}"
        )
    return _written(trials, axes, done, study.best_trial)


def _ended(study: Any, states: Sequence[Any]) -> list[Any]:
    return list(study.get_trials(deepcopy=False, states=tuple(states)))


def _written(trials: Trials, axes: Sequence[Axis], done: Sequence[Any], best: Any) -> dict[str, Any]:
    found = {
        "config": str(trials.config),
        "objective": trials.objective,
        "held_out": trials.held_out,
        "best": {"trial": best.number, "value": best.value, "options": _text(axes, best.params)},
        "trials": [
            {"trial": item.number, "value": item.value, "options": _text(axes, item.params)} for item in done
        ],
    }
    write_text(trials.folder / RESULT_FILE, json.dumps(found, indent=2) + "\n")
    return found


def _text(axes: Sequence[Axis], values: Mapping[str, Any]) -> list[str]:
    return [f"{axis.key}={values[axis.key]}" for axis in axes if axis.key in values]


def _options(values: Mapping[str, str]) -> str:
    return "  ".join(f"{key}={text}" for key, text in values.items())


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise ImportError("mtvision tune needs `pip install 'mtvision[tune]'`.") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def wandb_sweep(
    trials: Trials, axes: Sequence[Axis], count: int, command: Sequence[str], method: str = "bayes"
) -> dict[str, Any]:
    """The content of the YAML file that `wandb sweep` takes; `wandb agent` then starts `command` per trial.

    Args:
        trials: what they have in common.
        axes: the settings that are searched.
        count: trials at most.
        command: starts a trial; the values follow it as `key=value`.
        method: of the sweep.
    """
    metric = "final/gain_percent" if trials.objective == GAIN else f"final/{trials.objective}"
    return {
        "method": method,
        "metric": {"name": metric, "goal": "maximize" if trials.higher_is_better() else "minimize"},
        "run_cap": count,
        "parameters": {axis.key: axis.wandb() for axis in axes},
        "command": [*command, "${args_no_hyphens}"],
    }

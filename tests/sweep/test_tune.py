"""Searches of settings: spaces, objective, going on after a stop, and the trials of `wandb agent`."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import discs
import pytest
import yaml
from report_records import make_record

from mtvision.cli.procedures import tune as command
from mtvision.core.naming import ReportedError, UnknownNameError
from mtvision.recipe.check import TO_TRAIN, check_config
from mtvision.recipe.config import load_config
from mtvision.report.provenance import config_entry
from mtvision.sweep.local import Outcome
from mtvision.sweep.space import Axis, check_values, parse_space
from mtvision.sweep.tune import STUDY_FILE, Trials, search_with_optuna
from mtvision.sweep.weight_search import SearchInterruptedError

BEST = 3e-3
"""The learning rate at which the pretended scores are best."""
SPACE = ["optimizer.lr=log(1e-5,1e-1)", "balancer=FixedWeights,UPGrad"]


class Trainer:
    """Pretends to train: scores are best near `BEST`, and better with UPGrad."""

    def __init__(self, stop_after=None, broken=()):
        self.trained, self.stop_after, self.broken = [], stop_after, broken

    def __call__(self, runs):
        return [self.one(run) for run in runs]

    def one(self, run):
        if self.stop_after is not None and len(self.trained) >= self.stop_after:
            return Outcome(run, None, "not started", interrupted=True)
        self.trained.append(run)
        if len(self.trained) - 1 in self.broken:
            return Outcome(run, None, "exit code 3")
        config = load_config(run.config, [*run.options, f"seed={run.seed}"])
        miss = abs(math.log10(config["optimizer"]["lr"] / BEST)) + (config["balancer"]["type"] != "UPGrad")
        record = make_record(
            0.5 / (1 + miss), 0.6 * (1 + miss), seed=run.seed, method=run.method,
            config=config_entry(run.config.stem, config.text), training={"iterations": run.iterations},
        )  # fmt: skip
        record.save(run.work_dir / "record.json")
        return Outcome(run, record)


def trials_in(folder, **changes):
    folder.mkdir(exist_ok=True)
    return Trials(config=Path(discs.write_config(folder)), folder=folder / "search", **changes)


def searched(trials, count, trainer):
    pytest.importorskip("optuna")
    return search_with_optuna(trials, parse_space(SPACE), count, trainer, say=lambda text: None)


def test_spaces():
    lr, clip, parts, rule = parse_space(
        [
            "optimizer.lr=log(1e-5,1e-2)",
            "training.clip_grad=uniform(0,5)",
            "training.micro_batches=int(1,4)",
            "balancer={'type': 'A', 'b': 1},UPGrad",
        ]
    )
    assert lr == Axis("optimizer.lr", "log", 1e-5, 1e-2)
    assert lr.wandb() == {"distribution": "log_uniform_values", "min": 1e-5, "max": 1e-2}
    assert clip.wandb() == {"distribution": "uniform", "min": 0.0, "max": 5.0}
    assert parts.wandb() == {"distribution": "int_uniform", "min": 1, "max": 4}
    assert rule.choices == ("{'type': 'A', 'b': 1}", "UPGrad")
    assert check_values(["optimizer.lr=0.1", "balancer=UPGrad"]) == {
        "optimizer.lr": "0.1",
        "balancer": "UPGrad",
    }


@pytest.mark.parametrize(
    ("texts", "problem"),
    [
        (["lr"], "expected KEY=log"),
        (["lr=log(0,1)"], "above 0 for log"),
        (["lr=uniform(2,1)"], "first number must be below"),
        (["lr=int(1)"], "needs two numbers"),
        (["lr=int(1.5,3)"], "bounds are finite, and whole numbers for int"),
        (["lr=uniform(0,inf)"], "bounds are finite"),
        (["lr=uniform(nan,1)"], "first number must be below"),
        (["balancer=A"], "found 1 different value"),
        (["a=1,2", "a=3,4"], "a is given more than once"),
    ],
)
def test_spaces_that_are_none(texts, problem):
    with pytest.raises(ValueError, match=re.escape(problem)):
        parse_space(texts)


@pytest.mark.slow
def test_the_best_of_the_study_is_the_best_of_the_trials(tmp_path):
    trainer = Trainer(broken=(2,))
    trials = trials_in(tmp_path)
    found = searched(trials, 5, trainer)
    assert len(trainer.trained) == 5
    values = [item["value"] for item in found["trials"]]
    assert len(values) == 4  # one failed
    assert values[0] == 0.0  # the scale of the others
    assert found["best"]["value"] == max(values)
    assert json.loads((trials.folder / "tune.json").read_text()) == found
    run = trainer.trained[0]
    config = load_config(run.config, [*run.options, f"seed={run.seed}"])
    assert (config["train_data"]["dataset"]["part"], config["provenance"]) == ("rest", "smoke")
    options = dict(text.split("=", 1) for text in found["best"]["options"])
    assert options.keys() == {"optimizer.lr", "balancer"}


@pytest.mark.slow
def test_an_error_is_minimised(tmp_path):
    found = searched(trials_in(tmp_path, objective="depth/rmse"), 3, Trainer())
    assert found["best"]["value"] == min(item["value"] for item in found["trials"])
    with pytest.raises(UnknownNameError, match="depth/rmse"):
        trials_in(tmp_path, objective="depth/rms").higher_is_better()


def test_a_search_that_was_stopped_goes_on(tmp_path):
    trials = trials_in(tmp_path)
    with pytest.raises(SearchInterruptedError):
        searched(trials, 4, Trainer(stop_after=2))
    assert (trials.folder / STUDY_FILE).is_file()
    rest = Trainer()
    assert len(searched(trials, 4, rest)["trials"]) == 4
    assert len(rest.trained) == 2
    assert searched(trials, 4, Trainer(stop_after=0))["trials"]  # nothing is left to train


@pytest.mark.parametrize(
    ("search", "problem"),
    [
        ("nosuch.key=uniform(0,1)", "--search: nosuch.key=0.0: .*Unknown key"),
        ("optimizer.lr=uniform(-1,1)", "--search: optimizer.lr=-1.0: .*optimizer.lr must be"),
        ("optimizer.lr=1e-3,fast", "--search: optimizer.lr=fast: "),
        ("training.iterations=int(0,5)", "--search: training.iterations=0: .*of at least 1, got 0"),
    ],
)
def test_settings_that_the_config_does_not_take_are_found_first(tmp_path, search, problem):
    trials = replace(trials_in(tmp_path), check=lambda config: check_config(config, TO_TRAIN))
    with pytest.raises((ReportedError, ValueError), match=problem):
        trials.check_axes(parse_space([search]))
    trials.check_axes(parse_space(SPACE))


def test_a_study_of_another_search_is_not_continued(tmp_path):
    with pytest.raises(SearchInterruptedError):
        searched(trials_in(tmp_path), 2, Trainer(stop_after=0))
    with pytest.raises(FileExistsError, match="objective='gain', not 'depth/rmse'. Choose"):
        searched(trials_in(tmp_path, objective="depth/rmse"), 2, Trainer())


@pytest.mark.slow
def test_none_that_ended_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="none of 2 trials has a finite gain"):
        searched(trials_in(tmp_path), 2, Trainer(broken=(0, 1)))


@pytest.mark.parametrize("first", [0.002, math.nan], ids=["near 0", "not finite"])
def test_a_first_trial_that_no_gain_can_divide_by_fails_alone(tmp_path, first):
    trials = trials_in(tmp_path)
    trials.folder.mkdir()
    assert math.isnan(trials.value_of(make_record(first, 0.6)))
    assert trials.value_of(make_record(0.5, 0.6)) == 0
    assert trials.value_of(make_record(0.002, 0.6)) == pytest.approx((-99.6 + 0) / 2)


@pytest.mark.slow
def test_a_trial_of_wandb_agent_trains_what_the_sweep_chose(tmp_path, monkeypatch, capsys):
    """The printed sweep, its command as `wandb agent` completes it, and the folder of the run."""
    config = discs.write_config(tmp_path)
    search = ["--search", *SPACE, "--objective", "depth/rmse", "--work-dir", str(tmp_path / "w")]
    assert command.main([str(config), *search, "--trials", "9", "--wandb-sweep"]) == 0
    sweep = yaml.safe_load(capsys.readouterr().out)
    assert sweep["metric"] == {"name": "final/depth/rmse", "goal": "minimize"}
    assert (sweep["method"], sweep["run_cap"]) == ("bayes", 9)
    assert sweep["parameters"]["balancer"] == {"values": ["FixedWeights", "UPGrad"]}
    assert sweep["command"][-1] == "${args_no_hyphens}"
    trainer = Trainer()
    monkeypatch.setattr(command, "run_locally", trainer)
    monkeypatch.setenv("WANDB_SWEEP_ID", "s1")
    monkeypatch.setenv("WANDB_RUN_ID", "r1")
    sweeps = pytest.importorskip("wandb.sdk.launch.sweeps.utils")
    drawn = {"args": {"optimizer.lr": {"value": 0.003}, "balancer": {"value": "UPGrad"}}}
    chosen = sweeps.create_sweep_command_args(drawn)["args_no_hyphens"]
    words = [*sweep["command"][:-1], *chosen]
    assert words[:2] == ["mtvision", "tune"]
    assert command.main(words[2:]) == 0
    (run,) = trainer.trained
    assert run.work_dir.parent == tmp_path / "w" / "r1"
    settings = load_config(run.config, [*run.options, f"seed={run.seed}"])
    assert (settings["optimizer"]["lr"], settings["balancer"]["type"]) == (0.003, "UPGrad")
    assert settings["logging"]["wandb"] is True
    monkeypatch.setattr(command, "run_locally", Trainer(broken=(0,)))
    monkeypatch.setenv("WANDB_RUN_ID", "r2")
    assert command.main(words[2:]) == 1


def test_a_gain_needs_a_baseline_that_all_machines_have(tmp_path):
    config = discs.write_config(tmp_path)
    with pytest.raises(ValueError, match="machines share no first trial"):
        command.main([str(config), "--search", *SPACE, "--wandb-sweep"])


@pytest.mark.slow
def test_the_command_ends_with_the_options_to_train_with(tmp_path, monkeypatch, capsys):
    pytest.importorskip("optuna")
    config = discs.write_config(tmp_path)
    monkeypatch.setattr(command, "run_locally", Trainer())
    search = [str(config), "--search", *SPACE, "--trials", "2", "--work-dir", str(tmp_path / "w")]
    assert command.main(search) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].startswith("best of 2: gain ")
    assert re.match(
        rf"mtvision train {re.escape(str(config))} --cfg-options 'optimizer.lr=.+' 'balancer=", lines[-1]
    )
    monkeypatch.setattr(command, "run_locally", Trainer(stop_after=0))
    assert command.main([*search[:-4], "--trials", "3", *search[-2:]]) == 130

"""Grids of runs: what they expand to, what is skipped, what goes on after a failure."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import discs
import pytest
from sweep_stage import Stage, grid

from mtvision.cli.common import RUN_OPTIONS, make_parser
from mtvision.core.naming import UnknownNameError
from mtvision.recipe.config import load_config
from mtvision.report.provenance import config_entry
from mtvision.report.record import Record
from mtvision.runtime.lock import lock_file
from mtvision.sweep.grid import (
    FINISHED,
    NEW,
    RESUMABLE,
    expand,
    fingerprint,
    look_up_states,
    parse_axes,
    split_values,
    start_state,
)
from mtvision.sweep.local import BUSY, available_cores
from mtvision.sweep.remote import TrainJob, commands, run_on_cluster, slurm_executor, slurm_parameters
from mtvision.sweep.summary import last_step, summary


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a", ["a"]),
        ("1e-3, 2e-3", ["1e-3", "2e-3"]),
        ("['a','b'],['c']", ["['a','b']", "['c']"]),
        ("{'type': 'A', 'x': (1, 2)},B", ["{'type': 'A', 'x': (1, 2)}", "B"]),
        ("'a,b',\"c,d\"", ["'a,b'", '"c,d"']),
    ],
)
def test_commas_inside_brackets_and_quotes_separate_nothing(text, values):
    assert split_values(text) == values


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["optimizer.lr"], "expected key=value"),
        (["optimizer.lr=1,,2"], "expected key=value"),
        (["a=[1,2"], "open quote or bracket"),
        (["a=1,1"], "repeats a key or a value"),
        (["a=1", "a=2"], "repeats a key or a value"),
        (["seed=0,1"], "--seeds 0 1 2"),
    ],
)
def test_axes_that_make_no_sense(settings, message):
    with pytest.raises(ValueError, match=message):
        parse_axes(settings)


def test_the_grid_is_every_combination(tmp_path):
    runs = grid(
        tmp_path, "balancer=Uncertainty,{'type':'FixedWeights'}", "optimizer.lr=1e-3,0.002", seeds=[3, 4]
    )
    names = [run.name for run in runs]
    assert names == [
        f"discs_config_{balancer}_lr={lr}_seed{seed}"
        for balancer in ("Uncertainty", "FixedWeights")
        for lr in ("1e-3", "0.002")
        for seed in (3, 4)
    ]
    configs = [load_config(run.config, [*run.options, f"seed={run.seed}"]) for run in runs]
    found = [(c["balancer"]["type"], c["optimizer"]["lr"], c["seed"], c["name"]) for c in configs]
    assert found[0] == ("Uncertainty", 1e-3, 3, "discs_config, Uncertainty, lr=1e-3")
    assert found[-1] == ("FixedWeights", 2e-3, 4, "discs_config, FixedWeights, lr=0.002")
    assert len(set(found)) == 8
    assert [run.fingerprint for run in runs] == [fingerprint(config.text) for config in configs]
    assert len({run.fingerprint for run in runs}) == 8
    rows = {config_entry("x", config.text)["row_sha256"] for config in configs}
    assert len(rows) == 4  # seeds share a row
    assert {run.iterations for run in runs} == {12}


def test_without_axes_a_run_is_its_config(tmp_path):
    (run,) = grid(tmp_path, seeds=None)
    plain = load_config(run.config)
    assert (run.name, run.method, run.options, run.seed) == ("discs_config_seed0", "discs_config", (), 0)
    assert run.fingerprint == fingerprint(plain.text)


def test_options_of_all_runs_are_not_part_of_their_names(tmp_path):
    (run,) = grid(tmp_path, seeds=[0], options=["training.iterations=7"])
    assert (run.name, run.iterations) == ("discs_config_seed0", 7)


def test_labels_of_tasks_and_arguments(tmp_path):
    runs = grid(tmp_path, "tasks=['semseg'],['depth']", "balancer.type=Uncertainty", seeds=[0])
    names = [load_config(run.config, run.options)["name"] for run in runs]
    assert names == ["discs_config, tasks semseg, Uncertainty", "discs_config, tasks depth, Uncertainty"]
    assert runs[0].name == "discs_config_tasks-semseg_Uncertainty_seed0"
    odd = grid(tmp_path, "protocol.title=a b,a/b,a.b", seeds=[0])
    assert len({run.name for run in odd}) == 3
    assert all("/" not in run.name for run in odd)


def test_rows_can_be_named(tmp_path):
    file = discs.write_config(tmp_path)
    axes = parse_axes(["tasks=['depth'],['semseg','depth']", "optimizer.lr=0.1"])
    runs = expand([file], seeds=[0], axes=axes, work_dir=tmp_path, name="{tasks} at {optimizer.lr}")
    assert [run.method for run in runs] == ["depth at 0.1", "semseg+depth at 0.1"]
    assert [load_config(run.config, run.options).name for run in runs] == [run.method for run in runs]
    assert len({run.name for run in runs}) == 2
    with pytest.raises(UnknownNameError, match="key of --set in --name 'lr'"):
        expand([file], seeds=[0], axes=axes, work_dir=tmp_path, name="{lr}")


def test_mistakes_are_found_before_anything_runs(tmp_path):
    with pytest.raises(UnknownNameError, match="optimiser"):
        grid(tmp_path, "optimiser.lr=1")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        expand([tmp_path / "a.py"], seeds=None, axes={}, work_dir=tmp_path)
    with pytest.raises(ValueError, match="the same run more than once: discs_config_seed0"):
        grid(tmp_path, seeds=[0, 0])
    other = tmp_path / "other"
    other.mkdir()
    twin = discs.write_config(other, discs.CONFIG + "name = 'twin'\n")
    with pytest.raises(ValueError, match="share a folder: discs_config_seed0"):
        expand([discs.write_config(tmp_path), twin], seeds=[0], axes={}, work_dir=tmp_path)


@pytest.fixture
def stage(tmp_path):
    return Stage(tmp_path, grid(tmp_path, "balancer=Uncertainty,FixedWeights"))


def test_finished_runs_are_skipped(stage, tmp_path):
    first = stage.train(stage.runs[:2])
    assert [outcome.record.seed for outcome in first] == [0, 1]
    states = stage.states(tmp_path / "work")
    assert [run.state for run in states] == [FINISHED, FINISHED, NEW, NEW]
    assert states[1].record == first[1].record
    assert [run.state for run in stage.states(overwrite=True)] == [NEW] * 4
    results = tmp_path / "results"  # a record somewhere else counts as well
    Record.load(stage.folder / f"{stage.runs[3].name}.json").save(results / "any.json")
    (results / "broken.json").write_text('{"schema": 1, "scores": 3}')
    assert [run.state for run in stage.states(results)] == [FINISHED, FINISHED, NEW, FINISHED]


def test_a_fingerprint_leaves_out_defaults_and_places(tmp_path):
    text = load_config(discs.write_config(tmp_path)).text
    same = fingerprint(text)
    for more in ("search = None\n", "schedule = None\n"):
        assert fingerprint(text.replace(more, "")) == same  # written before that key existed
    shorter = re.sub(r"ema=None, *|ema=None,\n *", "", text)
    assert shorter != text
    assert fingerprint(shorter) == same
    assert fingerprint(text + "schedule = [dict(type='PolyLR')]\n") != same
    assert fingerprint(text.replace("ema=None", "ema=0.1")) != same
    assert fingerprint(text.replace("lr=0.01", "lr=0.02")) != same
    assert fingerprint("root = '/a/data'\n") == fingerprint("root = '/b/c/data'\n")


def test_a_record_of_a_changed_config_does_not_count(stage, tmp_path):
    stage.train(stage.runs[:1])
    changed = grid(tmp_path, "balancer=Uncertainty,FixedWeights", options=["optimizer.lr=5e-3"])
    with pytest.raises(FileExistsError, match="holds a run of another config or seed.*--overwrite"):
        look_up_states(changed, [tmp_path / "work"])
    assert look_up_states(changed, [], overwrite=True)[0].state == NEW


@pytest.mark.slow
def test_threads_and_slots_are_bounded(stage, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    for index in range(4):
        stage.plan(index, "slow")
    outcomes = stage.train(stage.runs, workers=2)
    assert [outcome.run.name for outcome in outcomes] == [run.name for run in stage.runs]
    calls = stage.calls()
    assert {call["threads"] for call in calls} == {str(max(1, available_cores() // 2))}
    assert {call["gpu"] for call in calls} == {"4", "7"}
    moments = [call["start"] for call in calls]
    assert max(sum(c["start"] <= moment < c["end"] for c in calls) for moment in moments) <= 2
    with pytest.raises(ValueError, match="--workers must be at least 1, got 0"):
        stage.train(stage.runs, workers=0)


def test_failures_are_told_and_do_not_stop_the_others(stage, tmp_path):
    stage.plan(1, "fail")
    stage.plan(2, "die")
    outcomes = stage.train(stage.runs)
    assert [outcome.record is not None for outcome in outcomes] == [True, False, False, True]
    assert outcomes[1].problem == "exit code 3: mtvision train: the loss is not finite"
    assert outcomes[2].problem == f"killed by signal 9: training {stage.runs[2].name}"
    assert "the loss is not finite" in outcomes[1].run.log.read_text()
    states = stage.states(tmp_path / "work")
    assert [run.state for run in states] == [FINISHED, NEW, RESUMABLE, FINISHED]
    again = stage.train([run for run in states if run.state != FINISHED])
    assert all(outcome.record is not None for outcome in again)
    arguments = {call["run"]: call["arguments"] for call in stage.calls()}
    assert "--resume" in arguments[stage.runs[2].name]
    assert "--resume" in arguments[stage.runs[1].name]  # whatever is there


def test_a_run_without_a_record_of_its_own_has_failed(stage):
    name = stage.runs[0].name
    Record.load(stage.folder / f"{stage.runs[1].name}.json").save(stage.folder / f"{name}.json")
    (outcome,) = stage.train(stage.runs[:1])
    assert (outcome.record, outcome.problem) == (None, "ended without a record of its config and seed")


@pytest.mark.fault("Ctrl-C in mtvision launch", expected="runs write a checkpoint; no more are started")
def test_ctrl_c_lets_runs_write_a_checkpoint_and_starts_no_more(stage, tmp_path):
    stage.plan(0, "wait")

    def press():
        while not (stage.folder / "waiting").exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press, daemon=True).start()
    before = signal.getsignal(signal.SIGINT)
    outcomes = stage.train(stage.runs)
    assert signal.getsignal(signal.SIGINT) is before
    assert all(outcome.interrupted and outcome.record is None for outcome in outcomes)
    assert [outcome.problem for outcome in outcomes[1:]] == ["not started"] * 3
    assert stage.states(tmp_path / "work")[0].state == RESUMABLE
    assert all(outcome.record for outcome in stage.train(stage.states(tmp_path / "work")))


def test_a_folder_is_trained_by_one_process(stage):
    with lock_file(stage.runs[0].lock):
        first, second = stage.train(stage.runs[:2])
    assert (first.record, first.problem) == (None, BUSY)
    assert second.record is not None
    assert stage.train(stage.runs[:1])[0].record is not None


class PretendedJob:
    job_id = "17"

    def __init__(self, function):
        self.function, self.looks = function, 0

    def done(self):
        self.looks += 1
        return self.looks > 1

    def result(self):
        return self.function()


class PretendedExecutor:
    """What is used of submitit's executors."""

    def __init__(self, lose=()):
        self.submitted, self.batches, self.lose = [], 0, lose

    @contextmanager
    def batch(self):
        self.batches += 1
        yield

    def submit(self, function):
        assert self.batches == 1
        self.submitted.append(function)
        lost = len(self.submitted) - 1 in self.lose
        return PretendedJob(self._lost if lost else function)

    def _lost(self):
        raise RuntimeError("node failure\ntraceback")


def test_a_cluster_gets_one_array(stage, tmp_path):
    stage.plan(1, "fail")
    executor = PretendedExecutor(lose={2})
    outcomes = run_on_cluster(stage.runs, executor, command=stage.command, poll_seconds=0)
    assert [outcome.record is not None for outcome in outcomes] == [True, False, False, True]
    assert outcomes[1].problem.startswith("exit code 3")
    assert outcomes[2].problem == "job 17: RuntimeError: node failure"
    assert all("none" in call["arguments"] for call in stage.calls())
    job = executor.submitted[0]
    assert job() == 0  # submitted twice: the second finds the record
    assert len([call for call in stage.calls() if call["run"] == stage.runs[0].name]) == 1
    path = stage.runs[0].work_dir / "record.json"
    replace(Record.load(path), missing=["cost: RuntimeError"]).save(path)
    assert job() == 0  # a record that is not whole is made again
    assert len([call for call in stage.calls() if call["run"] == stage.runs[0].name]) == 2
    assert job == replace(job)  # plain data, so that submitit can pickle it


@pytest.mark.slow
def test_ranks_of_a_job_log_apart(stage, monkeypatch):
    monkeypatch.setenv("SLURM_PROCID", "1")
    assert TrainJob(stage.runs[0], stage.command, "slurm")() == 0
    assert (stage.runs[0].work_dir / "launch.1.log").is_file()
    assert stage.calls()[0]["arguments"][-1] == "slurm"


def test_slurm_parameters():
    values = {"partition": "gpu", "timeout_min": 5, "gpus_per_node": 1, "slurm_constraint": "a100"}
    assert slurm_parameters(values) == {
        "slurm_partition": "gpu", "timeout_min": 5, "gpus_per_node": 1, "slurm_constraint": "a100"
    }  # fmt: skip


def test_without_submitit_the_message_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ImportError, match="--slurm needs `pip install .mtvision.slurm..`; --print"):
        slurm_executor(tmp_path, ["partition=gpu"])


@pytest.mark.slow
def test_submitit_runs_jobs_in_processes_of_its_own(stage, tmp_path):
    pytest.importorskip("submitit")
    executor = slurm_executor(tmp_path / "jobs", ["cluster=local", "timeout_min=5"])
    stage.plan(1, "fail")
    outcomes = run_on_cluster(stage.runs[:2], executor, command=stage.command, poll_seconds=0.1)
    assert [outcome.record is not None for outcome in outcomes] == [True, False]
    assert outcomes[1].problem.startswith("exit code 3: mtvision train")
    with pytest.raises(ValueError, match="--slurm: .*partitoin"):
        slurm_executor(tmp_path / "jobs", ["cluster=local", "partitoin=gpu"])
    if shutil.which("srun") is None:
        with pytest.raises(ValueError, match="--slurm: .*srun.*--print"):
            slurm_executor(tmp_path / "jobs", ["partition=gpu"])


@pytest.mark.parametrize(
    ("nodes", "gpus", "start"), [(1, 1, "python"), (1, 8, "torchrun"), (2, 8, "torchrun")]
)
def test_printed_commands_are_what_train_reads(stage, nodes, gpus, start):
    lines = commands(stage.runs, nodes=nodes, gpus=gpus)
    assert len(lines) == 4
    words = shlex.split(lines[2])
    assert words[0] == start
    assert (f"--nproc-per-node={gpus}" in words) == (gpus > 1)
    assert ("--nnodes=2" in words) == (nodes > 1)
    assert ("--rdzv-endpoint=$HEAD_NODE:29500" in lines[2]) == (nodes > 1)  # the shell fills it in
    parser = make_parser("train", "", list(RUN_OPTIONS))
    parser.add_argument("--overwrite", action="store_true")
    position = words.index("train")
    assert words[position - 2 : position] == ["-m", "mtvision.cli.main"]
    given = parser.parse_args(words[position + 1 :])
    run = stage.runs[2]
    assert (given.config, given.seed, given.work_dir) == (str(run.config), run.seed, run.work_dir)
    assert tuple(given.cfg_options) == run.options
    assert "{'type': 'FixedWeights'}" in given.cfg_options[0]


def test_the_last_step_is_read_from_the_end(tmp_path):
    file = tmp_path / "losses.jsonl"
    assert last_step(file) == 0
    file.write_text("".join(json.dumps({"iter": step, "x": "y" * 100}) + "\n" for step in range(1, 300)))
    assert last_step(file) == 299
    with file.open("a") as stream:
        stream.write('{"iter": 300, "half')
    assert last_step(file) == 299


def test_the_summary_holds_the_records_numbers(stage):
    records = [outcome.record for outcome in stage.train(stage.runs)]
    text = summary(records, format="markdown")
    assert "| discs\\_config, Uncertainty | tiny | 40.50 ± 0.71 | 0.8950 ± 0.0071 |" in text
    assert "| discs\\_config, FixedWeights | tiny | **42.50** ± 0.71 | **0.8750** ± 0.0071 |" in text
    assert "| discs\\_config, FixedWeights | semseg mIoU | +2.00 ± 0.00 | 2 | &lt;0.001 |" in text
    assert "With 2 seeds the sign-flip test cannot go below 0.5" in text
    other = summary(records, reference="discs_config, FixedWeights", format="markdown")
    assert "| discs\\_config, Uncertainty | semseg mIoU | -2.00 ± 0.00 |" in other
    assert "Differences" not in summary(records[:1])


@pytest.mark.slow
@pytest.mark.fault(
    "a run of launch killed before its first checkpoint", expected="the same command starts it anew"
)
def test_a_started_folder_without_a_checkpoint_starts_anew(stage):
    run = stage.runs[0]
    run.work_dir.mkdir(parents=True)
    assert start_state(run) == NEW
    (run.work_dir / "config.py").write_text((stage.folder / f"{run.name}.py").read_text())
    assert start_state(run) == NEW
    (run.work_dir / "iter_5.pth").touch()
    assert start_state(run) == RESUMABLE

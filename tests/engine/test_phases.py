"""Phases over one loop: equal to one run where nothing changes, resumable anywhere, refused if wrong."""

from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path

import discs
import pytest
import torch
from mmengine.hooks import Hook

from mtvision.core.naming import ConfigError, ReportedError
from mtvision.engine.training import fit, train
from mtvision.recipe.check import check_config
from mtvision.recipe.config import load_config
from mtvision.recipe.phases.plan import PhaseError, phases_of
from mtvision.runtime.checkpoint import load_checkpoint

SHORT = ("training.iterations=6", "training.checkpoint_interval=2", "training.val_interval=0")
TWO = "[dict(name='one', iterations=3), dict(name='two', iterations=3)]"
MANY = """[
    dict(name="alone", iterations=2, tasks=["semseg"], training=dict(load_from=None)),
    dict(name="probe", iterations=2, training=dict(freeze=["backbone.*"]),
         optimizer=dict(type="SGD", lr=0.1)),
    dict(name="tune", iterations=2, train_data=dict(batch_size=2), balancer=dict(type="Uncertainty")),
]"""


def config_of(folder: Path, phases: str | None = None, *options: str):
    folder.mkdir(parents=True, exist_ok=True)
    text = discs.CONFIG + (f"\nphases = {phases}\n" if phases else "")
    return load_config(discs.write_config(folder, text), [*SHORT, *options])


def run(folder: Path, phases: str | None = None, *options: str, **arguments):
    arguments = {"quiet": True, "resume": "auto", **arguments}
    return fit(config_of(folder.parent, phases, *options), folder, **arguments)


def same(one: Path, two: Path) -> None:
    """The states of two checkpoints are equal to the last bit."""
    first, second = (load_checkpoint(path) for path in (one, two))
    for part in ("state_dict", "optimizer", "param_schedulers", "random_states"):
        assert flat(first[part]).keys() == flat(second[part]).keys()
        for name, value in flat(first[part]).items():
            other = flat(second[part])[name]
            assert torch.equal(value, other) if torch.is_tensor(value) else value == other, name


def flat(value, name=""):
    if isinstance(value, dict):
        return {key: item for part in value for key, item in flat(value[part], f"{name}.{part}").items()}
    if isinstance(value, list | tuple):
        return {key: item for i, part in enumerate(value) for key, item in flat(part, f"{name}.{i}").items()}
    return {name: value}


def rows(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "losses.jsonl").read_text().splitlines()]


class Stop(Hook):
    """Ends the process, or the run, after a step."""

    def __init__(self, step, how):
        self.step, self.how = step, how

    def after_train_iter(self, runner, *_, **__):
        if runner.iter + 1 == self.step:
            self.how()


class StoppedError(Exception):
    pass


def stopped():
    raise StoppedError


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    run(folder)
    return folder


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A run of three phases that differ, which nothing disturbed."""
    folder = tmp_path_factory.mktemp("many") / "run"
    run(folder, MANY)
    return folder


def test_phases_in_which_nothing_changes_are_one_run(whole, tmp_path):
    run(tmp_path / "run", TWO)
    same(whole / "iter_6.pth", tmp_path / "run/iter_6.pth")
    assert rows(whole) == rows(tmp_path / "run")
    assert load_checkpoint(tmp_path / "run/iter_3.pth")["meta"]["phase"]["name"] == "one"
    assert load_checkpoint(tmp_path / "run/iter_6.pth")["meta"]["phase"]["name"] == "two"


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 2, 3, 4, 5])
def test_a_run_stopped_between_or_inside_phases_continues_to_the_same_end(step, many, tmp_path):
    with pytest.raises(StoppedError):
        run(tmp_path / "run", MANY, hooks=[Stop(step, stopped)])
    run(tmp_path / "run", MANY)
    same(many / "iter_6.pth", tmp_path / "run/iter_6.pth")
    assert rows(many) == rows(tmp_path / "run")


@pytest.mark.slow
@pytest.mark.fault("kill -9 at the last step of a phase", expected="the run continues with the next phase")
def test_a_killed_process_continues_with_its_phase(many, tmp_path):
    def child():
        run(tmp_path / "run", MANY, hooks=[Stop(4, lambda: os.kill(os.getpid(), 9))])

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(60)
    assert process.exitcode == -9
    run(tmp_path / "run", MANY)
    same(many / "iter_6.pth", tmp_path / "run/iter_6.pth")


def test_each_phase_trains_what_it_says(many):
    states = [load_checkpoint(many / f"iter_{step}.pth")["state_dict"] for step in (2, 4, 6)]
    backbone = [
        {name: item for name, item in state.items() if name.startswith("network.backbone.")}
        for state in states
    ]
    assert not any("depth" in name for name in states[0])
    assert all(torch.equal(item, backbone[1][name]) for name, item in backbone[0].items())
    assert any(not torch.equal(item, backbone[2][name]) for name, item in backbone[1].items())
    assert any(name.startswith("balancer.") for name in states[2])
    rates = [row["lr"] for row in rows(many)]
    assert rates[2] == 0.1
    assert rates[0] == rates[4] == 0.01  # a new optimizer has a new schedule


def test_the_plan_says_what_continues(tmp_path):
    plan = phases_of(config_of(tmp_path, MANY))
    assert [(item.start, item.end) for item in plan] == [(0, 2), (2, 4), (4, 6)]
    assert [item.schedule for item in plan] == [(0, 2), (2, 4), (4, 6)]
    assert [item.data_from for item in plan] == [0, 2, 4]
    assert [item.same_network for item in plan] == [False, False, True]
    assert plan[1].changed == ("tasks", "optimizer", "training.freeze")
    (only,) = phases_of(config_of(tmp_path))
    assert (only.name, only.end, only.schedule) == ("", 6, (0, 6))


def test_a_balancer_changes_without_a_new_optimizer(tmp_path):
    phases = "[dict(name='a', iterations=3), dict(name='b', iterations=3, balancer=dict(type='Uncertainty'))]"
    run(tmp_path / "run", phases)
    (first, second) = phases_of(config_of(tmp_path, phases))
    assert first.schedule == second.schedule == (0, 6)
    state = load_checkpoint(tmp_path / "run/iter_6.pth")["optimizer"]["state"]
    assert {int(item["step"]) for item in state.values()} == {3, 6}  # its own parameters; the network's
    one_run = [0.01 * (1 - step / 6) ** 0.9 for step in range(6)]
    assert [row["lr"] for row in rows(tmp_path / "run")] == pytest.approx(one_run)


def test_a_fresh_phase_starts_with_new_weights(tmp_path):
    phases = "[dict(name='a', iterations=3), dict(name='b', iterations=3, start='fresh')]"
    run(tmp_path / "run", phases, "optimizer.lr=0.0")
    first, second = (load_checkpoint(tmp_path / f"run/iter_{step}.pth")["state_dict"] for step in (3, 6))
    weights = [name for name in first if name.endswith("weight")]
    assert all(torch.equal(first[name], second[name]) for name in weights)  # of one seed, and never trained
    (_, plan) = phases_of(config_of(tmp_path, phases))
    assert (plan.fresh, plan.schedule, plan.data_from) == (True, (3, 6), 0)


@pytest.mark.slow
@pytest.mark.parametrize("step", [3, 4])
def test_a_phase_begins_with_its_own_weights_also_after_a_stop_just_before_it(step, whole, tmp_path):
    start = f"dict(name='b', iterations=3, training=dict(load_from='{whole / 'iter_4.pth'}'))"
    phases, still = f"[dict(name='a', iterations=3), {start}]", "optimizer.lr=0.0"
    with pytest.raises(StoppedError):
        run(tmp_path / "run", phases, still, hooks=[Stop(step, stopped)])
    run(tmp_path / "run", phases, still)
    wanted, found = (
        load_checkpoint(file)["state_dict"] for file in (whole / "iter_4.pth", tmp_path / "run/iter_6.pth")
    )
    weights = [name for name in found if name.endswith("weight")]
    assert all(torch.equal(found[name], wanted[name]) for name in weights)


def test_the_record_knows_the_phases(tmp_path):
    record = train(config_of(tmp_path, TWO), tmp_path / "run", resume="auto")
    names = [(item["name"], item["iterations"]) for item in record.training["phases"]]
    assert names == [("one", 3), ("two", 3)]
    assert record.training["restarts"] == 0
    assert "phases" in record.config["text"]
    again = train(config_of(tmp_path, TWO), tmp_path / "run", resume="auto")
    assert again.created == record.created


WRONG = {
    "steps": ("[dict(name='a', iterations=2), dict(name='b', iterations=3)]", "2 + 3 = 5 steps"),
    "names": ("[dict(name='a', iterations=3), dict(name='a', iterations=3)]", "two phases are called 'a'"),
    "first": ("[dict(name='a', iterations=6, start='previous')]", "is the first one"),
    "unknown key": ("[dict(name='a', iterations=6, optimiser=dict(lr=1))]", "optimizer"),
    "its section": (
        "[dict(name='a', iterations=3), dict(name='b', iterations=3, optimizer=dict(type='SDG', lr=1.0))]",
        "phases.1.optimizer.type: Unknown optimizer 'SDG'",
    ),
    "its key": ("[dict(name='a', iterations=6, training=dict(frezze=['a']))]", "phases.0.training.frezze"),
    "length": ("[dict(name='a', iterations=6, training=dict(iterations=6))]", "belongs to the whole run"),
    "network": ("[dict(name='a', iterations=6, tasks=['depth'])]", "What is scored is"),
    "task": (
        "[dict(name='a', iterations=3, tasks=['deth']), dict(name='b', iterations=3)]",
        "phases.0",
    ),
    "kind": ("[dict(name='a', iterations='six')]", "phases.0.iterations"),
    "both": (
        "[dict(name='a', iterations=3), dict(name='b', iterations=3, start='previous', "
        "training=dict(load_from='x.pth'))]",
        "use one",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_list_is_refused_before_the_first_step(case, tmp_path):
    phases, words = WRONG[case]
    with pytest.raises((ReportedError, ConfigError, ValueError, TypeError)) as caught:
        check_config(config_of(tmp_path, phases))
    assert words in str(caught.value)
    assert "phases" in str(caught.value)


BROKEN = {
    "glob": ("training=dict(freeze=['neck.*'])", "'neck.*'"),
    "data": ("train_data=dict(dataset=dict(type='FolderDataset', root='nowhere'))", "FolderDataset"),
    "start": ("training=dict(load_from='no.pth')", "no.pth does not exist"),
    "rates": ("optimizer=dict(type='AdamW', lr=0.1, lr_factors={'neck.*': 2})", "lr_factors names 'neck"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_later_phase_that_cannot_be_built_stops_the_run_before_the_first_step(case, tmp_path):
    changed, words = BROKEN[case]
    phases = f"[dict(name='a', iterations=3), dict(name='b', iterations=3, {changed})]"
    with pytest.raises(Exception, match=words.replace("*", r"\*")):
        run(tmp_path / "run", phases)
    assert not list((tmp_path / "run").glob("iter_*"))
    assert not (tmp_path / "run/losses.jsonl").exists()


def test_checkpoints_of_other_phases_are_refused(whole, many, tmp_path):
    with pytest.raises(PhaseError, match="run without phases"):
        run(tmp_path / "a", TWO, resume=str(whole / "iter_4.pth"))
    with pytest.raises(PhaseError, match="in phase 'probe'"):
        run(tmp_path / "b", resume=str(many / "iter_4.pth"))
    other = MANY.replace("probe", "head")
    with pytest.raises(PhaseError, match="in phase 'probe'"):
        run(tmp_path / "c", other, resume=str(many / "iter_4.pth"))

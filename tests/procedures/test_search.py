"""The search command: trains what it needs, holds images out, resumes, writes plain data."""

from __future__ import annotations

import json

import discs
import pytest

from mtvision.cli.main import call
from mtvision.core.random import is_held_out
from mtvision.core.registry import SEARCHERS
from mtvision.procedures.search import _training_part
from mtvision.search import Searcher

SEARCH = "search = dict(type='Probe', held_out=0.5)\n"


@SEARCHERS.register_module()
class Probe(Searcher):
    """Reports what it was given."""

    def __init__(self, *, fail=False):
        self.fail = fail

    def search(self, problem):
        if self.fail:
            raise ValueError("nothing fits")
        ids = [name for batch in problem.held_out() for name in batch.ids]
        return {
            "ids": ids,
            "scores": problem.evaluate(None),
            "losses": problem.losses(None),
            "asked": dict(problem.options),
            "others": sorted(problem.others),
        }


@SEARCHERS.register_module()
class SingleProbe(Probe):
    """Compares single-task networks."""

    compares_single_tasks = True


def write(folder, text=SEARCH):
    return discs.write_config(folder, discs.CONFIG + text)


def run(config, *arguments):
    return call("search", [str(config), "--work-dir", str(config.parent / "work"), *arguments])


SHORT = [
    "--cfg-options",
    "training.iterations=4",
    "training.checkpoint_interval=2",
    "training.val_interval=0",
]


def test_share_of_ids_is_as_asked_nested_and_independent_of_order():
    ids = [f"image-{index}" for index in range(4000)]
    fifth = {name for name in ids if is_held_out(name)}
    assert abs(len(fifth) / len(ids) - 0.2) < 0.02
    assert fifth < {name for name in ids if is_held_out(name, 0.5)}
    assert not any(is_held_out(name, 0.0) for name in ids)
    assert all(is_held_out(name, 1.0) for name in ids)
    with pytest.raises(ValueError, match="share"):
        is_held_out("a", 1.5)


def test_search_trains_on_the_rest_and_judges_the_held_out_images(tmp_path):
    config = write(tmp_path)
    assert run(config, *SHORT, "--budget", "3", "--preference", "semseg=1,depth=2") == 0
    found = json.loads((tmp_path / "work" / "architecture.json").read_text())
    expected = [f"disc-{index}" for index in range(12) if is_held_out(f"disc-{index}", 0.5)]
    assert found["ids"] == expected
    assert found["asked"] == {"budget": 3.0, "preference": {"semseg": 1.0, "depth": 2.0}}
    assert found["search"]["held_out"] == {"share": 0.5, "images": len(expected)}
    assert set(found["scores"]) == set(found["losses"]) == {"semseg", "depth"}
    assert found["format"] == "mtvision-architecture-1"
    assert not (tmp_path / "work" / "training" / "record.json").exists()  # nothing was scored on a test split
    assert run(config, *SHORT) == 2  # an earlier search lies there
    before = (tmp_path / "work" / "training" / "iter_4.pth").stat().st_mtime_ns
    assert run(config, *SHORT, "--resume") == 0
    assert (tmp_path / "work" / "training" / "iter_4.pth").stat().st_mtime_ns == before
    again = json.loads((tmp_path / "work" / "architecture.json").read_text())
    assert again["scores"] == found["scores"]


def test_search_of_a_given_checkpoint_trains_nothing(tmp_path):
    config = write(tmp_path)
    assert run(config, *SHORT) == 0
    checkpoint = tmp_path / "work" / "training" / "iter_4.pth"
    out = tmp_path / "found.json"
    assert run(config, str(checkpoint), "--out", str(out), "--others", f"twin={checkpoint}") == 0
    found = json.loads(out.read_text())
    assert found["others"] == ["twin"]
    assert found["losses"] == json.loads((tmp_path / "work" / "architecture.json").read_text())["losses"]
    assert sorted(found["search"]["checkpoints"]) == ["network", "twin"]


def test_single_task_networks_are_trained_where_a_searcher_compares_them(tmp_path):
    config = write(tmp_path, "search = dict(type='SingleProbe', held_out=0.5)\n")
    assert run(config, *SHORT) == 0
    found = json.loads((tmp_path / "work" / "architecture.json").read_text())
    assert found["others"] == ["depth", "semseg"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "config: 'search' is missing"),
        ("search = dict(type='Prob')\n", "Probe"),
        (
            "search = dict(type='Probe', held_out=2)\n",
            "search.held_out must be a number between 0 and 1, got 2",
        ),
        ("search = dict(type='Probe', fail=True)\n", "nothing fits"),
        ("search = dict(type='Probe', held_out=0.0)\n", "another share"),
    ],
)
def test_mistakes_get_one_message_and_leave_no_file(tmp_path, capsys, text, message):
    config = write(tmp_path, text)
    assert run(config, *SHORT) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "work" / "architecture.json").exists()


@pytest.mark.parametrize(("step", "share"), [(0.2, 0.5), (0.5, 0.2)])
def test_step_and_search_hold_out_the_same_images(step, share):
    config = {"step": {"type": "SearchStep", "held_out": step}}
    with pytest.raises(ValueError, match=f"step.held_out is {step} but search.held_out {share}"):
        _training_part(config, share)
    assert _training_part(config, step) is None, "the step reads both parts itself"


def test_training_images_are_those_not_held_out():
    plain = {"step": {"type": "PlainStep"}}
    assert _training_part(plain, 0.0) is None
    trained = _training_part(plain, 0.3)
    names = [f"image-{number}" for number in range(50)]
    assert [name for name in names if trained(name)] == [name for name in names if not is_held_out(name, 0.3)]

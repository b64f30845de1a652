"""A phase that searches: the next phase is built from its tree, also after a kill, and that is scored."""

from __future__ import annotations

import json
from pathlib import Path

import discs
import pytest
from mmengine.hooks import Hook

from mtvision.architecture.tree import Tree
from mtvision.core.naming import ReportedError
from mtvision.engine.training import fit, train
from mtvision.models.branching.encoder import BranchedEncoder
from mtvision.recipe.building import trained_network
from mtvision.recipe.check import check_config
from mtvision.recipe.config import load_config
from mtvision.recipe.phases.found import filled, phases_asked
from mtvision.recipe.phases.plan import phases_of
from mtvision.recipe.settings import protocol_of
from mtvision.runtime.checkpoint import load_checkpoint

PHASES = """
SUPERNET = dict(
    type="BranchingSearch", cuts="blocks", copies=[1, 2, 2], iterations=3, warmup=0, image_size=(32, 32)
)
search = dict(type="LTBSearcher")
phases = [
    dict(
        name="search", iterations=3, model={**model, "adapters": [SUPERNET]},
        step=dict(type="SearchStep", held_out=0.4),
        optimizer=dict(type="AdamW", lr=1e-2, architecture_lr=0.5),
    ),
    dict(name="retrain", iterations=2, start="fresh"),
]
model["adapters"] = [dict(type="Branched", tree=dict(of_phase="search"))]
training.update(iterations=5, checkpoint_interval=5, val_interval=0, first_look=0)
"""


def config_of(folder: Path, *changes: tuple[str, str]):
    text = discs.CONFIG + PHASES
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    folder.mkdir(parents=True, exist_ok=True)
    return load_config(discs.write_config(folder, text))


def groups(tree):
    """Groups of tasks per level; their order does not matter."""
    return [{frozenset(group) for group in level} for level in tree.levels]


class Stop(Hook):
    """Ends a run after a step."""

    def __init__(self, step):
        self.step = step

    def after_train_iter(self, runner, *_, **__):
        if runner.iter + 1 == self.step:
            raise StoppedError


class StoppedError(Exception):
    pass


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    return train(config_of(folder), folder / "run"), folder / "run"


@pytest.mark.slow
def test_the_second_phase_trains_the_tree_that_the_first_one_found(whole):
    record, folder = whole
    found = json.loads((folder / "architecture_search.json").read_text())
    assert (found["searcher"], found["phase"]) == ("LTBSearcher", "search")
    tree = Tree.from_plain(found)
    meta = load_checkpoint(folder / "iter_5.pth")["meta"]
    assert meta["architecture"]["adapters"] == [{"type": "Branched", "tree": tree.to_plain()}]
    assert load_checkpoint(folder / "iter_3.pth")["meta"]["architecture"]["adapters"][0]["type"] == (
        "BranchingSearch"
    )
    assert [item["name"] for item in record.training["phases"]] == ["search", "retrain"]
    assert set(record.scores) == {"semseg", "depth"}
    config = load_config(folder / "config.py")
    filled_in = filled(config, {"search": found["tree"]})
    network, _ = trained_network(filled_in, protocol_of(config), folder / "iter_5.pth")
    assert isinstance(network.backbone, BranchedEncoder)
    assert groups(network.backbone.tree) == groups(tree)


@pytest.mark.slow
@pytest.mark.parametrize(
    "lost", [True, False], ids=["killed before the tree was written", "in the next phase"]
)
def test_a_run_that_was_stopped_continues_with_its_tree(whole, lost, tmp_path):
    config = config_of(tmp_path)
    with pytest.raises(StoppedError):
        fit(config, tmp_path / "run", quiet=True, hooks=[Stop(4)])
    file = tmp_path / "run/architecture_search.json"
    kept = json.loads(file.read_text())
    if lost:
        file.unlink()
    fit(config, tmp_path / "run", quiet=True, resume="auto")
    assert json.loads(file.read_text())["tree"] == kept["tree"]
    states = [load_checkpoint(path / "iter_5.pth")["state_dict"] for path in (whole[1], tmp_path / "run")]
    assert all((states[0][name] == item).all() for name, item in states[1].items())


WRONG = {
    "later phase": (('of_phase="search"', 'of_phase="seek"'), "result of phase 'seek'"),
    "no searcher": (('search = dict(type="LTBSearcher")', ""), "Name its searcher"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_network_that_no_earlier_phase_finds_is_refused(case, tmp_path):
    change, words = WRONG[case]
    with pytest.raises((ReportedError, ValueError), match=words):
        check_config(config_of(tmp_path, change))


def test_the_plan_has_the_place_of_the_result(tmp_path):
    config = config_of(tmp_path)
    assert phases_asked(config["model"]) == {"search"}
    assert [phases_asked(dict(phase.options).get("model", {})) for phase in phases_of(config)] == [
        set(),
        set(),
    ]
    with pytest.raises(ValueError, match="result of phase 'search', and no such phase has run"):
        filled(config, {})

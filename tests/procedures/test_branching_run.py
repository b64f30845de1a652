"""Search to architecture.json to an ordinary training run; and a search that is killed and resumed."""

from __future__ import annotations

import json
import shutil
import time

import discs
import pytest
from several_processes import begin, tool

from mtvision.architecture.tree import Tree
from mtvision.cli.main import call

SUPERNET = """
step = dict(type="SearchStep", held_out=0.4)
search = dict(type="{searcher}", held_out=0.4)
optimizer["architecture_lr"] = 0.1
training.update(iterations=8, checkpoint_interval=2, val_interval=0, keep_checkpoints=9)
"""


def supernet_config(folder, mixing="straight_through", searcher="LTBSearcher"):
    adapter = (
        f"adapters=[dict(type='BranchingSearch', mixing='{mixing}', cuts='blocks', copies=[1, 2, 2], "
        "iterations=8, warmup=2, cost_weight=1.0, image_size=(32, 32))],\n    decoder="
    )
    text = discs.CONFIG.replace("decoder=", adapter, 1) + SUPERNET.format(searcher=searcher)
    folder.mkdir(exist_ok=True, parents=True)
    return discs.write_config(folder, text)


def found_in(folder):
    return json.loads((folder / "architecture.json").read_text())


@pytest.mark.conformance("BranchingSearch", "resume")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("mixing", "searcher"), [("straight_through", "LTBSearcher"), ("streams", "BMTASSearcher")]
)
def test_a_killed_search_resumes_to_the_same_result(tmp_path, mixing, searcher):
    config, work = supernet_config(tmp_path, mixing, searcher), tmp_path / "work"
    assert call("search", [str(config), "--work-dir", str(work)]) == 0
    whole = found_in(work)
    killed = tmp_path / "killed"
    shutil.copytree(work, killed)
    (killed / "architecture.json").unlink()
    for iteration in (6, 8):
        (killed / "training" / f"iter_{iteration}.pth").unlink()
    assert call("search", [str(config), "--work-dir", str(killed), "--resume"]) == 0
    again = found_in(killed)
    assert again["log"] == whole["log"]
    assert again["tree"] == whole["tree"]
    assert whole["log"]["passes"] == 8
    moved = [abs(row[0] - row[1]) for table in whole["log"]["probabilities"][1:] for row in table]
    assert max(moved) > 0  # the logits were trained
    assert (work / "architecture.tree.png").is_file()
    assert (work / "architecture.affinity.png").is_file()


@pytest.mark.long
def test_a_search_goes_on_after_sigkill(tmp_path):
    config, work = supernet_config(tmp_path), tmp_path / "killed"
    arguments = ["search", config, "--work-dir"]
    steps = ["--cfg-options", "training.iterations=80", "model.adapters.0.iterations=80"]
    running = begin(*arguments, work, *steps)
    deadline = time.monotonic() + 240
    while not list((work / "training").glob("iter_*.pth")) and time.monotonic() < deadline:
        time.sleep(0.005)
    running.kill()
    running.join()
    assert list((work / "training").glob("iter_*.pth"))
    assert not (work / "architecture.json").exists()
    tool(1, *arguments, work, "--resume", *steps)
    tool(1, *arguments, tmp_path / "whole", *steps)
    for key in ("tree", "cost", "affinities", "log", "scores"):
        assert found_in(work)[key] == found_in(tmp_path / "whole")[key]


@pytest.mark.slow
def test_the_found_tree_is_an_ordinary_config(tmp_path):
    config, work = supernet_config(tmp_path / "search"), tmp_path / "work"
    assert call("search", [str(config), "--work-dir", str(work)]) == 0
    file = work / "architecture.json"
    plain = Tree.load(file)
    text = discs.CONFIG.replace(
        "decoder=", f"adapters=[dict(type='Branched', tree='{file}')],\n    decoder=", 1
    )
    retrain = discs.write_config(tmp_path, text)
    options = [
        "--cfg-options",
        "training.iterations=4",
        "training.val_interval=0",
        "optimizer.layer_decay=0.9",
    ]
    assert call("train", [str(retrain), "--work-dir", str(tmp_path / "run"), *options]) == 0
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    shared, tree = found_in(work)["cost"]["shared"], found_in(work)["cost"]
    assert tree["parameters"] == plain.cost(tree["per_level"]["parameters"]) >= shared["parameters"]
    assert record["cost"]["parameters"]["parts"]["backbone"] == tree["parameters"]
    assert record["cost"]["macs"]["parts"]["backbone"] == tree["macs"]


def test_rsa_and_grouping_from_the_command_line(tmp_path):
    text = (
        discs.CONFIG + "search = dict(type='RSASearcher', cuts='blocks', image_size=(32, 32), held_out=0.6)\n"
    )
    config = discs.write_config(tmp_path, text)
    options = ["--cfg-options", "training.iterations=2", "training.val_interval=0"]
    work = tmp_path / "rsa"
    assert call("search", [str(config), "--work-dir", str(work), "--budget", "1.7", *options]) == 0
    found = found_in(work)
    assert Tree.load(work / "architecture.json").levels[-1] == (("semseg",), ("depth",))
    assert found["cost"]["parameters"] <= 1.7 * found["cost"]["shared"]["parameters"]
    for affinity in ("gradient", "lookahead"):
        section = f"search = dict(type='GroupingSearcher', affinity='{affinity}', held_out=0.6)\n"
        config = discs.write_config(tmp_path, discs.CONFIG + section)
        work = tmp_path / affinity
        assert call("search", [str(config), "--work-dir", str(work), "--budget", "1", *options]) == 0
        found = found_in(work)
        assert found["groups"] == [["semseg", "depth"]]
        matrix = found["affinities"]["mean"]
        if affinity == "gradient":
            assert matrix[0][0] == pytest.approx(1, abs=1e-5)
            assert matrix[0][1] == pytest.approx(matrix[1][0])
        else:
            assert min(matrix[0][0], matrix[1][1]) > 0  # a step on a task lowers its own loss


def test_a_searcher_without_a_supernet_says_what_it_needs(tmp_path, capsys):
    config = discs.write_config(tmp_path, discs.CONFIG + "search = dict(type='LTBSearcher', held_out=0.4)\n")
    options = ["--cfg-options", "training.iterations=2", "training.val_interval=0"]
    assert call("search", [str(config), "--work-dir", str(tmp_path / "work"), *options]) == 2
    assert "BranchingSearch" in capsys.readouterr().err

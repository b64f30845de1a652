"""`mtvision compare-runs` on a small repository whose "training" takes milliseconds, and its comparisons."""

from __future__ import annotations

import json
import subprocess

import pytest

from mtvision.cli.compare_runs import DONE_FILE
from mtvision.cli.main import call
from mtvision.cli.run_differences import compare_folders, first_difference

TRAIN = """
import argparse, json, os, pathlib
parser = argparse.ArgumentParser()
parser.add_argument("config")
parser.add_argument("--work-dir", type=pathlib.Path)
parser.add_argument("--overwrite", action="store_true")
parser.add_argument("--budget", type=int, default=0)
parser.add_argument("--cfg-options", nargs="+")
given = parser.parse_args()
options = dict(item.split("=") for item in given.cfg_options)
if "broken" in pathlib.Path(given.config).name:
    raise SystemExit("mtvision train: this revision cannot")
pathlib.Path("count").open("a").write(".")
rate = float(options.get("optimizer.lr", {rate}))
steps = range(1, 1 + int(options["training.iterations"]))
losses = [{"iter": i, "loss/depth": 1 / (1 + rate * (i >= 3) * i)} for i in steps]
(given.work_dir / "losses.jsonl").write_text("".join(json.dumps(line) + "\\n" for line in losses))
(given.work_dir / "iter_2.pth").write_bytes(b"large")
scores = {"depth": {"rmse": losses[-1]["loss/depth"] + given.budget, "log_rmse": float("nan")}}
(given.work_dir / "record.json").write_text(json.dumps({"scores": scores, "hours": os.getpid()}))
"""
HEADER = '"""A config.\n\n    python tools/train.py configs/a/{}.py --budget 2\n"""\n\nseed = 0\n'


def git(folder, *arguments):
    identity = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.org"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


def write_code(folder, rate):
    (folder / "tools/train.py").write_text(TRAIN.replace("{rate}", str(rate)))


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """Tags: `first`, `same` (another text only), `other` (another learning rate from step 3 on)."""
    folder = tmp_path / "repository"
    for name in ("tools", "configs/a"):
        (folder / name).mkdir(parents=True)
    (folder / "configs/a/one_tiny_synthetic_1xb8_300.py").write_text(HEADER.format("one_tiny"))
    git(folder.parent, "init", str(folder))
    for tag, rate in (("first", 0.5), ("same", 0.5), ("other", 0.25)):
        write_code(folder, rate)
        (folder / "README").write_text(tag)
        git(folder, "add", ".")
        git(folder, "commit", "-m", tag)
        git(folder, "tag", tag)
    monkeypatch.chdir(folder)
    return folder


def test_identical_revisions_give_zero(repository, tmp_path, capsys):
    out = tmp_path / "out.json"
    assert call("compare-runs", ["first", "same", "--iterations", "5", "--json", str(out)]) == 0
    told = capsys.readouterr().out
    assert "identical  configs/a/one_tiny_synthetic_1xb8_300.py: 5 values of losses, 2 scores" in told
    assert "1 of 1 configs identical" in told
    (entry,) = json.loads(out.read_text())["configs"]
    assert entry["identical"] is True
    listed = subprocess.run(["git", "worktree", "list"], capture_output=True, text=True, check=True).stdout
    assert len(listed.splitlines()) == 1


def test_the_first_difference_is_named(repository, tmp_path, capsys):
    out = tmp_path / "out.json"
    assert call("compare-runs", ["first", "other", "--json", str(out)]) == 1
    assert "losses.jsonl: step 3, loss/depth: 0.4 against 0.5714285714285714 (relative difference 0.3)" in (
        capsys.readouterr().out
    )
    loss, score = json.loads(out.read_text())["configs"][0]["differences"]
    assert (loss["step"], loss["a"]) == (3, 0.4)
    assert (score["name"], score["a"]) == ("depth.rmse", 2 + 1 / 11)  # --budget 2 of the header was passed on


def test_options_of_one_side_and_of_both(repository):
    assert call("compare-runs", ["first", "other", "--cfg-options", "optimizer.lr=1"]) == 0
    assert call("compare-runs", ["first", "other", "--cfg-options-b", "optimizer.lr=0.5"]) == 0
    assert call("compare-runs", ["first", "same", "--cfg-options-a", "optimizer.lr=1"]) == 1


def test_the_working_tree_is_compared_as_it_lies_there(repository):
    assert call("compare-runs", ["other", "."]) == 0
    write_code(repository, 0.75)
    assert call("compare-runs", ["other", "."]) == 1
    assert not (repository / "count").exists()  # runs happen in a copy


def test_a_renamed_config_and_one_that_fails(repository, capsys):
    one = repository / "configs/a/one_tiny_synthetic_1xb8_300.py"
    git(repository, "mv", str(one), str(one.with_name("two.py")))
    (repository / "configs/a/broken.py").write_text(HEADER.format("broken"))
    git(repository, "add", ".")
    pair = f"configs/a/{one.name}=configs/a/two.py"
    assert call("compare-runs", ["other", ".", pair]) == 0
    capsys.readouterr()
    assert call("compare-runs", ["other", ".", "configs/a/broken.py", pair]) == 1
    told = capsys.readouterr().out
    assert "revision a: there is no configs/a/broken.py" in told
    assert "revision b: exit code 1: mtvision train: this revision cannot" in told
    assert "1 of 2 configs identical" in told  # the second one ran all the same


def test_kept_runs_are_not_repeated(repository, tmp_path):
    keep = tmp_path / "keep"
    arguments = ["first", "same", "--keep", str(keep)]
    assert call("compare-runs", arguments) == 0
    assert not list(keep.rglob("*.pth"))
    done, other = keep.rglob(DONE_FILE)
    (done.parent / "losses.jsonl").write_text('{"iter": 1, "loss/depth": 7.0}\n')
    assert call("compare-runs", arguments) == 1
    assert json.loads((done.parent / "losses.jsonl").read_text())["loss/depth"] == 7.0
    done.unlink()  # as after a kill
    assert call("compare-runs", arguments) == 0
    assert (done.parent / "losses.jsonl").read_text() == (other.parent / "losses.jsonl").read_text()
    assert call("compare-runs", [*arguments, "--iterations", "3"]) == 0
    assert len(list(keep.rglob(DONE_FILE))) == 4


def test_mistakes(repository, capsys):
    assert call("compare-runs", ["nowhere", "."]) == 2
    assert "nowhere" in capsys.readouterr().err
    assert call("compare-runs", ["first", ".", "configs/none.py"]) == 2
    assert "neither revision has it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ({1: {"x": float("nan")}}, {1: {"x": float("nan")}}, True),
        ({1: {"x": 0.0}}, {1: {"x": -0.0}}, False),
        ({1: {"x": 0.1 + 0.2}}, {1: {"x": 0.3}}, False),
        ({1: {"x": 1.0}}, {1: {"x": 1.0, "y": 2.0}}, False),
        ({1: {"x": 1.0}}, {1: {"x": 1.0}, 2: {"x": 1.0}}, False),
    ],
)
def test_last_bit(a, b, same):
    assert (first_difference("losses.jsonl", a, b) is None) == same


def test_searches_are_compared_without_their_clocks(tmp_path):
    for name, seconds, groups in (("a", 1.0, [["depth"]]), ("b", 2.0, [["depth"]]), ("c", 1.0, [["edge"]])):
        (tmp_path / name / "training").mkdir(parents=True)
        (tmp_path / name / "training/losses.jsonl").write_text('{"iter": 1, "total": 1.0}\n')
        found = {"groups": groups, "search": {"seconds": seconds}}
        (tmp_path / name / "architecture.json").write_text(json.dumps(found))
    assert compare_folders("x", tmp_path / "a", tmp_path / "b").identical
    (difference,) = compare_folders("x", tmp_path / "a", tmp_path / "c").differences
    assert str(difference) == "architecture.json: groups.0.0: 'depth' against 'edge'"


def test_runs_without_losses_are_not_identical(tmp_path):
    result = compare_folders("x", tmp_path, tmp_path)
    assert not result.identical
    assert "neither run wrote a loss" in str(result)

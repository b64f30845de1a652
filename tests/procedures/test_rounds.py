"""Rounds of training and merging: ATM is joint SGD at one step, ForkMerge leaves out what harms."""

from __future__ import annotations

import json
import re

import discs
import pytest
import torch

from mtvision.cli.procedures.rounds import main
from mtvision.core.naming import UnknownNameError
from mtvision.procedures.rounds.loop import alternate, fork_merge, merge_branches
from mtvision.procedures.rounds.run import RoundsRequest, run_rounds
from mtvision.recipe.config import load_config
from mtvision.runtime.checkpoint import load_checkpoint

TASKS = ("a", "b", "c")


def data(seed: int, images: int = 40):
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(images, 6, generator=rng, dtype=torch.float64)
    return x, torch.randn(images, 2, generator=rng, dtype=torch.float64)


def descend(state, x, y, steps, lr=0.05):
    """SGD on the squared error of a linear map."""
    weight = state["w"].clone()
    for _ in range(steps):
        weight = weight - lr * (2 / len(x)) * (x @ weight - y).T.matmul(x).T
    return {"w": weight}


START = {"w": torch.zeros(6, 2, dtype=torch.float64)}


def test_atm_with_one_step_is_joint_sgd():
    sets = {name: data(index) for index, name in enumerate(TASKS)}
    found = alternate(START, TASKS, lambda name, state, _: descend(state, *sets[name], 1), 7)
    joint = START["w"]
    for _ in range(7):
        gradients = [(2 / len(x)) * (x @ joint - y).T.matmul(x).T for x, y in sets.values()]
        joint = joint - 0.05 * torch.stack(gradients).mean(dim=0)
    assert torch.allclose(found["w"], joint, atol=1e-14)
    more = alternate(START, TASKS, lambda name, state, _: descend(state, *sets[name], 5), 7)
    assert not torch.allclose(more["w"], joint, atol=1e-3)


def test_atm_with_alpha_1_is_the_loop_of_cold_fusion():
    sets = {name: data(index) for index, name in enumerate(TASKS)}

    def tune(name, state, _):
        return descend(state, *sets[name], 3)

    one, two = alternate(START, TASKS, tune, 4), alternate(START, TASKS, tune, 4, method="average")
    assert torch.allclose(one["w"], two["w"], atol=1e-14)
    half = alternate(START, TASKS, tune, 1, options={"scale": 0.5 / 3})
    assert torch.allclose(half["w"], alternate(START, TASKS, tune, 1)["w"] / 2, atol=1e-14)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_forkmerge_gives_a_harmful_auxiliary_the_coefficient_0(seed):
    rng = torch.Generator().manual_seed(seed)
    truth = torch.randn(6, 2, generator=rng, dtype=torch.float64)

    def labelled(images):
        x = torch.randn(images, 6, generator=rng, dtype=torch.float64)
        return x, x @ truth + 0.3 * torch.randn(images, 2, generator=rng, dtype=torch.float64)

    target, related, held_out = labelled(12), labelled(200), labelled(200)
    x, y = labelled(200)
    shuffled = x, y[torch.randperm(len(y), generator=rng)]
    branches = {"alone": [target], "related": [target, related], "shuffled": [target, shuffled]}

    def tune(name, state, _):
        for _ in range(60):  # the mean of the losses of the branch
            steps = [descend(state, *item, 1)["w"] for item in branches[name]]
            state = {"w": torch.stack(steps).mean(dim=0)}
        return state

    def score(state):
        return -float((held_out[0] @ state["w"] - held_out[1]).square().mean())

    for found in fork_merge(START, list(branches), tune, score, 3):
        assert found.coefficients["shuffled"] == 0.0
        assert sum(found.coefficients.values()) == pytest.approx(1)
    first = fork_merge(START, list(branches), tune, score, 1)[0]
    assert first.coefficients["related"] > 0
    assert first.score >= score(tune("alone", START, 0))


def test_a_branch_that_changes_nothing_has_no_coefficient():
    state = {"w": torch.ones(2)}
    found = merge_branches({"alone": state, "copy": state}, lambda item: 0.0)
    assert found.coefficients == {"alone": 1.0, "copy": 0.0}
    assert torch.equal(found.state["w"], state["w"])


def config_of(folder):
    options = ["training.iterations=2", "training.val_interval=0", "training.first_look=0"]
    return load_config(discs.write_config(folder), options)


@pytest.mark.slow
def test_rounds_of_runs_continue_and_merge(tmp_path):
    config = config_of(tmp_path)
    options = {"work_dir": tmp_path / "out", "method": "average", "images": 4}
    run_rounds(config, RoundsRequest(rounds=1, **options))
    first = (tmp_path / "out/round_1/merged.pth").stat().st_mtime_ns
    found = run_rounds(config, RoundsRequest(rounds=2, **options))
    assert (tmp_path / "out/round_1/merged.pth").stat().st_mtime_ns == first
    assert found["best"] == "round_2/merged.pth"
    assert json.loads((tmp_path / "out/rounds.json").read_text()) == found
    folder = tmp_path / "out/round_2"
    copies = [load_checkpoint(folder / f"{task}/iter_2.pth")["state_dict"] for task in ("semseg", "depth")]
    merged = load_checkpoint(folder / "merged.pth")["state_dict"]
    name = "network.backbone.stage0.0.weight"
    assert torch.allclose(merged[name], (copies[0][name] + copies[1][name]) / 2, atol=1e-7)
    heads = [key for key in merged if "heads.depth" in key]
    assert heads
    assert all(torch.equal(merged[key], copies[1][key]) for key in heads)


def test_mistakes_are_found_before_the_first_training(tmp_path):
    config = config_of(tmp_path)
    for options, problem in (
        ({"method": "nosuch"}, "nosuch"),
        ({"method": "ties", "options": {"densty": 0.2}}, "densty"),
        ({"method": "ties", "options": {"density": 2}}, "density must be"),
    ):
        with pytest.raises((UnknownNameError, ValueError), match=problem):
            run_rounds(config, RoundsRequest(work_dir=tmp_path / "out", **options))
    assert not (tmp_path / "out").exists()


def test_a_work_dir_is_continued_the_way_it_was_begun(tmp_path, monkeypatch):
    merged = []
    monkeypatch.setattr("mtvision.procedures.rounds.run._start", lambda config, request: tmp_path)
    monkeypatch.setattr(
        "mtvision.procedures.rounds.run._merged_tasks", lambda *given: merged.append(given[3]) or {}
    )
    config, folder = config_of(tmp_path), tmp_path / "out"
    run_rounds(config, RoundsRequest(work_dir=folder, rounds=1))
    run_rounds(config, RoundsRequest(work_dir=folder, rounds=3))  # more rounds are no other way
    for other, changed in (
        (RoundsRequest(work_dir=folder, method="ties"), "method='average', not 'ties'"),
        (
            RoundsRequest(work_dir=folder, options={"weights": {"semseg": 2.0, "depth": 1.0}}),
            r"options={}, not {'weights'",
        ),
        (RoundsRequest(work_dir=folder, held_out=0.3), "held_out=0.2, not 0.3"),
        (RoundsRequest(work_dir=folder, target="depth"), "method='average', not 'ForkMerge', target=None"),
    ):
        with pytest.raises(FileExistsError, match=f"out: begun with {changed}.*Choose another --work-dir"):
            run_rounds(config, other)
    with pytest.raises(FileExistsError, match="config='"):
        run_rounds(config.with_options({"optimizer.lr": 0.5}), RoundsRequest(work_dir=folder))
    assert len(merged) == 4


@pytest.mark.parametrize(
    "words", ["--structure .5 --target a", "--structure .5 --method ties", "--target a --option b=1"]
)
def test_options_that_a_procedure_does_not_read_are_refused(words, capsys):
    with pytest.raises(SystemExit):
        main(["c.py", *words.split()])
    assert re.search(
        "are two procedures|is not read with --(structure|target); leave it out", capsys.readouterr().err
    )


@pytest.mark.slow
def test_forks_of_runs_choose_on_held_out_images(tmp_path):
    config = config_of(tmp_path)
    request = RoundsRequest(work_dir=tmp_path / "out", rounds=1, target="depth", held_out=0.4)
    found = run_rounds(config, request)
    (entry,) = found["rounds"]
    assert set(entry["coefficients"]) == {"alone", "semseg"}
    assert entry["score"] >= 0
    assert run_rounds(config, request) == found
    with pytest.raises(UnknownNameError, match="edge"):
        run_rounds(config, RoundsRequest(work_dir=tmp_path, target="edge"))

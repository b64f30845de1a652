"""What a resumed run does differently is said line by line, refused where it must be, and recorded."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import data_problems as problems
import discs
import pytest
import torch

from mtvision.engine.optimization.optimizer import regrouped
from mtvision.engine.training import fit
from mtvision.recipe.config import load_config
from mtvision.recipe.differences import ResumeError, differences, in_words, plain_options
from mtvision.recipe.settings import to_plain_data
from mtvision.runtime.checkpoint import CheckpointError, load_checkpoint, save_checkpoint

SHORT = ["training.iterations=3", "training.val_interval=0", "training.checkpoint_interval=0"]
LONGER = "training.iterations=5"


def run(folder: Path, *options: str, name: str = "run", **arguments):
    return fit(load_config(discs.write_config(folder), [*SHORT, *options]), folder / name, **arguments)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of three iterations."""
    folder = tmp_path_factory.mktemp("trained")
    run(folder)
    return folder / "run/iter_3.pth"


def resumed(checkpoint: Path, folder: Path, *options: str):
    return run(folder, LONGER, *options, resume=str(checkpoint))


def said(caplog) -> str:
    return "\n".join(item.getMessage() for item in caplog.records if item.name == "mtvision")


REFUSED = {
    "optimizer": (["optimizer.type=SGD"], "optimizer.type: AdamW → SGD (its state is of another kind)"),
    "balancer": (["balancer.type=Uncertainty"], "balancer.type: FixedWeights → Uncertainty"),
    "tasks": (["tasks=['depth']"], "tasks: ['semseg', 'depth'] → ['depth'] (the network has other heads)"),
    "frozen parts": (
        ["training.freeze=['backbone.stage0.*']"],
        "training.freeze: [] → ['backbone.stage0.*'] (the optimizer has the state of other parameters)",
    ),
}


@pytest.mark.fault("resumed with a config that cannot continue it", expected="refused; the key is named")
@pytest.mark.parametrize("case", REFUSED)
@problems.RESUME_REFUSED
def test_what_a_run_cannot_change_is_refused_by_name(case, trained, tmp_path):
    options, line = REFUSED[case]
    with pytest.raises(ResumeError, match="cannot be continued with this config") as caught:
        resumed(trained, tmp_path, *options)
    assert line in str(caught.value)
    assert "training.load_from" in str(caught.value)


@pytest.mark.slow
def test_a_refused_config_does_not_replace_that_of_the_run(tmp_path):
    run(tmp_path)
    own = (tmp_path / "run/config.py").read_text()
    with pytest.raises(ResumeError):
        run(tmp_path, "optimizer.type=SGD", resume="auto")
    assert (tmp_path / "run/config.py").read_text() == own
    run(tmp_path, "optimizer.lr=0.5", resume="auto")
    assert "lr=0.5" in (tmp_path / "run/config.py").read_text()


@problems.RESUME_REFUSED
@pytest.mark.fault("resumed with a config that cannot continue it", expected="refused; the key is named")
def test_another_architecture_is_refused_with_its_difference(trained, tmp_path):
    with pytest.raises(CheckpointError, match=r"does not fit[\s\S]*model.backbone.width: \(absent\) → 16"):
        resumed(trained, tmp_path, "model.backbone.width=16")


def test_another_adapter_is_refused_with_its_difference(trained, tmp_path):
    config = load_config(discs.write_config(tmp_path), [*SHORT, LONGER])
    model = {**to_plain_data(config["model"]), "adapters": [{"type": "ImplicitVectors"}]}
    with pytest.raises(CheckpointError, match=r"does not fit[\s\S]*model.adapters.*ImplicitVectors"):
        fit(config.with_options({"model": model}), tmp_path / "run", resume=str(trained))


SAID = {
    "seed": (["seed=1"], "seed: 0 → 1"),
    "batch": (["train_data.batch_size=6"], "train_data.batch_size: 4 → 6"),
    "clipping": (["training.clip_grad=0.5"], "training.clip_grad: None → 0.5"),
    "images": (["train_data.dataset.length=9"], "train_data.images: 12 → 9"),
    "momenta": (["optimizer.betas=(0.8, 0.9)"], "optimizer.betas: (absent) → [0.8, 0.9]"),
}


@pytest.mark.fault("resumed with another seed, batch or optimizer", expected="said and recorded")
@pytest.mark.parametrize("case", SAID)
@problems.RESUME_SAID
def test_what_changes_the_training_is_said_and_kept(case, trained, tmp_path, caplog):
    options, line = SAID[case]
    resumed(trained, tmp_path, *options)
    assert f"\n  {line}" in said(caplog).partition("from here on")[2].partition("does not change")[0]
    (change,) = load_checkpoint(tmp_path / "run/iter_5.pth")["meta"]["changes"]
    assert change["after"] == 3
    assert line in change["settings"]


def test_what_changes_nothing_is_said_apart(trained, tmp_path, caplog):
    run(tmp_path, "logging.project=other", "train_data.num_workers=0", resume=str(trained))
    title = "iter_3.pth differs in what does not change the training:"
    assert f"{title}\n  logging.project: mtvision → other" in said(caplog)
    assert "other settings" not in said(caplog)
    assert "changes" not in load_checkpoint(trained)["meta"]


def test_the_same_config_says_nothing(trained, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "mtvision"):
        run(tmp_path, resume=str(trained))
    assert said(caplog) == ""


RATES = {
    "more iterations": [],
    "learning rate": ["optimizer.lr=3e-3"],
    "schedule": ["schedule=[{'type': 'CosineAnnealingLR', 'T_max': 5}]"],
}


@pytest.mark.parametrize("case", RATES)
def test_rates_are_those_of_a_run_that_had_the_config_from_the_start(case, trained, tmp_path):
    options = [LONGER, *RATES[case]]
    run(tmp_path, *options, name="whole")
    resumed(trained, tmp_path, *options)
    whole, joined = (
        [json.loads(line)["lr"] for line in (tmp_path / name / "losses.jsonl").read_text().splitlines()]
        for name in ("whole", "run")
    )
    assert joined == whole[3:]


def test_the_state_of_the_optimizer_follows_the_names_of_parameters(trained, tmp_path):
    """Other groups number the parameters anew; torch would hand their moments on by number."""
    resumed(trained, tmp_path, "optimizer.lr_factors={'heads.depth.*': 10.0}")
    before, after = (load_checkpoint(path) for path in (trained, tmp_path / "run/iter_5.pth"))
    assert before["optimizer_names"] != after["optimizer_names"]
    steps = {}
    for content in (before, after):
        names = [name for group in content["optimizer_names"] for name in group]
        state = content["optimizer"]["state"]
        steps[len(steps)] = {name: state[i]["exp_avg"].shape for i, name in enumerate(names) if i in state}
    assert steps[0] == steps[1]


def test_regrouped_state_goes_by_name():
    saved = {"state": {0: "a", 1: "b", 2: "c"}, "param_groups": [{"params": [0, 1, 2]}], "more": 1}
    groups = [{"params": [0], "lr": 1.0}, {"params": [1, 2], "lr": 2.0}]
    fresh = {"state": {}, "param_groups": groups, "base_param_settings": "own"}
    found = regrouped(saved, [["a", "b", "c"]], [["b"], ["a", "c"]], fresh)
    assert found == {**fresh, "state": {0: "b", 1: "a", 2: "c"}, "more": 1}
    with pytest.raises(ValueError, match="other parameters: d"):
        regrouped(saved, [["a", "b", "c"]], [["a", "b", "c", "d"]], fresh)


def test_an_average_that_is_switched_off_leaves_the_trained_weights(trained, tmp_path):
    run(tmp_path, "training.ema=0.5", name="averaged")
    resumed(tmp_path / "averaged/iter_3.pth", tmp_path)
    run(tmp_path, LONGER, name="never", resume=str(trained))
    one, other = (load_checkpoint(tmp_path / name / "iter_5.pth")["state_dict"] for name in ("run", "never"))
    torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_a_checkpoint_without_options_is_judged_by_its_optimizer(trained, tmp_path):
    content = load_checkpoint(trained)
    content["meta"] = {name: item for name, item in content["meta"].items() if name != "options"}
    save_checkpoint(tmp_path / "old.pth", content)
    with pytest.raises(ResumeError, match=r"state of another optimizer: its options are amsgrad, betas"):
        resumed(tmp_path / "old.pth", tmp_path, "optimizer.type=SGD")
    resumed(tmp_path / "old.pth", tmp_path)


def test_keys_that_an_older_version_did_not_have_are_no_difference():
    now = plain_options({"training": {"iterations": 5, "freeze": []}, "train_data": {"num_workers": 0}})
    before = {"training": {"iterations": 5}, "train_data": {}}
    assert differences(before, now) == []
    (one,) = differences({"training": {"iterations": 5, "freeze": ["a"]}, "train_data": {}}, now)
    assert str(one) == "training.freeze: ['a'] → []"
    assert one.reason is not None
    assert in_words([], "file") == ""

"""Schedules are gone through before a run begins; what would fail later, or do nothing, is refused."""

from __future__ import annotations

import json

import discs
import pytest
import torch
from mmengine.optim import OptimWrapper

from mtvision.engine.optimization.schedule import build_schedule, check_schedule
from mtvision.engine.training import train
from mtvision.procedures.validation import StageError, Validation
from mtvision.recipe.config import load_config

GROUPS = [{"lr": 0.1, "weight_decay": 0.01, "betas": (0.9, 0.999)}, {"lr": 0.2, "weight_decay": 0.0}]
STEPS = 6
SOUND = {
    "none": None,
    "warm-up": [
        {"type": "LinearLR", "start_factor": 0.01, "end": 3},
        {"type": "CosineAnnealingLR", "begin": 3, "T_max": 3},
    ],
    "one cycle": [{"type": "OneCycleLR", "total_steps": STEPS, "eta_max": 0.5}],
    "decay": [{"type": "StepParamScheduler", "param_name": "weight_decay", "step_size": 2}],
    "score": [{"type": "ReduceOnPlateauLR", "monitor": "semseg/miou", "rule": "greater"}],
}
REFUSED = {
    "modulo": ({"type": "StepLR", "step_size": 0}, r"step 1 of 6 fails .*zero"),
    "words": ({"type": "PolyLR", "power": "two"}, r"step 1 of 6 fails .*'str'"),
    "milestones": (
        {"type": "MultiStepLR", "milestones": [2, "4"]},
        r"milestones has '4', a text; write the number without quotes",
    ),
    "quoted": ({"type": "PolyLR", "eta_min": "1e-4"}, r"eta_min has '1e-4', a text"),
    "short": (
        {"type": "OneCycleLR", "total_steps": 3, "eta_max": 1},
        r"step 4 of 6 fails .*is 3",
    ),
    "built": ({"type": "PolyLR", "begin": 5, "end": 2}, r"cannot be built .*end should be larger"),
    "uphill": ({"type": "StepLR", "step_size": 2, "gamma": -1}, r"lr is -0\.1 after step 2 of 6"),
    "below": ({"type": "PolyLR", "eta_min": -0.1}, r"lr is -0\.0\d+ after step \d of 6"),
    "grows": ({"type": "ExponentialLR", "gamma": 1e200}, r"lr is inf after step 2 of 6"),
    "epochs": (
        {"type": "StepLR", "step_size": 2, "by_epoch": True},
        r"by_epoch=True, but a run counts",
    ),
    "monitor": ({"type": "ReduceOnPlateauLR"}, r"monitor='loss' is no score.*semseg"),
    "other task": (
        {"type": "ReduceOnPlateauLR", "monitor": "depth/rmse"},
        r"'depth/rmse' is no score",
    ),
}


@pytest.mark.parametrize("entries", SOUND.values(), ids=SOUND)
def test_sound_schedules_pass_and_leave_the_groups_alone(entries):
    before = [dict(group) for group in GROUPS]
    check_schedule(entries, STEPS, GROUPS, ["semseg"])
    assert before == GROUPS


@pytest.mark.parametrize(("entry", "message"), REFUSED.values(), ids=REFUSED)
def test_others_are_refused_with_their_place(entry, message):
    first = {"type": "ConstantLR", "factor": 0.5, "end": 2}
    with pytest.raises(ValueError, match=rf"^schedule\[1\] \({entry['type']}\): .*{message}"):
        check_schedule([first, entry], STEPS, GROUPS, ["semseg"])


def test_a_score_is_followed_only_where_there_are_evaluations():
    with pytest.raises(ValueError, match=r"follows a score, but training\.val_interval is not set"):
        check_schedule(SOUND["score"], STEPS, GROUPS)


@pytest.mark.parametrize("steps", [1, 7])
def test_steps_of_the_trial_are_those_of_the_run(steps):
    """OneCycleLR takes exactly `total_steps` steps; a run with one step more fails at its end."""
    entries = [{"type": "OneCycleLR", "total_steps": 5, "eta_max": 1.0}]
    wrapper = OptimWrapper(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1))
    (scheduler,) = build_schedule(entries, steps, wrapper)
    failed = False
    try:
        for _ in range(steps):
            scheduler.step()
    except ValueError:
        failed = True
    if failed:
        with pytest.raises(ValueError, match="step 6 of 7"):
            check_schedule(entries, steps, [{"lr": 0.1}])
    else:
        check_schedule(entries, steps, [{"lr": 0.1}])
    assert failed == (steps == 7)


def test_validate_tells_the_mistake_without_data(tmp_path):
    config = load_config(discs.write_config(tmp_path), ['schedule=[{"type": "StepLR", "step_size": 0}]'])
    with pytest.raises(StageError, match=r"schedule\[0\] \(StepLR\): step 1 of 12 fails"):
        Validation(config, tmp_path).build()


def test_the_rate_falls_where_the_score_stays(tmp_path):
    """No score gets better by 10, so the rate halves after each evaluation but the first."""
    entry = {
        "type": "ReduceOnPlateauLR",
        "monitor": "semseg/miou",
        "rule": "greater",
        "threshold_rule": "abs",
        "threshold": 10.0,
        "patience": 0,
        "factor": 0.5,
    }
    options = [f"schedule=[{json.dumps(entry)}]", "training.iterations=8", "training.val_interval=2"]
    train(load_config(discs.write_config(tmp_path), options), tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "losses.jsonl").read_text().splitlines()]
    assert [row["lr"] for row in rows] == pytest.approx([1e-2] * 4 + [5e-3] * 2 + [2.5e-3] * 2)

"""The balancing demo: its problem with a known answer, and what it asks `launch` for."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch

from mtvision.core.registry import BALANCERS

TOOL = Path(__file__).parents[2] / "tools" / "balancing_experiment.py"


@pytest.fixture(scope="module")
def tool():
    return runpy.run_path(str(TOOL))


@pytest.mark.slow
def test_the_plain_sum_ends_where_the_closed_form_says(tool):
    problem = tool["settled"]({"type": "FixedWeights"}, seed=0, steps=150)
    assert problem.result()["position"] == pytest.approx(20 / 21, abs=0.02)
    weights = {"a": 20.0, "b": 1.0}
    even = tool["settled"]({"type": "FixedWeights", "weights": weights}, seed=0, steps=150).result()
    assert even["position"] == pytest.approx(0.5, abs=0.02)
    assert even["excess"] < 5


def test_the_middle_is_the_right_answer(tool):
    problem = tool["Conflict"](0)
    with torch.no_grad():
        problem.x.zero_()
    assert problem.result() == {"position": 0.5, "beside": 0.0, "excess": 0.0}
    assert problem.mean_change() == pytest.approx(1.5)
    with torch.no_grad():
        problem.x.copy_(problem.ends["b"])
    assert problem.result() == {"position": 1.0, "beside": 0.0, "excess": pytest.approx(100.0)}


def test_every_rule_of_the_demo_can_be_built(tool):
    assert len(tool["RULES"]) >= 10
    for config in tool["RULES"].values():
        balancer = BALANCERS.build({**config}, tasks=("a", "b"), default_weights={})
        tool["PlainStep"]().check_balancer(balancer)


def test_finished_lines_are_not_made_again(tool, tmp_path):
    names = ["equal weights", "tuned weights", *tool["RULES"]]
    done = {
        f"{name}/{seed}": {"position": 0.5, "beside": 0.0, "excess": seed}
        for name in names
        for seed in (0, 1)
    }
    (tmp_path / "conflict_7.json").write_text(json.dumps(done))
    text = tool["conflict"](tmp_path, [0, 1], 7)
    assert "| tuned weights | 0.500 ± 0.000 | 0.000 ± 0.000 | 0.500 ± 0.707 |" in text
    assert (tmp_path / "conflict.md").read_text() == text


def test_the_scenes_are_one_launch_with_a_search(tool, tmp_path, monkeypatch):
    asked = []
    main = tool["main"]
    monkeypatch.setitem(main.__globals__, "call", lambda command, words: asked.append([command, *words]) or 0)
    words = [
        "--only",
        "scenes",
        "--rules",
        "UPGrad",
        "IMTL",
        "--iterations",
        "30",
        "--work-dir",
        str(tmp_path),
    ]
    monkeypatch.setattr(sys, "argv", [str(TOOL), *words])
    main()
    (command,) = asked
    assert command[0] == "launch"
    assert "balancer={'type': 'UPGrad'},{'type': 'IMTL'}" in command
    assert command[command.index("--search-weights") + 1] == "9"
    assert command[-2:] == ["training.iterations=30", "training.checkpoint_interval=30"]

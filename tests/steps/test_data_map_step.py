"""Recording confidences changes no gradient, and what is recorded is what the network thought."""

from __future__ import annotations

import pytest
import torch
from step_toy import NAMES, TASKS, ToyForward, gradients, make_samples, make_toy

from mtvision.balance import FixedWeights, UPGrad
from mtvision.core.sample import collate
from mtvision.steps import DataMapStep, LossReport, PlainStep, StepProblem
from mtvision.steps.confidence import true_confidence
from mtvision.steps.data_map import DataMap


def problem(toy, balancer=None, **options):
    losses = ToyForward(toy)

    def forward(batch):
        logits = toy(batch.image, [name for name in NAMES if name in batch.labels])
        return LossReport(losses(batch).losses, {}, {key: item.detach() for key, item in logits.items()})

    balancer = balancer or FixedWeights(tasks=NAMES)
    return StepProblem(forward, balancer, list(toy.named_parameters()), tasks=TASKS, **options)


@pytest.mark.parametrize("balancer", [FixedWeights, UPGrad])
def test_gradients_are_those_of_the_step_inside(balancer):
    batch, found = collate(make_samples(3)), []
    for step in (PlainStep(), DataMapStep()):
        toy = make_toy()
        logs = step(problem(toy, balancer(tasks=NAMES)), batch)
        found.append((gradients(toy), logs))
    (plain, plain_logs), (mine, my_logs) = found
    assert {key: float(item) for key, item in plain_logs.items()} == {
        key: float(item) for key, item in my_logs.items()
    }
    for name, item in plain.items():
        assert item is None or torch.equal(item, mine[name]), name


def test_every_pass_over_an_image_with_a_label_counts_once():
    toy, step = make_toy(), DataMapStep()
    samples = make_samples(3, lacking={1: {"depth"}})
    batch = collate(samples)
    for _ in range(2):
        step(problem(toy), batch)
    step(problem(toy), collate(samples[:1]))
    counts = {task: [table[name][0] for name in batch.ids if name in table]
              for task, table in step.data_map.moments.items()}  # fmt: skip
    assert counts == {"semseg": [3, 2, 2], "depth": [3, 2], "edge": [3, 2, 2]}
    logits = toy(batch.image, list(NAMES))
    for task in TASKS:
        expected = true_confidence(task, logits[task.name], batch.labels[task.name])
        for name, value in zip(batch.ids, expected.tolist(), strict=True):
            if name in step.data_map.moments[task.name]:
                _, mean, squares = step.data_map.moments[task.name][name]
                assert mean == pytest.approx(value)
                assert squares == pytest.approx(0, abs=1e-12)


def test_all_processes_hold_what_all_saw_in_the_order_of_ranks():
    others = [[("depth", "elsewhere", 0.25)]]
    step = DataMapStep()
    step(problem(make_toy(), gather=lambda mine: [*others, mine]), collate(make_samples(1)))
    assert step.data_map.moments["depth"]["elsewhere"] == (1, 0.25, 0.0)
    assert len(step.data_map.moments["depth"]) == 2


def test_state_is_in_the_state_dict():
    step, again = DataMapStep(), DataMapStep({"type": "PlainStep"})
    step(problem(make_toy()), collate(make_samples(2)))
    again.load_state_dict(step.state_dict())
    assert again.data_map.moments == step.data_map.moments
    assert isinstance(again.data_map, DataMap)


def test_a_state_with_an_image_too_many_is_refused():
    step = DataMapStep()
    step(problem(make_toy()), collate(make_samples(2)))
    state = step.data_map.state()
    next(iter(state.values()))["images"].append("another")
    with pytest.raises(ValueError, match="shorter"):
        DataMap.from_state(state)


def test_a_problem_without_logits_is_refused():
    toy = make_toy()
    plain = StepProblem(ToyForward(toy), FixedWeights(tasks=NAMES), list(toy.named_parameters()), tasks=TASKS)
    with pytest.raises(ValueError, match="LossReport holds no logits"):
        DataMapStep()(plain, collate(make_samples(1)))

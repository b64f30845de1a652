"""SandwichStep: what it draws, what it adds up, how it distils, resuming, and its place in a run."""

from __future__ import annotations

import copy
import signal

import discs
import pytest
import torch

from mtvision.architecture.widths import WidthConfig
from mtvision.balance import FixedWeights, TorchJD
from mtvision.core.context import Context
from mtvision.core.sample import collate
from mtvision.engine.module import TrainingModule
from mtvision.engine.training import train
from mtvision.losses import TaskLosses
from mtvision.models import build_network
from mtvision.recipe.config import load_config
from mtvision.runtime.checkpoint import load_checkpoint
from mtvision.runtime.signals import TrainingInterruptedError
from mtvision.steps import LossReport, SandwichStep, StepProblem
from mtvision.steps.distillation import attention_distance, nested_distance, projected_distance

TASKS = discs.PROTOCOL.tasks
NAMES = discs.PROTOCOL.task_names
WIDTHS = {"encoder": (0.5, 0.75, 1.0), "decoders": (0.5, 1.0)}


def network(**options):
    torch.manual_seed(0)
    cfg = {
        "backbone": {"type": "DropoutNet", "width": 16},
        "decoder": {"type": "ParallelDecoder", "width": 16},
        "head": {"type": "ConvHead"},
        "adapters": [{"type": "Slimmable", **options}],
    }
    model = build_network(cfg, TASKS)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model.train()


@pytest.fixture(scope="module")
def batch():
    dataset = discs.TinyDiscs(protocol=discs.PROTOCOL, split="train", transforms="tensor")
    return collate([dataset[index] for index in range(4)])


def run(model, step, batch, balancer=None):
    losses = TaskLosses(TASKS)

    def forward(item):
        return LossReport(losses(model.outputs(item.image, size=item.label_size), item))

    model.zero_grad(set_to_none=True)
    problem = StepProblem(forward, balancer or FixedWeights(tasks=NAMES), list(model.named_parameters()))
    logs = step(problem, batch)
    return {name: item.grad for name, item in model.named_parameters()}, logs


def test_gradients_are_the_sum_over_the_configurations(batch):
    step = SandwichStep(**WIDTHS, distillation=None)
    ours, logs = run(network(), step, batch)
    assert int(step.calls) == 1
    model = network()
    for widths in step.configurations(NAMES, 0):
        output = model.outputs(batch.image, size=batch.label_size, context=Context(widths=widths.to_plain()))
        sum(TaskLosses(TASKS)(output, batch).values()).backward()
    for name, item in model.named_parameters():
        torch.testing.assert_close(ours[name], item.grad, rtol=1e-5, atol=1e-7)
    assert {"loss/semseg", "loss/depth", "total", "smallest/semseg", "smallest/depth"} <= set(logs)


def test_draws_hold_the_extremes_and_depend_on_seed_and_call_alone():
    step = SandwichStep(**WIDTHS, stages=3, passes=6)
    first = step.configurations(NAMES, 5)
    assert first[0] == WidthConfig(1.0, dict.fromkeys(NAMES, 1.0))
    assert first[1] == WidthConfig(0.5, dict.fromkeys(NAMES, 0.5))
    assert len(first) == 6
    assert all(len(item.encoder) == 3 for item in first[2:])
    assert SandwichStep(**WIDTHS, stages=3, passes=6).configurations(NAMES, 5) == first
    assert step.configurations(NAMES, 6) != first
    assert SandwichStep(**WIDTHS, stages=3, passes=6, seed=1).configurations(NAMES, 5) != first
    drawn = [item for call in range(60) for item in step.configurations(NAMES, call)[2:]]
    assert {ratio for item in drawn for ratio in item.encoder} == set(WIDTHS["encoder"])
    assert {tuple(item.decoders.values()) for item in drawn} == {
        (a, b) for a in (0.5, 1.0) for b in (0.5, 1.0)
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["nested", "attention", "projector"])
def test_distillation_reaches_the_smaller_networks_only(batch, kind):
    """beta scales an extra gradient; the teacher's pass gets none of it; warm-up starts from zero."""
    model = network(projectors=kind == "projector")
    plain, _ = run(copy.deepcopy(model), SandwichStep(**WIDTHS, distillation=None), batch)
    cold, _ = run(copy.deepcopy(model), SandwichStep(**WIDTHS, distillation=kind, warmup=10), batch)
    full, logs = run(copy.deepcopy(model), SandwichStep(**WIDTHS, distillation=kind), batch)
    assert float(logs["smallest/distillation"]) > 0
    changed = [name for name, item in plain.items() if item is not None and not torch.equal(item, full[name])]
    assert any(name.startswith("backbone") for name in changed)
    assert not any(name.startswith(("heads", "decoder")) for name in changed)
    for name, item in plain.items():
        if item is not None:
            torch.testing.assert_close(cold[name], item, rtol=0, atol=0)


def test_distances_have_their_closed_forms():
    teacher = torch.randn(2, 6, 3, 4)
    assert float(nested_distance(teacher[:, :4], teacher)) == pytest.approx(0, abs=1e-6)
    assert float(nested_distance(-3 * teacher[:, :4], teacher)) == pytest.approx(4, abs=1e-5)
    rotated = torch.linalg.qr(torch.randn(6, 6)).Q @ teacher.flatten(2)
    assert float(attention_distance(5 * rotated.view_as(teacher), teacher)) == pytest.approx(0, abs=1e-5)
    assert float(projected_distance(torch.zeros_like(teacher), teacher)) == pytest.approx(1)


def test_output_distillation_replaces_the_labels(batch):
    """With the labels gone from the smaller passes, the smallest one's loss no longer depends on them."""
    step = SandwichStep(**WIDTHS, distillation=None, output_distillation=True)
    _, logs = run(network(), step, batch)
    other = copy.deepcopy(batch)
    other.labels["depth"] = other.labels["depth"] * 2
    _, changed = run(network(), SandwichStep(**WIDTHS, distillation=None, output_distillation=True), other)
    assert torch.equal(logs["smallest/depth"], changed["smallest/depth"])
    assert not torch.equal(logs["loss/depth"], changed["loss/depth"])


def test_a_jacobian_balancer_that_sums_is_plain_training(batch):
    plain, _ = run(network(), SandwichStep(**WIDTHS), batch)
    ours, _ = run(network(), SandwichStep(**WIDTHS), batch, TorchJD(tasks=NAMES, aggregator="Sum"))
    for name, item in plain.items():
        torch.testing.assert_close(ours[name], item, rtol=1e-4, atol=1e-6)


def test_projectors_are_asked_for(batch):
    with pytest.raises(ValueError, match="projectors=True"):
        run(network(), SandwichStep(**WIDTHS, distillation="projector"), batch)


OPTIONS = (
    "model.backbone.width=16",
    "model.decoder.width=16",
    "model.adapters=[{'type':'Slimmable'}]",
    "step={'type':'SandwichStep','encoder':[0.5,1.0],'decoders':[0.5,1.0],'warmup':4}",
    "training.iterations=6",
    "training.checkpoint_interval=6",
    "training.val_interval=0",
    "training.micro_batches=2",
)


@pytest.mark.slow
def test_resuming_draws_and_trains_the_same(tmp_path, monkeypatch):
    text = discs.CONFIG.replace(
        'head=dict(type="ConvHead"),', 'head=dict(type="ConvHead"),\n    adapters=[],'
    )
    config = discs.write_config(tmp_path, text)
    whole = train(load_config(config, OPTIONS), tmp_path / "whole")
    steps = iter(range(1, 99))
    original = TrainingModule.train_step

    def interrupt(self, batch, optim_wrapper):
        outputs = original(self, batch, optim_wrapper)
        if next(steps) == 3:
            signal.raise_signal(signal.SIGINT)
        return outputs

    with monkeypatch.context() as patch:
        patch.setattr(TrainingModule, "train_step", interrupt)
        with pytest.raises(TrainingInterruptedError):
            train(load_config(config, OPTIONS), tmp_path / "cut")
    joined = train(load_config(config, OPTIONS), tmp_path / "cut", resume="auto")
    assert joined.scores == whole.scores
    states = [load_checkpoint(tmp_path / name / "iter_6.pth")["state_dict"] for name in ("whole", "cut")]
    torch.testing.assert_close(states[1], states[0], rtol=0, atol=0)
    assert int(states[0]["step.calls"]) == 12  # two micro-batches a step


def test_default_widths_grow_to_the_whole_network():
    step = SandwichStep()
    assert step.encoder == (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    assert step.decoders == (0.25, 0.4, 0.55, 0.7, 0.85, 1.0)

"""Norms, cosines and conflicts of the tasks' gradients, measured beside any balancer."""

import json
import math

import pytest
import torch
from torch import nn

from mtvision.core.registry import BALANCERS
from mtvision.core.sample import Batch, Meta
from mtvision.engine.hooks import DiagnosticsHook, draw_gradients, marked_steps
from mtvision.steps import LossReport, PlainStep, StepProblem
from mtvision.steps.gradients.diagnostics import Diagnostics, relations, with_shares

TASKS = ("first", "second", "third")


class Known(nn.Module):
    """Losses that are linear in two shared numbers: their gradients are given. A norm has running means."""

    def __init__(self, directions) -> None:
        super().__init__()
        self.shared = nn.Parameter(torch.zeros(2))
        self.own = nn.Parameter(torch.zeros(1))
        self.directions = directions
        self.register_buffer("calls", torch.zeros(()))

    def __call__(self, batch) -> LossReport:
        self.calls += 1
        torch.rand(3)
        losses = {
            name: 1 + index + self.shared @ torch.tensor(item)
            for index, (name, item) in enumerate(self.directions.items())
        }
        losses["first"] = losses["first"] + 5 * self.own.sum()
        return LossReport(losses)


DIRECTIONS = {"first": [3.0, 0.0], "second": [0.0, 1.0], "third": [-4.0, 4.0]}


def problem_of(network, balancer, **options) -> StepProblem:
    return StepProblem(
        network, balancer, list(network.named_parameters()), buffers=list(network.named_buffers()), **options
    )


def batch_of(count=1) -> Batch:
    meta = [Meta(id=str(index), size=(1, 1), original_size=(1, 1)) for index in range(count)]
    return Batch(torch.zeros(count, 3, 1, 1), {}, {}, meta)


@pytest.mark.parametrize("rule", ["FixedWeights", "Uncertainty", "UPGrad", "MoCo", "FeatureWeights", "CoBa"])
@pytest.mark.parametrize("scale", [1.0, 128.0])
def test_known_gradients_are_found_beside_any_balancer(rule, scale):
    balancer = BALANCERS.build({"type": rule}, tasks=TASKS, default_weights=dict.fromkeys(TASKS, 1.0))
    problem = problem_of(Known(DIRECTIONS), balancer, scale=lambda loss: loss * scale)
    found = Diagnostics()([(problem, batch_of())])
    want = {
        "gradient/norm/first": 3.0,
        "gradient/norm/second": 1.0,
        "gradient/norm/third": 32**0.5,
        "gradient/norm_ratio": 32**0.5,
        "gradient/cosine/first/second": 0.0,
        "gradient/cosine/first/third": -(0.5**0.5),
        "gradient/cosine/second/third": 0.5**0.5,
        "gradient/conflicts": 1 / 3,
    }
    assert {name: float(value) for name, value in found.items()} == pytest.approx(want, abs=1e-6)


def test_measuring_leaves_no_trace():
    network = Known(DIRECTIONS)
    balancer = BALANCERS.build({"type": "UPGrad"}, tasks=TASKS)
    before = torch.get_rng_state()
    Diagnostics()([(problem_of(network, balancer), batch_of())])
    assert torch.equal(torch.get_rng_state(), before)
    assert float(network.calls) == 0
    assert network.shared.grad is None
    assert network.own.grad is None


def test_parts_of_a_batch_are_averaged():
    balancer = BALANCERS.build({"type": "UPGrad"}, tasks=TASKS)
    other = {**DIRECTIONS, "first": [1.0, 0.0]}
    pairs = [(problem_of(Known(item), balancer), batch_of()) for item in (DIRECTIONS, other)]
    assert float(Diagnostics()(pairs)["gradient/norm/first"]) == pytest.approx(2.0)


def test_tasks_without_gradient_and_infinite_ones_are_left_out():
    still = relations(torch.tensor([[4.0, 0.0], [0.0, 0.0]]), TASKS[:2])
    assert set(still) == {"gradient/norm/first", "gradient/norm/second", "gradient/norm_ratio"}
    assert relations(torch.tensor([[math.inf, 0.0], [0.0, 1.0]]), TASKS[:2]) == {}


def test_shares_are_those_of_weighted_losses():
    logs = {"loss/first": torch.tensor(3.0), "loss/second": torch.tensor(1.0), "total": torch.tensor(9.0)}
    measured = {"gradient/conflicts": torch.tensor(0.0)}
    plain = with_shares(measured, logs)
    assert float(plain["share/first"]) == 0.75
    weighted = with_shares(measured, {**logs, "weight/first": torch.tensor(1 / 3)})
    assert float(weighted["share/first"]) == pytest.approx(0.5)
    assert with_shares({}, logs) == {}


def test_the_hook_chooses_the_steps():
    class Module:
        watch = None

    class Runner:
        plain_model = Module()
        iter = 0

    hook, runner, due = DiagnosticsHook(3), Runner(), []
    for runner.iter in range(7):
        hook.before_train_iter(runner, 0)
        due.append(runner.plain_model.watch is not None)
    assert due == [True, False, False, True, False, False, True]


@pytest.mark.parametrize("products", ["stages", "matrix"])
@pytest.mark.parametrize("rule", ["UPGrad", "MGDA", "MoCo"])
def test_a_step_shows_the_gradients_that_its_rule_reads(rule, products):
    """They equal those of a pass of its own; nothing is shown unless it is asked for."""
    balancer = BALANCERS.build({"type": rule}, tasks=TASKS, default_weights=dict.fromkeys(TASKS, 1.0))
    step, scale = PlainStep(products=products), {"scale": lambda loss: loss * 128}
    logs = step(problem_of(Known(DIRECTIONS), balancer, shows_gradients=True, **scale), batch_of())
    want = Diagnostics()([(problem_of(Known(DIRECTIONS), balancer), batch_of())])
    found = {name: float(value) for name, value in logs.items() if name.startswith("gradient/")}
    assert found == pytest.approx({name: float(value) for name, value in want.items()}, rel=1e-6, abs=1e-9)
    logs = step(problem_of(Known(DIRECTIONS), balancer, **scale), batch_of())
    assert not any(name.startswith("gradient/") for name in logs)


def test_the_record_has_means_and_the_plot_is_drawn(tmp_path):
    draw_gradients(tmp_path)
    assert not (tmp_path / "pictures").exists()
    rows = [
        {"iter": step, "loss/first": 1.0, "weight/first": 1.0, "gradient/conflicts": step % 2}
        | {"gradient/cosine/first/second": 0.1 * step, "gradient/norm/first": 2.0, "share/first": 1.0}
        for step in (1, 2)
    ]
    (tmp_path / "losses.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"iter": 3}]))
    assert marked_steps(tmp_path)["gradients"] == pytest.approx(
        {"conflicts": 0.5, "cosine/first/second": 0.15, "norm/first": 2.0, "share/first": 1.0}
    )
    draw_gradients(tmp_path)
    assert (tmp_path / "pictures" / "gradients.png").stat().st_size > 1000


@pytest.mark.slow  # builds and trains two networks
def test_a_step_is_the_same_with_and_without(module_and_batch):
    """Weights after two steps are equal to the last bit; the logs have the measurements of the first."""
    make, batch = module_and_batch
    weights = []
    for watched in (False, True):
        module, wrapper = make()
        for step in range(2):
            module.watch = Diagnostics() if watched and step == 0 else None
            logs = module.train_step(batch, wrapper)
            assert ("gradient/conflicts" in logs) == (watched and step == 0)
            assert ("share/depth" in logs) == (watched and step == 0)
        weights.append([item.detach().clone() for item in module.network.state_dict().values()])
    assert all(torch.equal(first, second) for first, second in zip(*weights, strict=True))


@pytest.fixture
def module_and_batch():
    from mtvision.core.sample import collate
    from mtvision.data.synthetic import SyntheticScenes
    from mtvision.engine.module import TrainingModule
    from mtvision.engine.optimization.wrapper import PrecisionOptimWrapper
    from mtvision.models.factory import build_network
    from mtvision.protocols import SYNTHETIC

    dataset = SyntheticScenes(split="train", length=2, size=(64, 64))
    batch = collate([dataset[index] for index in range(2)])
    model = {
        "backbone": {"type": "TimmBackbone", "name": "regnetx_002"},
        "decoder": {"type": "ParallelDecoder", "width": 8},
        "head": {"type": "ConvHead"},
    }

    def make():
        torch.manual_seed(0)
        network = build_network(model, SYNTHETIC.tasks)
        balancer = BALANCERS.build(
            {"type": "FixedWeights"}, tasks=SYNTHETIC.task_names, default_weights=SYNTHETIC.loss_weights
        )
        module = TrainingModule(network, SYNTHETIC.tasks, balancer, PlainStep(), micro_batches=2).train()
        return module, PrecisionOptimWrapper(torch.optim.SGD(module.parameters(), lr=1e-3))

    return make, batch

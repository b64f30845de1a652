"""Steps that serve features, further passes, held-out losses and parts of a batch, and steps around rules."""

from dataclasses import replace

import pytest
import torch
from sampling import sampled
from step_toy import NAMES, ToyForward, gradients, make_batch, make_toy
from torch import nn

from mtvision.balance import FAMO, MGDA, CoBa, FeatureWeights, FixedWeights, MoDo, TorchJD, UPGrad
from mtvision.balance.balancer import SERVED_BY
from mtvision.core.context import current_context
from mtvision.core.observer import observe
from mtvision.core.pyramid import Pyramid
from mtvision.core.random import is_held_out
from mtvision.core.registry import BALANCERS, STEPS
from mtvision.engine.module import TrainingModule
from mtvision.engine.optimization.wrapper import PrecisionOptimWrapper
from mtvision.steps import (
    DataMapStep,
    FlatRegionsStep,
    HeldOutStep,
    LossReport,
    PlainStep,
    SAMOStep,
    SandwichStep,
    SearchStep,
    SeveralBatchesStep,
    SparseStep,
    StepProblem,
)
from mtvision.testing.kinds.steps import StepCase
from mtvision.testing.modules import Setting


def problem_of(network, balancer, **options) -> StepProblem:
    return StepProblem(
        ToyForward(network),
        balancer,
        list(network.named_parameters()),
        buffers=list(network.named_buffers()),
        **options,
    )


def stepped(step, balancer, batch, network=None, **options):
    network = network or make_toy()
    logs = step(problem_of(network, balancer, **options), batch)
    return gradients(network), logs


def loss_gradients(network, batch, name):
    """{parameter: gradient of one loss}."""
    loss = ToyForward(network)(batch).losses[name]
    named = [(key, item) for key, item in network.named_parameters() if item.requires_grad]
    found = torch.autograd.grad(loss, [item for _, item in named], allow_unused=True)
    return {key: part for (key, _), part in zip(named, found, strict=True) if part is not None}


SHARED = ("trunk.", "own.", "exchange.")  # the exchange makes every `own` reach every loss


def is_shared(name: str) -> bool:
    return name.startswith(SHARED)


# ----------------------------------------------------------------------------------- who serves what


@pytest.mark.parametrize(
    ("step", "balancer", "message"),
    [
        (PlainStep(), CoBa(tasks=NAMES), "CoBa needs 'held_out', which PlainStep does not .*HeldOutStep"),
        (PlainStep(), MoDo(tasks=NAMES), "needs 'several_batches'.*SeveralBatchesStep"),
        (SandwichStep(), FAMO(tasks=NAMES), "FAMO needs 'extra_forward', which SandwichStep"),
        (SearchStep(), FeatureWeights(tasks=NAMES), "needs 'features', which SearchStep"),
        (HeldOutStep(), UPGrad(tasks=NAMES), "needs 'gramian'.*PlainStep"),
        (DataMapStep(), MoDo(tasks=NAMES), "needs 'several_batches'"),
        (SparseStep(), MoDo(tasks=NAMES), "needs 'several_batches'"),
        (PlainStep(clip_tasks=1.0), FixedWeights(tasks=NAMES), "clip_tasks clips gradients of single tasks"),
    ],
)
def test_steps_refuse_what_they_do_not_serve(step, balancer, message):
    with pytest.raises(ValueError, match=message):
        step.check_balancer(balancer)


# ---------------------------------------------------------------------------------------- clipping


def test_clipping_before_aggregation():
    batch = make_batch(3)
    rows = [loss_gradients(make_toy(), batch, name) for name in NAMES]
    names = [name for name in rows[0] if is_shared(name)]
    norms = [torch.cat([row[name].flatten() for name in names]).norm() for row in rows]
    limit = float(sorted(norms)[1])  # clips the largest alone
    found, _ = stepped(PlainStep(clip_tasks=limit), TorchJD(tasks=NAMES, aggregator="Sum"), batch)
    for name in names:
        expected = sum(
            row[name] * min(1.0, limit / float(norm)) for row, norm in zip(rows, norms, strict=True)
        )
        torch.testing.assert_close(found[name], expected)


# ---------------------------------------------------------------------------------------- features


class Watched(nn.Module):
    """Encoder, two levels of which the second follows from the first, and two heads; shows its levels."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)
        self.heads = nn.ModuleDict({name: nn.Conv2d(8, 1, 1) for name in ("depth", "edge")})

    def forward(self, batch):
        fine = self.first(batch.image).tanh()
        pyramid = Pyramid.of([fine, self.second(fine).tanh()], [1, 1])
        read = torch.cat(pyramid.maps, dim=1)
        logits = {name: head(read) for name, head in self.heads.items()}
        observe(current_context(), self, pyramid, logits)
        losses = {name: (item - batch.labels[name]).square().mean() for name, item in logits.items()}
        return losses, pyramid.maps


@pytest.mark.parametrize("aggregator", ["MGDA", "AlignedMTL"])
def test_feature_weights_bound_the_gradients_of_parameters(aggregator):
    network, batch = Watched().double(), make_batch(3)
    losses, maps = network(batch)
    rows = []
    for name in ("depth", "edge"):
        parts = torch.autograd.grad(losses[name], maps, retain_graph=True)
        rows.append(torch.cat([part.flatten() for part in parts]))
    Z = torch.stack(rows)
    balancer = FeatureWeights(tasks=("depth", "edge"), aggregator=aggregator)
    weights = FeatureWeights(tasks=("depth", "edge"), aggregator=aggregator).weigh(Z @ Z.T, ("depth", "edge"))
    shared = [*network.first.parameters(), *network.second.parameters()]
    expected = torch.autograd.grad(weights @ torch.stack(list(losses.values())), shared, retain_graph=True)
    heads = torch.autograd.grad(sum(losses.values()), list(network.heads.parameters()))
    problem = StepProblem(
        lambda given: LossReport(network(given)[0]), balancer, list(network.named_parameters())
    )
    PlainStep()(problem, batch)
    for item, gradient in zip([*shared, *network.heads.parameters()], [*expected, *heads], strict=True):
        torch.testing.assert_close(item.grad, gradient)


def test_a_network_that_shows_no_features_is_refused():
    with pytest.raises(ValueError, match="reads gradients of features, but this network shows none"):
        stepped(PlainStep(), FeatureWeights(tasks=NAMES), make_batch(2))


# ------------------------------------------------------------------------------------ further passes


@pytest.mark.parametrize("parts", [1, 2])
def test_famo_looks_at_the_batch_again_after_the_update(parts):
    case = StepCase(make=PlainStep)
    network = case.network()
    network.add_module("norm", nn.BatchNorm2d(3))
    balancer = FAMO(tasks=case.names)
    module = TrainingModule(network, case.tasks, balancer, PlainStep(), micro_batches=parts)
    wrapper = PrecisionOptimWrapper(torch.optim.SGD(network.parameters(), lr=0.1))
    batch = case.batch(case.samples())
    pieces = [batch.part(list(range(len(batch))))] if parts == 1 else [batch.part([0, 1]), batch.part([2, 3])]

    def means():
        with torch.no_grad():
            reports = [module(piece).losses for piece in pieces]
        return {name: torch.stack([item[name] for item in reports]).mean() for name in case.names}

    before = means()
    module.train_step(batch, wrapper)
    after = means()
    change = torch.stack([(before[name] + 1e-8).log() - (after[name] + 1e-8).log() for name in case.names])
    logits = nn.Parameter(torch.zeros(3))
    logits.softmax(0).backward(change)
    torch.optim.Adam([logits], lr=0.025, weight_decay=1e-3).step()
    torch.testing.assert_close(balancer.memory["logits"], logits.detach(), rtol=1e-4, atol=1e-6)


# -------------------------------------------------------------------------------------- held-out


def test_held_out_images_are_watched_and_not_trained_on():
    batch = make_batch(8)
    share = 0.5
    held = [index for index, name in enumerate(batch.ids) if is_held_out(name, share)]
    rest = [index for index in range(8) if index not in held]
    assert held
    assert rest
    balancer = CoBa(tasks=NAMES, warmup=2, history=3)
    step = HeldOutStep(held_out=share, interval=2)
    found, logs = stepped(step, balancer, batch)
    plain, _ = stepped(
        PlainStep(), FixedWeights(tasks=NAMES, weights=dict.fromkeys(NAMES, 1.0)), batch.part(rest)
    )
    for name, gradient in plain.items():
        if gradient is not None:
            torch.testing.assert_close(found[name], gradient / 3)
    assert balancer.memory["count"] == 0
    fresh = HeldOutStep(held_out=share, interval=2)
    fresh.load_state_dict(step.state_dict())
    stepped(fresh, balancer, batch)
    expected = ToyForward(make_toy())(batch.part(held)).losses
    assert balancer.memory["first"] == pytest.approx(
        {name: float(v.detach()) for name, v in expected.items()}
    )
    assert {name for name in logs if name.startswith("held_out/")} == {f"held_out/{name}" for name in NAMES}


# ------------------------------------------------------------------------------- parts of a batch


def test_parts_of_a_batch_reach_the_rule():
    batch, rows = make_batch(6), []
    for index in range(3):
        part = batch.part([index, index + 3])
        per_task = [loss_gradients(make_toy(), part, name) for name in NAMES]
        names = [name for name in per_task[0] if is_shared(name)]
        rows.append(torch.stack([torch.cat([row[name].flatten() for name in names]) for row in per_task]))
    expected = MoDo(tasks=NAMES).aggregate_parts(rows, NAMES)
    found, _ = stepped(SeveralBatchesStep(), MoDo(tasks=NAMES), batch)
    torch.testing.assert_close(torch.cat([found[name].flatten() for name in names]), expected)
    with pytest.raises(ValueError, match="needs 3 parts of a batch, but a process has 2 images"):
        stepped(SeveralBatchesStep(), MoDo(tasks=NAMES), make_batch(2))
    lacking = make_batch(3, lacking={1: {"depth"}})
    with pytest.raises(ValueError, match="MoDo keeps state for every task"):
        stepped(SeveralBatchesStep(), MoDo(tasks=NAMES), lacking)


# ----------------------------------------------------------------------------------- flat regions


def moved_gradients(network, batch, name, moves):
    before = {key: item.detach().clone() for key, item in network.named_parameters()}
    with torch.no_grad():
        for key, item in network.named_parameters():
            if key in moves:
                item.add_(moves[key])
    found = loss_gradients(network, batch, name)
    with torch.no_grad():
        for key, item in network.named_parameters():
            item.copy_(before[key])
    return found


def adaptive(network, guide, rho):
    weights = dict(network.named_parameters())
    norm = torch.cat([(weights[key].abs() * item).flatten() for key, item in guide.items()]).norm()
    return {key: (rho * weights[key] ** 2 * item / norm).detach() for key, item in guide.items()}


def test_flat_regions_equal_a_loop_over_the_paper():
    network, batch, rho = make_toy(), make_batch(3), 0.5
    first, second = {}, {}
    for name in NAMES:
        found = loss_gradients(network, batch, name)
        shared = {key: item for key, item in found.items() if is_shared(key)}
        own = {key: item for key, item in found.items() if not is_shared(key)}
        moves = adaptive(network, shared, rho) | adaptive(network, own, rho)
        first[name], second[name] = found, moved_gradients(network, batch, name, moves)
    names = [key for key in first[NAMES[0]] if is_shared(key)]

    def rows(table):
        return torch.stack([torch.cat([table[t][key].flatten() for key in names]) for t in NAMES])

    J, H = rows(first), rows(second) - rows(first)
    expected = UPGrad(tasks=NAMES).aggregate(J, NAMES) + UPGrad(tasks=NAMES).aggregate(H, NAMES)
    found, _ = stepped(FlatRegionsStep(rho=rho), UPGrad(tasks=NAMES), batch)
    torch.testing.assert_close(torch.cat([found[key].flatten() for key in names]), expected)
    torch.testing.assert_close(found["heads.depth.weight"], second["depth"]["heads.depth.weight"])
    assert not torch.allclose(second["depth"]["heads.depth.weight"], first["depth"]["heads.depth.weight"])


def test_samo_without_correction_moves_along_the_mean_gradient():
    network, batch, rho = make_toy(), make_batch(3), 0.3
    tables = {name: loss_gradients(network, batch, name) for name in NAMES}
    names = [key for key in tables[NAMES[0]] if is_shared(key)]
    mean = {key: sum(tables[t][key] for t in NAMES) / 3 for key in names}
    rows = []
    for name in NAMES:
        own = {key: item for key, item in tables[name].items() if not is_shared(key)}
        moves = {}
        for guide in (mean, own):
            norm = torch.cat([item.flatten() for item in guide.values()]).norm()
            moves |= {key: rho * item / norm for key, item in guide.items()}
        found = moved_gradients(network, batch, name, moves)
        rows.append(torch.cat([found[key].flatten() for key in names]))
    expected = UPGrad(tasks=NAMES).aggregate(torch.stack(rows), NAMES)
    found, _ = stepped(SAMOStep(rho=rho, beta=0.0), UPGrad(tasks=NAMES), batch)
    torch.testing.assert_close(torch.cat([found[key].flatten() for key in names]), expected)


def test_samo_corrects_each_task_along_its_own_slope():
    """With β = 1 and SGD on one task the guide is a random direction in which its loss rises."""
    network, batch = make_toy(), make_batch(3)
    step, seen = SAMOStep(rho=0.3, beta=1.0), []
    original = ToyForward(network)

    def forward(given):
        report = original(given)
        seen.append({name: float(item.detach()) for name, item in report.losses.items()})
        return report

    problem = replace(problem_of(network, UPGrad(tasks=NAMES)), forward=forward)
    step(problem, batch)
    plus, minus = seen[1], seen[2]  # of the first task
    moved = seen[7]  # after the first pass and two passes per task
    (name,) = moved
    assert (moved[name] > seen[0][name]) or abs(plus[name] - minus[name]) < 1e-6


# ------------------------------------------------------------------------------------------ sparse


@pytest.mark.parametrize("balancer", [FixedWeights, MGDA])
def test_sparse_training_leaves_the_rest_alone(balancer):
    network, batch = make_toy(), make_batch(4)
    before = {name: item.detach().clone() for name, item in network.named_parameters()}
    step, rule = SparseStep(share=0.25), balancer(tasks=NAMES)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1, weight_decay=0.5)
    problem = problem_of(network, rule)
    for _ in range(3):
        optimizer.zero_grad()
        step(problem, batch)
        optimizer.step()
        step.after_update([(problem, batch)])
    assert set(step.masks) == {name for name, item in before.items() if is_shared(name) and item.ndim > 1}
    after = dict(network.named_parameters())
    for name, mask in step.masks.items():
        assert torch.equal(after[name][~mask], before[name][~mask])
        assert bool((after[name][mask] != before[name][mask]).all())
        rows, chosen = before[name].abs().flatten(1), mask.flatten(1)
        assert set(chosen.sum(dim=1).tolist()) == {max(1, round(0.25 * rows.shape[1]))}
        for row, flags in zip(rows, chosen, strict=True):
            assert row[flags].min() >= row[~flags].max()
    assert not torch.equal(after["heads.depth.weight"], before["heads.depth.weight"])


def test_sparse_training_resumes_with_its_choice():
    network, batch = make_toy(), make_batch(4)
    step = SparseStep(share=0.25, select="random", seed=3)
    stepped(step, FixedWeights(tasks=NAMES), batch, network)
    fresh = SparseStep(share=0.25)
    fresh.load_state_dict(step.state_dict())
    with torch.no_grad():
        for item in network.parameters():
            item.mul_(2)
    network.zero_grad()
    stepped(fresh, FixedWeights(tasks=NAMES), batch, network)
    assert all(torch.equal(fresh.masks[name], mask) for name, mask in step.masks.items())
    with pytest.raises(ValueError, match="share must be above 0"):
        SparseStep(share=0.0)


# ----------------------------------------------------------------------------- all rules, one network

RULES = [
    {"type": "FixedWeights"},
    {"type": "LogSum"},
    {"type": "Uncertainty"},
    *({"type": "Scalarizer", "scalarizer": name} for name in ("DWA", "Random", "GeometricMean", "IMTLL")),
    {"type": "SmoothTchebycheff", "warmup": 1, "nadir": 1},
    {"type": "FAMO"},
    {"type": "CoBa"},
    {"type": "AutoLambda"},
    {"type": "PrincipalWeights"},
    {"type": "LogLosses", "balancer": {"type": "MGDA"}},
    {"type": "SmoothedWeights", "balancer": {"type": "MGDA"}},
    {"type": "UPGrad"},
    {"type": "GradNorm"},
    {"type": "NormScaling"},
    {"type": "MGDA", "normalise": "loss+"},
    {"type": "NashMTL"},
    {"type": "IMTL"},
    {"type": "FeatureWeights", "aggregator": "AlignedMTL"},
    {"type": "MoCo"},
    {"type": "DBMTL"},
    {"type": "MoDo"},
    {"type": "SDMGrad"},
]
NEED_ALL_TASKS = {"DWA", "MoCo", "DBMTL", "MoDo", "SDMGrad"}


def test_all_rules_are_tried():
    assert {item["type"] for item in RULES} | {"TorchJD"} == {
        name for name in BALANCERS if BALANCERS[name].__module__.startswith("mtvision.")
    }


@pytest.mark.parametrize("config", sampled(RULES, 6), ids=lambda item: item.get("scalarizer", item["type"]))
def test_every_rule_trains_in_bfloat16_and_with_partial_labels_or_refuses(config):
    case = StepCase(make=PlainStep, setting=Setting("cpu", torch.bfloat16))
    balancer = BALANCERS.build(config, tasks=case.names)
    network, step = case.network(), STEPS.build({"type": SERVED_BY[balancer.needs]})
    module = TrainingModule(network, case.tasks, balancer, step)
    learnt = [*network.parameters(), *balancer.parameters()]
    wrapper = PrecisionOptimWrapper(torch.optim.SGD(learnt, lr=0.01, momentum=0.9), precision="bf16")
    before = network.get_parameter("backbone.patches.weight").detach().clone()
    for _ in range(2):
        logs = module.train_step(case.batch(case.samples(6)), wrapper)
        assert all(bool(item.isfinite()) for item in logs.values())
    assert not torch.equal(before, network.get_parameter("backbone.patches.weight"))
    partly = case.batch(case.samples(6, lacking=[["depth"]] * 6))
    name = config.get("scalarizer", config["type"])
    if name in NEED_ALL_TASKS:
        with pytest.raises(ValueError, match=f"{name} keeps state for every task"):
            module.train_step(partly, wrapper)
    else:
        assert "loss/depth" not in module.train_step(partly, wrapper)

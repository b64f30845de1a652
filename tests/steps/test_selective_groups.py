"""Selective task-group updates: turns, affinities and groups against a loop written from the formulas."""

from itertools import product

import pytest
import torch
from step_toy import NAMES, ToyForward, gradients, make_batch, make_toy
from torch import nn

from mtvision.balance import MGDA, FixedWeights, MoCo
from mtvision.engine.module import TrainingModule
from mtvision.engine.optimization.wrapper import PrecisionOptimWrapper
from mtvision.steps import LossReport, PlainStep, SelectiveGroupsStep, SparseStep, StepProblem
from mtvision.steps.clusters import affinity_propagation
from mtvision.steps.step import in_rounds
from mtvision.testing.kinds.steps import StepCase

RATE = 0.05
BLOCKS = torch.tensor(
    [[1.0, 0.8, 0.1, 0.0], [0.8, 1.0, 0.0, 0.1], [0.1, 0.0, 1.0, 0.7], [0.0, 0.1, 0.7, 1.0]]
)


@pytest.mark.parametrize(
    ("similarity", "groups"),
    [
        (BLOCKS, [[0, 1], [2, 3]]),
        (BLOCKS[:3, :3], [[0, 1], [2]]),
        (torch.eye(3) * 0.01 + 0.99, [[0], [1], [2]]),
        (torch.ones(1, 1), [[0]]),
    ],
)
def test_blocks_become_groups(similarity, groups):
    found = affinity_propagation(similarity)
    assert found == groups or similarity.max() - similarity.min() < 0.1  # all alike: any groups will do


@pytest.mark.parametrize("seed", range(20))
def test_groups_have_the_largest_similarity_to_their_exemplars(seed):
    """Against all choices of exemplars of five things."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(5, 2, generator=generator, dtype=torch.float64)
    s = -(points[:, None] - points[None]).square().sum(-1)
    preference = float(s.quantile(0.5))

    def score(chosen: list[int]) -> float:
        own = sum(preference for _ in chosen)
        return own + sum(float(s[i, chosen].max()) for i in range(5) if i not in chosen)

    choices = [
        [i for i, flag in enumerate(flags) if flag] for flags in product([0, 1], repeat=5) if any(flags)
    ]
    best = max(choices, key=score)
    groups = affinity_propagation(s, preference)
    assert groups is not None
    exemplars = [max(group, key=lambda i, g=group: float(s[g, i].sum())) for group in groups]
    assert score(exemplars) >= score(best) - 0.05 * abs(score(best))
    assert sorted(index for group in groups for index in group) == list(range(5))


def trained(step, balancer, batches, network=None, **options):
    """Descent with the engine's turns; the losses before every update."""
    network = network or make_toy()
    forward = ToyForward(network)
    problem = StepProblem(forward, balancer, list(network.named_parameters()), **options)
    seen = []
    for batch in batches:

        def update(batch=batch):
            logs = step(problem, batch)
            seen.append({name: float(value.detach()) for name, value in forward(batch).losses.items()})
            with torch.no_grad():
                for item in network.parameters():
                    if item.grad is not None:
                        item.sub_(RATE * item.grad)
                        item.grad = None
            step.after_update([(problem, batch)])
            return logs

        in_rounds(step, balancer, update)
    return network, seen


def test_every_group_gets_an_update_of_its_own():
    """Three tasks alone: three plain updates of single losses, in the order of the step."""
    batch = make_batch(4)
    step = SelectiveGroupsStep(seed=3)
    network, _ = trained(step, FixedWeights(tasks=NAMES), [batch])
    generator = torch.Generator().manual_seed(3 * 1_000_003 + 1)
    want = make_toy()
    for index in torch.randperm(3, generator=generator).tolist():
        want.zero_grad()
        ToyForward(want)(batch).losses[NAMES[index]].backward()
        with torch.no_grad():
            for item in want.parameters():
                if item.grad is not None:
                    item.sub_(RATE * item.grad)
    for name, item in network.named_parameters():
        torch.testing.assert_close(item, want.get_parameter(name), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("attribution", ["trained", "next"])
def test_affinities_are_those_of_the_formula(attribution):
    batches = [make_batch(4, seed=seed) for seed in range(3)]
    step = SelectiveGroupsStep(decay=0.5, attribution=attribution)
    _, seen = trained(step, FixedWeights(tasks=NAMES), batches)
    want = torch.zeros(3, 3, dtype=torch.float64)
    for number in range(3):
        generator = torch.Generator().manual_seed(number + 1)
        order = torch.randperm(3, generator=generator).tolist()
        losses = seen[3 * number : 3 * number + 3]
        for turn in (1, 2):
            source = order[turn - 1] if attribution == "trained" else order[turn]
            for target, name in enumerate(NAMES):
                a = 1 - losses[turn][name] / losses[turn - 1][name]
                if target != source or a >= 0:
                    want[source, target] = 0.5 * want[source, target] + 0.5 * a
    torch.testing.assert_close(step.affinity, want, rtol=1e-9, atol=1e-12)


def test_opposite_signs_within_a_group_count_as_a_conflict():
    step = SelectiveGroupsStep(decay=1.0, start="together")
    step.updates(FixedWeights(tasks=NAMES))
    one, two, three = NAMES
    step._learn([one, two], dict.fromkeys(NAMES, 1.0), {one: 0.6, two: 1.2, three: 0.8})
    want = torch.tensor([[0.2, -0.2, 0.1], [-0.2, 0.0, 0.1], [0.0, 0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(step.affinity, want)


class Pairs(nn.Module):
    """Two tasks pull the first number the same way, two others pull the second one apart."""

    def __init__(self) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.zeros(2, dtype=torch.float64))

    def forward(self, batch):
        goals = {"a": (0, 3.0), "b": (0, 2.5), "c": (1, 2.0), "d": (1, -2.0)}
        losses = {name: (self.x[i] - goal).square() + 0.1 for name, (i, goal) in goals.items()}
        return LossReport(losses)


def test_tasks_that_help_one_another_are_grouped_and_rivals_are_not():
    network, step = Pairs(), SelectiveGroupsStep(decay=0.1, warmup=10)
    balancer = FixedWeights(tasks=("a", "b", "c", "d"))
    problem = StepProblem(network, balancer, list(network.named_parameters()))
    for _ in range(20):

        def update():
            step(problem, make_batch(2))
            with torch.no_grad():
                network.x.sub_(0.01 * network.x.grad)
            network.x.grad = None
            step.after_update([(problem, make_batch(2))])
            return {}

        in_rounds(step, balancer, update)
    assert any({"a", "b"} <= set(group) for group in step.groups)
    assert not any({"c", "d"} <= set(group) for group in step.groups)


def test_a_rule_over_gradients_gets_the_tasks_of_the_group():
    """All together, with MGDA: the first of two updates is MGDA's."""
    batch, step = make_batch(4), SelectiveGroupsStep(start="together")
    balancer, found, want = MGDA(tasks=NAMES), make_toy(), make_toy()
    assert step.updates(balancer) == 2
    for one, network in ((step, found), (PlainStep(), want)):
        one(StepProblem(ToyForward(network), balancer, list(network.named_parameters())), batch)
    for name, item in gradients(want).items():
        if item is not None:
            torch.testing.assert_close(gradients(found)[name], item, rtol=1e-9, atol=1e-12)


def test_a_stop_between_batches_changes_nothing():
    batches = [make_batch(4, seed=seed) for seed in range(4)]
    straight, _ = trained(SelectiveGroupsStep(warmup=1, decay=0.5), FixedWeights(tasks=NAMES), batches)
    step, fresh = (SelectiveGroupsStep(warmup=1, decay=0.5) for _ in range(2))
    half, _ = trained(step, FixedWeights(tasks=NAMES), batches[:2])
    fresh.load_state_dict(step.state_dict())
    resumed, _ = trained(fresh, FixedWeights(tasks=NAMES), batches[2:], half)
    for name, item in straight.named_parameters():
        assert torch.equal(item, resumed.get_parameter(name)), name


def test_batches_without_a_group_leave_the_weights_to_the_others():
    lacking = {index: {"depth"} for index in range(4)}
    step = SelectiveGroupsStep()
    network, _ = trained(step, FixedWeights(tasks=NAMES), [make_batch(4, lacking=lacking)])
    assert torch.equal(network.heads["depth"].weight, make_toy().heads["depth"].weight)
    assert not torch.equal(network.trunk.weight, make_toy().trunk.weight)
    column = step.affinity[:, NAMES.index("depth")]
    assert not column.any()


def test_rules_with_state_for_every_task_are_refused_by_name():
    batch = make_batch(4, lacking={index: {"depth"} for index in range(4)})
    with pytest.raises(ValueError, match="MoCo keeps state for every task"):
        trained(SelectiveGroupsStep(start="together"), MoCo(tasks=NAMES), [batch])


def test_other_tasks_than_those_of_the_checkpoint_are_refused():
    step = SelectiveGroupsStep()
    step.updates(FixedWeights(tasks=NAMES))
    with pytest.raises(ValueError, match="the checkpoint has affinities of .*this run trains"):
        step.updates(FixedWeights(tasks=NAMES[:2]))


@pytest.mark.parametrize(
    ("precision", "make"),
    [("fp32", SelectiveGroupsStep), ("bf16", lambda: SparseStep({"type": "SelectiveGroupsStep"}))],
)
@pytest.mark.slow
def test_the_engine_updates_once_per_group(precision, make):
    """Micro-batches add up before each update."""
    case = StepCase(make=make)
    step = case.step()
    balancer = FixedWeights(tasks=case.names)
    module = TrainingModule(case.network(), case.tasks, balancer, step, micro_batches=2)
    optimizer = torch.optim.SGD([item for item in module.parameters() if item.requires_grad], lr=1e-3)
    calls = []
    optimizer.register_step_post_hook(lambda *_: calls.append(1))
    logs = module.train_step(
        case.batch(case.samples()), PrecisionOptimWrapper(optimizer, precision=precision)
    )
    assert len(calls) == len(case.tasks)
    assert float(logs["groups"]) == len(case.tasks)
    assert {f"loss/{name}" for name in case.names} <= set(logs)


def test_an_update_without_any_gradient_passes_the_loss_scaler():
    """Of a group that a batch has no labels of."""
    weight = nn.Parameter(torch.ones(2))
    wrapper = PrecisionOptimWrapper(torch.optim.SGD([weight], lr=1.0), precision="fp16")
    wrapper.scale(torch.ones(()))
    for _ in range(2):
        assert wrapper.is_sound()
        wrapper.step()
    assert torch.equal(weight, torch.ones(2))

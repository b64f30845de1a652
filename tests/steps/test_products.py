"""Products of gradients without a matrix, and weights that serve several batches."""

import copy

import pytest
import torch
from step_toy import NAMES, ToyForward, gradients, make_batch, make_toy
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from mtvision.balance import IMTL, MGDA, FixedWeights, GradNorm, NashMTL, NormScaling, TorchJD, UPGrad
from mtvision.steps import LossReport, PlainStep, StepProblem
from mtvision.steps.gradients import jacobian
from mtvision.steps.gradients.stages import StagedBackward, groups_of


class Pyramid(nn.Module):
    """Blocks with skips, a norm over the batch, levels that heads read, and one weight used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            [nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.ReLU(inplace=True)) for _ in range(4)]
        )
        self.twice = nn.Linear(6, 6)
        self.exchange = nn.Linear(18, 18)
        self.heads = nn.ModuleDict({name: nn.Linear(6, 2) for name in NAMES})
        self.unused = nn.Linear(2, 2)

    def forward(self, values):
        levels = [self.twice(values)]
        for block in self.blocks:
            levels.append(levels[-1] + block(levels[-1]))
        mixed = self.exchange(torch.cat([self.twice(levels[-1]) + levels[2], levels[1], levels[3]], dim=1))
        parts = zip(NAMES, mixed.chunk(3, dim=1), strict=True)
        return {name: self.heads[name](part + levels[1]) for name, part in parts}


def losses_of(network, seed=0):
    torch.manual_seed(seed)
    found = network(torch.randn(5, 6, dtype=torch.float64))
    return {name: (item - index).square().mean() for index, (name, item) in enumerate(found.items())}


def test_stages_give_the_gradients_of_plain_passes():
    torch.manual_seed(1)
    network = Pyramid().double()
    losses, parameters = losses_of(network), list(network.parameters())
    everything = frozenset(range(len(parameters)))
    graph = StagedBackward(losses, parameters, dict.fromkeys(losses, everything))
    order = sorted(everything, key=graph.finished)
    groups = groups_of(order, [parameters[index].numel() for index in order])
    assert len(groups) > 2
    plain = {
        name: torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        for name, loss in losses.items()
    }
    found = {}

    def receive(name, index, gradient):
        found[name, index] = found.get((name, index), 0) + gradient

    passed = []
    for number, last in graph.run(groups, receive, again=len(groups) - 1):
        passed.append(last)
        if last is not None:
            continue
        assert passed[-4:-1] == list(NAMES)
        for name, parts in plain.items():
            for index in groups[number]:
                if parts[index] is None:
                    assert (name, index) not in found
                else:
                    torch.testing.assert_close(found[name, index], parts[index], rtol=1e-12, atol=1e-14)
    assert number == len(groups) - 1
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(losses["depth"], network.twice.weight)


def test_a_parameter_of_heads_may_also_lie_behind_them():
    """A pass to it runs through the shared part, which other losses still need."""
    torch.manual_seed(1)
    choice, weight = (nn.Parameter(torch.randn(4, dtype=torch.float64)) for _ in range(2))
    trunk = (choice.exp() * weight).sin() * weight
    losses = {name: (trunk * (choice * number).cos()).sum() for number, name in enumerate(NAMES, 1)}
    wanted = [torch.autograd.grad(loss, (choice, weight), retain_graph=True) for loss in losses.values()]
    found = {}

    def receive(name, index, gradient):
        found[name, index] = found.get((name, index), 0) + gradient

    graph = StagedBackward(losses, [choice, weight], dict.fromkeys(losses, frozenset((0, 1))))
    for _ in graph.run([[1]], receive, again=0):
        pass
    for name, parts in zip(NAMES, wanted, strict=True):
        for index in (0, 1):
            torch.testing.assert_close(found[name, index], parts[index], rtol=1e-12, atol=1e-14)


class Looks(MGDA):
    """Notes which of some storages exist when it is asked."""

    def weigh(self, gramian, tasks):
        self.exist = {name: not ref.expired() for name, ref in self.made.items()}
        return super().weigh(gramian, tasks)


def test_maps_of_heads_are_gone_when_their_gradients_have_passed():
    """The last pass begins behind the heads, so that it needs the maps of the shared part alone."""
    network, balancer = make_toy(), Looks(tasks=NAMES).double()
    balancer.made = {}

    def keep(name, module, inputs, output):
        squared = output * output  # multiplication keeps its operand
        balancer.made[name] = StorageWeakRef(output.untyped_storage())
        return squared

    for name in NAMES:
        network.heads[name].register_forward_hook(lambda *given, name=name: keep(name, *given))
    network.trunk.register_forward_hook(lambda *given: keep("trunk", *given))
    run(balancer, [make_batch(2), make_batch(2)], PlainStep(products="stages"), network)
    assert balancer.exist == {"trunk": True, **dict.fromkeys(NAMES, False)}


def test_groups_are_no_larger_than_the_largest_parameter():
    assert groups_of([3, 1, 2, 0], [4, 6, 10, 1]) == [[3, 1], [2], [0]]
    assert groups_of([], []) == []


def run(balancer, batches, step, network=None, **options):
    network = network or make_toy()
    regulariser = options.pop("regulariser", 0.0)
    problem = StepProblem(
        ToyForward(network, regulariser), balancer, list(network.named_parameters()), **options
    )
    logs = [step(problem, batch) for batch in batches]
    return gradients(network), logs, {name: item.grad for name, item in balancer.named_parameters()}


PARTIAL = {0: {"depth"}, 1: {"depth"}, 2: {"depth"}, 3: {"depth"}}
RULES = [
    *(lambda name=name: TorchJD(tasks=NAMES, aggregator=name) for name in ("AlignedMTL", "PCGrad", "ConFIG")),
    *(lambda rule=rule: rule(tasks=NAMES) for rule in (UPGrad, MGDA, IMTL, GradNorm, NashMTL, NormScaling)),
]


@pytest.mark.parametrize("make", RULES)
def test_every_rule_gives_what_it_gives_with_the_matrix(make):
    """With accumulation, a loss scale, regularisers and a batch that lacks a task."""
    batches = [make_batch(4), make_batch(4, seed=2, lacking=PARTIAL)]
    found, want = (
        run(make().double(), batches, PlainStep(products=kind), regulariser=0.1, scale=lambda loss: loss * 64)
        for kind in ("stages", "matrix")
    )
    for ours, theirs in ((found[0], want[0]), (found[2], want[2])):
        assert ours.keys() == theirs.keys()
        for name, gradient in ours.items():
            if gradient is None or theirs[name] is None:
                assert gradient is theirs[name] is None
            else:
                scale = float(theirs[name].abs().max())
                torch.testing.assert_close(gradient, theirs[name], rtol=1e-9, atol=1e-11 * scale)


def test_clipped_tasks_give_the_same_with_and_without_the_matrix():
    found, want = (
        run(MGDA(tasks=NAMES), [make_batch(4)], PlainStep(clip_tasks=0.01, products=kind))[0]
        for kind in ("stages", "matrix")
    )
    for name, gradient in want.items():
        if gradient is not None:
            torch.testing.assert_close(found[name], gradient, rtol=1e-10, atol=1e-14)


class Large(TorchDispatchMode):
    """Numbers in storages of at least `least` of them that exist at the same time and were made inside."""

    def __init__(self, least: int, earlier: list[torch.Tensor]) -> None:
        super().__init__()
        self.least, self.peak, self._alive = least, 0, {}
        self._earlier = {item.untyped_storage().data_ptr() for item in earlier}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        for item in found if isinstance(found, tuple | list) else [found]:
            if isinstance(item, torch.Tensor) and item.untyped_storage().nbytes() >= 4 * self.least:
                storage = item.untyped_storage()
                if storage.data_ptr() not in self._earlier:
                    self._alive[storage.data_ptr()] = (StorageWeakRef(storage), storage.nbytes())
        self._alive = {key: pair for key, pair in self._alive.items() if not pair[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self._alive.values()) // 4)
        return found


def peak_of(balancer, products, width=48, depth=12):
    """Numbers in large tensors at the peak of a step, over those of the largest parameter."""
    torch.manual_seed(0)
    trunk = nn.Sequential(*(nn.Linear(width, width, bias=False) for _ in range(depth)))
    heads = nn.ModuleDict({name: nn.Linear(width, 1) for name in NAMES})
    image = torch.randn(2, width)

    def forward(batch):
        shared = trunk(image)
        return LossReport({name: (heads[name](shared) - 1).square().mean() for name in NAMES})

    named = [*trunk.named_parameters(), *heads.named_parameters()]
    step, problem = PlainStep(products=products), StepProblem(forward, balancer, named)
    step(problem, make_batch(2))  # finds out which losses reach what
    trunk.zero_grad()
    with Large(width * width, [item for _, item in named]) as counted:
        step(problem, make_batch(2))
    return counted.peak / width**2


def test_memory_is_that_of_a_gradient_and_some_layers():
    """12 layers, 3 tasks: 36 layers in the matrix and 12 for a task or the result.

    Without a matrix they are 12 of the result, 3 whose rows are kept, and one in the making.
    """
    assert peak_of(MGDA(tasks=NAMES), "matrix") == 36 + 12
    assert peak_of(MGDA(tasks=NAMES), "stages") <= 12 + 3 + 1


@pytest.mark.parametrize(("small", "asked"), [(0, 1), (2**24, 0)])
def test_a_small_matrix_is_stored_by_default(monkeypatch, small, asked):
    """torchjd's UPGrad is given the matrix then, and its `weigh` is not called."""
    monkeypatch.setattr(jacobian, "SMALL", small)
    balancer = Asked(tasks=NAMES)
    run(balancer, [make_batch(2)], PlainStep())
    assert balancer.asked == asked


# ------------------------------------------------------------------------------------------------- reuse


class Asked(UPGrad):
    """Counts how often it is asked."""

    asked = 0

    def weigh(self, gramian, tasks):
        self.asked += 1
        return super().weigh(gramian, tasks)


def test_weights_serve_the_following_batches():
    batches = [make_batch(4, seed=seed) for seed in range(5)]
    balancer, network = Asked(tasks=NAMES), make_toy()
    step = PlainStep(every=3, products="stages")
    _, logs, _ = run(balancer, batches, step, network)
    assert balancer.asked == 2
    weights = [[float(log[f"weight/{name}"]) for name in NAMES] for log in logs]
    assert weights[0] == weights[1] == weights[2] != weights[3] == weights[4]


@pytest.mark.parametrize(
    "make", [UPGrad, NashMTL, IMTL, lambda tasks: TorchJD(tasks=tasks, aggregator="Sum")]
)
def test_reused_weights_give_the_weighted_gradients(make):
    """The second batch gets the sum that the weights of the first describe; other tasks ask the rule."""
    batch, other = make_batch(4), make_batch(4, seed=2)
    balancer, step, network = make(tasks=NAMES).double(), PlainStep(every=2), make_toy()
    run(balancer, [batch], step, network)
    weights, own = balancer.weights(), balancer.own_weights()
    network.zero_grad()
    found, logs, _ = run(balancer, [other], step, network, regulariser=0.1)
    reference = make_toy()
    report = ToyForward(reference, 0.1)(other)
    named = [(name, item) for name, item in reference.named_parameters() if item.requires_grad]
    want = {}
    for task in NAMES:
        parts = torch.autograd.grad(
            report.losses[task], [item for _, item in named], retain_graph=True, allow_unused=True
        )
        for (name, _), part in zip(named, parts, strict=True):
            if part is not None:
                factor = float(own.get(task, 1.0)) if name.startswith("heads.") else float(weights[task])
                want[name] = want.get(name, 0) + factor * part
    extra = torch.autograd.grad(report.auxiliary["decay"], list(reference.trunk.parameters()))
    for (name, _), part in zip(reference.trunk.named_parameters(), extra, strict=True):
        want[f"trunk.{name}"] += part
    for name, gradient in want.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-12)
    assert float(logs[0][f"weight/{NAMES[0]}"]) == pytest.approx(float(weights[NAMES[0]]))


def test_a_batch_with_other_tasks_asks_the_rule():
    balancer = Asked(tasks=NAMES)
    step = PlainStep(every=9, products="stages")
    run(balancer, [make_batch(4), make_batch(4, lacking=PARTIAL), make_batch(4)], step)
    assert balancer.asked == 3


def test_reused_weights_are_part_of_the_state():
    batches = [make_batch(4, seed=seed) for seed in range(4)]
    step, balancer = PlainStep(every=3), UPGrad(tasks=NAMES)
    run(balancer, batches[:2], step)
    want = run(copy.deepcopy(balancer), batches[2:], copy.deepcopy(step))[0]
    fresh_step, fresh = PlainStep(every=3), UPGrad(tasks=NAMES)
    fresh_step.load_state_dict(step.state_dict())
    fresh.load_state_dict(balancer.state_dict())
    found = run(fresh, batches[2:], fresh_step)[0]
    for name, gradient in want.items():
        assert (gradient is None and found[name] is None) or torch.equal(found[name], gradient)
    assert not PlainStep().state_dict()


def test_what_cannot_be_reused_is_refused():
    with pytest.raises(ValueError, match="every reuses weights of gradients, but FixedWeights"):
        PlainStep(every=2).check_balancer(FixedWeights(tasks=NAMES))
    with pytest.raises(ValueError, match="every and clip_tasks exclude one another"):
        PlainStep(every=2, clip_tasks=1.0)
    balancer = TorchJD(tasks=NAMES, aggregator="GradDrop")
    with pytest.raises(ValueError, match="TorchJD gives no weights"):
        run(balancer, [make_batch(2)], PlainStep(every=2))

"""Means over processes begin as soon as what they are of is complete, in one order everywhere."""

import pytest
import torch
from step_toy import NAMES, ToyForward, gradients, make_batch, make_toy

from mtvision.balance import MGDA, TorchJD, UPGrad
from mtvision.steps import PlainStep, StepProblem
from mtvision.steps.gradients import exchange, products
from mtvision.steps.gradients.exchange import RowExchange


class Wire:
    """A `begin_average` of one process that notes what it was given, and when."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def __call__(self, tensors, reuse):
        self.events.append("begin")
        copies = [tensor if reuse else tensor.clone() for tensor in tensors]

        def wait():
            self.events.append("wait")
            return copies

        return wait


@pytest.fixture
def wire(monkeypatch) -> Wire:
    found = Wire()
    monkeypatch.setattr(exchange, "BUCKET", 8)
    monkeypatch.setattr(products, "BUCKET", 8)
    plain = torch.autograd.grad

    def noted(*given, **options):
        result = plain(*given, **options)
        found.events.append("pass")
        return result

    monkeypatch.setattr(torch.autograd, "grad", noted)
    return found


def run(balancer, step, batches, **options):
    network = make_toy()
    problem = StepProblem(ToyForward(network, 0.1), balancer, list(network.named_parameters()), **options)
    for batch in batches:
        step(problem, batch)
    return gradients(network)


LACKING = {index: {"depth"} for index in range(4)}
CASES = {
    "matrix": (lambda: UPGrad(tasks=NAMES), {"products": "matrix"}),
    "jacobian": (lambda: TorchJD(tasks=NAMES, aggregator="Sum"), {}),
    "stages": (lambda: MGDA(tasks=NAMES).double(), {"products": "stages"}),
    "reused": (lambda: MGDA(tasks=NAMES).double(), {"products": "stages", "every": 2}),
}


@pytest.mark.parametrize("case", list(CASES))
def test_the_result_is_the_same_to_the_last_bit(wire, case):
    make, options = CASES[case]
    batches = [make_batch(4), make_batch(4, seed=2), make_batch(4, seed=3, lacking=LACKING)]
    found = run(make(), PlainStep(**options), batches, begin_average=wire)
    want = run(make(), PlainStep(**options), batches)
    for name, gradient in want.items():
        assert (gradient is None and found[name] is None) or torch.equal(found[name], gradient)
    assert wire.events.count("begin") == wire.events.count("wait")


@pytest.mark.parametrize("case", ["matrix", "jacobian", "stages"])
def test_rows_travel_while_passes_go_on(wire, case):
    """The first mean begins before the last pass, and is waited for after the pass that follows it."""
    make, options = CASES[case]
    step = PlainStep(**options)
    network = make_toy()
    problem = StepProblem(ToyForward(network), make(), list(network.named_parameters()), begin_average=wire)
    step(problem, make_batch(2))
    wire.events.clear()  # the first batch also found the roles
    step(problem, make_batch(2))
    begin, wait = wire.events.index("begin"), wire.events.index("wait")
    assert "pass" in wire.events[begin:wait]


def test_rows_begin_in_the_order_of_the_tasks(wire):
    sent = []

    def row(number):
        sent.append(number)
        return torch.full((2,), float(number))

    problem = StepProblem(lambda batch: None, None, [], begin_average=wire)
    rows = RowExchange(problem, ["a", "b", "c", "d"], ["c", "a", "d"], row, apart=True, reuse=False)
    rows.complete("c")
    assert sent == []
    rows.complete("a")  # b has no loss here
    assert sent == [0, 1, 2]
    assert [float(item[0]) for item in rows.means()] == [0, 1, 2, 3]
    assert wire.events.count("begin") == 4
    together = RowExchange(problem, ["a", "b"], ["b"], row, apart=False, reuse=False)
    together.complete("b")
    assert len(sent) == 4
    assert len(together.means()) == 2
    assert wire.events.count("begin") == 5


def test_gradients_travel_in_buckets_during_the_pass(wire):
    """The last parameters come first; one without a gradient counts as zeros and comes last of all."""
    layers = [torch.nn.Parameter(torch.full((6,), 2.0)) for _ in range(4)]
    problem = StepProblem(lambda batch: None, None, [], begin_average=wire)
    pass_ = exchange.GradientExchange(problem, layers, [1.0, 1.0, 3.0, 1.0])
    product = layers[0].sum()
    product.register_hook(lambda _: wire.events.append("layer 0"))
    late = layers[3] * layers[2]
    with pass_.watching():
        (late.sum() + product).backward()
    assert wire.events.count("begin") == 2
    first, second, third, fourth = pass_.means()
    assert [float(item[0]) for item in (first, second, third, fourth)] == [1, 0, 6, 2]
    assert wire.events.count("begin") == 4
    assert all(item.grad is None for item in layers)

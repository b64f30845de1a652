"""Rules over gradients of a compiled network: the roles of parameters and the gradients are the same."""

import pytest
import torch
from step_toy import NAMES, ToyForward, gradients, make_batch, make_toy

from mtvision.balance import MGDA, FixedWeights, MoDo, TorchJD, UPGrad
from mtvision.steps import FlatRegionsStep, PlainStep, SelectiveGroupsStep, SeveralBatchesStep, StepProblem
from mtvision.steps.gradients.compiled import eager_report, is_compiled
from mtvision.steps.gradients.diagnostics import Diagnostics
from mtvision.steps.gradients.layout import Layouts, losses_of, trainable

pytestmark = pytest.mark.slow  # importing the compiler takes seconds
BATCHES = (make_batch(6), make_batch(6, seed=2))


@pytest.fixture(scope="module")
def compiled():
    """The toy, traced and run by torch's own kernels; a node of the graph is the whole network."""
    torch.compiler.reset()
    network = make_toy()
    whole = torch.compile(network, backend="aot_eager", fullgraph=True)
    return network, whole


def run(step, balancer, batches, network, forward=None):
    network.zero_grad()
    problem = StepProblem(
        ToyForward(network if forward is None else forward), balancer, list(network.named_parameters())
    )
    for batch in batches:
        step(problem, batch)
    return gradients(network)


CASES = {
    "stages": (PlainStep, lambda: UPGrad(tasks=NAMES)),
    "matrix": (lambda: PlainStep(products="matrix"), lambda: MGDA(tasks=NAMES)),
    "jacobian": (PlainStep, lambda: TorchJD(tasks=NAMES, aggregator="TrimmedMean", trim_number=1)),
    "reused weights": (lambda: PlainStep(every=2), lambda: UPGrad(tasks=NAMES)),
    "losses": (PlainStep, lambda: FixedWeights(tasks=NAMES)),
    "parts": (SeveralBatchesStep, lambda: MoDo(tasks=NAMES)),
    "flat regions": (FlatRegionsStep, lambda: MGDA(tasks=NAMES)),
    "groups": (lambda: SelectiveGroupsStep(start="together"), lambda: MGDA(tasks=NAMES)),
}


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=[] if case in ("stages", "losses") else [pytest.mark.long]) for case in CASES],
)
def test_gradients_are_those_without_compilation(compiled, case):
    make_step, make_balancer = CASES[case]
    network, whole = compiled
    found = run(make_step(), make_balancer().double(), BATCHES, network, whole)
    want = run(make_step(), make_balancer().double(), BATCHES, make_toy())
    for name, gradient in want.items():
        if gradient is None:
            assert found[name] is None or not found[name].any(), name
        else:
            torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-12, msg=name)


def test_a_head_belongs_to_its_task_though_the_node_serves_all(compiled):
    network, whole = compiled
    problem = StepProblem(ToyForward(whole), UPGrad(tasks=NAMES), list(network.named_parameters()))
    report = problem.forward(BATCHES[0])
    assert is_compiled(report.losses.values())
    assert not is_compiled(eager_report(problem, BATCHES[0]).losses.values())
    named = trainable(problem)
    layout = Layouts()(problem, BATCHES[0], named, losses_of(problem, report))
    shared = {named[index][0] for index in layout.shared}
    assert not any(name.startswith("heads.") for name in shared)
    assert "trunk.weight" in shared


def test_diagnostics_are_those_without_compilation(compiled):
    network, whole = compiled
    found, want = (
        Diagnostics()([(StepProblem(ToyForward(forward), FixedWeights(tasks=NAMES), named), BATCHES[0])])
        for forward, named in ((whole, list(network.named_parameters())), _plain())
    )
    assert found.keys() == want.keys()
    for name, value in want.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-12)


def _plain():
    network = make_toy()
    return network, list(network.named_parameters())

"""The matrix of gradients: passes that run together and a matrix on the CPU give the same gradients."""

from functools import partial

import pytest
import torch
from step_toy import NAMES, ToyForward, gradients, make_batch, make_toy

from mtvision.balance import DBMTL, MGDA, FixedWeights, TorchJD, UPGrad
from mtvision.core.sample import Batch
from mtvision.steps import PlainStep, StepProblem
from mtvision.testing.processes import Group

PARTIAL = make_batch(4, seed=2, lacking={index: {"depth"} for index in range(4)})
RULES = {
    "MGDA": lambda: MGDA(tasks=NAMES),
    "GradDrop": lambda: TorchJD(tasks=NAMES, aggregator="GradDrop"),
    "LogLosses": lambda: DBMTL(tasks=NAMES),
}


def run(step, balancer, batches, **options):
    network = make_toy()
    problem = StepProblem(
        ToyForward(network, 0.1), balancer.double(), list(network.named_parameters()), **options
    )
    for batch in batches:
        step(problem, batch)
    return gradients(network)


def equal(found, want):
    assert found.keys() == want.keys()
    for name, gradient in want.items():
        if gradient is None:
            assert found[name] is None, name
        else:
            torch.testing.assert_close(found[name], gradient, rtol=1e-10, atol=1e-13, msg=name)


@pytest.mark.parametrize(
    "options", [{"chunk": 2}, {"chunk": 9}, {"offload": True}, {"chunk": 2, "offload": True}]
)
@pytest.mark.parametrize("rule", list(RULES))
def test_storage_changes_no_gradient(rule, options):
    """With a regulariser, a loss scale and, where the rule takes them, partial labels."""
    batches = [make_batch(4), PARTIAL if rule == "MGDA" else make_batch(4, seed=3)]
    found, want = (
        run(PlainStep(products="matrix", **one), RULES[rule](), batches, scale=lambda loss: loss * 8)
        for one in (options, {})
    )
    equal(found, want)


@pytest.mark.parametrize("options", [{"offload": True}, {"chunk": 3, "offload": True}])
def test_rows_are_averaged_over_processes(options):
    """One process has no labels of depth, the other none of edges."""
    whole = make_batch(8, seed=5)

    def half(start: int, absent: str) -> Batch:
        part = whole.part(list(range(start, start + 4)))
        kept = [name for name in part.labels if name != absent]
        return Batch(
            part.image, {n: part.labels[n] for n in kept}, {n: part.present[n] for n in kept}, part.meta
        )

    halves = [half(0, "depth"), half(4, "edge")]
    results = []
    for one in (options, {}):
        group = Group(2)
        step = partial(PlainStep, products="matrix", **one)
        results.append(
            group.run(
                [
                    partial(run, step(), RULES["MGDA"](), [part], average=group.average, gather=group.gather)
                    for part in halves
                ]
            )
        )
    equal(results[0][0], results[1][0])
    equal(results[0][0], results[0][1])


def test_an_offloaded_matrix_is_on_the_cpu():
    """So it is here in any case; the rule is given it there, whatever the device of the network."""
    seen = []

    class Looking(UPGrad):
        def aggregate(self, jacobian, tasks):
            seen.append(jacobian.device.type)
            return super().aggregate(jacobian, tasks)

    run(PlainStep(offload=True), Looking(tasks=NAMES), [make_batch(2)])
    assert seen == ["cpu"]


@pytest.mark.parametrize("balancer", [FixedWeights(tasks=NAMES), UPGrad(tasks=NAMES)])
def test_storage_without_a_matrix_is_refused(balancer):
    with pytest.raises(ValueError, match="chunk and offload are about a matrix of gradients"):
        PlainStep(chunk=2).check_balancer(balancer)

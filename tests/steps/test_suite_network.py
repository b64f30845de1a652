"""PlainStep on a network of the suite: all six tasks, batch normalisation, side exits of a real backbone."""

import pytest
import torch
from step_toy import gradients

from mtvision.balance import FixedWeights, TorchJD, UPGrad
from mtvision.core.roles import SHARED, find_roles
from mtvision.core.sample import Batch, Meta, Sample, collate
from mtvision.losses import TaskLosses
from mtvision.models.factory import build_network
from mtvision.protocols import SYNTHETIC
from mtvision.steps import LossReport, PlainStep, StepProblem

NAMES = SYNTHETIC.task_names
MODEL = {
    "backbone": {"type": "TimmBackbone", "name": "test_resnet.r160_in1k", "pretrained": False},
    "decoder": {"type": "ParallelDecoder"},
    "head": {"type": "ConvHead"},
}


def make_batch() -> Batch:
    samples = []
    for index in range(2):
        labels = {
            task.name: torch.randint(task.num_classes, (32, 32))
            if task.label == "classes"
            else torch.rand(task.label_channels, 32, 32)
            for task in SYNTHETIC.tasks
        }
        samples.append(Sample(torch.randn(3, 32, 32).double(), labels, Meta(str(index), (32, 32), (32, 32))))
    return collate(samples)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return build_network(MODEL, SYNTHETIC.tasks).double().train()


@pytest.fixture(scope="module")
def batch():
    torch.manual_seed(1)
    return make_batch()


def losses_of(network, batch):
    return TaskLosses(SYNTHETIC.tasks)(network.outputs(batch.image, size=batch.label_size), batch)


def run(network, batch, balancer):
    network.zero_grad(set_to_none=True)
    problem = StepProblem(
        lambda item: LossReport(losses_of(network, item)), balancer, list(network.named_parameters())
    )
    logs = PlainStep()(problem, batch)
    return gradients(network), logs


@pytest.mark.slow
def test_roles_follow_the_architecture(network, batch):
    roles = find_roles(losses_of(network, batch), network.named_parameters())
    for name, role in roles.items():
        part, _, rest = name.partition(".")
        if part == "backbone":
            assert role == SHARED, name
        else:
            assert role.removeprefix("task:") in rest, name
    assert set(roles.values()) == {SHARED, *(f"task:{name}" for name in NAMES)}


def test_summed_rows_are_plain_training(network, batch):
    jacobian, _ = run(network, batch, TorchJD(tasks=NAMES, aggregator="Sum"))
    plain, _ = run(network, batch, FixedWeights(tasks=NAMES))
    for name, gradient in plain.items():
        if gradient is None:
            assert jacobian[name] is None, name
        else:
            torch.testing.assert_close(jacobian[name], gradient, rtol=1e-9, atol=1e-12)


def test_upgrad_resolves_conflicts(network, batch):
    """The update of the backbone has no negative product with any task's gradient (up to regularisation)."""
    ours, logs = run(network, batch, UPGrad(tasks=NAMES))
    trunk = [(name, item) for name, item in network.named_parameters() if ours[name] is not None]
    trunk = [(name, item) for name, item in trunk if name.startswith("backbone")]
    update = torch.cat([ours[name].reshape(-1) for name, _ in trunk])
    squares, products = [], []
    for loss in losses_of(network, batch).values():
        parts = torch.autograd.grad(
            loss, [item for _, item in trunk], retain_graph=True, materialize_grads=True
        )
        gradient = torch.cat([part.reshape(-1) for part in parts])
        squares.append(gradient.square().sum())
        products.append(gradient @ update)
    assert min(products) > -1e-3 * sum(squares)
    assert set(logs) == {*(f"loss/{n}" for n in NAMES), *(f"weight/{n}" for n in NAMES), "total"}

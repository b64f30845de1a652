"""What is computed again in the backward pass changes no number."""

from __future__ import annotations

import copy
import pickle
import sys
from pathlib import Path

import pytest
import torch

from mtvision.core.context import Context, current_context, use_context
from mtvision.core.naming import UnknownNameError
from mtvision.models.computed_again import computed_again
from mtvision.models.heads import ConvHead
from mtvision.models.network import Network
from mtvision.models.recompute import recompute
from mtvision.testing.inputs import ToyBackbone, random_image, toy_tasks
from mtvision.testing.modules import Setting

sys.path.insert(0, str(Path(__file__).parent))
from examples import EXAMPLES

DECODERS = {item.label: item for item in EXAMPLES if item.kind == "decoder"}


def network(case):
    torch.manual_seed(0)
    backbone = copy.deepcopy(case.backbone)
    made = case.make(channels=backbone.channels, strides=backbone.strides, tasks=case.tasks)
    heads = {task.name: ConvHead(made.out_channels[task.name], task, hidden=8) for task in case.tasks}
    return Network(backbone, made, heads, case.tasks).double()


def step(net, image):
    torch.manual_seed(1)
    output = net.train().outputs(image)
    maps = [*output.logits.values(), *(item.logits for item in output.auxiliary)]
    loss = sum(item.double().square().mean() for item in maps) + sum(net.auxiliary_losses().values())
    loss.backward()
    gradients = {name: item.grad for name, item in net.named_parameters()}
    return loss.detach(), gradients, net.state_dict()


@pytest.mark.parametrize("label", DECODERS)
def test_a_decoder_computed_again_has_the_same_gradients_and_statistics(label):
    case = DECODERS[label].build(Setting(dtype=torch.float64), Path())
    image = random_image(2, case.size).double()
    plain, saving = network(case), network(case)
    units = recompute(saving, ["decoder", "backbone", "heads.*"])
    assert any(unit.startswith("decoder") for unit in units)
    assert list(saving.state_dict()) == list(plain.state_dict())
    torch.testing.assert_close(step(saving, image), step(plain, image), rtol=1e-10, atol=1e-12)


class Counted(torch.nn.Sequential):
    calls = 0

    def forward(self, x):
        Counted.calls += 1
        return super().forward(x)


def toy():
    case = DECODERS["ParallelDecoder"].build(Setting(), Path())
    net = network(case).float()
    net.heads["depth"] = Counted(net.heads["depth"])
    return net, random_image(2, case.size)


def test_a_module_is_called_twice_in_training_and_once_in_evaluation(monkeypatch):
    monkeypatch.setattr(Counted, "calls", 0)
    net, image = toy()
    assert recompute(net, ["heads.depth", "heads.depth.*"]) == ["heads.depth"]
    step(net, image)
    assert Counted.calls == 2
    net.eval()(image)
    assert Counted.calls == 3
    with torch.no_grad():
        net.train()(image)
    assert Counted.calls == 4


def test_a_copy_computes_its_own_weights():
    net, image = toy()
    recompute(net, ["decoder", "heads.*"])
    other = copy.deepcopy(net)
    pickled = pickle.loads(pickle.dumps(net))
    with torch.no_grad():
        for item in net.parameters():
            item.zero_()
    assert not net.eval()(image)["depth"].any()
    assert other.eval()(image)["depth"].any()
    assert pickled.eval()(image)["depth"].any()
    step(other, image)
    assert all(item.grad is None for item in net.parameters())


def test_every_backward_pass_computes_again():
    """Rules over gradients take one pass per task."""
    net, image = toy()
    recompute(net, ["decoder"])
    plain, _ = toy()
    found, wanted = [], []
    for one, gradients in ((net, found), (plain, wanted)):
        weights = list(one.decoder.parameters())
        for item in one.train()(image).values():
            total = item.square().sum()
            gradients += torch.autograd.grad(total, weights, retain_graph=True, allow_unused=True)
    torch.testing.assert_close(found, wanted)


def test_the_second_time_has_the_context_and_the_draws_of_the_first():
    seen = []

    def run(x):
        seen.append((current_context().task, torch.rand(()).item()))
        return x.exp()

    x = torch.ones(2, requires_grad=True)
    with use_context(Context(task="depth")):
        y = computed_again(run, None, x)
    y.sum().backward()
    assert len(seen) == 2
    assert seen[0] == seen[1]
    assert seen[0][0] == "depth"


def test_a_pattern_that_matches_nothing_is_named():
    net, _ = toy()
    with pytest.raises(UnknownNameError, match="module in training.recompute 'decoders'. Did you mean"):
        recompute(net, ["decoders"])


def test_modules_of_single_tasks_are_named_without_single_layers():
    made = ToyBackbone()
    for label, want in {
        "ParallelDecoder": "decoders.depth",
        "MTMambaDecoder": "stages.0.blocks.depth",
    }.items():
        case = DECODERS[label].build(Setting(), Path())
        decoder = case.make(channels=made.channels, strides=made.strides, tasks=toy_tasks())
        assert want in decoder.recomputed()
        assert all(list(decoder.get_submodule(path).children()) for path in decoder.recomputed())

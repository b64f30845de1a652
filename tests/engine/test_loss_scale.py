"""fp16's loss scale: it leaves the update as it is, skips what overflowed, and is part of a checkpoint."""

from __future__ import annotations

import copy
from contextlib import nullcontext

import pytest
import torch
from discs import PROTOCOL, TinyDiscs
from torch import nn

from mtvision.core.registry import BALANCERS
from mtvision.core.sample import collate
from mtvision.engine import module as module_file
from mtvision.engine.module import TrainingModule
from mtvision.engine.optimization.wrapper import PrecisionOptimWrapper
from mtvision.models.factory import build_network
from mtvision.steps.plain import PlainStep

SCALE = 65536.0  # torch's first one; a power of two, so that scaling and unscaling are exact


def wrapper_of(precision, value=0.0, max_norm=None, momentum=0.0):
    weight = nn.Parameter(torch.full((2,), value))
    optimizer = torch.optim.SGD([weight], lr=1.0, momentum=momentum)
    return weight, PrecisionOptimWrapper(optimizer, precision=precision, max_norm=max_norm)


def step(weight, wrapper, gradient):
    wrapper.scale(weight @ torch.tensor(gradient)).backward()
    if wrapper.is_sound():
        wrapper.step()
    else:
        wrapper.skip()


def test_loss_is_scaled_in_fp16_alone():
    loss = torch.tensor(3.0)
    assert wrapper_of("fp16")[1].scale(loss) == 3 * SCALE
    for precision in ("fp32", "bf16"):
        assert wrapper_of(precision)[1].scale(loss) is loss


@pytest.mark.parametrize("max_norm", [None, 1.0])
def test_update_is_that_of_fp32(max_norm):
    """Gradients are unscaled before they are clipped; clipping to 1 makes (3, 4) into (0.6, 0.8)."""
    found = []
    for precision in ("fp16", "fp32"):
        weight, wrapper = wrapper_of(precision, max_norm=max_norm)
        step(weight, wrapper, [3.0, 4.0])
        assert weight.grad is None
        found.append(weight.detach())
    assert torch.equal(*found)
    expected = [-3.0, -4.0] if max_norm is None else [-0.6, -0.8]
    torch.testing.assert_close(found[0], torch.tensor(expected), rtol=1e-5, atol=1e-6)


@pytest.mark.fault("fp16 gradients overflow", expected="the step is left out, the scale is halved")
def test_overflow_skips_the_update_and_halves_the_scale():
    weight, wrapper = wrapper_of("fp16", value=1.0)
    step(weight, wrapper, [3e38, 1.0])  # times the scale, that is infinite
    assert weight.tolist() == [1, 1]
    assert wrapper.scale(torch.tensor(1.0)) == SCALE / 2
    step(weight, wrapper, [3.0, 4.0])
    assert weight.tolist() == [-2, -3]


def test_checkpoint_keeps_the_scale():
    weight, wrapper = wrapper_of("fp16", momentum=0.5)
    step(weight, wrapper, [3e38, 1.0])
    step(weight, wrapper, [1.0, 2.0])
    state = copy.deepcopy(wrapper.state_dict())  # torch goes on with the tensors it is given
    assert state["loss_scaler"]["scale"] == SCALE / 2
    assert state["loss_scaler"]["_growth_tracker"] == 1
    other_weight, other = wrapper_of("fp16", momentum=0.5)
    other.load_state_dict(state)
    assert "loss_scaler" in state, "what is loaded is left as it is"
    assert other.scale(torch.tensor(1.0)) == SCALE / 2
    other_weight.data.copy_(weight.data)
    for one, owner in ((weight, wrapper), (other_weight, other)):
        step(one, owner, [1.0, 1.0])
    assert torch.equal(weight, other_weight), "the optimizer's momentum is loaded too"


@pytest.mark.parametrize(("saved", "loaded"), [("fp32", "fp16"), ("fp16", "fp32"), ("bf16", "fp32")])
def test_checkpoint_of_another_precision_loads(saved, loaded):
    weight, wrapper = wrapper_of(saved)
    step(weight, wrapper, [1.0, 1.0])
    state = wrapper.state_dict()
    assert ("loss_scaler" in state) == (saved == "fp16")
    _, other = wrapper_of(loaded)
    other.load_state_dict(state)
    assert other.scale(torch.tensor(1.0)) == (SCALE if loaded == "fp16" else 1)


@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize("kind", ["FixedWeights", "UPGrad"])
def test_training_step_with_a_loss_scale_equals_one_without(kind, micro_batches, monkeypatch):
    """All gradients, those of shared parameters under UPGrad too. The forward pass stays in fp32 here."""
    monkeypatch.setattr(module_file, "autocast", lambda precision, device: nullcontext())
    found = {}
    for precision in ("fp32", "fp16"):
        torch.manual_seed(0)
        model = {
            "backbone": {"type": "DropoutNet", "norm": "group"},
            "decoder": {"type": "ParallelDecoder", "width": 8},
            "head": {"type": "ConvHead"},
        }
        network = build_network(model, PROTOCOL.tasks)
        names = PROTOCOL.task_names
        rule = BALANCERS.build({"type": kind, "tasks": names})
        training = TrainingModule(network, PROTOCOL.tasks, rule, PlainStep(), micro_batches=micro_batches)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
        training.train_step(batch(), PrecisionOptimWrapper(optimizer, precision=precision, max_norm=1.0))
        found[precision] = {name: value.clone() for name, value in network.state_dict().items()}
    for name, value in found["fp32"].items():
        torch.testing.assert_close(found["fp16"][name], value, rtol=1e-5, atol=1e-7, msg=name)


def batch():
    data = TinyDiscs(protocol=PROTOCOL, split="train", transforms="tensor", length=4)
    return collate([data[index] for index in range(4)])

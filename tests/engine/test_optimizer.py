"""Parameter groups: who decays, how the rate shrinks with depth, and what a balancer's parameters get."""

from __future__ import annotations

import pytest
import torch

from mtvision.balance import Uncertainty
from mtvision.core.naming import UnknownNameError
from mtvision.engine.optimization.optimizer import build_optimizer
from mtvision.engine.optimization.wrapper import PrecisionOptimWrapper
from mtvision.models.factory import build_network
from mtvision.protocols import own_protocol
from mtvision.runtime.precision import autocast

PROTOCOL = own_protocol("two", {"depth": {}, "normals": {}})
MODEL = {
    "backbone": {"type": "TimmBackbone", "name": "test_vit"},
    "decoder": {"type": "ParallelDecoder", "width": 8},
    "head": {"type": "ConvHead"},
}


@pytest.fixture(scope="module")
def network():
    return build_network(MODEL, PROTOCOL.tasks)


def group_of(optimizer, parameter):
    (found,) = [
        group for group in optimizer.param_groups if any(item is parameter for item in group["params"])
    ]
    return found


def test_every_trainable_parameter_is_in_exactly_one_group(network):
    balancer = Uncertainty(tasks=PROTOCOL.task_names)
    optimizer = build_optimizer(network, balancer, {"type": "AdamW", "lr": 0.1, "weight_decay": 0.5})
    grouped = [item for group in optimizer.param_groups for item in group["params"]]
    wanted = [*network.parameters(), *balancer.parameters()]
    assert len(grouped) == len({id(item) for item in grouped}) == len(wanted)
    assert {id(item) for item in grouped} == {id(item) for item in wanted}


def test_norms_biases_embeddings_and_the_balancer_do_not_decay(network):
    balancer = Uncertainty(tasks=PROTOCOL.task_names)
    config = {"type": "AdamW", "lr": 0.1, "weight_decay": 0.5, "balancer_lr": 0.7}
    optimizer = build_optimizer(network, balancer, config)
    for name, parameter in network.named_parameters():
        exempt = parameter.ndim <= 1 or "pos_embed" in name or "cls_token" in name
        assert group_of(optimizer, parameter)["weight_decay"] == (0.0 if exempt else 0.5), name
    own = group_of(optimizer, next(balancer.parameters()))
    assert (own["lr"], own["weight_decay"]) == (0.7, 0.0)
    everything = build_optimizer(network, balancer, {**config, "no_decay": False})
    assert all(group_of(everything, item)["weight_decay"] == 0.5 for item in network.parameters())


def test_layer_decay_is_a_power_of_the_distance_to_the_last_block(network):
    config = {"type": "AdamW", "lr": 1.0, "layer_decay": 0.5, "backbone_lr": 0.1}
    optimizer = build_optimizer(network, Uncertainty(tasks=PROTOCOL.task_names), config)
    blocks = network.backbone.blocks
    for index, block in enumerate(blocks):
        parameter = next(network.backbone.get_submodule(block.name).parameters())
        expected = 0.1 * 0.5 ** (len(blocks) - index)
        assert group_of(optimizer, parameter)["lr"] == pytest.approx(expected)
    stem = network.backbone.model.patch_embed.proj.weight
    assert group_of(optimizer, stem)["lr"] == pytest.approx(0.1 * 0.5 ** (len(blocks) + 1))
    assert group_of(optimizer, next(network.decoder.parameters()))["lr"] == 1.0


def test_factors_of_chosen_parameters(network):
    factors = {"heads.depth.*": 100, "heads.*": 10, "backbone.*": 0.5}  # the first that matches counts
    config = {"type": "SGD", "lr": 0.1, "backbone_lr": 0.1, "lr_factors": factors}
    optimizer = build_optimizer(network, Uncertainty(tasks=PROTOCOL.task_names), config)
    expected = {"heads.depth": 10.0, "heads.normals": 1.0, "backbone": 0.005, "decoder": 0.1}
    for name, parameter in network.named_parameters():
        rate = next(rate for prefix, rate in expected.items() if name.startswith(prefix))
        assert group_of(optimizer, parameter)["lr"] == pytest.approx(rate), name
    with pytest.raises(ValueError, match=r"'heds\.\*', which matches no"):
        build_optimizer(network, torch.nn.Identity(), {"lr": 0.1, "lr_factors": {"heds.*": 2}})


def test_frozen_parameters_are_left_out_and_mistakes_are_named(network):
    balancer = Uncertainty(tasks=PROTOCOL.task_names)
    frozen = next(network.parameters())
    frozen.requires_grad_(False)
    try:
        optimizer = build_optimizer(network, balancer, {"lr": 0.1})
        assert all(item is not frozen for group in optimizer.param_groups for item in group["params"])
    finally:
        frozen.requires_grad_(True)
    with pytest.raises(ValueError, match="'lr' is missing"):
        build_optimizer(network, balancer, {"type": "AdamW"})
    with pytest.raises(UnknownNameError, match="Did you mean .*'AdamW'"):
        build_optimizer(network, balancer, {"type": "AdamV", "lr": 1})


def test_clipping_bounds_the_step():
    weight = torch.nn.Parameter(torch.zeros(2))
    wrapper = PrecisionOptimWrapper(torch.optim.SGD([weight], lr=1.0), max_norm=1.0)
    weight.grad = torch.tensor([3.0, 4.0])
    assert wrapper.is_sound()
    wrapper.step()
    torch.testing.assert_close(weight.data, torch.tensor([-0.6, -0.8]), rtol=1e-4, atol=1e-4)
    assert weight.grad is None


def test_precision_of_the_forward_pass():
    x = torch.ones(2, 2)
    with autocast("bf16", x.device):
        assert (x @ x).dtype == torch.bfloat16
    with autocast("fp32", x.device):
        assert (x @ x).dtype == torch.float32
    with pytest.raises(ValueError, match="fp16 needs a GPU"), autocast("fp16", x.device):
        pass

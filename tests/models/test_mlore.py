"""MLoRE: against a plain re-derivation, folded form, published sizes, conversion."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mtvision.core.pyramid import Pyramid
from mtvision.core.registry import LOSSES
from mtvision.engine.building import tasks_with_losses
from mtvision.models.convert import convert, revert
from mtvision.models.decoders import MLoREDecoder
from mtvision.models.factory import build_network
from mtvision.protocols import get_protocol
from mtvision.recipe.config import load_config
from mtvision.recipe.settings import Settings

CONFIGS = Path(__file__).parents[2] / "configs/mlore"
TASKS = get_protocol("nyud-invpt").tasks[:3]
NAMES = [task.name for task in TASKS]


def decoder(**options):
    torch.manual_seed(0)
    given = {
        "width": 8,
        "ranks": (1, 2, 3),
        "task_rank": 2,
        "top_k": 2,
        "grid": (3, 4),
        "balance": 0.5,
    } | options
    made = MLoREDecoder(channels=(6, 6), strides=(16, 16), tasks=TASKS, **given)
    for norm in made.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.uniform_(-0.5, 0.5)
            norm.running_var.uniform_(0.5, 2.0)
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.uniform_(norm.bias, -0.5, 0.5)
    for parameter in made.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return made.eval()


def pyramid(batch=2, size=(3, 4)):
    generator = torch.Generator().manual_seed(1)
    return Pyramid.of([torch.randn(batch, 6, *size, generator=generator) for _ in range(2)], (16, 16))


def plain_norm(state, path, x):
    mean, var = state[f"{path}.running_mean"], state[f"{path}.running_var"]
    x = (x - mean[:, None, None]) / torch.sqrt(var[:, None, None] + 1e-5)
    return x * state[f"{path}.weight"][:, None, None] + state[f"{path}.bias"][:, None, None]


def plain_conv(state, path, x, padding=0):
    return F.conv2d(x, state[f"{path}.weight"], state[f"{path}.bias"], padding=padding)


def plain_gate(state, path, x):
    """Scores of one map (1, C, h, w), pixel by pixel."""
    pixels = x[0].flatten(1).T
    local = []
    for pixel in pixels:
        y = state[f"{path}.local.weight"][..., 0, 0] @ pixel + state[f"{path}.local.bias"]
        y = F.layer_norm(y, y.shape, state[f"{path}.local_norm.weight"], state[f"{path}.local_norm.bias"])
        local.append(
            state[f"{path}.local_out.weight"][..., 0, 0] @ F.gelu(y) + state[f"{path}.local_out.bias"]
        )
    weights = state[f"{path}.pool.weight"][0]
    pooled = sum(w * pixel for w, pixel in zip(weights, pixels, strict=True)) + state[f"{path}.pool.bias"]
    pooled = F.layer_norm(
        pooled, pooled.shape, state[f"{path}.pool_norm.weight"], state[f"{path}.pool_norm.bias"]
    )
    pooled = state[f"{path}.pool_out.weight"][..., 0, 0] @ F.gelu(pooled) + state[f"{path}.pool_out.bias"]
    both = torch.cat([torch.stack(local).mean(0), pooled])
    return state[f"{path}.scores.weight"][..., 0, 0] @ both + state[f"{path}.scores.bias"]


def plain_block(state, path, x, name, drop, count=3, top_k=2):
    x = plain_conv(state, f"{path}.before.{name}", x)
    scores = plain_gate(state, f"{path}.router.{name}.gate", x)
    raw, own = scores[:count].tolist(), scores[2 * count]
    best = sorted(range(count), key=lambda i: -raw[i])[:top_k]
    pool = best if drop == "before" else range(count)
    total = sum(math.exp(raw[i]) for i in pool)
    mixed = 0
    for i in best:
        low = plain_conv(state, f"{path}.experts.{i}.down", x, padding=1)
        mixed = mixed + math.exp(raw[i]) / total * plain_conv(state, f"{path}.experts.{i}.up", low)
    task = plain_conv(
        state, f"{path}.own.{name}.up", plain_conv(state, f"{path}.own.{name}.down", x, padding=1)
    )
    y = plain_norm(state, f"{path}.experts_norm.{name}", mixed) + own * task
    y = plain_norm(state, f"{path}.norm.{name}", y + plain_conv(state, f"{path}.shared", x, padding=1))
    return plain_conv(state, f"{path}.after.{name}", F.gelu(y))


@pytest.mark.parametrize("drop", ["before", "after"])
def test_equals_the_formulas(drop):
    made, maps = decoder(drop=drop), pyramid()
    state = made.state_dict()
    features = made(maps).features
    for name in NAMES:
        for image in range(2):
            found = []
            for level in range(2):
                x = plain_conv(state, f"reduce.{level}", maps.maps[level][image : image + 1])
                x = plain_block(state, f"first.{level}", x, name, drop)
                found.append(plain_block(state, f"second.{level}", x, name, drop))
            scores = plain_conv(state, f"levels.{name}.0", torch.cat(found, dim=1))
            scores = F.gelu(plain_norm(state, f"levels.{name}.1", scores))
            weights = plain_conv(state, f"levels.{name}.3", scores, padding=1).softmax(dim=1)
            expected = weights[:, :1] * found[0] + weights[:, 1:] * found[1]
            expected = F.interpolate(expected, scale_factor=4, mode="bilinear")
            torch.testing.assert_close(features[name][image : image + 1], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("drop", ["before", "after"])
def test_folded_form_agrees_and_is_rebuilt_from_its_state(drop):
    made, maps = decoder(drop=drop), pyramid()
    expected = made(maps).features
    made.fold()
    again = decoder(drop=drop, folded=True)
    again.load_state_dict(made.state_dict())
    for name in NAMES:
        torch.testing.assert_close(made(maps).features[name], expected[name], rtol=1e-5, atol=1e-5)
        assert torch.equal(again(maps).features[name], made(maps).features[name])
    with pytest.raises(RuntimeError, match="folded decoder only predicts"):
        made.train()(maps)


def test_one_expert_of_full_rank_is_a_convolution():
    """With one expert its weight is 1: a 3x3 convolution whose kernel is the product of both factors."""
    made = decoder(ranks=(8,), top_k=1)
    expert = made.first[0].experts[0]
    x = pyramid().maps[0].repeat(1, 2, 1, 1)[:, :8]
    expected = F.conv2d(x, expert.kernel(), expert.constant(), padding=1)
    torch.testing.assert_close(made.first[0]._experts(x, torch.ones(2, 1)), expected, rtol=1e-5, atol=1e-5)


def test_load_balancing_loss_is_zero_for_even_use_and_known_for_one_expert():
    made, maps = decoder(), pyramid()
    assert made.auxiliary_loss() == 0
    made.train()
    blocks = (*made.first, *made.second)
    for block in blocks:
        block._routing.append(torch.full((4, 3), 1 / 3))
    assert float(made.auxiliary_loss()) == pytest.approx(0, abs=1e-12)
    for block in blocks:
        block._routing.append(torch.tensor([[1.0, 0.0, 0.0]]))
    # mean 1/3, unbiased standard deviation sqrt((4/9 + 1/9 + 1/9) / 2) = sqrt(1/3)
    assert float(made.auxiliary_loss()) == pytest.approx(0.5 * len(blocks) * 3.0)
    made(maps)
    loss = made.auxiliary_loss()
    assert loss > 0
    assert loss.requires_grad
    assert made.auxiliary_loss() == 0


def test_gradients_reach_everything_but_noise_of_unused_experts():
    made, maps = decoder(top_k=3, drop="after"), pyramid(batch=4)
    made.train()
    output = made(maps).features
    (
        sum((item * torch.randn_like(item)).sum() for item in output.values()) + made.auxiliary_loss()
    ).backward()
    without = [name for name, item in made.named_parameters() if item.grad is None or not item.grad.any()]
    # A convolution's bias in front of a batch norm cancels out; rounding leaves next to nothing.
    assert without == [] or all(name.endswith("bias") for name in without)


def test_fewer_tasks_change_nothing_and_odd_grids_are_refused():
    made, maps = decoder(), pyramid()
    alone, together = made(maps, [NAMES[1]]).features, made(maps).features
    assert list(alone) == [NAMES[1]]
    assert torch.equal(alone[NAMES[1]], together[NAMES[1]])
    with pytest.raises(ValueError, match=r"made for maps of \(3, 4\) .* got \(3, 5\)"):
        made(pyramid(size=(3, 5)))
    free = decoder(grid=None)
    single = free(pyramid(batch=1, size=(3, 5))).features
    assert single[NAMES[0]].shape == (1, 8, 12, 20)
    for bad in ({"top_k": 4}, {"top_k": 0}, {"drop": "never"}):
        with pytest.raises(ValueError, match="MLoRE"):
            decoder(**bad)


def vit_network(**options):
    cfg = {
        "backbone": {
            "type": "TimmBackbone",
            "name": "vit_tiny_patch16_224",
            "img_size": (48, 64),
            "embed_dim": 12,
            "depth": 4,
        },
        "adapters": [{"type": "DropClassToken"}],
        "decoder": {
            "type": "MLoREDecoder",
            "width": 8,
            "ranks": (1, 2),
            "task_rank": 2,
            "top_k": 1,
            "grid": (3, 4),
        },
        "head": {"type": "ConvHead", "hidden": 8, "activation": "gelu"},
    }
    torch.manual_seed(0)
    return build_network(cfg, TASKS)


def test_conversion_round_trip():
    network = vit_network()
    state = network.state_dict()
    official, _ = revert(state, "mlore")
    table = official["backbone.pos_embed"]
    assert table.shape == (1, 13, 12)
    assert not table[:, 0].any()
    assert "backbone.MLoRE_2.3.router_1.depth.0.convsp.weight" in official
    assert {"backbone.task_mask.semseg.3.bias", "heads.normals.mt_proj.1.running_var"} <= set(official)
    back, report = convert({f"module.{key}": value for key, value in official.items()}, "mlore")
    assert set(back) == set(state)
    assert not report.dropped
    assert all(torch.equal(back[key], state[key]) for key in state)


def test_without_class_token_image_tokens_see_only_themselves():
    """The maps are those of timm's blocks run by hand on the image tokens alone."""
    network, image = vit_network().eval(), torch.randn(1, 3, 48, 64)
    model = network.backbone.model
    tokens = model.patch_embed(image).flatten(1, 2) + model.pos_embed
    for block in model.blocks:
        tokens = block(tokens)
    expected = model.norm(tokens).transpose(1, 2).unflatten(2, (3, 4))
    torch.testing.assert_close(network.backbone(image).maps[-1], expected)
    with pytest.raises(TypeError, match="DropClassToken"):
        build_network(
            network.architecture | {"backbone": {"type": "TimmBackbone", "name": "resnet10t"}}, TASKS
        )


@pytest.mark.parametrize(
    ("row", "weight"), [("large_nyud", 0.88), ("large_pascal", 0.925), ("base_pascal", 0.95)]
)
def test_edge_weights_of_the_rows(row, weight):
    """The loss that training uses, against the formula with the weight in the authors' file."""
    settings = Settings.of(load_config(CONFIGS / f"mlore_vit_{row}_invpt_2xb2_40k.py"))
    tasks = tasks_with_losses(settings.protocol, settings.training.loss_options)
    loss = next(LOSSES.build(task.loss) for task in tasks if task.name == "edge")
    logits, label = torch.randn(2, 1, 5, 7), (torch.rand(2, 1, 5, 7) < 0.2).float()
    p = logits.sigmoid()
    expected = -(weight * label * p.log() + (1 - weight) * (1 - label) * (1 - p).log()).mean()
    torch.testing.assert_close(loss(logits, label), expected)

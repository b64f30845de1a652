"""MLoRE: against a plain re-derivation, folded form, published sizes, conversion."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from converted import check_outputs, compares
from plain import batch_norm, bilinear, conv, enlarge, layer_norm, same_conv, to_map, to_tokens, vit_block
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


# ------------------------------------------------------------ the formulas, on the authors' names


def gate(x, w, name):
    """Scores of one map (1, C, h, w), pixel by pixel."""
    pixels = x[0].flatten(1).T
    local = []
    for pixel in pixels:
        y = w[f"{name}.0.conv1.weight"][..., 0, 0] @ pixel + w[f"{name}.0.conv1.bias"]
        y = F.gelu(layer_norm(y, w, f"{name}.0.ln"))
        local.append(w[f"{name}.0.conv3.weight"][..., 0, 0] @ y + w[f"{name}.0.conv3.bias"])
    weights = w[f"{name}.0.convsp.weight"][0]
    pooled = sum(a * pixel for a, pixel in zip(weights, pixels, strict=True)) + w[f"{name}.0.convsp.bias"]
    pooled = F.gelu(layer_norm(pooled, w, f"{name}.0.ln_sp"))
    pooled = w[f"{name}.0.conv2.weight"][..., 0, 0] @ pooled + w[f"{name}.0.conv2.bias"]
    both = torch.cat([torch.stack(local).mean(0), pooled])
    return w[f"{name}.1.weight"][..., 0, 0] @ both + w[f"{name}.1.bias"]


def low_rank(x, w, name):
    return conv(same_conv(x, w, f"{name}.W"), w, f"{name}.M")


def block(x, w, name, task, drop, count=3, top_k=2):
    """Experts of one task on one map (1, C, h, w)."""
    x = conv(x, w, f"{name}.conv1.{task}")
    scores = gate(x, w, f"{name}.router_1.{task}")
    raw, own = scores[:count], scores[2 * count]
    best = sorted(range(count), key=lambda i: -float(raw[i].detach()))[:top_k]
    pool = best if drop == "before" else range(count)
    total = sum(torch.exp(raw[i]) for i in pool)
    mixed = sum(torch.exp(raw[i]) / total * low_rank(x, w, f"{name}.lora_list_1.{i}") for i in best)
    y = batch_norm(mixed, w, f"{name}.bn_all.{task}") + own * low_rank(x, w, f"{name}.conv2.{task}")
    y = F.gelu(batch_norm(y + same_conv(x, w, f"{name}.share_conv"), w, f"{name}.bn.{task}"))
    return conv(y, w, f"{name}.conv3.{task}")


def derive(levels, w, drop="after", **options):
    """Features of every task; image by image."""
    features = {}
    for task in NAMES:
        rows = []
        for image in range(len(levels[0])):
            found = []
            for level, x in enumerate(levels):
                x = conv(x[image : image + 1], w, f"backbone.fea_fuse.{level}")
                x = block(x, w, f"backbone.MLoRE_1.{level}", task, drop, **options)
                found.append(block(x, w, f"backbone.MLoRE_2.{level}", task, drop, **options))
            mask = f"backbone.task_mask.{task}"
            scores = F.gelu(batch_norm(conv(torch.cat(found, dim=1), w, f"{mask}.0"), w, f"{mask}.1"))
            weights = same_conv(scores, w, f"{mask}.3").softmax(dim=1)
            rows.append(sum(weights[:, i : i + 1] * item for i, item in enumerate(found)))
        features[task] = enlarge(torch.cat(rows), 4)
    return features


def derive_network(w, image):
    """Logits of a ViT of four blocks without class token, whose row of the position table is not read."""
    x = conv(image, w, "backbone.patch_embed.proj", stride=16)
    grid = x.shape[-2:]
    x, levels = to_tokens(x) + w["backbone.pos_embed"][:, 1:], []
    for j in range(4):
        x = vit_block(x, w, f"backbone.blocks.{j}", 3)
        levels.append(to_map(layer_norm(x, w, "backbone.norm", 1e-6) if j == 3 else x, grid))
    logits = {}
    for task, feature in derive(levels, w).items():
        name = f"heads.{task}"
        y = F.gelu(batch_norm(same_conv(feature, w, f"{name}.mt_proj.0"), w, f"{name}.mt_proj.1"))
        logits[task] = bilinear(conv(y, w, f"{name}.linear_pred"), image.shape[-2:])
    return logits


@pytest.mark.conformance("mlore", "formulas")
@pytest.mark.parametrize("drop", ["before", "after"])
def test_equals_the_formulas(drop):
    made, maps = decoder(drop=drop), pyramid()
    weights, _ = revert({f"decoder.{key}": value for key, value in made.state_dict().items()}, "mlore")
    features, expected = made(maps).features, derive(maps.maps, weights, drop)
    for name in NAMES:
        torch.testing.assert_close(features[name], expected[name], rtol=1e-5, atol=1e-5)


@pytest.mark.conformance("mlore", "formulas", "layout")
@compares("mlore")
def test_converted_weights_predict_as_in_the_authors_code():
    image = torch.randn(4, 3, 48, 64, dtype=torch.float64)
    network = vit_network(width=16, ranks=(1, 2, 3), top_k=2)
    # A bias that is the same for all channels in front of their layer norm changes nothing.
    check_outputs("mlore", network, derive_network, image, idle=(".convsp.bias",))


@pytest.mark.conformance("mlore", "merges")
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


def vit_network(**experts):
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
            **experts,
        },
        "head": {"type": "ConvHead", "hidden": 8, "activation": "gelu"},
    }
    torch.manual_seed(0)
    return build_network(cfg, TASKS)


@pytest.mark.conformance("mlore", "layout")
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

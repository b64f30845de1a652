"""Encoder families of timm: blocks against timm's own maps, positions at any size, pyramids, refusals."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import timm
import torch

from mtvision.balance import FixedWeights
from mtvision.engine.optimization.optimizer import build_optimizer
from mtvision.models.backbones import TimmBackbone
from mtvision.models.backbones.families import FAMILIES, examples
from mtvision.models.backbones.plain_pyramid import pyramid_scales
from mtvision.models.backbones.positions import RelativeBlock, RotaryBlock, _resampled, packed, unpacked
from mtvision.models.factory import build_network
from mtvision.testing.encoders import COLUMNS, ENCODERS, REFUSED, difference, network_of, outcome
from mtvision.testing.inputs import toy_tasks

PAGE = Path(__file__).resolve().parents[2] / "docs" / "encoders.md"
SMALL = {"depth": 4, "embed_dim": 24, "num_heads": 2}
QUICK = {"DINOv3": ("blocks", "layer decay"), "BEiT": ("blocks",), "Hiera": ("blocks",)}
CHEAP = ("blocks", "layer decay", "BitFit", "LoRA", "branching")


def cells(family: str) -> list[str]:
    """The row of a family in the page, with the lines that refuse written out."""
    text = PAGE.read_text(encoding="utf-8")
    row = next(line for line in text.splitlines() if line.startswith(f"| {family} |"))
    lines = dict(re.findall(r"^(\d+)\. (.*)$", text, re.MULTILINE))
    found = [item.strip() for item in row.strip("|").split(" | ")][2:]
    return [re.sub(r"no \[(\d+)\]", lambda match: REFUSED + lines[match[1]], item) for item in found]


@pytest.mark.parametrize(("family", "columns"), QUICK.items())
def test_the_page_says_what_a_trial_gives(family, columns):
    said = dict(zip(COLUMNS, cells(family), strict=True))
    for column in columns:
        assert outcome(column, ENCODERS[family]) == said[column], column


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("family", ENCODERS)
def test_the_page_says_what_a_trial_gives_everywhere(family):
    said = dict(zip(COLUMNS, cells(family), strict=True))
    for column in CHEAP:
        assert outcome(column, ENCODERS[family]) == said[column], column
    assert not said["blocks"].startswith(REFUSED)


@pytest.mark.slow
def test_every_family_of_rules_has_a_row():
    with torch.device("meta"):
        classes = [type(timm.create_model(item.name, **item.options)) for item in ENCODERS.values()]
    for family in FAMILIES:
        assert any(issubclass(item, family.classes) for item in classes), type(family).__name__
        assert timm.is_model(family.example)


def test_packed_states_keep_tokens_and_grid():
    tokens = torch.randn(2, 3 + 4 * 5, 6)
    state = packed(tokens, 3, (4, 5))
    assert state.shape == (2, 7, 5, 6)
    back, grid = unpacked(state, 3)
    assert torch.equal(back, tokens)
    assert grid == (4, 5)
    assert torch.equal(packed(tokens[:, 3:], 0, (4, 5)).flatten(1, 2), tokens[:, 3:])


@pytest.mark.parametrize("name", ["vit_small_patch16_dinov3", "beit_base_patch16_224"])
def test_blocks_have_positions_and_keep_timms_names(name):
    backbone, own = TimmBackbone(name, **SMALL), timm.create_model(name, num_classes=0, **SMALL)
    assert isinstance(backbone.model.blocks[0], RotaryBlock | RelativeBlock)
    assert set(backbone.model.state_dict()) <= set(own.state_dict())
    lacking = set(own.state_dict()) - set(backbone.model.state_dict())
    assert all(key.startswith(("norm", "fc_norm")) for key in lacking)


def test_biases_of_offsets_are_resampled_and_those_of_the_class_token_stay():
    table = torch.randn(3 * 5 + 3, 2)
    torch.testing.assert_close(_resampled(table, (2, 3), (2, 3)), table)
    wide = _resampled(torch.ones(3 * 3 + 3, 2).index_fill(0, torch.tensor([9, 10, 11]), 7.0), (2, 2), (4, 3))
    assert wide.shape == (7 * 5 + 3, 2)
    torch.testing.assert_close(wide[:-3], torch.ones(35, 2))
    assert wide[-3:].eq(7).all()


def test_beit_takes_any_size_and_agrees_with_timm_at_its_own():
    backbone = TimmBackbone("beit_base_patch16_224", img_size=(64, 96), **SMALL).eval()
    with torch.no_grad():
        for block in backbone.model.blocks:
            block.attn.relative_position_bias_table.normal_()
        twin = timm.create_model("beit_base_patch16_224", img_size=(64, 96), **SMALL).eval()
        twin.load_state_dict(backbone.model.state_dict(), strict=False)
        image = torch.randn(1, 3, 64, 96)
        want = twin.forward_intermediates(image, indices=[0, 1, 2], intermediates_only=True)
        for found, item in zip(backbone(image).maps[:3], want, strict=True):
            assert difference(found, item) < 1e-6
        other = torch.randn(1, 3, 50, 70)
        assert backbone(other).maps[0].shape[2:] == (4, 5)
        before = backbone(other).maps[-1]
        backbone.model.blocks[1].attn.relative_position_bias_table[-3:] += 1  # of the class token
        assert not torch.equal(backbone(other).maps[-1], before)


@pytest.mark.parametrize(
    ("kind", "name", "strides", "multiple"),
    [
        ("simple", "test_vit", (4, 8, 16, 32), 32),
        ("dpt", "vit_small_patch16_dinov3", (4, 8, 16, 32), 32),
        ("dpt", "vit_small_patch14_reg4_dinov2", (7, 14, 28, 56), 56),
    ],
)
def test_pyramids_of_plain_vits(kind, name, strides, multiple):
    options = {} if name == "test_vit" else SMALL
    backbone = TimmBackbone(name, pyramid=kind, pyramid_width=8, **options)
    assert (backbone.channels, backbone.strides, backbone.size_multiple) == ((8,) * 4, strides, multiple)
    maps = backbone(torch.randn(1, 3, multiple + 1, 3 * multiple)).maps
    sides = [(2 * multiple // stride, 3 * multiple // stride) for stride in strides]
    assert [tuple(item.shape[2:]) for item in maps] == sides
    torch.autograd.backward([item.square().mean() for item in maps])
    assert all(item.grad is not None for item in backbone.parameters())
    count = len(backbone.block_names())
    assert backbone.exits == ((count,) * 4 if kind == "simple" else (1, 2, 3, 4))
    assert backbone.blocks[-1].stride == (16 if multiple == 32 else 14)


def test_scales_of_pyramids_give_whole_strides():
    strides = {patch: [patch / scale for scale in pyramid_scales(patch)] for patch in (8, 14, 16, 32)}
    assert strides == {8: [4, 8, 16, 32], 14: [7, 14, 28, 56], 16: [4, 8, 16, 32], 32: [8, 16, 32, 64]}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("test_resnet", {}, r"test_resnet: pyramid='dpt' cannot be made: it is no plain ViT.*vit_base"),
        ("test_vit", {"levels": [1, 3]}, r"'dpt' reads 4 levels, and 2 are chosen. Give four"),
        ("test_vit", {"level_norms": True}, r"its levels have norms of their own. Leave `level_norms` out"),
    ],
)
def test_pyramids_that_cannot_be_made(name, options, message):
    with pytest.raises(ValueError, match=message):
        TimmBackbone(name, pyramid="dpt", **options)


UNCUT = {
    "vit_small_patch16_rope_mixed_224": r"\(Eva of timm\).*\(its rotary embeddings are learnt for all",
    "test_vit_relpos": r"\(VisionTransformerRelPos of timm\)",
    "regnetx_002": r"\(RegNet of timm\)",
}


@pytest.mark.parametrize("name", UNCUT)
def test_networks_without_blocks_name_themselves_and_what_to_choose(name):
    options = {"img_size": 64} if "vit" in name else {}
    network = network_from(name, **options, **(SMALL if "rope" in name else {}))
    with pytest.raises(NotImplementedError, match=name + " " + UNCUT[name]) as caught:
        build_optimizer(network, FixedWeights(tasks=network.task_names), {"lr": 1.0, "layer_decay": 0.5})
    line = str(caught.value)
    assert "\n" not in line
    assert "layer decay" in line
    choices = examples(plain="vit" in name)
    assert ", ".join(choices) in line
    assert ("resnet50" in choices) == (name == "regnetx_002")


def network_from(name: str, **options):
    config = {
        "backbone": {"type": "TimmBackbone", "name": name, **options},
        "decoder": {"type": "ParallelDecoder", "width": 8},
        "head": {"type": "ConvHead"},
    }
    return build_network(config, toy_tasks())


def test_layer_decay_follows_the_blocks_of_dinov3():
    """By hand: four blocks, factor 1/2; what lies before them learns at 1/32 of the rate, decoders at 1."""
    network = network_of(ENCODERS["DINOv3"])
    optimizer = build_optimizer(
        network, FixedWeights(tasks=network.task_names), {"lr": 1.0, "layer_decay": 0.5}
    )
    rates = {id(item): group["lr"] for group in optimizer.param_groups for item in group["params"]}
    model = network.backbone.model
    assert rates[id(model.cls_token)] == rates[id(model.patch_embed.proj.weight)] == 1 / 32
    assert [rates[id(block.mlp.fc1.weight)] for block in model.blocks] == [1 / 16, 1 / 8, 1 / 4, 1 / 2]
    assert {rates[id(item)] for item in network.decoder.parameters()} == {1.0}

"""VMamba: published sizes, official names, the contract, and its block against an independent derivation."""

from __future__ import annotations

import pytest
import torch
from converted import backbone_alone, check_outputs, compares
from plain import conv, layer_norm, linear, map_norm, mlp
from plain_scans import ss2d
from torch import nn
from torch.nn import functional as F

from mtvision.core.naming import UnknownNameError
from mtvision.models.backbones import VMambaBackbone
from mtvision.models.backbones.vmamba import PatchMerging
from mtvision.models.convert import convert
from mtvision.models.layers.ss2d import SS2D

# Millions of parameters of the official code, without the classifier.
SIZES = {
    "vanilla_tiny": 22.12, "vanilla_small": 43.65, "vanilla_base": 75.23, "tiny_s2l5": 29.94,
    "small_s2l15": 49.38, "base_s2l15": 87.53, "tiny_s1l8": 29.48, "small_s1l20": 48.24, "base_s1l20": 85.59,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "millions"), SIZES.items())
def test_published_sizes(variant, millions):
    with torch.device("meta"):
        backbone = VMambaBackbone(variant)
    own = [p.numel() for name, p in backbone.named_parameters() if not name.startswith("outnorm")]
    assert sum(own) / 1e6 == pytest.approx(millions, abs=0.005)
    assert backbone.strides == (4, 8, 16, 32)


@pytest.mark.parametrize("variant", ["vanilla_tiny", "tiny_s1l8"])
def test_pyramid_and_blocks(variant):
    backbone = VMambaBackbone(variant, depths=(1, 2, 1, 1), width=8).eval()
    image = torch.randn(2, 3, 64, 96)
    maps = backbone(image).maps
    assert [tuple(m.shape) for m in maps] == [(2, 8, 16, 24), (2, 16, 8, 12), (2, 32, 4, 6), (2, 64, 2, 3)]
    state = backbone.stem(image)
    for block in backbone.blocks:
        assert state.shape[3] == block.in_channels
        state = block(state)
    torch.testing.assert_close(backbone.to_map(state, 3, (64, 96)), maps[3])
    assert [b.stride for b in backbone.blocks] == [4, 8, 8, 8, 16, 16, 32, 32]


def test_official_names():
    """The keys that the official code's checkpoints are known to hold (first and last of each kind)."""
    modern = set(VMambaBackbone("tiny_s1l8", depths=(1, 1, 1, 1), width=8).state_dict())
    op = {
        "in_proj.weight",
        "conv2d.weight",
        "x_proj_weight",
        "dt_projs_weight",
        "dt_projs_bias",
        "A_logs",
        "Ds",
    }
    op |= {"out_norm.weight", "out_norm.bias", "out_proj.weight"}
    block = {f"op.{n}" for n in op} | {f"{n}.{p}" for n in ("norm", "norm2") for p in ("weight", "bias")}
    block |= {f"mlp.{n}.{p}" for n in ("fc1", "fc2") for p in ("weight", "bias")}
    want = {f"layers.{i}.blocks.0.{n}" for i in range(4) for n in block}
    want |= {f"layers.{i}.downsample.{n}.{p}" for i in range(3) for n in (1, 3) for p in ("weight", "bias")}
    want |= {f"patch_embed.{n}.{p}" for n in (0, 2, 5, 7) for p in ("weight", "bias")}
    want |= {f"outnorm{i}.{p}" for i in range(4) for p in ("weight", "bias")}
    assert modern == want
    vanilla = VMambaBackbone("vanilla_tiny", depths=(1, 1), width=8).state_dict()
    assert vanilla["layers.0.blocks.0.op.in_proj.weight"].shape == (32, 8)
    assert vanilla["layers.0.downsample.reduction.weight"].shape == (16, 32)
    assert "patch_embed.2.weight" in vanilla


def test_merging_concatenates_the_four_corners():
    merge = PatchMerging(1)
    merge.norm, merge.reduction = nn.Identity(), nn.Identity()
    x = torch.arange(4.0).reshape(1, 2, 2, 1)  # 0 1 / 2 3: order (0,0), (1,0), (0,1), (1,1)
    assert merge(x).flatten().tolist() == [0, 2, 1, 3]


def vanilla(w, image, depths):
    """The first VMamba: patch embedding, blocks without MLP, merging of the four corners."""
    x = map_norm(conv(image, w, "patch_embed.0", stride=4), w, "patch_embed.2").permute(0, 2, 3, 1)
    levels = {}
    for i, depth in enumerate(depths):
        for j in range(depth):
            name = f"layers.{i}.blocks.{j}"
            x = x + ss2d(layer_norm(x, w, f"{name}.norm"), w, f"{name}.op")
        levels[i] = layer_norm(x, w, f"outnorm{i}").permute(0, 3, 1, 2)
        if i + 1 < len(depths):
            x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
            corners = [x[:, r::2, c::2] for r, c in ((0, 0), (1, 0), (0, 1), (1, 1))]
            x = layer_norm(torch.cat(corners, -1), w, f"layers.{i}.downsample.norm")
            x = linear(x, w, f"layers.{i}.downsample.reduction")
    return levels


def modern(w, image, depths):
    """The later VMamba: convolutional stem and downsampling, blocks with MLP."""
    x = F.gelu(map_norm(conv(image, w, "patch_embed.0", stride=2, padding=1), w, "patch_embed.2"))
    x = map_norm(conv(x, w, "patch_embed.5", stride=2, padding=1), w, "patch_embed.7").permute(0, 2, 3, 1)
    levels = {}
    for i, depth in enumerate(depths):
        for j in range(depth):
            name = f"layers.{i}.blocks.{j}"
            x = x + ss2d(layer_norm(x, w, f"{name}.norm"), w, f"{name}.op")
            x = x + mlp(layer_norm(x, w, f"{name}.norm2"), w, f"{name}.mlp.fc1", f"{name}.mlp.fc2")
        levels[i] = layer_norm(x, w, f"outnorm{i}").permute(0, 3, 1, 2)
        if i + 1 < len(depths):
            x = conv(x.permute(0, 3, 1, 2), w, f"layers.{i}.downsample.1", stride=2, padding=1)
            x = map_norm(x, w, f"layers.{i}.downsample.3").permute(0, 2, 3, 1)
    return levels


@compares("vmamba")
@pytest.mark.parametrize(("variant", "forward"), [("vanilla_tiny", vanilla), ("tiny_s2l5", modern)])
def test_converted_weights_make_the_levels_of_the_authors_code(variant, forward):
    depths = (1, 2, 1)
    network, run = backbone_alone(VMambaBackbone(variant, depths=depths, width=8))
    image = torch.randn(2, 3, 32, 40, dtype=torch.float64)  # the second level has an odd width
    classifier = {"classifier.head.weight": torch.ones(10, 32, dtype=torch.float64)}
    checkpoint = check_outputs(
        "vmamba", network, lambda w, x: forward(w, x, depths), image, run=run, extra=classifier
    )
    linears = ("_proj.weight", "fc1.weight", "fc2.weight")  # some files keep them as 1x1 convolutions
    as_maps = {
        key: value[..., None, None] if key.endswith(linears) else value for key, value in checkpoint.items()
    }
    converted = convert(as_maps, "vmamba")[0]
    assert all(torch.equal(converted[key], value) for key, value in network.state_dict().items())


def test_ss2d_starts_as_published():
    layer = SS2D(32, 64, 32)
    steps = F.softplus(layer.dt_projs_bias)
    assert 1e-3 * 0.999 < steps.min() < 3e-3
    assert 3e-2 < steps.max() < 1e-1 * 1.001
    torch.testing.assert_close(layer.A_logs.exp(), torch.arange(1.0, 17).expand(256, 16))
    assert layer.Ds.eq(1).all()
    assert layer.dt_projs_weight.shape == (4, 64, 2)
    assert layer.dt_projs_weight.abs().max() <= 2**-0.5


def test_one_state_without_gate_by_hand():
    """A 1x1 map: every direction is one step from zero, so y = sum_k (C_k B_k step_k + D_k) u."""
    layer = SS2D(3, 4, None, states=1, gate=False, conv_bias=False).double()
    x = torch.randn(1, 1, 1, 3, dtype=torch.float64)
    u = F.silu(F.linear(x, layer.in_proj.weight) * layer.conv2d.weight[:, 0, 1, 1])
    small = torch.einsum("kre,e->kr", layer.x_proj_weight, u.flatten())
    R = layer.rank
    steps = F.softplus(torch.einsum("ker,kr->ke", layer.dt_projs_weight, small[:, :R]) + layer.dt_projs_bias)
    gain = (small[:, R] * small[:, R + 1])[:, None] * steps + layer.Ds.unflatten(0, (4, 4))
    want = F.layer_norm(gain.sum(0) * u, (4,), eps=1e-5)
    torch.testing.assert_close(layer(x), want)


def test_unknown_variant():
    with pytest.raises(UnknownNameError, match="Did you mean 'tiny_s1l8'"):
        VMambaBackbone("tiny_s118")

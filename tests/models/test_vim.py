"""Vim: published sizes, official names, the token in the middle, causal and reversed branches."""

from __future__ import annotations

import pytest
import torch
from converted import backbone_alone, check_outputs, compares
from plain import linear, to_map, to_tokens
from plain_scans import recurrence, softplus
from torch.nn import functional as F

from mtvision.models.backbones import VimBackbone


@pytest.mark.parametrize(("variant", "millions"), [("tiny", 7.15), ("small", 25.80), ("base", 97.60)])
def test_published_sizes(variant, millions):
    """With the classifier of 1000 classes, as published."""
    with torch.device("meta"):
        backbone = VimBackbone(variant)
    head = 1000 * (backbone.channels[0] + 1)
    assert (sum(p.numel() for p in backbone.parameters()) + head) / 1e6 == pytest.approx(millions, abs=0.005)


def small(**options) -> VimBackbone:
    return VimBackbone(width=8, depth=4, img_size=(32, 48), drop_path_rate=0.0, **options).eval()


def test_levels_blocks_and_padding():
    backbone = small()
    assert (backbone.channels, backbone.strides, backbone.exits) == ((8,) * 4, (16,) * 4, (1, 2, 3, 4))
    image = torch.randn(2, 3, 30, 48)
    maps = backbone(image).maps
    assert {tuple(m.shape) for m in maps} == {(2, 8, 2, 3)}
    state = backbone.stem(image)
    for block in backbone.blocks:
        state = block(state)
    torch.testing.assert_close(backbone.to_map(state, 3, (30, 48)), maps[3])


def test_the_class_token_stands_in_the_middle_and_leaves_the_map():
    backbone = small()
    with torch.no_grad():
        backbone.cls_token.fill_(100.0)
    state = backbone.stem(torch.randn(1, 3, 32, 48))
    assert state.shape == (1, 7, 8)
    assert (state[0, :, 0] > 50).nonzero().flatten().tolist() == [3]
    assert backbone.to_map(state, 0, (32, 48)).max() < 50


def test_positions_are_resampled_around_the_token():
    backbone = small()
    with torch.no_grad():
        backbone.pos_embed.fill_(2.0)
        backbone.pos_embed[:, 3] = 7.0
    positions = backbone._positions((4, 5))
    assert positions.shape == (1, 21, 8)
    assert positions[0, :, 0].tolist() == pytest.approx([2.0] * 10 + [7.0] + [2.0] * 10)


def test_official_names_of_a_block():
    names = {key.removeprefix("layers.0.") for key in small().state_dict() if key.startswith("layers.0.")}
    mixer = {"in_proj.weight", "out_proj.weight", "A_log", "A_b_log", "D", "D_b"}
    for ending in ("", "_b"):
        mixer |= {f"conv1d{ending}.weight", f"conv1d{ending}.bias", f"x_proj{ending}.weight"}
        mixer |= {f"dt_proj{ending}.weight", f"dt_proj{ending}.bias"}
    assert names == {"norm.weight"} | {f"mixer.{name}" for name in mixer}


def branch(u, z, w, name, ending, log):
    """One branch written out: causal convolution, then the recurrence token by token."""
    E, A = u.shape[1], -torch.exp(w[f"{name}.{log}"])
    u = F.silu(conv_1d(F.pad(u, (3, 0)), w, f"{name}.conv1d{ending}", groups=E))
    small = linear(u.transpose(1, 2), w, f"{name}.x_proj{ending}").transpose(1, 2)
    rank, N = small.shape[1] - 2 * A.shape[1], A.shape[1]
    step = softplus(linear(small[:, :rank].transpose(1, 2), w, f"{name}.dt_proj{ending}")).transpose(1, 2)
    y = recurrence(u, step, A, small[:, rank : rank + N], small[:, rank + N :], w[f"{name}.D{ending}"])
    return y * F.silu(z)


def conv_1d(x, w, name, **options):
    return F.conv1d(x, w[f"{name}.weight"], w[f"{name}.bias"], **options)


def mixer(x, w, name):
    """Tokens (B, L, C); the mean of a branch and of one on the reversed sequence."""
    u, z = linear(x, w, f"{name}.in_proj").transpose(1, 2).chunk(2, 1)
    forwards = branch(u, z, w, name, "", "A_log")
    backwards = branch(u.flip(2), z.flip(2), w, name, "_b", "A_b_log").flip(2)
    return linear((forwards + backwards).transpose(1, 2) / 2, w, f"{name}.out_proj")


def rms_norm(x, w, name):
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * w[f"{name}.weight"]


def vim(w, image):
    """Levels behind each of four blocks; the last one is normed."""
    x = F.conv2d(image, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride=16)
    grid = x.shape[-2:]
    x, middle = to_tokens(x), grid[0] * grid[1] // 2
    x = torch.cat([x[:, :middle], w["cls_token"].expand(len(x), -1, -1), x[:, middle:]], 1) + w["pos_embed"]
    levels = {}
    for j in range(4):
        x = x + mixer(rms_norm(x, w, f"layers.{j}.norm"), w, f"layers.{j}.mixer")
        y = rms_norm(x, w, "norm_f") if j == 3 else x
        levels[j] = to_map(torch.cat([y[:, :middle], y[:, middle + 1 :]], 1), grid)
    return levels


@compares("vim")
def test_converted_weights_make_the_levels_of_the_formulas():
    network, run = backbone_alone(VimBackbone(width=24, depth=4, img_size=(32, 48)))
    image = torch.randn(2, 3, 32, 48, dtype=torch.float64)
    classifier = {"head.weight": torch.ones(10, 24, dtype=torch.float64)}
    check_outputs("vim", network, vim, image, run=run, extra=classifier)

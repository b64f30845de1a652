"""Vim: published sizes, official names, the token in the middle, causal and reversed branches."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from mtvision.models.backbones import VimBackbone
from mtvision.models.backbones.vim import BiMamba


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


def branch(u, z, m, ending, A_log):
    """One branch written out: causal convolution, then the recurrence token by token."""
    conv = getattr(m, f"conv1d{ending}")
    u = F.silu(F.conv1d(F.pad(u, (3, 0)), conv.weight, conv.bias, groups=u.shape[1]))
    small = torch.einsum("re,bel->brl", getattr(m, f"x_proj{ending}").weight, u)
    dt = getattr(m, f"dt_proj{ending}")
    step = F.softplus(torch.einsum("er,brl->bel", dt.weight, small[:, : m.rank]) + dt.bias[:, None])
    A, h, out = -torch.exp(A_log), 0, []
    for t in range(u.shape[2]):
        B, C = small[:, m.rank : m.rank + m.states, t], small[:, m.rank + m.states :, t]
        h = torch.exp(step[..., t, None] * A) * h + step[..., t, None] * B[:, None] * u[..., t, None]
        out.append((h * C[:, None]).sum(-1) + getattr(m, f"D{ending}") * u[..., t])
    return torch.stack(out, -1) * F.silu(z)


def test_mixer_agrees_with_an_independent_derivation():
    mixer = BiMamba(8, states=3).double()
    x = torch.randn(2, 6, 8, dtype=torch.float64)
    u, z = (x @ mixer.in_proj.weight.T).transpose(1, 2).chunk(2, 1)
    forwards = branch(u, z, mixer, "", mixer.A_log)
    backwards = branch(u.flip(2), z.flip(2), mixer, "_b", mixer.A_b_log).flip(2)
    want = ((forwards + backwards) / 2).transpose(1, 2) @ mixer.out_proj.weight.T
    torch.testing.assert_close(mixer(x), want)

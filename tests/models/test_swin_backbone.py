"""Swin as the papers use it: padding before the shift, norms of the levels, official parameter count."""

from __future__ import annotations

import pytest
import torch
from converted import backbone_alone, check_outputs, compares
from plain_swin import mmseg_swin
from torch.nn import functional as F

from mtvision.models.backbones import SwinBackbone
from mtvision.models.backbones.swin import PadFirstBlock

TINY = {"embed_dim": 8, "depths": (2, 2), "num_heads": (2, 2), "levels": (0, 1), "window_size": 4}


def swin(**options) -> SwinBackbone:
    torch.manual_seed(1)
    backbone = SwinBackbone("swin_tiny_patch4_window7_224", **{**TINY, **options}).eval()
    for name, value in backbone.named_parameters():
        if "relative_position_bias_table" in name:
            torch.nn.init.normal_(value)
    return backbone


def attend(block, x):
    """Shifted-window attention of the original Swin, position by position.

    Padded positions exist (zero before the projection to queries, keys and values, so they hold the biases);
    after the cyclic shift, two positions of a window attend to each other if they come from the same region.
    """
    _, H, W, C = x.shape
    w, shift, heads = block.window_size[0], block.shift_size[0], block.attn.num_heads
    x = F.pad(x, (0, 0, 0, -W % w, 0, -H % w))
    Hp, Wp = x.shape[1:3]
    out = torch.zeros_like(x)

    def region(i, side):
        return 0 if i < side - w else 1 if i < side - shift else 2

    for top in range(0, Hp, w):
        for left in range(0, Wp, w):
            cells = [(r, c) for r in range(top, top + w) for c in range(left, left + w)]  # after the shift
            places = [((r + shift) % Hp, (c + shift) % Wp) for r, c in cells]  # before it
            tokens = torch.stack([x[0, r, c] for r, c in places])
            q, k, v = (
                F.linear(tokens, block.attn.qkv.weight, block.attn.qkv.bias)
                .reshape(-1, 3, heads, C // heads)
                .unbind(1)
            )
            scores = torch.einsum("ahd,bhd->hab", q, k) * (C // heads) ** -0.5
            for a, (ra, ca) in enumerate(cells):
                for b, (rb, cb) in enumerate(cells):
                    row = (ra - rb + w - 1) * (2 * w - 1) + (ca - cb + w - 1)
                    scores[:, a, b] += block.attn.relative_position_bias_table[row]
                    apart = (region(ra, Hp), region(ca, Wp)) != (region(rb, Hp), region(cb, Wp))
                    scores[:, a, b] -= 100.0 * (apart and shift > 0)
            mixed = torch.einsum("hab,bhd->ahd", scores.softmax(-1), v).reshape(-1, C)
            mixed = F.linear(mixed, block.attn.proj.weight, block.attn.proj.bias)
            for (r, c), value in zip(places, mixed, strict=True):
                out[0, r, c] = value
    return out[:, :H, :W]


@pytest.mark.parametrize("size", [(8, 8), (6, 7), (3, 5)])
@torch.no_grad()
def test_attention_is_that_of_the_original(size):
    """Whole windows, padded maps, and a map smaller than a window."""
    for block in swin().model.layers[0].blocks:
        x = torch.randn(1, *size, 8)
        torch.testing.assert_close(block._attn(x), attend(block, x), rtol=1e-4, atol=1e-5)


@compares("mmseg_swin")
@pytest.mark.parametrize("size", [(64, 32), (52, 72), (12, 20)])
def test_converted_weights_make_the_levels_of_mmsegmentation(size):
    """Whole windows; padded windows and merging of an odd map; maps smaller than a window."""
    network, run = backbone_alone(swin())

    def forward(w, image):
        return dict(enumerate(mmseg_swin(image, w, TINY["depths"], TINY["num_heads"], TINY["window_size"])))

    check_outputs("mmseg_swin", network, forward, torch.randn(2, 3, *size, dtype=torch.float64), run=run)


@torch.no_grad()
def test_order_matters_exactly_where_padding_is_needed():
    ours, timms = swin(), swin(pad_before_shift=False, always_partition=True)
    assert isinstance(ours.model.layers[0].blocks[1], PadFirstBlock)
    whole, ragged = torch.randn(1, 3, 64, 32), torch.randn(1, 3, 56, 40)
    for a, b in zip(ours(whole).maps, timms(whole).maps, strict=True):
        torch.testing.assert_close(a, b)
    assert (ours(ragged).maps[1] - timms(ragged).maps[1]).abs().max() > 1e-2


def test_every_level_has_a_norm_and_swin_large_its_official_size():
    assert [tuple(n.normalized_shape) for n in swin().level_norms] == [(8,), (16,)]
    with torch.device("meta"):
        large = SwinBackbone("swin_large_patch4_window12_384")
    assert sum(p.numel() for p in large.parameters()) == 195_201_204
    assert (large.channels, large.strides) == ((192, 384, 768, 1536), (4, 8, 16, 32))


def test_other_models_are_refused():
    with pytest.raises(ValueError, match="'resnet18' is not a Swin v1"):
        SwinBackbone("resnet18")

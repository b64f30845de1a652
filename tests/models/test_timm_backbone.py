"""timm backbones: equality with timm's own features, the block contract, sizes, and side exits."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from mtvision.core.naming import UnknownNameError
from mtvision.models.backbones import TimmBackbone

SMALL_SWIN = {"embed_dim": 8, "depths": (2, 1, 2, 1), "num_heads": (1, 2, 2, 4)}
# name, options, channels, strides
CUT = {
    "resnet": ("test_resnet", {}, (32, 48, 192, 96)),
    "efficientnet": ("test_efficientnet", {}, (24, 32, 48, 64)),
    "mobilenet": ("mobilenetv3_small_050", {}, (8, 16, 24, 288)),
    "convnext": ("test_convnext", {}, (24, 32, 48, 64)),
    "swin": ("swin_tiny_patch4_window7_224", SMALL_SWIN, (8, 16, 32, 64)),
    "vit": ("test_vit", {}, (64, 64, 64, 64)),
}
WHOLE = {
    "relative-position vit": ("test_vit_relpos", {"img_size": 64}),
    "cait": ("cait_xxs24_224", {"img_size": 64, "depth": 4, "embed_dim": 32, "num_heads": 2}),
    "regnet": ("regnetx_002", {}),
}


def build(key: str, **options) -> TimmBackbone:
    name, own, *_ = (CUT | WHOLE)[key]
    return TimmBackbone(name, **own, **options)


def timm_twin(backbone: TimmBackbone, key: str) -> nn.Module:
    """timm's own model with the same weights."""
    name, own, *_ = (CUT | WHOLE)[key]
    extra = {"swin": {"strict_img_size": False}, "vit": {"dynamic_img_size": True}}.get(key, {})
    model = timm.create_model(name, **own, **extra)
    model.load_state_dict(backbone.model.state_dict(), strict=False)
    return model.eval()


@pytest.mark.parametrize("key", CUT)
def test_pyramid_is_timms_own(key):
    backbone = build(key).eval()
    image = torch.randn(2, 3, 64, 96)
    model = timm_twin(backbone, key)
    with torch.no_grad():
        pyramid = backbone(image)
        if key == "vit":  # blocks 0, 2, 3, 5 of 6; the final norm on the last level alone
            maps = model.forward_intermediates(image, indices=[0, 2, 3], intermediates_only=True)
            last = model.forward_intermediates(image, indices=[5], intermediates_only=True, norm=True)
            maps = [*maps, *last]
        else:
            maps = model.forward_intermediates(image, indices=4, intermediates_only=True)
    assert pyramid.channels == backbone.channels == CUT[key][2]
    assert pyramid.strides == backbone.strides == ((16,) * 4 if key == "vit" else (4, 8, 16, 32))
    for ours, theirs in zip(pyramid.maps, maps, strict=True):
        assert torch.equal(ours, theirs)


def test_blocks_by_hand():
    """ResNet-18: pooling and eight residual units."""
    with torch.device("meta"):
        blocks = TimmBackbone("resnet18").blocks
    assert [block.name for block in blocks] == [
        "model.maxpool",
        *(f"model.layer{stage}.{index}" for stage in (1, 2, 3, 4) for index in (0, 1)),
    ]
    assert [(block.in_channels, block.out_channels, block.stride) for block in blocks] == [
        (64, 64, 4), (64, 64, 4), (64, 64, 4), (64, 128, 8), (128, 128, 8),
        (128, 256, 16), (256, 256, 16), (256, 512, 32), (512, 512, 32),
    ]  # fmt: skip


@pytest.mark.parametrize("key", ["resnet", "vit"])
def test_a_module_put_in_a_blocks_place_is_used(key):
    backbone = build(key).eval()
    image = torch.randn(1, 3, 64, 64)
    before = backbone(image).maps[-1]
    parent, _, child = backbone.blocks[-1].name.rpartition(".")
    backbone.get_submodule(parent)._modules[child] = nn.Identity()
    if key == "vit":
        assert not torch.equal(backbone(image).maps[-1], before)
    else:
        assert backbone.measure().levels[-1] == (192, 16)  # what layer3 gives


@pytest.mark.parametrize("key", CUT)
def test_side_exits_give_exact_task_jacobians(key):
    """Chain rule through the pyramid, level by level, equals autograd on the loss itself."""
    backbone = build(key).eval()
    pyramid = backbone(torch.randn(1, 3, 64, 64))
    weights = list(backbone.parameters())
    losses = [
        sum((item**2).mean() * (task + level) for level, item in enumerate(pyramid.maps)) for task in (1, 3)
    ]
    for loss in losses:
        direct = torch.autograd.grad(loss, weights, retain_graph=True)
        at_levels = torch.autograd.grad(loss, pyramid.maps, retain_graph=True)
        chained = torch.autograd.grad(pyramid.maps, weights, at_levels, retain_graph=True)
        for one, other in zip(direct, chained, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_vit_position_embedding_at_another_size():
    """Stored at the size asked for, or resampled on the way: the same maps."""
    free, stored = TimmBackbone("test_vit").eval(), TimmBackbone("test_vit", img_size=(64, 96)).eval()
    assert stored.model.pos_embed.shape[1] == 1 + 4 * 6
    from timm.layers import resample_abs_pos_embed

    state = free.state_dict()
    state["model.pos_embed"] = resample_abs_pos_embed(state["model.pos_embed"], [4, 6], num_prefix_tokens=1)
    stored.load_state_dict(state)
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        for one, other in zip(free(image).maps, stored(image).maps, strict=True):
            torch.testing.assert_close(one, other)
        assert stored(torch.randn(1, 3, 48, 48)).maps[0].shape[2:] == (3, 3)


PATCH_14 = {
    "vit_small_patch14_dinov2": {"depth": 4, "embed_dim": 24, "num_heads": 2},
    "eva02_small_patch14_336": {"depth": 4, "embed_dim": 24, "num_heads": 2},
}


@pytest.mark.parametrize("name", PATCH_14)
def test_patches_of_14_pixels_have_a_stride_of_14(name):
    backbone = TimmBackbone(name, **PATCH_14[name]).eval()
    assert backbone.strides == (14, 14, 14, 14)
    with torch.no_grad():
        pyramid = backbone(torch.randn(1, 3, 128, 256))  # padded to 140 x 266
    assert pyramid.strides == backbone.strides
    assert {tuple(item.shape[-2:]) for item in pyramid.maps} == {(10, 19)}
    assert {block.stride for block in backbone.blocks} == {14}


@pytest.mark.parametrize(
    ("name", "levels"),
    [
        ("vit_base_patch16_384", (2, 5, 8, 11)),
        pytest.param("vit_large_patch16_384", (5, 11, 17, 23), marks=pytest.mark.slow),
    ],
)
def test_vit_levels_of_the_papers(name, levels):
    with torch.device("meta"):
        assert TimmBackbone(name).exits == tuple(level + 1 for level in levels)


def test_own_levels_and_what_they_leave_out():
    backbone = TimmBackbone("test_resnet", levels=[0, 2])
    assert (backbone.channels, backbone.strides) == ((32, 48), (2, 8))
    assert backbone.blocks[-1].name.startswith("model.layer2")
    assert not any("layer3" in name for name, _ in backbone.named_parameters())


def test_level_norms_normalise_each_position():
    backbone = build("swin", level_norms=True).eval()
    with torch.no_grad():
        for item in backbone(torch.randn(1, 3, 64, 64)).maps:
            assert item.mean(1).abs().max() < 1e-5
            torch.testing.assert_close(
                item.var(1, unbiased=False), torch.ones_like(item[:, 0]), rtol=1e-2, atol=1e-2
            )


def test_drop_path_reaches_timm():
    backbone = TimmBackbone("test_vit", drop_path_rate=0.5)
    assert backbone.model.blocks[-1].drop_path1.drop_prob == pytest.approx(0.5)


@pytest.mark.parametrize("key", WHOLE)
def test_other_architectures_run_as_one_piece(key):
    backbone = build(key).eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        pyramid = backbone(image)
    assert pyramid.channels == backbone.channels
    assert [64 // stride for stride in pyramid.strides] == [int(item.shape[2]) for item in pyramid.maps]
    with pytest.raises(NotImplementedError, match="not cut into blocks"):
        _ = backbone.blocks


def test_fixed_size_architecture_says_so():
    backbone = build("cait")
    with pytest.raises(
        ValueError, match=r"cannot take images of \(96, 70\). It was made for \(64, 64\).*img_size"
    ):
        backbone(torch.randn(1, 3, 96, 70))


def test_meta_device_needs_no_memory_and_agrees():
    with torch.device("meta"):
        backbone = TimmBackbone("vit_large_patch16_384", pretrained=True)
    assert {item.device.type for item in backbone.parameters()} == {"meta"}
    assert backbone(torch.empty(1, 3, 448, 576, device="meta")).maps[0].shape == (1, 1024, 28, 36)


def test_unknown_names():
    with pytest.raises(UnknownNameError, match=r"Did you mean.*resnet18") as caught:
        TimmBackbone("resnet18x")
    assert len(str(caught.value)) < 600  # timm has more than a thousand names
    with pytest.raises(UnknownNameError, match=r"weight tag.*a1_in1k"):
        TimmBackbone("resnet18.a1_in2k")
    with pytest.raises(ValueError, match=r"levels=\[7\].*0 to 4.*\[2, 4, 8, 16, 32\]"):
        TimmBackbone("test_resnet", levels=[7])
    with pytest.raises(ValueError, match="unexpected keyword argument 'patchsize'"):
        TimmBackbone("test_vit", patchsize=4)


def test_the_documents_own_backbone():
    """The example of docs/models.md runs and keeps the contract."""
    from pathlib import Path

    from torch import Tensor

    from mtvision.models.backbones import Backbone

    text = (Path(__file__).resolve().parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    code = text.split("### A backbone of your own")[1].split("```python\n")[1].split("```")[0]
    scope = {"Backbone": Backbone, "nn": nn, "Tensor": Tensor}
    exec(code.replace("@BACKBONES.register_module()\n", ""), scope)
    backbone = scope["TwoLevels"](width=4)
    pyramid = backbone(torch.randn(1, 3, 30, 33))
    assert (backbone.channels, backbone.strides) == ((4, 8), (4, 8))
    assert [tuple(item.shape[1:]) for item in pyramid.maps] == [(4, 8, 10), (8, 4, 5)]
    assert [
        (block.name, block.in_channels, block.out_channels, block.stride) for block in backbone.blocks
    ] == [("second", 4, 8, 8)]

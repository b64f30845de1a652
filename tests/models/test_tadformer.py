"""TADFormer's filters: a centre filter is the plain update, kernels follow the image, grids are found."""

from __future__ import annotations

import pytest
import torch
from disturbed import disturb
from torch.nn import functional as F

from mtvision.models.adapters.low_rank import LowRank, TADFormer
from mtvision.models.adapters.low_rank.filters import DynamicFilter, FixedFilter
from mtvision.models.adapters.token_grid import TokenGrid, token_grids
from mtvision.models.backbones import TimmBackbone
from mtvision.protocols.tasks import depth, normals

TASKS = (depth(), normals())
SHARED, OWN = {"*.attn.proj": 2, "*.mlp.fc1": 3}, {"*.mlp.fc1": 3, "*.attn.proj": 3}


def vit():
    torch.manual_seed(0)
    return TimmBackbone("vit_tiny_patch16_224", embed_dim=16, depth=2, num_heads=2, img_size=32)


def swin():
    torch.manual_seed(0)
    options = {"embed_dim": 8, "depths": (1, 1), "num_heads": (1, 2), "window_size": 2}
    return TimmBackbone("swin_tiny_patch4_window7_224", **options)


@pytest.mark.parametrize("backbone", [vit, swin])
def test_a_filter_that_keeps_its_centre_is_the_shared_update(backbone):
    plain = disturb(LowRank(shared=SHARED).apply(backbone(), TASKS)).eval()
    adapted = TADFormer(shared=SHARED, own=OWN).apply(backbone(), TASKS).eval()
    adapted.load_state_dict(plain.state_dict(), strict=False)
    for item in adapted.modules():
        if isinstance(item, FixedFilter):
            torch.nn.init.zeros_(item.conv2d.weight).data[:, :, 1, 1] = 1
            torch.nn.init.zeros_(item.conv2d.bias)
    image = torch.randn(2, 3, 48, 64)
    with torch.no_grad():
        want, found = plain(image), adapted(image)
    for one, other in zip(want.maps, found.for_task("depth").maps, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5)


def test_a_filter_sees_neighbours_on_the_grid_and_leaves_the_class_token():
    adapted = TADFormer(shared={"*.mlp.fc1": 1}, own={"*.mlp.fc1": 3}).apply(vit(), TASKS)
    layer = adapted.model.blocks[1].mlp.fc1
    own, shared = layer.own["depth"], layer.shared
    shared.A.data, shared.B.data = torch.ones(1, 16), torch.ones(64, 1)
    own.filter.conv2d.weight.data = torch.tensor([[[[0.0, 1, 0], [0, 0, 0], [0, 0, 0]]]])  # the upper one
    own.filter.conv2d.bias.data.zero_()
    x = torch.zeros(1, 1 + 3 * 4, 16)
    x[0, 0], x[0, 1 + 4 * 1 + 2] = 2 / 16, 1 / 16  # class token, patch (1, 2)
    assert own.grid == TokenGrid(1, 16)
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("mtvision.models.adapters.low_rank.filters.image_size", lambda: (48, 60))
        found = own(x, x, layer)[0, :, 0]
    assert found[0] == 2
    assert found.nonzero().flatten().tolist() == [0, 1 + 4 * 2 + 2]


@pytest.mark.conformance("TADFormer", "formulas")
def test_a_dynamic_filter_is_made_from_the_mean_of_its_own_image():
    made, x = disturb(DynamicFilter(2, 3)), torch.randn(3, 2, 5, 6)
    found = made(x)
    torch.testing.assert_close(made(x[1:2]), found[1:2])
    raw = F.linear(x[1].mean((1, 2)), made.conv.weight[:, :, 0, 0], made.conv.bias).view(2, 9)
    raw = (raw - raw.mean(1, keepdim=True)) / raw.std(1, keepdim=True)
    kernel = raw * made.std.view(2, 9) + made.mean.view(2, 9)
    want = F.conv2d(x[1], kernel.view(2, 1, 3, 3), padding=1, groups=2)
    torch.testing.assert_close(found[1], want, rtol=1e-4, atol=1e-5)


def test_grids_of_layers_are_found_by_a_dry_run():
    found = token_grids(vit(), ["model.blocks.1.attn.proj"])
    assert found == {"model.blocks.1.attn.proj": TokenGrid(1, 16)}
    paths = [f"model.layers.1.blocks.0.{name}" for name in ("attn.proj", "mlp.fc1")]
    assert token_grids(swin(), paths) == {paths[0]: None, paths[1]: TokenGrid(0, 8)}
    assert TokenGrid(0, 8).sides((17, 24)) == (3, 3)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"shared": SHARED, "own": {"*.mlp.fc1": 2}},
            "filter of side 2 and a shared update. Give an odd side",
        ),
        ({"shared": SHARED, "own": {"*.mlp.fc2": 3}}, "fc2 has a filter of side 3 and no shared update"),
    ],
)
def test_bad_options_are_named(options, text):
    with pytest.raises(ValueError, match=text):
        TADFormer(**options).apply(vit(), TASKS)

"""Tiles that overlap: what they cover, what they give, and what they keep in memory."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from mtvision.core.prediction import is_pointwise
from mtvision.core.sample import IMAGE_MEAN, IMAGE_STD
from mtvision.evaluation import tiles
from mtvision.evaluation.predictor import Predictor
from mtvision.evaluation.tiles import Line, Tiling, TilingError
from mtvision.protocols import Protocol, own_protocol
from mtvision.protocols.tasks import depth, edge, instance, normals, semseg

CLASSES = ["a", "b", "c"]
TASKS = (semseg(CLASSES), depth(), normals(), edge())
PROTOCOL = Protocol(id="one", title="One", family="own", tasks=TASKS)
STRIDE = 4


class Convolutions(nn.Module):
    """Three convolutions and a bilinear enlargement: a pixel sees those at most 24 pixels away."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 8, 5, stride=STRIDE, padding=2)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.heads = nn.ModuleDict(
            {task.name: nn.Conv2d(8, task.out_channels, 3, padding=1) for task in TASKS}
        )
        self.shown = []

    @property
    def backbone(self):
        return self

    strides = (STRIDE,)

    def forward(self, image, context=None):
        self.shown.append(tuple(image.shape[-2:]))
        x = self.second(self.first(image).relu()).relu()
        size = [-(-side // STRIDE) * STRIDE for side in image.shape[-2:]]
        maps = {name: F.interpolate(head(x), size, mode="bilinear") for name, head in self.heads.items()}
        return {name: item[..., : image.shape[-2], : image.shape[-1]] for name, item in maps.items()}


class Colours(nn.Module):
    """The red channel in 0..1 as depth; what lies beyond the image is black."""

    strides = (1,)

    def __init__(self, stride=1):
        super().__init__()
        self.strides, self.most = (stride,), 0

    @property
    def backbone(self):
        return self

    def forward(self, image, context=None):
        self.most = max(self.most, image[0, 0].numel())
        return {"depth": image[:, :1] * IMAGE_STD[0] + IMAGE_MEAN[0]}


def photo(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(("height", "width"), [(150, 233), (64, 201), (150, 80), (30, 40)])
def test_convolutions_see_the_whole_picture(height, width):
    """The margins of 32 pixels beyond each fade are wider than what a pixel sees: no trace is left."""
    network, image = Convolutions(), photo(height, width)
    whole = Predictor(network, PROTOCOL)(image)
    network.shown.clear()
    tiled = Predictor(network, PROTOCOL, tile=(140, 160), overlap=128)(image)
    assert set(network.shown) <= {(min(height, 140), min(width, 160))}
    for name, values in whole.items():
        assert tiled[name].dtype == values.dtype
        assert tiled[name].shape == values.shape
        if name == "semseg":
            assert (tiled[name] != values).mean() < 1e-3  # of equal logits, to rounding
        else:
            np.testing.assert_allclose(tiled[name], values, rtol=1e-4, atol=1e-5)


def test_tiles_that_share_too_little_leave_a_trace():
    """The test above can fail."""
    network, image = Convolutions(), photo(150, 160)
    whole = Predictor(network, PROTOCOL)(image)["depth"]
    tiled = Predictor(network, PROTOCOL, tile=(80, 80), overlap=0)(image)["depth"]
    assert np.abs(tiled - whole).max() > 1e-3


@pytest.mark.parametrize("stride", [1, 4])
@pytest.mark.parametrize(("tile", "overlap"), [((16, 24), 0), ((16, 24), 4), ((16, 24), 12), ((9, 33), 5)])
def test_every_pixel_is_written_once_where_it_belongs(tile, overlap, stride):
    image = photo(53, 71)
    predictor = Predictor(Colours(stride), own_protocol("one", {"depth": {}}), tile=tile, overlap=overlap)
    np.testing.assert_allclose(predictor(image)["depth"][0], image[..., 0] / 255, atol=1e-5)


def test_tiles_cover_a_line_and_share_what_was_asked_for():
    for stride in (1, 4, 32):
        for length in range(1, 400, 7):
            for size, overlap in ((32, 0), (64, 16), (64, 32), (100, 60), (130, 97)):
                line = Line.of(length, size, overlap, stride)
                assert line.starts[0] == 0
                assert all(start % stride == 0 for start in line.starts)
                end = line.starts[-1] + line.size
                assert length <= end < length + stride or len(line.starts) == 1
                assert all(before + size - after >= overlap for before, after in pairwise(line.starts))
                edges = [0, *(edge for fade in line.fades for edge in fade), length]
                assert edges == sorted(edges), "fades do not meet"
                for index, start in enumerate(line.starts):
                    first, last = line.used(index)
                    assert start <= first <= last <= start + line.size


class Largest(TorchDispatchMode):
    """The most numbers of any tensor that is made."""

    most = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        result = function(*arguments, **(options or {}))
        sizes = [item.numel() for item in (result if isinstance(result, tuple | list) else [result])
                 if isinstance(item, torch.Tensor)]  # fmt: skip
        self.most = max(self.most, *sizes, 0)
        return result


def test_no_tensor_grows_with_the_area_of_the_picture():
    """Of logits, a tile or a strip of 16 lines is held, whatever the height."""
    network = Convolutions()
    predictor = Predictor(network, PROTOCOL, tile=(64, 64), overlap=32)
    most = []
    for height in (128, 256):
        with Largest() as mode:
            predictor(photo(height, 128))
        most.append(mode.most)
    assert most[0] == most[1] <= 8 * 64 * 64  # eight channels of a tile
    assert set(network.shown) == {(64, 64)}


def test_large_maps_lie_in_a_file(monkeypatch):
    monkeypatch.setattr(tiles, "LARGE", 1000)
    image = photo(40, 50)
    made = Predictor(Colours(), own_protocol("one", {"depth": {}}), tile=(16, 16))(image)["depth"]
    assert isinstance(made, np.memmap)
    np.testing.assert_allclose(made[0], image[..., 0] / 255, atol=1e-5)


class Corners(nn.Module):
    """Logits of one instance whose centre is the brightest pixel of the tile; offsets are 0."""

    strides = (1,)

    @property
    def backbone(self):
        return self

    def forward(self, image, context=None):
        red = image[:, :1] * IMAGE_STD[0] + IMAGE_MEAN[0]
        return {"instance": torch.cat([-9 + 0 * red, 9 + 0 * red, red, 0 * red, 0 * red], dim=1)}


def test_instances_are_grouped_over_the_whole_picture():
    protocol = Protocol(id="one", title="One", family="own", tasks=(instance(["thing"]),))
    assert not is_pointwise(protocol.tasks[0])
    image = np.zeros((40, 64, 3), np.uint8)
    image[10, 12], image[30, 50] = 255, 200
    whole, tiled = (Predictor(Corners(), protocol, **options)(image)["instance"]
                    for options in ({}, {"tile": (16, 16), "overlap": 8}))  # fmt: skip
    assert len(np.unique(whole[0])) == 2
    np.testing.assert_allclose(tiled, whole, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile": (64, 48), "overlap": 48}, r"overlap: expected 0 to 47 pixels.* got 48"),
        ({"tile": (64, 48), "overlap": -1}, r"overlap: expected 0 to 47 pixels.* got -1"),
        ({"tile": (0, 48)}, r"tile: expected \(H, W\) of at least 1 pixel each, got \(0, 48\)"),
        ({"overlap": 8}, "overlap: found 8 without tiles; give tile"),
        ({"tile": (64, 48), "size": (32, 32)}, "tile and size exclude one another"),
    ],
)
def test_sizes_that_make_no_sense(options, message):
    with pytest.raises(TilingError, match=message):
        Predictor(Colours(), PROTOCOL, **options)


def test_tiles_move_by_the_stride_at_least():
    with pytest.raises(TilingError, match="move by 24, and this network needs 32"):
        Predictor(Colours(32), PROTOCOL, tile=(64, 64), overlap=40)


def test_a_quarter_is_shared_by_default():
    assert Tiling((64, 48)).shared == 12

"""Shapes that are remembered are those that PyTorch computes, and values are never remembered."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mtvision.core import shapes
from mtvision.core.shapes import RememberedShapes, without_values


@pytest.fixture
def known(monkeypatch):
    monkeypatch.setattr(shapes, "_known", {})
    return lambda: len(shapes._known)


class Network(nn.Module):
    """Layers whose shapes PyTorch finds in Python, in C++, and by views."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, 2), nn.Conv2d(4, 4, 3, padding=1)
        self.norm, self.tokens = nn.BatchNorm2d(4), nn.LayerNorm(4)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x):
        kept = [x := self.norm(self.first(x)), x := torch.relu_(self.norm(self.second(x)) + x)]
        kept.append(nn.functional.interpolate(x, scale_factor=2.5, mode="bilinear"))
        kept.append(y := self.tokens(x.flatten(2).mT))
        kept += [self.attention(y, y, y)[0], *y.max(dim=1), y.double().mean((0, 1)), y > 0, *y.topk(2)]
        kept += [x.to(memory_format=torch.channels_last), torch.cat([x, x], 1), (y * 2).argmax(-1)]
        return kept


def facts(items):
    return [(item.shape, item.stride(), item.dtype, item.device.type) for item in items]


@pytest.mark.parametrize("training", [True, False])
def test_what_is_remembered_is_what_torch_computes(known, training):
    with torch.device("meta"):
        network = Network().train(training)
        images = torch.zeros(2, 3, 33, 65), torch.zeros(1, 3, 33, 65)
    expected = [facts(network(image)) for image in images]
    for _ in range(2):
        with RememberedShapes():
            assert [facts(network(image)) for image in images] == expected
    before = known()
    with RememberedShapes():
        network(images[0])
    assert known() == before > 20


def test_a_known_operator_is_not_called_again(known):
    x = torch.zeros(2, 3, device="meta")
    with RememberedShapes():
        assert torch.erfinv(x).shape == (2, 3)
        (key,) = shapes._known
        shapes._known[key] = (shapes._Made(torch.Size([7]), (1,), torch.float32),)
        assert torch.erfinv(x).shape == (7,)
        assert torch.erfinv(x.double()).shape == (2, 3)
        assert torch.erfinv(torch.zeros(3, 2, device="meta").mT).shape == (2, 3)


def test_types_of_scalars_and_the_default_count(known):
    with without_values():
        whole = torch.zeros(3, dtype=torch.int64)
        assert ((whole * 2).dtype, (whole * 2.0).dtype) == (torch.int64, torch.float32)
        torch.set_default_dtype(torch.float64)
        try:
            assert (whole * 2.0).dtype == torch.float64
        finally:
            torch.set_default_dtype(torch.float32)


def test_values_are_computed(known):
    with RememberedShapes():
        assert [float(torch.tensor(value) + 1) for value in (1.0, 2.0)] == [2, 3]
        assert known() == 0
        with pytest.raises(RuntimeError, match="meta"):
            float(torch.ones((), device="meta"))


def test_gradients_have_shapes_too(known):
    for _ in range(2):
        with without_values():
            weight = torch.zeros(4, 3, requires_grad=True)
            (torch.zeros(2, 3) @ weight.T).relu().sum().backward()
        assert weight.grad.shape == (4, 3)

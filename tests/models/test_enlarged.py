"""Convolutions of enlarged maps, computed at the maps' own size, are those of the enlarged maps."""

import copy

import pytest
import torch
from torch import nn

from mtvision.models.decoders import InvPTDecoder
from mtvision.models.factory import build_network
from mtvision.models.heads import ConvHead
from mtvision.models.layers import enlarge, enlarged, resize
from mtvision.models.layers.enlarged import convolved
from mtvision.protocols import get_protocol
from mtvision.testing.inputs import ToyBackbone, random_image, toy_tasks


@pytest.fixture(autouse=True)
def _small_ones_too(monkeypatch):
    monkeypatch.setattr(enlarged, "_LEAST", 0)


def conv(channels=3, out=4, **options):
    return nn.Conv2d(channels, out, 3, padding=1, **options).double()


def plain(layer, maps, size):
    return layer(sum(resize(item, size) for item in maps))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("sizes", "size"),
    [
        ([(4, 5)], (16, 20)),
        ([(1, 1)], (4, 4)),
        ([(1, 7)], (3, 15)),
        ([(3, 4)], (11, 13)),
        ([(2, 3), (4, 6), (8, 5)], (16, 24)),
    ],
)
def test_it_equals_the_convolution_of_the_enlarged_maps(sizes, size, bias):
    layer = conv(bias=bias)
    maps = [torch.randn(2, 3, *item, dtype=torch.float64, requires_grad=True) for item in sizes]
    found, wanted = convolved(layer, maps, size), plain(layer, maps, size)
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)
    downstream = torch.randn_like(wanted)
    read = [*maps, *layer.parameters()]
    gradients = [torch.autograd.grad(item, read, downstream) for item in (found, wanted)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-11)


def test_it_works_at_the_size_of_the_map_and_not_of_the_result():
    seen = []
    map_ = torch.randn(1, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: seen.append(x.numel()) or x, lambda x: x):
        convolved(conv(), [map_], (32, 32))
    assert max(seen) < 3 * 32 * 32  # the enlarged map is not kept for the backward pass


class Other(nn.Conv2d):
    """A convolution that does something else as well."""


@pytest.mark.parametrize(
    "layer",
    [
        conv(groups=1, dilation=2),
        conv(stride=2),
        conv(padding_mode="reflect"),
        nn.Conv2d(3, 4, 1).double(),
        Other(3, 4, 3, padding=1).double(),
        nn.Sequential(conv()),
    ],
    ids=["dilated", "strided", "reflected", "small", "subclass", "module"],
)
def test_other_layers_read_the_enlarged_map(layer):
    map_ = torch.randn(1, 3, 4, 5, dtype=torch.float64)
    assert torch.equal(convolved(layer, [map_], (16, 20)), plain(layer, [map_], (16, 20)))


def test_hooks_of_the_convolution_are_called():
    layer, seen = conv(), []
    layer.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape[-2:]))
    convolved(layer, [torch.randn(1, 3, 4, 5, dtype=torch.float64)], (16, 20))
    assert seen == [(16, 20)]


@pytest.mark.parametrize("options", [{"hidden": 6}, {"hidden": 6, "activation": "gelu"}, {}])
def test_a_head_that_enlarges_is_a_head_of_enlarged_maps(options):
    (task, *_), feature = toy_tasks(), torch.randn(2, 5, 4, 6, dtype=torch.float64)
    before, after = (ConvHead(5, task, enlarge=factor, **options).double() for factor in (1, 4))
    after.load_state_dict(before.state_dict())
    torch.testing.assert_close(after(feature), before(enlarge(feature, 4)), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(after.eval()(feature), before.eval()(enlarge(feature, 4)))


@pytest.mark.slow
def test_task_prompter_with_heads_that_enlarge_is_the_same_network():
    """As its configs have it, with four tasks."""
    options = {"width": 24, "out_width": 32, "reweight": 3}
    networks = []
    for upscale, factor in ((4, 1), (1, 4)):
        cfg = {
            "backbone": {"type": "TimmBackbone", "name": "vit_tiny_patch16_224", "img_size": (64, 96)},
            "adapters": [{"type": "TaskPrompts", "windows": 1}],
            "decoder": {"type": "TaskPrompterDecoder", "upscale": upscale, **options},
            "head": {"type": "ConvHead", "hidden": 32, "activation": "gelu", "enlarge": factor},
        }
        cfg["backbone"]["pretrained"] = False
        networks.append(build_network(cfg, get_protocol("nyud-invpt").tasks).double())
    plain_one, saving = networks
    saving.load_state_dict(plain_one.state_dict())
    image = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    torch.testing.assert_close(saving(image), plain_one(image), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("size", [(64, 96), (75, 53)])
def test_invpt_is_the_same_decoder(monkeypatch, size):
    """Features, gradients and running statistics; the convolutions of two stages join the last one's."""
    backbone = ToyBackbone((16, 16, 16), (16, 16, 16)).double()
    options = {"channels": backbone.channels, "strides": backbone.strides, "tasks": toy_tasks()}
    decoder = InvPTDecoder(width=16, hidden=10, **options).double()
    pyramid, found = backbone(random_image(2, size).double()), []
    for least in (0, 10**20):
        monkeypatch.setattr(enlarged, "_LEAST", least)
        one = copy.deepcopy(decoder).train()
        features = one(pyramid).features
        loss = sum((item * item.detach().cos()).sum() for item in features.values())
        read = [*one.parameters(), *backbone.parameters()]
        gradients = torch.autograd.grad(loss, read, allow_unused=True, retain_graph=True)
        found.append((features, gradients, dict(one.named_buffers())))
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-9)
    names = [name for name in found[0][0] if torch.equal(found[0][0][name], found[1][0][name])]
    assert names == []  # two ways, which differ by rounding


def test_a_small_convolution_is_done_as_it_is(monkeypatch):
    monkeypatch.undo()
    layer, map_ = conv(), torch.randn(1, 3, 4, 5, dtype=torch.float64)
    assert torch.equal(convolved(layer, [map_], (16, 20)), plain(layer, [map_], (16, 20)))


def test_under_autocast_it_is_as_near_as_the_plain_way():
    layer, map_ = conv(16, 16).float(), torch.randn(1, 16, 4, 5)
    with torch.autocast("cpu", torch.bfloat16):
        found = convolved(layer, [map_], (16, 20))
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), plain(layer, [map_], (16, 20)), rtol=3e-2, atol=3e-2)

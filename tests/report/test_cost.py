"""Cost: closed forms, published numbers, and the same counts with and without values."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

from mtvision.models import build_network
from mtvision.protocols.tasks import depth, semseg
from mtvision.report.cost import measure_cost

TASKS = (semseg(("sky", "road", "car")), depth())


def macs(network: nn.Module, size=(32, 48), **options) -> int:
    return measure_cost(network, size, **options)["macs"]["total"]


def small_network(name: str = "test_resnet"):
    cfg = {
        "backbone": {"type": "TimmBackbone", "name": name},
        "decoder": {"type": "ParallelDecoder", "width": 8},
        "head": {"type": "ConvHead"},
    }
    return build_network(cfg, TASKS)


def test_importing_does_not_import_torch():
    code = "import sys, mtvision.report.cost; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_convolutions():
    assert macs(nn.Conv2d(3, 8, 3, padding=1)) == 32 * 48 * 8 * 3 * 9
    assert macs(nn.Conv2d(3, 6, 5, stride=2, padding=2, groups=3)) == 16 * 24 * 6 * 1 * 25
    assert macs(nn.Conv2d(3, 8, 3, padding=2, dilation=2)) == 32 * 48 * 8 * 3 * 9
    assert macs(nn.ConvTranspose2d(3, 8, 2, stride=2)) == 32 * 48 * 3 * 8 * 4  # input pixels


def test_linear_counts_every_position():
    assert macs(nn.Linear(48, 10)) == 3 * 32 * 48 * 10
    assert macs(nn.Linear(48, 10, bias=False)) == 3 * 32 * 48 * 10


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("meta", [False, True])
def test_fused_attention(masked, meta):
    """(B, heads, L, d): Q K^T and A V cost heads * L^2 * d each; a causal mask saves nothing."""

    class Attention(nn.Module):
        def forward(self, image):
            tokens = image.flatten(2).transpose(1, 2).unflatten(2, (1, 3)).transpose(1, 2).repeat(1, 2, 1, 1)
            return F.scaled_dot_product_attention(tokens, tokens, tokens, is_causal=masked)

    assert macs(Attention(), (8, 16), meta=meta) == 2 * 2 * (8 * 16) ** 2 * 3


def test_matrix_product():
    class Gram(nn.Module):
        def forward(self, image):
            return torch.einsum("bchw,bdhw->bcd", image, image)

    assert macs(Gram()) == 3 * 3 * 32 * 48


def vit_macs(tokens: int, width: int, depth: int, patch: int, classes: int) -> int:
    block = 12 * tokens * width**2 + 2 * tokens**2 * width
    return depth * block + (tokens - 1) * 3 * patch**2 * width + width * classes


@pytest.mark.parametrize("fused", [True, False])
def test_vit_tiny(fused, monkeypatch):
    model = timm.create_model("vit_tiny_patch16_224")
    for block in model.blocks:
        block.attn.fused_attn = fused
    count = macs(model, (224, 224))
    assert count == vit_macs(197, 192, 12, 16, 1000) == 1_253_683_200
    norms = 25 * 197 * 192 * 5  # timm's published count adds 5 per normalised value
    assert (count + norms) / 1e9 == pytest.approx(1.258, abs=5e-4)


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("resnet50", 4.1),
        ("swin_tiny_patch4_window7_224", 4.5),
        ("convnext_tiny", 4.5),
        ("tf_efficientnet_lite0", 0.39),
    ],
)
def test_published_numbers(name, published):
    with torch.device("meta"):
        model = timm.create_model(name)
    digits = 2 if published < 1 else 1
    assert round(macs(model, (224, 224)) / 1e9, digits) == published


@pytest.mark.slow
@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext"])
def test_counting_without_values_gives_the_same(name):
    network = small_network(name)
    with torch.device("meta"):
        empty = small_network(name)
    real, copied = measure_cost(network, (64, 96)), measure_cost(network, (64, 96), meta=True)
    built = measure_cost(empty, (64, 96))
    for other in (copied, built):
        assert other["macs"] == real["macs"]
        assert other["parameters"] == real["parameters"]
        assert other["peak_memory"] is None
    assert {item.device.type for item in network.parameters()} == {"cpu"}


def test_parts_add_up():
    network = small_network()
    network.decoder.shared = nn.Linear(2, 2)
    network.backbone.model.conv1[0].weight.requires_grad_(False)
    cost = measure_cost(network, (64, 96))
    parameters = cost["parameters"]
    assert sum(parameters["parts"].values()) == parameters["total"]
    assert parameters["total"] == sum(item.numel() for item in network.parameters())
    assert parameters["total"] - parameters["trainable"] == 3 * 16 * 9
    assert parameters["parts"]["head/semseg"] == 8 * 3 + 3
    assert parameters["parts"]["decoder"] == 6
    parts = cost["macs"]["parts"]
    assert sum(parts.values()) == cost["macs"]["total"]
    assert set(parts) == {"backbone", "decoder/semseg", "decoder/depth", "head/semseg", "head/depth"}
    assert parts["head/semseg"] == 16 * 24 * 8 * 3
    assert parts["decoder/semseg"] == parts["decoder/depth"]
    assert parts["backbone"] == macs(network.backbone, (64, 96))


def test_tasks_and_batch_size():
    network = small_network()
    whole, part = (
        measure_cost(network, (64, 64), batch_size=2),
        measure_cost(network, (64, 64), tasks=["depth"]),
    )
    assert whole["macs"] == measure_cost(network, (64, 64))["macs"]  # per image
    assert whole["peak_memory"]["bytes"] > part["peak_memory"]["bytes"]
    assert set(part["macs"]["parts"]) == {"backbone", "decoder/depth", "head/depth"}
    assert part["tasks"] == ["depth"]


def test_peak_memory_by_hand():
    """Weights, image and two maps of the chain are alive at once; the first map is gone by the third."""
    chain = nn.Sequential(*(nn.Conv2d(3, 3, 1, bias=False) for _ in range(3)))
    one_map = 3 * 32 * 48 * 4
    measured = measure_cost(chain, (32, 48))["peak_memory"]["bytes"]
    assert measured == 3 * 9 * 4 + one_map + 2 * one_map


def test_latency_and_plain_data():
    network = small_network().train()
    cost = measure_cost(network, (32, 32), latency=True, repeats=3)
    assert json.loads(json.dumps(cost)) == cost
    times = cost["latency"]
    assert 0 < times["min_ms"] <= times["median_ms"] <= times["max_ms"]
    assert times["device"]
    assert times["threads"] == torch.get_num_threads()
    assert all(module.training for module in network.modules())  # its mode came back
    assert network.backbone.model.bn1.num_batches_tracked == 0


def test_errors():
    with torch.device("meta"):
        empty = nn.Conv2d(3, 3, 1)
    with pytest.raises(ValueError, match="has no latency"):
        measure_cost(empty, (8, 8), latency=True)
    with pytest.raises(ValueError, match="must be positive"):
        measure_cost(nn.Conv2d(3, 3, 1), (0, 8))


class Conditioned(nn.Module):
    """A layer is called with a row of a table of weights, as conditional networks do."""

    def __init__(self):
        super().__init__()
        self.table, self.layer = nn.Embedding(3, 4), nn.Linear(4, 5)

    def forward(self, image, tasks=None):
        return self.layer(self.table.weight[1]) + image.mean()


@pytest.mark.parametrize("meta", [True, False])
def test_views_of_weights_may_be_inputs_of_modules(meta):
    """torch's own counter asks them for a gradient function, which they do not have without gradients."""
    assert macs(Conditioned(), (8, 8), meta=meta) == 4 * 5

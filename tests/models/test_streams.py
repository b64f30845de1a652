"""Several backbones side by side: closed-form special cases, published formulas, start from checkpoints."""

from __future__ import annotations

import pytest
import torch
from disturbed import disturb
from torch import nn

from mtvision.core.naming import UnknownNameError
from mtvision.models.adapters import NDDR, CrossStitch
from mtvision.models.adapters.streams import CrossStitchUnit, NDDRUnit
from mtvision.models.backbones import TimmBackbone
from mtvision.models.convert import revert
from mtvision.models.factory import build_network
from mtvision.protocols.tasks import depth, normals, semseg

TASKS = (semseg(("sky", "road", "car")), depth(), normals())
RESNET = {"name": "resnet18", "channels": (4, 6, 8, 10), "stem_type": "deep", "stem_width": 2}
SWIN = {"name": "swin_tiny_patch4_window7_224", "embed_dim": 8, "depths": (1, 1), "num_heads": (2, 2)}
SWIN |= {"levels": (0, 1), "window_size": 4}
VIT = {"name": "vit_tiny_patch16_224", "embed_dim": 12, "depth": 4, "num_heads": 2}
NDDR_PLACES = ["model.maxpool", "levels"]


def config(adapter, decoder=None, **backbone):
    return {
        "backbone": {"type": "TimmBackbone", **(backbone or RESNET)},
        "adapters": [adapter] if adapter else [],
        "decoder": decoder or {"type": "ParallelDecoder", "width": 4},
        "head": {"type": "ConvHead"},
    }


@pytest.mark.parametrize("options", [RESNET, SWIN, VIT], ids=["resnet", "swin", "vit"])
def test_identity_stitch_is_separate_networks(options):
    backbone = disturb(TimmBackbone(**options)).eval()
    streams = CrossStitch(own=1.0, other=0.0, places=["stem", "levels"]).apply(backbone, TASKS).eval()
    image = torch.randn(2, 3, 64, 96)
    expected, pyramids = backbone(image), streams(image)
    assert streams.channels == backbone.channels
    assert streams.strides == backbone.strides == pyramids.strides
    for task in TASKS:
        for mine, plain in zip(pyramids.for_task(task.name).maps, expected.maps, strict=True):
            torch.testing.assert_close(mine, plain, rtol=0, atol=1e-6)


def test_nddr_with_own_features_alone_is_separate_networks():
    backbone = disturb(TimmBackbone(**RESNET)).eval()
    streams = NDDR(own=1.0, other=0.0, places=NDDR_PLACES).apply(backbone, TASKS).eval()
    for unit in streams.fusions.values():
        for layers in unit.reduce.values():
            layers[1].running_var.fill_(
                1 - layers[1].eps
            )  # makes the norm the identity; ReLU meets none below 0
    image = torch.randn(2, 3, 64, 96)
    expected, pyramids = backbone(image), streams(image)
    for mine, plain in zip(pyramids.for_task("depth").maps, expected.maps, strict=True):
        torch.testing.assert_close(mine, plain, rtol=1e-5, atol=1e-5)


def test_equal_weights_make_all_tasks_equal():
    streams = CrossStitch(own=0.25, other=0.25).apply(TimmBackbone(**RESNET), TASKS)
    for name in ("depth", "normals"):
        disturb(streams.streams[name])
    streams.eval()
    pyramids = streams(torch.randn(1, 3, 64, 64))
    last = [pyramids.for_task(task.name).maps[-1] for task in TASKS]
    assert torch.equal(last[0], last[1])
    assert torch.equal(last[0], last[2])


def test_units_by_hand():
    maps = {"a": torch.randn(2, 3, 4, 5), "b": torch.randn(2, 3, 4, 5)}
    stitch = disturb(CrossStitchUnit(["a", "b"], 3, own=0.9, other=0.1))
    weight = stitch.weights["b"]
    expected = maps["a"] * weight["a"].view(1, 3, 1, 1) + maps["b"] * weight["b"].view(1, 3, 1, 1)
    torch.testing.assert_close(stitch(maps)["b"], expected)
    fresh = CrossStitchUnit(["a", "b"], 3, own=0.9, other=0.1)
    torch.testing.assert_close(fresh(maps)["a"], 0.9 * maps["a"] + 0.1 * maps["b"])
    nddr = NDDRUnit(["a", "b"], 3, own=0.9, other=0.1).eval()
    assert nddr.reduce["a"][1].momentum == 0.05
    expected = (0.9 * maps["b"] + 0.1 * maps["a"]).relu() / (1 + 1e-5) ** 0.5
    torch.testing.assert_close(nddr(maps)["b"], expected)


def stages(model, image):
    """Output of torchvision's four stages, as a list of functions to be run in turn."""
    stem = nn.Sequential(model.conv1, model.bn1, model.act1, model.maxpool)
    return [stem, model.layer1, model.layer2, model.layer3, model.layer4]


@pytest.mark.conformance("cross_stitch", "formulas")
def test_cross_stitch_as_published():
    """The formula on the official names of the weights: y_i = sum of alpha_ij x_j behind layer1 to layer4."""
    network = disturb(build_network(config({"type": "CrossStitch"}), TASKS)).eval()
    official = revert(
        {k: v for k, v in network.state_dict().items() if k.startswith("backbone.")}, "survey_cross_stitch"
    )[0]
    image, names = torch.randn(1, 3, 64, 96), [task.name for task in TASKS]
    state = dict.fromkeys(names, image)
    parts = {name: stages(network.backbone.streams[name].model, image) for name in names}
    pyramids = network.backbone(image)
    for k in range(5):
        state = {name: parts[name][k](x) for name, x in state.items()}
        if k:
            unit = f"cross_stitch.layer{k}.cross_stitch_unit"
            state = {
                i: sum(official[f"{unit}.{i}.{j}.param"].view(1, -1, 1, 1) * state[j] for j in names)
                for i in names
            }
            for name in names:
                torch.testing.assert_close(
                    pyramids.for_task(name).maps[k - 1], state[name], rtol=1e-5, atol=1e-5
                )


@pytest.mark.conformance("nddr", "formulas")
def test_nddr_as_published():
    network = build_network(config({"type": "NDDR", "places": NDDR_PLACES}), TASKS)
    network = disturb(network).eval()
    own = {k: v for k, v in network.state_dict().items() if k.startswith("backbone.")}
    official = revert(own, "survey_nddr")[0]
    image, names = torch.randn(1, 3, 64, 96), [task.name for task in TASKS]
    parts = {name: stages(network.backbone.streams[name].model, image) for name in names}
    state = dict.fromkeys(names, image)
    for k, stage in enumerate(("conv", "layer1_without_conv", "layer2", "layer3", "layer4")):
        joined = torch.cat([parts[name][k](state[name]) for name in names], dim=1)
        for name in names:
            layer = f"nddr.{stage}.layer.{name}"
            x = nn.functional.conv2d(joined, official[f"{layer}.0.weight"])
            norm = [official[f"{layer}.1.{n}"] for n in ("running_mean", "running_var", "weight", "bias")]
            state[name] = nn.functional.batch_norm(x, *norm).relu()
    pyramids = network.backbone(image)
    for name in names:
        torch.testing.assert_close(pyramids.for_task(name).maps[-1], state[name], rtol=1e-5, atol=1e-5)


ADAPTERS = [{"type": "CrossStitch"}, {"type": "NDDR", "places": NDDR_PLACES}]


@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda item: item["type"])
def test_every_weight_learns_and_every_stream_serves_every_task(adapter):
    network = build_network(config(adapter), TASKS)
    logits = network(torch.randn(2, 3, 64, 64))
    sum(item.square().mean() for item in logits.values()).backward()
    assert [name for name, item in network.named_parameters() if item.grad is None] == []
    network.zero_grad()
    network(torch.randn(2, 3, 64, 64))["depth"].sum().backward()
    assert network.backbone.streams["normals"].model.conv1[0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda item: item["type"])
def test_subset_sizes_formats(adapter):
    network = build_network(config(adapter), TASKS).eval()
    image = torch.randn(1, 3, 67, 45)  # a batch of one, odd sides
    full = network(image)
    assert torch.equal(network(image, tasks=["normals"])["normals"], full["normals"])
    assert full["depth"].shape == (1, 1, 67, 45)
    last = network.to(memory_format=torch.channels_last)(image.to(memory_format=torch.channels_last))
    torch.testing.assert_close(last["depth"], full["depth"], rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        low = network(image)
    torch.testing.assert_close(low["depth"], full["depth"], rtol=0.1, atol=0.1)
    network.train()(torch.randn(1, 3, 64, 64))


def test_one_task_is_the_plain_network_up_to_its_stitch():
    plain = build_network(config(None), TASKS[:1]).eval()
    stitched = build_network(config({"type": "CrossStitch", "own": 1.0}), TASKS[:1]).eval()
    stitched.backbone.streams["semseg"].load_state_dict(plain.backbone.state_dict())
    stitched.decoder.load_state_dict(plain.decoder.state_dict())
    stitched.heads.load_state_dict(plain.heads.state_dict())
    image = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(stitched(image)["semseg"], plain(image)["semseg"])


def test_starts_from_single_task_networks(tmp_path):
    singles, weights = {}, {}
    for task in TASKS[:2]:
        singles[task.name] = disturb(build_network(config(None), [task])).eval()
        weights[task.name] = tmp_path / f"{task.name}.pth"
        state = {f"network.{k}": v for k, v in singles[task.name].state_dict().items()}
        torch.save({"format": "mtvision-checkpoint-1", "state_dict": state}, weights[task.name])
    adapter = {"type": "CrossStitch", "own": 1.0, "other": 0.0, "weights": weights}
    network = build_network(config(adapter), TASKS[:2]).eval()
    image = torch.randn(1, 3, 64, 64)
    for name, single in singles.items():
        torch.testing.assert_close(network(image)[name], single(image)[name], rtol=1e-5, atol=1e-5)
    assert network.architecture["adapters"] == [{"type": "CrossStitch", "own": 1.0, "other": 0.0}]
    build_network(network.architecture, TASKS[:2]).load_state_dict(network.state_dict())
    swapped = {"depth": weights["semseg"]}
    with pytest.raises(ValueError, match="not a single-task network of depth"):
        build_network(config({**adapter, "weights": swapped}), TASKS[:2])
    with pytest.raises(UnknownNameError, match=r"model\.adapters\.0\.weights\.dept: Unknown task"):
        build_network(config({**adapter, "weights": {"dept": weights["depth"]}}), TASKS[:2])


def test_checkpointing_recomputes_to_the_same_gradients():
    gradients = []
    for recompute in (False, True):
        torch.manual_seed(0)
        network = build_network(
            config({"type": "CrossStitch"}, **RESNET, grad_checkpointing=recompute), TASKS[:2]
        ).train()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.0
        network(torch.ones(2, 3, 64, 64))["depth"].sum().backward()
        gradients.append([item.grad for item in network.backbone.parameters() if item.grad is not None])
    assert len(gradients[0]) == len(gradients[1])
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(first, second)


def test_refusals():
    with pytest.raises(UnknownNameError, match=r"(?s)layer1.9.*Known: levels"):
        build_network(config({"type": "CrossStitch", "places": ["model.layer1.9"]}), TASKS)
    with pytest.raises(NotImplementedError, match="not cut into blocks"):
        build_network(config({"type": "NDDR"}, name="regnetx_002"), TASKS)

"""The survey's networks at full size: parameters, cost, names of the official weights; its heads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from mtvision.engine.optimization.optimizer import build_optimizer
from mtvision.models.convert import convert, revert
from mtvision.models.factory import build_network
from mtvision.models.heads import DeepLabHead, HighResolutionHead
from mtvision.protocols import get_protocol
from mtvision.protocols.tasks import depth, semseg
from mtvision.recipe.building import without_pretrained
from mtvision.recipe.config import load_config
from mtvision.recipe.settings import Settings, to_plain_data
from mtvision.report.cost import measure_cost

HRNET = {
    "type": "HRNetBackbone",
    "name": "hrnet_w18_small_v2",
    "upsampling": "bilinear",
    "bn_momentum": 0.01,
}
RESNET = {"type": "TimmBackbone", "name": "resnet50", "output_stride": 8}
BRANCHES = {"backbone": HRNET, "decoder": {"type": "ConcatDecoder"}, "head": {"type": "HighResolutionHead"}}
DILATED = {
    "backbone": RESNET,
    "decoder": {"type": "ConcatDecoder", "levels": [-1]},
    "head": {"type": "DeepLabHead"},
}
NDDR = {"type": "NDDR", "places": ["model.maxpool", "levels"]}
MTI = {**BRANCHES, "decoder": {"type": "MTINetDecoder"}}
PAD = {"backbone": HRNET, "decoder": {"type": "PADNetDecoder"}, "head": {"type": "ResidualHead"}}
TWO = ("semseg", "depth")
NYUD = ("nyud-survey", (480, 640))
PASCAL = ("pascal-survey", (512, 512), None)

MODELS = {  # model: (config, (protocol, size, tasks), source, tensors, parameters, 1e9 multiply-accumulates)
    "multi_decoder_hrnet": (BRANCHES, (*NYUD, TWO), "survey_multi_decoder", 882, 4_019_251, 12.8),
    "multi_decoder_resnet": (DILATED, (*NYUD, TWO), "survey_multi_decoder", 406, 55_769_449, 266.6),
    "mti_net": (MTI, (*NYUD, TWO), "survey_mti_net", 1316, 8_578_179, 17.1),
    "mti_net_4": (MTI, ("nyud-survey", (448, 576), None), "survey_mti_net", 1682, 17_960_945, 23.8),
    "mti_net_pascal": (MTI, PASCAL, "survey_mti_net", 1889, 24_494_171, 30.3),
    "pad_net": (PAD, (*NYUD, TWO), "survey_pad_net", 1039, 7_019_056, 70.3),
    "pad_net_pascal": (PAD, PASCAL, "survey_pad_net", 1321, 29_304_992, 424.9),
    "mtan": (
        {**DILATED, "adapters": [{"type": "MTAN"}]},
        (*NYUD, TWO), "survey_mtan", 590, 72_052_713, 394.3,
    ),
    "cross_stitch": (
        {**DILATED, "adapters": [{"type": "CrossStitch"}]},
        (*NYUD, TWO), "survey_cross_stitch", 740, 79_292_841, 383.4,
    ),
    "nddr": ({**DILATED, "adapters": [NDDR]}, (*NYUD, TWO), "survey_nddr", 784, 101_591_721, 494.4),
}  # fmt: skip


def build(name):
    config, (protocol, _, tasks), *_ = MODELS[name]
    chosen = get_protocol(protocol)
    with torch.device("meta"):
        return build_network(config, (chosen.select(list(tasks)) if tasks else chosen).tasks)


SHAPES = {  # spot checks of the authors' names and shapes
    "multi_decoder_resnet": {
        "backbone.layer3.0.conv2.weight": (256, 256, 3, 3),
        "decoders.semseg.0.convs.0.0.weight": (256, 2048, 1, 1),
        "decoders.semseg.0.convs.3.1.running_var": (256,),
        "decoders.depth.0.convs.4.1.weight": (256, 2048, 1, 1),
        "decoders.depth.0.convs.4.2.bias": (256,),
        "decoders.depth.0.project.0.weight": (256, 1280, 1, 1),
        "decoders.depth.1.weight": (256, 256, 3, 3),
        "decoders.depth.2.running_mean": (256,),
        "decoders.semseg.4.weight": (40, 256, 1, 1),
    },
    "multi_decoder_hrnet": {
        "backbone.transition3.3.0.0.weight": (144, 72, 3, 3),
        "backbone.stage4.0.fuse_layers.3.0.2.0.weight": (144, 18, 3, 3),
        "decoders.semseg.last_layer.0.bias": (270,),
        "decoders.depth.last_layer.3.weight": (1, 270, 1, 1),
    },
    "mti_net_pascal": {
        "fpm_scale_3.non_linear.0.conv1.weight": (180, 720, 3, 3),
        "fpm_scale_2.dimensionality_reduction.downsample.0.weight": (72, 360, 1, 1),
        "fpm_scale_1.se.sal.squeeze.0.weight": (2, 36),
        "scale_0.refinement.sal.0.conv1.weight": (18, 54, 3, 3),
        "scale_3.decoders.human_parts.weight": (7, 144, 1, 1),
        "distillation_scale_1.self_attention.sal.edge.attention.0.weight": (36, 36, 3, 3),
        "heads.sal.last_layer.3.weight": (1, 270, 1, 1),
    },
    "pad_net": {
        "backbone.0.conv2.weight": (64, 64, 3, 3),
        "backbone.1.last_layer.0.bias": (270,),
        "initial_task_prediction_heads.layers.depth.0.downsample.0.weight": (256, 270, 1, 1),
        "initial_task_prediction_heads.conv_out.depth.weight": (1, 256, 1, 1),
        "multi_modal_distillation.self_attention.semseg.depth.conv.weight": (256, 256, 3, 3),
        "heads.semseg.1.bn3.weight": (256,),
        "heads.semseg.2.weight": (40, 256, 1, 1),
    },
    "mtan": {
        "backbone.conv1.weight": (64, 3, 7, 7),
        "attention_1.depth.0.weight": (64, 256, 1, 1),
        "attention_4.semseg.3.weight": (2048, 512, 1, 1),
        "refine_3.0.downsample.0.weight": (2048, 1024, 1, 1),
        "heads.depth.4.bias": (1,),
    },
    "cross_stitch": {
        "backbone.depth.layer4.2.conv3.weight": (2048, 512, 1, 1),
        "cross_stitch.layer1.cross_stitch_unit.semseg.depth.param": (256,),
        "cross_stitch.layer4.cross_stitch_unit.depth.depth.param": (2048,),
    },
    "nddr": {
        "nddr.conv.layer.semseg.0.weight": (64, 128, 1, 1),
        "nddr.layer1_without_conv.layer.depth.1.running_mean": (256,),
        "nddr.layer4.layer.depth.0.weight": (2048, 4096, 1, 1),
    },
}


@pytest.mark.conformance("{name}", "counts", "layout")
@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_parameters_cost_and_official_names(name):
    _, (_, size, _), source, tensors, parameters, macs = MODELS[name]
    network = build(name)
    assert sum(item.numel() for item in network.parameters()) == parameters
    assert measure_cost(network, size, meta=True)["macs"]["total"] / 1e9 == pytest.approx(macs, rel=0.01)
    official, _ = revert(network.state_dict(), source)
    assert len(official) == tensors
    known = SHAPES.get(name, {})
    assert {key: tuple(official[key].shape) for key in known} == known
    back, report = convert(official, source)
    assert not report.dropped
    assert {key: value.shape for key, value in back.items()} == {
        key: value.shape for key, value in network.state_dict().items()
    }


@pytest.mark.conformance("{name}", "layout")
@pytest.mark.slow
@pytest.mark.parametrize("name", ["pad_net", "mti_net"])
def test_there_and_back_is_the_identity(name):
    official = {
        f"module.{key}": torch.rand(tuple(value.shape))
        for key, value in revert(build(name).state_dict(), MODELS[name][2])[0].items()
    }
    ours, _ = convert(official, MODELS[name][2])
    back, _ = revert(ours, MODELS[name][2])
    assert set(back) == {key.removeprefix("module.") for key in official}
    assert all(torch.equal(value, official[f"module.{key}"]) for key, value in back.items())


def test_deeplab_head_pools_the_image_even_for_a_batch_of_one():
    head = DeepLabHead(8, depth(), width=4, rates=(1, 2), dropout=0.0)
    feature = torch.randn(1, 8, 5, 7)
    head.train()
    pooled = head.branches[-1](feature)
    assert pooled.shape == (1, 4, 5, 7)
    assert torch.equal(pooled, pooled[..., :1, :1].expand_as(pooled))
    expected = (head.branches[-1].conv.weight[:, :, 0, 0] @ feature.mean(dim=(0, 2, 3))).relu() / (
        1 + 1e-5
    ) ** 0.5
    torch.testing.assert_close(pooled[0, :, 0, 0], expected)
    head(feature).sum().backward()
    assert all(item.grad is not None for item in head.parameters())


def test_deeplab_head_looks_as_far_as_its_rates():
    conv = DeepLabHead(1, depth(), width=2, rates=(3,)).branches[1][0]
    feature = torch.zeros(1, 1, 15, 15, requires_grad=True)
    conv(feature)[0, :, 7, 7].sum().backward()
    reached = {tuple(place) for place in feature.grad[0, 0].nonzero().tolist()}
    assert reached == {(row, column) for row in (4, 7, 10) for column in (4, 7, 10)}


def test_high_resolution_head_by_hand():
    head = HighResolutionHead(2, semseg(("sky", "road", "car"))).eval()
    nn.init.dirac_(head.layers[0].weight)
    nn.init.constant_(head.layers[0].bias, 1.0)
    nn.init.ones_(head.layers[3].weight)
    nn.init.zeros_(head.layers[3].bias)
    feature = torch.randn(1, 2, 3, 4)
    expected = (feature + 1).relu().sum(dim=1, keepdim=True).expand(-1, 3, -1, -1) / (1 + 1e-5) ** 0.5
    torch.testing.assert_close(head(feature), expected)


STITCHED = (
    "cross_stitch/cross_stitch_resnet18_pascal_survey_1xb12_20ep",
    "cross_stitch/cross_stitch_resnet50_nyud_survey_1xb8_50ep",
    "nddr/nddr_resnet50_nyud_survey_1xb8_50ep",
)


@pytest.mark.slow
@pytest.mark.parametrize("name", STITCHED)
def test_fusion_units_learn_a_hundred_times_as_fast(name):
    config = load_config(Path(__file__).parents[2] / "configs" / f"{name}.py")
    with torch.device("meta"):
        network = build_network(without_pretrained(config["model"]), Settings.of(config).protocol.tasks)
    optimizer = build_optimizer(network, nn.Identity(), to_plain_data(config["optimizer"]))
    rates = {id(item): group["lr"] for group in optimizer.param_groups for item in group["params"]}
    for path, item in network.named_parameters():
        factor = 100 if "fusions" in path else 1
        assert rates[id(item)] == pytest.approx(config["optimizer"]["lr"] * factor)

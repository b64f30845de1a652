"""The survey's networks (Vandenhende et al., TPAMI 2021): converted weights predict as in the authors' code.

Whole networks, from the image to logits of its size. Widths of ResNets are small; depths and names of all
tensors are those of the authors' files.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from converted import check_outputs, compares
from plain import batch_norm, bilinear, conv
from plain_cnn import deeplab, dilated_stage, high_resolution, joined, residual_block, resnet_stem
from plain_hrnet import PlainHRNet
from torch.nn import functional as F

from mtvision.models.factory import build_network
from mtvision.protocols import get_protocol

NAMES = ("semseg", "depth")
TASKS = get_protocol("nyud-survey").select(list(NAMES)).tasks
KEYS = Path(__file__).resolve().parents[3] / "shared" / "reference" / "keys"
HRNET = {"type": "HRNetBackbone", "name": "hrnet_w18_small_v2", "upsampling": "bilinear", "bn_momentum": 0.01}
RESNET = {"type": "TimmBackbone", "name": "resnet50", "output_stride": 8, "channels": (12, 14, 16, 20)}
RESNET18 = {**RESNET, "name": "resnet18", "channels": (12, 16, 20, 24)}
NDDR = {"type": "NDDR", "places": ["model.maxpool", "levels"]}


def dilated(*adapters, backbone=RESNET):
    return {
        "backbone": backbone,
        "adapters": list(adapters),
        "decoder": {"type": "ConcatDecoder", "levels": [-1]},
        "head": {"type": "DeepLabHead", "width": 16},
    }


BRANCHES = {"backbone": HRNET, "decoder": {"type": "ConcatDecoder"}, "head": {"type": "HighResolutionHead"}}


def to_image(logits, image):
    return {name: bilinear(item, image.shape[-2:]) for name, item in logits.items()}


def multi_decoder_hrnet(w, image):
    x = joined(PlainHRNet(w, "backbone.")(image))
    return to_image({t: high_resolution(x, w, f"decoders.{t}") for t in NAMES}, image)


def multi_decoder_resnet(w, image):
    x = resnet_stem(image, w, "backbone.")
    for k in (1, 2, 3, 4):
        x = dilated_stage(x, w, "backbone.", k)[1]
    return to_image({t: deeplab(x, w, f"decoders.{t}") for t in NAMES}, image)


def cross_stitch(w, image):
    """After every stage a task's map is the sum of all tasks' maps, with a weight per pair and channel."""
    x = {t: resnet_stem(image, w, f"backbone.{t}.") for t in NAMES}
    for k in (1, 2, 3, 4):
        x = {t: dilated_stage(x[t], w, f"backbone.{t}.", k)[1] for t in NAMES}
        unit = f"cross_stitch.layer{k}.cross_stitch_unit"
        x = {i: sum(w[f"{unit}.{i}.{j}.param"][:, None, None] * x[j] for j in NAMES) for i in NAMES}
    return to_image({t: deeplab(x[t], w, f"heads.{t}") for t in NAMES}, image)


def nddr(w, image):
    """After the stem and every stage: 1x1 convolution of all tasks' maps side by side, norm, ReLU."""

    def fuse(x, name):
        both = torch.cat([x[t] for t in NAMES], 1)
        layer = f"nddr.{name}.layer"
        return {t: batch_norm(conv(both, w, f"{layer}.{t}.0"), w, f"{layer}.{t}.1").relu() for t in NAMES}

    x = fuse({t: resnet_stem(image, w, f"backbone.{t}.") for t in NAMES}, "conv")
    for k, name in enumerate(("layer1_without_conv", "layer2", "layer3", "layer4"), start=1):
        x = fuse({t: dilated_stage(x[t], w, f"backbone.{t}.", k)[1] for t in NAMES}, name)
    return to_image({t: deeplab(x[t], w, f"heads.{t}") for t in NAMES}, image)


def mtan(w, image):
    """Masks of the shared stages, made before their last block; only the first stage is pooled."""
    x, attended = resnet_stem(image, w, "backbone."), {}
    for k in (1, 2, 3, 4):
        before, x = dilated_stage(x, w, "backbone.", k)
        for t in NAMES:
            source = before if k == 1 else torch.cat([before, attended[t]], 1)
            name = f"attention_{k}.{t}"
            hidden = batch_norm(conv(source, w, f"{name}.0"), w, f"{name}.1").relu()
            mask = torch.sigmoid(batch_norm(conv(hidden, w, f"{name}.3"), w, f"{name}.4"))
            attended[t] = mask * x
            if k < 4:
                attended[t] = residual_block(attended[t], w, f"refine_{k}.0")
            if k == 1:
                attended[t] = F.max_pool2d(attended[t], 2)
    return to_image({t: deeplab(attended[t], w, f"heads.{t}") for t in NAMES}, image)


MODELS = {  # name: (config, source, forward, list of the authors' names)
    "hrnet": (BRANCHES, "survey_multi_decoder", multi_decoder_hrnet, "baseline_hrnet18_NYUD2"),
    "resnet": (dilated(), "survey_multi_decoder", multi_decoder_resnet, "baseline_r50d_NYUD2"),
    "resnet18": (dilated(backbone=RESNET18), "survey_multi_decoder", multi_decoder_resnet, None),
    "cross_stitch": (
        dilated({"type": "CrossStitch"}), "survey_cross_stitch", cross_stitch, "crossstitch_r50d_NYUD2",
    ),
    "nddr": (dilated(NDDR), "survey_nddr", nddr, "nddr_r50d_NYUD2"),
    "mtan": (dilated({"type": "MTAN"}), "survey_mtan", mtan, "mtan_r50d_NYUD2"),
}  # fmt: skip


def wide_image():
    """So wide that on the map of a dilated ResNet the largest rate of the head (36) meets two positions."""
    return torch.randn(2, 3, 32, 320, dtype=torch.float64)


@pytest.mark.conformance("{name}", "formulas", "layout")
@compares("survey_multi_decoder", "survey_cross_stitch", "survey_nddr", "survey_mtan")
@pytest.mark.parametrize("name", MODELS)
def test_converted_weights_predict_as_in_the_authors_code(name):
    config, source, forward, listed = MODELS[name]
    image = torch.randn(2, 3, 64, 96, dtype=torch.float64) if config is BRANCHES else wide_image()
    checkpoint = check_outputs(source, build_network(config, TASKS), forward, image)
    file = KEYS / f"keys_{listed}.txt"
    if file.is_file():
        lines = file.read_text(encoding="utf-8").splitlines()
        assert set(checkpoint) == {line.split("\t")[0] for line in lines if not line.startswith("#")}

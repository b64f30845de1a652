"""MTAN: masks of one leave the shared backbone, and the published formulas on the official names."""

from __future__ import annotations

import pytest
import torch
from disturbed import disturb
from torch import nn
from torch.nn import functional as F

from mtvision.core.naming import UnknownNameError
from mtvision.models.convert import revert
from mtvision.models.factory import build_network
from mtvision.protocols.tasks import depth, normals, semseg

TASKS = (semseg(("sky", "road", "car")), depth(), normals())
NAMES = [task.name for task in TASKS]
RESNET = {"name": "resnet18", "channels": (4, 8, 12, 16), "stem_type": "deep", "stem_width": 2}


def build(**options):
    return build_network(
        {
            "backbone": {"type": "TimmBackbone", **RESNET, **options},
            "adapters": [{"type": "MTAN"}],
            "decoder": {"type": "ConcatDecoder", "levels": [-1]},
            "head": {"type": "ConvHead"},
        },
        TASKS,
    )


def test_a_mask_of_one_leaves_the_shared_backbone():
    network = disturb(build()).eval()
    for stage in network.backbone.attention:
        for mask in stage.values():
            nn.init.zeros_(mask[4].weight)
            nn.init.constant_(mask[4].bias, 100.0)
    image = torch.randn(2, 3, 64, 96)
    plain, own = network.backbone.shared(image), network.backbone(image)
    for name in NAMES:
        for mine, shared in zip(own.for_task(name).maps, plain.maps, strict=True):
            torch.testing.assert_close(mine, shared, rtol=1e-5, atol=1e-5)


def bottleneck(state, name, x):
    """Official residual block, evaluation mode."""

    def norm(layer, y):
        values = (state[f"{name}.{layer}.{n}"] for n in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(y, *values)

    y = norm("bn1", F.conv2d(x, state[f"{name}.conv1.weight"])).relu()
    y = norm("bn2", F.conv2d(y, state[f"{name}.conv2.weight"], padding=1)).relu()
    y = norm("bn3", F.conv2d(y, state[f"{name}.conv3.weight"]))
    return (y + norm("downsample.1", F.conv2d(x, state[f"{name}.downsample.0.weight"]))).relu()


@pytest.mark.conformance("mtan", "formulas")
@pytest.mark.parametrize("stride", [8, 32])
def test_as_published(stride):
    network = disturb(build(output_stride=stride)).eval()
    own = {k: v for k, v in network.state_dict().items() if k.startswith("backbone.")}
    state = revert(own, "survey_mtan")[0]
    model, image = network.backbone.shared.model, torch.randn(1, 3, 64, 96)
    pyramid = network.backbone(image)
    x = model.maxpool(model.act1(model.bn1(model.conv1(image))))
    attended = {}
    for k, layer in enumerate((model.layer1, model.layer2, model.layer3, model.layer4), start=1):
        before = layer[:-1](x)
        x = layer[-1](before)
        for name in NAMES:
            source = before if k == 1 else torch.cat([before, attended[name]], dim=1)
            part = f"attention_{k}.{name}"
            for conv, norm, act in ((0, 1, torch.relu), (3, 4, torch.sigmoid)):
                source = F.conv2d(source, state[f"{part}.{conv}.weight"], state[f"{part}.{conv}.bias"])
                values = (
                    state[f"{part}.{norm}.{n}"] for n in ("running_mean", "running_var", "weight", "bias")
                )
                source = act(F.batch_norm(source, *values))
            attended[name] = source * x
            torch.testing.assert_close(
                pyramid.for_task(name).maps[k - 1], attended[name], rtol=1e-5, atol=1e-5
            )
            if k < 4:
                attended[name] = bottleneck(state, f"refine_{k}.0", attended[name])
                if k == 1 or stride == 32:
                    attended[name] = F.max_pool2d(attended[name], 2)


def test_every_weight_learns():
    network = build(output_stride=8)
    logits = network(torch.randn(2, 3, 64, 64))
    sum(item.square().mean() for item in logits.values()).backward()
    assert [name for name, item in network.named_parameters() if item.grad is None] == []
    network.zero_grad()
    network(torch.randn(2, 3, 64, 64), tasks=["depth"])["depth"].sum().backward()
    touched = {name for name, item in network.named_parameters() if item.grad is not None}
    assert any("attention.3.depth" in name for name in touched)
    assert not any("semseg" in name or "normals" in name for name in touched)


def test_only_the_tasks_asked_for_are_computed():
    network = build().eval()
    image, calls = torch.randn(1, 3, 67, 45), []  # a batch of one, odd sides
    full = network(image)
    for name, mask in network.backbone.attention[0].items():
        mask.register_forward_hook(lambda *_, name=name: calls.append(name))
    assert torch.equal(network(image, tasks=["normals"])["normals"], full["normals"])
    assert calls == ["normals"]
    with pytest.raises(UnknownNameError, match="Did you mean 'depth'"):
        network.backbone(image).for_task("dept")


def test_formats():
    network, image = build().eval(), torch.randn(1, 3, 64, 96)
    full = network(image)["depth"]
    network.to(memory_format=torch.channels_last)
    last = network(image.to(memory_format=torch.channels_last))["depth"]
    torch.testing.assert_close(last, full, rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(network(image)["depth"], full, rtol=0.1, atol=0.1)
    network.train()(image)


def test_refusals():
    with pytest.raises(ValueError, match=r"only block of its stage.*resnet18"):
        build(name="resnet10t")

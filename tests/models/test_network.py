"""Networks and the factory: sizes, tasks asked for, context, regularisers, rebuilding, errors."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mtvision.core.context import Context, current_context
from mtvision.core.naming import ConfigError, UnknownNameError
from mtvision.core.registry import ADAPTERS
from mtvision.core.roles import find_roles
from mtvision.models import Network, build_network
from mtvision.models.adapters import Adapter
from mtvision.models.decoders import ParallelDecoder
from mtvision.models.heads import ConvHead
from mtvision.protocols.tasks import depth, normals, semseg

TASKS = (semseg(("sky", "road", "car")), depth(), normals())


def config(name: str = "test_resnet", **changes) -> dict:
    base = {
        "backbone": {"type": "TimmBackbone", "name": name},
        "decoder": {"type": "ParallelDecoder", "width": 8},
        "head": {"type": "ConvHead"},
    }
    return base | changes


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext"])
@pytest.mark.parametrize("size", [(64, 64), (97, 133)])
def test_logits_have_the_size_of_the_image(name, size):
    network = build_network(config(name), TASKS).eval()
    with torch.no_grad():
        logits = network(torch.randn(1, 3, *size))
        large = network(torch.randn(1, 3, *size), size=(2 * size[0], 2 * size[1]))
    assert {key: tuple(item.shape) for key, item in logits.items()} == {
        "semseg": (1, 3, *size), "depth": (1, 1, *size), "normals": (1, 3, *size),
    }  # fmt: skip
    assert large["depth"].shape == (1, 1, 2 * size[0], 2 * size[1])


def test_resizing_is_bilinear_without_aligned_corners():
    network = build_network(config(), TASKS).eval()
    image = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        feature = network.decoder(network.backbone(image)).features["depth"]
        coarse = network.heads["depth"](feature)
        expected = F.interpolate(coarse, size=(64, 96), mode="bilinear", align_corners=False)
        assert coarse.shape[2:] == (16, 24)
        assert torch.equal(network(image)["depth"], expected)


@pytest.mark.parametrize("name", ["test_vit", "test_convnext"])
def test_padding_is_cut_off_again(name):
    """An image of an odd size gives the upper left part of what the padded image gives."""
    network = build_network(config(name), TASKS).eval()
    image = torch.randn(1, 3, 50, 61)
    with torch.no_grad():
        part, whole = network(image)["depth"], network(F.pad(image, (0, 3, 0, 14)))["depth"]
        double = network(image, size=(100, 122))["depth"]
        double_whole = network(F.pad(image, (0, 3, 0, 14)), size=(128, 128))["depth"]
    assert torch.equal(part, whole[..., :50, :61])
    assert torch.equal(double, double_whole[..., :100, :122])


def test_only_what_is_asked_for():
    network = build_network(config(), TASKS)
    calls: list[str] = []
    for path, module in network.named_modules():
        if path.startswith(("heads.", "decoder.decoders.")) and path.split(".")[-1] in network.task_names:
            module.register_forward_hook(lambda *_, path=path: calls.append(path))
    assert list(network(torch.randn(2, 3, 64, 64), ["depth"])) == ["depth"]
    assert calls == ["decoder.decoders.depth", "heads.depth"]
    with pytest.raises(UnknownNameError, match=r"task of this network 'normal'. Did you mean 'normals'"):
        network(torch.randn(2, 3, 64, 64), ["normal"])


def test_deep_supervision_at_label_size():
    network = build_network(
        config(decoder={"type": "ParallelDecoder", "width": 8, "deep_supervision": 0.3}), TASKS
    )
    output = network.outputs(torch.randn(2, 3, 64, 64), ["semseg"])
    assert {(item.task, tuple(item.logits.shape[1:]), item.weight) for item in output.auxiliary} == {
        ("semseg", (3, 64, 64), 0.3)
    }
    assert len(output.auxiliary) == 3


def test_logits_are_float32_under_autocast():
    network = build_network(config(), TASKS).eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert network(torch.randn(1, 3, 64, 64))["depth"].dtype == torch.float32


def test_context_is_in_force_during_the_call():
    network = build_network(config(), TASKS)
    seen: list[str | None] = []
    network.backbone.register_forward_hook(lambda *_: seen.append(current_context().task))
    image = torch.randn(2, 3, 64, 64)
    network(image, context=Context(task="depth"))
    network(image)
    with network.context(task="normals", temperature=0.5):
        network(image)
        with network.context(task="semseg") as inner:
            assert inner == Context(task="semseg", temperature=0.5)
            network(image)
    assert seen == ["depth", None, "normals", "semseg"]


def test_auxiliary_losses_by_path():
    class Regularised(nn.Conv2d):
        def auxiliary_loss(self):
            return self.weight.square().sum()

    network = build_network(config(), TASKS)
    assert network.auxiliary_losses() == {}
    layer = network.decoder.extra = Regularised(2, 3, 1)
    assert network.auxiliary_losses() == {"decoder.extra": layer.weight.square().sum()}


def test_roles_follow_from_the_structure():
    network = build_network(config(), TASKS)
    losses = {name: item.square().mean() for name, item in network(torch.randn(2, 3, 64, 64)).items()}
    roles = find_roles(losses, network.named_parameters())
    for name, _ in network.named_parameters():
        task = next((task for task in network.task_names if f".{task}." in name), None)
        assert roles[name] == ("shared" if task is None else f"task:{task}")


def test_architecture_is_plain_data_that_rebuilds_the_network():
    cfg = config(
        backbone={"type": "TimmBackbone", "name": "test_vit", "levels": (1, 3), "img_size": (64, 96)},
        decoder={"type": ParallelDecoder, "width": 8, "task_widths": {"depth": 4}},
        heads={"depth": {"type": ConvHead, "hidden": 6}},
    )
    network = build_network(cfg, TASKS).eval()
    again = build_network(json.loads(json.dumps(network.architecture)), TASKS).eval()
    again.load_state_dict(network.state_dict())
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        for name, item in network(image).items():
            assert torch.equal(item, again(image)[name])
    assert again.architecture == network.architecture


def test_architecture_needs_no_weight_file(tmp_path):
    torch.save(build_network(config(), TASKS).backbone.model.state_dict(), tmp_path / "w.pth")
    backbone = {"type": "TimmBackbone", "name": "test_resnet", "pretrained": Path(tmp_path / "w.pth")}
    network = build_network(config(backbone=backbone), TASKS)
    (tmp_path / "w.pth").unlink()
    build_network(network.architecture, TASKS)


def test_adapters_change_the_backbone_in_order():
    @ADAPTERS.register_module(force=True)
    class Scale(Adapter):
        def __init__(self, by: float) -> None:
            self.by = by

        def apply(self, backbone, tasks):
            assert tasks == TASKS
            backbone.order = [*getattr(backbone, "order", []), self.by]
            return backbone

        def complete(self, network):
            network.backbone.order = [*network.backbone.order, (tuple(network.heads), self.by)]

    try:
        network = build_network(
            config(adapters=[{"type": "Scale", "by": 2.0}, {"type": "Scale", "by": 3.0}]), TASKS
        )
        names = tuple(task.name for task in TASKS)
        assert network.backbone.order == [2.0, 3.0, (names, 2.0), (names, 3.0)]
        assert network.architecture["adapters"] == [
            {"type": "Scale", "by": 2.0},
            {"type": "Scale", "by": 3.0},
        ]
    finally:
        del ADAPTERS["Scale"]


def test_errors():
    no_head = {key: value for key, value in config().items() if key != "head"}
    with pytest.raises(ValueError, match=r"task 'depth' has no head .heads: semseg.*model.heads\['depth'\]"):
        build_network(no_head | {"heads": {"semseg": {"type": "ConvHead"}}}, TASKS)
    with pytest.raises(UnknownNameError, match=r"model\.heads\.dept: Unknown task in model\.heads 'dept'"):
        build_network(config(heads={"dept": {"type": "ConvHead"}}), TASKS)
    with pytest.raises(UnknownNameError, match=r"key of model 'decoders'. Did you mean 'decoder'"):
        build_network(config(decoders={}), TASKS)
    with pytest.raises(
        ConfigError, match=r"2 mistakes\n  model\.decoder is missing; .*\n  task 'semseg' has no head"
    ):
        build_network({"backbone": {"type": "TimmBackbone", "name": "test_resnet"}}, TASKS)
    with pytest.raises(UnknownNameError, match="ParallelDecoder argument 'widht'"):
        build_network(config(decoder={"type": "ParallelDecoder", "widht": 3}), TASKS)
    for name in ("values", "type", "training", "near.depth"):
        taken = replace(TASKS[0], name=name)
        with pytest.raises(
            ValueError, match=rf"protocol\.tasks\.{name}: torch's modules cannot have this name"
        ):
            build_network(config(), [taken])
    with pytest.raises(ValueError, match="no tasks"):
        build_network(config(), ())
    architecture = build_network(config(), TASKS).architecture
    with pytest.raises(ValueError, match=r"this architecture predicts \{'semseg': 3, .* the tasks given are"):
        build_network(architecture, (semseg(("sky", "road")), *TASKS[1:]))
    with pytest.raises(ValueError, match="an even one shifts the map"):
        build_network(config(head={"type": "ConvHead", "kernel": 2}), TASKS)


def test_config_is_not_written_to():
    cfg = config(backbone={"type": "TimmBackbone", "name": "test_resnet", "pretrained": False})
    before = json.dumps(cfg)
    build_network(cfg, TASKS)
    assert json.dumps(cfg) == before


def test_heads_and_tasks_of_a_hand_made_network():
    built = build_network(config(), TASKS)
    with pytest.raises(ValueError, match="task 'normals' has no head"):
        Network(
            built.backbone, built.decoder, {name: built.heads[name] for name in ("semseg", "depth")}, TASKS
        )


def test_hidden_head():
    head = ConvHead(8, TASKS[0], hidden=5, kernel=3, dropout=0.2)
    assert sum(item.numel() for item in head.parameters()) == 8 * 5 * 9 + 2 * 5 + 5 * 3 * 9 + 3
    assert head(torch.randn(2, 8, 6, 7)).shape == (2, 3, 6, 7)

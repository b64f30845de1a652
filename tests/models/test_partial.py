"""Fine-tuning: what fits is loaded, what does not is reported, and another network is refused."""

from __future__ import annotations

import logging

import data_problems as problems
import pytest
import timm
import torch
from timm.layers import resample_abs_pos_embed
from torch import nn

from mtvision.models.backbones.names import check_in_chans
from mtvision.models.factory import build_network
from mtvision.models.partial import load_partly
from mtvision.protocols import own_protocol
from mtvision.recipe.sections import TrainingSettings
from mtvision.runtime.checkpoint import CheckpointError, load_checkpoint

TWO = own_protocol("two", {"semseg": {"class_names": ["a", "b", "c"]}, "depth": {}})
OTHER = own_protocol("other", {"semseg": {"class_names": ["a", "b", "c", "d"]}, "normals": {}})


def network_of(protocol=TWO, name="test_resnet", **options):
    model = {
        "backbone": {"type": "TimmBackbone", "name": name, **options},
        "decoder": {"type": "ParallelDecoder", "width": 8},
        "head": {"type": "ConvHead"},
    }
    return build_network(model, protocol.tasks)


def loaded(network, content, folder, caplog):
    path = folder / "weights.pth"
    torch.save(content, path)
    with caplog.at_level(logging.WARNING, "mtvision"):
        report = load_partly(network, load_checkpoint(path), path)
    assert str(report) in [item.getMessage() for item in caplog.records]
    return report


@problems.OTHER_NETWORK
def test_other_classes_and_tasks(tmp_path, caplog):
    source, target = network_of(), network_of(OTHER)
    fresh = {name: item.clone() for name, item in target.state_dict().items()}
    content = {"model": {f"module.{name}": item for name, item in source.state_dict().items()}}
    report = loaded(target, content, tmp_path, caplog)
    now, old = target.state_dict(), source.state_dict()
    for name, item in now.items():
        from_file = name in old and old[name].shape == item.shape
        assert torch.equal(item, old[name] if from_file else fresh[name]), name
        assert (name in report.loaded) == from_file
    assert report.absent == ("decoder.decoders.normals.* (38 tensors)", "heads.normals.* (2 tensors)")
    assert report.left_over == ("decoder.decoders.depth.* (38 tensors)", "heads.depth.* (2 tensors)")
    shapes = "((3, 8, 1, 1) in the file, (4, 8, 1, 1) in the network)"
    assert report.unfit["heads.semseg.logits.weight"] == shapes
    assert f"  of another shape, freshly initialised: heads.semseg.logits.weight {shapes}" in str(report)
    values = sum(now[name].numel() for name in report.loaded) / sum(item.numel() for item in now.values())
    assert report.share == pytest.approx(values)
    assert f"{values:.1%} of the network's values" in str(report).splitlines()[0]


def test_the_same_network_loads_whole(tmp_path, caplog):
    source, target = network_of(), network_of()
    report = loaded(target, source.state_dict(), tmp_path, caplog)
    assert report.share == 1
    assert len(str(report).splitlines()) == 1
    assert all(torch.equal(target.state_dict()[name], item) for name, item in source.state_dict().items())


@pytest.mark.parametrize("channels", [1, 4])
@problems.OTHER_NETWORK
def test_a_backbone_alone_and_its_stem_of_other_channels(channels, tmp_path, caplog):
    target = network_of()
    stem = target.get_parameter("backbone.model.conv1.0.weight").clone()
    source = timm.create_model("test_resnet", in_chans=channels)
    report = loaded(target, source.state_dict(), tmp_path, caplog)
    assert list(report.unfit) == ["backbone.model.conv1.0.weight"]
    assert torch.equal(target.get_parameter("backbone.model.conv1.0.weight"), stem)
    assert torch.equal(target.backbone.model.layer4[0].conv1.weight, source.layer4[0].conv1.weight)
    assert report.left_over == ("backbone.model.fc.* (2 tensors)",)
    assert report.absent == ("decoder.* (76 tensors)", "heads.* (4 tensors)")


def test_position_embeddings_of_another_size_are_resampled_as_timm_does(tmp_path, caplog):
    source, target = network_of(name="test_vit"), network_of(OTHER, name="test_vit", img_size=(64, 96))
    report = loaded(target, source.state_dict(), tmp_path, caplog)
    assert list(report.reshaped) == ["backbone.model.pos_embed"]
    expected = resample_abs_pos_embed(source.backbone.model.pos_embed, [4, 6], num_prefix_tokens=1)
    torch.testing.assert_close(target.backbone.model.pos_embed, expected)
    assert "  resampled to another size: backbone.model.pos_embed ((1, 101, 64)" in str(report)


def test_what_no_rule_resamples_stays_fresh(tmp_path, caplog):
    source, target = network_of(name="test_vit"), network_of(OTHER, name="test_vit")
    state = {**source.state_dict(), "backbone.model.pos_embed": torch.ones(1, 7, 64)}
    before = target.backbone.model.pos_embed.clone()
    report = loaded(target, state, tmp_path, caplog)
    assert "backbone.model.pos_embed" in report.unfit
    assert torch.equal(target.backbone.model.pos_embed, before)


@problems.OTHER_NETWORK
def test_another_network_is_refused_and_nothing_is_changed(tmp_path, caplog):
    target = network_of()
    before = {name: item.clone() for name, item in target.state_dict().items()}
    for content, begins in (
        (timm.create_model("test_efficientnet").state_dict(), "blocks."),
        ({f"encoder.{key}_": value for key, value in before.items()}, "encoder.backbone"),
        (
            {"heads.depth.logits.bias": torch.zeros(1), **{f"x.{i}.w": torch.ones(99) for i in range(9)}},
            "x.0",
        ),
    ):
        with pytest.raises(
            CheckpointError, match=r"of another network: \d+ of its \d+ tensors fit"
        ) as caught:
            loaded(target, content, tmp_path, caplog)
        assert begins in str(caught.value)
        assert "those of the network with backbone.model" in str(caught.value)
    assert all(torch.equal(target.state_dict()[name], item) for name, item in before.items())


def test_integers_do_not_become_weights(tmp_path, caplog):
    target = network_of()
    state = {**target.state_dict(), "heads.depth.logits.bias": torch.ones(1, dtype=torch.int8)}
    report = loaded(target, state, tmp_path, caplog)
    text = "(torch.int8 in the file, torch.float32 in the network)"
    assert report.unfit == {"heads.depth.logits.bias": text}


@problems.OTHER_NETWORK
def test_a_network_without_its_backbone_trains_from_what_is_left(tmp_path, caplog):
    """A file whose every tensor fits is taken, however small its share."""
    target = network_of()
    heads = {name: torch.ones_like(item) for name, item in target.state_dict().items() if "heads" in name}
    report = loaded(target, heads, tmp_path, caplog)
    assert report.share < 0.01
    assert isinstance(target.heads["depth"].logits, nn.Conv2d)
    assert torch.equal(target.heads["depth"].logits.bias, torch.ones(1))


def test_options_that_cannot_be_meant():
    with pytest.raises(ValueError, match=r"load_partly is set, but training.load_from names no checkpoint"):
        TrainingSettings(load_partly=True)


@problems.CHANNELS
@pytest.mark.parametrize("number", [0, 1, 4, 6])
def test_other_images_than_rgb_are_refused_before_a_network_is_built(number):
    check_in_chans(3)
    with pytest.raises(ValueError, match=rf"in_chans={number}: images are RGB"):
        network_of(in_chans=number)

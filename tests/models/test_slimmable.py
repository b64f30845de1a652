"""Slimmable networks: full width bit for bit, nested slices, export, statistics, refusals."""

from __future__ import annotations

import copy
import itertools
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mtvision.architecture.widths import WidthConfig
from mtvision.core.context import Context
from mtvision.core.naming import UnknownNameError
from mtvision.models import build_network
from mtvision.models.adapters.slimmable import active_channels, calibrate, export, slimming_of
from mtvision.models.adapters.slimmable.batch_norm import SlimBatchNorm2d
from mtvision.protocols.tasks import depth, semseg

pytestmark = pytest.mark.slow

TASKS = (semseg(("sky", "road", "car")), depth())
NAMES = ("semseg", "depth")
SWIN = {"embed_dim": 32, "depths": (1, 2), "num_heads": (2, 4), "window_size": 4, "img_size": 64}
VIT = {"embed_dim": 48, "depth": 4, "num_heads": 3, "img_size": 64, "init_values": 0.5, "reg_tokens": 2}
BACKBONES = {
    "resnet": ("resnet10t", {}),
    "regnet": ("regnety_002", {}),  # grouped convolutions, squeeze-excite, no blocks to cut
    "mobilenet": ("mobilenetv3_small_050", {}),
    "same padding": ("tf_mobilenetv3_small_minimal_100", {}),
    "swin": ("swin_tiny_patch4_window7_224", SWIN),
    "vit": ("vit_tiny_patch16_224", VIT),
}
HALF = WidthConfig(0.5, {"semseg": 0.25, "depth": 0.5})


def network(kind: str = "resnet", *, slim: bool = True, decoder: dict | None = None, **options) -> nn.Module:
    torch.manual_seed(0)
    name, arguments = BACKBONES.get(kind, (kind, {}))
    decoder = decoder or {"type": "ParallelDecoder", "width": 32, "deep_supervision": 0.4}
    cfg = {
        "backbone": {"type": "TimmBackbone", "name": name, **arguments},
        "decoder": decoder,
        "head": {"type": "ConvHead", "hidden": 16},
        "adapters": [{"type": "Slimmable", **options}] if slim else [],
    }
    return build_network(cfg, TASKS)


def image(count: int = 2, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def at(widths: WidthConfig) -> Context:
    return Context(widths=widths.to_plain())


@pytest.fixture(scope="module")
def built():
    return {kind: network(kind) for kind in BACKBONES}


@pytest.mark.conformance("slimmable", "formulas")
@pytest.mark.parametrize("kind", BACKBONES)
@pytest.mark.parametrize("training", [False, True])
def test_full_width_is_the_plain_network_bit_for_bit(built, kind, training):
    plain, slim = network(kind, slim=False).train(training), copy.deepcopy(built[kind]).train(training)
    results = []
    for model, context in ((plain, None), (slim, None), (copy.deepcopy(slim), at(WidthConfig(1.0)))):
        torch.manual_seed(3)
        output = model.outputs(image(), context=context)
        sum(item.square().mean() for item in output.logits.values()).backward()
        results.append((output.logits, model))
    for logits, model in results[1:]:
        for name in NAMES:
            assert torch.equal(logits[name], results[0][0][name])
        ours = dict(model.named_parameters())
        for name, item in plain.named_parameters():
            assert (item.grad is None) == (ours[name].grad is None), name
            assert item.grad is None or torch.equal(item.grad, ours[name].grad), name
        buffers = dict(model.named_buffers())
        assert all(torch.equal(item, buffers[name]) for name, item in plain.named_buffers())


@pytest.mark.conformance("slimmable", "slims")
@pytest.mark.parametrize("kind", BACKBONES)
def test_export_equals_the_slimmed_network_and_can_be_rebuilt(built, kind):
    slim = copy.deepcopy(built[kind]).eval()
    stages = slimming_of(slim).stages
    widths = WidthConfig(tuple([0.5, 0.75, 1.0, 0.6][:stages]), {"semseg": 0.25, "depth": 0.75})
    calibrate(slim, [image(4, seed=5)], [widths])
    plain = export(slim, widths)
    assert not any(hasattr(module, "slicing") for module in plain.modules())
    slimmed = slim(image(), context=at(widths))
    for name, logits in plain(image()).items():
        torch.testing.assert_close(logits, slimmed[name], rtol=0, atol=1e-6)
    assert plain.backbone.channels == plain.backbone(image()).channels
    rebuilt = build_network(json.loads(json.dumps(plain.architecture)), TASKS)
    rebuilt.load_state_dict(plain.state_dict())
    for name, logits in rebuilt.eval()(image()).items():
        assert torch.equal(logits, plain(image())[name])
    share = sum(item.numel() for item in plain.parameters()) / sum(item.numel() for item in slim.parameters())
    assert share < 0.8


@pytest.mark.parametrize("kind", BACKBONES)
def test_gradients_of_a_slimmed_pass_touch_only_the_slice(built, kind):
    """What is outside the exported slice must have no gradient, and what is inside has some."""
    slim = copy.deepcopy(built[kind]).train()
    output = slim.outputs(image(4), context=at(HALF))
    loss = sum(item.square().mean() for item in output.logits.values())
    (loss + sum(item.logits.square().mean() for item in output.auxiliary)).backward()
    with torch.no_grad():
        calibrate(slim, [image(4)], [HALF])
    plain = dict(export(slim, HALF).named_parameters())
    for name, item in slim.named_parameters():
        if item.grad is None:
            continue
        touched = int((item.grad != 0).sum())
        assert touched <= plain[name].numel(), name
        if (
            item.ndim
            and plain[name].shape != item.shape
            and item.ndim in (1, 4)
            and not set(name.split(".")) & {"qkv", "downsample"}
        ):
            inside = tuple(slice(0, size) for size in plain[name].shape)
            outside = item.grad.clone()
            outside[inside] = 0
            assert not outside.any(), name


def test_slices_are_nested(built):
    """A narrower network's weights are a corner of a wider one's."""
    slim = copy.deepcopy(built["resnet"])
    sizes = [WidthConfig(ratio, dict.fromkeys(NAMES, ratio)) for ratio in (0.25, 0.5, 0.75)]
    calibrate(slim, [image(4)], sizes)
    exported = [dict(export(slim, item).named_parameters()) for item in sizes]
    for narrow, wide in itertools.pairwise(exported):
        for name, weight in narrow.items():
            corner = wide[name][tuple(slice(0, size) for size in weight.shape)]
            assert torch.equal(weight, corner), name


def test_widths_of_parts_are_independent(built):
    """The encoder does not change with a decoder, nor one decoder with another."""
    slim = copy.deepcopy(built["regnet"]).train()
    maps = {}
    for own in (0.25, 1.0):
        with slim.context(widths=WidthConfig(0.5, {"semseg": own, "depth": 0.5}).to_plain()):
            torch.manual_seed(0)
            pyramid = slim.backbone(image())
            maps[own] = (pyramid.maps, slim.decoder(pyramid).features)
    assert all(torch.equal(a, b) for a, b in zip(maps[0.25][0], maps[1.0][0], strict=True))
    assert torch.equal(maps[0.25][1]["depth"], maps[1.0][1]["depth"])
    assert maps[0.25][1]["semseg"].shape[1] == 8
    assert maps[1.0][1]["semseg"].shape[1] == 32


def test_recalibrated_statistics_do_not_depend_on_order(built):
    batches = [image(3, seed) for seed in range(4)]
    configurations = [HALF, WidthConfig(0.75, dict.fromkeys(NAMES, 0.5)), WidthConfig(0.25)]
    results = []
    for order, sequence in ((batches, configurations), (batches[::-1], configurations[::-1])):
        slim = copy.deepcopy(built["resnet"]).eval()
        calibrate(slim, order, sequence)
        results.append({item: slim(image(), context=at(item)) for item in configurations})
    for item in configurations:
        for name in NAMES:
            torch.testing.assert_close(results[0][item][name], results[1][item][name], rtol=1e-6, atol=1e-6)


def test_calibration_of_one_batch_reproduces_its_batch_statistics(built):
    """Evaluation with the statistics of a batch is the training-mode pass on it, up to unbiased variances."""
    slim, batch = copy.deepcopy(built["resnet"]).eval(), image(8)
    calibrate(slim, [batch], [HALF])
    norm = next(item for item in slim.modules() if isinstance(item, SlimBatchNorm2d))
    with slim.context(widths=HALF.to_plain()):
        first = slim.get_submodule("backbone.model.conv1")
        state = (first[0] if isinstance(first, nn.Sequential) else first)(batch)
    var, mean = torch.var_mean(state.double(), dim=(0, 2, 3))
    torch.testing.assert_close(norm.slot_mean[0, : len(mean)], mean.float())
    torch.testing.assert_close(norm.slot_var[0, : len(var)], var.float())


def test_statistics_are_in_the_checkpoint_and_serve_mixtures(built):
    slim = copy.deepcopy(built["resnet"]).eval()
    grid = [WidthConfig(0.5, dict.fromkeys(NAMES, own)) for own in (0.25, 0.5)]
    with pytest.raises(ValueError, match="no statistics.*Calibrate"):
        slim(image(), context=at(HALF))
    calibrate(slim, [image(4)], grid)
    expected = slim(image(), context=at(HALF))  # one decoder from each
    other = copy.deepcopy(built["resnet"]).eval()
    other.load_state_dict(slim.state_dict())
    for name, logits in other(image(), context=at(HALF)).items():
        assert torch.equal(logits, expected[name])
    slimming_of(slim).forget(grid[0])
    with pytest.raises(ValueError, match="no statistics"):
        slim(image(), context=at(HALF))


def test_slots_run_out_with_advice():
    slim = network(slots=1)
    calibrate(slim, [image()], [HALF])
    calibrate(slim, [image()], [HALF])  # its own slot again
    with pytest.raises(ValueError, match="all 1 slots.*Slimmable\\(slots="):
        calibrate(slim, [image()], [WidthConfig(0.75)])


def test_switchable_norms_keep_what_each_width_saw():
    slim = network(batch_norm="switchable", encoder=(0.5, 1.0), decoders=(0.5, 1.0)).train()
    widths = WidthConfig(0.5, dict.fromkeys(NAMES, 0.5))
    before = {name: item.clone() for name, item in slim.named_buffers() if "running" in name}
    slim(image(), context=at(widths))
    assert all(torch.equal(item, before[name]) for name, item in slim.named_buffers() if "running" in name)
    assert any(item.any() for name, item in slim.named_buffers() if "switch_mean" in name)
    assert torch.isfinite(slim.eval()(image(), context=at(widths))["depth"]).all()
    with pytest.raises(ValueError, match="know the widths"):
        slim(image(), context=at(WidthConfig(0.75)))
    plain = export(slim, widths)
    for name, logits in plain(image()).items():
        torch.testing.assert_close(logits, slim(image(), context=at(widths))[name], rtol=0, atol=1e-6)


def test_what_cannot_be_slimmed_is_refused_by_name():
    with pytest.raises(ValueError, match="GatedConvBlock, which cannot be slimmed: its gate is split"):
        network("mambaout_femto")


def test_wrong_widths_are_refused(built):
    slim = built["resnet"]
    with pytest.raises(UnknownNameError, match="key of widths"):
        slim(image(), context=Context(widths={"decoder": {}}))
    with pytest.raises(UnknownNameError, match="task in widths"):
        slim(image(), context=at(WidthConfig(1.0, {"edge": 0.5})))
    with pytest.raises(ValueError, match="2 ratios for an encoder of 4"):
        slim(image(), context=at(WidthConfig((0.5, 1.0))))
    with pytest.raises(ValueError, match="must lie in"):
        WidthConfig(1.5)
    with pytest.raises(ValueError, match="not slimmable"):
        calibrate(network(slim=False), [image()], [HALF])


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 600), st.floats(0.01, 1), st.floats(0.01, 1), st.sampled_from([1, 4, 8, 16, 24]))
def test_channel_rule(base, first, second, divisor):
    low, high = sorted((first, second))
    small, large = active_channels(base, low, divisor), active_channels(base, high, divisor)
    assert 1 <= small <= large <= base == active_channels(base, 1.0, divisor)
    assert small >= 0.9 * base * low - 1e-9
    assert small == base or small % divisor == 0


@pytest.mark.parametrize(
    "widths", [WidthConfig(), WidthConfig(0.5, {"depth": 0.25}), WidthConfig((0.5, 1.0))]
)
def test_width_config_round_trip(widths):
    assert WidthConfig.from_plain(json.loads(json.dumps(widths.to_plain()))) == widths
    assert hash(WidthConfig.from_plain(widths.to_plain())) == hash(widths)

"""Slimmable networks with every decoder of the suite: what tasks share follows the widest of them."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import nn

from mtvision.architecture.widths import WidthConfig
from mtvision.core.context import Context
from mtvision.core.output import DecoderOutput
from mtvision.models import build_network
from mtvision.models.adapters.slimmable import calibrate, export, slimming_of
from mtvision.models.adapters.slimmable.batch_norm import SlimBatchNorm2d
from mtvision.models.decoders.decoder import Decoder
from mtvision.protocols.tasks import depth, edge, semseg
from mtvision.search.cost_table import count_macs, make_cost_table, tasks_are_coupled

TASKS = (semseg(("sky", "road", "car")), depth(), edge())
NAMES = ("semseg", "depth", "edge")
RESNET = {"type": "TimmBackbone", "name": "resnet10t", "channels": (16, 24, 32, 48), "stem_width": 8}
RESNET18 = {**RESNET, "name": "resnet18", "stem_type": "deep"}  # MTAN wants two blocks in a stage
VIT = {"type": "TimmBackbone", "name": "vit_tiny_patch16_224", "img_size": 64, "patch_size": 8}
VIT |= {"embed_dim": 48, "depth": 4, "num_heads": 3}
DENSENET = {"type": "TimmBackbone", "name": "densenet121", "growth_rate": 8, "block_config": (2, 2, 2, 2)}
VIT2 = {**VIT, "embed_dim": 64, "num_heads": 4}
PROMPTS = {"type": "TaskPrompts", "windows": 2}
CONV = {"type": "ConvHead"}
DECODER_CASES = {
    "parallel": (RESNET, {"type": "ParallelDecoder", "width": 32}, CONV, []),
    "densenet": (DENSENET, {"type": "ParallelDecoder", "width": 32}, CONV, []),
    "pad_net": (RESNET, {"type": "PADNetDecoder", "width": 32}, CONV, []),
    "mti_net": (RESNET, {"type": "MTINetDecoder"}, {"type": "HighResolutionHead"}, []),
    "mti_net, tasks": (RESNET, {"type": "MTINetDecoder", "mask_axis": "tasks"}, CONV, []),
    "concat": (RESNET, {"type": "ConcatDecoder"}, {"type": "HighResolutionHead"}, []),
    "deeplab": (RESNET, {"type": "ConcatDecoder", "levels": [-1]}, {"type": "DeepLabHead"}, []),
    "mlore": (
        RESNET,
        {"type": "MLoREDecoder", "width": 32, "ranks": [4, 8], "task_rank": 8, "top_k": 1},
        CONV,
        [],
    ),
    "taskexpert": (RESNET, {"type": "TaskExpertDecoder", "width": 32}, CONV, []),
    "taskexpert, memory": (
        RESNET,
        {"type": "TaskExpertDecoder", "width": 32, "learned_memory": True},
        CONV,
        [],
    ),
    "invpt": (VIT, {"type": "InvPTDecoder", "width": 64, "hidden": 32}, CONV, []),
    "taskprompter": (VIT2, {"type": "TaskPrompterDecoder", "width": 32, "out_width": 32}, CONV, [PROMPTS]),
    "taskprompter, reweighted": (
        VIT2,
        {"type": "TaskPrompterDecoder", "width": 32, "out_width": 32, "reweight": 4},
        CONV,
        [PROMPTS],
    ),
    "mtmamba": (RESNET, {"type": "MTMambaDecoder", "num_blocks": 1, "states": 4}, CONV, []),
    "mtmamba_plus": (RESNET, {"type": "MTMambaPlusDecoder", "num_blocks": 1, "states": 4}, CONV, []),
    "cross_stitch": (RESNET, {"type": "ParallelDecoder", "width": 32}, CONV, [{"type": "CrossStitch"}]),
    "nddr": (RESNET, {"type": "ParallelDecoder", "width": 32}, CONV, [{"type": "NDDR"}]),
    "mtan": (RESNET18, {"type": "ParallelDecoder", "width": 32}, CONV, [{"type": "MTAN"}]),
}
MIXED = {"semseg": 0.25, "depth": 0.75, "edge": 0.5}


def network(case: str, *, slim: bool = True, tasks=TASKS) -> nn.Module:
    torch.manual_seed(0)
    backbone, decoder, head, adapters = DECODER_CASES[case]
    adapters = [*adapters, *([{"type": "Slimmable"}] if slim else [])]
    return build_network(
        {"backbone": backbone, "decoder": decoder, "head": head, "adapters": adapters}, tasks
    )


def image(count: int = 2, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def at(widths: WidthConfig) -> Context:
    return Context(widths=widths.to_plain())


def mixed(slim: nn.Module) -> WidthConfig:
    return WidthConfig(tuple([0.5, 0.75, 1.0, 0.6][: slimming_of(slim).stages]), MIXED)


class Built(dict):
    def __missing__(self, case):
        self[case] = network(case)
        return self[case]


@pytest.fixture(scope="module")
def built():
    return Built()


def backward(model: nn.Module, count: int, widths: WidthConfig | None = None) -> None:
    """Gradients of a loss that reads everything a training step reads."""
    output = model.outputs(image(count), context=None if widths is None else at(widths))
    maps = [*output.logits.values(), *(item.logits for item in output.auxiliary)]
    sum([item.square().mean() for item in maps] + list(model.auxiliary_losses().values())).backward()


@pytest.mark.parametrize("case", DECODER_CASES)
def test_full_width_is_the_plain_network_bit_for_bit(built, case):
    plain, slim = network(case, slim=False).train(), copy.deepcopy(built[case]).train()
    for model in (plain, slim):
        torch.manual_seed(3)
        backward(model, 2)
    ours = dict(slim.named_parameters())
    for name, item in plain.named_parameters():
        assert (item.grad is None) == (ours[name].grad is None), name
        assert item.grad is None or torch.equal(item.grad, ours[name].grad), name
    expected = plain.eval()(image())
    for name, logits in slim.eval()(image()).items():
        assert torch.equal(logits, expected[name]), name


@pytest.mark.parametrize("case", DECODER_CASES)
def test_export_equals_the_slimmed_network_and_can_be_rebuilt(built, case):
    slim = copy.deepcopy(built[case]).eval()
    widths = mixed(slim)
    calibrate(slim, [image(4, seed=5)], [widths])
    plain = export(slim, widths)
    assert not any(hasattr(module, "slicing") for module in plain.modules())
    slimmed = slim(image(), context=at(widths))
    for name, logits in plain(image()).items():
        torch.testing.assert_close(logits, slimmed[name], rtol=1e-5, atol=1e-6)
    rebuilt = build_network(json.loads(json.dumps(plain.architecture)), TASKS)
    rebuilt.load_state_dict(plain.state_dict())
    for name, logits in rebuilt.eval()(image()).items():
        assert torch.equal(logits, plain(image())[name])
    share = sum(item.numel() for item in plain.parameters()) / sum(item.numel() for item in slim.parameters())
    assert share < 0.9


@pytest.mark.parametrize("case", DECODER_CASES)
def test_gradients_of_a_slimmed_pass_touch_only_what_is_exported(built, case):
    slim = copy.deepcopy(built[case]).train()
    widths = mixed(slim)
    backward(slim, 4, widths)
    calibrate(slim, [image(4)], [widths])
    plain = dict(export(slim, widths).named_parameters())
    narrowed = 0
    for name, item in slim.named_parameters():
        if item.grad is None:
            continue
        assert torch.isfinite(item.grad).all(), name
        assert int((item.grad != 0).sum()) <= plain[name].numel(), name
        narrowed += plain[name].numel() < item.numel()
    assert narrowed > 10


@pytest.mark.parametrize("case", DECODER_CASES)
def test_predicted_cost_is_the_counted_cost(built, case):
    """Also where tasks share layers, and a width changes what another one costs."""
    slim = built[case]
    table = make_cost_table(slim, (64, 64), (0.5,), (0.5,))
    assert type(table).from_plain(json.loads(json.dumps(table.to_plain()))) == table
    stages = slimming_of(slim).stages
    choices = [
        WidthConfig(0.5, dict.fromkeys(NAMES, 0.5)),
        WidthConfig(1.0, dict.fromkeys(NAMES, 0.5)),
        WidthConfig(tuple([0.5, 1.0] * 2)[:stages], {"semseg": 0.5, "depth": 1.0, "edge": 0.5}),
    ]
    for widths in choices:
        counted = count_macs(slim, (64, 64), widths)["total"]
        assert table.cost(widths) == pytest.approx(counted, rel=1e-3), widths
    assert table.cost(choices[0]) < table.cost(choices[2]) < table.cost(WidthConfig())


def test_where_tasks_are_apart_their_widths_are_independent(built):
    apart = {case for case in DECODER_CASES if not tasks_are_coupled(built[case])}
    assert apart == {
        "parallel",
        "densenet",
        "taskprompter",
        "concat",
        "deeplab",
        "cross_stitch",
        "nddr",
        "mtan",
    }
    for case in apart:
        slim = copy.deepcopy(built[case]).train()
        for item in slim.modules():
            if isinstance(item, nn.Dropout):
                item.p = 0.0
        found = []
        for own in (0.25, 1.0):
            widths = WidthConfig(0.5, {"semseg": own, "depth": 0.5, "edge": 0.5})
            torch.manual_seed(0)
            found.append(slim(image(), context=at(widths)))
        assert torch.equal(found[0]["depth"], found[1]["depth"]), case
        assert not torch.equal(found[0]["semseg"], found[1]["semseg"]), case


def test_a_mixture_of_tasks_that_talk_needs_statistics_of_its_own(built):
    slim = copy.deepcopy(built["mtmamba_plus"]).eval()
    norms = [item for item in slim.decoder.modules() if isinstance(item, SlimBatchNorm2d)]
    assert {item.slicing.sees for item in norms} == {NAMES}
    calibrate(slim, [image(4)], [WidthConfig(0.5, dict.fromkeys(NAMES, own)) for own in (0.25, 0.5)])
    mixture = WidthConfig(0.5, {"semseg": 0.25, "depth": 0.5, "edge": 0.5})
    with pytest.raises(ValueError, match="no statistics.*Calibrate"):
        slim(image(), context=at(mixture))
    calibrate(slim, [image(4)], [mixture])
    assert torch.isfinite(slim(image(), context=at(mixture))["semseg"]).all()


class ShufflingDecoder(Decoder):
    """Joins two maps of every task and shuffles their channels, as ShuffleNet does."""

    def __init__(self, *, channels, strides, tasks):
        super().__init__(channels=channels, strides=strides, tasks=tasks)
        self.first = nn.ModuleDict({task.name: nn.Conv2d(channels[0], 16, 1) for task in tasks})
        self.second = nn.ModuleDict({task.name: nn.Conv2d(channels[0], 32, 1) for task in tasks})
        self.last = nn.ModuleDict({task.name: nn.Conv2d(48, 16, 1) for task in tasks})
        self.out_channels = dict.fromkeys((task.name for task in tasks), 16)

    def forward(self, pyramid, tasks=None):
        features = {}
        for task in self.asked(tasks):
            feature = pyramid.for_task(task.name).maps[0]
            joined = torch.cat([self.first[task.name](feature), self.second[task.name](feature)], dim=1)
            mixed = joined.unflatten(1, (2, 24)).transpose(1, 2).flatten(1, 2)
            features[task.name] = self.last[task.name](mixed)
        return DecoderOutput(features)


def test_channels_that_cannot_be_followed_are_refused_by_name():
    DECODER_CASES["shuffling"] = (RESNET, {"type": ShufflingDecoder}, CONV, [])
    try:
        with pytest.raises(
            ValueError, match=r"'decoder\.last\.semseg' reads slimmed channels.*after 'unflatten'"
        ):
            network("shuffling")
    finally:
        del DECODER_CASES["shuffling"]


def test_prompted_swin_is_refused_with_the_reason():
    swin = {"type": "SwinBackbone", "name": "swin_tiny_patch4_window7_224", "embed_dim": 16, "depths": (1, 1)}
    swin |= {"num_heads": (2, 4), "window_size": 4, "levels": (0, 1), "img_size": (64, 64)}
    config = {
        "backbone": {**swin, "level_norms": False},
        "decoder": {"type": "TaskPrompterDecoder", "width": 16, "out_width": 16, "upscale": 1},
        "head": CONV,
        "adapters": [{"type": "TaskPrompts", "channel_width": 4}, {"type": "Slimmable"}],
    }
    with pytest.raises(ValueError, match="PromptedSwin, which cannot be slimmed: its prompts compare"):
        build_network(config, TASKS)

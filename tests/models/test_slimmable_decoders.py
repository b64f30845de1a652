"""Slimmable networks with every decoder of the suite: what tasks share follows the widest of them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from mtvision.architecture.widths import WidthConfig
from mtvision.core.context import Context
from mtvision.core.output import DecoderOutput
from mtvision.core.registry import DECODERS
from mtvision.models import build_network
from mtvision.models.adapters.slimmable import calibrate
from mtvision.models.adapters.slimmable.batch_norm import SlimBatchNorm2d
from mtvision.models.decoders.decoder import Decoder
from mtvision.protocols.tasks import depth, edge, semseg
from mtvision.search.cost_table import tasks_are_coupled
from mtvision.testing.kinds.slimming import SLIMMABLE, SlimmableCase

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
    "medusa": (RESNET, {"type": "MedusaDecoder", "width": 32}, CONV, []),
    "medusa, vit": (VIT, {"type": "MedusaDecoder", "width": 32}, CONV, []),
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
QUICK = {"parallel", "concat"}  # the others' networks take .5 to 3 s a property
VARIANTS = {
    "medusa, vit",
    "mti_net, tasks",
    "taskexpert, memory",
    "taskprompter, reweighted",
}  # minutes in all, little new
SMALLER = {"mtmamba", "mtmamba_plus"}  # their scans take time by the pixel


def marks(case: str) -> list[pytest.MarkDecorator]:
    return [] if case in QUICK else [pytest.mark.slow, *([pytest.mark.long] if case in VARIANTS else [])]


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


@pytest.fixture(scope="module")
def cases():
    """{case: what the battery works on}, each built once."""

    class Cases(dict):
        def __missing__(self, name):
            backbone, decoder, head, adapters = DECODER_CASES[name]
            config = {"backbone": backbone, "decoder": decoder, "head": head, "adapters": adapters}
            size = (32, 32) if name in SMALLER else (64, 64)
            self[name] = SlimmableCase(config=config, tasks=TASKS, size=size, options={})
            return self[name]

    return Cases()


@pytest.fixture(scope="module")
def built(cases):
    """{case: the slimmable network of the battery}; tests work on copies."""

    class Built:
        def __getitem__(self, name):
            return cases[name].slim

    return Built()


@pytest.mark.conformance("{case}", "slims")
@pytest.mark.parametrize("name", SLIMMABLE.properties)
@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=marks(case)) for case in DECODER_CASES],
)
def test_battery(cases, case, name):
    SLIMMABLE.run(case, cases[case], only=[name]).raise_if_failed()


def test_every_decoder_of_the_suite_is_listed_here():
    ours = {name for name, item in DECODERS.items() if item.__module__.startswith("mtvision.")}
    assert ours == {decoder["type"] for _, decoder, _, _ in DECODER_CASES.values()}


def test_what_cannot_be_slimmed_is_refused_with_the_reason():
    """Masks of Medusa are one run of channels, and a level of DenseNet is many."""
    config = {"backbone": DENSENET, "decoder": {"type": "MedusaDecoder", "width": 8}, "head": CONV}
    with pytest.raises(ValueError, match="slimmable: .*Medusa|channel by channel|masks"):
        build_network({**config, "adapters": [{"type": "Slimmable"}]}, TASKS)


@pytest.mark.slow
def test_where_tasks_are_apart_their_widths_are_independent(built):
    apart = {case for case in DECODER_CASES if case not in VARIANTS and not tasks_are_coupled(built[case])}
    assert apart == {
        "parallel",
        "densenet",
        "medusa",
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


@pytest.mark.slow
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
        message = (
            r"'decoder\.last\.semseg' \(Conv2d\) reads slimmed channels of 'decoder\.first\.semseg' "
            r"\(Conv2d\) cut or in another order.*must arrive whole"
        )
        with pytest.raises(ValueError, match=message):
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
    with pytest.raises(
        ValueError, match="PromptedSwin, which cannot be slimmed: .*patch merging.*next stage"
    ):
        build_network(config, TASKS)


def test_two_tasks_that_talk_are_coupled():
    assert tasks_are_coupled(network("pad_net", tasks=TASKS[:2]))
    assert not tasks_are_coupled(network("parallel", tasks=TASKS[:2]))

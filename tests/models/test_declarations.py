"""Declarations of modules: a decoder from outside, and mistakes that stop when the network is built."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from mtvision.core.output import DecoderOutput
from mtvision.core.registry import ADAPTERS
from mtvision.models import build_network
from mtvision.models.adapters.slimmable import Sliced, Slimmable
from mtvision.models.backbones.timm_backbone import TimmBackbone
from mtvision.models.branching.cuts import check_cuts
from mtvision.models.declarations import (
    FIXED,
    LAST_STAGE,
    READS,
    SHARED,
    WRITES,
    Channels,
    Declaration,
    Layer,
    Part,
    declare,
)
from mtvision.models.decoders.decoder import Decoder
from mtvision.protocols.tasks import depth, semseg
from mtvision.testing.kinds.branching import BRANCHING, BranchingCase
from mtvision.testing.kinds.slimming import SLIMMABLE, SlimmableCase

TASKS = (semseg(("sky", "road", "car")), depth())
RESNET = {"type": "TimmBackbone", "name": "resnet10t", "channels": (16, 24, 32, 48), "stem_width": 8}


class AttentionDecoder(Decoder):
    """Positions of all tasks attend to one another: what an outsider may write."""

    def __init__(self, *, channels, strides, tasks, width=32):
        super().__init__(channels=channels, strides=strides, tasks=tasks)
        names = [task.name for task in tasks]
        self.enter = nn.ModuleDict({name: nn.Conv2d(channels[-1], width, 1) for name in names})
        self.norm = nn.LayerNorm(width)
        self.attend = nn.MultiheadAttention(width, 4, batch_first=True)
        self.leave = nn.ModuleDict({name: nn.Conv2d(2 * width, width, 1) for name in names})
        self.out_channels = dict.fromkeys(names, width)

    def declaration(self):
        return Declaration(parts={"enter": SHARED})  # all tasks attend, so all are as wide

    def forward(self, pyramid, tasks=None):
        maps = {task.name: pyramid.for_task(task.name).maps[-1] for task in self.tasks}
        entered = {name: self.enter[name](item) for name, item in maps.items()}
        tokens = torch.cat([item.flatten(2) for item in entered.values()], dim=2).transpose(1, 2)
        normed = self.norm(tokens)
        tokens = tokens + self.attend(normed, normed, normed, need_weights=False)[0]
        parts = tokens.transpose(1, 2).chunk(len(entered), dim=2)
        mixed = dict(zip(entered, parts, strict=True))
        joined = {
            name: torch.cat([item, mixed[name].unflatten(2, item.shape[2:])], 1)
            for name, item in entered.items()
        }
        return DecoderOutput(
            {task.name: self.leave[task.name](joined[task.name]) for task in self.asked(tasks)}
        )


def config(decoder=AttentionDecoder, **options):
    return {"backbone": RESNET, "decoder": {"type": decoder, **options}, "head": {"type": "ConvHead"}}


@pytest.fixture(scope="module")
def slimmable_case():
    return SlimmableCase(config=config(), tasks=TASKS, options={})


@pytest.fixture(scope="module")
def branching_case():
    return BranchingCase(config=config(), tasks=TASKS)


def test_the_declaration_from_outside_is_short():
    assert len(inspect.getsource(AttentionDecoder.declaration).splitlines()) <= 15


@pytest.mark.parametrize("name", SLIMMABLE.properties)
def test_a_decoder_from_outside_slims(slimmable_case, name):
    SLIMMABLE.run("AttentionDecoder", slimmable_case, only=[name]).raise_if_failed()


@pytest.mark.parametrize("name", BRANCHING.properties)
def test_a_decoder_from_outside_branches(branching_case, name):
    BRANCHING.run("AttentionDecoder", branching_case, only=[name]).raise_if_failed()


def test_the_example_of_the_page_slims():
    page = (Path(__file__).parents[2] / "docs" / "slimmable.md").read_text(encoding="utf-8")
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "class " in block]
    found = {}
    exec(code, found)
    case = SlimmableCase(config=config(found["AttentionDecoder"]), tasks=TASKS, options={})
    SLIMMABLE.run("example", case, only=["full_width_is_plain", "export_equals_slimmed"]).raise_if_failed()


def test_attention_leaves_out_whole_heads(slimmable_case):
    plain = slimmable_case.exported[1].decoder.attend
    assert type(plain) is nn.MultiheadAttention
    assert (plain.embed_dim, plain.num_heads, plain.head_dim) == (24, 3, 8)
    assert plain.in_proj_weight.shape == (72, 24)
    assert plain.out_proj.weight.shape == (24, 24)


def test_sliced_modules_keep_state_hooks_and_parameters():
    slimmed = build_network(config(), TASKS)
    calls = []
    hook = slimmed.decoder.norm.register_forward_hook(lambda *_: calls.append(1))
    before = dict(slimmed.named_parameters())
    Slimmable().complete(slimmed)
    calls.clear()
    slimmed(torch.zeros(2, 3, 64, 64))
    assert calls == [1]
    assert all(before[name] is item for name, item in slimmed.named_parameters())
    hook.remove()
    assert isinstance(slimmed.decoder.norm, Sliced)
    assert isinstance(slimmed.decoder.norm, nn.LayerNorm)
    for twin in (copy.deepcopy(slimmed), pickle.loads(pickle.dumps(slimmed))):
        assert type(twin.decoder.norm) is type(slimmed.decoder.norm)
        assert twin.decoder.norm.slicing.control is twin.get_submodule("slimming")


def decoder_that_says(said, *, forward=AttentionDecoder.forward):
    return type("OddDecoder", (AttentionDecoder,), {"declaration": lambda _: said, "forward": forward})


WRONG = {
    "unknown path": (
        Declaration(parts={"entrance": SHARED}),
        r"OddDecoder \('decoder'\).*names 'entrance'.*children: enter, norm",
    ),
    "unknown stage": (
        Declaration(parts={"enter": Part("stage", 7)}),
        r"OddDecoder \('decoder'\).*unknown part stage 7.*4 stages",
    ),
    "unknown task": (
        Declaration(parts={"enter": SHARED}, writes={"enter.depth": Part("task", "normals")}),
        r"OddDecoder \('decoder'\).*unknown part task 'normals'.*semseg, depth",
    ),
    "writes do not add up": (
        Declaration(parts={"enter": SHARED}, writes={"enter.depth": (Channels(16), Channels(8))}),
        r"OddDecoder \('decoder'\).*'decoder.enter.depth' writes 32 channels, and its runs add up to 24",
    ),
    "reads do not add up": (
        Declaration(parts={"enter": SHARED}, reads={"leave.depth": (Channels(32),)}),
        r"OddDecoder \('decoder'\).*'decoder.leave.depth' reads 64 channels, and its runs add up to 32",
    ),
    "tensors do not add up": (
        Declaration(parts={"enter": SHARED}, tensors={"norm.weight": {0: Channels(16)}, "norm.bias": {}}),
        r"OddDecoder \('decoder'\).*axis 0 of 'weight' in 'decoder.norm' add up to 16.*\(32,\)",
    ),
    "writes of what writes nothing": (
        Declaration(parts={"enter": SHARED}, writes={"norm": FIXED}),
        r"OddDecoder \('decoder'\).*writes names 'decoder.norm', and a LayerNorm decides nothing there",
    ),
    "both sides of a residual connection": (
        Declaration(parts={"enter.semseg": SHARED, "enter.depth": LAST_STAGE}),
        r"'decoder.enter.semseg' \(Conv2d\) and 'decoder.enter.depth' \(Conv2d\) write is added.*"
        r"part 'shared 0'.*part 'stage 3'.*residual connection.*slimmed alike",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_declarations_stop_when_the_network_is_built(name):
    said, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        build_network(config(decoder_that_says(said)) | {"adapters": [{"type": "Slimmable"}]}, TASKS)


def test_parameters_of_which_nothing_is_said_are_refused_and_may_stay_whole():
    class Scaled(AttentionDecoder):
        says = False

        def __init__(self, **options):
            super().__init__(**options)
            self.scale = nn.Parameter(torch.ones(()))

        def declaration(self):
            return Declaration(parts={"enter": SHARED}, tensors={"scale": {}} if self.says else {})

        def forward(self, pyramid, tasks=None):
            output = super().forward(pyramid, tasks)
            return DecoderOutput({name: item * self.scale for name, item in output.features.items()})

    with pytest.raises(ValueError, match="'decoder' is a Scaled, which cannot be slimmed: .* its scale are"):
        build_network(config(Scaled) | {"adapters": [{"type": "Slimmable"}]}, TASKS)
    Scaled.says = True
    built = build_network(config(Scaled) | {"adapters": [{"type": "Slimmable"}]}, TASKS)
    assert built.decoder.scale.shape == ()


def test_a_layer_that_is_not_ours_joins_by_declare():
    class Mixer(nn.Module):
        """A linear layer of somebody else."""

        def __init__(self, width):
            super().__init__()
            self.matrix = nn.Parameter(torch.eye(width))

        def forward(self, x):
            return torch.einsum("oc,bchw->bohw", self.matrix, x)

    class MixingDecoder(AttentionDecoder):
        def __init__(self, **options):
            super().__init__(**options)
            self.leave = nn.ModuleDict(
                {name: nn.Sequential(item, Mixer(32)) for name, item in self.leave.items()}
            )

    wanted = config(MixingDecoder) | {"adapters": [{"type": "Slimmable"}]}
    with pytest.raises(ValueError, match="is a Mixer, which cannot be slimmed"):
        build_network(wanted, TASKS)

    @declare(Mixer)
    def mixer(layer):
        return Declaration(layer=Layer(1, 32, 32), tensors={"matrix": {0: WRITES, 1: READS}})

    case = SlimmableCase(config=config(MixingDecoder), tasks=TASKS, options={})
    report = SLIMMABLE.run("MixingDecoder", case, only=["full_width_is_plain", "export_equals_slimmed"])
    report.raise_if_failed()


class CutInside(TimmBackbone):
    """A ResNet that says it may be cut inside its first residual block."""

    def block_names(self):
        first = [f"model.layer1.0.{name}" for name in ("conv1", "bn1", "act1", "conv2", "bn2")]
        return [*first, *super().block_names()[2:]]


def test_a_cut_inside_a_residual_connection_stops():
    backbone = CutInside("resnet10t", channels=(16, 24, 32, 48), stem_width=8)
    backbone.exits = tuple(exit_ + 3 for exit_ in backbone.exits)
    adapter = {"type": "BranchingSearch", "iterations": 4, "image_size": (64, 64)}
    with pytest.raises(ValueError, match=r"CutInside cuts inside 'model.layer1.0' \(BasicBlock\).*residual"):
        ADAPTERS.build(adapter).apply(backbone, TASKS)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["model.layer1", "model.layer1.0"], "names 'model.layer1.0' twice, or inside 'model.layer1'"),
        (["model.layer9"], "names 'model.layer9', which it does not have"),
    ],
)
def test_blocks_that_do_not_exist_or_overlap_stop(names, message, monkeypatch):
    backbone = TimmBackbone("resnet10t", channels=(16, 24, 32, 48), stem_width=8)
    monkeypatch.setattr(TimmBackbone, "block_names", lambda _: names)
    with pytest.raises(ValueError, match=message):
        check_cuts(backbone)

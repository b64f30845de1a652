"""Adapters that do not fit: each gives one line that names the field, what was found and what to do."""

from __future__ import annotations

import re

import pytest
import torch

from mtvision.core.naming import UnknownNameError
from mtvision.models.factory import build_network
from mtvision.protocols.tasks import depth, normals

TASKS = (depth(), normals())
VIT = {"type": "TimmBackbone", "name": "vit_tiny_patch16_224", "embed_dim": 8, "depth": 2, "num_heads": 2}
RESNET = {"type": "TimmBackbone", "name": "resnet10t", "channels": (4, 8, 12, 16), "stem_width": 4}
SWIN = {
    "type": "TimmBackbone",
    "name": "swin_tiny_patch4_window7_224",
    "embed_dim": 6,
    "depths": (1, 1),
    "num_heads": (1, 2),
    "window_size": 2,
}
QKV = {"shared": {"*.attn.qkv": 2}}
LORA = {"type": "LowRank", **QKV}
EXPERTS = {"type": "MixtureOfExperts", "experts": 2, "top_k": 1}
SPARSE = {"type": "SparseDeltas", "base": "depth"}
VTAGML = {"type": "VTAGML", "embedding": 4}
TREE = {"levels": [[["depth", "normals"]], [["depth"], ["normals"]]], "blocks": [1, 1]}
PRISM = {"type": "PRISM", "teachers": {"a": 8}, "experts": 2, "top_k": 1}


def build(*adapters, backbone=VIT, decoder="ParallelDecoder"):
    with torch.device("meta"):
        return build_network(
            {
                "backbone": dict(backbone),
                "adapters": [dict(item) for item in adapters],
                "decoder": {"type": decoder},
                "head": {"type": "ConvHead"},
            },
            TASKS,
        )


UNFIT = {
    "a rank above the layer's": (
        [{**LORA, "shared": {"*.attn.qkv": 9}}],
        VIT,
        "LowRank: rank 9 for model.blocks.0.attn.qkv, whose weight has rank 8 at most (8 to 24 features).",
    ),
    "a skill's rank": (
        [{"type": "PolySkills", "shared": {"*.attn.qkv": 9}}],
        VIT,
        "PolySkills: rank 9 for model.blocks.0.attn.qkv",
    ),
    "a generated rank": (
        [{"type": "HyperLowRank", "shared": {"*.attn.qkv": 9}}],
        VIT,
        "HyperLowRank: rank 9 for model.blocks.0.attn.qkv",
    ),
    "a filtered rank": (
        [{"type": "TADFormer", "shared": {"*.attn.qkv": 9}, "own": {}}],
        VIT,
        "TADFormer: rank 9 for model.blocks.0.attn.qkv",
    ),
    "a glob behind a wider one": (
        [{**LORA, "shared": {"*": 2, "*.attn.qkv": 4}}],
        VIT,
        "LowRank: '*.attn.qkv' counts for no layer, because '*' before it matches all of its layers first.",
    ),
    "shared updates that nothing reads": (
        [{**LORA, "own": {"*.attn.*": 2}}],
        VIT,
        "LowRank: all layers of `shared` have own updates, and tasks read these alone.",
    ),
    "no part": (
        [{"type": "DiTASK", **QKV, "parts": {"*.attn.qkv": 0}}],
        VIT,
        "model.adapters.0.parts.*.attn.qkv must be an integer of at least 1, got 0.",
    ),
    "parts of no layer": (
        [{"type": "DiTASK", **QKV, "parts": {"*.foo": 3}}],
        VIT,
        "DiTASK.parts: '*.foo' matches nothing in the backbone.",
    ),
    "layers that are updated already": (
        [LORA, LORA],
        VIT,
        "LowRank: '*.attn.qkv' matches model.blocks.0.attn.qkv, which an adapter before changes already.",
    ),
    "experts in place of updates": (
        [{**LORA, "shared": {"*.mlp.*": 2}}, EXPERTS],
        VIT,
        "MixtureOfExperts: model.blocks.1.mlp has layers that an adapter before changes",
    ),
    "experts without width": (
        [{**EXPERTS, "ratio": 0.01}],
        VIT,
        "MixtureOfExperts: ratio=0.01 of 8 features leaves experts no inner width. Give at least 0.125.",
    ),
    "no MLP named": (
        [{**EXPERTS, "blocks": []}],
        VIT,
        "MixtureOfExperts: the backbone has 2 MLPs of timm, and blocks=[] names none.",
    ),
    "excluded from nothing": (
        [{**EXPERTS, "excluded": True}],
        VIT,
        "MixtureOfExperts: excluded=True with restricted=0",
    ),
    "information about no task": (
        [{**EXPERTS, "router": "shared", "mutual_information": 1.0}],
        VIT,
        "MixtureOfExperts: mutual_information=1.0 with router='shared', which routes all tasks alike.",
    ),
    "a threshold without reuse": (
        [{**SPARSE, "threshold": 0.1}],
        VIT,
        "SparseDeltas.threshold: 0.1 without reuse, so no activation is compared.",
    ),
    "reuse of nothing": (
        [{**SPARSE, "reuse": 1.0}],
        RESNET,
        "SparseDeltas.reuse: blocks of TimmBackbone have no module like *.norm1",
    ),
    "changes of changes": (
        [SPARSE, {"type": "TAPS", "layers": ["*.fc1"]}],
        VIT,
        "TAPS: layers=['*.fc1'] matches no layer in the backbone's blocks, which has none that can be",
    ),
    "a negative threshold": (
        [{"type": "TAPS", "threshold": -1.0}],
        VIT,
        "model.adapters.0.threshold must be a number of at least 0, got -1.0.",
    ),
    "two hypernetworks": (
        [{"type": "HyperLowRank", **QKV}, {"type": "HyperLowRank", "shared": {"*.attn.proj": 2}}],
        VIT,
        "HyperLowRank: the backbone has a hypernetwork already. Name all layers in one adapter.",
    ),
    "VTAGML twice": ([VTAGML, VTAGML], SWIN, "VTAGML: the backbone has a VTAGML already."),
    "VTAGML of nothing": (
        [{**VTAGML, "blocks": [], "stream": False}],
        SWIN,
        "VTAGML: blocks=[] and stream=False leave nothing that depends on the task.",
    ),
    "a glob among others": (
        [{**PRISM, "blocks": ["*.mlp", "*.foo"]}],
        VIT,
        "PRISM: vit_tiny_patch16_224 has 2 MLPs of timm, and none that ['*.foo'] match.",
    ),
    "no teacher": ([{"type": "SAK", "teachers": {}}], VIT, "SAK.teachers: no teacher. Name one at least"),
    "a teacher's name": (
        [{"type": "SAK", "teachers": {"a.b": 8}}],
        VIT,
        "SAK.teachers: torch's modules cannot have the name 'a.b'. Choose another, e.g. 'a_b_teacher'",
    ),
    "a name of torch": (
        [{**PRISM, "teachers": {"keys": 8}}],
        VIT,
        "PRISM.teachers: torch's modules cannot have the name 'keys'.",
    ),
    "updates of a branched encoder": (
        [{"type": "Branched", "tree": TREE}, LORA],
        VIT,
        "LowRank behind other adapters: BranchedEncoder: this architecture is not cut into blocks",
    ),
    "changes of a branched encoder": (
        [{"type": "Branched", "tree": TREE}, {"type": "TAPS"}],
        VIT,
        "Or put TAPS first.",
    ),
    "public encoders in streams": (
        [{"type": "PublicPrivate"}, {"type": "CrossStitch"}],
        RESNET,
        "PublicPrivateBackbone cannot be run as one stream per task: PublicPrivate gives it a public encoder",
    ),
}


@pytest.mark.parametrize(("adapters", "backbone", "words"), UNFIT.values(), ids=UNFIT.keys())
def test_what_does_not_fit_is_named(adapters, backbone, words):
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        build(*adapters, backbone=backbone)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "adapter",
    [EXPERTS, {**LORA, "own": {"*.attn.proj": 2}}, {"type": "AdaTT"}, {"type": "PublicPrivate"}, PRISM],
    ids=lambda item: item["type"],
)
def test_a_decoder_of_one_pyramid_names_the_adapter_to_leave_out(adapter):
    words = f"TaskPrompterDecoder reads one pyramid .* Leave {adapter['type']} out of model.adapters"
    with pytest.raises(ValueError, match=words):
        build(adapter, decoder="TaskPrompterDecoder")


@pytest.mark.parametrize("adapter", [None, {"type": "PublicPrivate"}, EXPERTS], ids=str)
def test_a_context_of_no_task_of_the_network_is_refused(adapter):
    network = build(*([adapter] if adapter else []))
    with pytest.raises(UnknownNameError, match="task of this network 'edge'"), network.context(task="edge"):
        pass


def test_a_block_that_is_named_twice_is_changed_once():
    once, twice = (
        build({**VTAGML, "blocks": ["model.layers.1.blocks.0"] * count}, backbone=SWIN) for count in (1, 2)
    )
    assert list(once.state_dict()) == list(twice.state_dict())

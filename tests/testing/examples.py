"""One list of examples: at least one small case of every registered class, for the property batteries."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from mtvision.architecture.tree import Tree
from mtvision.balance import (
    DBMTL,
    FAMO,
    IMTL,
    MGDA,
    AutoLambda,
    CoBa,
    FeatureWeights,
    FixedWeights,
    GradNorm,
    LogLosses,
    LogSum,
    MoCo,
    MoDo,
    NashMTL,
    NormScaling,
    PrincipalWeights,
    Scalarizer,
    SDMGrad,
    SmoothedWeights,
    SmoothTchebycheff,
    TorchJD,
    Uncertainty,
    UPGrad,
)
from mtvision.balance.jacobian.aggregators import AGGREGATORS
from mtvision.balance.scalar.scalarizer import SCALARIZERS
from mtvision.core.context import Context, use_context
from mtvision.core.observer import REPRESENTATIONS, Representations, wanted_representations
from mtvision.core.registry import MERGERS
from mtvision.core.sample import Batch
from mtvision.losses import (
    BalancedBinaryLoss,
    BalancedCrossEntropyLoss,
    CrossEntropyLoss,
    EdgeLoss,
    InstanceLoss,
    L1Loss,
    NormalsCosineLoss,
    NormalsL1Loss,
)
from mtvision.losses.edge import ShareEdgeLoss
from mtvision.metrics import build_metric
from mtvision.models.adapters import TaskPrompts
from mtvision.models.backbones import (
    HRNetBackbone,
    SwinBackbone,
    TimmBackbone,
    VimBackbone,
    VMambaBackbone,
)
from mtvision.models.decoders import (
    ConcatDecoder,
    InvPTDecoder,
    MedusaDecoder,
    MLoREDecoder,
    MTINetDecoder,
    MTMambaDecoder,
    MTMambaPlusDecoder,
    PADNetDecoder,
    ParallelDecoder,
    TaskExpertDecoder,
    TaskPrompterDecoder,
)
from mtvision.protocols import tasks as make_task
from mtvision.steps import (
    BilevelStep,
    DataMapStep,
    DistillStep,
    FlatRegionsStep,
    HeldOutStep,
    ParetoStep,
    PlainStep,
    SAMOStep,
    SandwichStep,
    SearchStep,
    SelectiveGroupsStep,
    SeveralBatchesStep,
    SparseStep,
    Step,
)
from mtvision.testing.inputs import ToyBackbone, toy_tasks
from mtvision.testing.kinds.adapters import AdapterCase
from mtvision.testing.kinds.backbones import BackboneCase
from mtvision.testing.kinds.balancers import BalancerCase
from mtvision.testing.kinds.datasets import DatasetCase
from mtvision.testing.kinds.decoders import DecoderCase
from mtvision.testing.kinds.losses import LossCase
from mtvision.testing.kinds.mergers import MergerCase
from mtvision.testing.kinds.metrics import MetricCase
from mtvision.testing.kinds.steps import Forward, StepCase, plain_sum
from mtvision.testing.modules import Setting


@dataclass(frozen=True)
class Example:
    """One case of a registered class.

    Args:
        kind: of the battery.
        name: under which the class is registered.
        label: unique within the kind.
        build: (setting, folder for files) to the battery's case.
        skip: {property: reason} of declared exceptions; `test_declared_exceptions_are_real` runs them.
        export_is_quick: whether tracing takes less than two seconds; else that test is marked slow.
        slow: whether building the network takes so long that all its tests are marked slow.
    """

    kind: str
    name: str
    label: str
    build: Callable[[Setting, Path], Any]
    skip: Mapping[str, str] = field(default_factory=dict)
    export_is_quick: bool = False
    slow: bool = False


EXAMPLES: list[Example] = []


def add(
    kind: str,
    case: Callable[..., Any],
    name: str,
    make: Any,
    *,
    label: str = "",
    skip: Mapping[str, str] | None = None,
    export_is_quick: bool = False,
    slow: bool = False,
    **options: Any,
) -> None:
    """Add an example; an option that is a function without arguments is called when the case is built."""

    def build(setting: Setting, folder: Path) -> Any:
        del folder
        given = {
            key: value() if callable(value) and key in _LAZY else value for key, value in options.items()
        }
        return case(make=make, setting=setting, **given)

    EXAMPLES.append(Example(kind, name, label or name, build, skip or {}, export_is_quick, slow))


_LAZY = ("backbone",)

# -------------------------------------------------------------------------------------------- backbones

backbone = partial(add, "backbone", BackboneCase)
TIMM = {
    "resnet": ("test_resnet", {}),
    "efficientnet": ("test_efficientnet", {}),
    "mobilenet": ("mobilenetv3_small_050", {}),
    "convnext": ("test_convnext", {}),
    "swin": (
        "swin_tiny_patch4_window7_224",
        {"embed_dim": 8, "depths": (2, 1, 2, 1), "num_heads": (1, 2, 2, 4)},
    ),
    "vit": ("test_vit", {"depth": 4}),
    "mambaout": ("test_mambaout", {}),
    "regnet": ("regnetx_002", {}),
}
for label, (model, options) in TIMM.items():
    backbone(
        "TimmBackbone",
        partial(TimmBackbone, model, **options),
        label=f"TimmBackbone-{label}",
        export_is_quick=label in ("resnet", "efficientnet"),
    )
PLAIN = {"depth": 2, "embed_dim": 32, "num_heads": 2}
for label, model in {"beit": "beit_base_patch16_224", "dinov3": "vit_small_patch16_dinov3"}.items():
    backbone(
        "TimmBackbone",
        partial(TimmBackbone, model, **PLAIN),
        label=f"TimmBackbone-{label}",
        slow=label == "dinov3",
    )
backbone(
    "TimmBackbone",
    partial(TimmBackbone, "test_vit_relpos", img_size=64),
    label="TimmBackbone-relpos",
    size=(64, 64),
    odd_size=None,
)
SWIN = {"embed_dim": 8, "depths": (2, 2), "num_heads": (2, 2), "levels": (0, 1), "window_size": 4}
backbone("SwinBackbone", partial(SwinBackbone, "swin_tiny_patch4_window7_224", **SWIN))
HRNET = partial(HRNetBackbone, "hrnet_w18_small_v2")
backbone("HRNetBackbone", HRNET, size=(32, 64), slow=True)
backbone(
    "HRNetBackbone",
    partial(HRNET, upsampling="bilinear", bn_momentum=0.01),
    label="HRNetBackbone-survey",
    size=(32, 64),
    slow=True,
)
backbone("VimBackbone", partial(VimBackbone, width=8, depth=4, img_size=(32, 48)))
for variant in ("vanilla_tiny", "tiny_s1l8"):
    backbone(
        "VMambaBackbone",
        partial(VMambaBackbone, variant, depths=(1, 1, 1, 1), width=8),
        label=f"VMambaBackbone-{variant}",
    )

# --------------------------------------------------------------------------------------------- decoders

OTHERS: list[dict[str, Any]] = []
"""Config of each decoder's first example, which adapters are tried with."""


def decoder(name: str, make: Any, **options: Any) -> None:
    """Add an example of a decoder."""
    if name not in {item["type"] for item in OTHERS}:
        OTHERS.append({"type": name, **(make.keywords if isinstance(make, partial) else {})})
    add("decoder", DecoderCase, name, make, **options)


flat = partial(ToyBackbone, (16,) * 4, (16,) * 4)


def prompted() -> Any:
    """A small ViT with prompts."""
    vit = TimmBackbone("vit_tiny_patch16_224", embed_dim=16, depth=4, num_heads=2, img_size=(64, 96))
    return TaskPrompts(windows=2).apply(vit, toy_tasks())


decoder("ParallelDecoder", partial(ParallelDecoder, width=8), export_is_quick=True)
decoder(
    "ParallelDecoder",
    partial(ParallelDecoder, width=8, deep_supervision=0.4, norm="group", task_widths={"depth": 16}),
    label="ParallelDecoder-supervised",
)
decoder("ParallelDecoder", partial(ParallelDecoder, width=8), label="ParallelDecoder-flat", backbone=flat)
decoder("ConcatDecoder", ConcatDecoder, export_is_quick=True)
decoder("PADNetDecoder", partial(PADNetDecoder, width=8), export_is_quick=True)
decoder("MTINetDecoder", MTINetDecoder)
decoder("MTINetDecoder", partial(MTINetDecoder, mask_axis="tasks"), label="MTINetDecoder-tasks")
decoder("InvPTDecoder", partial(InvPTDecoder, width=16, hidden=10))
decoder("InvPTDecoder", partial(InvPTDecoder, width=16, hidden=10), label="InvPTDecoder-flat", backbone=flat)
decoder("MedusaDecoder", partial(MedusaDecoder, width=8), export_is_quick=True)
MLORE = {"width": 8, "ranks": (1, 2, 3), "task_rank": 2, "top_k": 2}
decoder("MLoREDecoder", partial(MLoREDecoder, **MLORE), backbone=flat)
decoder("TaskExpertDecoder", partial(TaskExpertDecoder, width=8, experts=3), backbone=flat)
decoder(
    "TaskExpertDecoder",
    partial(TaskExpertDecoder, width=8, experts=3, learned_memory=True),
    label="TaskExpertDecoder-memory",
    backbone=flat,
)
decoder("MTMambaDecoder", partial(MTMambaDecoder, num_blocks=1, states=2))
decoder("MTMambaPlusDecoder", partial(MTMambaPlusDecoder, num_blocks=1, states=2))
for label, reweight in {"TaskPrompterDecoder": None, "TaskPrompterDecoder-reweighted": 2}.items():
    decoder(
        "TaskPrompterDecoder",
        partial(TaskPrompterDecoder, width=6, out_width=8, reweight=reweight),
        label=label,
        backbone=prompted,
        odd_size=(60, 90),  # padded to 64 x 96, the one size that prompts take
        free_size=False,
    )

# --------------------------------------------------------------------------------------------- adapters


def adapter(name: str, make: Any, **options: Any) -> None:
    """Add an example of an adapter; the first of its class is tried with every decoder."""
    first = all(item.name != name for item in EXAMPLES if item.kind == "adapter")
    add("adapter", AdapterCase, name, make, decoders=OTHERS if first else (), **options)


RESNET = {"type": "TimmBackbone", "name": "resnet18", "channels": (4, 8, 12, 16)}
RESNET |= {"stem_type": "deep", "stem_width": 2}
WIDER = {"type": "TimmBackbone", "name": "resnet10t", "channels": (16, 24, 32, 48), "stem_width": 8}
VIT = {"type": "TimmBackbone", "name": "vit_tiny_patch16_224", "embed_dim": 16, "depth": 4, "num_heads": 2}
TOKEN = ("model.cls_token", "model.pos_embed")
TREE = Tree.from_paths(
    {"semseg": (0, 0, 0, 0), "depth": (0, 0, 1, 1), "normals": (0, 0, 1, 2)}, (1, 1, 1, 1)
).to_plain()
SEARCHED = "which tree runs is read from the values of parameters; export a `Branched` network instead"
SEARCH = {"iterations": 10, "warmup": 0, "cuts": [1, 2, 3, 4], "cost_weight": 1.0}
adapter("CrossStitch", "CrossStitch")
adapter("NDDR", "NDDR")
adapter("MTAN", "MTAN", backbone=RESNET)
adapter("DropClassToken", "DropClassToken", backbone=VIT, drops=TOKEN)
adapter(
    "TaskPrompts",
    "TaskPrompts",
    options={"windows": 2},
    backbone={**VIT, "img_size": (64, 96)},
    decoder={"type": "TaskPrompterDecoder", "width": 6, "out_width": 8, "reweight": 2},
    odd_size=(60, 90),
    drops=TOKEN,
)
PASSES = {"shared": {"*.attn.qkv": 2}, "own": {"*.3.mlp.*": 2}}
WINDOWS = {"type": "SwinBackbone", "name": "swin_tiny_patch4_window7_224", "embed_dim": 8}
WINDOWS |= {"depths": (1, 1, 1, 1), "num_heads": (1, 2, 2, 2), "window_size": 2}
tuned = partial(adapter, backbone=VIT, identity_at_start=True)
tuned("LowRank", "LowRank", options={**PASSES, "both": True})
tuned(
    "LowRank",
    "LowRank",
    label="LowRank-MTLoRA",
    backbone=WINDOWS,
    options={"shared": {"*": 2}, "own": {"*.attn.proj": 2, "*.mlp.*": 2}, "side": True},
    dead=("*.layers.3.blocks.0.mlp.fc2.shared.*",),  # nothing reads the shared state after the last block
)
tuned(
    "LowRank",
    "LowRank",
    label="LowRank-addition",
    backbone=WINDOWS,
    options={"shared": {"*": 2}, "own": {"*.mlp.*": 2}, "side": True, "addition": True},
    dead=("*.layers.3.blocks.0.mlp.fc2.add.*",),  # nothing reads the shared state after the last block
)
FILTERED = {"shared": {"*.attn.qkv": 2, "*.mlp.*": 2}, "own": {"*.mlp.*": 3}}
tuned("TADFormer", "TADFormer", options=FILTERED)
tuned(
    "TADFormer",
    "TADFormer",
    label="TADFormer-dynamic",
    backbone=WINDOWS,
    options={**FILTERED, "side": True, "dynamic": True},
)
tuned("DiTASK", "DiTASK", options={"shared": {"*.1.attn.qkv": 4}, "own": {"*.3.mlp.fc1": 4}})
tuned("Houlsby", "Houlsby", options={"own": {"*.3.mlp.fc2": 4}, "shared": {"*.attn.proj": 4}})
tuned("HyperLowRank", "HyperLowRank", options={"shared": {"*.2.attn.qkv": 2, "*.3.mlp.*": 2}})
tuned("PolySkills", "PolySkills", options=PASSES)
TIMM_WINDOWS = {**WINDOWS, "type": "TimmBackbone"}
adapter("VTAGML", "VTAGML", options={"embedding": 8, "similarities": True}, backbone=TIMM_WINDOWS)
adapter(
    "VTAGML",
    "VTAGML",
    label="VTAGML-without-stream",
    options={"embedding": 8, "stream": False, "freeze": True},
    backbone=TIMM_WINDOWS,
    identity_at_start=True,
)
tuned("TAPS", "TAPS", options={"layers": ["*.2.mlp.*", "*.3.attn.*"]})
tuned("TAPS", "TAPS", label="TAPS-conv", backbone=RESNET, options={"layers": ["*.layer4.*conv1"]})
tuned("Subset", "Subset", options={"blocks": {"depth": ["model.blocks.2"], "normals": ["model.blocks.3"]}})
tuned(
    "SparseDeltas",
    "SparseDeltas",
    options={"base": "depth", "reuse": 1e-4},
)
SMALL = {"backbone": VIT, "size": (32, 48), "odd_size": (37, 41), "drops": ("*.1.mlp.*", "*.3.mlp.*")}
adapter("MixtureOfExperts", "MixtureOfExperts", options={"experts": 4, "top_k": 2}, **SMALL)
adapter(
    "MixtureOfExperts",
    "MixtureOfExperts",
    label="MixtureOfExperts-orthogonal",
    options={"experts": 4, "top_k": 2, "router": "conditioned", "combine": "orthogonal", "noise": 1.0},
    **SMALL,
)
TAUGHT = {"teachers": {"clip": 16, "sam": 16}}
OF_TEACHERS = ("*.projections.*", "*.conditions.teachers")  # read where a step compares with teachers
STUDENT = {"backbone": VIT, "size": (32, 48), "odd_size": (37, 41)}
adapter("SAK", "SAK", options=TAUGHT, drops=("model.norm.*",), **STUDENT)
adapter(
    "SAK",
    "SAK",
    label="SAK-sum",
    options={**TAUGHT, "mix": "sum", "align": True},
    drops=("model.norm.*",),
    dead=("*.aligners.*",),
    **STUDENT,
)
FEW = {**TAUGHT, "experts": 4, "top_k": 2}
adapter("PRISM", "PRISM", options=FEW, dead=OF_TEACHERS, **STUDENT)
adapter(
    "PRISM",
    "PRISM",
    label="PRISM-plain-inputs",
    options={
        **FEW,
        "weigh_inputs": False,
        "noise": False,
        "dropout": 0.0,
        "gate": (0.2, 0.8),
        "projector": "linear",
    },
    dead=OF_TEACHERS,
    **STUDENT,
)
adapter("Branched", "Branched", options={"tree": TREE}, identity_at_start=True, export_is_quick=True)
adapter(
    "BranchingSearch",
    "BranchingSearch",
    options={**SEARCH, "copies": [1, 2, 2, 3]},
    identity_at_start=True,
    passes=8,
    dead=("backbone.architecture_logits.0",),  # the first level has one copy, so there is nothing to choose
    skip={"exportable": SEARCHED},
)
adapter(
    "BranchingSearch",
    "BranchingSearch",
    label="BranchingSearch-streams",
    options={**SEARCH, "mixing": "streams"},
    identity_at_start=True,
    skip={"exportable": SEARCHED},
)
for kind in ("low_rank", "whole"):
    adapter(
        "ParetoManifold",
        "ParetoManifold",
        label=f"ParetoManifold-{kind}",
        options={"members": kind, "points": 1},
        identity_at_start=True,
        skip={"copies_are_equal": "torch pickles no parametrized module; state dicts and deep copies work"},
    )
adapter("Surgery", "Surgery", options={"rank": 4}, identity_at_start=True, export_is_quick=True)
adapter("ImplicitVectors", "ImplicitVectors", identity_at_start=True, export_is_quick=True)
adapter(
    "ImplicitVectors",
    "ImplicitVectors",
    label="ImplicitVectors-times",
    options={"mode": "multiply", "spread": 0.02},
)
adapter("Alignment", "Alignment", identity_at_start=True, export_is_quick=True)
adapter("AdaTT", "AdaTT")
adapter("AdaTT", "AdaTT", label="AdaTT-shared", options={"own": 2, "shared": 1, "rounds": 2})
adapter("PublicPrivate", "PublicPrivate", identity_at_start=True)
adapter("PublicPrivate", "PublicPrivate", label="PublicPrivate-hard", options={"gate": "gumbel"}, passes=8)
adapter(
    "PublicPrivate",
    "PublicPrivate",
    label="PublicPrivate-decoders",
    options={"behind": "decoder"},
    identity_at_start=True,
)
adapter(
    "PublicPrivate",
    "PublicPrivate",
    label="PublicPrivate-lite",
    options={"gate": "sigmoid", "keep": {"depth": "public", "normals": "private"}},
)
adapter(
    "Slimmable",
    "Slimmable",
    backbone=WIDER,
    decoder={"type": "ParallelDecoder", "width": 32},
    head={"type": "ConvHead"},
    identity_at_start=True,
    slow=True,
)

# -------------------------------------------------------------------------------------------- balancers

balancer = partial(add, "balancer", BalancerCase)
balancer("FixedWeights", FixedWeights)
balancer(
    "FixedWeights",
    partial(FixedWeights, default_weights={"first": 1.0, "second": 0.5, "third": 50.0}),
    label="FixedWeights-protocol",
)
balancer(
    "LogSum",
    LogSum,
    skip=dict.fromkeys(
        ("halves_average_to_the_whole", "synchronised_norms_are_those_of_one_process"),
        "the logarithm is taken of each process's own loss (its page says so)",
    ),
)
balancer("Uncertainty", Uncertainty)
balancer("UPGrad", UPGrad)
# torchjd's NashMTL keeps state that cannot be saved; CAGrad needs `mtvision[solvers]`.
OTHER_SOLVER = (
    {"NashMTL"} if all(map(importlib.util.find_spec, ("cvxpy", "clarabel"))) else {"NashMTL", "CAGrad"}
)
STATE = "keeps state for every task and refuses batches that lack one"
ROWS = "refuses fewer than three rows"
NEEDS = {
    "ExcessMTL": {
        "absent_tasks_count_for_nothing": STATE,
        "common_scale_keeps_the_direction": "its step size has the unit of squared gradients",
    },
    "FairGrad": {"common_scale_keeps_the_direction": "its search starts at 1/T whatever the scale"},
    "GradVac": {"absent_tasks_count_for_nothing": STATE},
    "PCD": {
        "absent_tasks_count_for_nothing": STATE,
        "order_of_tasks_is_irrelevant": "its steps depend on the order of the rows",
    },
    "Random": {"order_of_tasks_is_irrelevant": "weights are drawn for rows, not for names"},
    "Krum": {
        "order_of_tasks_is_irrelevant": "of three rows two are equally near; the first wins",
        "one_task_is_the_plain_gradient": ROWS,
        "absent_tasks_count_for_nothing": ROWS,
    },
    "TrimmedMean": {"one_task_is_the_plain_gradient": ROWS, "absent_tasks_count_for_nothing": ROWS},
}
ARGUMENTS = {
    "CAGrad": {"c": 0.4},
    "FairGrad": {"alpha": 1.0},
    "Krum": {"n_byzantine": 0},
    "TrimmedMean": {"trim_number": 1},
}
for name in sorted(set(AGGREGATORS) - OTHER_SOLVER):
    balancer(
        "TorchJD",
        partial(TorchJD, aggregator=name, **ARGUMENTS.get(name, {})),
        label=f"TorchJD-{name}",
        skip=NEEDS.get(name),
    )

SCALE = "common_scale_keeps_the_direction"
ALL_TASKS = {"absent_tasks_count_for_nothing": STATE}
UNIT = {"common_scale_keeps_the_direction": "its options have the unit of a loss"}
SCALAR_RULES: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "COSMOS": ({"lambda_": 0.1}, UNIT),
    "DWA": ({"period": 2}, ALL_TASKS),
    "GeometricMean": ({}, {}),
    "IMTLL": ({}, {}),
    "Mean": ({}, {}),
    "PBI": ({"theta": 0.5}, {}),
    "Random": ({}, {"order_of_tasks_is_irrelevant": "weights are drawn for places, not for names"}),
    "STCH": ({"mu": 1.0}, UNIT),
    "Sum": ({}, {}),
}
assert set(SCALAR_RULES) == set(SCALARIZERS)
for name, (options, exceptions) in SCALAR_RULES.items():
    balancer(
        "Scalarizer",
        partial(Scalarizer, scalarizer=name, **options),
        label=f"Scalarizer-{name}",
        skip=exceptions,
    )
balancer("SmoothTchebycheff", partial(SmoothTchebycheff, warmup=2, nadir=1))
balancer("FAMO", FAMO)
balancer("CoBa", partial(CoBa, warmup=2, history=3))
balancer("AutoLambda", AutoLambda)
balancer("GradNorm", GradNorm)
balancer("PrincipalWeights", PrincipalWeights)
balancer("LogLosses", partial(LogLosses, balancer={"type": "MGDA"}))
balancer("SmoothedWeights", partial(SmoothedWeights, balancer={"type": "MGDA"}))
balancer("NormScaling", NormScaling)
for kind in ("none", "l2", "loss", "loss+"):
    balancer("MGDA", partial(MGDA, normalise=kind), label=f"MGDA-{kind}")
balancer("NashMTL", NashMTL)
balancer("IMTL", IMTL)
for name in ("MGDA", "AlignedMTL"):
    balancer("FeatureWeights", partial(FeatureWeights, aggregator=name), label=f"FeatureWeights-{name}")
balancer("MoCo", MoCo, skip=ALL_TASKS | {SCALE: "its step has the unit of squared losses"})
balancer("DBMTL", DBMTL, skip=ALL_TASKS)
balancer("MoDo", MoDo, skip=ALL_TASKS | {SCALE: "its step has the unit of squared gradients"})
balancer("SDMGrad", SDMGrad, skip=ALL_TASKS | {SCALE: "torchjd adds 1e-8 to the squared norm"})

# ----------------------------------------------------------------------------------------------- losses

loss = partial(add, "loss", LossCase)
WEIGHTS = {"halves_average_to_the_whole": "class weights follow the batch, as published (docs/losses.md)"}
loss("CrossEntropyLoss", CrossEntropyLoss)
loss("L1Loss", L1Loss)
for channels in ("sum", "mean"):
    loss(
        "NormalsL1Loss",
        partial(NormalsL1Loss, channels),
        label=f"NormalsL1Loss-{channels}",
        task=make_task.normals(),
    )
loss("NormalsCosineLoss", NormalsCosineLoss, task=make_task.normals())
loss("EdgeLoss", EdgeLoss, task=make_task.edge())
loss(
    "EdgeLoss",
    partial(EdgeLoss, average="all", threshold=0.5),
    label="EdgeLoss-survey",
    task=make_task.edge(),
)
loss("ShareEdgeLoss", ShareEdgeLoss, task=make_task.edge())
loss("EdgeLoss", partial(EdgeLoss, None), label="EdgeLoss-hed", task=make_task.edge(), skip=WEIGHTS)
loss("BalancedCrossEntropyLoss", BalancedCrossEntropyLoss, task=make_task.saliency(), skip=WEIGHTS)
loss("BalancedBinaryLoss", BalancedBinaryLoss, task=make_task.saliency(family="survey"), skip=WEIGHTS)
loss("InstanceLoss", InstanceLoss, task=make_task.instance(("car", "person")))

# ---------------------------------------------------------------------------------------------- metrics

THREE = ["a", "b", "c"]
SCORED = {
    "iou": make_task.semseg(THREE),
    "iou-mtan": make_task.semseg(THREE, family="mtan"),
    "iou-parts": make_task.human_parts(),
    "depth": make_task.depth(max_depth=4.5),
    "depth-mtan": make_task.depth(family="mtan"),
    "depth-as-it-is": replace(
        make_task.depth(), activation="identity", metrics=({"type": "depth", "clamp": False},)
    ),
    "normals": make_task.normals(),
    "values": make_task.values(channels=2),
    "edge": make_task.edge(thresholds=5),
    "saliency": make_task.saliency(),
    "saliency-survey": make_task.saliency(family="survey"),
    "instances": make_task.instance(["a", "b"], minimum_area=3),
}
# Thinning cuts the corners of a label, and the BSDS sum gives a curve of few points less area than 1.
# An E-measure is divided by N - 1, so its range reaches above the 1 of many pixels.
PERFECT = {"best": dict.fromkeys(("e_mean", "e_max", "e_adaptive"), 1.0)}
MORE: dict[str, dict[str, Any]] = {
    "edge": {"near": 0.04, "undefined": ("R50",), "best": {"AP": 0.75}},
    "saliency": PERFECT,
    "saliency-survey": PERFECT,
}
for label, task in SCORED.items():
    add(
        "metric",
        MetricCase,
        task.metric_names[0],
        partial(build_metric, task),
        label=label,
        task=task,
        **MORE.get(label, {}),
    )


class OneAnnotator(MetricCase):
    """Labels (2, H, W): the share of annotators, of which there is one, and that one's map."""

    def label(self, index: int, missing: float = 0.1) -> Tensor:
        """The same map twice; the second has no holes."""
        share = super().label(index, missing)[:1]
        return torch.cat([share, share.nan_to_num(0.0)])

    def perfect(self, label: Tensor) -> Tensor:
        """That of the share."""
        return super().perfect(label[:1])


ANNOTATED = {"type": "annotated_edge", "max_distance": 0.011, "thresholds": 5, "suppression": 0}
task = replace(make_task.edge(thresholds=5), metrics=(ANNOTATED,), label_channels=2)
add(
    "metric",
    OneAnnotator,
    "annotated_edge",
    partial(build_metric, task),
    label="annotated_edge",
    task=task,
    skip={"perfect_is_best": "the benchmark's AP is 0 where all thresholds give one point of the curve"},
    **MORE["edge"],
)

# ------------------------------------------------------------------------------------------------ steps

step = partial(add, "step", StepCase)


def sandwich(given: Step, forward: Forward, batch: Batch) -> Tensor:
    """A network that takes no widths is the same in every pass, and teaches itself nothing."""
    assert isinstance(given, SandwichStep)
    return given.passes * plain_sum(given, forward, batch)


def not_held_out(given: Step, forward: Forward, batch: Batch) -> Tensor:
    """Images that are held out teach the architecture alone, of which this network has none."""
    from mtvision.core.random import is_held_out

    kept = [index for index, name in enumerate(batch.ids) if not is_held_out(name, given.held_out or 0)]
    part = batch.part(kept)
    assert 0 < len(part) < len(batch)
    return plain_sum(given, forward, part) if part.labels else torch.zeros((), requires_grad=True)


class ToyStudent(ToyBackbone):
    """Shows its own maps for a teacher."""

    def forward(self, image: Tensor) -> Any:
        """See `Backbone`."""
        pyramid, wanted = super().forward(image), wanted_representations()
        if wanted is not None:
            wanted.show("teacher", pyramid.maps)
        return pyramid


def distilled(given: Step, forward: Forward, batch: Batch) -> Tensor:
    """Losses of tasks plus the distances to a teacher, level by level and image by image."""
    assert isinstance(given, DistillStep)
    shown = Representations(["teacher"])
    with use_context(Context(extra={REPRESENTATIONS: shown})):
        total = plain_sum(given.inner, forward, batch)
    goals = given.teachers("teacher", batch.image)
    for mine, goal in zip(shown.of_teacher["teacher"].maps, goals, strict=True):
        height, width = goal.shape[2:]  # of the cells inside the image
        for one, other in zip(mine[..., :height, :width].flatten(1), goal.flatten(1), strict=True):
            angle = 1 - one @ other / (one.norm() * other.norm())
            total = total + (0.9 * angle + 0.1 * F.smooth_l1_loss(one, other)) / len(batch)
    return total


step("PlainStep", PlainStep)
step(
    "DistillStep",
    partial(DistillStep, teachers={"teacher": {**RESNET, "channels": (8, 12, 16, 24)}}),
    obvious=distilled,
    backbone={"type": ToyStudent},
)
step("DataMapStep", DataMapStep)
step("FlatRegionsStep", partial(FlatRegionsStep, rho=1e-12))  # so short that nothing moves
step("SAMOStep", partial(SAMOStep, rho=1e-12))
step("SparseStep", partial(SparseStep, share=1.0))
step("SelectiveGroupsStep", partial(SelectiveGroupsStep, start="together"))
step("HeldOutStep", partial(HeldOutStep, held_out=0.0))
step("BilevelStep", partial(BilevelStep, held_out=0.0))
step(
    "SeveralBatchesStep",
    SeveralBatchesStep,
    skip=dict.fromkeys(
        ("absent_tasks_are_left_out", "logs_are_detached_scalars"), "every part of a batch needs all tasks"
    ),
)
step("ParetoStep", partial(ParetoStep, passes=2, concentration=1e12))  # all preferences are alike
step("SandwichStep", partial(SandwichStep, passes=2), obvious=sandwich)
step("SearchStep", partial(SearchStep, held_out=0.0), label="SearchStep-all")
UNEVEN = "losses are means over the images that are not held out, of which the halves have other numbers"
step(
    "SearchStep",
    partial(SearchStep, held_out=0.5),
    obvious=not_held_out,
    skip={"micro_batches_equal_the_batch": UNEVEN, "processes_equal_one": UNEVEN},
)

# ----------------------------------------------------------------------------------------------- mergers

merger = partial(add, "merger", MergerCase)
START = {"steps": 0}  # mergers that learn begin with task arithmetic

for name, options in {
    "average": {},
    "task_arithmetic": {},
    "ties": {"density": 1.0},
    "dare": {"drop": 0.0},
    "breadcrumbs": {"keep": 1.0, "outliers": 0.0},
    "consensus": {"agreeing": 0},
    "tall_masks": {},
    "emr": {},
}.items():
    merger(name, MERGERS[name], keep_all=options)
for name in ("adamerging", "atlas", "concrete", "tinting"):
    merger(name, partial(MERGERS[name], steps=2, lr=0.05), keep_all=START)

# --------------------------------------------------------------------------------------------- data sets


def miniature() -> Any:
    """The builders of miniature data sets in their published layouts."""
    path = Path(__file__).resolve().parents[1] / "data" / "miniature.py"
    spec = importlib.util.spec_from_file_location("mtvision_test_miniature", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TRAIN = {"preset": "invpt-train", "size": (12, 16)}


def dataset(
    name: str, make: Callable[[Path], Callable[[], Any]], *, label: str = "", ordered: bool = True
) -> None:
    """Add a data set; `make` writes files into an empty folder and returns what builds the data set."""

    def build(setting: Setting, folder: Path) -> DatasetCase:
        place = folder / (label or name)
        place.mkdir()
        return DatasetCase(make=make(place), setting=setting, ordered=ordered)

    EXAMPLES.append(Example("dataset", name, label or name, build))


def synthetic(folder: Path) -> Callable[[], Any]:
    from mtvision.data import SyntheticScenes

    return partial(SyntheticScenes, length=4, size=(24, 32), transforms=TRAIN)


def nyud(folder: Path) -> Callable[[], Any]:
    from mtvision.data.nyudv2 import NYUDv2

    return partial(NYUDv2, miniature().nyud(folder), split="train", check=False, transforms=TRAIN)


def pascal(folder: Path) -> Callable[[], Any]:
    from mtvision.data.pascal_context import PascalContext

    return partial(PascalContext, miniature().pascal(folder), split="train", check=False, transforms=TRAIN)


def cityscapes(folder: Path) -> Callable[[], Any]:
    from mtvision.data.cityscapes import Cityscapes

    return partial(Cityscapes, miniature().cityscapes(folder), split="train", check=False)


def mtan(folder: Path) -> Callable[[], Any]:
    from mtvision.data.mtan_npy import MtanNpy

    root = miniature().mtan(folder, count=4)
    return partial(MtanNpy, root, split="train", check=False, transforms="mtan-train")


def own_folder(folder: Path) -> Callable[[], Any]:
    """Three images, the last without depth; files as they would lie on a user's disk."""
    import numpy as np

    from mtvision.data import FolderDataset
    from mtvision.protocols import own_protocol

    rng, small = np.random.default_rng(0), miniature()
    for name in ("p", "q", "r"):
        small.write_png(folder / "images" / f"{name}.png", rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        small.write_png(folder / "semseg" / f"{name}.png", rng.integers(0, 3, (12, 16), dtype=np.uint8))
        if name != "r":
            small.save_npy(folder / "depth" / f"{name}.npy", rng.uniform(1, 5, (12, 16)).astype(np.float32))
    protocol = own_protocol("own", {"semseg": {"class_names": THREE}, "depth": {}})
    labels = {"semseg": "semseg", "depth": "depth"}
    return partial(FolderDataset, folder, labels=labels, protocol=protocol, partial=True)


def coco(folder: Path) -> Callable[[], Any]:
    """Two images, one with a rectangle."""
    import json

    import numpy as np

    from mtvision.data.coco import CocoDataset
    from mtvision.protocols import own_protocol

    for name in ("a.png", "b.png"):
        miniature().write_png(folder / "images" / name, np.zeros((20, 30, 3), np.uint8))
    rectangle = [[3, 4, 20, 4, 20, 15, 3, 15]]
    one = {"id": 1, "image_id": 5, "category_id": 3, "segmentation": rectangle, "iscrowd": 0}
    images = [
        {"id": number, "file_name": name, "height": 20, "width": 30}
        for number, name in ((5, "a.png"), (9, "b.png"))
    ]
    content = {"images": images, "categories": [{"id": 3, "name": "car"}], "annotations": [one]}
    (folder / "instances.json").write_text(json.dumps(content))
    protocol = own_protocol("coco-like", {"semseg": {"class_names": ("car",)}})
    return partial(CocoDataset, folder / "images", folder / "instances.json", protocol=protocol)


def joint(folder: Path) -> Callable[[], Any]:
    """Two parts of the synthetic scenes, one with semseg alone, the other with depth."""
    from mtvision.data import JointDataset
    from mtvision.protocols.synthetic import SYNTHETIC

    del folder
    common = {"type": "SyntheticScenes", "size": (24, 32), "length": 3}
    parts = [
        {**common, "name": "first", "tasks": ["semseg"]},
        {**common, "name": "second", "tasks": ["depth"], "scene_seed": 1},
    ]
    protocol = SYNTHETIC.select(["semseg", "depth"])
    return partial(JointDataset, parts=parts, protocol=protocol, split="train", transforms="tensor")


def renamed(folder: Path) -> Callable[[], Any]:
    """Two depth tasks from the depth of the synthetic scenes."""
    from mtvision.data.renamed import RenamedLabels
    from mtvision.protocols import own_protocol

    del folder
    tasks: dict[str, Any] = {"near": {"type": "depth", "max_depth": 10}, "far": {"type": "depth"}, "edge": {}}
    return partial(
        RenamedLabels,
        dataset={"type": "SyntheticScenes", "size": (24, 32), "length": 3},
        names={"near": "depth", "far": "depth"},
        protocol=own_protocol("two-depths", tasks),
        split="train",
        transforms=TRAIN,
    )


def noise(folder: Path) -> Callable[[], Any]:
    """Random images with labels of all kinds but instances."""
    from mtvision.data import RandomImages
    from mtvision.protocols.synthetic import SYNTHETIC

    del folder
    return partial(RandomImages, length=4, size=(24, 32), protocol=SYNTHETIC, transforms=TRAIN)


def selected(folder: Path) -> Callable[[], Any]:
    """Three of five random images with instances."""
    from mtvision.data import SelectedImages
    from mtvision.protocols.synthetic import SYNTHETIC_INSTANCES

    del folder
    whole = {"type": "RandomImages", "length": 5, "size": (24, 32), "transforms": TRAIN}
    ids = ["random_train_1", "random_train_2", "random_train_4"]
    return partial(SelectedImages, dataset=whole, ids=ids, protocol=SYNTHETIC_INSTANCES)


def held_out(folder: Path) -> Callable[[], Any]:
    """What is not held out of five random images with instances."""
    from mtvision.data import HeldOutImages
    from mtvision.protocols.synthetic import SYNTHETIC_INSTANCES

    del folder
    whole = {"type": "RandomImages", "length": 5, "size": (24, 32), "transforms": TRAIN}
    return partial(HeldOutImages, dataset=whole, part="rest", protocol=SYNTHETIC_INSTANCES)


def camvid(folder: Path) -> Callable[[], Any]:
    """Two street scenes."""
    import numpy as np

    from mtvision.data import CamVid

    rng, small = np.random.default_rng(0), miniature()
    for name in ("p", "q"):
        small.write_png(folder / "train" / f"{name}.png", rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        small.write_png(folder / "trainannot" / f"{name}.png", rng.integers(0, 12, (12, 16), dtype=np.uint8))
    return partial(CamVid, folder, split="train", check=False, transforms=TRAIN)


def bsds_sod(folder: Path) -> Callable[[], Any]:
    """Two photographs with the boundaries of two people."""
    import numpy as np

    from mtvision.data import BSDSSaliency

    rng, small = np.random.default_rng(0), miniature()
    for name in ("100", "101"):
        (folder / "images/train").mkdir(parents=True, exist_ok=True)
        photograph = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(photograph).save(folder / "images/train" / f"{name}.jpg")
        small.write_png(folder / "annotators" / f"{name}.png", rng.integers(0, 4, (12, 16), dtype=np.uint16))
        small.write_png(
            folder / "saliency" / f"{name}.png", rng.integers(0, 2, (12, 16), dtype=np.uint8) * 255
        )
    return partial(BSDSSaliency, folder, split="train", check=False, transforms=TRAIN)


def mosd(folder: Path) -> Callable[[], Any]:
    """Two frames with a table and an object."""
    import numpy as np

    from mtvision.data import Mosd

    rng, small = np.random.default_rng(0), miniature()
    for name in ("learn0", "learn1"):
        small.write_png(folder / "rgb" / f"{name}.png", rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        depth = rng.integers(900, 1500, (12, 16), dtype=np.uint16)
        depth[0, :3] = 0
        small.write_png(folder / "depth" / f"{name}.png", depth)
        parts = np.ones((12, 16), dtype=np.uint8)
        parts[3:11, 4:14] = 20
        small.write_png(folder / "label" / f"{name}.png", parts)
        normals = rng.normal(size=(12, 16, 3)).astype(np.float32)
        normals /= np.linalg.norm(normals, axis=2, keepdims=True)
        small.save_npy(folder / "normals" / f"{name}.npy", normals.astype(np.float16))
    return partial(Mosd, folder, split="train", check=False, transforms=TRAIN)


for name, make in {
    "SyntheticScenes": synthetic,
    "CamVid": camvid,
    "BSDSSaliency": bsds_sod,
    "Mosd": mosd,
    "RandomImages": noise,
    "SelectedImages": selected,
    "HeldOutImages": held_out,
    "NYUDv2": nyud,
    "PascalContext": pascal,
    "Cityscapes": cityscapes,
    "MtanNpy": mtan,
    "FolderDataset": own_folder,
    "CocoDataset": coco,
    "RenamedLabels": renamed,
}.items():
    dataset(name, make)
dataset("JointDataset", joint, ordered=False)

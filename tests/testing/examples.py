"""One list of examples: at least one small case of every registered class, for the property batteries."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtvision.architecture.tree import Tree
from mtvision.balance import FixedWeights, LogSum, TorchJD, Uncertainty, UPGrad
from mtvision.balance.jacobian import AGGREGATORS
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
from mtvision.steps import DataMapStep, PlainStep, SandwichStep, SearchStep, Step
from mtvision.testing.inputs import ToyBackbone, toy_tasks
from mtvision.testing.kinds.adapters import AdapterCase
from mtvision.testing.kinds.backbones import BackboneCase
from mtvision.testing.kinds.balancers import BalancerCase
from mtvision.testing.kinds.datasets import DatasetCase
from mtvision.testing.kinds.decoders import DecoderCase
from mtvision.testing.kinds.losses import LossCase
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
BEIT = {"img_size": 64, "depth": 4, "embed_dim": 32, "num_heads": 2}
backbone(
    "TimmBackbone",
    partial(TimmBackbone, "beit_base_patch16_224", **BEIT),
    label="TimmBackbone-beit",
    size=(64, 64),
    odd_size=None,
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

decoder = partial(add, "decoder", DecoderCase)
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
    )

# --------------------------------------------------------------------------------------------- adapters

adapter = partial(add, "adapter", AdapterCase)
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
    skip={
        "halves_average_to_the_whole": "the logarithm is taken of each process's own loss (its page says so)"
    },
)
balancer("Uncertainty", Uncertainty)
balancer("UPGrad", UPGrad)
OTHER_SOLVER = {"CAGrad", "NashMTL", "FairGrad"}  # need cvxpy with a solver that is not installed
STATE = "keeps state for every task and refuses batches that lack one"
ROWS = "refuses fewer than three rows"
NEEDS = {
    "ExcessMTL": {
        "absent_tasks_count_for_nothing": STATE,
        "common_scale_keeps_the_direction": "its step size has the unit of squared gradients",
    },
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
ARGUMENTS = {"Krum": {"n_byzantine": 0}, "TrimmedMean": {"trim_number": 1}}
for name in sorted(set(AGGREGATORS) - OTHER_SOLVER):
    balancer(
        "TorchJD",
        partial(TorchJD, aggregator=name, **ARGUMENTS.get(name, {})),
        label=f"TorchJD-{name}",
        skip=NEEDS.get(name),
    )

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
MORE: dict[str, dict[str, Any]] = {"edge": {"near": 0.04, "undefined": ("R50",), "best": {"AP": 0.75}}}
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

# ------------------------------------------------------------------------------------------------ steps

step = partial(add, "step", StepCase)


def sandwich(given: Step, forward: Forward, batch: Batch) -> Tensor:
    """A network that takes no widths is the same in every pass, and teaches itself nothing."""
    assert isinstance(given, SandwichStep)
    return given.passes * plain_sum(given, forward, batch)


def not_held_out(given: Step, forward: Forward, batch: Batch) -> Tensor:
    """Images that are held out teach the architecture alone, of which this network has none."""
    from mtvision.core.held_out import is_held_out

    kept = [index for index, name in enumerate(batch.ids) if not is_held_out(name, given.held_out or 0)]
    part = batch.part(kept)
    assert 0 < len(part) < len(batch)
    return plain_sum(given, forward, part) if part.labels else torch.zeros((), requires_grad=True)


step("PlainStep", PlainStep)
step("DataMapStep", DataMapStep)
step("SandwichStep", partial(SandwichStep, passes=2), obvious=sandwich)
step("SearchStep", partial(SearchStep, held_out=0.0), label="SearchStep-all")
UNEVEN = "losses are means over the images that are not held out, of which the halves have other numbers"
step(
    "SearchStep",
    partial(SearchStep, held_out=0.5),
    obvious=not_held_out,
    skip={"micro_batches_equal_the_batch": UNEVEN, "processes_equal_one": UNEVEN},
)

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


for name, make in {
    "SyntheticScenes": synthetic,
    "RandomImages": noise,
    "SelectedImages": selected,
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

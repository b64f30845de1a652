"""Costs of training with each adapter beside full fine-tuning, and of experts beside what they replace."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from timm.layers.mlp import Mlp
from torch import Tensor, nn

from mtvision.cli.machine.step_costs import Made, Table, step_costs
from mtvision.core.registry import BALANCERS, STEPS
from mtvision.core.sample import Batch, collate
from mtvision.data.synthetic import SyntheticScenes
from mtvision.engine.module import TrainingModule
from mtvision.engine.optimization.wrapper import PrecisionOptimWrapper
from mtvision.models.factory import build_network
from mtvision.models.layers.experts import MixtureMLP, SharedRouter
from mtvision.protocols import SYNTHETIC

NAMES = ("depth", "edge", "normals", "semseg")
TASKS = [task for task in SYNTHETIC.tasks if task.name in NAMES]
SIZE = (128, 160)
FULL = "full fine-tuning"
RANK = 16
LAYERS = {"*.attn.qkv": RANK, "*.attn.proj": RANK, "*.mlp.*": RANK}
LAST = {"*.10.mlp.*": RANK, "*.11.mlp.*": RANK}
ENDS = {"*.attn.proj": RANK, "*.mlp.*": RANK}
Adapters = list[dict[str, Any]]
VIT_ROWS: Mapping[str, Adapters] = {
    FULL: [],
    "LowRank": [{"type": "LowRank", "shared": LAYERS}],
    "LowRank, own in two blocks": [{"type": "LowRank", "shared": LAYERS, "own": LAST}],
    "TADFormer": [{"type": "TADFormer", "shared": LAYERS, "own": dict.fromkeys(LAST, 3)}],
    "DiTASK": [{"type": "DiTASK", "shared": LAYERS, "own": LAST}],
    "PolySkills": [{"type": "PolySkills", "shared": LAYERS, "own": LAST}],
    "HyperLowRank": [{"type": "HyperLowRank", "shared": LAST}],
    "Houlsby": [{"type": "Houlsby", "shared": {"*.attn.proj": RANK, "*.mlp.fc2": RANK}}],
    "TAPS, two blocks": [{"type": "TAPS", "layers": ["*.10.*", "*.11.*"]}],
    "TAPS": [{"type": "TAPS"}],
    "Subset, two blocks": [
        {"type": "Subset", "blocks": {name: ["model.blocks.10", "model.blocks.11"] for name in NAMES}}
    ],
    "SparseDeltas": [{"type": "SparseDeltas", "base": "semseg"}],
    "MixtureOfExperts": [{"type": "MixtureOfExperts"}],
    "MixtureOfExperts, one gate": [{"type": "MixtureOfExperts", "router": "shared"}],
    "ImplicitVectors": [{"type": "ImplicitVectors"}],
    "AdaTT": [{"type": "AdaTT"}],
    "PublicPrivate": [{"type": "PublicPrivate"}],
    "Surgery": [{"type": "Surgery"}],
}
SWIN_ROWS: Mapping[str, Adapters] = {
    FULL: [],
    "LowRank": [{"type": "LowRank", "shared": LAYERS}],
    "LowRank, side (MTLoRA)": [{"type": "LowRank", "shared": LAYERS, "own": ENDS, "side": True}],
    "LowRank, addition": [
        {"type": "LowRank", "shared": LAYERS, "own": {"*.mlp.*": RANK}, "side": True, "addition": True}
    ],
    "TADFormer, side": [{"type": "TADFormer", "shared": LAYERS, "own": {"*.mlp.*": 3}, "side": True}],
    "DiTASK, side": [{"type": "DiTASK", "shared": LAYERS, "own": ENDS, "side": True}],
    "VTAGML": [{"type": "VTAGML"}],
    "VTAGML, frozen": [{"type": "VTAGML", "freeze": True}],
}
TEACHERS = {"lite0": {"type": "TimmBackbone", "name": "tf_efficientnet_lite0", "pretrained": False}}
TAUGHT: dict[str, Any] = {"teachers": {"lite0": [24, 40, 112, 320]}}
"""Channels of the teacher's levels."""
STUDENTS: Mapping[str, Adapters] = {
    "SAK, one teacher": [{"type": "SAK", **TAUGHT, "align": True}],
    "PRISM, one teacher, 8 experts": [{"type": "PRISM", **TAUGHT, "experts": 8}],
}
"""On ViT-tiny; their decoder joins the teacher's levels, and the teacher's pass is part of the step."""
MODELS: Mapping[str, tuple[dict[str, Any], Mapping[str, Adapters]]] = {
    "ViT-tiny": ({"type": "TimmBackbone", "name": "vit_tiny_patch16_224"}, VIT_ROWS),
    "Swin-tiny": ({"type": "TimmBackbone", "name": "swin_tiny_patch4_window7_224"}, SWIN_ROWS),
}
FEATURES, TOKENS, ACTIVE = 384, 2400, 4
"""M3ViT's width, two images of 480 x 640 in patches of 16, and its experts per token."""


def benchmark_adapters(repeats: int, write: Callable[[str], object]) -> dict[str, Table]:
    """Ratios to full fine-tuning per network, and of experts to the dense MLP of equal active FLOPs."""
    dataset = SyntheticScenes(split="train", length=2, size=SIZE, tasks=NAMES)
    batch = collate([dataset[index] for index in range(2)])
    found = {}
    for title, (backbone, rows) in MODELS.items():
        steps = {name: _step(backbone, adapters, batch) for name, adapters in rows.items()}
        if rows is VIT_ROWS:
            steps |= {name: _student(backbone, adapters, batch) for name, adapters in STUDENTS.items()}
        found[title] = step_costs(title, steps, repeats, write)
    for experts in (4, 16, 64):
        for backward in (False, True):
            title = f"{experts} experts, {'forward + backward' if backward else 'forward'}"
            found[title] = step_costs(title, _layers(experts, backward), repeats, write)
    return found


def _step(backbone: dict[str, Any], adapters: Adapters, batch: Batch) -> Made:
    parts = {"decoder": {"type": "ParallelDecoder", "width": 32}, "head": {"type": "ConvHead"}}
    return _made({"backbone": backbone, "adapters": adapters, **parts}, {"type": "PlainStep"}, batch)


def _student(backbone: dict[str, Any], adapters: Adapters, batch: Batch) -> Made:
    parts = {"decoder": {"type": "ConcatDecoder"}, "head": {"type": "LevelsHead", "enlarge": 4}}
    step = {"type": "DistillStep", "teachers": TEACHERS}
    return _made({"backbone": backbone, "adapters": adapters, **parts}, step, batch)


def _made(model: dict[str, Any], step: dict[str, Any], batch: Batch) -> Made:
    torch.manual_seed(0)
    network = build_network(model, TASKS)
    rule = BALANCERS.build({"type": "FixedWeights", "weights": dict.fromkeys(NAMES, 1.0)}, tasks=list(NAMES))
    module = TrainingModule(network, TASKS, rule, STEPS.build(step)).train()
    trained = [item for item in module.parameters() if item.requires_grad]
    wrapper = PrecisionOptimWrapper(torch.optim.AdamW(trained, lr=1e-4))
    return partial(module.train_step, batch, wrapper), module


def _layers(experts: int, backward: bool) -> dict[str, Made]:
    """The dense MLP, the suite's layer, and two ways in which people write it."""
    torch.manual_seed(0)
    dense = Mlp(FEATURES, ACTIVE * FEATURES)
    layer = MixtureMLP(SharedRouter(FEATURES, experts, ACTIVE, NAMES), FEATURES, FEATURES)
    loop = LoopOverExperts(experts)
    tokens = torch.randn(TOKENS, FEATURES, requires_grad=backward)

    def made(module: nn.Module, function: Callable[[Tensor], Tensor]) -> Made:
        def call() -> None:
            with torch.set_grad_enabled(backward):
                result = function(tokens)
            if backward:
                result.sum().backward()  # type: ignore[no-untyped-call]
                module.zero_grad()
                tokens.grad = None

        return call, module

    return {
        "dense MLP of equal active FLOPs": made(dense, dense),
        "MixtureMLP": made(layer, layer),
        "loop over experts, their tokens": made(loop, loop),
        "loop over experts, all tokens": made(loop, loop.everywhere),
    }


class LoopOverExperts(nn.Module):
    """What people write: MLPs in a list, each run on the tokens that chose it.

    Args:
        experts: their number.
    """

    def __init__(self, experts: int) -> None:
        super().__init__()
        self.router = SharedRouter(FEATURES, experts, ACTIVE, NAMES)
        self.experts = nn.ModuleList(Mlp(FEATURES, FEATURES) for _ in range(experts))

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, C) to the same shape; an expert finds its tokens and adds to the sum."""
        routing = self.router(tokens)
        total = torch.zeros_like(tokens)
        for number, expert in enumerate(self.experts):
            rows, places = (routing.experts == number).nonzero(as_tuple=True)
            total.index_add_(0, rows, expert(tokens[rows]) * routing.gates[rows, places, None])
        return total

    def everywhere(self, tokens: Tensor) -> Tensor:
        """The same; every expert runs on all tokens, with weight 0 where it was not chosen."""
        routing = self.router(tokens)
        weights = torch.zeros_like(routing.logits).scatter(1, routing.experts, routing.gates)
        total = torch.zeros_like(tokens)
        for number, expert in enumerate(self.experts):
            total = total + expert(tokens) * weights[:, number, None]
        return total

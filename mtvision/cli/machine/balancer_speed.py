"""Time and memory of a training step with each balancer, beside what people would write instead."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torchjd.aggregation import Aggregator, GradDrop, UPGrad
from torchjd.autojac import jac_to_grad, mtl_backward

from mtvision.cli.machine.benchmark import MAMBA
from mtvision.cli.machine.step_costs import Made, Table, step_costs
from mtvision.core.context import current_context, use_context
from mtvision.core.observer import OBSERVER
from mtvision.core.registry import BALANCERS, STEPS
from mtvision.core.roles import SHARED, find_roles
from mtvision.core.sample import Batch, collate
from mtvision.data.synthetic import SyntheticScenes
from mtvision.engine.module import TrainingModule
from mtvision.engine.optimization.wrapper import PrecisionOptimWrapper
from mtvision.models.factory import build_network
from mtvision.protocols import SYNTHETIC

NAMES = ("depth", "edge", "normals", "semseg")
TASKS = [task for task in SYNTHETIC.tasks if task.name in NAMES]
SIZE = (128, 160)
MODELS: Mapping[str, Mapping[str, Any]] = {
    "ResNet-18": {
        "backbone": {"type": "TimmBackbone", "name": "resnet18"},
        "decoder": {"type": "ParallelDecoder", "width": 32},
        "head": {"type": "ConvHead"},
    },
    "MTMamba-tiny": MAMBA,
}
BASELINE = "equal weights"
LOOPS: Mapping[str, Callable[[], Aggregator]] = {
    "loop of autograd.grad + torchjd UPGrad": UPGrad,
    "loop of autograd.grad + torchjd GradDrop": GradDrop,
}
TORCHJD = "torchjd mtl_backward, UPGrad"
PLAIN = {"type": "PlainStep"}
ROWS: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    BASELINE: ({"type": "FixedWeights", "weights": dict.fromkeys(NAMES, 1.0)}, PLAIN),
    "LogSum": ({"type": "LogSum"}, PLAIN),
    "Uncertainty": ({"type": "Uncertainty"}, PLAIN),
    "FAMO": ({"type": "FAMO"}, PLAIN),
    "UPGrad": ({"type": "UPGrad"}, PLAIN),
    "UPGrad, stages": ({"type": "UPGrad"}, {**PLAIN, "products": "stages"}),
    "UPGrad, matrix": ({"type": "UPGrad"}, {**PLAIN, "products": "matrix"}),
    "UPGrad, every=4": ({"type": "UPGrad"}, {**PLAIN, "every": 4}),
    "MGDA": ({"type": "MGDA"}, PLAIN),
    "NashMTL": ({"type": "NashMTL"}, PLAIN),
    "GradNorm": ({"type": "GradNorm"}, PLAIN),
    "AlignedMTL": ({"type": "TorchJD", "aggregator": "AlignedMTL"}, PLAIN),
    "PCGrad": ({"type": "TorchJD", "aggregator": "PCGrad"}, PLAIN),
    "GradDrop": ({"type": "TorchJD", "aggregator": "GradDrop"}, PLAIN),
    "DBMTL": ({"type": "DBMTL"}, PLAIN),
    "FeatureWeights": ({"type": "FeatureWeights"}, PLAIN),
}


def benchmark_balancers(repeats: int, write: Callable[[str], object]) -> dict[str, Table]:
    """{network: {row: {`time`, `memory`}}} as ratios to equal weights, four tasks, 128 x 160, batch 4."""
    return {name: _compared(name, model, repeats, write) for name, model in MODELS.items()}


def _compared(title: str, model: Mapping[str, Any], repeats: int, write: Callable[[str], object]) -> Table:
    """Ratios of one network; steps that reuse weights are averaged over a period."""
    dataset = SyntheticScenes(split="train", length=4, size=SIZE, tasks=NAMES)
    batch = collate([dataset[index] for index in range(4)])
    steps = {name: _step(model, batch, balancer, step) for name, (balancer, step) in ROWS.items()}
    steps |= {name: _loop(model, batch, make()) for name, make in LOOPS.items()}
    if model["decoder"]["type"] == "ParallelDecoder":  # in others tasks meet; `mtl_backward` refuses that
        steps[TORCHJD] = _torchjd(model, batch)
    calls = {name: step.get("every", 1) for name, (_, step) in ROWS.items()}
    return step_costs(title, steps, repeats, write, calls)


def _module(model: Mapping[str, Any], balancer: Mapping[str, Any], step: Mapping[str, Any]) -> TrainingModule:
    torch.manual_seed(0)
    network = build_network(model, TASKS)
    weights = {name: SYNTHETIC.loss_weights[name] for name in NAMES}
    rule = BALANCERS.build(dict(balancer), tasks=[task.name for task in TASKS], default_weights=weights)
    return TrainingModule(network, TASKS, rule, STEPS.build(dict(step))).train()


def _step(
    model: Mapping[str, Any], batch: Batch, balancer: Mapping[str, Any], step: Mapping[str, Any]
) -> Made:
    module = _module(model, balancer, step)
    wrapper = PrecisionOptimWrapper(torch.optim.SGD(module.parameters(), lr=1e-3))
    return partial(module.train_step, batch, wrapper), module


def _loop(model: Mapping[str, Any], batch: Batch, aggregator: Aggregator) -> Made:
    """One `autograd.grad` per task, rows joined, torchjd's aggregator on the matrix."""
    module = _module(model, ROWS[BASELINE][0], PLAIN)
    network = module.network
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    named = dict(network.named_parameters())
    roles = find_roles(module(batch).losses, named.items())
    shared = [named[name] for name, role in roles.items() if role == SHARED]
    own = [named[name] for name, role in roles.items() if role != SHARED]

    def call() -> None:
        losses = module(batch).losses
        rows = []
        for loss in losses.values():
            found = torch.autograd.grad(loss, [*shared, *own], retain_graph=True, allow_unused=True)
            parts = zip(shared, found, strict=False)
            filled = [torch.zeros_like(item) if part is None else part for item, part in parts]
            rows.append(torch.cat([part.flatten() for part in filled]))
            for item, part in zip(own, found[len(shared) :], strict=True):
                if part is not None:
                    item.grad = part
        gradient = aggregator(torch.stack(rows))
        for item, part in zip(shared, torch.split(gradient, [p.numel() for p in shared]), strict=True):
            item.grad = part.view_as(item)
        optimizer.step()
        optimizer.zero_grad()

    return call, network


def _torchjd(model: Mapping[str, Any], batch: Batch) -> Made:
    """`mtl_backward` from the levels of the pyramid; for time and memory alone.

    Its gradients differ: a path through two levels counts twice, because one level leads to the next.
    """
    module = _module(model, ROWS[BASELINE][0], PLAIN)
    network = module.network
    optimizer, aggregator = torch.optim.SGD(network.parameters(), lr=1e-3), UPGrad()
    shared = list(network.backbone.parameters())
    levels: list[Tensor] = []

    def keep(_network: Any, pyramid: Any, _logits: Any) -> None:
        levels[:] = [item for item in pyramid.maps if item.requires_grad]

    def call() -> None:
        with use_context(replace(current_context(), extra={OBSERVER: keep})):
            losses = list(module(batch).losses.values())
        mtl_backward(losses, features=levels, shared_params=shared)
        jac_to_grad(shared, aggregator)
        levels.clear()
        optimizer.step()
        optimizer.zero_grad()

    return call, network

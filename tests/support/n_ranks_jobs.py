"""Training steps on one or several gloo processes, for `test_n_ranks.py`.

Usage: n_ranks_jobs.py RANK WORLD RENDEZVOUS_FILE RESULT_FILE
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import torch
import torch.distributed as dist

from mtvision.core.registry import BALANCERS
from mtvision.core.sample import collate
from mtvision.core.task import IGNORE
from mtvision.engine.module import DistributedModule, TrainingModule
from mtvision.engine.optimization.wrapper import PrecisionOptimWrapper
from mtvision.models.decoders import ParallelDecoder
from mtvision.models.heads import ConvHead
from mtvision.models.network import Network
from mtvision.protocols import tasks as make_task
from mtvision.steps import DataMapStep, PlainStep, SandwichStep
from mtvision.testing.inputs import toy_samples, toy_tasks
from mtvision.testing.kinds.decoders import DecoderCase
from mtvision.testing.modules import Setting, disturb

sys.path.insert(0, str(Path(__file__).parents[1] / "testing"))
from examples import EXAMPLES

EDGE = replace(make_task.edge(), loss={"type": "EdgeLoss", "positive_weight": None})
FIVE = (*toy_tasks(), EDGE, make_task.saliency())
IMAGES = 8
STEPS = 3
DECODERS = {item.label: item for item in EXAMPLES if item.kind == "decoder"}
# Training draws trees, preferences, gates or the noise of routers, others on each rank.
DRAWN = ("BranchingSearch", "ParetoManifold", "SAK", "SparseDeltas")
ADAPTERS = {
    item.name: item
    for item in reversed(EXAMPLES)  # the first example of a class counts
    if item.kind == "adapter" and item.name not in DRAWN
}
CASES = {
    **{
        f"{label} {balancer}": (label, balancer, {})
        for label in DECODERS
        for balancer in ("FixedWeights", "UPGrad")
    },
    **{f"{label} Uncertainty": (label, "Uncertainty", {}) for label in ("ParallelDecoder", "MTMambaDecoder")},
    "five tasks FixedWeights": ("five tasks", "FixedWeights", {}),
    "five tasks LogSum": ("five tasks", "LogSum", {}),
    "five tasks UPGrad": ("five tasks", "UPGrad", {}),
    "micro-batches": ("five tasks", "FixedWeights", {"micro_batches": 2}),
    "data map": ("five tasks", "FixedWeights", {"step": "data map"}),
    **{f"adapter {name}": (name, "FixedWeights", {}) for name in ADAPTERS},
    **{f"adapter {name} UPGrad": (name, "UPGrad", {}) for name in ("LowRank", "MixtureOfExperts", "AdaTT")},
    "rank": ("five tasks", "FixedWeights", {"loss_means": "rank"}),
}
SHORT = {name for name in CASES if name == "rank" or name.startswith("adapter ")}  # one step tells
STEP = {"plain": PlainStep, "data map": DataMapStep, "sandwich": SandwichStep}


def network_of(label):
    """A network in float64, disturbed alike everywhere; dropout and batch norms are in evaluation mode."""
    torch.manual_seed(0)
    if label in ADAPTERS:
        case = ADAPTERS[label].build(Setting("cpu", torch.float64), Path())
        return in_evaluation(disturb(case.build()).train()), case.size
    if label == "five tasks":
        case = DecoderCase(make=lambda **known: ParallelDecoder(width=8, **known), tasks=FIVE)
    else:
        case = DECODERS[label].build(Setting("cpu", torch.float64), Path())
    decoder = case.build()
    heads = {
        task.name: ConvHead(in_channels=decoder.out_channels[task.name], task=task) for task in case.tasks
    }
    network = Network(case.backbone, decoder, heads, tuple(case.tasks)).double()
    return in_evaluation(disturb(network).train()), case.size


def in_evaluation(network):
    """The network with dropout and batch norms in evaluation mode."""
    for module in network.modules():
        if any(word in type(module).__name__.lower() for word in ("batchnorm", "drop")):
            module.eval()
    return network


def samples_of(tasks, size, step):
    """Images whose labels differ in number: padding at the bottom, and tasks that whole processes lack.

    In step 1 the first half lacks depth, in step 2 it lacks everything.
    """
    lacking = {0: [["semseg"], []], 1: [["depth"]] * 4, 2: [[task.name for task in tasks]] * 4}[step]
    samples = toy_samples(tasks, IMAGES, size, seed=step, lacking=lacking)
    for index, sample in enumerate(samples):
        rows = index * size[0] // (2 * IMAGES)
        for label in sample.labels.values():
            if rows:
                label[..., -rows:, :] = torch.nan if label.is_floating_point() else IGNORE
        sample.image = sample.image.double()
    return samples


def train(case, rank, world, *, only=None):
    """Gradients of the first step, logs and what the weights changed by; `only` = indices of the images."""
    steps = 1 if case in SHORT else STEPS
    label, balancer, options = CASES[case]
    options = {"loss_means": "global", **options}
    step = STEP[options.pop("step", "plain")]()
    network, size = network_of(label)
    rule = BALANCERS.build({"type": balancer, "tasks": network.task_names}).double()
    module = TrainingModule(network, network.tasks, rule, step, **options)
    before = {name: item.detach().clone() for name, item in module.named_parameters()}
    wrapper = PrecisionOptimWrapper(torch.optim.SGD(module.parameters(), lr=1e-3, momentum=0.9))
    gradients = {}
    check = wrapper.is_sound

    def look(watched=None):
        if not gradients:
            gradients.update({n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None})
        return check(watched)

    wrapper.is_sound = look
    wrapped = DistributedModule(module) if world > 1 else module
    logs = []
    for number in range(steps):
        samples = samples_of(network.tasks, size, number)
        share = IMAGES // world
        mine = samples[rank * share : (rank + 1) * share] if only is None else [samples[i] for i in only]
        # Routing is noisy or closes experts at random, other draws on each rank.
        with patch("torch.randn_like", torch.zeros_like), patch("torch.rand_like", torch.ones_like):
            log = wrapped.train_step(collate(mine), wrapper)
        logs.append({name: float(value) for name, value in log.items()})
    change = {name: item.detach() - before[name] for name, item in module.named_parameters()}
    return {"gradients": gradients, "logs": logs, "change": change}


def main() -> None:
    rank, world = int(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{sys.argv[3]}", rank=rank, world_size=world)
    results = {}
    for case in sys.argv[5:] or CASES:
        results[case] = train(case, rank, world)
    torch.save(results, sys.argv[4])
    dist.destroy_process_group()


if __name__ == "__main__":
    main()

"""Search and retraining steps of branching networks with every decoder, balancer and kind of backbone."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from mtvision.architecture.tree import Tree
from mtvision.core.random import is_held_out
from mtvision.core.registry import BACKBONES as BACKBONE_REGISTRY
from mtvision.core.registry import BALANCERS, DECODERS
from mtvision.core.sample import Batch, Meta, Sample, collate
from mtvision.engine.module import TrainingModule
from mtvision.models.branching.paths import PathBackbone, cut_points
from mtvision.models.factory import build_network
from mtvision.protocols.tasks import depth, normals, semseg
from mtvision.steps import PlainStep, SearchStep, StepProblem

pytestmark = pytest.mark.slow

TASKS = (semseg(("sky", "road", "car")), depth(), normals())
NAMES = [task.name for task in TASKS]
SIDE = 64
RESNET = {
    "type": "TimmBackbone", "name": "resnet18", "channels": (6, 9, 12, 18), "stem_type": "deep",
    "stem_width": 3,
}  # fmt: skip
BACKBONES = {
    "resnet": RESNET,
    "swin": {
        "type": "SwinBackbone", "name": "swin_tiny_patch4_window7_224", "embed_dim": 8,
        "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2), "drop_path_rate": 0.0,
    },
    "vit": {
        "type": "TimmBackbone", "name": "vit_tiny_patch16_224", "embed_dim": 16, "depth": 4, "num_heads": 2,
        "img_size": SIDE,
    },
    "vmamba": {"type": "VMambaBackbone", "depths": (1, 1, 1, 1), "width": 8, "drop_path_rate": 0.0},
}  # fmt: skip
CONV = {"type": "ConvHead"}
DECODER_AND_HEAD = {
    "ParallelDecoder": ({"width": 8}, CONV),
    "ConcatDecoder": ({}, CONV),
    "MedusaDecoder": ({"width": 16}, CONV),
    "PADNetDecoder": ({"width": 8}, {"type": "ResidualHead"}),
    "MTINetDecoder": ({}, {"type": "HighResolutionHead"}),
    "InvPTDecoder": ({"width": 32, "hidden": 8}, CONV),
    "MLoREDecoder": ({"width": 16, "ranks": (2, 4), "task_rank": 2, "top_k": 2}, CONV),
    "TaskExpertDecoder": ({"width": 16}, CONV),
    "MTMambaDecoder": ({"widths": (16, 8, 8), "num_blocks": 1, "states": 4}, CONV),
    "MTMambaPlusDecoder": ({"widths": (16, 8, 8), "num_blocks": 1, "states": 4}, CONV),
}
REFUSED = {"TaskPrompterDecoder"}
BALANCER_CONFIGS = {
    "FixedWeights": {"type": "FixedWeights", "weights": {"semseg": 1.0, "depth": 2.0, "normals": 3.0}},
    "LogSum": {"type": "LogSum"},
    "Uncertainty": {"type": "Uncertainty"},
    "UPGrad": {"type": "UPGrad"},
    "MGDA": {"type": "TorchJD", "aggregator": "MGDA"},
    "AlignedMTL": {"type": "TorchJD", "aggregator": "AlignedMTL"},
    "PCGrad": {"type": "TorchJD", "aggregator": "PCGrad"},
}
SEARCH = {"type": "BranchingSearch", "copies": [1, 2, 2, 3], "warmup": 1, "iterations": 4,
          "image_size": (SIDE, SIDE), "cost_weight": 1.0}  # fmt: skip


def branched(backbone):
    net = BACKBONE_REGISTRY.build(backbone)
    ends = cut_points(net, "stages")
    blocks = [end - start for start, end in pairwise((0, *ends))]
    paths = {"semseg": "aaab", "depth": "aabb", "normals": "aabc"}
    return {"type": "Branched", "tree": Tree.from_paths(paths, blocks).to_plain()}


def make_module(adapter, step, *, backbone=RESNET, decoder="ParallelDecoder", balancer="FixedWeights"):
    torch.manual_seed(0)
    options, head = DECODER_AND_HEAD[decoder]
    model = {
        "backbone": backbone,
        "adapters": [adapter],
        "decoder": {"type": decoder, **options},
        "head": head,
    }
    network = build_network(model, TASKS)
    rule = BALANCERS.build(BALANCER_CONFIGS[balancer], tasks=NAMES, default_weights={})
    return TrainingModule(network, TASKS, rule, step).train()


def make_batch():
    generator = torch.Generator().manual_seed(1)
    names = [f"image-{index}" for index in range(40)]
    held = [name for name in names if is_held_out(name, 0.5)][:2]
    rest = [name for name in names if not is_held_out(name, 0.5)][:2]
    samples = []
    for name in [*held, *rest]:
        labels = {
            "semseg": torch.randint(3, (SIDE, SIDE), generator=generator),
            "depth": torch.rand(1, SIDE, SIDE, generator=generator),
            "normals": torch.nn.functional.normalize(torch.randn(3, SIDE, SIDE, generator=generator), dim=0),
        }
        image = torch.randn(3, SIDE, SIDE, generator=generator)
        samples.append(Sample(image, labels, Meta(name, (SIDE, SIDE), (SIDE, SIDE))))
    return collate(samples)


def step_once(module: TrainingModule, batch: Batch):
    module.zero_grad(set_to_none=True)
    parameters = list(module.network.named_parameters())
    return module.step(StepProblem(module, module.balancer, parameters, tasks=TASKS), batch)


def node_gradients(net: PathBackbone):
    """{(level, index): size of the gradient of all its parameters}, which must be finite."""
    sizes = {}
    for level, nodes in enumerate(net.nodes):
        for index, node in enumerate(nodes):
            found = [item.grad for item in node.parameters() if item.grad is not None]
            assert all(bool(item.isfinite().all()) for item in found), (level, index)
            sizes[level, index] = float(sum(item.abs().sum() for item in found))
    return sizes


def check_retraining(backbone=RESNET, **parts):
    module = make_module(branched(backbone), PlainStep(), backbone=backbone, **parts)
    logs = step_once(module, make_batch())
    sizes = node_gradients(module.network.backbone)
    assert len(sizes) == 1 + 1 + 2 + 3
    assert min(sizes.values()) > 0, sizes
    unreached = [name for name, item in module.network.backbone.named_parameters() if item.grad is None]
    assert unreached == []
    assert all(bool(torch.isfinite(item)) for item in logs.values())


def check_search(mixing, **parts):
    # Logits of a level get a gradient where the second pass's held-out draw runs two of its nodes.
    module = make_module({**SEARCH, "mixing": mixing, "seed": 1}, SearchStep(held_out=0.5), **parts)
    net, batch = module.network.backbone, make_batch()
    step_once(module, batch)  # warm-up
    sizes = node_gradients(net)
    # LTB's first pass reads all nodes; BMTAS gives every task copies of its own
    assert min(sizes.values()) > 0, sizes
    assert all(item.grad is None or not item.grad.any() for item in net.architecture_logits)
    logs = step_once(module, batch)
    assert all(bool(torch.isfinite(item)) for item in logs.values())
    assert {"held_out/semseg", "loss/semseg"} <= set(logs)
    sizes = node_gradients(net)
    used = sizes
    if mixing == "straight_through":
        paths = net.paths([draw.argmax(dim=1).tolist() for draw in net.sample(1)])
        used = {(level, path[level]) for path in paths.values() for level in range(4)}
    assert {place for place, size in sizes.items() if size > 0} == set(used)
    logits = [item.grad for item in net.architecture_logits]
    assert all(item is not None and bool(item.isfinite().all()) for item in logits)
    assert any(bool(item.any()) for item in logits)


def test_every_decoder_of_the_suite_is_listed_here():
    ours = {name for name, item in DECODERS.items() if item.__module__.startswith("mtvision.")}
    assert ours == set(DECODER_AND_HEAD) | REFUSED


@pytest.mark.conformance("{decoder}", "branches")
@pytest.mark.parametrize("decoder", DECODER_AND_HEAD)
def test_a_tree_trains_with_every_decoder(decoder):
    check_retraining(decoder=decoder)


@pytest.mark.conformance("{decoder}", "branches")
@pytest.mark.parametrize("mixing", ["straight_through", "streams"])
@pytest.mark.parametrize("decoder", DECODER_AND_HEAD)
def test_a_search_steps_with_every_decoder(decoder, mixing):
    check_search(mixing, decoder=decoder)


@pytest.mark.conformance("{balancer}", "branches")
@pytest.mark.parametrize("balancer", BALANCER_CONFIGS)
@pytest.mark.parametrize("decoder", ["ParallelDecoder", "PADNetDecoder"])
def test_a_tree_trains_with_every_balancer(balancer, decoder):
    check_retraining(balancer=balancer, decoder=decoder)


@pytest.mark.parametrize("mixing", ["straight_through", "streams"])
@pytest.mark.parametrize("balancer", BALANCER_CONFIGS)
def test_a_search_steps_with_every_balancer(balancer, mixing):
    check_search(mixing, balancer=balancer)


@pytest.mark.parametrize("kind", BACKBONES)
def test_trees_and_searches_on_every_kind_of_backbone(kind):
    check_retraining(backbone=BACKBONES[kind])
    for mixing in ("straight_through", "streams"):
        check_search(mixing, backbone=BACKBONES[kind])


@pytest.mark.parametrize("adapter", [branched(BACKBONES["vit"]), SEARCH], ids=lambda item: item["type"])
@pytest.mark.parametrize("order", [1, -1])
def test_task_prompter_is_refused_by_name(adapter, order):
    """Its prompts live in one backbone that all tasks share."""
    adapters = [{"type": "TaskPrompts"}, adapter][::order]
    model = {"backbone": BACKBONES["vit"], "adapters": adapters, "head": CONV,
             "decoder": {"type": "TaskPrompterDecoder", "width": 8, "out_width": 8}}  # fmt: skip
    for used in (adapters, [adapter]):
        with pytest.raises((TypeError, ValueError), match=r"TaskPrompt\w+.*(branch|Branch|Supernet)"):
            build_network({**model, "adapters": used}, TASKS)

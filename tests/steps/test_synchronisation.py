"""How often a training step waits for its device: not once per task.

Reading a value back (`item`, `bool`, `float`, `tolist`, `cpu`) makes the processor wait for a GPU. So do
operators whose result has a size that depends on values. On the CPU both can be counted.
"""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mtvision.core.registry import BALANCERS, STEPS
from mtvision.core.sample import collate
from mtvision.data.synthetic import SyntheticScenes
from mtvision.engine.module import TrainingModule
from mtvision.engine.optimization.wrapper import PrecisionOptimWrapper
from mtvision.models.decoders import ParallelDecoder
from mtvision.models.heads import ConvHead
from mtvision.models.network import Network
from mtvision.testing.inputs import ToyBackbone

TASKS = ("semseg", "depth", "normals", "edge", "saliency")
WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "equal"}
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}


class Waits(TorchDispatchMode):
    """Counts operators that wait for a device."""

    def __init__(self):
        super().__init__()
        self.seen = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.removeprefix("aten::")
        masks = name in INDEXING and any(item is not None and item.dtype == torch.bool for item in args[1])
        if name in WAITING or masks:
            self.seen[name] += 1
        return func(*args, **(kwargs or {}))


def waits_of_a_step(balancer, count, monkeypatch, **options):
    """Of the third step: the first finds out which parameters are shared."""
    names = TASKS[:count]
    dataset = SyntheticScenes(split="train", length=2, size=(32, 32), tasks=names)
    batch, tasks = collate([dataset[0], dataset[1]]), tuple(dataset.tasks.values())
    torch.manual_seed(0)
    backbone = ToyBackbone()
    for item in backbone.parameters():
        item.requires_grad_()
    decoder = ParallelDecoder(channels=backbone.channels, strides=backbone.strides, tasks=tasks, width=4)
    network = Network(backbone, decoder, {task.name: ConvHead(4, task) for task in tasks}, tasks)
    ones = dict.fromkeys(names, 1.0)
    rule = BALANCERS.build({"type": balancer, **options}, tasks=names, default_weights=ones)
    module = TrainingModule(network, tasks, rule, STEPS.build({"type": "PlainStep"})).train()
    wrapper = PrecisionOptimWrapper(torch.optim.SGD(module.parameters(), lr=1e-4), max_norm=1.0)
    for _ in range(2):
        module.train_step(batch, wrapper)
    with Waits() as waits, monkeypatch.context() as patch:
        for name in ("tolist", "numpy", "cpu"):
            patch.setattr(torch.Tensor, name, _counting(name, waits.seen))
        module.train_step(batch, wrapper)
    return sum(waits.seen.values())


def _counting(name, seen):
    original = getattr(torch.Tensor, name)

    def read(self, *arguments, **options):
        seen[name] += 1
        return original(self, *arguments, **options)

    return read


@pytest.mark.parametrize("balancer", ["FixedWeights", "Uncertainty", "LogSum"])
def test_a_step_waits_once(balancer, monkeypatch):
    """For the check of losses and gradients, all in one."""
    assert waits_of_a_step(balancer, 4, monkeypatch) == 1


# Measured: waits of a step. Rules over gradients read which tasks are there, roles, and a few numbers.
@pytest.mark.parametrize(
    ("balancer", "most"), [("FAMO", 6), ("DBMTL", 8), ("UPGrad", 11), ("IMTL", 10), ("PrincipalWeights", 8)]
)
def test_rules_do_not_wait_for_every_task(balancer, most, monkeypatch):
    two, five = (waits_of_a_step(balancer, count, monkeypatch) for count in (2, 5))
    assert two == five
    assert two <= most

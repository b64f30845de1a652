"""`check_branching`: what a network promises whose backbone branches."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from mtvision.architecture.tree import Tree
from mtvision.core.task import Task
from mtvision.models.branching import BranchedEncoder
from mtvision.models.branching.cuts import check_cuts
from mtvision.models.branching.paths import cut_points
from mtvision.models.factory import build_network
from mtvision.models.network import Network
from mtvision.testing.battery import Battery, subject_of
from mtvision.testing.numbers import expect, same
from mtvision.testing.report import Report


@dataclass(frozen=True, kw_only=True)
class BranchingCase:
    """A network with and without branches.

    Args:
        config: of the plain network, as `build_network` takes it.
        tasks: two or more.
        size: (H, W) of the images.
    """

    config: Mapping[str, Any]
    tasks: Sequence[Task]
    size: tuple[int, int] = (64, 64)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the tasks."""
        return tuple(task.name for task in self.tasks)

    def build(self, split_at: int | None) -> Network:
        """A fresh network with the same weights.

        Args:
            split_at: level from which on every task has copies of its own; None = no branches.
        """
        config = dict(self.config)
        if split_at is not None:
            ends = cut_points(self.plain.backbone, "stages")
            blocks = [end - start for start, end in pairwise((0, *ends))]
            paths = {
                name: [index if level >= split_at else 0 for level in range(len(blocks))]
                for index, name in enumerate(self.names)
            }
            tree = Tree.from_paths(paths, blocks).to_plain()
            config["adapters"] = [*(config.get("adapters") or ()), {"type": "Branched", "tree": tree}]
        torch.manual_seed(0)
        return build_network(copy.deepcopy(config), tuple(self.tasks)).eval()

    @cached_property
    def plain(self) -> Network:
        """The network without branches."""
        return self.build(None)

    @cached_property
    def levels(self) -> int:
        """Levels of the tree."""
        return len(cut_points(self.plain.backbone, "stages"))

    @cached_property
    def split(self) -> Network:
        """Every task has its own copy of the last level."""
        return self.build(self.levels - 1)

    @cached_property
    def images(self) -> Tensor:
        """Two images."""
        return torch.randn(2, 3, *self.size, generator=torch.Generator().manual_seed(1))


BRANCHING: Battery[BranchingCase] = Battery(
    "branching", "mtvision.testing.kinds.branching.check_branching(config, tasks, only=['{name}'])"
)


def check_branching(
    config: Mapping[str, Any],
    tasks: Sequence[Task],
    *,
    size: tuple[int, int] = (64, 64),
    only: Collection[str] | None = None,
    skip: Mapping[str, str] | None = None,
) -> Report:
    """Run the properties of branching networks on one of them.

    Args:
        config: of the plain network, as `build_network` takes it.
        tasks: two or more.
        size: (H, W) of the images.
        only: names of the properties to run, all by default.
        skip: {property: reason} of those that do not apply.
    """
    kind = config["decoder"]["type"]
    case = BranchingCase(config=config, tasks=tasks, size=size)
    return BRANCHING.run(subject_of(kind), case, only=only, skip=skip)


@BRANCHING.property("network.backbone.block_names(), network.backbone.exits")
def cuts_lose_nothing(case: BranchingCase) -> None:
    """Blocks, run one after another, are the backbone; no cut lies inside a residual connection."""
    check_cuts(case.plain.backbone)


@BRANCHING.property("network with dict(type='Branched', tree=...) in which all tasks share all levels")
@torch.no_grad()
def all_shared_is_plain(case: BranchingCase) -> None:
    """A tree in which all tasks share everything gives what the plain network gives, to the last bit."""
    expected = case.plain(case.images)
    for name, logits in case.build(case.levels)(case.images).items():
        same(logits, expected[name], f"logits of {name}")


@BRANCHING.property("network.backbone.nodes[-1]")
@torch.no_grad()
def copies_start_alike(case: BranchingCase) -> None:
    """Copies of a level start with the backbone's weights, so that a fresh tree is the plain network."""
    expected = case.plain(case.images)
    for name, logits in case.split(case.images).items():
        same(logits, expected[name], f"logits of {name}")


@BRANCHING.property("network(image, tasks=[name])")
@torch.no_grad()
def runs_what_is_asked(case: BranchingCase) -> None:
    """Only the branches that the decoder will read are run."""
    backbone = case.split.backbone
    expect(isinstance(backbone, BranchedEncoder), f"the backbone is a {type(backbone).__name__}.")
    assert isinstance(backbone, BranchedEncoder)
    nodes = [backbone.node(case.levels - 1, index) for index in range(len(case.names))]
    ran: list[int] = []
    handles = [
        node.register_forward_hook(lambda *_, index=index: ran.append(index))
        for index, node in enumerate(nodes)
    ]
    for name in case.names:
        ran.clear()
        read = case.split.decoder.reads([name])
        case.split(case.images, tasks=[name])
        wanted = len(case.names) if read is None else len(read)
        expect(len(ran) == wanted, f"'{name}' runs {len(ran)} copies of the last level, {wanted} are read.")
    for handle in handles:
        handle.remove()


@BRANCHING.property("[(name, item.grad) for name, item in network.backbone.named_parameters()]")
def gradients_reach_own_copies(case: BranchingCase) -> None:
    """Every copy learns."""
    network = copy.deepcopy(case.split).train()
    logits = network(case.images)
    torch.stack([item.square().mean() for item in logits.values()]).sum().backward()  # type: ignore[no-untyped-call]
    idle = [name for name, item in network.backbone.named_parameters() if item.grad is None]
    expect(not idle, f"no gradient for {', '.join(idle[:3])}.")


@BRANCHING.property("network.load_state_dict(network.state_dict())")
def state_round_trip(case: BranchingCase) -> None:
    """A state dict rebuilds the branches."""
    other = case.build(case.levels - 1)
    with torch.no_grad():
        for item in case.split.parameters():
            item.add_(0.01)
        other.load_state_dict(case.split.state_dict())
        expected = case.split(case.images)
        for name, logits in other(case.images).items():
            same(logits, expected[name], f"logits of {name}")

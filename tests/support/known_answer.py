"""A problem whose best tree is known: two tasks want one map in different units, a third an unrelated one.

    python tests/support/known_answer.py --method ltb --seeds 10

The last level has one channel and cannot serve two maps, so the tree should end {metres, feet}, {unrelated}.
"""

from __future__ import annotations

import argparse
import time
from types import SimpleNamespace

import torch
from torch import nn
from torch.nn import functional as F

from mtvision.architecture.tree import Tree
from mtvision.models.backbones.backbone import Backbone
from mtvision.models.branching.supernet import BranchingSearch
from mtvision.search.representation import rsa_affinities
from mtvision.search.rsa import beam_search

NAMES = ("metres", "feet", "unrelated")
ANSWER = {frozenset(("metres", "feet")), frozenset(("unrelated",))}
CHANCE = 6 / 27  # three tasks choosing among three copies at random
WIDTH = 1


class Narrow(Backbone):
    """Three 3x3 convolutions of few channels; one pyramid level."""

    exits = (3,)

    def __init__(self, width=WIDTH):
        super().__init__()
        for index, (before, after) in enumerate(((3, 8), (8, 8), (8, width))):
            layers = [nn.Conv2d(before, after, 3, padding=1), nn.Identity() if after == width else nn.Tanh()]
            self.add_module(f"block{index}", nn.Sequential(*layers))
        self.measure()

    def stem(self, image):
        return image

    def block_names(self):
        return ["block0", "block1", "block2"]

    def to_map(self, state, level, size):
        return state


def batch(generator, count=8, side=16):
    """Smooth random images and their three maps."""
    noise = torch.randn(count, 3, side + 2, side + 2, generator=generator)
    image = F.avg_pool2d(noise, 3, stride=1) * 3
    red, green, blue = image.unbind(1)
    first = red * green  # one map
    second = blue.roll(1, dims=-1) * blue.roll(-1, dims=-1) - green.abs()
    first, second = ((item - item.mean()) / item.std() for item in (first, second))
    return image, {"metres": first, "feet": 3.28 * first + 1, "unrelated": second}


class Units(nn.Module):
    """A head that only converts units."""

    def __init__(self, factor, offset):
        super().__init__()
        self.factor, self.offset = factor, offset

    def forward(self, feature):
        return feature[:, 0] * self.factor + self.offset


HEADS = {"metres": Units(1.0, 0.0), "feet": Units(3.28, 1.0), "unrelated": Units(1.0, 0.0)}


def losses(pyramids, labels):
    """Mean squared error in metres."""
    return {
        name: F.mse_loss(HEADS[name](pyramids.for_task(name).maps[-1]), label) / HEADS[name].factor ** 2
        for name, label in labels.items()
    }


class Tasks:
    def __init__(self):
        self.tasks = [type("Named", (), {"name": name}) for name in NAMES]


def search(mixing, seed, *, steps, held_out=True, logit_rate=0.05, rate=1e-2, cost_weight=0.0, **options):
    """The supernet after a search; half of the batches train the logits where `held_out`."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(1000 + seed)
    options = {"warmup": steps // 20, "copies": [1, 1, 3], **options}
    net = BranchingSearch(
        mixing=mixing, cuts="blocks", iterations=2 * steps if held_out else steps, image_size=(16, 16),
        seed=seed, cost_weight=cost_weight, **options,
    ).apply(Narrow(), Tasks().tasks).train()  # fmt: skip
    weights = torch.optim.Adam(net.nodes.parameters(), lr=rate)
    logits = torch.optim.Adam(net.architecture_logits.parameters(), lr=logit_rate)
    for _ in range(steps):
        for kind in ("weights", "logits") if held_out else ("both",):
            image, labels = batch(generator)
            total = sum(losses(net(image), labels).values()) + net.auxiliary_loss()
            weights.zero_grad()
            logits.zero_grad()
            total.backward()
            if kind != "logits":
                weights.step()
            if kind != "weights":
                logits.step()
    return net


def representation_tree(seed, *, steps):
    """The tree that single-task networks' similarity gives; parameters for two copies of the last level."""
    generator = torch.Generator().manual_seed(1000 + seed)
    nets = {}
    for name in NAMES:
        torch.manual_seed(seed)
        nets[name] = Narrow()
        optimizer = torch.optim.Adam(nets[name].parameters(), lr=1e-2)
        for _ in range(steps):
            image, labels = batch(generator)
            optimizer.zero_grad()
            output = HEADS[name](nets[name](image).maps[-1])
            (F.mse_loss(output, labels[name]) / HEADS[name].factor ** 2).backward()
            optimizer.step()
    problem = SimpleNamespace(held_out=lambda: [SimpleNamespace(image=batch(generator, 32)[0])])
    networks = {name: SimpleNamespace(backbone=net, eval=lambda: None) for name, net in nets.items()}
    affinities = rsa_affinities(networks, problem, (1, 2, 3), 32)
    sizes = [
        sum(item.numel() for item in nets["feet"].get_submodule(f"block{i}").parameters()) for i in range(3)
    ]
    budget = sizes[0] + sizes[1] + 2 * sizes[2]
    return Tree(beam_search(NAMES, affinities, sizes, budget, 100)[0][1], (1, 1, 1))


def found_tree(method, seed, **options):
    if method == "rsa":
        return representation_tree(seed, **METHODS[method], **options)
    return search(seed=seed, **METHODS[method], **options).tree()


def right(tree: Tree) -> bool:
    return {frozenset(group) for group in tree.levels[-1]} == ANSWER


METHODS = {
    "ltb": {"mixing": "straight_through", "steps": 150, "temperatures": (1.0, 1.0), "schedule": "linear"},
    "bmtas": {"mixing": "streams", "steps": 120, "cost_weight": 30.0},
    "rsa": {"steps": 150},
}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--method", choices=METHODS, default="ltb")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--joint", action="store_true")
    arguments = parser.parse_args()
    hits = 0
    for seed in range(arguments.seeds):
        start = time.process_time()
        tree = found_tree(arguments.method, seed, **({"held_out": False} if arguments.joint else {}))
        hits += right(tree)
        print(f"{seed} {right(tree)} {tree.levels[-1]} {time.process_time() - start:.1f} s", flush=True)
    print(f"{hits} of {arguments.seeds} right; chance {CHANCE:.2f}")

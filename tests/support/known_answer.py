"""A problem whose best tree is known: two tasks want one map in different units, a third an unrelated one.

    python tests/support/known_answer.py --mixing straight_through --seeds 10

The last level has one channel and cannot serve two maps, so the tree should end {metres, feet}, {unrelated}.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import nn
from torch.nn import functional as F

from mtvision.core.tree import Tree
from mtvision.models.backbones.backbone import Backbone
from mtvision.models.branching.supernet import BranchingSearch

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
            self.add_module(f"block{index}", nn.Sequential(nn.Conv2d(before, after, 3, padding=1), nn.Tanh()))
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


def losses(pyramids, heads, labels):
    scale = {"metres": 1.0, "feet": 3.28, "unrelated": 1.0}
    return {
        name: F.mse_loss(
            heads[name](pyramids.for_task(name).maps[-1])[:, 0] / scale[name], label / scale[name]
        )
        for name, label in labels.items()
    }


class Tasks:
    def __init__(self):
        self.tasks = [type("Named", (), {"name": name}) for name in NAMES]


def search(mixing, seed, *, steps=300, held_out=True, logit_rate=0.05, rate=1e-2, cost_weight=0.0, **options):
    """The tree found; half of the batches train the logits where `held_out`."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(1000 + seed)
    options = {"warmup": steps // 20, "copies": [1, 1, 3], **options}
    net = BranchingSearch(
        mixing=mixing, cuts="blocks", iterations=2 * steps if held_out else steps, image_size=(16, 16),
        seed=seed, cost_weight=cost_weight, **options,
    ).apply(Narrow(), Tasks().tasks).train()  # fmt: skip
    heads = nn.ModuleDict({name: nn.Conv2d(WIDTH, 1, 1) for name in NAMES})
    weights = torch.optim.Adam([*net.nodes.parameters(), *heads.parameters()], lr=rate)
    logits = torch.optim.Adam(net.architecture_logits.parameters(), lr=logit_rate)
    for _ in range(steps):
        for kind in ("weights", "logits") if held_out else ("both",):
            image, labels = batch(generator)
            total = sum(losses(net(image), heads, labels).values()) + net.auxiliary_loss()
            weights.zero_grad()
            logits.zero_grad()
            total.backward()
            if kind != "logits":
                weights.step()
            if kind != "weights":
                logits.step()
    return net


def right(tree: Tree) -> bool:
    return {frozenset(group) for group in tree.levels[-1]} == ANSWER


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--mixing", default="straight_through")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--joint", action="store_true")
    parser.add_argument("--logit-rate", type=float, default=0.05)
    parser.add_argument("--rate", type=float, default=1e-2)
    parser.add_argument("--cost", type=float, default=0.0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--temperatures", type=float, nargs=2)
    parser.add_argument("--schedule")
    arguments = parser.parse_args()
    hits = 0
    for seed in range(arguments.first, arguments.first + arguments.seeds):
        start = time.perf_counter()
        found = search(
            arguments.mixing, seed, steps=arguments.steps, held_out=not arguments.joint,
            logit_rate=arguments.logit_rate, rate=arguments.rate, cost_weight=arguments.cost,
            temperatures=arguments.temperatures, schedule=arguments.schedule,
        )  # fmt: skip
        hits += right(found.tree())
        print(
            seed,
            right(found.tree()),
            found.tree().levels[-1],
            f"{time.perf_counter() - start:.1f} s",
            [[round(x, 2) for x in row] for row in found.architecture_logits[-1].softmax(1).tolist()],
            flush=True,
        )
    print(f"{hits} of {arguments.seeds} right; chance {CHANCE:.2f}")

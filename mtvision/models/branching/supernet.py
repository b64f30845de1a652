"""All trees over copies of a backbone's levels at once, with a learnt choice among them.

Two ways to choose, and to mix while the choice is learnt:

`straight_through` (Learning to Branch, Guo et al., ICML 2020): every node, and every task after the last
level, chooses one parent in the level before. A training pass samples all choices (Gumbel) and runs only the
nodes on the tasks' paths, each once. The result is exactly that of the sampled tree; the logits' gradient is
that of the softmax over the parents that were computed anyway. (The paper's straight-through estimator would
need all of them.)

`streams` (BMTAS, Brüggemann et al., BMVC 2020): every task chooses a copy at every level for its own stream.
A training pass runs all copies for every task and mixes their states with relaxed (Gumbel softmax) weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mtvision.architecture.tree import Tree
from mtvision.core.context import current_context
from mtvision.core.pyramid import Pyramid, TaskPyramids, size_of
from mtvision.core.registry import ADAPTERS
from mtvision.core.task import Task
from mtvision.core.values import Count, Factor, Positive
from mtvision.models.adapters.adapter import Adapter
from mtvision.models.backbones.backbone import Backbone
from mtvision.models.branching.encoder import BranchedEncoder
from mtvision.models.branching.expected_cost import expected_nodes, expected_streams
from mtvision.models.branching.node import Maps, node_macs
from mtvision.models.branching.paths import PathBackbone, Paths, cut_points, refuse_shared_decoder
from mtvision.models.branching.select import mix, select
from mtvision.models.network import Network

Mixing = Literal["straight_through", "streams"]
Choices = list[list[int]]
"""Per level, for each child: the index of what it chose."""


def temperature(kind: str, step: int, total: int, first: float, last: float) -> float:
    """Temperature of pass `step`.

    `linear`: from `first` to `last` over `total` passes (BMTAS). `root`: first / √(1 + t/t₀), at least
    `last`, with t₀ such that `last` is reached at `total` (LTB decays with the root of the iterations).
    """
    share = min(max(step / max(total, 1), 0.0), 1.0)
    if kind == "linear":
        return first + (last - first) * share
    return max(last, first / math.sqrt(1 + share * ((first / last) ** 2 - 1)))


class Supernet(PathBackbone):
    """A backbone of which one tree runs at a time; `BranchingSearch` builds it and explains the options.

    In evaluation mode, and where `Context.branches` holds `{"choices": ...}`, one tree is run: the most
    likely or the given one. Training passes are counted in the buffer `passes`. The draws of a pass depend on
    the seed and that number alone. A resumed search therefore draws the same as an uninterrupted one, on all
    processes. A step with several passes per batch numbers them itself, by (batch, pass within the batch) in
    `Context.extra["search_pass"]`.

    Attributes:
        architecture_logits: one (children, copies) matrix per level, zero at first.
        macs: multiply-accumulates of one node of each level.
    """

    passes: Tensor

    def __init__(
        self,
        backbone: Backbone,
        ends: Sequence[int],
        copies: Sequence[int],
        tasks: Sequence[str],
        *,
        mixing: Mixing,
        total: int,
        warmup: int,
        temperatures: tuple[float, float],
        schedule: str,
        cost_weight: float,
        image_size: tuple[int, int],
        seed: int,
    ) -> None:
        super().__init__(backbone, ends, copies, tasks)
        self.mixing, self.total, self.warmup = mixing, total, warmup
        self.temperatures, self.schedule = temperatures, schedule
        self.cost_weight, self.seed = cost_weight, seed
        count = len(self.task_names)
        children = [count] * len(copies) if mixing == "streams" else [*copies[1:], count]
        self.architecture_logits = nn.ParameterList(
            nn.Parameter(torch.zeros(rows, columns)) for rows, columns in zip(children, copies, strict=True)
        )
        self.register_buffer("passes", torch.zeros((), dtype=torch.int64))
        self.macs = node_macs(self.node_chain(), image_size)

    def forward(self, image: Tensor) -> Pyramid:
        """Pyramids of the tasks that will be read."""
        context = current_context()
        given = (context.branches or {}).get("choices")
        if given is not None:
            return self.run_paths(image, self._asked(self.paths(given)))
        if not self.training:
            return self.run_paths(image, self._asked(self.paths(self.best_choices())))
        step, part = self._count_pass()
        if step < self.warmup:
            return self._warm_up(image)
        draws = self.sample(step, context.temperature, part)
        return self._streams(image, draws) if self.mixing == "streams" else self._sampled(image, draws)

    def auxiliary_loss(self) -> Tensor:
        """`cost_weight` times the expected GMACs of the backbone."""
        loss = self.cost_weight * self.expected_macs() / 1e9
        return loss * 0.0 if self.warming_up() else loss

    def expected_macs(self) -> Tensor:
        """Multiply-accumulates expected under the present distribution of trees, exactly."""
        probabilities = [logits.float().softmax(dim=1) for logits in self.architecture_logits]
        count = expected_streams if self.mixing == "streams" else expected_nodes
        expected: Tensor = count(probabilities)
        return (expected * expected.new_tensor(self.macs)).sum()

    def warming_up(self) -> bool:
        """Whether the logits are not trained yet."""
        return int(self.passes) <= self.warmup and self.warmup > 0

    def current_temperature(self, step: int) -> float:
        """Temperature of a training pass."""
        return temperature(
            self.schedule, step - self.warmup, max(self.total - self.warmup, 1), *self.temperatures
        )

    def sample(self, step: int, heat: float | None = None, part: int = 0) -> list[Tensor]:
        """Perturbed logits over temperature, per level (children, copies); argmax is the sampled choice."""
        heat = heat if heat is not None else self.current_temperature(step)
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + step) * 2 + part)
        perturbed = []
        for logits in self.architecture_logits:
            uniform = torch.rand(logits.shape, generator=generator).clamp(1e-9, 1 - 1e-7)
            gumbel = -torch.log(-torch.log(uniform))
            perturbed.append((logits.float() + gumbel.to(logits.device)) / heat)
        return perturbed

    def best_choices(self) -> Choices:
        """The most likely choice of every child."""
        return [logits.argmax(dim=1).tolist() for logits in self.architecture_logits]

    def paths(self, choices: Choices) -> dict[str, tuple[int, ...]]:
        """{task: node at each level} of a choice."""
        found = {}
        for index, name in enumerate(self.task_names):
            if self.mixing == "streams":
                found[name] = tuple(level[index] for level in choices)
                continue
            path: list[int] = []
            child = index
            for level in reversed(choices):
                child = level[child]
                path.insert(0, child)
            found[name] = tuple(path)
        return found

    def tree(self, choices: Choices | None = None) -> Tree:
        """The tree of a choice, by default of the most likely one. Tasks that parted never merge again."""
        return Tree.from_paths(self.paths(choices or self.best_choices()), self.block_counts)

    def export(self, backbone: Backbone, choices: Choices | None = None) -> BranchedEncoder:
        """The branched encoder of a choice with this supernet's weights.

        Args:
            backbone: the plain one that the supernet was made from; gives structure only.
            choices: by default the most likely ones.
        """
        tree, paths = self.tree(choices), self.paths(choices or self.best_choices())
        encoder = BranchedEncoder(backbone, tree)
        for level, partition in enumerate(tree.levels):
            for index, group in enumerate(partition):
                source = self.node(level, paths[group[0]][level])
                encoder.node(level, index).load_state_dict(source.state_dict())
        return encoder

    def _asked(self, paths: Paths) -> Paths:
        return {name: paths[name] for name in self.asked_tasks()}

    def _count_pass(self) -> tuple[int, int]:
        step, part = current_context().extra.get("search_pass", (int(self.passes), 0))
        self.passes.fill_(step + 1)
        return step, part

    def _warm_up(self, image: Tensor) -> Pyramid:
        """LTB: every child reads the mean of all nodes. BMTAS: every task has a copy of its own."""
        if self.mixing == "streams":
            copies = [len(logits[0]) for logits in self.architecture_logits]
            own = {
                name: tuple(index % count for count in copies) for index, name in enumerate(self.task_names)
            }
            return self.run_paths(image, self._asked(own))
        size = size_of(image)
        state, maps = image, Maps()
        for nodes in self._grid():
            results = [node(state, size) for node in nodes]
            weights = image.new_full((len(results),), 1 / len(results))
            state = mix([item for item, _ in results], weights)
            for level in results[0][1]:
                maps[level] = mix([own[level] for _, own in results], weights)
        return TaskPyramids({name: self.pyramid(maps) for name in self.asked_tasks()})

    def _sampled(self, image: Tensor, draws: list[Tensor]) -> Pyramid:
        """The sampled tree, with gradients for the logits of those parents that were run."""
        choices = [draw.argmax(dim=1).tolist() for draw in draws]
        paths = self._asked(self.paths(choices))
        size = size_of(image)
        used = [sorted({path[level] for path in paths.values()}) for level in range(len(self.ends))]
        results: dict[int, tuple[Tensor, Maps]] = {}
        for level, indices in enumerate(used):
            before, results = results, {}
            for index in indices:
                state, maps = image, Maps()
                if level:
                    state, maps = _choose(draws[level - 1][index], choices[level - 1][index], before)
                state, own = self.node(level, index)(state, size)
                results[index] = (state, {**maps, **own})
        pyramids = {}
        for position, name in enumerate(self.task_names):
            if name in paths:
                _, maps = _choose(draws[-1][position], choices[-1][position], results, maps_only=True)
                pyramids[name] = self.pyramid(maps)
        return TaskPyramids(pyramids)

    def _streams(self, image: Tensor, draws: list[Tensor]) -> Pyramid:
        size = size_of(image)
        pyramids = {}
        for position, name in enumerate(self.task_names):
            if name not in self.asked_tasks():
                continue
            state, maps = image, Maps()
            for nodes, draw in zip(self._grid(), draws, strict=True):
                weights = draw[position].softmax(dim=0)
                results = [node(state, size) for node in nodes]
                state = mix([item for item, _ in results], weights)
                for level in results[0][1]:
                    maps[level] = mix([own[level] for _, own in results], weights)
            pyramids[name] = self.pyramid(maps)
        return TaskPyramids(pyramids)


def _choose(
    draw: Tensor, chosen: int, candidates: dict[int, tuple[Tensor, Maps]], *, maps_only: bool = False
) -> tuple[Tensor, Maps]:
    """State and maps of the chosen node; weights over all candidates get a gradient."""
    indices = list(candidates)
    weights = draw[indices].softmax(dim=0)
    levels = list(candidates[chosen][1])
    bundles = [
        [*(() if maps_only else (candidates[index][0],)), *(candidates[index][1][level] for level in levels)]
        for index in indices
    ]
    picked = select(bundles, weights, indices.index(chosen))
    state = candidates[chosen][0] if maps_only else picked.pop(0)
    return state, dict(zip(levels, picked, strict=True))


@ADAPTERS.register_module()
class BranchingSearch(Adapter):
    """Puts a `Supernet` in the backbone's place; `LTBSearcher` and `BMTASSearcher` read it.

    Args:
        mixing: `straight_through` (LTB) or `streams` (BMTAS).
        cuts: where levels end, see `cut_points`.
        copies: nodes per level; None = one per task (`streams`), or 1, 2, 4, … up to the number of tasks.
        iterations: of the whole search, for the schedule of the temperature.
        warmup: passes before logits are trained; None = a twentieth.
        temperatures: first and last; None = 10 to 0.1 (LTB) or 5 to 0.1 (BMTAS).
        schedule: `root` or `linear`; None = `root` (LTB), `linear` (BMTAS).
        cost_weight: λ of λ · E[GMACs of the backbone at `image_size`].
        image_size: (H, W) that costs are counted for.
        seed: of the draws.

    Raises:
        ValueError: an option out of range.
    """

    def __init__(
        self,
        *,
        iterations: Positive,
        mixing: Mixing = "straight_through",
        cuts: str | Sequence[int] = "stages",
        copies: Sequence[int] | None = None,
        warmup: Count | None = None,
        temperatures: tuple[float, float] | None = None,
        schedule: Literal["root", "linear"] | None = None,
        cost_weight: Factor = 0.0,
        image_size: tuple[Positive, Positive] = (512, 512),
        seed: Count = 0,
    ) -> None:
        streams = mixing == "streams"
        if mixing not in ("straight_through", "streams"):
            raise ValueError(f"BranchingSearch: mixing={mixing!r}; choose 'straight_through' or 'streams'.")
        first, last = temperatures or ((5.0, 0.1) if streams else (10.0, 0.1))
        if iterations < 1 or not first >= last > 0:
            raise ValueError(
                f"BranchingSearch: iterations={iterations} must be positive and temperatures {first}, {last} "
                "falling and positive."
            )
        self.cuts, self.copies, self.mixing = cuts, copies, mixing
        self.options: dict[str, Any] = {
            "mixing": mixing,
            "total": iterations,
            "warmup": iterations // 20 if warmup is None else warmup,
            "temperatures": (float(first), float(last)),
            "schedule": schedule or ("linear" if streams else "root"),
            "cost_weight": cost_weight,
            "image_size": (int(image_size[0]), int(image_size[1])),
            "seed": seed,
        }

    def apply(self, backbone: Backbone, tasks: Sequence[Task]) -> Backbone:
        """The supernet."""
        ends = cut_points(backbone, self.cuts)
        names = [task.name for task in tasks]
        copies = list(self.copies or self._default_copies(len(ends), len(names)))
        if len(copies) != len(ends) or min(copies) < 1:
            raise ValueError(
                f"BranchingSearch: copies={copies}; give a positive number for each of {len(ends)} levels."
            )
        return Supernet(backbone, ends, copies, names, **self.options)

    def complete(self, network: Network) -> None:
        """Refuse a decoder that needs one pyramid for all tasks."""
        refuse_shared_decoder(network, type(self).__name__)

    def _default_copies(self, levels: int, tasks: int) -> Iterator[int]:
        return (tasks if self.mixing == "streams" else min(tasks, 2**level) for level in range(levels))

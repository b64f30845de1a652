"""Backward passes of several losses that advance together, a stage of the graph at a time.

The graph of a forward pass is cut into stages. Each loss runs backward through the first stage, then each
through the second, and so on. At the end of a stage the gradients of its parameters are known for all losses
at once. They can be used and dropped, so no process holds all gradients of all losses.

Between stages the gradients at the edges that cross the cut are kept, one set for each loss. Every node runs
once per loss, as in plain backward passes. No module need be a block, and nothing runs forward again.

What the forward pass kept for the part before the first group, such as heads and losses, is freed there. So
is what it kept for groups that no later pass goes through.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge

Crossing = dict[Node, dict[tuple[str, int], Tensor]]
"""{node: {(loss, number of its output): gradient}} of edges that cross a cut."""
Receive = Callable[[str, int, Tensor], None]
"""Takes (loss, index of parameter, part of its gradient); parts add up."""


class StagedBackward:
    """The graphs of several losses in one order, and the parameters that they reach.

    Args:
        losses: {name: scalar} of one forward pass.
        parameters: leaves.
        wanted: {name: indices of the parameters whose gradients are asked for}.

    Attributes:
        entrance: gradients of all losses where they enter the part of the graph that leads to the parameters
            of `run`'s groups. A weighted sum of them continues the backward pass of weighted losses.
    """

    def __init__(
        self,
        losses: Mapping[str, Tensor],
        parameters: Sequence[nn.Parameter],
        wanted: Mapping[str, frozenset[int]],
    ) -> None:
        self._parameters = parameters
        self._wanted = wanted
        asked = frozenset[int]().union(*wanted.values())
        self._leaves = {get_gradient_edge(parameters[index]).node: index for index in asked}
        self._roots = {
            name: (get_gradient_edge(loss), torch.ones_like(loss))
            for name, loss in losses.items()
            if loss.requires_grad and wanted[name]
        }
        self._order = _ordered([edge.node for edge, _ in self._roots.values()], self._leaves)
        self._place = {node: place for place, node in enumerate(self._order)}
        self._first: dict[int, int] = {}
        self._last: dict[int, int] = {}
        for place, node in enumerate(self._order):
            for child, _ in node.next_functions:
                if child in self._leaves:
                    self._first.setdefault(self._leaves[child], place)
                    self._last[self._leaves[child]] = place
        self.entrance: Crossing = {}

    def finished(self, index: int) -> float:
        """When the gradients of a parameter are complete, from 0 (first) to 1 (last or never)."""
        return self._last[index] / len(self._order) if index in self._last else 1.0

    def run(
        self, groups: Sequence[Sequence[int]], receive: Receive, *, again: int
    ) -> Iterator[tuple[int, str | None]]:
        """Yield (0, None), (1, None), ... as soon as all gradients of that group of parameters are received.

        Before that (group, loss) is yielded for each loss whose gradients of the group are complete.

        Args:
            groups: of parameters, in the order in which they are needed.
            receive: called during the iteration.
            again: so many groups, from the first on, can be passed again from `entrance`. The graph of all
                others is used up, and that of the losses down to the entrance.
        """
        ends, latest = [], -1
        for group in groups:
            latest = max([latest, *(self._last[index] for index in group if index in self._last)])
            ends.append(latest)
        ends = [*ends[:-1], max(len(self._order) - 1, 0)]
        crossing: Crossing = {}
        for name, (edge, seed) in self._roots.items():
            _add(crossing.setdefault(edge.node, {}), (name, edge.output_nr), seed)
        every = frozenset(self._roots)
        used = [self._first[index] for group in groups for index in group if index in self._first]
        begin = min(used, default=0)
        if begin:
            cut = min(begin, self._first_common())
            for stage, keep in ((self._order[:cut], frozenset[str]()), (self._order[cut:begin], every)):
                for _ in self._stage(stage, crossing, receive, keep=keep):
                    pass
        self.entrance = {node: dict(gradients) for node, gradients in crossing.items()}
        for number, end in enumerate(ends):
            stage = self._order[begin : end + 1]
            begin = max(begin, end + 1)
            if stage:
                keep = every if number < again else every - {list(self._roots)[-1]}
                for name in self._stage(stage, crossing, receive, keep=keep):
                    yield number, name
            yield number, None

    def _first_common(self) -> int:
        """Place of the first node that more than one loss passes, or of the end."""
        owners: dict[Node, set[str]] = {}
        for name, (edge, _) in self._roots.items():
            owners.setdefault(edge.node, set()).add(name)
        for place, node in enumerate(self._order):
            if len(owners[node]) > 1:
                return place
            for child, _ in node.next_functions:
                if child in self._place:
                    owners.setdefault(child, set()).update(owners[node])
        return len(self._order)

    def _runs_on(self, ends: set[Node], leaves: set[Node]) -> bool:
        """Whether an end leads to another one or to a leaf. A pass to both runs what lies between."""
        last = max((self._place[node] for node in ends), default=-1)
        stack, seen = list(ends), set[Node]()
        while stack:
            for child, _ in stack.pop().next_functions:
                if child in ends or child in leaves:
                    return True
                if child not in seen and child in self._place and (leaves or self._place[child] < last):
                    seen.add(child)
                    stack.append(child)
        return False

    def _stage(
        self, stage: Sequence[Node], crossing: Crossing, receive: Receive, *, keep: frozenset[str]
    ) -> Iterator[str]:
        """Run every loss backward from the edges that enter the stage to those that leave it; yields it then.

        Args:
            stage: nodes.
            crossing: gradients at the edges.
            receive: see `run`.
            keep: losses behind which the stage's graph is needed again. It is kept for all of them if a pass
                through the stage also runs nodes behind it, see `_runs_on`.
        """
        inside = set(stage)
        targets = [
            GradientEdge(child, number)
            for node in stage
            for child, number in node.next_functions
            if child is not None
        ]
        leaves = {edge.node for edge in targets if edge.node in self._leaves}
        used = {self._leaves[node] for node in leaves}
        outside = [edge for edge in targets if edge.node in self._place and edge.node not in inside]
        exits = list({(edge.node, edge.output_nr): edge for edge in outside}.values())
        entering = [(node, crossing.pop(node)) for node in stage if node in crossing]
        given: dict[str, list[tuple[GradientEdge, Tensor]]] = {name: [] for name in self._roots}
        for node, gradients in entering:
            for (name, number), gradient in gradients.items():
                given[name].append((GradientEdge(node, number), gradient))
        ends = {edge.node for edge in exits}
        if len(keep) < len(given) and self._runs_on(ends, leaves):
            keep = frozenset(given)
        with _stopped_at(ends):
            for name in self._roots:
                indices = sorted(used & self._wanted[name])
                if given[name] and (exits or indices):
                    self._advance(name, given[name], exits, indices, crossing, receive, keep=name in keep)
                yield name

    def _advance(
        self,
        name: str,
        given: Sequence[tuple[GradientEdge, Tensor]],
        exits: Sequence[GradientEdge],
        indices: Sequence[int],
        crossing: Crossing,
        receive: Receive,
        *,
        keep: bool,
    ) -> None:
        """Run one loss backward through a stage."""
        found = torch.autograd.grad(
            [edge for edge, _ in given],
            [*exits, *(get_gradient_edge(self._parameters[i]) for i in indices)],
            [gradient for _, gradient in given],
            retain_graph=keep,
            allow_unused=True,
        )
        for edge, gradient in zip(exits, found, strict=False):
            if gradient is not None:
                _add(crossing.setdefault(edge.node, {}), (name, edge.output_nr), gradient)
        for index, gradient in zip(indices, found[len(exits) :], strict=True):
            if gradient is not None:
                receive(name, index, gradient)


def groups_of(order: Sequence[int], sizes: Sequence[int], limit: int | None = None) -> list[list[int]]:
    """Neighbours in `order` together, as long as they have at most `limit` numbers; larger ones are alone.

    Args:
        order: of the parameters.
        sizes: number of elements of each of them.
        limit: by default the largest size.
    """
    limit = max(sizes, default=0) if limit is None else limit
    groups: list[list[int]] = []
    filled = limit
    for index, size in zip(order, sizes, strict=True):
        if not groups or filled + size > limit:
            groups.append([])
            filled = 0
        groups[-1].append(index)
        filled += size
    return groups


def _ordered(roots: Sequence[Node], leaves: Mapping[Node, int]) -> list[Node]:
    """Nodes between roots and leaves, every node before those that its gradients flow to.

    Nodes that were made last come first, as in torch's own passes.
    """
    waits = dict.fromkeys(roots, 0)
    stack = list(waits)
    while stack:
        for child, _ in stack.pop().next_functions:
            if child is not None and child not in leaves:
                if child not in waits:
                    waits[child] = 0
                    stack.append(child)
                waits[child] += 1
    ready = [
        (-node._sequence_nr(), number, node)
        for number, (node, count) in enumerate(waits.items())
        if not count
    ]
    heapq.heapify(ready)
    ordered: list[Node] = []
    while ready:
        node = heapq.heappop(ready)[2]
        ordered.append(node)
        for child, _ in node.next_functions:
            if child in waits:
                waits[child] -= 1
                if not waits[child]:
                    heapq.heappush(ready, (-child._sequence_nr(), len(waits) + len(ordered), child))
    useful = set(leaves)
    for node in reversed(ordered):
        if any(child in useful for child, _ in node.next_functions):
            useful.add(node)
    return [node for node in ordered if node in useful]


def _add(gradients: dict[tuple[str, int], Tensor], key: tuple[str, int], gradient: Tensor) -> None:
    """Add to what an edge has got so far; the tensor given is not changed."""
    gradients[key] = gradients[key] + gradient if key in gradients else gradient


@contextmanager
def _stopped_at(nodes: set[Node]) -> Iterator[None]:
    """Keep gradients that arrive at `nodes` from flowing on inside the block.

    A node may lead to another one of the same cut. What arrives there must come from this stage alone.
    """
    handles = [node.register_prehook(_nothing) for node in nodes]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _nothing(gradients: tuple[Tensor, ...]) -> tuple[None, ...]:
    """No gradient at all."""
    return (None,) * len(gradients)

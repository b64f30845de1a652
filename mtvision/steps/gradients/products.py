"""Products of gradients, without a matrix of gradients.

The backward passes of all losses advance together (`mtvision.steps.gradients.stages`). Gradients of a
group of shared parameters are averaged over processes as soon as they are complete. Their products are
added to G (T, T), then they are dropped. A group is no larger than a quarter of the largest shared parameter,
or a single parameter, whose gradients are not copied. Memory is T times the largest parameter, plus what
crosses a cut of the graph, instead of T x P.

Products of gradients that are averaged over processes are those of the whole batch. Nothing is assumed about
layers: modules of decoders that serve several tasks, and norms over a batch, count as they do in the matrix.

Once the weights are known, one more backward pass gives the gradient. It starts where the losses enter the
shared part of the graph. The rows of the first layers, which come last, are kept, as long as they have no
more numbers than the largest parameter. The pass need not go there, where maps are large.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from mtvision.steps.gradients.exchange import BUCKET, RowExchange
from mtvision.steps.gradients.layout import Layout, add_flat, common_dtype
from mtvision.steps.gradients.stages import Crossing, StagedBackward, groups_of
from mtvision.steps.gradients.weighted import averaged_gradients
from mtvision.steps.problem import StepProblem
from mtvision.steps.step import add_to_grad


@dataclass(frozen=True)
class Measured:
    """Products of gradients, and what the gradient of weighted losses can be made of.

    Args:
        gramian: (T, T) in float64, without the factor of the losses.
        plain: the gradients of `Layout.plain`, with that factor.
        kept: (indices of parameters, their matrix (T, size) without that factor), averaged over processes.
            It is used up by `add_weighted`, as `entrance` is.
        entrance: gradients of scaled losses where they enter the part that leads to other shared parameters.
    """

    gramian: Tensor
    plain: list[Tensor]
    kept: list[tuple[list[int], Tensor]]
    entrance: Crossing

    def add_weighted(
        self,
        problem: StepProblem,
        parameters: Sequence[nn.Parameter],
        layout: Layout,
        weights: Tensor,
        factor: Tensor | None,
    ) -> None:
        """Add the gradient of the weighted losses to `.grad` of the shared parameters, over processes.

        Args:
            problem: of the step.
            parameters: all trainable ones.
            layout: of the batch.
            weights: (T,) of the layout's tasks.
            factor: by which `problem.scale` multiplies.
        """
        done: set[int] = set()
        while self.kept:
            indices, matrix = self.kept.pop()
            add_flat(parameters, indices, weights.to(matrix) @ matrix, factor)
            done.update(indices)
            del matrix  # not while the pass runs
        rest = [parameters[index] for index in layout.shared if index not in done]
        by_name = dict(zip(layout.tasks, weights.unbind(), strict=True))
        edges: dict[GradientEdge, Tensor] = {}
        for node, gradients in self.entrance.items():
            for (name, number), gradient in gradients.items():
                if name in by_name:
                    edge, part = GradientEdge(node, number), by_name[name].to(gradient) * gradient
                    edges[edge] = edges[edge] + part if edge in edges else part
        self.entrance.clear()
        means = averaged_gradients(problem, list(edges), rest, seeds=list(edges.values()))
        for item, gradient in zip(rest, means, strict=True):
            add_to_grad(item, gradient, keep=True)


class Products:
    """Computes G; keeps the groups of parameters, which are the same on all processes."""

    def __init__(self) -> None:
        self._groups: dict[Layout, list[list[int]]] = {}

    def __call__(
        self,
        problem: StepProblem,
        parameters: Sequence[nn.Parameter],
        losses: Mapping[str, Tensor],
        layout: Layout,
        factor: Tensor | None,
        *,
        keep: bool = True,
    ) -> Measured:
        """Products and plain gradients over processes; all of them call this.

        Args:
            problem: of the step.
            parameters: all trainable ones.
            losses: of this process, with the graph of one forward pass, which is used up.
            layout: of the batch.
            factor: by which `problem.scale` multiplies.
            keep: keep what `Measured.add_weighted` needs.
        """
        own: dict[tuple[str, int], list[int]] = {}
        for place, item in enumerate(layout.plain):
            for key in item.sources:
                own.setdefault((key, item.index), []).append(place)
        shared = frozenset(layout.shared)
        wanted = {
            key: frozenset(index for owner, index in own if owner == key)
            | (shared if key in layout.tasks else frozenset())
            for key in losses
        }
        scaled = {key: problem.scale(loss) for key, loss in losses.items()}
        graph = StagedBackward(scaled, parameters, wanted)
        groups = self._agreed(problem, parameters, layout, graph)
        rows = _Rows(groups, parameters, layout)
        plain = [torch.zeros_like(parameters[item.index]) for item in layout.plain]

        def receive(key: str, index: int, gradient: Tensor) -> None:
            if index in shared and key in layout.tasks:
                rows.add(key, index, gradient)
            for place in own.get((key, index), ()):
                plain[place] += gradient

        count, device = len(layout.tasks), parameters[0].device
        gramian = torch.zeros(count, count, dtype=torch.float64, device=device)
        kept: list[tuple[list[int], Tensor]] = []

        def add(number: int, exchange: RowExchange) -> None:
            found = rows.take(number, exchange.means())
            if factor is not None:
                found = [item / factor for item in found]
            gramian.add_(products_of(found))
            if keep and number == len(groups) - 1:
                kept.append((groups[number], found[0] if len(found) == 1 else torch.stack(found)))

        travelling: list[tuple[int, RowExchange]] = []
        for number, name in graph.run(groups, receive, again=len(groups) - 1 if keep else 0):
            if number == 0 and not keep:
                graph.entrance.clear()
            if not travelling or travelling[-1][0] != number:
                travelling.append((number, rows.exchange(problem, number, wanted)))
            exchange = travelling[-1][1]
            if name is not None:
                exchange.complete(name)
                continue
            exchange.close()
            while len(travelling) > (problem.begin_average is not None):
                add(*travelling.pop(0))
        for number, exchange in travelling:
            add(number, exchange)
        return Measured(gramian, problem.average(plain), kept, graph.entrance)

    def _agreed(
        self,
        problem: StepProblem,
        parameters: Sequence[nn.Parameter],
        layout: Layout,
        graph: StagedBackward,
    ) -> list[list[int]]:
        """Groups of shared parameters in the order in which their gradients are complete, on average."""
        if layout not in self._groups:
            everyone = problem.gather([graph.finished(index) for index in layout.shared])
            means = [sum(times) for times in zip(*everyone, strict=True)]
            pairs = sorted(zip(means, layout.shared, strict=True))
            order = [index for _, index in pairs]
            sizes = [parameters[index].numel() for index in order]
            largest = max(sizes, default=0)
            groups = groups_of(order, sizes, largest // 4)
            first = _first_kept(groups, parameters, largest // len(layout.tasks))
            # Rows of the last groups are kept. One after another they would need maps of all tasks between.
            last = [index for group in groups[first:] for index in group]
            self._groups[layout] = [*groups[:first], last]
        return self._groups[layout]


def _first_kept(groups: Sequence[Sequence[int]], parameters: Sequence[nn.Parameter], limit: int) -> int:
    """The first of the last groups that have at most `limit` numbers together."""
    first, numbers = len(groups), 0
    while first:
        numbers += sum(parameters[index].numel() for index in groups[first - 1])
        if numbers > limit:
            break
        first -= 1
    return first


def products_of(rows: Sequence[Tensor]) -> Tensor:
    """Products (T, T) of the rows of one matrix, or of T tensors, which are not copied."""
    if len(rows) == 1:
        return rows[0] @ rows[0].T
    found = rows[0].new_empty(len(rows), len(rows))
    for i, first in enumerate(rows):
        for j, second in enumerate(rows[: i + 1]):
            found[i, j] = found[j, i] = first @ second
    return found


class _Rows:
    """Gradients of the groups of parameters that are not complete yet, one row per task."""

    def __init__(
        self, groups: Sequence[Sequence[int]], parameters: Sequence[nn.Parameter], layout: Layout
    ) -> None:
        self._tasks = {name: row for row, name in enumerate(layout.tasks)}
        self._where: dict[int, tuple[int, int]] = {}
        self._sizes: list[int] = []
        for number, group in enumerate(groups):
            offset = 0
            for index in group:
                self._where[index] = (number, offset)
                offset += parameters[index].numel()
            self._sizes.append(offset)
        self._dtype = common_dtype([parameters[index] for index in layout.shared])
        self._device = parameters[0].device
        self._matrices: dict[int, Tensor] = {}
        self._alone: dict[int, dict[int, Tensor]] = {}
        self._groups = groups

    def add(self, name: str, index: int, gradient: Tensor) -> None:
        """Add a part of a task's gradient of one parameter."""
        number, offset = self._where[index]
        row = self._tasks[name]
        if self._apart(number):
            rows = self._alone.setdefault(number, {})
            flat = gradient.reshape(-1).to(self._dtype)
            rows[row] = rows[row] + flat if row in rows else flat
            return
        part = self._matrix(number)[row, offset : offset + gradient.numel()]
        part += gradient.flatten()

    def exchange(self, problem: StepProblem, number: int, here: Collection[str]) -> RowExchange:
        """The exchange of a group's rows with other processes.

        Args:
            problem: of the step.
            number: of the group.
            here: losses of this process.
        """
        large = self._sizes[number] > BUCKET // 8
        own = not self._apart(number)  # else others may read what autograd gave
        row = partial(self._row, number)
        return RowExchange(problem, list(self._tasks), here, row, apart=large, reuse=own)

    def take(self, number: int, means: Sequence[Tensor]) -> list[Tensor]:
        """The matrix (T, size) of a group, or the rows (size,) of a single parameter; they are not kept.

        Args:
            number: of the group.
            means: of the rows, over processes.
        """
        if self._apart(number):
            return list(means)
        matrix = self._matrix(number)
        del self._matrices[number]
        for row, mean in zip(matrix, means, strict=True):
            if mean.data_ptr() != row.data_ptr():
                row.copy_(mean)
        return [matrix]

    def _apart(self, number: int) -> bool:
        """Whether a group is a single parameter, whose gradients are not copied."""
        return len(self._groups[number]) == 1 and len(self._tasks) > 1

    def _row(self, number: int, row: int) -> Tensor:
        """A row that is sent; that of a single parameter is not kept."""
        if not self._apart(number):
            return self._matrix(number)[row]
        found = self._alone.get(number, {}).pop(row, None)
        return self._zeros(1, number)[0] if found is None else found

    def _matrix(self, number: int) -> Tensor:
        if number not in self._matrices:
            self._matrices[number] = self._zeros(len(self._tasks), number)
        return self._matrices[number]

    def _zeros(self, count: int, number: int) -> Tensor:
        return torch.zeros(count, self._sizes[number], dtype=self._dtype, device=self._device)

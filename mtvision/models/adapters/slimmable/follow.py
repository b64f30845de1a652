"""Which runs of channels every layer reads, found by values.

The plain network runs once more, on many copies of one image. What a layer writes is replaced by fixed
numbers, so that a layer depends on the layers directly before it alone. In copy i some channels of one run
of one layer are disturbed. A layer that sees the same channels disturbed, at some offset, reads that run
there. One that sees a whole block disturbed depends on the run (attention, gates, sums). Anything else means
that channels were cut or reordered. Layers whose channels stay in place hand on what they read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from mtvision.architecture.widths import DIVISOR
from mtvision.models.adapters.slimmable.slicing import Slicing
from mtvision.models.declarations import FIXED, Channels, Layer
from mtvision.models.dry_run import dry_run
from mtvision.models.network import Network

COPIES = 61
"""Images in one pass; a prime, so that the number of tokens or windows is hardly a multiple of it."""
SEEN = 1e-5
"""Share of the largest value up to which differences are rounding."""

Row = tuple[str, int]
"""One disturbed copy: path of the layer, number of its run."""
Call = dict[Row, Tensor]
"""What one call of a layer saw: {row: which of its channels differ from the undisturbed copy}."""


def follow(
    network: Network, layers: Mapping[str, Slicing]
) -> tuple[dict[str, tuple[Channels, ...]], dict[str, frozenset[str]]]:
    """Find what the layers of a network read, while it is still plain.

    Args:
        network: not converted yet; its tensors have values.
        layers: {path: slicing} of all layers.

    Returns:
        {path of a layer: the runs it reads}, where they are several; {path: tasks whose widths its input
        depends on}.

    Raises:
        ValueError: a layer reads channels in an order, or in pieces, that cannot be sliced.
    """
    calls = _observe(network, layers, training=False)
    if set(layers) - set(calls):  # auxiliary predictions are made in training only
        calls = {**_observe(network, layers, training=True), **calls}
    reads = {}
    kinds = {path: type(network.get_submodule(path)).__name__ for path in layers}
    factors = {1, *(int(item.layer.factor) for item in layers.values() if item.layer is not None)} - {0}
    for path, found in calls.items():
        if layers[path].reads:
            continue
        runs = [_Input(path, call, layers, kinds, factors).runs() for call in found]
        if any(item != runs[0] for item in runs):
            raise ValueError(
                f"slimmable: '{path}' ({kinds[path]}) reads channels of one layout in one call and of "
                "another in the next, so it cannot be slimmed."
            )
        if len(runs[0]) > 1:
            reads[path] = runs[0]
    return reads, _dependencies(calls, layers, frozenset(network.task_names))


def _dependencies(
    calls: Mapping[str, Sequence[Call]], layers: Mapping[str, Slicing], tasks: frozenset[str]
) -> dict[str, frozenset[str]]:
    """{layer: tasks whose widths its input depends on}, through all layers before it."""
    before = {path: {name for call in found for name, _ in call} for path, found in calls.items()}
    own = {path: item.part.follows(tasks) for path, item in layers.items()}
    sees: dict[str, frozenset[str]] = dict.fromkeys(before, frozenset())
    changed = True
    while changed:
        changed = False
        for path, names in before.items():
            found = sees[path].union(*(sees[name] | own[name] for name in names))
            changed, sees[path] = changed or found != sees[path], found
    return sees


def _observe(network: Network, layers: Mapping[str, Slicing], *, training: bool) -> dict[str, list[Call]]:
    """{path: its calls}, of layers that ran, in the order in which they first ran."""
    rows = [(path, index) for path, item in layers.items() for index in range(len(item.writes))]
    found: dict[str, list[Call]] = {}
    for start in range(0, len(rows), COPIES - 1):
        chunk = {row: copy for copy, row in enumerate(rows[start : start + COPIES - 1], start=1)}
        seen: dict[str, list[Call]] = {}
        with ExitStack() as stack:
            for number, (path, item) in enumerate(layers.items()):
                watch, module = _Watch(path, item, number, chunk, seen), network.get_submodule(path)
                before = module.register_forward_pre_hook(watch.before, with_kwargs=True)
                stack.callback(before.remove)
                stack.callback(module.register_forward_hook(watch.after).remove)
            dry_run(network, training=training, images=COPIES)
        for path, calls in seen.items():
            known = found.setdefault(path, [{} for _ in calls])
            for one, more in zip(known, calls, strict=True):
                one.update(more)
    return found


class _Watch:
    """The hooks of one layer in one pass."""

    def __init__(
        self,
        path: str,
        slicing: Slicing,
        number: int,
        chunk: Mapping[Row, int],
        seen: dict[str, list[Call]],
    ) -> None:
        self.path, self.slicing, self.number, self.chunk, self.seen = path, slicing, number, chunk, seen
        assert slicing.layer is not None
        self.layer: Layer = slicing.layer
        self.given: list[Tensor | None] = []

    def before(self, _: nn.Module, args: Any, kwargs: Any) -> Any:
        """Note what differs between copies, and let the layer run on one of them."""
        first = args[0] if args else next(iter(kwargs.values()))
        batch = int(first.shape[self.layer.batch_axis])
        if batch % COPIES:  # no images, e.g. a table of positions
            self.given.append(None)
            return None
        self.given.append(first)
        changed = _changed(first, self.layer.batch_axis, self.layer.axis)
        anywhere = changed.any(dim=1)
        for item in (*args[1:], *kwargs.values()):
            if self._holds_images(item, batch) and item is not first:
                anywhere |= _changed(item, self.layer.batch_axis, self.layer.axis).any(dim=1)
        disturbed = anywhere.tolist()
        call = {row: changed[copy] for row, copy in self.chunk.items() if disturbed[copy]}
        self.seen.setdefault(self.path, []).append(call)

        def one(item: Any) -> Any:
            axis = self.layer.batch_axis
            return item.narrow(axis, 0, batch // COPIES) if self._holds_images(item, batch) else item

        return tree_map(one, (args, kwargs))

    def after(self, _: nn.Module, __: Any, output: Any) -> Any:
        """Write numbers of its own, in every copy those that belong to it."""
        given = self.given.pop()
        if given is None:
            return None
        axis = self.layer.batch_axis

        def copies(item: Any) -> Any:
            return torch.cat([item] * COPIES, dim=axis) if isinstance(item, Tensor) else item

        if isinstance(output, Tensor):
            return self._written(given, output)
        first, *rest = output
        return type(output)((self._written(given, first), *(copies(item) for item in rest)))

    def _written(self, given: Tensor, one: Tensor) -> Tensor:
        layer = self.layer
        if not self.slicing.writes:
            return _in_place(given, one, layer)
        generator = torch.Generator().manual_seed(self.number)
        shape = one.movedim(layer.batch_axis, 0).shape
        values = 0.1 + 0.8 * torch.rand(shape, generator=generator)
        noise = 0.05 + 0.1 * torch.rand(shape, generator=generator)
        written = values.repeat(COPIES, *(1 for _ in shape[1:])).to(one)
        start = 0
        for index, run in enumerate(self.slicing.writes):
            copy = self.chunk.get((self.path, index))
            if copy is not None:
                part = written[copy * shape[0] : (copy + 1) * shape[0]]
                place = [slice(None)] * one.ndim
                place[layer.axis] = slice(start, start + run.count)
                mask = pattern(run.count).to(one.device)
                mask = mask.reshape([-1 if item == layer.axis % one.ndim else 1 for item in range(one.ndim)])
                part[tuple(place)] += (noise.to(one)[tuple(place)] * mask).to(one)
            start += run.count
        return written.movedim(0, layer.batch_axis).contiguous()

    def _holds_images(self, item: Any, batch: int) -> bool:
        axis = self.layer.batch_axis
        return isinstance(item, Tensor) and item.ndim > axis and item.shape[axis] == batch


def _changed(tensor: Tensor, batch_axis: int, axis: int) -> Tensor:
    """(copies, channels): where a tensor differs from the first copy."""
    channels = axis % tensor.ndim
    copies = tensor.movedim((batch_axis, channels), (0, 1)).float()
    copies = copies.reshape(COPIES, -1, *copies.shape[1:]).movedim(2, 1).flatten(2)
    return (copies - copies[:1]).abs().amax(dim=2) > SEEN * copies.abs().max()


def _in_place(given: Tensor, one: Tensor, layer: Layer) -> Tensor:
    """What arrives, as large as what is written; norms and depthwise convolutions would change values."""
    if layer.factor != 1 and int(one.shape[layer.axis]) != int(given.shape[layer.axis]):
        up, down = layer.factor.numerator, layer.factor.denominator
        picked = torch.arange(int(one.shape[layer.axis]), device=given.device) * down // up
        given = given.index_select(layer.axis, picked)
    if given.shape[2:] != one.shape[2:] and layer.axis == 1:
        given = nn.functional.interpolate(given, size=one.shape[2:])
    return given.clone()


def pattern(count: int) -> Tensor:
    """Which channels of a run are disturbed: one of every three, at irregular places."""
    generator = torch.Generator().manual_seed(count)
    picked = torch.randint(3, (-(-count // 3),), generator=generator)
    mask = nn.functional.one_hot(picked, 3).flatten()[:count].bool()
    mask[0] |= not mask.any()
    return mask


class _Input:
    """What one call of a layer saw, as runs."""

    def __init__(
        self,
        path: str,
        call: Call,
        layers: Mapping[str, Slicing],
        kinds: Mapping[str, str],
        factors: Iterable[int],
    ) -> None:
        self.path, self.layers, self.kinds = path, layers, kinds
        self.total = len(next(iter(call.values()))) if call else 0
        self.placed: dict[int, list[tuple[Row, Channels]]] = {}
        self.blurred = torch.zeros(self.total, dtype=torch.bool)
        self.mixed: dict[Channels, Row] = {}
        for row, changed in call.items():
            run = layers[row[0]].writes[row[1]]
            if can_slim(run) and changed.any():
                self._place(row, run, changed.cpu(), factors)

    def runs(self) -> tuple[Channels, ...]:
        """Runs in order; a single one, or none, where what arrives is one run.

        Raises:
            ValueError: they overlap or are not known.
        """
        if not self.placed and len(self.mixed) > 1:
            raise self._error("after an operation that mixes them", [row[0] for row in self.mixed.values()])
        result: list[Channels] = []
        end = 0
        for start in sorted(self.placed):
            result += self._gap(end, start)
            result.append(self._agreed(start, self.placed[start]))
            end = start + result[-1].count
        return (*result, *self._gap(end, self.total)) if self.placed else ()

    def _gap(self, start: int, end: int) -> list[Channels]:
        """Channels that no width changes (coordinates, logits)."""
        if start > end:
            rows = [row[0] for group in self.placed.values() for row, _ in group]
            raise self._error("joined and added in ways that do not fit", rows)
        if self.blurred[start:end].any():
            raise self._error("after an operation that mixes them", [row[0] for row in self.mixed.values()])
        return [Channels(end - start, FIXED, DIVISOR)] if end > start else []

    def _agreed(self, start: int, group: Sequence[tuple[Row, Channels]]) -> Channels:
        (first, run), *others = group
        for row, other in others:
            if other != run:
                kinds = [f"'{item[0]}' ({self.kinds[item[0]]})" for item in (first, row)]
                raise ValueError(
                    f"slimmable: what {kinds[0]} and {kinds[1]} write is added or multiplied before "
                    f"'{self.path}' ({self.kinds[self.path]}), channel by channel, but the first writes "
                    f"{_told(run)} and the second {_told(other)}. Both sides of a residual connection or "
                    "gate must be slimmed alike: declare the same part and runs for them."
                )
        return run

    def _place(self, row: Row, run: Channels, changed: Tensor, factors: Iterable[int]) -> None:
        for factor in factors:
            offsets = places(changed, pattern(run.count).repeat_interleave(factor))
            if offsets:
                wide = replace(run, count=run.count * factor, multiple=(run.multiple or 1) * factor)
                for offset in offsets:
                    self.placed.setdefault(offset, []).append((row, wide))
                return
        marks = changed.nonzero().flatten()
        first, last = int(marks[0]), int(marks[-1])
        if not changed[first : last + 1].all():
            raise self._error("cut or in another order", [row[0]])
        self.blurred |= changed
        self.mixed.setdefault(run, row)

    def _error(self, how: str, sources: Iterable[str]) -> ValueError:
        names = ", ".join(dict.fromkeys(f"'{item}' ({self.kinds[item]})" for item in sources))
        return ValueError(
            f"slimmable: '{self.path}' ({self.kinds[self.path]}) reads slimmed channels of {names} {how}, so "
            "it would not find its own. Runs must arrive whole, in order, and side by side. Declare "
            "`reads` of this layer, or `writes` of those before it, in the class around them "
            "(docs/slimmable.md), or choose another network."
        )


def can_slim(run: Channels) -> bool:
    """Whether a run has fewer channels at some width."""
    return run.part != FIXED and run.count > (run.multiple or DIVISOR)


def places(changed: Tensor, mask: Tensor) -> list[int]:
    """Offsets at which a mask lies in `changed`, if it consists of nothing else."""
    left, offsets = changed.clone(), []
    ahead = int(mask.nonzero()[0])
    while left.any():
        start = int(left.nonzero()[0]) - ahead
        if (
            start < 0
            or start + len(mask) > len(left)
            or not torch.equal(left[start : start + len(mask)], mask)
        ):
            return []
        left[start : start + len(mask)] = False
        offsets.append(start)
    return offsets


def _told(run: Channels) -> str:
    part = run.part or FIXED
    return f"{run.count} channels of the part '{part.kind} {part.key}' in multiples of {run.multiple}"

"""Follows runs of channels through one dry run, so that layers behind a concatenation find theirs.

Every tensor that a slimmable layer wrote carries a `Layout`: the axis of its channels and the runs in it,
each with the part that decides its width. Functions that keep channels hand it on, `cat` joins layouts. A
layer that reads several runs slices each of them. What is not known loses the layout; a layer that reads a
lost one is refused. Tensors also carry the tasks whose widths they depend on, for the statistics of batch
norms.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from mtvision.models.adapters.slimmable.operators import CONVERSIONS
from mtvision.models.adapters.slimmable.plan import dry_run, writes_channels
from mtvision.models.adapters.slimmable.width import FIXED, Segment, Slicing
from mtvision.models.network import Network

JOINS = ("cat", "concat", "concatenate")
SPLITS = ("chunk", "split", "split_with_sizes", "tensor_split")
_MOVES = ("permute", "transpose", "movedim", "moveaxis", "swapaxes", "swapdims", "t")
_RESHAPES = ("reshape", "view", "flatten", "unflatten", "unsqueeze", "squeeze", "reshape_as", "view_as")
_REDUCTIONS = ("mean", "sum", "amax", "amin")
_KEEPS = frozenset(
    """
    interpolate upsample relu relu_ gelu silu sigmoid tanh softplus elu leaky_relu hardswish
    hardsigmoid hardtanh relu6 softmax log_softmax dropout dropout2d feature_dropout alpha_dropout
    add sub mul div __add__ __radd__ __iadd__ __sub__ __rsub__ __isub__ __mul__ __rmul__ __imul__
    __truediv__ __itruediv__ add_ sub_ mul_ div_ sigmoid_ neg __neg__ exp log sqrt rsqrt pow square
    clamp clamp_ clip abs float half double to type contiguous clone detach expand expand_as
    max_pool2d avg_pool2d adaptive_avg_pool2d adaptive_max_pool2d pad batch_norm layer_norm
    group_norm instance_norm normalize where masked_fill roll flip type_as cpu cuda requires_grad_
    hardswish_ silu_ hardsigmoid_ threshold mish celu selu max_pool2d_with_indices boolean_dispatch
    fn
    """.split()  # noqa: SIM905
)
"""Functions that leave channels where they are, whatever they do to values and positions."""


@dataclass(frozen=True)
class Layout:
    """Runs of channels along an axis.

    Args:
        axis: of the channels, from the front.
        segments: the runs, in order; none where the layout was lost.
        lost: name of the function that lost it.
    """

    axis: int
    segments: tuple[Segment, ...]
    lost: str = ""


@dataclass
class Followed:
    """What was found.

    Args:
        inputs: {layer path: the runs it reads}, where they are several.
        sees: {layer path: tasks whose widths its input depends on}.
        calls: in order, every concatenation and split of channels: (function, runs of each piece), or None
            where it could not be followed.
    """

    inputs: dict[str, tuple[Segment, ...]] = field(default_factory=dict)
    sees: dict[str, frozenset[str]] = field(default_factory=dict)
    calls: list[tuple[str, tuple[tuple[Segment, ...], ...] | None]] = field(default_factory=list)


def layout_of(tensor: Tensor) -> Layout | None:
    """The layout that a tensor carries."""
    found: Layout | None = getattr(tensor, "_slim_layout", None)
    return found


def set_layout(tensor: Tensor, layout: Layout | None) -> None:
    """Make a tensor carry a layout."""
    tensor._slim_layout = layout  # type: ignore[attr-defined]


def tasks_of(tensors: Iterable[Tensor]) -> frozenset[str]:
    """Tasks whose widths some tensors depend on."""
    return frozenset().union(*(getattr(item, "_slim_tasks", frozenset()) for item in tensors))


def joined_axis(name: str, args: Sequence[Any], kwargs: Mapping[str, Any], ndim: int) -> int:
    """The axis along which a concatenation or split works, from the front."""
    position = 1 if name in JOINS else 2
    default = args[position] if len(args) > position else 0
    return int(kwargs.get("dim", kwargs.get("axis", default))) % ndim


def tensors_in(value: Any) -> list[Tensor]:
    """All tensors in nested lists, tuples and dicts."""
    return [item for item in tree_leaves(value) if isinstance(item, Tensor)]


class Tracker(TorchFunctionMode):
    """Hands layouts and tasks from the inputs of every function to its outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.followed = Followed()
        self.trusted = 0  # depth of modules whose layouts are declared
        self.inside = 0  # depth of layers

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = str(getattr(func, "__name__", ""))
        inputs = tensors_in((args, kwargs))
        before = [layout_of(item) for item in inputs]
        seen = tasks_of(inputs)
        result = func(*args, **kwargs)
        outputs = tensors_in(result)
        if name == "__setitem__":
            outputs = [args[0]]
        for item in outputs:
            if not isinstance(item, nn.Parameter):  # `to` may return its input, which outlives this run
                item._slim_tasks = seen  # type: ignore[attr-defined]
        if not outputs or self.inside:
            return result
        if name in JOINS or name in SPLITS:
            self._join_or_split(name, args, kwargs, result)
        elif any(item is not None for item in before):
            known = [pair for pair in zip(inputs, before, strict=True) if pair[1] is not None]
            for item in outputs:
                self._hand_on(name, func, args, kwargs, known, item)
        return result

    def lose(self, name: str, layouts: Iterable[Layout | None]) -> Layout | None:
        """What is left after a function that is not known: of one run nothing, of several a warning."""
        if self.trusted:
            return None
        for item in layouts:
            if item is not None and (item.lost or len(item.segments) > 1):
                return Layout(-1, (), item.lost or name)
        return None

    def _hand_on(
        self, name: str, func: Any, args: Any, kwargs: Any, known: list[tuple[Tensor, Any]], output: Tensor
    ) -> None:
        layouts = [layout for _, layout in known]
        if any(item.lost for item in layouts):
            set_layout(output, self.lose(name, layouts))
            return
        found = []
        for tensor, layout in known:
            axis = _new_axis(name, func, args, kwargs, tensor, layout.axis, output)
            if axis is not None and axis < 0:  # summed away, or spread over all channels
                continue
            found.append(None if axis is None else replace(layout, axis=axis))
        kept = [item for item in found if item is not None]
        if len(kept) < len(found):
            set_layout(output, self.lose(name, layouts))
            return
        several = [item for item in kept if len(item.segments) > 1]
        if several and any(_runs(item) != _runs(several[0]) for item in kept):
            set_layout(output, self.lose(name, layouts))
        else:
            set_layout(output, kept[0] if kept else None)

    def _join_or_split(self, name: str, args: Any, kwargs: Any, result: Any) -> None:
        join = name in JOINS
        pieces = list(args[0] if args else kwargs["tensors"]) if join else list(result)
        whole = result if join else args[0]
        axis = joined_axis(name, args, kwargs, whole.ndim)
        runs: tuple[tuple[Segment, ...], ...] | None = None
        if join:
            runs = self._joined(name, pieces, result, axis)
        else:
            layout = layout_of(whole)
            sizes = [int(item.shape[axis]) for item in pieces]
            if layout is not None and not layout.lost and layout.axis == axis:
                runs = _cut(layout.segments, sizes)
            for index, item in enumerate(pieces):
                if layout is not None and not layout.lost and layout.axis != axis:
                    set_layout(item, layout)
                else:
                    set_layout(item, self.lose(name, [layout]) if runs is None else Layout(axis, runs[index]))
        if not self.trusted:
            self.followed.calls.append((name, runs))

    def _joined(
        self, name: str, pieces: Sequence[Tensor], result: Tensor, axis: int
    ) -> tuple[tuple[Segment, ...], ...] | None:
        layouts = [layout_of(item) for item in pieces]
        if any(item is not None and not item.lost and item.axis == axis for item in layouts) and all(
            item is None or (item.axis == axis and not item.lost) for item in layouts
        ):  # what nobody wrote (coordinates) has as many channels at every width; the trial checks that
            runs = tuple(
                (Segment(int(piece.shape[axis]), FIXED),) if item is None else item.segments
                for piece, item in zip(pieces, layouts, strict=True)
            )
            set_layout(result, Layout(axis, tuple(run for piece in runs for run in piece)))
            return runs
        first = layouts[0]
        same = first is not None and not first.lost and first.axis != axis
        if same and all(item == first for item in layouts):
            set_layout(result, first)
        else:
            set_layout(result, self.lose(name, layouts))
        return None


def _runs(layout: Layout) -> tuple[Any, ...]:
    return (layout.axis, *((item.base, item.part, item.divisor) for item in layout.segments))


def _cut(segments: Sequence[Segment], sizes: Sequence[int]) -> tuple[tuple[Segment, ...], ...] | None:
    """Runs of each piece, None if a piece ends inside a run that is slimmed."""
    rest, result = list(segments), []
    for size in sizes:
        piece: list[Segment] = []
        while size and rest:
            run = rest.pop(0)
            if run.base > size and run.part != FIXED:
                return None
            taken = min(run.base, size)
            piece.append(replace(run, base=taken))
            if taken < run.base:
                rest.insert(0, replace(run, base=run.base - taken))
            size -= taken
        result.append(tuple(piece))
    return tuple(result)


def _new_axis(
    name: str, func: Any, args: Any, kwargs: Any, tensor: Tensor, axis: int, output: Tensor
) -> int | None:
    """Where a function puts the channel axis of a tensor; -1 if it has none afterwards, None if unknown."""
    count = int(tensor.shape[axis])
    if name in _KEEPS:
        place = output.ndim - (tensor.ndim - axis)
        if not 0 <= place < output.ndim:
            return None
        if count == 1 and output.shape[place] != 1:
            return -1
        return place if output.shape[place] == count else None
    if name in _MOVES:
        sizes = list(range(2, 2 + tensor.ndim))
        moved = func(torch.empty(sizes, device="meta"), *args[1:], **kwargs)
        return list(moved.shape).index(sizes[axis])
    if name in _RESHAPES:
        ahead = math.prod(tensor.shape[:axis])
        places = [
            place
            for place, size in enumerate(output.shape)
            if size == count and math.prod(output.shape[:place]) == ahead
        ]
        return places[0] if places else None
    if name in _REDUCTIONS:
        return _reduced_axis(args, kwargs, tensor, axis)
    if name == "stack":
        place = int(kwargs.get("dim", args[1] if len(args) > 1 else 0)) % output.ndim
        return axis + (place <= axis)
    if name == "unbind":
        place = int(kwargs.get("dim", args[1] if len(args) > 1 else 0)) % tensor.ndim
        return None if place == axis else axis - (place < axis)
    if name == "__getitem__":
        index = args[1] if isinstance(args[1], tuple) else (args[1],)
        if not all(item is None or item is Ellipsis or isinstance(item, slice | int) for item in index):
            return None
        stride = tensor.stride(axis)
        for place, size in enumerate(output.shape):
            if size == count and output.stride(place) == stride:
                return place
    return None


def _reduced_axis(args: Any, kwargs: Any, tensor: Tensor, axis: int) -> int:
    given = kwargs.get("dim", args[1] if len(args) > 1 else None)
    if given is None:
        return -1
    dims = {int(item) % tensor.ndim for item in (given if isinstance(given, tuple | list) else (given,))}
    keep = bool(kwargs.get("keepdim", args[2] if len(args) > 2 else False))
    if axis in dims:
        return -1
    return axis if keep else axis - sum(1 for item in dims if item < axis)


def follow(network: Network, slicings: Mapping[str, Slicing], declared: Sequence[str]) -> Followed:
    """Run a network once, still plain, and note what runs of channels its layers read.

    Args:
        network: not converted yet.
        slicings: {path: slicing} of all that has parameters.
        declared: paths of modules whose layouts inside are declared by their rule.

    Raises:
        ValueError: a layer reads channels whose layout was lost, or different layouts in two calls.
    """
    tracker, modules = Tracker(), dict(network.named_modules())
    tasks = frozenset(network.task_names)

    def deeper(*_: Any) -> None:
        tracker.trusted += 1

    def higher(*_: Any) -> None:
        tracker.trusted -= 1

    with ExitStack() as stack:
        for path in declared:
            stack.callback(modules[path].register_forward_pre_hook(deeper).remove)
            stack.callback(modules[path].register_forward_hook(higher).remove)
        for path, slicing in slicings.items():
            module = modules[path]
            if type(module) in CONVERSIONS or isinstance(module, nn.BatchNorm2d):
                known = any(path.startswith(f"{item}.") for item in declared)
                layer = _Layer(path, module, slicing, tracker, tasks, declared=known)
                stack.callback(module.register_forward_pre_hook(layer.before).remove)
                stack.callback(module.register_forward_hook(layer.after).remove)
        with tracker:
            dry_run(network, training=True)
    return tracker.followed


class _Layer:
    """What happens to layouts at one layer."""

    def __init__(
        self,
        path: str,
        module: nn.Module,
        slicing: Slicing,
        tracker: Tracker,
        tasks: frozenset[str],
        *,
        declared: bool,
    ) -> None:
        self.path, self.slicing, self.tracker, self.declared = path, slicing, tracker, declared
        self.axis = int(getattr(CONVERSIONS.get(type(module)), "channel_axis", 1))
        part = slicing.part
        own = {"task": frozenset((str(part.key),)), "shared": tasks}
        self.own: frozenset[str] = own.get(part.kind, frozenset())
        self.read: list[tuple[Segment, ...]] = []

    def before(self, _: nn.Module, args: Any) -> None:
        """Note the runs that arrive."""
        tracker, followed = self.tracker, self.tracker.followed
        tracker.inside += 1
        layout = layout_of(args[0])
        followed.sees[self.path] = followed.sees.get(self.path, frozenset()) | tasks_of([args[0]])
        if layout is None or self.declared or self.slicing.inputs:
            return
        if layout.lost:
            raise ValueError(
                f"slimmable: '{self.path}' reads slimmed channels of several parts after '{layout.lost}', "
                "which is not known to keep them in place, so it would not find its own. Declare the layout "
                "in mtvision.models.adapters.slimmable.attention.COMPOSITES, or choose another decoder."
            )
        if layout.axis != self.axis % args[0].ndim:
            return
        runs = layout.segments if len(layout.segments) > 1 else ()
        self.read.append(runs)
        if runs != self.read[0]:
            raise ValueError(
                f"slimmable: '{self.path}' reads channels of one layout in one call and of another in the "
                "next, so it cannot be slimmed."
            )
        if runs:
            followed.inputs[self.path] = runs

    def after(self, module: nn.Module, args: Any, output: Tensor) -> None:
        """Say what was written."""
        self.tracker.inside -= 1
        output._slim_tasks = tasks_of([args[0]]) | self.own  # type: ignore[attr-defined]
        layout, slicing = layout_of(args[0]), self.slicing
        axis = self.axis % output.ndim
        if layout is not None and layout.axis not in (-1, axis):
            set_layout(output, layout if output.shape[layout.axis] == args[0].shape[layout.axis] else None)
        elif not writes_channels(module):
            if layout is None and self.declared:  # reshaped as its module declares
                run = Segment(int(output.shape[axis]), slicing.part, slicing.divisor)
                layout = Layout(axis, (run,))
            set_layout(output, layout)
        elif isinstance(module, nn.Conv2d) and module.groups > 1:
            factor = module.out_channels // module.in_channels
            whole = layout is not None and module.out_channels == factor * module.in_channels
            set_layout(output, _scaled(layout, factor) if layout is not None and whole else None)
        elif self.declared and slicing.blocks > 1:  # its module takes the blocks apart
            set_layout(output, None)
        else:
            run = Segment(int(output.shape[axis]) // slicing.blocks, slicing.part, slicing.divisor)
            set_layout(output, Layout(axis, (run,) * slicing.blocks))


def _scaled(layout: Layout, factor: int) -> Layout:
    runs = [replace(item, base=item.base * factor, divisor=item.divisor * factor) for item in layout.segments]
    return replace(layout, segments=tuple(runs))

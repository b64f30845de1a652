"""Which slice of a full tensor is active: the rule for channel counts, and the state all modules read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mtvision.architecture.widths import WidthConfig
from mtvision.core.context import current_context

DIVISOR = 8
_MILLION = 1_000_000


@lru_cache(maxsize=65536)
def active_channels(base: int, ratio: float, divisor: int = DIVISOR) -> int:
    """Channels that are left of `base` at a ratio.

    The multiple of `divisor` nearest to `base * ratio`, at least one such multiple, not below 90 % of the
    wanted number (the rule of slimmable networks, Yu et al., ICLR 2019), and never more than `base`. All
    layers with equal `base` in one part of a network agree, so that residual branches fit.
    """
    if ratio >= 1:
        return base
    wanted = base * ratio
    count = max(divisor, int(wanted + divisor / 2) // divisor * divisor)
    if count < 0.9 * wanted:
        count += divisor
    return min(base, count)


@dataclass(frozen=True)
class Part:
    """What decides a width: a stage of the encoder, the decoder of a task, the widest decoder, or nothing.

    Args:
        kind: `stage` (index in `key`), `task` (name in `key`), `shared` (a decoder's module that serves
            several tasks: it follows the widest of them) or `fixed`.
        key: index or name.
    """

    kind: Literal["stage", "task", "shared", "fixed"]
    key: int | str = 0


FIXED = Part("fixed")


@dataclass(frozen=True)
class Widths:
    """Ratios in force, complete.

    Args:
        stages: of the encoder.
        tasks: of every task's decoder.
        shared: of what serves several tasks; None = the widest task's.
    """

    stages: tuple[float, ...]
    tasks: Mapping[str, float]
    shared: float | None = None

    @property
    def full(self) -> bool:
        """Whether nothing is slimmed."""
        return min(*self.stages, *self.tasks.values()) >= 1

    def ratio(self, part: Part) -> float:
        """Ratio of a part."""
        if part.kind == "stage":
            return self.stages[int(part.key)]
        if part.kind == "task":
            return self.tasks[str(part.key)]
        if part.kind == "shared":
            return max(self.tasks.values()) if self.shared is None else self.shared
        return 1.0

    def seen_by(self, part: Part, sees: tuple[str, ...] | None = None) -> tuple[float, ...]:
        """Ratios that a part's output depends on: the encoder's up to it, its own or those of `sees`."""
        if part.kind == "stage":
            return self.stages[: int(part.key) + 1]
        if sees is not None:
            return (*self.stages, *(self.tasks[name] for name in sees))
        own = (self.tasks[str(part.key)],) if part.kind == "task" else tuple(self.tasks.values())
        return (*self.stages, *own)


class Slimming(nn.Module):
    """State that all slimmed modules of one network share; a child of the network, named `slimming`.

    It reads `Context.widths` in every forward pass. A width is looked up, nothing is rebuilt: switching costs
    microseconds.

    Args:
        stages: of the encoder.
        tasks: names, in order.
        slots: how many configurations can have calibrated statistics of batch norm at once.
    """

    configurations: Tensor

    def __init__(self, stages: int, tasks: Sequence[str], *, slots: int = 64) -> None:
        super().__init__()
        self.stages, self.tasks, self.slots = stages, tuple(tasks), slots
        table = torch.full((slots, stages + len(tasks)), -1, dtype=torch.int64)
        self.register_buffer("configurations", table)  # ratios in millionths; -1 = the slot is free
        self.collecting = False  # batch norms collect statistics
        self.counting = False  # values do not matter: any statistics do
        self._shared: float | None = None
        self.projectors: nn.ModuleList | None = None
        self._last: tuple[Any, Widths] | None = None
        self._slots: dict[tuple[Part, tuple[str, ...] | None, tuple[float, ...]], int | None] = {}
        self.register_load_state_dict_post_hook(_forget_lookups)  # type: ignore[no-untyped-call]

    def widths(self) -> Widths:
        """The ratios in force: those of the context, or all 1.

        Raises:
            ValueError, UnknownNameError: the context's widths do not fit this network.
        """
        plain = current_context().widths
        last = self._last
        if last is not None and last[0] == plain:
            return last[1]
        value = WidthConfig() if plain is None else WidthConfig.from_plain(plain)
        found = self.complete(value)
        self._last = (None if plain is None else value.to_plain(), found)
        return found

    def complete(self, value: WidthConfig) -> Widths:
        """All ratios of a configuration."""
        tasks = dict(zip(self.tasks, value.tasks(self.tasks), strict=True))
        return Widths(value.stages(self.stages), tasks, self._shared)

    @contextmanager
    def shared_at(self, ratio: float) -> Iterator[None]:
        """Give shared layers a width of their own inside the block, to count what they cost."""
        self._shared, self._last = ratio, None
        try:
            yield
        finally:
            self._shared, self._last = None, None

    def slot(self, part: Part, widths: Widths, sees: tuple[str, ...] | None = None) -> int | None:
        """Slot whose statistics hold for a part at these widths; None if none was calibrated."""
        key = (part, sees, widths.seen_by(part, sees))
        if key not in self._slots:
            self._slots[key] = next(
                (index for index, item in self._calibrated() if item.seen_by(part, sees) == key[2]), None
            )
        return self._slots[key]

    def claim(self, value: WidthConfig) -> int:
        """The slot of exactly this configuration, or a free one, which it gets.

        Raises:
            ValueError: no slot is free.
        """
        row = self._row(self.complete(value))
        table = self.configurations.tolist()
        free = [index for index, item in enumerate(table) if item == row or item[0] < 0]
        if not free:
            raise ValueError(
                f"slimmable: all {self.slots} slots for calibrated statistics are taken. Build the network "
                "with Slimmable(slots=...) larger, or forget() configurations that are not needed."
            )
        same = [index for index in free if table[index] == row]
        chosen = same[0] if same else free[0]
        self.configurations[chosen] = torch.tensor(row, device=self.configurations.device)
        self.forget_lookups()
        return chosen

    def forget(self, value: WidthConfig) -> None:
        """Free the slot of a configuration."""
        row = self._row(self.complete(value))
        for index, item in enumerate(self.configurations.tolist()):
            if item == row:
                self.configurations[index] = -1
        self.forget_lookups()

    def calibrated(self) -> list[WidthConfig]:
        """Configurations that have statistics of their own."""
        return [WidthConfig(item.stages, item.tasks) for _, item in self._calibrated()]

    def forget_lookups(self) -> None:
        """After the table of configurations changed."""
        self._slots = {}

    def _row(self, widths: Widths) -> list[int]:
        return [round(ratio * _MILLION) for ratio in (*widths.stages, *widths.tasks.values())]

    def _calibrated(self) -> list[tuple[int, Widths]]:
        if self.configurations.is_meta:  # a network without values, to count parameters or cost
            return []
        rows = [(index, row) for index, row in enumerate(self.configurations.tolist()) if row[0] >= 0]
        return [(index, self._widths_of([item / _MILLION for item in row])) for index, row in rows]

    def _widths_of(self, row: Sequence[float]) -> Widths:
        tasks = dict(zip(self.tasks, row[self.stages :], strict=True))
        return Widths(tuple(row[: self.stages]), tasks)


def _forget_lookups(module: Slimming, _: Any) -> None:
    module.forget_lookups()


@dataclass(frozen=True)
class Segment:
    """A run of channels that is slimmed on its own, inside an axis where several were concatenated.

    Args:
        base: channels when full.
        part: what decides its width; None = an equal share of what arrives.
        divisor: of its active channels.
    """

    base: int
    part: Part | None = None
    divisor: int = DIVISOR

    def active(self, widths: Widths) -> int:
        """Channels of the run at these widths."""
        return active_channels(self.base, widths.ratio(self.part or FIXED), self.divisor)


@dataclass(frozen=True)
class Slicing:
    """How one module is slimmed.

    Its input is sliced by the channels of the tensor that arrives; its output by the width of its part.

    Args:
        control: the network's shared state.
        part: decides the output's width.
        divisor: of active channels per block of the output.
        blocks: equal runs of channels in the output that are sliced alike (3 for q, k, v).
        inputs: runs of channels in the input, where it is a concatenation.
        sees: tasks whose widths its input depends on; None = that of its part alone.
    """

    control: Slimming
    part: Part
    divisor: int = DIVISOR
    blocks: int = 1
    inputs: tuple[Segment, ...] = field(default=())
    sees: tuple[str, ...] | None = None

    def seen(self, widths: Widths) -> tuple[float, ...]:
        """The ratios that its statistics depend on."""
        return widths.seen_by(self.part, self.sees)

    def arriving(self) -> int:
        """Channels of `inputs` in force."""
        widths = self.control.widths()
        return sum(item.active(widths) for item in self.inputs)

    def written(self, base: int) -> tuple[tuple[int, int], ...]:
        """(base, active) of every block of an output of `base` channels."""
        block = base // self.blocks
        active = active_channels(block, self.control.widths().ratio(self.part), self.divisor)
        return ((block, active),) * self.blocks

    def read(self, base: int, given: int) -> tuple[tuple[int, int], ...]:
        """(base, active) of every run of an input of `base` channels of which `given` arrive.

        Raises:
            ValueError: what arrives does not fit the widths.
        """
        if not self.inputs:
            runs: tuple[tuple[int, int], ...] = ((base, given),)
        elif self.inputs[0].part is None:
            runs = tuple((item.base, given // len(self.inputs)) for item in self.inputs)
        else:
            widths = self.control.widths()
            runs = tuple((item.base, item.active(widths)) for item in self.inputs)
        if sum(active for _, active in runs) != given or any(active > full for full, active in runs):
            raise ValueError(
                f"slimmable: {given} channels arrive where {[active for _, active in runs]} of "
                f"{[full for full, _ in runs]} were expected."
            )
        return runs


def take(tensor: Tensor, axis: int, runs: Sequence[tuple[int, int]]) -> Tensor:
    """The leading `active` channels of every run of `base` channels along an axis; a view where possible."""
    if all(base == active for base, active in runs):
        return tensor
    if len(runs) == 1:
        return tensor.narrow(axis, 0, runs[0][1])
    pieces, start = [], 0
    for base, active in runs:
        pieces.append(tensor.narrow(axis, start, active))
        start += base
    return torch.cat(pieces, dim=axis)

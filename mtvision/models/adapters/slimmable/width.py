"""The widths in force, which all slimmed modules of a network read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mtvision.architecture.widths import Part, WidthConfig, Widths
from mtvision.core.context import current_context

_MILLION = 1_000_000


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
        chosen = table.index(row) if row in table else free[0]
        self.configurations[chosen] = torch.tensor(row, device=self.configurations.device)
        self.forget_lookups()
        return chosen

    def forget(self, value: WidthConfig) -> None:
        """Free the slot of a configuration."""
        row = self.configurations.new_tensor(self._row(self.complete(value)))
        self.configurations[(self.configurations == row).all(dim=1)] = -1
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
        table = [[item / _MILLION for item in row] for row in self.configurations.tolist()]
        return [
            (index, Widths(tuple(row[: self.stages]), dict(zip(self.tasks, row[self.stages :], strict=True))))
            for index, row in enumerate(table)
            if row[0] >= 0
        ]


def _forget_lookups(module: Slimming, _: Any) -> None:
    module.forget_lookups()

"""Widths of the parts of a slimmable network, as a value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

from mtvision.core.naming import UnknownNameError

DIVISOR = 8


@lru_cache(maxsize=65536)
def active_channels(base: int, ratio: float, divisor: int = DIVISOR) -> int:
    """Channels that are left of `base` at a ratio.

    The multiple of `divisor` nearest to `base * ratio`, at least one such multiple and at most `base`. It is
    not below 90 % of `base * ratio` (the rule of slimmable networks, Yu et al., ICLR 2019). All layers with
    equal `base` in one part of a network agree, so that residual branches fit.
    """
    if ratio >= 1:
        return base
    wanted = base * ratio
    count = max(divisor, int(wanted + divisor / 2) // divisor * divisor)
    if count < 0.9 * wanted:
        count += divisor
    return min(base, count)


@dataclass(frozen=True)
class WidthConfig:
    """Widths of a slimmable network, relative to the full one; the default is the full network.

    As plain data, what `to_plain` returns, it travels in `Context.widths`.

    Args:
        encoder: one ratio in (0, 1] for the whole backbone, or one for each of its stages.
        decoders: {task: ratio in (0, 1]}; tasks that are absent are full.

    Raises:
        ValueError: a ratio outside (0, 1].
    """

    encoder: float | tuple[float, ...] = 1.0
    decoders: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        encoder = self.encoder
        if isinstance(encoder, Sequence):
            object.__setattr__(self, "encoder", tuple(float(item) for item in encoder))
        else:
            object.__setattr__(self, "encoder", float(encoder))
        decoders = {str(name): float(ratio) for name, ratio in self.decoders.items()}
        object.__setattr__(self, "decoders", decoders)
        for ratio in (*self._encoder_ratios(), *decoders.values()):
            if not 0 < ratio <= 1:
                raise ValueError(f"widths: a ratio must lie in (0, 1], got {ratio} in {self.to_plain()}.")

    def __hash__(self) -> int:
        return hash((self.encoder, tuple(sorted(self.decoders.items()))))

    def _encoder_ratios(self) -> tuple[float, ...]:
        return self.encoder if isinstance(self.encoder, tuple) else (self.encoder,)

    def stages(self, count: int) -> tuple[float, ...]:
        """One ratio for each of `count` stages.

        Raises:
            ValueError: the encoder has another number of ratios.
        """
        ratios = self._encoder_ratios()
        if not isinstance(self.encoder, tuple):
            return ratios * count
        if len(ratios) != count:
            raise ValueError(
                f"widths: {len(ratios)} ratios for an encoder of {count} stages; give one, or {count}."
            )
        return ratios

    def tasks(self, names: Sequence[str]) -> tuple[float, ...]:
        """One ratio for each task of `names`.

        Raises:
            UnknownNameError: `decoders` has another task.
        """
        for name in self.decoders:
            if name not in names:
                raise UnknownNameError("task in widths", name, names)
        return tuple(self.decoders.get(name, 1.0) for name in names)

    def to_plain(self) -> dict[str, Any]:
        """Numbers, lists and dicts."""
        encoder = list(self.encoder) if isinstance(self.encoder, tuple) else self.encoder
        return {"encoder": encoder, "decoders": dict(self.decoders)}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> WidthConfig:
        """The value that `to_plain` wrote down.

        Raises:
            UnknownNameError: another key than `encoder` and `decoders`.
        """
        for key in plain:
            if key not in ("encoder", "decoders"):
                raise UnknownNameError("key of widths", key, ("encoder", "decoders"))
        return cls(plain.get("encoder", 1.0), plain.get("decoders") or {})

    def __str__(self) -> str:
        encoder = "-".join(f"{ratio:g}" for ratio in self._encoder_ratios())
        return " ".join([f"encoder {encoder}", *(f"{name} {item:g}" for name, item in self.decoders.items())])


@dataclass(frozen=True)
class Part:
    """What decides a width: a stage of the encoder, the decoder of a task, the widest decoder, or nothing.

    Args:
        kind: `stage` (index in `key`, -1 = the last), `task` (name in `key`), `shared` or `fixed`. A module
            of a decoder that serves several tasks is shared: it follows the widest of them.
        key: index or name.
    """

    kind: Literal["stage", "task", "shared", "fixed"]
    key: int | str = 0

    def follows(self, tasks: frozenset[str]) -> frozenset[str]:
        """The tasks, of all, whose decoder widths decide this one."""
        if self.kind == "task":
            return frozenset((str(self.key),))
        return tasks if self.kind == "shared" else frozenset()


FIXED, SHARED, LAST_STAGE = Part("fixed"), Part("shared"), Part("stage", -1)


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

    def active(self, count: int, part: Part, multiple: int = DIVISOR) -> int:
        """Active channels of a run of `count`, a multiple of `multiple`."""
        return active_channels(count, self.ratio(part), multiple)

    def seen_by(self, part: Part, sees: tuple[str, ...] | None = None) -> tuple[float, ...]:
        """Ratios that a part's output depends on: the encoder's up to it, its own or those of `sees`."""
        if part.kind == "stage":
            return self.stages[: int(part.key) + 1]
        if sees is not None:
            return (*self.stages, *(self.tasks[name] for name in sees))
        own = (self.tasks[str(part.key)],) if part.kind == "task" else tuple(self.tasks.values())
        return (*self.stages, *own)

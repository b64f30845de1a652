"""What every width of every part of a slimmable network costs, so that any configuration can be added up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from mtvision.core.context import Context
from mtvision.core.flops import flop_counter
from mtvision.core.widths import WidthConfig
from mtvision.models.adapters.slimmable import slimming_of
from mtvision.models.network import Network
from mtvision.search.latency import measure_latency


@dataclass(frozen=True)
class CostTable:
    """Multiply-accumulates (MACs) per image of the parts of a slimmable network.

    A stage depends on its own width and on that of the stage before; a task's decoder and head on its own
    width and, separately, on that of every stage (its first layers read the pyramid):

        encoder = Σ_k  stages[k][w_(k-1), w_k]
        task t  = own[t][w_t] + Σ_k reads[t][k][w_k, w_t]

    Args:
        size: (H, W) of the image.
        encoder: widths of the encoder in the table, rising.
        decoders: widths of decoders in the table, rising.
        stages: per stage {(width of the stage before, own width): MACs}; the first stage has (own, own).
        own: {task: {width: MACs}} with a full encoder.
        reads: {task: per stage {(stage's width, own width): MACs more than with that stage full}}.
        other: MACs of what belongs to no part.
        latency: milliseconds, measured: {"stages": per stage {width: ms}, "tasks": {task: {width: ms}},
            "device": name}; empty when it was not measured.
    """

    size: tuple[int, int]
    encoder: tuple[float, ...]
    decoders: tuple[float, ...]
    stages: tuple[Mapping[tuple[float, float], int], ...]
    own: Mapping[str, Mapping[float, int]]
    reads: Mapping[str, tuple[Mapping[tuple[float, float], int], ...]]
    other: int = 0
    latency: Mapping[str, Any] = field(default_factory=dict)

    def cost(self, widths: WidthConfig) -> int:
        """MACs of a configuration whose widths are in the table.

        Raises:
            ValueError: a width is not in the table.
        """
        return self.encoder_cost(widths) + sum(self.task_cost(name, widths) for name in self.own) + self.other

    def encoder_cost(self, widths: WidthConfig) -> int:
        """MACs of the backbone."""
        ratios = widths.stages(len(self.stages))
        before = (ratios[0], *ratios[:-1])
        return sum(
            self._find(table, (first, second))
            for table, first, second in zip(self.stages, before, ratios, strict=True)
        )

    def task_cost(self, task: str, widths: WidthConfig) -> int:
        """MACs of a task's decoder and head."""
        own = widths.decoders.get(task, 1.0)
        parts = [
            self._find(table, (ratio, own))
            for table, ratio in zip(self.reads[task], widths.stages(len(self.stages)), strict=True)
        ]
        return self._find(self.own[task], own) + sum(parts)

    def smallest(self) -> WidthConfig:
        """The cheapest configuration of the table."""
        return WidthConfig(self.encoder[0], dict.fromkeys(self.own, self.decoders[0]))

    def largest(self) -> WidthConfig:
        """The most expensive configuration of the table."""
        return WidthConfig(self.encoder[-1], dict.fromkeys(self.own, self.decoders[-1]))

    def _find(self, table: Mapping[Any, int], key: Any) -> int:
        if key not in table:
            raise ValueError(
                f"cost table: no entry for the width {key}; it has {self.encoder} for stages and "
                f"{self.decoders} for decoders. Make the table with the widths you need."
            )
        return table[key]

    def to_plain(self) -> dict[str, Any]:
        """Numbers, lists and dicts, for JSON."""

        def pairs(table: Mapping[tuple[float, float], int]) -> list[list[float]]:
            return [[*key, value] for key, value in table.items()]

        return {
            "size": list(self.size),
            "encoder": list(self.encoder),
            "decoders": list(self.decoders),
            "stages": [pairs(table) for table in self.stages],
            "own": {name: [[key, value] for key, value in table.items()] for name, table in self.own.items()},
            "reads": {name: [pairs(table) for table in tables] for name, tables in self.reads.items()},
            "other": self.other,
            "latency": dict(self.latency),
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> CostTable:
        """The table that `to_plain` wrote down."""

        def table(rows: Sequence[Sequence[float]]) -> dict[tuple[float, float], int]:
            return {(float(first), float(second)): int(value) for first, second, value in rows}

        return cls(
            size=(int(plain["size"][0]), int(plain["size"][1])),
            encoder=tuple(plain["encoder"]),
            decoders=tuple(plain["decoders"]),
            stages=tuple(table(rows) for rows in plain["stages"]),
            own={
                name: {float(key): int(value) for key, value in rows} for name, rows in plain["own"].items()
            },
            reads={name: tuple(table(rows) for rows in tables) for name, tables in plain["reads"].items()},
            other=int(plain["other"]),
            latency=plain.get("latency") or {},
        )


def count_macs(network: Network, size: tuple[int, int], widths: WidthConfig) -> dict[str, int]:
    """Counted MACs per image at one configuration: `stage 0`, …, `task <name>`, `shared`, `other`, `total`.

    Runs the network once, on a black image of `size`; batch norms need no statistics for it.
    """
    image = torch.zeros(1, 3, *size, device=next(network.parameters()).device)
    with _Meter(network) as meter:
        return meter.count(lambda: network(image, context=Context(widths=widths.to_plain())))


def make_cost_table(
    network: Network,
    size: tuple[int, int],
    encoder: Sequence[float],
    decoders: Sequence[float],
    *,
    latency: int = 0,
) -> CostTable:
    """Count every part at every width.

    Args:
        network: slimmable.
        size: (H, W) of the image.
        encoder: widths of the encoder; 1 is added.
        decoders: widths of decoders.
        latency: timed runs per width; 0 = not measured.

    Raises:
        ValueError: the network is not slimmable, or its decoder has layers that serve several tasks: their
            cost depends on all widths at once and cannot be added up; use `count_macs` for such networks.
    """
    parts = {slicing_kind(module) for module in network.decoder.modules()}
    if "shared" in parts:
        raise ValueError(
            "cost table: the decoder has layers that serve several tasks, whose cost depends on all widths "
            "at once. Count configurations one by one with count_macs."
        )
    encoder, decoders = tuple(sorted({1.0, *encoder})), tuple(sorted(set(decoders)))
    image = torch.zeros(1, 3, *size, device=next(network.parameters()).device)
    with _Meter(network) as meter:
        stages, other = _count_stages(meter, image, encoder)
        own, reads = _count_tasks(meter, image, encoder, decoders)
    return CostTable(
        size=size,
        encoder=encoder,
        decoders=decoders,
        stages=tuple(stages),
        own=own,
        reads={name: tuple(tables) for name, tables in reads.items()},
        other=other,
        latency=measure_latency(network, size, encoder, decoders, latency) if latency else {},
    )


def slicing_kind(module: nn.Module) -> str | None:
    """`stage`, `task`, `shared` or `fixed` of a slimmed layer; None for every other module."""
    slicing = getattr(module, "slicing", None)
    return None if slicing is None else str(slicing.part.kind)


Pairs = dict[tuple[float, float], int]


def _count_stages(meter: _Meter, image: Tensor, encoder: Sequence[float]) -> tuple[list[Pairs], int]:
    """Two widths in turn over the stages show every pair of neighbours, in both orders."""
    network, count = meter.network, meter.control.stages
    stages: list[Pairs] = [{} for _ in range(count)]
    other = 0
    for pair in product(encoder, repeat=2):
        ratios = tuple(pair[index % 2] for index in range(count))
        with network.context(widths=WidthConfig(ratios).to_plain()):
            counted = meter.count(lambda: network.backbone(image))
        for index, own in enumerate(ratios):
            stages[index][own if index == 0 else ratios[index - 1], own] = counted[f"stage {index}"]
        other = counted["other"]
    return stages, other


def _count_tasks(
    meter: _Meter, image: Tensor, encoder: Sequence[float], decoders: Sequence[float]
) -> tuple[dict[str, dict[float, int]], dict[str, list[Pairs]]]:
    """Decoders and heads on pyramids of which one stage is slimmed."""
    network, names, count = meter.network, meter.control.tasks, meter.control.stages

    def run(index: int, ratio: float) -> dict[float, dict[str, int]]:
        ratios = tuple(ratio if other == index else 1.0 for other in range(count))
        with network.context(widths=WidthConfig(ratios).to_plain()):
            pyramid = network.backbone(image)

        def call() -> None:
            for name, feature in network.decoder(pyramid).features.items():
                network.heads[name](feature)

        result = {}
        for own in decoders:
            with network.context(widths=WidthConfig(ratios, dict.fromkeys(names, own)).to_plain()):
                result[own] = meter.count(call)
        return result

    full = run(0, 1.0)
    reads: dict[str, list[Pairs]] = {name: [{} for _ in range(count)] for name in names}
    for index, ratio in product(range(count), encoder):
        counted = full if ratio == 1 else run(index, ratio)
        for name, own in product(names, decoders):
            key = f"task {name}"
            reads[name][index][ratio, own] = counted[own][key] - full[own][key]
    return {name: {own: counted[f"task {name}"] for own, counted in full.items()} for name in names}, reads


class _Meter:
    """Counts what calls inside a network cost, part by part; the network is in evaluation mode meanwhile."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.control = slimming_of(network)
        self._counter = flop_counter()
        self._parts = dict(self._find_parts())
        self._stack: list[str] = []
        self._seen = 0
        self._result: dict[str, int] = {}

    def __enter__(self) -> _Meter:
        self._modes = {item: item.training for item in self.network.modules()}
        self.network.eval()
        self.control.counting = True
        self._grad = torch.is_grad_enabled()
        torch.set_grad_enabled(False)
        self._handles = []
        for module in self._parts:
            self._handles.append(module.register_forward_pre_hook(self._enter_module))
            self._handles.append(module.register_forward_hook(self._leave_module))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        torch.set_grad_enabled(self._grad)
        self.control.counting = False
        for item, mode in self._modes.items():
            item.training = mode

    def count(self, call: Callable[[], Any]) -> dict[str, int]:
        """MACs of one call by part, and in `total`."""
        names = [f"stage {index}" for index in range(self.control.stages)]
        names += [f"task {name}" for name in self.control.tasks]
        self._result = dict.fromkeys([*names, "shared", "other"], 0)
        self._stack, self._seen = ["other"], 0
        self._counter = flop_counter()
        with self._counter:
            call()
            self._charge()
        macs = {name: flops // 2 for name, flops in self._result.items()}
        return {**macs, "total": sum(macs.values())}

    def _find_parts(self) -> Iterator[tuple[nn.Module, str]]:
        for path, module in self.network.named_modules():
            keys = path.split(".")
            task = next((key for key in keys[1:] if key in self.control.tasks), None)
            slicing = getattr(module, "slicing", None)
            if keys[0] in ("decoder", "heads") and task is not None:
                yield module, f"task {task}"
            elif slicing is not None:
                kind = slicing.part.kind
                yield module, f"stage {slicing.part.key}" if kind == "stage" else "shared"

    def _charge(self) -> None:
        total = self._counter.get_total_flops()
        self._result[self._stack[-1]] += total - self._seen
        self._seen = total

    def _enter_module(self, module: nn.Module, _: Any) -> None:
        self._charge()
        self._stack.append(self._parts[module])

    def _leave_module(self, module: nn.Module, _: Any, __: Any) -> None:
        self._charge()
        self._stack.pop()

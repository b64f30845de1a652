"""Cost of every width of every part of a slimmable network; the cost of any configuration is a sum."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import combinations, product
from typing import Any

import torch
from torch import Tensor, nn

from mtvision.architecture.widths import WidthConfig
from mtvision.core.context import Context
from mtvision.models.adapters.slimmable import Sliced, slimming_of
from mtvision.models.network import Network
from mtvision.ops.flops import flop_counter
from mtvision.search.latency import measure_latency

Widths = tuple[float, ...]
Terms = dict[tuple[str, ...], dict[Widths, int]]


@dataclass(frozen=True)
class CostTable:
    """Multiply-accumulates (MACs) per image of a slimmable network, as a sum over parts and pairs of parts.

    A layer costs (channels read) x (channels written) x positions, so no term depends on more than two
    widths:

        cost = other + Σ_terms  terms[parts][widths of these parts]

    Parts are `stage 0`, …, `task <name>` and `shared`: layers of the decoder that serve several tasks and are
    as wide as the widest of them.

    Args:
        size: (H, W) of the image.
        encoder: widths of the encoder in the table, rising.
        decoders: widths of decoders in the table, rising.
        stages: of the encoder.
        tasks: names, in order.
        terms: {one or two parts: {their widths: MACs}}; entries may be negative.
        other: MACs that no width changes.
        latency: milliseconds, measured: {"stages": per stage {width: ms}, "tasks": {task: {width: ms}},
            "device": name}; empty when it was not measured.
    """

    size: tuple[int, int]
    encoder: tuple[float, ...]
    decoders: tuple[float, ...]
    stages: int
    tasks: tuple[str, ...]
    terms: Mapping[tuple[str, ...], Mapping[Widths, int]]
    other: int = 0
    latency: Mapping[str, Any] = field(default_factory=dict)

    def cost(self, widths: WidthConfig) -> int:
        """MACs of a configuration whose widths are in the table.

        Raises:
            ValueError: a width is not in the table.
        """
        ratios = {f"stage {index}": ratio for index, ratio in enumerate(widths.stages(self.stages))}
        tasks = widths.tasks(self.tasks)
        ratios |= {f"task {name}": ratio for name, ratio in zip(self.tasks, tasks, strict=True)}
        ratios["shared"] = max(tasks)
        total = self.other
        for parts, table in self.terms.items():
            key = tuple(ratios[part] for part in parts)
            if key not in table:
                raise ValueError(
                    f"cost table: no entry for the width {key} of {' and '.join(parts)}; it has "
                    f"{self.encoder} for stages and {self.decoders} for decoders. Make the table with the "
                    "widths you need."
                )
            total += table[key]
        return total

    def smallest(self) -> WidthConfig:
        """The cheapest configuration of the table."""
        return WidthConfig(self.encoder[0], dict.fromkeys(self.tasks, self.decoders[0]))

    def largest(self) -> WidthConfig:
        """The most expensive configuration of the table."""
        return WidthConfig(self.encoder[-1], dict.fromkeys(self.tasks, self.decoders[-1]))

    def to_plain(self) -> dict[str, Any]:
        """Numbers, lists and dicts, for JSON."""
        terms = [
            [list(parts), [[*key, value] for key, value in table.items()]]
            for parts, table in self.terms.items()
        ]
        plain = {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()}
        return {**plain, "terms": terms, "latency": dict(self.latency)}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> CostTable:
        """The table that `to_plain` wrote down.

        Raises:
            ValueError: it has another form.
        """
        missing = {"size", "encoder", "decoders", "stages", "tasks", "terms", "other"} - set(plain)
        if missing:
            raise ValueError(
                f"cost table: {', '.join(sorted(missing))} missing, so it is damaged or of another version. "
                "Delete the file (width_table.json) and run tools/controllable.py or tools/search.py again."
            )
        terms = {
            tuple(parts): {tuple(map(float, row[:-1])): int(row[-1]) for row in rows}
            for parts, rows in plain["terms"]
        }
        return cls(
            size=(int(plain["size"][0]), int(plain["size"][1])),
            encoder=tuple(plain["encoder"]),
            decoders=tuple(plain["decoders"]),
            stages=int(plain["stages"]),
            tasks=tuple(plain["tasks"]),
            terms=terms,
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

    First all stages, and all tasks, are tried at once. This is not exact for mixtures if tasks share layers
    or exchange features, or if a stage reads more than the one before. Then parts are tried one by one and
    two by two, which takes more passes.

    Raises:
        ValueError: the network is not slimmable.
    """
    encoder, decoders = tuple(sorted({1.0, *encoder})), tuple(sorted({1.0, *decoders}))
    image = torch.zeros(1, 3, *size, device=next(network.parameters()).device)
    control = slimming_of(network)
    table = CostTable(size, encoder, decoders, control.stages, control.tasks, {})
    if not tasks_are_coupled(network):
        with _Meter(network) as meter:
            table = replace(table, **_count_independent(meter, image, encoder, decoders))
    if not table.terms or not _explains(table, network):
        with _Meter(network) as meter:
            table = replace(table, **_count_coupled(meter, image, encoder, decoders))
    if latency:
        table = replace(table, latency=measure_latency(network, size, encoder, decoders, latency))
    return table


def _explains(table: CostTable, network: Network) -> bool:
    """Whether a table predicts configurations that it was not made from."""
    low, own = table.encoder[0], table.decoders[0]
    for place in range(min(3, table.stages)):  # a period of three parts neighbours but one
        ratios = tuple(low if index % 3 == place else 1.0 for index in range(table.stages))
        names = {name: own for index, name in enumerate(table.tasks) if index % 2 == place % 2}
        widths = WidthConfig(ratios, names)
        counted = count_macs(network, table.size, widths)["total"]
        if abs(table.cost(widths) - counted) > NEGLIGIBLE * counted:
            return False
    return True


NEGLIGIBLE = 1e-6
"""Share of the cost up to which differences are rounding: halves are rounded part by part."""


def tasks_are_coupled(network: Network) -> bool:
    """Whether a task's decoder depends on the widths of other tasks."""
    slicings = [item.slicing for item in network.decoder.modules() if isinstance(item, Sliced)]
    return any(item.part.kind == "shared" or len(item.sees or ()) > 1 for item in slicings)


def _count_coupled(
    meter: _Meter, image: Tensor, encoder: Sequence[float], decoders: Sequence[float]
) -> dict[str, Any]:
    """Terms and constant: differences to the full network of each part alone, and what each pair adds."""
    network, control = meter.network, meter.control
    stages = [f"stage {index}" for index in range(control.stages)]
    tasks = [f"task {name}" for name in control.tasks]
    ratios = {**dict.fromkeys(stages, encoder), **dict.fromkeys([*tasks, "shared"], decoders)}

    @cache
    def counted(parts: frozenset[tuple[str, float]]) -> int:
        given = dict(parts)
        own = {name: given.get(f"task {name}", 1.0) for name in control.tasks}
        widths = WidthConfig(tuple(given.get(name, 1.0) for name in stages), own)
        with control.shared_at(given.get("shared", 1.0)), network.context(widths=widths.to_plain()):
            return meter.count(lambda: network(image))["total"]

    def total(given: Mapping[str, float]) -> int:
        return counted(frozenset(given.items()))

    full = total({})
    terms: Terms = {
        (part,): {(ratio,): total({part: ratio}) - full for ratio in row} for part, row in ratios.items()
    }
    for one, two in combinations(ratios, 2):

        def extra(first: float, second: float, one: str = one, two: str = two) -> int:
            if 1 in (first, second):
                return 0
            alone = terms[one,][first,] + terms[two,][second,]
            return total({one: first, two: second}) - full - alone

        if abs(extra(ratios[one][0], ratios[two][0])) > NEGLIGIBLE * full:
            terms[one, two] = {pair: extra(*pair) for pair in product(ratios[one], ratios[two])}
    return {"terms": terms, "other": full}


def _count_independent(
    meter: _Meter, image: Tensor, encoder: Sequence[float], decoders: Sequence[float]
) -> dict[str, Any]:
    """Terms and constant where a stage depends on the one before too, and a task on every stage."""
    stages, other = _count_stages(meter, image, encoder)
    own, reads = _count_tasks(meter, image, encoder, decoders)
    terms: Terms = {("stage 0",): {(second,): value for (_, second), value in stages[0].items()}}
    for index, pairs in enumerate(stages[1:], start=1):
        terms[f"stage {index - 1}", f"stage {index}"] = dict(pairs.items())
    for name, alone in own.items():
        terms[f"task {name}",] = {(width,): value for width, value in alone.items()}
        for index, pairs in enumerate(reads[name]):
            terms[f"stage {index}", f"task {name}"] = dict(pairs.items())
    return {"terms": terms, "other": other}


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
            if keys[0] in ("decoder", "heads") and task is not None:
                yield module, f"task {task}"
            elif isinstance(module, Sliced):
                part = module.slicing.part
                yield module, f"stage {part.key}" if part.kind == "stage" else "shared"

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

"""Which part every layer of a network belongs to, found by running it once on a black image."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from mtvision.architecture.widths import DIVISOR
from mtvision.models.declarations import Channels, Part
from mtvision.models.declarations.declaration import Runs
from mtvision.models.declarations.reading import Rules, declaration_error, parts_named
from mtvision.models.dry_run import dry_run
from mtvision.models.network import Network


@dataclass
class Plan:
    """What the dry run found.

    Args:
        parts: {module path: part}, of every module that ran.
        fixed: paths of layers whose output channels are those of a task's logits.
        multiples: {part: what its active channels must be a multiple of}, where that is not 8.
        stages: of the encoder.
    """

    parts: dict[str, Part] = field(default_factory=dict)
    fixed: set[str] = field(default_factory=set)
    multiples: dict[Part, int] = field(default_factory=dict)
    stages: int = 1

    def resolved(self, runs: Runs, full: int, part: Part) -> tuple[Channels, ...]:
        """Runs with their parts and multiples.

        Args:
            runs: as declared.
            full: channels that a single part stands for.
            part: what `None` stands for.
        """
        given = (Channels(full, runs),) if isinstance(runs, Part) else runs
        return tuple(self.resolved_run(run, part) for run in given)

    def resolved_run(self, run: Channels, part: Part) -> Channels:
        """A run with its part and multiple."""
        own = self.placed(run.part or part)
        return replace(run, part=own, multiple=run.multiple or self.multiples.get(own, DIVISOR))

    def placed(self, part: Part) -> Part:
        """A part whose stage is counted from the first."""
        last = part.kind == "stage" and int(part.key) < 0
        return Part("stage", self.stages + int(part.key)) if last else part


def make_plan(network: Network, rules: Rules) -> Plan:
    """Note in which stage, or for which task, every module runs.

    A stage is what runs up to one level of the pyramid. An encoder whose levels share a stride (ViT) or
    cannot be distinguished is a single stage with one width.
    """
    plan = Plan()
    writers = {path for path, rule in rules.modules.items() if rule.layer and rule.layer.outputs}
    starts, ends, plan.stages = _boundaries(network)
    stage = [0]
    order: list[str] = []
    written: dict[int, str] = {}

    def watch(path: str, module: nn.Module) -> Iterator[Any]:
        def before(_: nn.Module, __: Any) -> None:
            stage[0] = starts.get(path, stage[0])
            plan.parts.setdefault(path, _part(path, stage[0], network.task_names))
            order.append(path)

        def after(_: nn.Module, __: Any, output: Any) -> None:
            stage[0] = min(ends.get(path, stage[0]), plan.stages - 1)
            if isinstance(output, Tensor) and path in writers:
                written[id(output)] = path

        yield module.register_forward_pre_hook(before)
        yield module.register_forward_hook(after)

    with ExitStack() as stack:
        for path, module in network.named_modules():
            for handle in watch(path, module):
                stack.callback(handle.remove)
        result = dry_run(network, training=True)
    plan.fixed = {written[id(item.logits)] for item in result.decoded.auxiliary if id(item.logits) in written}
    for task, logits in result.logits.items():
        inside = [path for path in order if path.startswith(f"heads.{task}.") and path in writers]
        plan.fixed |= {written.get(id(logits), inside[-1] if inside else f"heads.{task}")}
    _apply(network, rules, plan)
    return plan


def _apply(network: Network, rules: Rules, plan: Plan) -> None:
    """Parts and multiples that modules declare."""
    modules = dict(network.named_modules())
    named = list(rules.parts.values())
    named += [item for rule in rules.modules.values() for item in parts_named(rule)]
    for path, part in named:
        _check(path, modules[path], part, plan.stages, network.task_names)
    for inside, (_, part) in rules.parts.items():
        for path in plan.parts:
            if path == inside or path.startswith(f"{inside}."):
                plan.parts[path] = plan.placed(part)
    for path, rule in rules.modules.items():
        if path in plan.parts and rule.multiple > 1:
            part = plan.parts[path]
            plan.multiples[part] = math.lcm(plan.multiples.get(part, DIVISOR), rule.multiple)


def _check(path: str, module: nn.Module, part: Part, stages: int, tasks: Sequence[str]) -> None:
    known = {"stage": part.key in range(-stages, stages), "task": part.key in tasks}
    if not known.get(part.kind, part.kind in ("shared", "fixed")):
        raise declaration_error(
            path,
            module,
            f"unknown part {part.kind} {part.key!r}. There are {stages} stages of the encoder, the tasks "
            f"{', '.join(tasks)}, `shared` and `fixed`.",
        )


def _boundaries(network: Network) -> tuple[dict[str, int], dict[str, int], int]:
    """{module that begins: stage}, {module that ends: next stage}, number of stages."""
    backbone = network.backbone
    if len(set(backbone.strides)) < len(backbone.strides):
        return {}, {}, 1
    if backbone.exits:
        names = backbone.block_names()
        starts = {
            f"backbone.{name}": sum(1 for exit_ in backbone.exits if exit_ <= index)
            for index, name in enumerate(names)
        }
        return starts, {}, len(backbone.exits)
    paths = [f"backbone.{name}" for name in backbone.level_modules()]
    if paths and all(path in dict(network.named_modules()) for path in paths):
        return {}, {path: index + 1 for index, path in enumerate(paths)}, len(paths)
    return {}, {}, 1


def _part(path: str, stage: int, tasks: Sequence[str]) -> Part:
    keys = path.split(".")
    if keys[0] == "backbone":
        return Part("stage", stage)
    task = next((key for key in keys[1:] if key in tasks), None)
    return Part("shared") if task is None else Part("task", task)

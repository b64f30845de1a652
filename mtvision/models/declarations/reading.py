"""The declarations of a network's modules, read together and checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from mtvision.models.declarations import Channels, Declaration, Layer, Part, declaration_of
from mtvision.models.declarations.declaration import Length, Runs, Side, declared_classes


@dataclass
class Rule:
    """What is declared about one module, by itself and by modules around it; the outermost wins.

    Args:
        layer: if it is a layer.
        tensors: see `Declaration`, of its own tensors alone.
        numbers: likewise.
        writes: see `Declaration`, of its own result.
        reads: of its own input.
        part: of the module, where one is declared.
        multiple: see `Declaration`.
        said_by: {`tensors`, `writes`, `reads`: path of the module that declares them}.
    """

    layer: Layer | None = None
    tensors: dict[str, Mapping[int, Length]] = field(default_factory=dict)
    numbers: dict[str, Any] = field(default_factory=dict)
    writes: Runs = ()
    reads: Runs = ()
    part: Part | None = None
    multiple: int = 1
    said_by: dict[str, str] = field(default_factory=dict)

    @property
    def converts(self) -> bool:
        """Whether the module is replaced by a sliced one."""
        return bool(self.layer or self.tensors or self.numbers or self.part)


@dataclass
class Rules:
    """All declarations of a network.

    Args:
        modules: {path: what is declared}, of modules about which something is.
        parts: {path: (path of the module that declares it, part of everything below)}, innermost last.
    """

    modules: dict[str, Rule] = field(default_factory=dict)
    parts: dict[str, tuple[str, Part]] = field(default_factory=dict)


class DeclarationError(ValueError):
    """A declaration that does not fit its module."""


def read_rules(network: nn.Module) -> Rules:
    """The declarations of all modules inside a network.

    Raises:
        DeclarationError: paths or numbers of channels do not exist or do not add up.
        ValueError: a module cannot be slimmed, or says nothing of its parameters.
    """
    return _Reader(network).rules


class _Reader:
    def __init__(self, network: nn.Module) -> None:
        self.rules, self.modules = Rules(), dict(network.named_modules())
        for path, module in self.modules.items():
            said = declaration_of(module)
            if said is not None:
                self._refuse(path, said)
                self._collect(path, said)
        for path, rule in self.rules.modules.items():
            self._check_tensors(path, rule)
            self._check_runs(path, rule)
        self._check_covered()

    def _refuse(self, path: str, said: Declaration) -> None:
        if said.cannot_slim:
            raise ValueError(
                f"slimmable: '{path}' is a {type(self.modules[path]).__name__}, which cannot be slimmed: "
                f"{said.cannot_slim}. Choose another backbone and decoder."
            )

    def _collect(self, path: str, said: Declaration) -> None:
        own = self._rule(path)
        claimed = "tensors" in own.said_by
        own.layer = None if claimed else said.layer
        own.part, own.multiple = said.part, said.multiple
        for below, part in said.parts.items():
            self.rules.parts[self._place(path, below, "parts")] = (path, part)
        said_of: dict[str, Mapping[str, Any]] = {"tensors": said.tensors, "numbers": said.numbers}
        for table, entries in said_of.items():
            for key, value in entries.items():
                below, _, name = key.rpartition(".")
                rule = self._rule(self._place(path, below, table))
                if rule.said_by.setdefault("tensors", path) == path:
                    getattr(rule, table)[name] = value
        for side, runs in (("writes", said.writes), ("reads", said.reads)):
            for below, value in runs.items():
                rule = self._rule(self._place(path, below, side))
                if rule.said_by.setdefault(side, path) == path:
                    setattr(rule, side, value)

    def _rule(self, path: str) -> Rule:
        return self.rules.modules.setdefault(path, Rule())

    def _place(self, path: str, below: str, table: str) -> str:
        place = ".".join(item for item in (path, below) if item)
        if place not in self.modules:
            children = ", ".join(name for name, _ in self.modules[path].named_children()) or "none"
            raise self._error(
                path, f"{table} names '{below}', which it does not have (children: {children})."
            )
        return place

    def _error(self, path: str, problem: str) -> DeclarationError:
        return declaration_error(path, self.modules[path], problem)

    def _check_tensors(self, path: str, rule: Rule) -> None:
        module = self.modules[path]
        for name, axes in rule.tensors.items():
            tensor = _tensor(module, name)
            if tensor is None:
                if name not in module._parameters and module.__dict__.get(name) is not None:
                    raise self._error(rule.said_by["tensors"], f"'{name}' of '{path}' is no tensor.")
                continue
            for axis, length in axes.items():
                count = _entries(rule, length)
                if axis >= tensor.ndim or count != tensor.shape[axis]:
                    raise self._error(
                        rule.said_by["tensors"],
                        f"the runs of axis {axis} of '{name}' in '{path}' add up to {count} entries, and its "
                        f"shape is {tuple(tensor.shape)}.",
                    )

    def _check_runs(self, path: str, rule: Rule) -> None:
        for side, runs in (("writes", rule.writes), ("reads", rule.reads)):
            if side not in rule.said_by:
                continue
            by, layer = rule.said_by[side], rule.layer
            full = None if layer is None else layer.inputs if side == "reads" else layer.outputs
            if full is None:
                kind = type(self.modules[path]).__name__
                raise self._error(by, f"{side} names '{path}', and a {kind} decides nothing there.")
            count = full if isinstance(runs, Part) else sum(run.count for run in runs)
            if count != full:
                raise self._error(by, f"'{path}' {side} {full} channels, and its runs add up to {count}.")

    def _check_covered(self) -> None:
        """Every parameter belongs to a declaration."""
        for path, module in self.modules.items():
            told = self.rules.modules.get(path, Rule()).tensors
            left = [
                name for name, item in module._parameters.items() if item is not None and name not in told
            ]
            if left:
                raise ValueError(
                    f"slimmable: '{path}' is a {type(module).__name__}, which cannot be slimmed: nothing "
                    f"says how its {', '.join(left)} are sliced. Layers that are known: "
                    f"{', '.join(declared_classes())}. Declare it (docs/slimmable.md), or choose a backbone, "
                    "decoder or head made of these."
                )


def declaration_error(path: str, module: nn.Module, problem: str) -> DeclarationError:
    """An error that names the class and place of the module that declares."""
    return DeclarationError(
        f"slimmable: the declaration of {type(module).__name__} ('{path}') does not fit: {problem}"
    )


def parts_named(rule: Rule) -> Iterator[tuple[str, Part]]:
    """(path of the module that declares it, part) of all parts in a rule."""
    lengths = [length for axes in rule.tensors.values() for length in axes.values()]
    places = [("tensors", item) for item in (*lengths, *rule.numbers.values())]
    for table, length in (*places, ("writes", rule.writes), ("reads", rule.reads)):
        runs = (length,) if isinstance(length, Part | Channels) else length
        for run in () if isinstance(runs, Side) else runs:
            part = run.part if isinstance(run, Channels) else run if isinstance(run, Part) else None
            if part is not None:
                yield rule.said_by[table], part


def _tensor(module: nn.Module, name: str) -> Tensor | None:
    found = module._parameters.get(name)
    return module._buffers.get(name) if found is None else found


def _entries(rule: Rule, length: Length) -> int:
    """Entries of an axis at full width."""
    if isinstance(length, Side):
        layer = rule.layer or Layer(0, 0)
        full = layer.inputs if length.name == "reads" else layer.outputs or 0
        return int(full * length.scale)
    runs = (length,) if isinstance(length, Channels) else length
    return int(sum(run.count * run.scale for run in runs))

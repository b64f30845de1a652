"""Modules whose tensors and numbers are those in force, and how they take the plain modules' places.

A sliced module belongs to a subclass of the plain class in which every declared tensor and number is a
property. So the plain `forward` runs unchanged on slices. Parameters, buffers, hooks and children are those
of the plain module, under the same names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mtvision.models.adapters.slimmable.slicing import Slicing


class Sliced(nn.Module):
    """Base of all modules that are slimmed.

    Attributes:
        slicing: which slice is active.
        plain: class of the plain module.
        given: channels that arrived last; None before the first pass, and for what is no layer.
    """

    slicing: Slicing
    plain: type[nn.Module]
    given: int | None


class SlicedModule(Sliced):
    """Base of the classes that `slice_module` makes."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The plain forward pass, on slices."""
        layer = self.slicing.layer
        if layer is not None:
            tensor = args[0] if args else next(iter(kwargs.values()))
            self.__dict__["given"] = int(tensor.shape[layer.axis])
            self.slicing.check(self.__dict__["given"])
        return super().forward(*args, **kwargs)

    def __reduce_ex__(self, protocol: Any) -> Any:  # the class cannot be found by its name
        return _empty, (self.plain, tuple(self.slicing.tensors), tuple(self.slicing.numbers)), self.__dict__

    def in_force(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Active slices of all tensors that are there, and all numbers."""
        tensors = {name: getattr(self, name) for name in self.slicing.tensors}
        numbers = {name: getattr(self, name) for name in self.slicing.numbers}
        return {name: item for name, item in tensors.items() if item is not None}, numbers


def slice_module(module: nn.Module, slicing: Slicing) -> SlicedModule:
    """The sliced module that takes the place of a plain one."""
    kind = _class(type(module), tuple(slicing.tensors), tuple(slicing.numbers))
    sliced: SlicedModule = same_state(module, kind)
    sliced.__dict__.update(slicing=slicing, plain=type(module), given=None)
    return sliced


def plain_module(module: Sliced, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> nn.Module:
    """The plain module with these parameters, buffers and numbers of its own."""
    plain: nn.Module = same_state(module, module.plain)
    for name in ("slicing", "plain", "given"):
        plain.__dict__.pop(name)
    for table in ("_parameters", "_buffers", "_modules"):
        plain.__dict__[table] = dict(plain.__dict__[table])
    for name, value in tensors.items():
        own = value.detach().clone(memory_format=torch.contiguous_format)
        if name in plain._parameters:
            plain._parameters[name] = nn.Parameter(own)
        else:
            plain._buffers[name] = own
    plain.__dict__.update(numbers)
    return plain


def same_state(module: nn.Module, kind: type[nn.Module]) -> Any:
    """A module of another class with the same parameters, buffers, children, hooks and attributes."""
    made = kind.__new__(kind)
    made.__dict__.update(module.__dict__)
    return made


def replace_modules(root: nn.Module, replaced: Mapping[nn.Module, nn.Module]) -> None:
    """Put modules in the places of others, wherever those are children of something below `root`."""
    for parent in (*root.modules(), *replaced.values()):
        for name, child in parent._modules.items():
            if child is not None and child in replaced:
                parent._modules[name] = replaced[child]


def _empty(plain: type[nn.Module], tensors: Iterable[str], numbers: Iterable[str]) -> nn.Module:
    kind = _class(plain, tuple(tensors), tuple(numbers))
    return kind.__new__(kind)


_CLASSES: dict[Any, type[SlicedModule]] = {}


def _class(plain: type[nn.Module], tensors: tuple[str, ...], numbers: tuple[str, ...]) -> type[SlicedModule]:
    key = (plain, tensors, numbers)
    if key not in _CLASSES:
        members = {name: _tensor(name) for name in tensors} | {name: _number(name) for name in numbers}
        bases = (SlicedModule, plain)
        _CLASSES[key] = type(f"Sliced{plain.__name__}", bases, {**members, "__doc__": plain.__doc__})
    return _CLASSES[key]


def _tensor(name: str) -> property:
    def active(module: SlicedModule) -> Tensor | None:
        full: Tensor | None = module._parameters.get(name)
        full = module._buffers.get(name) if full is None else full
        return None if full is None else module.slicing.cut(name, full, module.given)

    return property(active)


def _number(name: str) -> property:
    def active(module: SlicedModule) -> int | tuple[int, ...]:
        return module.slicing.count(name, module.given)

    return property(active)

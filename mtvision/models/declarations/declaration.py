"""How a module tells which of its channels are slimmed together, what stays whole, and whether it may branch.

A class of one's own inherits from `Declares` and overrides `declaration`. The declaration of a class of
somebody else is registered with `declare`. Everything else has defaults. A layer is as wide as the part of
the network that it runs in. The channels that it reads are found automatically.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, Literal

from torch import nn

from mtvision.architecture.widths import Part


@dataclass(frozen=True)
class Channels:
    """A run of channels that is slimmed on its own: its leading channels stay.

    Args:
        count: channels when full.
        part: decides the width; None = the part of the module that declares.
        multiple: what the number of active channels is a multiple of; None = that of the part.
        scale: entries of a tensor, or units of a number, per channel.
    """

    count: int
    part: Part | None = None
    multiple: int | None = None
    scale: Fraction = Fraction(1)

    def per(self, size: int) -> Channels:
        """One entry for every `size` channels, e.g. the heads of an attention."""
        return replace(self, scale=self.scale / size)


@dataclass(frozen=True)
class Side:
    """The channels that a layer reads or writes, however they are divided into runs.

    Args:
        name: which side.
        scale: entries per channel.
    """

    name: Literal["reads", "writes"]
    scale: Fraction = Fraction(1)

    def times(self, factor: Fraction | int) -> Side:
        """`factor` entries for every channel."""
        return replace(self, scale=self.scale * factor)

    def per(self, size: int) -> Side:
        """One entry for every `size` channels."""
        return replace(self, scale=self.scale / size)


READS, WRITES = Side("reads"), Side("writes")

Length = Side | Channels | Sequence[Channels]
"""How long an axis of a tensor is, or how large a number: one run, several in a row, or a side of a layer."""

Runs = Part | Sequence[Channels]
"""All channels of a part, or several runs in a row."""


@dataclass(frozen=True)
class Layer:
    """What a module says that reads one tensor with channels and writes one.

    Args:
        axis: of the channels, in the first argument and in the result.
        inputs: channels that are read when full.
        outputs: channels that are written when full; None = those that are read stay in place (norms).
        factor: channels written for every one that stays in place.
        batch_axis: axis of the images.
        normalises: by statistics of the batch, so that every width needs statistics of its own.
    """

    axis: int
    inputs: int
    outputs: int | None = None
    factor: Fraction = Fraction(1)
    batch_axis: int = 0
    normalises: bool = False


@dataclass(frozen=True)
class Declaration:
    """How a module slims and branches. Paths are those of modules and tensors inside it.

    Args:
        tensors: {path of a parameter or buffer: {axis: its runs}}; axes that are not named stay whole, and so
            does a tensor with `{}`. What a layer inside has of its own is then left to this declaration.
        numbers: {path of an attribute: the channels, heads, … that it counts}, in a tuple where it is one.
        writes: {path of a layer: runs of its result}, where it is not one run of its own part.
        reads: {path of a layer: runs of its input}, where they cannot be followed.
        parts: {path: part of everything below}, where the place in the network does not tell it.
        part: of the module itself.
        multiple: active channels of its part are a multiple of this.
        layer: the module is a layer.
        cannot_slim: why not.
        cannot_branch: why its tasks, or its levels, cannot have copies of the backbone's blocks of their own.
    """

    tensors: Mapping[str, Mapping[int, Length]] = field(default_factory=dict)
    numbers: Mapping[str, Length | tuple[Side]] = field(default_factory=dict)
    writes: Mapping[str, Runs] = field(default_factory=dict)
    reads: Mapping[str, Runs] = field(default_factory=dict)
    parts: Mapping[str, Part] = field(default_factory=dict)
    part: Part | None = None
    multiple: int = 1
    layer: Layer | None = None
    cannot_slim: str = ""
    cannot_branch: str = ""


class Declares:
    """Base of modules that declare something."""

    def declaration(self) -> Declaration:
        """How this module slims and branches; by default nothing is said."""
        return Declaration()


Rule = Callable[[Any], Declaration]
_RULES: dict[type[nn.Module], Rule] = {}


def declare(*classes: type[nn.Module]) -> Callable[[Rule], Rule]:
    """Register a function from a module to its declaration, for classes that cannot inherit `Declares`.

    It holds for these classes, not for their subclasses, whose channels may lie differently.
    """

    def register(rule: Rule) -> Rule:
        _RULES.update(dict.fromkeys(classes, rule))
        return rule

    return register


def declaration_of(module: nn.Module) -> Declaration | None:
    """What a module declares; None if its class says nothing."""
    rule = _RULES.get(type(module))
    if rule is not None:
        return rule(module)
    return module.declaration() if isinstance(module, Declares) else None


def declared_classes() -> list[str]:
    """Names of the classes with a registered declaration, in order."""
    return sorted({item.__name__ for item in _RULES})

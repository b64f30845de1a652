"""Renaming rules that work both ways."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

Change = Callable[["Tensor"], "Tensor"]

_PARTS = {"t": "[a-z_]+?", "u": "[a-z_]+?", "s": r"\d+", "i": r"\d+", "j": r"\d+", "k": r"\d+", "rest": ".+"}


class ConversionError(ValueError):
    """A checkpoint does not have the layout that was named."""


def same(tensor: Tensor) -> Tensor:
    """Leave a tensor as it is."""
    return tensor


def without_first_row(table: Tensor) -> Tensor:
    """Position embedding (1, 1 + N, C) without its first row, of a class token that the code never reads."""
    return table[:, 1:]


def with_first_row(table: Tensor) -> Tensor:
    """Inverse of `without_first_row`, with zeros."""
    import torch  # the rules are data that a command's help reads

    return torch.cat([torch.zeros_like(table[:, :1]), table], dim=1)


@dataclass(frozen=True)
class Rule:
    """One kind of key, as both code bases name it.

    Templates hold `{t}` `{u}` (tasks), `{s}` `{i}` `{j}` `{k}` (numbers) and `{rest}` (anything).

    Args:
        official: template of the authors' key.
        ours: template of our key, with the same placeholders.
        shift: added to `{k}` on the way to ours.
        forward: applied to the tensor on the way to ours.
        backward: its inverse.
    """

    official: str
    ours: str
    shift: int = 0
    forward: Change = same
    backward: Change = same

    @cached_property
    def from_official(self) -> re.Pattern[str]:
        """Pattern of the authors' key."""
        return _pattern(self.official)

    @cached_property
    def from_ours(self) -> re.Pattern[str]:
        """Pattern of our key."""
        return _pattern(self.ours)


@dataclass(frozen=True)
class Drop:
    """Keys of the authors' that we have no use for.

    Args:
        pattern: regular expression of the whole key.
        reason: why they are not needed, for the report.
    """

    pattern: str
    reason: str


def _nothing(_: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {}


def _as_they_are(_: Iterable[str]) -> dict[str, str]:
    return {}


@dataclass(frozen=True)
class Layout:
    """Names of one code base for parts that exist here too.

    Args:
        rules: tried in order.
        drops: what is left out.
        rebuild: from the renamed keys back in the authors' layout to the buffers that were left out.
        aliases: (pattern, replacement) applied to the authors' keys first: older names, prefixes.
        tasks: {their task name: ours} where they differ.
        wrapper: key under which their files hold the state dict.
        prefix: what their files put before every key.
        resolve: from all their keys to {key: unambiguous key}, for keys whose meaning depends on other keys
            (tasks by number, the last block). The rules get the unambiguous keys.
        unresolve: its inverse.
        join: from all their tensors to those that the rules rename, where several become one or one becomes
            several; names are without prefixes. None = nothing does.
        split: its inverse, behind `unresolve`.
    """

    rules: tuple[Rule, ...]
    drops: tuple[Drop, ...] = ()
    rebuild: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] = _nothing
    aliases: tuple[tuple[str, str], ...] = ()
    tasks: Mapping[str, str] = field(default_factory=dict)
    wrapper: str = "model"
    prefix: str = ""
    resolve: Callable[[Iterable[str]], Mapping[str, str]] = _as_they_are
    unresolve: Callable[[Iterable[str]], Mapping[str, str]] = _as_they_are
    join: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] | None = None
    split: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] | None = None

    def to_ours(self, key: str) -> tuple[str, Change] | None:
        """Our name of an official key and what happens to its tensor; None if no rule fits."""
        for rule in self.rules:
            found = rule.from_official.fullmatch(key)
            if found:
                return self._fill(rule.ours, found, rule.shift, dict(self.tasks)), rule.forward
        return None

    def to_official(self, key: str) -> tuple[str, Change] | None:
        """Official name of one of our keys and what happens to its tensor; None if no rule fits."""
        back = {ours: theirs for theirs, ours in self.tasks.items()}
        for rule in self.rules:
            found = rule.from_ours.fullmatch(key)
            if found:
                return self._fill(rule.official, found, -rule.shift, back), rule.backward
        return None

    def _fill(self, template: str, found: re.Match[str], shift: int, tasks: Mapping[str, str]) -> str:
        values = found.groupdict()
        for key in values.keys() & {"t", "u"}:
            values[key] = tasks.get(values[key], values[key])
        if "k" in values:
            values["k"] = str(int(values["k"]) + shift)
        return template.format(**values)


def _pattern(template: str) -> re.Pattern[str]:
    pieces = re.split(r"\{(\w+)\}", template)
    return re.compile(
        "".join(
            f"(?P<{piece}>{_PARTS[piece]})" if index % 2 else re.escape(piece)
            for index, piece in enumerate(pieces)
        )
    )

"""State dicts from the authors' layouts to ours and back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mtvision.core.naming import look_up
from mtvision.models.convert.layouts import LAYOUTS
from mtvision.models.convert.rules import ConversionError, Layout

if TYPE_CHECKING:
    from torch import Tensor

SOURCES = tuple(LAYOUTS)
"""Layouts that can be converted."""


@dataclass(frozen=True)
class Report:
    """Report of a conversion: renamed, dropped and rebuilt tensors.

    Args:
        source: layout it had (or got, on the way back).
        converted: tensors that were carried over.
        dropped: {key: why it was left out}.
        rebuilt: constants that were left out before and computed anew, on the way back.
    """

    source: str
    converted: int
    dropped: Mapping[str, str] = field(default_factory=dict)
    rebuilt: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"{self.source}: {self.converted} tensors converted, {len(self.dropped)} dropped"]
        reasons = sorted(set(self.dropped.values()))
        for reason in reasons:
            keys = [key for key, why in self.dropped.items() if why == reason]
            lines.append(f"  {len(keys)} dropped ({reason}): {_some(keys)}")
        if self.rebuilt:
            lines.append(f"  {len(self.rebuilt)} constants rebuilt: {_some(self.rebuilt)}")
        return "\n".join(lines)


def convert(state: Mapping[str, Tensor], source: str) -> tuple[dict[str, Tensor], Report]:
    """State dict of an official model, or of a part of it, in our layout.

    Widths, depths and tasks are free; a decoder alone or a backbone alone is fine. Keys become those of a
    `Network` (`backbone.`, `decoder.`, `heads.`). Official task order is assumed: semseg, depth, human_parts,
    saliency, normals, edge, whichever are there.

    Args:
        state: official tensors by name, with or without `module.` in front. Not modified.
        source: one of `SOURCES`.

    Returns:
        Our state dict (values may share memory with the given ones), and a report.

    Raises:
        UnknownNameError: no such source.
        ConversionError: a key is unknown in that layout, or two keys become one.
    """
    layout = look_up("checkpoint source", source, LAYOUTS)
    result: dict[str, Tensor] = {}
    dropped: dict[str, str] = {}
    unknown = []
    if layout.join is not None:
        state = layout.join({_plain_name(given, layout): tensor for given, tensor in state.items()})
    plain = {given: _plain_name(given, layout) for given in state}
    resolved = layout.resolve(plain.values())
    for given, tensor in state.items():
        key = resolved.get(plain[given], plain[given])
        reason = next((drop.reason for drop in layout.drops if re.fullmatch(drop.pattern, key)), None)
        if reason is not None:
            dropped[given] = reason
            continue
        target = layout.to_ours(key)
        if target is None:
            unknown.append(given)
            continue
        name, change = target
        if name in result:
            raise ConversionError(
                f"{source}: two tensors of the checkpoint become '{name}'; one is '{given}'."
            )
        result[name] = change(tensor)
    _refuse(unknown, source, "the checkpoint")
    if not result:
        raise ConversionError(f"{source}: the checkpoint holds no tensor of this layout.")
    return result, Report(source, len(result), dropped)


def revert(state: Mapping[str, Tensor], source: str) -> tuple[dict[str, Tensor], Report]:
    """Inverse of `convert`: our state dict in the layout of the authors' code, to run it there.

    Constants that their checkpoints hold and ours do not are computed. Keys carry no `module.`.

    Args:
        state: our tensors, keys as in a `Network`. Not modified.
        source: one of `SOURCES`.

    Raises:
        UnknownNameError: no such source.
        ConversionError: a key has no counterpart in that layout.
    """
    layout = look_up("checkpoint source", source, LAYOUTS)
    result: dict[str, Tensor] = {}
    unknown = []
    for key, tensor in state.items():
        target = layout.to_official(key)
        if target is None:
            unknown.append(key)
            continue
        result[target[0]] = target[1](tensor)
    _refuse(unknown, source, "our state dict")
    unresolved = layout.unresolve(result)
    result = {unresolved.get(key, key): tensor for key, tensor in result.items()}
    if layout.split is not None:
        result = layout.split(result)
    rebuilt = layout.rebuild(result)
    return {**result, **rebuilt}, Report(source, len(result), rebuilt=tuple(rebuilt))


def _plain_name(key: str, layout: Layout) -> str:
    key = key.removeprefix("module.")
    for pattern, replacement in layout.aliases:
        key = re.sub(pattern, replacement, key)
    return key


def _refuse(unknown: list[str], source: str, where: str) -> None:
    if unknown:
        raise ConversionError(
            f"{source}: {len(unknown)} keys of {where} have no counterpart: {_some(unknown)}. "
            f"Is it of another model? Known sources: {', '.join(SOURCES)}."
        )


def _some(keys: Iterable[str]) -> str:
    keys = list(keys)
    return ", ".join(keys[:5]) + (f", ... ({len(keys)} in all)" if len(keys) > 5 else "")

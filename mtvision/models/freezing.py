"""Parts of a network that are not trained: their weights stay, and so do their running statistics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase

from torch import nn

from mtvision.core.naming import ReportedError
from mtvision.runtime.state_dicts import some

THAW = "!"
"""First letter of a pattern that makes exceptions from those before it."""


class FreezeError(ReportedError, ValueError):
    """A pattern matches no parameter, or nothing is left to train."""


@dataclass(frozen=True)
class Frozen:
    """What `freeze` did.

    Args:
        parameters: names of the frozen parameters.
        modules: paths of the modules whose parameters are all frozen; the outermost ones only. They stay in
            evaluation mode.
        values: how many numbers the frozen parameters hold.
        total: how many the whole network holds.
    """

    parameters: tuple[str, ...]
    modules: tuple[str, ...]
    values: int
    total: int

    def __str__(self) -> str:
        millions = f"{self.values / 1e6:.2f} of {self.total / 1e6:.2f} M parameters"
        modules = some(self.modules) or "no module"
        return f"frozen: {len(self.parameters)} tensors, {millions}; in evaluation mode: {modules}"


def freeze(network: nn.Module, patterns: Sequence[str]) -> Frozen:
    """Take gradients away from the parameters that a pattern matches.

    Args:
        network: changed in place; `Network.freeze` also keeps its modules in evaluation mode.
        patterns: globs of parameter names, e.g. `backbone.*` or `*.norm?.*`. One that begins with `!` thaws
            what an earlier one froze: `["backbone.*", "!backbone.*.bias"]` trains biases alone (BitFit).

    Raises:
        FreezeError: a pattern matches no parameter, or one with `!` no frozen one, or all parameters match.
    """
    named = dict(network.named_parameters())
    chosen: set[str] = set()
    for pattern in patterns:
        glob = pattern.removeprefix(THAW)
        matched = {name for name in named if fnmatchcase(name, glob)}
        if not matched:
            raise FreezeError(_no_match(network, glob, list(named)))
        if glob == pattern:
            chosen |= matched
        elif matched & chosen:
            chosen -= matched
        else:
            raise FreezeError(
                f"training.freeze thaws '{pattern}', but no earlier pattern froze any of these "
                f"{len(matched)} parameters. Name what is frozen first, e.g. ['backbone.*', '{pattern}']."
            )
    if len(chosen) == len(named):
        raise FreezeError(
            f"training.freeze={list(patterns)} freezes all {len(named)} parameters; nothing is left to "
            "train. Leave out the part that shall learn, e.g. freeze only 'backbone.*'."
        )
    for name in chosen:
        named[name].requires_grad_(False)
    return Frozen(
        parameters=tuple(name for name in named if name in chosen),
        modules=_outermost(network),
        values=sum(named[name].numel() for name in chosen),
        total=sum(item.numel() for item in named.values()),
    )


def _outermost(network: nn.Module) -> tuple[str, ...]:
    """Paths of modules that have parameters, none of which is trained, and whose parent is not such a one."""
    found: list[str] = []
    for path, module in network.named_modules():
        if any(path.startswith(f"{outer}.") for outer in found):
            continue
        flags = [item.requires_grad for item in module.parameters()]
        if flags and not any(flags):
            found.append(path)
    return tuple(found)


def _no_match(network: nn.Module, pattern: str, names: list[str]) -> str:
    paths = [f"{path}.*" for path, module in network.named_modules() if path and list(module.parameters())]
    near = get_close_matches(pattern, [*paths, *names], n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    parts = ", ".join(f"{name}.*" for name, _ in network.named_children())
    return (
        f"training.freeze names '{pattern}', which matches no parameter of the network.{hint} "
        f"Its parts are {parts}; a parameter is called like '{names[0]}'."
    )

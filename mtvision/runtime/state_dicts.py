"""Find a network's tensors in files of other code: wrappers around a state dict, prefixes of its names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mtvision.core.naming import ReportedError, UnknownNameError

_PLAIN = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "params")
_AVERAGED = ("ema", "model_ema", "ema_model", "state_dict_ema", "ema_state_dict", "params_ema")
_NAMES = frozenset((*_PLAIN, *_AVERAGED, "weights", "student", "teacher"))
"""What training code calls the weights of a network in its checkpoints."""
_TRAINING_STATE = re.compile(r"optim|sched|scaler|amp$|rng|random|loops|callbacks|criterion|loss")
_WRAPPING_MODULES = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Modules that `torch.compile`, FSDP and activation checkpointing put around another one."""
_DEPTH = 3
_RIVAL = 0.5
"""A second prefix that names this share of what the first one names makes a file ambiguous."""


class StateDictError(ReportedError, ValueError):
    """A file has no state dict, or several, so that one has to be named."""


@dataclass(frozen=True)
class FoundState:
    """A state dict inside the content of a file.

    Args:
        tensors: {name: tensor}; the extra state of modules may be among the values.
        place: dotted path to it, empty for the content itself.
        left_out: what else is there and was not used.
    """

    tensors: dict[str, Any]
    place: str = ""
    left_out: tuple[str, ...] = ()

    def in_words(self) -> str:
        """What was unwrapped and left out; empty if the content is the state dict."""
        parts = [f"weights taken from '{self.place}'"] if self.place else []
        parts += [f"left out: {some(self.left_out)}"] if self.left_out else []
        return "; ".join(parts)


def find_state(content: Mapping[Any, Any], part: str | None = None) -> FoundState:
    """The one state dict in what a file holds.

    Args:
        content: dict of tensors, or of dicts that hold one, at most three levels deep.
        part: path of the wrapper to take, or prefix of the names to take; None = the only one.

    Raises:
        UnknownNameError: nothing is called `part`.
        StateDictError: there is no state dict, or more than one that may be meant.
    """
    found = _state_dicts(content)
    if part is not None and part in found:
        return FoundState(found[part], part, tuple(path for path in found if path not in (part, "")))
    if not found:
        keys = some(sorted(map(str, content)))
        raise StateDictError(f"it holds no tensors, that is no state dict; its keys are {keys}.")
    if part is not None:
        return _below_prefix(found, part)
    chosen = list(found)
    if len(found) > 1:
        chosen = [path for path in found if not _NAMES.isdisjoint(path.split("."))]
    if len(chosen) != 1:
        listing = ", ".join(f"'{path}' ({len(found[path])} tensors)" for path in chosen or found)
        example = (chosen or list(found))[0]
        raise StateDictError(
            f"it holds more than one state dict: {listing}. Name the one to load behind the file: "
            f"FILE#{example}."
        )
    place = chosen[0]
    dropped = [path for path in found if path != place]
    if not place:
        dropped += [str(key) for key, value in content.items() if not _is_weight(str(key), value)]
    return FoundState(found[place], place, tuple(dropped))


def _below_prefix(found: Mapping[str, dict[str, Any]], part: str) -> FoundState:
    """Tensors whose names begin with `part`, in the only state dict that has such names."""
    prefix = part.removesuffix(".") + "."
    hits = {path: [key for key in state if key.startswith(prefix)] for path, state in found.items()}
    named = [path for path, keys in hits.items() if keys]
    if len(named) != 1:
        heads = {key.partition(".")[0] for state in found.values() for key in state}
        raise UnknownNameError("part of the file", part, {path for path in found if path} | heads)
    state = found[named[0]]
    kept = {key.removeprefix(prefix): state[key] for key in hits[named[0]]}
    return FoundState(kept, part, tuple(key for key in state if not key.startswith(prefix)))


def _state_dicts(content: Mapping[Any, Any], path: str = "", depth: int = 0) -> dict[str, dict[str, Any]]:
    """{dotted path: state dict} of everything that may hold a network's weights."""
    if not content or not all(isinstance(key, str) for key in content):
        return {}
    inner = {key: value for key, value in content.items() if isinstance(value, Mapping)}
    inner = {key: value for key, value in inner.items() if not key.endswith("_extra_state")}
    found: dict[str, dict[str, Any]] = {}
    for key, value in inner.items() if depth < _DEPTH else ():
        if not _TRAINING_STATE.search(key.lower()):
            found |= _state_dicts(value, f"{path}.{key}" if path else key, depth + 1)
    if not found and any(isinstance(value, Tensor) for value in content.values()):
        return {path: {key: value for key, value in content.items() if _is_weight(key, value)}}
    return found


def _is_weight(key: str, value: Any) -> bool:
    return isinstance(value, Tensor) or key.endswith("_extra_state")


@dataclass(frozen=True)
class AlignedState:
    """A state dict whose names are those of a network as far as they can be.

    Args:
        tensors: {name: tensor}.
        removed: what was in front of the names.
        outside: names that do not begin with it; they are not in `tensors`.
    """

    tensors: dict[str, Any]
    removed: str = ""
    outside: tuple[str, ...] = ()

    def in_words(self) -> str:
        """What was removed and left out; empty if nothing was."""
        parts = [f"'{self.removed}' removed from the names"] if self.removed else []
        parts += [f"left out: {some(self.outside)}"] if self.outside else []
        return "; ".join(parts)


def align(tensors: Mapping[str, Any], own: Collection[str]) -> AlignedState:
    """Remove what other code puts in front of a network's names, e.g. `module.`, `_orig_mod.`, `model.net.`.

    The prefix is the one behind which most of the network's own names follow. Modules that compilers and
    sharding put around others are removed anywhere in a name.

    Args:
        tensors: of a file.
        own: names of the network's tensors.

    Raises:
        StateDictError: two prefixes fit, e.g. of a student and a teacher; or two names become one.
    """
    names = set(own)
    state, removed = _without_wrapping_modules(tensors, names)
    votes = Counter(prefix for key in state for prefix in _prefixes(key) if key[len(prefix) :] in names)
    if not votes:
        return AlignedState(state, removed)
    prefix, best = max(votes.items(), key=lambda item: (item[1], item[0] == ""))
    rivals = [other for other, count in votes.items() if count > _RIVAL * best and other != prefix]
    if prefix and rivals:
        listing = ", ".join(f"'{item}' ({votes[item]} tensors)" for item in sorted([prefix, *rivals]))
        raise StateDictError(
            f"the network's names follow behind several prefixes: {listing}. Name the one to load behind the "
            f"file: FILE#{prefix.removesuffix('.')}."
        )
    if not prefix:
        return AlignedState(state, removed)
    kept = {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
    outside = tuple(key for key in state if not key.startswith(prefix))
    return AlignedState(kept, prefix + (f" and {removed}" if removed else ""), outside)


def _prefixes(key: str) -> list[str]:
    """`""`, `a.`, `a.b.` of `a.b.c`."""
    return ["", *(key[: dot.end()] for dot in re.finditer(r"\.", key))]


def _without_wrapping_modules(tensors: Mapping[str, Any], own: set[str]) -> tuple[dict[str, Any], str]:
    """The same without segments like `_orig_mod`, where the network has none, and which those were."""
    given = {segment for name in own for segment in name.split(".")}
    removable = [segment for segment in _WRAPPING_MODULES if segment not in given]
    state: dict[str, Any] = {}
    seen = set()
    for key, value in tensors.items():
        segments = str(key).split(".")
        seen |= {segment for segment in removable if segment in segments}
        name = ".".join(segment for segment in segments if segment not in removable)
        if name in state:
            raise StateDictError(f"two tensors are called '{name}' without {', '.join(sorted(seen))}.")
        state[name] = value
    return state, " ".join(f"{segment}." for segment in removable if segment in seen)


def common_place(part: Collection[str], own: Collection[str]) -> str:
    """The prefix behind which most names of `part` are in `own`, e.g. `backbone.model.`; empty if none are.

    >>> common_place(["conv.weight", "fc.weight"], ["backbone.conv.weight", "backbone.fc.weight", "head.b"])
    'backbone.'
    """
    names = set(part)
    votes = Counter(prefix for key in own for prefix in _prefixes(key) if key[len(prefix) :] in names)
    return votes.most_common(1)[0][0] if votes else ""


def nearest_prefixes(tensors: Iterable[str], own: Iterable[str], count: int = 4) -> str:
    """Where the names of a file and of a network begin, for messages about files that do not fit."""
    return (
        f"Names in the file begin with {_beginnings(tensors, count)}; those of the network with "
        f"{_beginnings(own, count)}."
    )


def _beginnings(names: Iterable[str], count: int) -> str:
    heads = Counter(".".join(name.split(".")[:2]) for name in names)
    shown = [f"{head} ({number})" for head, number in heads.most_common(count)]
    return ", ".join(shown) + (", …" if len(heads) > count else "") or "nothing"


def some(items: Iterable[str], shown: int = 5) -> str:
    """The first few items, and how many there are.

    >>> some("abc", shown=2), some("ab")
    ('a, b, … (3 in all)', 'a, b')
    """
    listed = list(items)
    return ", ".join(listed[:shown]) + (f", … ({len(listed)} in all)" if len(listed) > shown else "")


def network_state(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Tensors of the network in a checkpoint; a run's also holds those of its balancer and step."""
    state = {str(key): value for key, value in checkpoint["state_dict"].items()}
    own = {key.removeprefix("network."): item for key, item in state.items() if key.startswith("network.")}
    return own or state


def of_another_type(found: Any, own: Any) -> bool:
    """Whether a tensor cannot stand for another: integers, complex or sparse for real and dense ones."""
    if not isinstance(found, Tensor) or not isinstance(own, Tensor):
        return isinstance(found, Tensor) != isinstance(own, Tensor)
    kinds = [(item.is_floating_point(), item.is_complex(), item.layout) for item in (found, own)]
    return kinds[0] != kinds[1]

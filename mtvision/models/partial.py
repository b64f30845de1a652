"""Start from the weights of another network: load what fits, say what does not."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from mtvision.models.network import Network
from mtvision.runtime.checkpoint import CheckpointError, network_tensors
from mtvision.runtime.launch import is_main_process
from mtvision.runtime.state_dicts import common_place, nearest_prefixes, of_another_type, some

_log = logging.getLogger("mtvision")

_BACKBONE = "backbone."
_LEAST_OF_NETWORK, _LEAST_OF_FILE = 0.1, 0.5
"""A file is refused if less than both shares of values fit: it is of another network."""


@dataclass(frozen=True)
class PartialReport:
    """Result of loading a part of a checkpoint.

    Args:
        source: the file.
        loaded: names that got the file's values.
        share: of the network's values (numbers, not tensors) that were loaded.
        absent: names that the file does not have, as groups; their fresh values stay.
        left_over: names in the file that the network does not have, as groups.
        reshaped: {name: shapes} of tensors that were resampled to the network's shape, and loaded.
        unfit: {name: shapes or types} of tensors that do not fit; their fresh values stay.
    """

    source: str
    loaded: tuple[str, ...]
    share: float
    absent: tuple[str, ...] = ()
    left_over: tuple[str, ...] = ()
    reshaped: Mapping[str, str] = field(default_factory=dict)
    unfit: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        share = f"{self.share:.1%} of the network's values"
        lines = [f"{self.source}: {len(self.loaded)} tensors loaded, {share}"]
        reshaped, unfit = (
            [f"{name} {what}" for name, what in table.items()] for table in (self.reshaped, self.unfit)
        )
        listed = (
            ("resampled to another size", reshaped),
            ("not in the file, freshly initialised", self.absent),
            ("of another shape, freshly initialised", unfit),
            ("in the file only, left out", self.left_over),
        )
        lines += [f"  {title}: {some(items, 8)}" for title, items in listed if items]
        return "\n".join(lines)


def load_partly(network: Network, checkpoint: Mapping[str, Any], path: str | Path) -> PartialReport:
    """Load the tensors of a checkpoint that fit a network, e.g. one with other classes or tasks.

    Heads with other numbers of classes and tasks that the file lacks keep their fresh values. A position
    embedding of another size is resampled where the backbone has a rule (`Backbone.resampled`). A stem for
    another number of input channels stays fresh. The report is logged.

    Args:
        network: gets the values.
        checkpoint: from `load_checkpoint`, of a whole network or of its backbone alone.
        path: of the file, for messages.

    Raises:
        CheckpointError: next to nothing fits; the message shows where names begin.
    """
    own = network.state_dict()
    given = network_tensors(checkpoint, own, path).tensors
    state = _as_part(given, own)
    report, fitting = _compare(network, own, state, str(path))
    used = _values(fitting, own)
    if used < _LEAST_OF_NETWORK * _values(own, own) and used < _LEAST_OF_FILE * _values(state, state):
        raise CheckpointError(
            f"checkpoint {path} is of another network: {len(fitting)} of its {len(state)} tensors fit, "
            f"{report.share:.1%} of the network's values.\n  {nearest_prefixes(given, own)}\n"
            "  Rename what corresponds, or give a backbone's file as model.backbone.pretrained."
        )
    network.load_state_dict(fitting, strict=False)
    if is_main_process():
        _log.warning("%s", report)
    return report


def _compare(
    network: Network, own: Mapping[str, Any], state: Mapping[str, Any], source: str
) -> tuple[PartialReport, dict[str, Any]]:
    """What fits and what does not, and the tensors to load."""
    common = [name for name in own if name in state]
    types = {
        name: f"{state[name].dtype} in the file, {own[name].dtype} in the network"
        for name in common
        if isinstance(own[name], Tensor) and of_another_type(state[name], own[name])
    }
    fitting = {name: state[name] for name in common if name not in types}
    differing = {name: item for name, item in fitting.items() if _shape(item) != _shape(own[name])}
    changed = _resampled(network, fitting) if differing else {}
    changed = {name: item for name, item in changed.items() if name in differing}
    changed = {name: item for name, item in changed.items() if _shape(item) == _shape(own[name])}
    words = {
        name: f"({_shape(item)} in the file, {_shape(own[name])} in the network)"
        for name, item in differing.items()
    }
    fitting = {name: item for name, item in fitting.items() if name not in differing} | changed
    report = PartialReport(
        source=source,
        loaded=tuple(fitting),
        share=_values(fitting, own) / max(_values(own, own), 1),
        absent=grouped([name for name in own if name not in state], own),
        left_over=grouped([name for name in state if name not in own], state),
        reshaped={name: words[name] for name in changed},
        unfit={name: text for name, text in words.items() if name not in changed}
        | {name: f"({text})" for name, text in types.items()},
    )
    return report, fitting


def _as_part(state: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The file's tensors under the network's names; those of its backbone alone get a prefix."""
    if not state.keys().isdisjoint(own):
        return dict(state)
    prefix = common_place(state, own)
    return {f"{prefix}{name}": item for name, item in state.items()}


def _resampled(network: Network, state: Mapping[str, Any]) -> dict[str, Tensor]:
    """What the backbone can make of its tensors of another size."""
    inner = {name.removeprefix(_BACKBONE): item for name, item in state.items() if name.startswith(_BACKBONE)}
    return {_BACKBONE + name: item for name, item in network.backbone.resampled(inner).items()}


def _shape(value: Any) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, Tensor) else None


def _values(names: Iterable[str], tensors: Mapping[str, Any]) -> int:
    """How many numbers the named tensors hold."""
    found = (tensors[name] for name in names)
    return sum(item.numel() for item in found if isinstance(item, Tensor))


def grouped(names: Sequence[str], known: Iterable[str]) -> tuple[str, ...]:
    """`heads.depth.* (2 tensors)` where all names of `known` below `heads.depth` are among `names`."""
    chosen = set(names)
    mixed = {prefix for name in known if name not in chosen for prefix in _parents(name)}
    groups = Counter(next((item for item in _parents(name) if item not in mixed), name) for name in names)
    return tuple(
        f"{group}.* ({number} tensor{'s' * (number > 1)})" if group not in chosen else group
        for group, number in groups.items()
    )


def _parents(name: str) -> list[str]:
    """`a`, `a.b` of `a.b.c`."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]

"""Merging of single-task networks: a merger for shared parts; parts of one task come from its own parent."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from mtvision.core.files.foreign import ForeignError, foreign_errors
from mtvision.core.naming import ReportedError, UnknownNameError
from mtvision.core.non_finite import in_words, non_finite
from mtvision.core.random import HELD_OUT_SHARE
from mtvision.core.registry import MERGERS
from mtvision.core.roles import SHARED
from mtvision.core.shapes import without_values
from mtvision.merge.distance import FAR, WIDE, Distances, distances
from mtvision.merge.files import StateFile
from mtvision.merge.states import MergeError, State
from mtvision.merge.table import learns, merge
from mtvision.models.factory import build_network
from mtvision.models.network import Network
from mtvision.models.parts import parts_of
from mtvision.ops.batch_statistics import recalibrate
from mtvision.procedures.merge_images import merge_problem, spread_images
from mtvision.protocols import Protocol
from mtvision.recipe.building import network_of, tasks_of_checkpoint, without_pretrained
from mtvision.recipe.config import RunConfig
from mtvision.recipe.settings import protocol_of, to_plain_data
from mtvision.runtime.checkpoint import save_network
from mtvision.runtime.state_dicts import some

_log = logging.getLogger("mtvision")

PRETRAINED = "pretrained"
"""The base that a config's network starts with: the weights that its backbone names."""


@dataclass(frozen=True, kw_only=True)
class MergeRequest:
    """What is merged, besides the config of the network that results.

    Args:
        base: checkpoint that all parents were fine-tuned from, or `pretrained`.
        parents: {task: checkpoint}.
        method: a name in `MERGERS`.
        options: of the method.
        out: the checkpoint to write.
        images: training images for new statistics of batch norms; 0 keeps the merged ones.
        limit: relative length of a task vector from which its parent is refused.
        held_out: share of the training images that methods learn from.
    """

    base: str
    parents: Mapping[str, str]
    method: str
    out: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    images: int = 0
    limit: float = FAR
    held_out: float = HELD_OUT_SHARE


@dataclass(frozen=True)
class Merging:
    """What came of it.

    Args:
        tasks: of the network that was written.
        parts: {`shared` or task: number of tensors}.
        distances: of the parents.
        norms: batch norms with new statistics; None if none were asked for.
        learned: facts of a method that learns, as in the checkpoint; None for the others.
    """

    tasks: tuple[str, ...]
    parts: dict[str, int]
    distances: Distances
    norms: int | None
    learned: Mapping[str, Any] | None = None


def merge_checkpoints(config: RunConfig, request: MergeRequest) -> Merging:
    """Merge the networks of `request.parents` into one network of the config and write its checkpoint.

    Parameters that the losses of two tasks reach are shared and are merged. What only one task uses is taken
    from that task's parent. Files are read tensor by tensor.

    Args:
        config: of the network with all tasks.
        request: what is merged, and how.

    Raises:
        FileNotFoundError, CheckpointError: a file is absent, damaged or of another architecture.
        MergeError: the parents do not share the base, lack a head, or hold NaN.
        UnknownNameError: a task, method or option does not exist.
        ValueError: a method learns, and no training image is held out.
    """
    protocol = protocol_of(config)
    check_request(request, protocol)
    if learns(request.method) and not config["train_data"]:
        raise MergeError(f"{request.method} learns from training images; the config has no 'train_data'.")
    network, parts = _network_and_parts(config)
    own = {name: item.to("meta") for name, item in network.state_dict().items()}
    one = request.options.get("task")
    target = config if one is None else config.with_options({"tasks": [one]})
    form = _Form.of(network if one is None else _empty(target))
    del network  # where it has weights, they would be in memory beside those that are merged
    shared = [name for name, part in parts.items() if part == SHARED]
    start = _base(config, protocol, request, own)
    base = _Part(start, shared)
    files = {task: StateFile(path, own) for task, path in request.parents.items()}
    _require(base, shared, own, f"base {request.base}", "shared")
    for task, file in files.items():
        _check_parent(task, file, protocol, parts, own)
    parents = {task: _Part(file, shared) for task, file in files.items()}
    found = distances(base, parents)
    found.require_near(request.limit)
    wide = [f"{task} {value:.2f}" for task, value in found.relative.items() if value >= WIDE]
    if wide:
        _log.warning("far from the base, merging may not pay: %s of the base's length.", ", ".join(wide))
    problem = None
    if learns(request.method):
        problem = merge_problem(config, parts, files, request.held_out)
    merged = merge(request.method, base, parents, problem=problem, **request.options)
    state = _assembled(form.names, parts, merged, files)
    norms = None
    if request.images:
        norms, state = _recalibrated(state, target, request.images)
    meta = {
        "config": target.text,
        "protocol": protocol.id,
        "tasks": list(form.tasks),
        "architecture": form.architecture,
        "merge": {
            **_provenance(request, start, files, found, norms),
            "parts": _sources(form, parts, request),
            "learned": None if problem is None else problem.record,
        },
    }
    save_network(request.out, state, meta)
    counts = {part: list(parts.values()).count(part) for part in (SHARED, *form.tasks)}
    return Merging(form.tasks, counts, found, norms, None if problem is None else problem.record)


def check_request(request: MergeRequest, protocol: Protocol) -> None:
    """Refuse a wrong method, option or list of parents before a file is read.

    Raises:
        UnknownNameError, TypeError, ValueError, ConfigError: the method or an option is wrong.
        MergeError: a task has no parent, or the method needs the name of a task.
    """
    MERGERS.check_config({"type": request.method, **request.options})
    for task in request.parents:
        if task not in protocol.task_names:
            raise UnknownNameError("task of --parents", task, protocol.task_names)
    lacking = [name for name in protocol.task_names if name not in request.parents]
    if lacking:
        raise MergeError(
            f"no parent has the task {', '.join(lacking)} of the config. Give its checkpoint, or leave the "
            "task out: --cfg-options tasks=" + ",".join(request.parents) + "."
        )
    if len(request.parents) < 2:
        raise MergeError("a single parent shares nothing with others; give the checkpoints of two or more.")


def _network_and_parts(config: RunConfig) -> tuple[Network, dict[str, str]]:
    """The network of a config, without values where it can be run so, and its `parts_of`.

    Without values neither its weights nor their gradients take memory, whatever the size of the backbone.
    """
    try:
        with foreign_errors(ReportedError, ValueError, TypeError, OSError):
            with without_values():
                network = _empty(config)
            return network, parts_of(network)
    except ForeignError:  # an operation that needs values
        network = _empty(config)
        return network, parts_of(network)


class _Part(Mapping[str, Any]):
    """Those tensors of a state that have certain names, as far as it has them."""

    def __init__(self, state: State, names: Sequence[str]) -> None:
        self._state, self._names = state, dict.fromkeys(name for name in names if name in state)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, name: str) -> Any:
        if name not in self._names:
            raise KeyError(name)
        return self._state[name]


def _base(config: RunConfig, protocol: Protocol, request: MergeRequest, own: State) -> State:
    if request.base == PRETRAINED:
        state: State = network_of(config, protocol).state_dict()
        return state
    return StateFile(request.base, own)


def _require(state: State, names: Sequence[str], own: State, place: str, what: str) -> None:
    """Refuse a state that lacks tensors, or has them in other shapes."""
    missing = [name for name in names if name not in state]
    if missing:
        raise MergeError(
            f"{place}: {len(missing)} of {len(names)} {what} tensors of the config's network are missing: "
            f"{some(missing, 3)}. It must be of the same backbone and decoder."
        )
    for name in names:
        if isinstance(own[name], Tensor) and state[name].shape != own[name].shape:
            raise MergeError(
                f"{place}: {name} has shape {tuple(state[name].shape)}, the config's network has "
                f"{tuple(own[name].shape)}. It must be of the same backbone and decoder."
            )


def _check_parent(
    task: str, file: StateFile, protocol: Protocol, parts: Mapping[str, str], own: State
) -> None:
    """Refuse a parent of other tasks, without its head, or with NaN in it."""
    place = f"parent {task}={file.path}"
    has = tasks_of_checkpoint({"meta": file.meta, "state_dict": file}, protocol)
    if task not in has:
        raise MergeError(f"{place}: it has the tasks {', '.join(has) or 'none'}, not {task}.")
    _require(file, [name for name, part in parts.items() if part == SHARED], own, place, "shared")
    mine = [name for name, part in parts.items() if part == task]
    _require(file, mine, own, place, f"{task}-specific")
    broken = non_finite((name, file[name]) for name in mine)
    if broken:
        raise MergeError(f"{place}: {in_words(broken, len(mine))} are NaN or infinite. Use an earlier one.")


def _empty(config: RunConfig) -> Network:
    """The network of a config, without the weights that its backbone names."""
    return build_network(without_pretrained(config["model"]), protocol_of(config).tasks)


@dataclass(frozen=True)
class _Form:
    """What a network looks like, without its weights."""

    names: tuple[str, ...]
    tasks: tuple[str, ...]
    architecture: Mapping[str, Any]

    @classmethod
    def of(cls, network: Network) -> _Form:
        return cls(tuple(network.state_dict()), network.task_names, network.architecture)


def _assembled(
    names: Sequence[str],
    parts: Mapping[str, str],
    merged: Mapping[str, Any],
    files: Mapping[str, StateFile],
) -> dict[str, Any]:
    """The state of a network, each tensor from where it belongs."""
    state = {}
    for name in names:
        part = parts[name]
        state[name] = merged[name] if name in merged else files[part][name].clone()
    return state


def _recalibrated(state: Mapping[str, Any], config: RunConfig, images: int) -> tuple[int, dict[str, Any]]:
    """How many batch norms have new statistics, and the state with them."""
    network = _empty(config)
    network.load_state_dict(state)
    norms = recalibrate(network, spread_images(config, images), lambda batch: network(batch.image))
    return norms, dict(network.state_dict())


def _sources(form: _Form, parts: Mapping[str, str], request: MergeRequest) -> dict[str, Any]:
    """{`shared` or task: how many tensors it has, and which file or method they come from}."""
    counts = Counter(parts[name] for name in form.names)
    return {
        part: {"tensors": count, "from": request.method if part == SHARED else request.parents[part]}
        for part, count in counts.items()
    }


def _provenance(
    request: MergeRequest,
    start: State,
    files: Mapping[str, StateFile],
    found: Distances,
    norms: int | None,
) -> dict[str, Any]:
    """Where every part of the merged network comes from, as plain data."""
    base: dict[str, Any] = {"path": request.base}
    if isinstance(start, StateFile):
        base["sha256"] = start.sha256()
    return {
        "method": request.method,
        "options": to_plain_data(request.options),
        "base": base,
        "parents": {
            task: {
                "path": str(file.path),
                "sha256": file.sha256(),
                "iter": file.meta.get("iter"),
                "tasks": file.meta.get("tasks"),
            }
            for task, file in files.items()
        },
        "distances": found.to_plain(),
        "recalibration": None if norms is None else {"images": request.images, "norms": norms},
    }

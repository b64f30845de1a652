"""Weights that a phase takes from earlier ones by their names: of one of them, or a merge of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtvision.core.roles import SHARED
from mtvision.merge.files import StateFile
from mtvision.merge.states import MergeError
from mtvision.merge.table import merge
from mtvision.models.network import Network
from mtvision.models.partial import load_partly
from mtvision.models.parts import parts_of
from mtvision.recipe.phases.plan import Phase
from mtvision.runtime.checkpoint import load_checkpoint


def start_from_phases(network: Network, phase: Phase, plan: Sequence[Phase], work_dir: Path) -> None:
    """Give the network of a phase the weights that its `start` names.

    Args:
        network: freshly built, changed in place.
        phase: that begins.
        plan: all phases.
        work_dir: with the last checkpoint of every phase.

    Raises:
        MergeError: a task has no parent, or the states do not fit.
        CheckpointError: next to nothing of the weights fits.
    """
    start = phase.begins_from
    files = {item.name: work_dir / f"iter_{item.end}.pth" for item in plan}
    if "phase" in start:
        file = files[start["phase"]]
        load_partly(network, load_checkpoint(file), file)
    elif start:
        network.load_state_dict(_merged(network, start, files))


def _merged(network: Network, start: Mapping[str, Any], files: Mapping[str, Path]) -> dict[str, Any]:
    """The state of the network: shared parts merged, the others from the phase that trained their task."""
    own = network.state_dict()
    lacking = [name for name in network.task_names if name not in start["parents"]]
    if lacking:
        raise MergeError(f"start: no phase trained {', '.join(lacking)}; name one in `parents`.")
    trained = {item: item.requires_grad for item in network.parameters()}
    parts = parts_of(network.requires_grad_(True))  # frozen parameters have a role too
    for item, wanted in trained.items():
        item.requires_grad_(wanted)
    base = StateFile(files[start["base"]], own)
    parents = {task: StateFile(files[name], own) for task, name in start["parents"].items()}
    shared = [name for name in own if parts[name] == SHARED]
    merged = merge(
        start["merge"],
        {name: base[name] for name in shared},
        {task: {name: file[name] for name in shared} for task, file in parents.items()},
        **start.get("options", {}),
    )
    return {name: merged[name] if name in merged else parents[parts[name]][name] for name in own}

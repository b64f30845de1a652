"""Rounds of training and merging as runs: every copy is a run of its own, which can be resumed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from mtvision.core.naming import UnknownNameError
from mtvision.core.random import HELD_OUT_SHARE, is_held_out
from mtvision.core.registry import MERGERS
from mtvision.engine.building import training_module
from mtvision.engine.phases.part import seed_everything
from mtvision.engine.start.begun import begin
from mtvision.engine.training import fit
from mtvision.merge.states import State
from mtvision.metrics.gain import gain
from mtvision.ops.batch_statistics import recalibrate
from mtvision.procedures.merge_images import spread_images
from mtvision.procedures.merging import MergeRequest, merge_checkpoints
from mtvision.procedures.rounds.loop import GRID, Forked, merge_branches
from mtvision.procedures.search import HeldOut
from mtvision.recipe.building import network_of
from mtvision.recipe.config import RunConfig
from mtvision.recipe.settings import Settings
from mtvision.runtime.atomic import write_text
from mtvision.runtime.checkpoint import load_checkpoint, save_network
from mtvision.runtime.state_dicts import network_state

ALONE = "alone"
"""The branch of ForkMerge that trains the target without an auxiliary."""


@dataclass(frozen=True, kw_only=True)
class RoundsRequest:
    """What is done, besides the config; its `training.iterations` are those of a copy in a round.

    Args:
        work_dir: receives a folder per round and `rounds.json`.
        rounds: how many.
        method: merges the copies, one per task.
        options: of the method.
        target: of ForkMerge: the task that matters; None = merge by `method`.
        auxiliary_weight: of the loss of an auxiliary beside the target's.
        images: training images for new statistics of batch norms; 0 = none.
        held_out: share of the training images that coefficients are chosen on, and that nothing trains on.
    """

    work_dir: Path
    rounds: int = 3
    method: str = "average"
    options: Mapping[str, Any] = field(default_factory=dict)
    target: str | None = None
    auxiliary_weight: float = 1.0
    images: int = 0
    held_out: float = HELD_OUT_SHARE


def run_rounds(config: RunConfig, request: RoundsRequest) -> dict[str, Any]:
    """Train and merge in turns; what is done already in the work dir is not done again.

    Round r has `round_r/NAME/`, a run per copy, and `round_r/merged.pth`, from which the next round starts.

    Returns:
        `rounds`, one entry each: `checkpoint`, and of ForkMerge `coefficients` and `score`. `best` is the
        checkpoint of ForkMerge's best score, otherwise the last one. They are in `rounds.json`, too.

    Raises:
        ValueError: fewer than two tasks, or no round.
        UnknownNameError: the target is no task, or the method or an option of it does not exist.
        FileExistsError: the work dir was begun with another config, method, ... .
    """
    tasks = Settings.of(config).protocol.task_names
    if len(tasks) < 2 or request.rounds < 1:
        raise ValueError(
            f"rounds need two or more tasks and one or more rounds, got {tasks}, {request.rounds}."
        )
    if request.target is not None and request.target not in tasks:
        raise UnknownNameError("target task", request.target, tasks)
    MERGERS.check_config({"type": request.method, **request.options})
    begin(
        request.work_dir,
        {
            "config": config.sha256[:12],
            "method": request.method if request.target is None else "ForkMerge",
            "options": dict(request.options),
            "target": request.target,
            "auxiliary_weight": request.auxiliary_weight,
            "images": request.images,
            "held_out": request.held_out,
        },
    )
    merged, done = _start(config, request), []
    for number in range(1, request.rounds + 1):
        folder = request.work_dir / f"round_{number}"
        one_round = _merged_tasks if request.target is None else _forked
        entry = one_round(config, request, merged, folder)
        merged = folder / "merged.pth"
        done.append({"checkpoint": str(merged.relative_to(request.work_dir)), **entry})
    scores = [entry.get("score", float(index)) for index, entry in enumerate(done)]
    best = done[max(range(len(done)), key=scores.__getitem__)]["checkpoint"]
    found = {"method": request.method, "target": request.target, "rounds": done, "best": best}
    write_text(request.work_dir / "rounds.json", json.dumps(found, indent=2) + "\n")
    return found


def _start(config: RunConfig, request: RoundsRequest) -> Path:
    """The weights of the first round: the config's own, or those that `training.load_from` names."""
    given = config["training"]["load_from"]
    if given:
        return Path(given)
    path = request.work_dir / "start.pth"
    if not path.is_file():
        settings = Settings.of(config)
        seed_everything(settings.seed)
        _save(config, network_of(config, settings.protocol).state_dict(), path)
    return path


def _save(config: RunConfig, state: State, path: Path, **more: Any) -> None:
    protocol = Settings.of(config).protocol
    meta = {"config": config.text, "protocol": protocol.id, "tasks": list(protocol.task_names), **more}
    save_network(path, state, meta)


def _tuned(
    config: RunConfig, request: RoundsRequest, start: Path, folder: Path, changes: Mapping[str, Any]
) -> Path:
    """The last checkpoint of a copy that starts from a checkpoint."""
    begun = {"training.load_from": str(start), "training.load_partly": "tasks" in changes}
    return tuned(config.with_options({**begun, **changes}), folder, request.held_out)


def tuned(config: RunConfig, folder: Path, held_out: float) -> Path:
    """The last checkpoint of a run on what is not held out; it is not trained again if it is there."""
    last = folder / f"iter_{config['training']['iterations']}.pth"
    if not last.is_file():
        run = fit(config, folder, resume="auto", keep=lambda name: not is_held_out(name, held_out))
        run.loggers.finish({})
    return last


def _merged_tasks(config: RunConfig, request: RoundsRequest, start: Path, folder: Path) -> dict[str, Any]:
    """One copy per task, merged by the method; decoders and heads of one task come from its copy."""
    out, parents = folder / "merged.pth", {}
    for task in Settings.of(config).protocol.task_names:
        changes = {"tasks": [task], "balancer": {"type": "FixedWeights"}}
        parents[task] = str(_tuned(config, request, start, folder / task, changes))
    if not out.is_file():
        merging = MergeRequest(
            base=str(start), parents=parents, method=request.method, options=request.options, out=out,
            images=request.images, held_out=request.held_out,
        )  # fmt: skip
        merge_checkpoints(config, merging)
    return {}


def _forked(config: RunConfig, request: RoundsRequest, start: Path, folder: Path) -> dict[str, Any]:
    """One branch with the target alone and one per auxiliary, merged greedily on held-out images."""
    out, target = folder / "merged.pth", str(request.target)
    if out.is_file():
        known: dict[str, Any] = load_checkpoint(out)["meta"]["fork_merge"]
        return known
    tasks = Settings.of(config).protocol.task_names
    names = {ALONE: target, **{name: name for name in tasks if name != target}}
    paths = {}
    for name, auxiliary in names.items():
        weights = {task: 1.0 if task == target else 0.0 for task in tasks}
        if auxiliary != target:
            weights[auxiliary] = request.auxiliary_weight
        changes = {"balancer": {"type": "FixedWeights", "weights": weights}}
        paths[name] = _tuned(config, request, start, folder / name, changes)
    judge = Judge(config, request, [target])
    states = {name: network_state(load_checkpoint(path)) for name, path in paths.items()}
    found: Forked = merge_branches(states, judge.score, GRID)
    entry = {"coefficients": found.coefficients, "score": found.score}
    _save(config, judge.recalibrated(found.state), out, fork_merge=entry)
    return entry


class Judge:
    """Scores states on the held-out slice of the training images.

    Args:
        config: of the network.
        request: how many images batch norms see, and how many are held out.
        tasks: whose mean gain over the first state counts.
    """

    def __init__(self, config: RunConfig, request: RoundsRequest, tasks: Sequence[str]) -> None:
        settings = Settings.of(config)
        self._config, self._images = config, request.images
        self._tasks = [settings.protocol.task(name) for name in tasks]
        self.network = network_of(config, settings.protocol)
        module = training_module(config, settings, self.network)
        module.to("cuda" if torch.cuda.is_available() else "cpu").eval()
        self._held_out = HeldOut(config, settings, module, request.held_out)
        self._first: dict[str, dict[str, float]] | None = None

    def recalibrated(self, state: State) -> State:
        """The state with new statistics of batch norms, if any images were asked for."""
        self._use(state)
        return {name: item.clone() for name, item in self.network.state_dict().items()}

    def score(self, state: State) -> float:
        """Mean gain in per cent over the state that was scored first; that one has 0."""
        self._use(state)
        scores = self._held_out.evaluate()
        found = {task.name: {task.headline: scores[task.name]} for task in self._tasks}
        if self._first is None:
            self._first = found
        return float(gain(self._tasks, found, self._first).percent)

    def _use(self, state: State) -> None:
        """Give the network a state, with new statistics of batch norms if any images were asked for."""
        self.network.load_state_dict(dict(state))
        if self._images:
            device = next(self.network.parameters()).device
            images: Iterator[Any] = spread_images(self._config, self._images)
            recalibrate(self.network, images, lambda batch: self.network(batch.image.to(device)))

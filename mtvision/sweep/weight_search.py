"""Search for the weights of a plain sum of losses: the baseline that a balancing rule has to beat.

Successive halving (Jamieson and Talwalkar, AISTATS 2016). Candidates are trained on the training images that
are not held out and judged on the held-out ones. The best 1/η of them are trained again, η times as long,
until at most η are left, which are trained in full. Every training has its whole schedule.

Each training is a run of `mtvision.sweep.grid`: a search that was killed continues where it was, and the
choice depends on the records alone.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from mtvision.core.random import HELD_OUT_SHARE
from mtvision.protocols import Protocol
from mtvision.recipe.config import RunConfig, load_config
from mtvision.recipe.settings import protocol_of
from mtvision.report.baseline import Baseline, base_scores, gain_over
from mtvision.report.record import Record, Scores
from mtvision.runtime.atomic import write_text
from mtvision.sweep.grid import FINISHED, Run, expand, look_up_states
from mtvision.sweep.local import Outcome

FILE = "search.json"
Weights = dict[str, float]


@dataclass(frozen=True)
class SearchPlan:
    """How long and how widely weights are searched.

    Args:
        candidates: weightings that are tried; the first is the config's own, the second gives all tasks 1.
        eta: η, the share 1/η enters the next, η times longer round.
        held_out: share of the training images that judges them.
        spread: candidates are the config's weights times factors in 1/spread..spread, drawn log-uniformly.
        seed: of the draws and of the trainings.

    Raises:
        ValueError: a number is out of range.
    """

    candidates: int = 9
    eta: int = 3
    held_out: float = HELD_OUT_SHARE
    spread: float = 10.0
    seed: int = 1000

    def __post_init__(self) -> None:
        if self.candidates < 2 or self.eta < 2 or self.spread <= 1 or not 0 < self.held_out < 1:
            raise ValueError(
                "--search-weights needs at least 2 candidates, eta of at least 2, a spread above 1 and a "
                f"held-out share between 0 and 1; got {self}."
            )

    def rounds(self, iterations: int) -> list[tuple[int, int]]:
        """(candidates, iterations of each) of every round, the last one in full length.

        >>> SearchPlan(candidates=9).rounds(300)
        [(9, 100), (3, 300)]
        """
        counts = [self.candidates]
        while counts[-1] > self.eta:
            counts.append(math.ceil(counts[-1] / self.eta))
        last = len(counts) - 1
        return [
            (count, max(1, round(iterations / self.eta ** (last - index))))
            for index, count in enumerate(counts)
        ]


@dataclass
class Found:
    """Result of a search.

    Args:
        config: file of the config.
        plan: of the search.
        weights: the chosen ones.
        rounds: per round `iterations` and `candidates`, each with `weights`, `gain` and `hours`. The gain is
            the mean relative change of the headline scores over the first candidate of the first round. It is
            in per cent, and None where the training failed. `left_out` names tasks that all candidates of the
            round have so near 0 that a ratio says nothing. Their scale is from the first round that has one.
        cost: `runs` (trainings of full length), `iterations` and `hours`.
    """

    config: str
    plan: SearchPlan
    weights: Weights
    rounds: list[dict[str, Any]] = field(default_factory=list)
    cost: dict[str, float] = field(default_factory=dict)

    @property
    def balancer(self) -> str:
        """The option that trains with the chosen weights."""
        return repr({"type": "FixedWeights", "weights": self.weights})


class SearchInterruptedError(RuntimeError):
    """Trainings of a search were stopped; the same command continues them."""


def candidates(own: Mapping[str, float], plan: SearchPlan) -> list[Weights]:
    """The config's own weights, equal ones, and draws around the own ones with the same geometric mean.

    >>> candidates({"a": 1.0, "b": 4.0}, SearchPlan(candidates=2))
    [{'a': 1.0, 'b': 4.0}, {'a': 1.0, 'b': 1.0}]
    """
    draw = random.Random(plan.seed)
    found = [dict(own)]
    if len(set(own.values())) > 1:
        found.append(dict.fromkeys(own, 1.0))
    while len(found) < plan.candidates:
        logs = {name: draw.uniform(-1, 1) * math.log(plan.spread) for name in own}
        middle = sum(logs.values()) / len(logs)
        found.append({name: float(f"{own[name] * math.exp(logs[name] - middle):.3g}") for name in own})
    return found


def own_weights(config: RunConfig, protocol: Protocol) -> Weights:
    """Weights of the config's `FixedWeights`, else of the protocol; 1 where neither names a task."""
    balancer = config["balancer"]
    given = balancer.get("weights") if balancer["type"] == "FixedWeights" else None
    table = dict(given or protocol.loss_weights)
    return {name: float(table.get(name, 1.0)) or 1.0 for name in protocol.task_names}


def judged_on_held_out(config: RunConfig, plan: SearchPlan) -> list[str]:
    """Options that train on what is not held out and score the held-out images as test images are."""
    scored = "test_data" if config["test_data"] else "val_data"
    train = dict(config["train_data"]["dataset"])
    seen = {"type": "HeldOutImages", "dataset": train, "held_out": plan.held_out}
    judges = {**seen, "transforms": config[scored]["dataset"].get("transforms", "tensor")}
    return [
        f"train_data.dataset={ {**seen, 'part': 'rest'}!r}",
        f"{scored}.dataset={judges!r}",
        *("training.val_interval=0", "evaluation.select='last'"),
        *("evaluation.pictures=0", "evaluation.constant_predictor=0", "provenance='smoke'"),
    ]


def search_weights(
    config: Path,
    plan: SearchPlan,
    *,
    folder: Path,
    train: Callable[[Sequence[Run]], Sequence[Outcome]],
    options: Sequence[str] = (),
    plugins: Sequence[str] = (),
    check: Callable[[RunConfig], object] | None = None,
    say: Callable[[str], object] = print,
    overwrite: bool = False,
) -> Found:
    """Find the weights of the plain sum that are best on held-out images; also writes `search.json`.

    Args:
        config: of the sum.
        plan: of the search.
        folder: receives the runs of each round, and the result.
        train: trains runs that are not finished, e.g. `mtvision.sweep.local.run_locally`.
        options: `--cfg-options` of all runs.
        plugins: `--plugin` of all runs.
        check: as in `expand`.
        say: is told about each round.
        overwrite: train everything anew.

    Raises:
        SearchInterruptedError: trainings were stopped.
        ValueError: no training of a round has a record with finite scores, or each of these is near 0.
    """
    loaded = load_config(config, options, plugins)
    iterations = int(loaded["training"]["iterations"])
    changes = [*options, *judged_on_held_out(loaded, plan)]
    left = candidates(own_weights(loaded, protocol_of(loaded)), plan)
    found = Found(str(config), plan, {})
    scale: Scores = {}
    for number, (count, length) in enumerate(plan.rounds(iterations), start=1):
        left = left[:count]
        say(f"{config.stem}: round {number} of the weights, {len(left)} candidates x {length} iterations")
        runs = expand(
            [config],
            seeds=[plan.seed],
            axes={"balancer": [repr({"type": "FixedWeights", "weights": item}) for item in left]},
            work_dir=folder / f"round{number}_{length}",
            options=[*changes, f"training.iterations={length}", f"training.checkpoint_interval={length}"],
            plugins=plugins,
            check=check,
        )
        records = _trained(look_up_states(runs, [], overwrite=overwrite), train)
        scale = _extended(scale, records, f"{config}: round {number}", folder)
        left_out = [name for name in left[0] if name not in scale]
        if left_out:
            say(f"round {number} does not judge {', '.join(left_out)}: no candidate is far enough from 0")
        gains = [_gain(record, scale) for record in records]
        rows = list(map(_row, left, records, gains))
        found.rounds.append({"iterations": length, "candidates": rows, "left_out": left_out})
        order = sorted(range(len(left)), key=lambda index: -gains[index])
        left = [left[index] for index in order]
    found.weights = left[0]
    found.cost = _cost(found.rounds, iterations)
    write_text(folder / FILE, json.dumps(asdict(found), indent=2) + "\n")
    return found


def _trained(runs: Sequence[Run], train: Callable[[Sequence[Run]], Sequence[Outcome]]) -> list[Record | None]:
    """The records of the runs, which are trained where they have none; None for one that failed."""
    outcomes = train([run for run in runs if run.state != FINISHED])
    if any(outcome.interrupted for outcome in outcomes):
        raise SearchInterruptedError(
            "the search for weights was interrupted; run the same command to continue"
        )
    done = {run.name: run.record for run in runs}
    done |= {outcome.run.name: outcome.record for outcome in outcomes}
    return [done[run.name] for run in runs]


def _extended(scale: Scores, records: Sequence[Record | None], place: str, folder: Path) -> Scores:
    """The scale with the tasks that it lacks, from the first record where a ratio to them says something."""
    sound = [record for record in records if record is not None and _finite(record)]
    if not sound:
        raise ValueError(
            f"{place} has no record with finite scores of any candidate; see the logs in {folder}. "
            "Try a smaller spread of the weights, or another learning rate."
        )
    for record in sound:
        scale = {**base_scores(record), **scale}
    if not scale:
        raise ValueError(
            f"{place} has every score too near 0 to compare candidates; see the logs in {folder}. "
            "Train longer, or with another learning rate."
        )
    return scale


def _finite(record: Record) -> bool:
    """Whether all headline scores are numbers."""
    return all(
        math.isfinite(record.scores.get(entry["name"], {}).get(entry["headline"], math.nan))
        for entry in record.tasks
    )


def _gain(record: Record | None, scale: Scores) -> float:
    """Mean relative change of the scores in the scale, in per cent; minus infinity without finite scores."""
    if record is None or not _finite(record):
        return -math.inf
    judged = replace(record, tasks=[entry for entry in record.tasks if entry["name"] in scale])
    return float(gain_over(judged, Baseline("the first candidate", scale))["percent"])


def _row(weights: Weights, record: Record | None, gain: float) -> dict[str, Any]:
    hours = ((record.training if record is not None else None) or {}).get("hours")
    return {"weights": weights, "gain": gain if gain > -math.inf else None, "hours": hours}


def _cost(rounds: Sequence[Mapping[str, Any]], iterations: int) -> dict[str, float]:
    total = sum(item["iterations"] * len(item["candidates"]) for item in rounds)
    hours = math.fsum(row["hours"] or 0.0 for item in rounds for row in item["candidates"])
    return {"runs": total / iterations, "iterations": total, "hours": hours}


def with_cost(record: Record, found: Found) -> Record:
    """The record of a run with the chosen weights, which also says what the search for them cost."""
    search = {**found.cost, "candidates": found.plan.candidates, "held_out": found.plan.held_out}
    return replace(record, training={**(record.training or {}), "weight_search": search})

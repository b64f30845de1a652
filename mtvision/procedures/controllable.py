"""Controllability of a trained slimmable network: table of widths, grid of budgets and preferences."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import Tensor

from mtvision.architecture.widths import WidthConfig
from mtvision.core.context import Context, use_context
from mtvision.evaluation.evaluator import SampleEvaluator
from mtvision.evaluation.scoring import evaluate
from mtvision.models.adapters.slimmable import calibrate
from mtvision.models.network import Network
from mtvision.recipe.building import trained_network
from mtvision.recipe.config import RunConfig
from mtvision.recipe.data import build_dataset, evaluation_loader
from mtvision.recipe.settings import Settings
from mtvision.runtime.atomic import write_text
from mtvision.runtime.checkpoint import load_checkpoint, save_network
from mtvision.search.controllability import (
    Outcome,
    adherence,
    hypervolume,
    preference_grid,
    relative_errors,
    task_range,
    uniformity,
)
from mtvision.search.cost_table import tasks_are_coupled
from mtvision.search.problem import SearchProblem
from mtvision.search.width_table import WidthTable
from mtvision.search.widths import WidthSearcher

REFERENCE = 2.0
"""Corner of the box of hypervolumes: twice the relative error of the reference network in every task."""


@dataclass
class Controlled:
    """A trained slimmable network with what is needed to score any of its configurations.

    Args:
        config: of its training.
        settings: the same, checked.
        network: the slimmable one.
        table: costs and qualities of its widths.
        checkpoint: where the weights came from.
        images: training batches for statistics of batch norms.
        known: {section and widths: scores} that were measured already.
    """

    config: RunConfig
    settings: Settings
    network: Network
    table: WidthTable
    checkpoint: Path
    images: list[Tensor]
    known: dict[tuple[str, WidthConfig | None], dict[str, float]]

    def scores(self, widths: WidthConfig | None, section: str = "test_data") -> dict[str, float]:
        """Headline scores on a section; None = without widths, the plain network."""
        key = (section, widths)
        if key not in self.known:
            if widths is not None and tasks_are_coupled(self.network):
                calibrate(self.network, self.images, [widths])  # the grid's do not serve mixtures
            context = Context(widths=None if widths is None else widths.to_plain())
            self.known[key] = headline_scores(self.config, self.settings, self.network, section, context)
        return self.known[key]


def headline_scores(
    config: RunConfig, settings: Settings, network: Network, section: str, context: Context | None = None
) -> dict[str, float]:
    """{task: headline score} of a network on a data section, with a context in force."""
    dataset = build_dataset(section, config[section], settings.protocol, settings.seed)
    evaluator = SampleEvaluator(
        settings.protocol.tasks, settings.evaluation.metric_options, settings.evaluation.workers
    )
    with use_context(context):
        loader = evaluation_loader(dataset, config[section])
        scores = evaluate(network, loader, evaluator, precision=settings.evaluation.precision)
    evaluator.close()
    return {task.name: scores[task.name][task.headline] for task in settings.protocol.tasks}


def open_controlled(
    config: RunConfig, checkpoint: str | Path, searcher: WidthSearcher, cache: Path | None = None
) -> Controlled:
    """Load a checkpoint and make (or read) its table of widths, on `val_data`.

    Args:
        config: with which it was trained; `val_data` must hold no test images.
        checkpoint: its weights.
        searcher: which widths to consider.
        cache: JSON file that keeps the table.
    """
    settings = Settings.of(config)
    network, _ = trained_network(config, settings.protocol, checkpoint)

    def scores(context: Context | None) -> dict[str, float]:
        return headline_scores(config, settings, network, "val_data", context)

    def losses(context: Context | None) -> dict[str, float]:
        raise NotImplementedError("the search for widths reads scores, not losses")

    train = {**config["train_data"], "dataset": {**config["train_data"]["dataset"], "transforms": "tensor"}}
    dataset = build_dataset("train_data", train, settings.protocol, settings.seed)
    problem = SearchProblem(
        network=network,
        tasks=settings.protocol.tasks,
        held_out=lambda: iter(evaluation_loader(dataset, train)),
        evaluate=scores,
        losses=losses,
        options={} if cache is None else {"cache": cache},
    )
    table = searcher.table(problem)
    images = [batch.image for batch, _ in zip(problem.held_out(), range(searcher.calibration), strict=False)]
    calibrate(network, images, grid_of(table))
    return Controlled(config, settings, network, table, Path(checkpoint), images, {})


def grid_of(table: WidthTable) -> list[WidthConfig]:
    """Every pair of encoder and decoder width; their statistics serve all mixtures of decoders apart."""
    encoders: list[Any] = [*table.cost.encoder, *table.refined]
    return [
        WidthConfig(encoder, dict.fromkeys(table.quality, own))
        for encoder in encoders
        for own in table.cost.decoders
    ]


def save_controlled(controlled: Controlled, path: Path) -> None:
    """A checkpoint with calibrated statistics and, in its metadata, the table: all that `budget=` needs."""
    content = load_checkpoint(controlled.checkpoint)
    meta = {**content["meta"], "width_table": controlled.table.to_plain()}
    save_network(path, controlled.network.state_dict(), meta)


def measure(
    controlled: Controlled,
    budgets: Sequence[float],
    separate: Mapping[float, tuple[RunConfig, Path]],
    console: Console,
) -> dict[str, Any]:
    """The whole evaluation, as plain data.

    Args:
        controlled: network and table.
        budgets: shares of the full network's MACs.
        separate: {width: (config, checkpoint)} of plain networks trained separately at uniform widths.
        console: for progress.

    Returns:
        outcomes, per-budget hypervolumes against uniform slimming, ranges, uniformity, adherence, and the
        comparison with separate networks.
    """
    tasks = controlled.settings.protocol.tasks
    reference = separate_scores(*separate[1.0]) if 1.0 in separate else controlled.scores(None)
    table, most = controlled.table, controlled.table.cost.cost(controlled.table.cost.largest())

    def outcome(budget: float, preference: Mapping[str, float], widths: WidthConfig) -> Outcome:
        scores = controlled.scores(widths)
        cost = table.cost.cost(widths) / most
        return Outcome(budget, preference, widths, cost, scores, relative_errors(tasks, scores, reference))

    chosen, uniform = [], []
    for budget in budgets:
        chosen += [
            outcome(budget, preference, table.choose(budget, preference).widths)
            for preference in preference_grid([task.name for task in tasks])
        ]
        alike = dict.fromkeys((task.name for task in tasks), 1 / len(tasks))
        uniform.append(outcome(budget, alike, table.uniform(budget)))
        console.print(f"budget {budget:g} of the full network: {len(chosen)} outcomes")
    alone = {
        ratio: reference if ratio == 1 else separate_scores(*item) for ratio, item in sorted(separate.items())
    }
    ranges = {task.name: {str(item): task_range(task, chosen, item) for item in budgets} for task in tasks}
    raised = [value > 0 for row in ranges.values() for value in row.values() if not math.isnan(value)]
    return {
        "budgets": list(budgets),
        "reference": dict(reference),
        "full": controlled.scores(None),
        "outcomes": [item.to_plain() for item in chosen],
        "uniform": [item.to_plain() for item in uniform],
        "hypervolume": [_volumes(budget, chosen, uniform) for budget in budgets],
        "reference_point": REFERENCE,
        "range": ranges,
        "raised": {"pairs": len(raised), "share": sum(raised) / max(len(raised), 1)},
        "uniformity": _mean([uniformity(item.preference, item.errors) for item in chosen]),
        "adherence": adherence(chosen),
        "separate": [_against(controlled, ratio, scores) for ratio, scores in alone.items()],
    }


def _volumes(budget: float, chosen: Sequence[Outcome], uniform: Sequence[Outcome]) -> dict[str, float]:
    pick: Callable[[Sequence[Outcome]], list[Any]] = lambda rows: [  # noqa: E731
        item.errors for item in rows if item.budget == budget
    ]
    return {
        "budget": budget,
        "controlled": hypervolume(pick(chosen), REFERENCE),
        "uniform": hypervolume(pick(uniform), REFERENCE),
    }


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if not math.isnan(value)]
    return sum(finite) / len(finite) if finite else math.nan


def separate_scores(config: RunConfig, checkpoint: Path) -> dict[str, float]:
    """Test scores of a plain network."""
    settings = Settings.of(config)
    network, _ = trained_network(config, settings.protocol, checkpoint)
    return headline_scores(config, settings, network, "test_data")


def _against(controlled: Controlled, ratio: float, alone: Mapping[str, float]) -> dict[str, Any]:
    """The slimmed network beside the separate one of the same widths."""
    tasks = controlled.settings.protocol.tasks
    widths = WidthConfig(ratio, {task.name: ratio for task in tasks})
    scores = controlled.scores(widths)
    changes = {}
    for task in tasks:
        sign = 1 if task.higher_is_better else -1
        changes[task.name] = sign * (scores[task.name] - alone[task.name]) / abs(alone[task.name])
    table = controlled.table.cost
    return {
        "width": ratio,
        "cost": table.cost(widths) / table.cost(table.largest()),
        "slimmed": dict(scores),
        "separate": dict(alone),
        "change": changes,
        "mean_change": sum(changes.values()) / len(changes),
    }


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Plain data as JSON; not-a-number becomes null."""

    def clean(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(key): clean(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [clean(item) for item in value]
        return None if isinstance(value, float) and math.isnan(value) else value

    write_text(path, json.dumps(clean(content), indent=1) + "\n")

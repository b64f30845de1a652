"""`WidthSearcher`: which widths of a slimmable network serve a budget and a preference best."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice, product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtvision.architecture.widths import WidthConfig
from mtvision.core.context import Context
from mtvision.core.random import generator
from mtvision.core.registry import SEARCHERS
from mtvision.core.values import Count, Positive, Share
from mtvision.models.adapters.slimmable import calibrate, slimming_of
from mtvision.search.cost_table import make_cost_table
from mtvision.search.problem import Searcher, SearchProblem
from mtvision.search.width_table import Objective, WidthTable, normalise, parse_preference

Encoder = tuple[float, ...]


@SEARCHERS.register_module()
class WidthSearcher(Searcher):
    """The rule of `WidthTable.choose`, then an evolutionary search for widths per stage of the encoder.

    The table needs one evaluation per pair of encoder and decoder width, whatever the number of tasks:
    decoders do not see one another. It is made once and kept (`cache`); further searches read it.

    Reads from `SearchProblem.options`: `budget` (share of the full network up to 1, or MACs; default 1) and
    `preference` ({task: weight}, or `semseg=2,depth=1`; default all alike), and `cache`.

    Args:
        encoder: widths of the encoder to consider.
        decoders: widths of decoders to consider.
        kappa: how strongly preferences show in decoder widths.
        objective: `weighted` or `mean`, see `WidthTable.choose`.
        population: of the evolution; 0 = the rule alone.
        generations: of the evolution.
        mutation: probability that a stage changes its width.
        calibration: batches for the statistics of batch norm.
        cache: JSON file for the table.
        latency: timed runs per width for the cost table; 0 = not measured.
        seed: of the evolution.
    """

    def __init__(
        self,
        *,
        encoder: Sequence[Share] = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
        decoders: Sequence[Share] = (0.25, 0.4, 0.55, 0.7, 0.85, 1.0),
        kappa: float = 1.0,
        objective: Objective = "weighted",
        population: Count = 32,
        generations: Positive = 20,
        mutation: Share = 0.1,
        calibration: Positive = 4,
        cache: str | Path | None = None,
        latency: Count = 0,
        seed: Count = 0,
    ) -> None:
        self.encoder, self.decoders = tuple(sorted({*encoder, 1.0})), tuple(sorted({*decoders, 1.0}))
        self.kappa, self.objective, self.seed = kappa, objective, seed
        self.population, self.generations, self.mutation = population, generations, mutation
        self.calibration, self.latency = calibration, latency
        self.cache = None if cache is None else Path(cache)

    def search(self, problem: SearchProblem) -> dict[str, Any]:
        """Widths, their cost and predicted value, the table, and the log of the evolution.

        Raises:
            BudgetError: nothing fits the budget; the message says what the smallest possible is.
        """
        budget = float(problem.options.get("budget", 1.0))
        preference = problem.options.get("preference")
        if isinstance(preference, str):
            preference = parse_preference(preference)
        log: list[dict[str, Any]] = []
        table = self.table(problem)
        chosen = table.choose(budget, preference, kappa=self.kappa, objective=self.objective)
        if self.population and slimming_of(problem.network).stages > 1:
            table = self._evolve(problem, table, budget, preference, log)
            chosen = table.choose(budget, preference, kappa=self.kappa, objective=self.objective)
            self._keep(table, problem)
        calibrate(problem.network, self._images(problem), [chosen.widths])
        return {**chosen.to_plain(), "table": table.to_plain(), "log": log}

    def table(self, problem: SearchProblem) -> WidthTable:
        """The cached table, or a new one, for which the grid is calibrated and evaluated.

        A table of other weights, widths or tasks is made again.
        """
        cache = self._cache(problem)
        if cache is not None and cache.is_file():
            known = WidthTable.load(cache)
            if known.made_for == self._made_for(problem):
                return known
        images = self._images(problem)
        size = (int(images[0].shape[-2]), int(images[0].shape[-1]))
        cost = make_cost_table(problem.network, size, self.encoder, self.decoders, latency=self.latency)
        names = [task.name for task in problem.tasks]
        full = problem.evaluate(None)
        quality: dict[str, dict[tuple[float, float], float]] = {name: {} for name in names}
        for encoder, own in product(self.encoder, self.decoders):
            widths = WidthConfig(encoder, dict.fromkeys(names, own))
            calibrate(problem.network, images, [widths])
            measured = problem.evaluate(Context(widths=widths.to_plain()))
            for name, value in relative(problem, measured, full).items():
                quality[name][encoder, own] = value
        table = WidthTable(cost, quality, made_for=self._made_for(problem))
        self._keep(table, problem)
        return table

    def _evolve(
        self,
        problem: SearchProblem,
        table: WidthTable,
        budget: float,
        preference: Mapping[str, float] | None,
        log: list[dict[str, Any]],
    ) -> WidthTable:
        """Mutate and cross the encoder's stages; the rule gives each its decoders. The best is added."""
        rng = generator(self.seed, 0, 0)
        stages = slimming_of(problem.network).stages
        shares, allowed = normalise(preference, tuple(table.quality)), table.budget(budget)
        weights = shares if self.objective == "weighted" else dict.fromkeys(shares, 1 / len(shares))
        start = table.choose(budget, preference, kappa=self.kappa, objective=self.objective)
        full, images = problem.evaluate(None), self._images(problem)
        known: dict[Encoder, tuple[float, WidthConfig, dict[str, float]] | None] = {}

        def judge(genome: Encoder) -> float:
            if genome not in known:
                widths = table.share_out(genome, allowed, shares, self.kappa)
                known[genome] = None
                if widths is not None:
                    measured = self._measure(problem, widths, images)
                    parts = relative(problem, measured, full)
                    value = sum(weights[name] * parts[name] for name in weights)
                    known[genome] = (value, widths, parts)
            found = known[genome]
            return float("-inf") if found is None else found[0]

        def child(first: Encoder, second: Encoder) -> Encoder:
            mixed = [pair[int(rng.integers(2))] for pair in zip(first, second, strict=True)]
            return tuple(
                float(rng.choice(self.encoder)) if rng.random() < self.mutation else ratio for ratio in mixed
            )

        parent = start.widths.stages(stages)
        people = [parent]
        for _ in range(50 * self.population):
            if len(people) >= self.population:
                break
            other = tuple(float(item) for item in rng.choice(self.encoder, stages))
            mutant = child(parent, other)
            if table.share_out(mutant, allowed, shares, self.kappa) is not None:
                people.append(mutant)
        for index in range(self.generations):
            people = sorted(set(people), key=lambda genome: (-judge(genome), genome))
            people = people[: max(len(people) // 2, 2)]
            log.append({"generation": index, "value": judge(people[0]), "encoder": list(people[0])})
            elders = list(people)
            while len(people) < self.population:
                first, second = (elders[int(rng.integers(len(elders)))] for _ in range(2))
                people.append(child(first, second))
        best = max(people, key=lambda genome: (judge(genome), genome))
        found = known[best]
        uniform = judge(parent)
        if found is None or len(set(best)) == 1 or found[0] <= uniform:
            return table
        return replace(table, refined={**table.refined, best: self._row(problem, table, best, found, full)})

    def _row(
        self,
        problem: SearchProblem,
        table: WidthTable,
        encoder: Encoder,
        found: Any,
        full: Mapping[str, float],
    ) -> dict[str, dict[float, float]]:
        """Qualities of every decoder width with a refined encoder, so that other budgets can use it too."""
        names = [task.name for task in problem.tasks]
        images = self._images(problem)
        row: dict[str, dict[float, float]] = {name: {} for name in names}
        for own in table.cost.decoders:
            widths = WidthConfig(encoder, dict.fromkeys(names, own))
            parts = relative(problem, self._measure(problem, widths, images), full)
            for name, value in parts.items():
                row[name][own] = value
        for name, value in found[2].items():
            row[name][found[1].decoders[name]] = value
        return row

    def _measure(self, problem: SearchProblem, widths: WidthConfig, images: list[Tensor]) -> dict[str, float]:
        """Headline scores at widths whose statistics are not kept."""
        control = slimming_of(problem.network)
        known = any(control.complete(item) == control.complete(widths) for item in control.calibrated())
        calibrate(problem.network, images, [widths])
        try:
            return problem.evaluate(Context(widths=widths.to_plain()))
        finally:
            if not known:
                control.forget(widths)

    def _images(self, problem: SearchProblem) -> list[Tensor]:
        device = next(problem.network.parameters()).device
        return [batch.image.to(device) for batch in islice(problem.held_out(), self.calibration)]

    def _made_for(self, problem: SearchProblem) -> str:
        """What a table is true for, without statistics of batch norms, which the search changes."""
        names = [task.name for task in problem.tasks]
        digest = hashlib.sha256(repr((self.encoder, self.decoders, names)).encode())
        for name, item in problem.network.named_parameters():
            digest.update(name.encode())
            digest.update(item.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def _cache(self, problem: SearchProblem) -> Path | None:
        given = problem.options.get("cache", self.cache)
        return None if given is None else Path(given)

    def _keep(self, table: WidthTable, problem: SearchProblem) -> None:
        cache = self._cache(problem)
        if cache is not None:
            table.save(cache)


def relative(
    problem: SearchProblem, scores: Mapping[str, float], reference: Mapping[str, float]
) -> dict[str, float]:
    """{task: relative change of its headline score}, positive where better."""
    result = {}
    for task in problem.tasks:
        base = reference[task.name]
        sign = 1.0 if task.higher_is_better else -1.0
        result[task.name] = sign * (scores[task.name] - base) / max(abs(base), 1e-12)
    return result

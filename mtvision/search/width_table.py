"""Choose widths for a budget and a preference, from tables that were measured once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mtvision.architecture.widths import WidthConfig
from mtvision.core.files.foreign import reading
from mtvision.core.files.json_file import read_json
from mtvision.core.naming import UnknownNameError
from mtvision.runtime.atomic import write_text
from mtvision.search.cost_table import CostTable

Objective = Literal["weighted", "mean"]


class BudgetError(ValueError):
    """No configuration fits a budget; the message names the smallest that is possible."""


@dataclass(frozen=True)
class Choice:
    """Widths chosen for a budget and a preference.

    Args:
        widths: the configuration.
        cost: its MACs per image, at most the budget.
        budget: MACs per image that were allowed.
        preference: {task: share}, adding up to 1.
        value: predicted objective: weighted relative change of the headline scores against the full network.
    """

    widths: WidthConfig
    cost: int
    budget: float
    preference: Mapping[str, float]
    value: float

    def to_plain(self) -> dict[str, Any]:
        """Numbers and dicts."""
        return {
            "widths": self.widths.to_plain(),
            "cost": self.cost,
            "budget": self.budget,
            "preference": dict(self.preference),
            "value": self.value,
        }


@dataclass(frozen=True)
class WidthTable:
    """Costs and qualities of the widths of one trained network; makes choices in microseconds.

    Args:
        cost: MACs of all widths.
        quality: {task: {(encoder width, decoder width): relative change of its headline score against the
            full network, positive where better}}, on data held out from training.
        refined: configurations that a search over stages found, with their measured qualities:
            {encoder ratios: {task: {decoder width: quality}}}.
        made_for: digest of the weights, widths and tasks; empty = not known.
    """

    cost: CostTable
    quality: Mapping[str, Mapping[tuple[float, float], float]]
    refined: Mapping[tuple[float, ...], Mapping[str, Mapping[float, float]]] = field(default_factory=dict)
    made_for: str = ""

    def budget(self, given: float) -> float:
        """MACs of a budget that is either a share of the full network (up to 1) or MACs.

        Raises:
            ValueError: not positive.
        """
        if not given > 0:
            raise ValueError(f"budget: give a share of the full network (0..1) or MACs, got {given}.")
        return given * self.cost.cost(self.cost.largest()) if given <= 1 else float(given)

    def choose(
        self,
        budget: float,
        preference: Mapping[str, float] | None = None,
        *,
        kappa: float = 1.0,
        objective: Objective = "weighted",
    ) -> Choice:
        """The rule of Aich et al. (ICCV 2023) as we read it.

        For every encoder width, each decoder first gets the smallest width. The rest of the budget is shared
        among tasks in proportion to `preference ** kappa`, and each takes the largest width that its share
        pays. What is left over goes to the preferred tasks. Of all encoder widths the one with the best
        predicted scores wins.

        Args:
            budget: share of the full network's MACs (up to 1) or MACs per image.
            preference: {task: weight >= 0}; tasks left out weigh 0; None = all alike.
            kappa: how strongly preferences show in decoder widths.
            objective: `weighted` by preference, or the `mean` over tasks.

        Raises:
            BudgetError: nothing fits.
            UnknownNameError, ValueError: a preference for no task, negative, or all zero.
        """
        allowed = self.budget(budget)
        shares = normalise(preference, tuple(self.quality))
        weights = shares if objective == "weighted" else dict.fromkeys(shares, 1 / len(shares))
        best: tuple[float, int, WidthConfig] | None = None
        encoders: list[float | tuple[float, ...]] = [*self.cost.encoder, *self.refined]
        for encoder in encoders:
            widths = self.share_out(encoder, allowed, shares, kappa)
            if widths is None:
                continue
            value = self._value(widths, weights)
            cost = self.cost.cost(widths)
            if best is None or (value, -cost) > (best[0], -best[1]):
                best = (value, cost, widths)
        if best is None:
            raise self._too_small(allowed)
        return Choice(best[2], best[1], allowed, shares, best[0])

    def best_of(
        self, candidates: Iterable[WidthConfig], budget: float, preference: Mapping[str, float] | None = None
    ) -> Choice:
        """Of some configurations the one with the best predicted, preference-weighted scores.

        Args:
            candidates: those whose widths are not in the table are skipped.
            budget: as in `choose`.
            preference: as in `choose`.

        Raises:
            BudgetError: none fits.
        """
        allowed, shares = self.budget(budget), normalise(preference, tuple(self.quality))
        found = []
        for item in candidates:
            ratios, tasks = item.stages(self.cost.stages), item.tasks(self.cost.tasks)
            encoder = ratios[0] if len(set(ratios)) == 1 else ratios
            known = encoder in self.refined if isinstance(encoder, tuple) else encoder in self.cost.encoder
            if not known or not set(tasks) <= set(self.cost.decoders):
                continue
            widths = WidthConfig(encoder, dict(zip(self.cost.tasks, tasks, strict=True)))
            cost = self.cost.cost(widths)
            if cost <= allowed:
                value = self._value(widths, shares)
                found.append((value, -cost, Choice(widths, cost, allowed, shares, value)))
        if not found:
            raise self._too_small(allowed)
        return max(found, key=lambda row: row[:2])[2]

    def share_out(
        self,
        encoder: float | tuple[float, ...],
        allowed: float,
        shares: Mapping[str, float],
        kappa: float = 1.0,
    ) -> WidthConfig | None:
        """Decoder widths for an encoder under a budget; None if not even the smallest decoders fit."""
        least, steps = self.cost.decoders[0], self.cost.decoders
        decoders = dict.fromkeys(shares, least)

        def cost(**changed: float) -> int:
            return self.cost.cost(WidthConfig(encoder, {**decoders, **changed}))

        left = allowed - cost()
        if left < 0:
            return None
        total = sum(share**kappa for share in shares.values() if share > 0)
        ranked = sorted((name for name in shares if shares[name] > 0), key=lambda name: -shares[name])
        for name in ranked:  # what tasks share is paid by the first that widens it
            pays = cost() + left * shares[name] ** kappa / total
            decoders[name] = max(
                ratio for ratio in steps if ratio == least or cost(**{name: ratio}) <= min(pays, allowed)
            )
        for name in ranked:
            decoders[name] = max(
                ratio for ratio in steps if ratio == decoders[name] or cost(**{name: ratio}) <= allowed
            )
        return WidthConfig(encoder, decoders)

    def predicted(self, task: str, widths: WidthConfig) -> float:
        """Relative change of a task's headline score, from the table."""
        own = widths.decoders.get(task, 1.0)
        if isinstance(widths.encoder, tuple):
            return self.refined[widths.encoder][task][own]
        return self.quality[task][widths.encoder, own]

    def _value(self, widths: WidthConfig, weights: Mapping[str, float]) -> float:
        """Predicted objective of a configuration."""
        return sum(weights[name] * self.predicted(name, widths) for name in weights if weights[name])

    def uniform(self, budget: float) -> WidthConfig:
        """The widest configuration with one ratio everywhere that fits: the baseline of uniform slimming.

        Decoders take the largest listed width that does not exceed the encoder's.

        Raises:
            BudgetError: nothing fits.
        """
        allowed = self.budget(budget)
        candidates = []
        for ratio in self.cost.encoder:
            own = max([item for item in self.cost.decoders if item <= ratio] or [self.cost.decoders[0]])
            candidates.append(WidthConfig(ratio, dict.fromkeys(self.quality, own)))
        fitting = [item for item in candidates if self.cost.cost(item) <= allowed]
        if not fitting:
            raise self._too_small(allowed)
        return max(fitting, key=self.cost.cost)

    def _too_small(self, allowed: float) -> BudgetError:
        least, most = self.cost.cost(self.cost.smallest()), self.cost.cost(self.cost.largest())
        return BudgetError(
            f"budget of {allowed / 1e6:.3f} million MACs per image: the smallest configuration needs "
            f"{least / 1e6:.3f} million, a share of {least / most:.4f} of the full network. Give at least "
            "that, or train with smaller widths."
        )

    def to_plain(self) -> dict[str, Any]:
        """Numbers, lists and dicts, for JSON and checkpoint metadata."""
        return {
            "cost": self.cost.to_plain(),
            "quality": {
                name: [[*key, value] for key, value in table.items()] for name, table in self.quality.items()
            },
            "refined": [
                [list(encoder), {name: [[*pair] for pair in table.items()] for name, table in tables.items()}]
                for encoder, tables in self.refined.items()
            ],
            "made_for": self.made_for,
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> WidthTable:
        """The table that `to_plain` wrote down."""
        return cls(
            CostTable.from_plain(plain["cost"]),
            {
                name: {(float(first), float(second)): float(value) for first, second, value in rows}
                for name, rows in plain["quality"].items()
            },
            {
                tuple(encoder): {name: dict(map(tuple, rows)) for name, rows in tables.items()}
                for encoder, tables in plain.get("refined") or []
            },
            str(plain.get("made_for", "")),
        )

    def save(self, path: Path) -> None:
        """Write JSON."""
        write_text(path, json.dumps(self.to_plain()) + "\n")

    @classmethod
    def load(cls, path: Path) -> WidthTable:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            DecodeError: it is no such table.
        """
        with reading(path, "not a table of widths", "Make it again."):
            return cls.from_plain(read_json(path))


def normalise(preference: Mapping[str, float] | None, tasks: Sequence[str]) -> dict[str, float]:
    """{task: share} that adds up to 1; None = all alike, a task left out weighs 0.

    Raises:
        UnknownNameError: there is no such task.
        ValueError: a weight is negative, or all are 0.
    """
    given = dict.fromkeys(tasks, 1.0) if preference is None else {**preference}
    for name, weight in given.items():
        if name not in tasks:
            raise UnknownNameError("task in preference", name, tasks)
        if not weight >= 0:
            raise ValueError(f"preference: {name}={weight}; weights must be at least 0.")
    total = sum(given.values())
    if total <= 0:
        raise ValueError("preference: give at least one task a weight above 0.")
    return {name: given.get(name, 0.0) / total for name in tasks}


def parse_preference(text: str) -> dict[str, float]:
    """`semseg=2,depth=1` as a dict.

    Raises:
        ValueError: not of that form.

    >>> parse_preference("semseg=2,depth=1")
    {'semseg': 2.0, 'depth': 1.0}
    """
    pairs: Iterable[tuple[str, str, str]] = (item.strip().partition("=") for item in text.split(","))
    try:
        return {name.strip(): float(value) for name, _, value in pairs}
    except ValueError:
        raise ValueError(
            f"preference: expected TASK=WEIGHT,…, e.g. semseg=2,depth=1, got '{text}'."
        ) from None

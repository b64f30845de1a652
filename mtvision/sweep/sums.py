"""The two plain sums that a grid of balancing rules is compared with: equal weights and tuned ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mtvision.recipe.config import RunConfig, load_config
from mtvision.recipe.settings import protocol_of
from mtvision.report.comparable.gains import gains_grid
from mtvision.report.grid import Grid
from mtvision.report.record import Record
from mtvision.sweep.grid import Run, expand
from mtvision.sweep.local import Outcome
from mtvision.sweep.weight_search import Found, SearchPlan, search_weights, with_cost

FOLDER = "search_weights"


@dataclass(frozen=True)
class Sums:
    """The rows of plain sums of one config.

    Args:
        config: file.
        equal: method of the row with equal weights.
        tuned: method of the row with tuned weights; `equal` if the search found none that are better.
        found: the search.
        runs: of both rows.
    """

    config: Path
    equal: str
    tuned: str
    found: Found
    runs: tuple[Run, ...]

    def costed(self, record: Record) -> Record:
        """The record, with the cost of the search if it is of the tuned row."""
        return with_cost(record, self.found) if record.method == self.tuned else record

    def grid(self, runs: Sequence[Run], records: Sequence[Record]) -> Grid | None:
        """Gains of this config's rows over both sums; None where one of them has no record."""
        methods = {run.method for run in (*runs, *self.runs) if run.config == self.config}
        chosen = [record for record in records if record.method in methods]
        if not {self.equal, self.tuned} <= {record.method for record in chosen}:
            return None
        return gains_grid(chosen, self.equal, self.tuned)


def plain_sums(
    configs: Sequence[str | Path],
    plan: SearchPlan,
    *,
    seeds: Sequence[int] | None,
    work_dir: Path,
    train: Callable[[Sequence[Run]], Sequence[Outcome]],
    options: Sequence[str] = (),
    plugins: Sequence[str] = (),
    check: Callable[[RunConfig], object] | None = None,
    say: Callable[[str], object] = print,
    overwrite: bool = False,
) -> list[Sums]:
    """Search the weights of every config and give the runs of both sums; arguments as `search_weights`.

    Raises:
        As `search_weights` and `expand`.
    """
    result = []
    for config in map(Path, configs):
        folder = work_dir / FOLDER / config.stem
        found = search_weights(
            config,
            plan,
            folder=folder,
            train=train,
            options=options,
            plugins=plugins,
            check=check,
            say=say,
            overwrite=overwrite,
        )
        loaded = load_config(config, options, plugins)
        title = loaded["name"] or config.stem
        ones = dict.fromkeys(protocol_of(loaded).task_names, 1.0)
        plain = repr({"type": "FixedWeights", "weights": ones})
        rows: Mapping[str, str] = {
            f"{title}, equal weights": plain,
            f"{title}, tuned weights": found.balancer,
        }
        if found.weights == ones:  # one run cannot stand in two rows
            rows = {f"{title}, equal and tuned weights": plain}
        runs = [
            run
            for method, balancer in rows.items()
            for run in expand(
                [config],
                seeds=seeds,
                axes={"balancer": [balancer]},
                work_dir=work_dir,
                options=options,
                plugins=plugins,
                name=method,
                check=check,
            )
        ]
        equal, *others = rows
        result.append(Sums(config, equal, others[0] if others else equal, found, tuple(runs)))
    return result

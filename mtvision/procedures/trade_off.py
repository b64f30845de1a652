"""One search per weight of the expected cost: what a cheaper tree costs in scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mtvision.core.files.json_file import read_json
from mtvision.core.task import Task
from mtvision.procedures.search import SearchRequest, search, write_architecture
from mtvision.recipe.config import RunConfig
from mtvision.runtime.atomic import write_text
from mtvision.runtime.attempts import Attempts
from mtvision.runtime.launch import is_main_process
from mtvision.visualize.branching import plot_cost_curve

ADAPTER = "BranchingSearch"
Table = tuple[list[str], list[list[str]]]
"""Column names, and rows."""


def trade_off(
    config: RunConfig,
    request: SearchRequest,
    cost_weights: Sequence[float],
    tasks: Sequence[Task],
    report: Callable[[Mapping[str, Any], Path], None] | None = None,
) -> dict[str, Any]:
    """Search once per weight, in `work_dir/cost_weight_<λ>/`, and compare the trees.

    Writes every `architecture.json`, and `trade_off.json`, `.md` and `.png` beside the folders. With
    `request.resume` searches that are finished are read, not repeated; further weights may be added.

    Args:
        config: of a search with the adapter `BranchingSearch`.
        request: `checkpoint` must be None, since every weight trains a supernet of its own.
        cost_weights: λ of λ · E[GMACs of the backbone].
        tasks: of the config's protocol.
        report: called with every result and the path of its file.

    Returns:
        `rows`, one per weight in rising order: `cost_weight`, `expected_macs`, `macs`, `parameters`,
        `scores` on held-out images ({} without any), `levels` of the tree.

    Raises:
        ValueError: no such adapter, a checkpoint, a weight that is negative or given twice.
    """
    place = _adapter_place(config)
    if request.checkpoint is not None:
        raise ValueError("--cost-weights: every weight trains its own supernet; leave CHECKPOINT out.")
    if min(cost_weights) < 0 or len(set(cost_weights)) < len(cost_weights):
        raise ValueError(f"--cost-weights: {list(cost_weights)}; give different numbers from 0 up.")
    rows = []
    for weight in sorted(cost_weights):
        weighted = config.with_options({f"model.adapters.{place}.cost_weight": float(weight)})
        folder = request.work_dir / f"cost_weight_{weight:g}"
        found = _searched(weighted, replace(request, work_dir=folder))
        if report is not None:
            report(found, folder / "architecture.json")
        rows.append(_row(float(weight), found))
    result = {"rows": rows}
    if is_main_process():
        write_architecture(result, request.work_dir / "trade_off.json")
        table, plot = request.work_dir / "trade_off.md", request.work_dir / "trade_off.png"
        later, advice = Attempts(), "the numbers are in trade_off.json; `--resume` makes it again"
        later.run(table.name, lambda: write_text(table, markdown(trade_off_table(result, tasks))), advice)
        later.run(plot.name, lambda: plot_cost_curve(rows, tasks, plot), advice)
    return result


def trade_off_table(result: Mapping[str, Any], tasks: Sequence[Task]) -> Table:
    """Columns and rows of a result, for a terminal or Markdown."""
    scored = [task for task in tasks if all(task.name in row["scores"] for row in result["rows"])]
    columns = ["λ", "expected MACs", "MACs of the tree", "parameters", "groups per level"]
    columns += [f"{task.name} {task.headline} {'↑' if task.higher_is_better else '↓'}" for task in scored]
    rows = [
        [
            f"{row['cost_weight']:g}",
            f"{row['expected_macs'] / 1e6:.4g} M",
            f"{row['macs'] / 1e6:.4g} M",
            f"{row['parameters'] / 1e6:.4g} M",
            " ".join(str(len(level)) for level in row["levels"]),
            *(f"{row['scores'][task.name]:.4g}" for task in scored),
        ]
        for row in result["rows"]
    ]
    return columns, rows


def markdown(table: Table) -> str:
    """A table for a document."""
    columns, rows = table
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _adapter_place(config: Mapping[str, Any]) -> int:
    adapters = (config["model"] or {}).get("adapters") or ()
    for index, item in enumerate(adapters):
        kind = item["type"]
        if (kind if isinstance(kind, str) else kind.__name__) == ADAPTER:
            return index
    raise ValueError(
        "--cost-weights needs a supernet whose cost has a weight: "
        f"model.adapters=[dict(type='{ADAPTER}', ...)]."
    )


def _searched(config: RunConfig, request: SearchRequest) -> dict[str, Any]:
    path = request.work_dir / "architecture.json"
    if request.resume and path.is_file():
        found: dict[str, Any] = read_json(path)
        if found["search"]["config_sha256"] == config.sha256:
            return found
    found = search(config, request)
    write_architecture(found, path)
    return found


def _row(weight: float, found: Mapping[str, Any]) -> dict[str, Any]:
    cost = found["cost"]
    return {
        "cost_weight": weight,
        "expected_macs": cost["expected_macs"],
        "macs": cost["macs"],
        "parameters": cost["parameters"],
        "scores": found["scores"],
        "levels": found["tree"]["levels"],
    }

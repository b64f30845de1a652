"""`mtvision cost CONFIG --plan` and `--growth`: what training would take, and how it grows."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from rich.console import Console
from rich.table import Table
from torch import nn

from mtvision.cli.machine.step_plan import Rate, count_step, measure_rate, plan, slope
from mtvision.core.shapes import without_values
from mtvision.core.task import Task
from mtvision.models.factory import build_network
from mtvision.models.network import Network
from mtvision.protocols import Protocol
from mtvision.recipe.building import without_pretrained
from mtvision.recipe.config import RunConfig

SMALLEST = 64
"""Pixels a side of the smallest image that is measured or counted."""
SIDES = (0.5, 0.75, 1.0, 1.5, 2.0)
"""Sides of the images whose growth is counted, as shares of the given ones."""
ENOUGH = 4
"""Points from which an exponent is more than a rough one."""
MEBI = 2**20


def print_plan(
    config: RunConfig, protocol: Protocol, size: tuple[int, int], arguments: argparse.Namespace
) -> int:
    """Print time and memory of training; returns the exit code."""
    model = without_pretrained(config["model"])
    batch = arguments.batch or int((config["train_data"] or {}).get("batch_size", 1))
    iterations = arguments.iterations or int(config["training"]["iterations"])
    frozen = list(config["training"].get("freeze") or ())
    network = _counted_network(model, protocol.tasks)
    network.freeze(frozen)
    if arguments.rate:
        rate = Rate(arguments.rate, 0.0, "a device of the given rate")
    else:
        small = tuple(max(SMALLEST, side // 2) for side in size)
        real = build_network(model, protocol.tasks)
        real.freeze(frozen)
        rate = measure_rate(
            real, lambda sides: count_step(network, sides).macs, (small[0], small[1]), arguments.device
        )
    counted = count_step(network, size, batch)
    optimizer = str((config["optimizer"] or {}).get("type", "AdamW"))
    found = plan(
        counted,
        rate,
        gpus=arguments.gpus,
        batch=batch,
        iterations=iterations,
        optimizer=optimizer,
        bandwidth=arguments.bandwidth,
    )
    if arguments.json:
        print(json.dumps({"image_size": list(size), **found}, indent=2))
    else:
        Console().print(plan_table(found, f"{protocol.title}, training at {size[0]}x{size[1]}"))
    return 0


def plan_table(found: Mapping[str, Any], title: str) -> Table:
    """The result of `plan` as a terminal table."""
    table = Table(title=title)
    table.add_column("per GPU")
    table.add_column("", justify="right")
    for name, size in found["memory"].items():
        table.add_row(f"memory: {name}", f"{size / MEBI:,.0f} MiB")
    table.add_section()
    for name, seconds in found["seconds"].items():
        table.add_row(f"time: {name}", f"{seconds:.4g} s")
    table.add_row("images per second, all GPUs", f"{found['images_per_second']:.4g}")
    table.add_row(f"{found['iterations']:,} iterations", f"{found['hours']:.3g} h", style="bold")
    measured = found["measured"]
    speed = f"{measured['macs_per_second'] / 1e9:.4g} GMACs/s of {measured['device']}"
    table.caption = (
        f"{found['gpus']} GPUs, {found['batch']} images each; {speed}. "
        "Without data loading and scoring; workspaces of kernels come on top."
    )
    return table


def print_growth(
    config: RunConfig, protocol: Protocol, size: tuple[int, int], arguments: argparse.Namespace
) -> int:
    """Print how a training step grows with pixels, tasks and levels; returns the exit code."""
    found = growth(without_pretrained(config["model"]), protocol.tasks, size)
    if arguments.json:
        print(json.dumps(found, indent=2))
        return 0
    table = Table(title=f"A training step of one image of {protocol.title}")
    for name in ("grows with", "at", "MACs", "kept for the backward pass", "exponent of MACs", "of memory"):
        table.add_column(name, justify="left" if name == "grows with" else "right")
    for name, item in found.items():
        for index, point in enumerate(item["points"]):
            ends = (f"{item['macs']:.2f}", f"{item['memory']:.2f}") if index == 0 else ("", "")
            table.add_row(
                name if index == 0 else "",
                f"{point['at']:,}",
                f"{point['macs'] / 1e9:.3f} G",
                f"{point['memory'] / MEBI:,.0f} MiB",
                *ends,
            )
        table.add_section()
    table.caption = rough(found)
    Console().print(table)
    return 0


def rough(found: Mapping[str, Any]) -> str | None:
    """Which exponents of `growth` have few points, in one sentence; None = none.

    >>> rough({"tasks": {"points": [1, 2]}, "levels": {"points": [1, 2, 3, 4]}})
    'An exponent of fewer than 4 points is rough: tasks (2).'
    """
    few = [f"{name} ({len(item['points'])})" for name, item in found.items() if len(item["points"]) < ENOUGH]
    return f"An exponent of fewer than {ENOUGH} points is rough: {', '.join(few)}." if few else None


def growth(model: Mapping[str, Any], tasks: Sequence[Task], size: tuple[int, int]) -> dict[str, Any]:
    """Counts of a training step of one image, and their exponents of growth.

    Args:
        model: section of a config, without pretrained weights.
        tasks: at most so many are counted: the first, the first two, …
        size: (H, W), in the middle of the sizes that are counted; below all of them where it is small.

    Returns:
        {pixels, tasks, levels: {points [{at, macs, memory}], macs, memory}}, the last two being exponents.
        What has fewer than two points is left out; levels need a backbone that takes `levels`.
    """
    network = _counted_network(model, tasks)
    sides = dict.fromkeys(_sides(size, share) for share in SIDES)
    share = SIDES[-1]
    while len(sides) < ENOUGH:
        share += 1
        sides[_sides(size, share)] = None
    found: dict[str, list[dict[str, int]]] = {
        "pixels": [_point(network, (h, w), h * w) for h, w in sides],
        "tasks": [
            _point(_counted_network(model, tasks[:count]), size, count) for count in range(1, len(tasks) + 1)
        ],
        "levels": [],
    }
    for count in range(1, 5):
        few = {**model, "backbone": {**model["backbone"], "levels": tuple(range(1, count + 1))}}
        with suppress(TypeError, ValueError, NotImplementedError):  # not every backbone has such levels
            found["levels"].append(_point(_counted_network(few, tasks), size, count))
    several = {name: points for name, points in found.items() if len(points) > 1}
    return {name: {"points": points, **_exponents(points)} for name, points in several.items()}


def _sides(size: tuple[int, int], share: float) -> tuple[int, int]:
    """Sides of an image so many times as large, which every network takes."""
    height, width = (max(SMALLEST, round(side * share / 32) * 32) for side in size)
    return height, width


def _counted_network(model: Mapping[str, Any], tasks: Sequence[Task]) -> Network:
    with without_values():
        return build_network(model, tasks)


def _point(network: nn.Module, size: tuple[int, int], at: int) -> dict[str, int]:
    counted = count_step(network, size)
    return {"at": at, "macs": counted.macs, "memory": counted.activations}


def _exponents(points: Sequence[Mapping[str, int]]) -> dict[str, float]:
    of = partial(_slope_of, points)
    return {"macs": of("macs"), "memory": of("memory")}


def _slope_of(points: Sequence[Mapping[str, int]], key: str) -> float:
    return slope([(point["at"], point[key]) for point in points])

"""The front of a trained manifold of preferences: scores on rays, uniformity, hypervolume, a page."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from mtvision.core.context import Context, use_context
from mtvision.core.task import Task
from mtvision.models.adapters.pareto import calibrate_preferences, manifold_of
from mtvision.models.network import Network
from mtvision.procedures.control_report import markdown_table, picture
from mtvision.procedures.controllable import REFERENCE, headline_scores
from mtvision.procedures.merge_images import spread_images, training_set
from mtvision.recipe.building import trained_network
from mtvision.recipe.config import RunConfig
from mtvision.recipe.data import build_dataset
from mtvision.recipe.settings import Settings
from mtvision.report.control_page import control_page
from mtvision.runtime.atomic import write_text
from mtvision.runtime.attempts import Attempts
from mtvision.runtime.checkpoint import save_network
from mtvision.search.controllability import hypervolume, relative_errors, uniformity

Preference = Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class FrontRequest:
    """What is measured, besides the config.

    Args:
        checkpoint: of a network with the adapter `ParetoManifold`.
        out: folder for the results.
        images: training images for statistics of batch norms.
        section: that is scored.
        pictures: of the page.
        reference: {task: headline score} that errors are relative to; None = the network's own scores with
            equal shares.
    """

    checkpoint: Path
    out: Path
    images: int = 64
    section: str = "test_data"
    pictures: int = 2
    reference: Mapping[str, float] | None = field(default=None)


def front_of(
    tasks: Sequence[Task],
    preferences: Sequence[Preference],
    scores: Callable[[Preference], Mapping[str, float]],
    reference: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Score every preference and measure the front.

    Args:
        tasks: of the network.
        preferences: {task: share}, adding up to 1.
        scores: {task: headline score} with a preference.
        reference: as in `FrontRequest`.

    Returns:
        `points`, one per preference: `preference`, `scores`, `errors` relative to the `reference`,
        `uniformity` (None where it is not defined) and `dominated`. `hypervolume` is that up to
        `reference_point`. `uniformity` is the mean, and `kept` the share of points that no other dominates.
    """
    equal = {task.name: 1 / len(tasks) for task in tasks}
    base = dict(scores(equal)) if reference is None else dict(reference)
    points: list[dict[str, Any]] = []
    for preference in preferences:
        found = dict(scores(preference))
        errors = relative_errors(tasks, found, base)
        even = uniformity(preference, errors)
        points.append(
            {
                "preference": dict(preference),
                "scores": found,
                "errors": errors,
                "uniformity": None if math.isnan(even) else even,
            }
        )
    for point in points:
        point["dominated"] = any(_dominates(other["errors"], point["errors"]) for other in points)
    known = [point["uniformity"] for point in points if point["uniformity"] is not None]
    return {
        "tasks": [task.name for task in tasks],
        "reference": base,
        "reference_point": REFERENCE,
        "points": points,
        "hypervolume": hypervolume([point["errors"] for point in points], REFERENCE),
        "uniformity": sum(known) / len(known) if known else None,
        "kept": sum(not point["dominated"] for point in points) / len(points),
    }


def _dominates(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    """Whether errors are at most as large everywhere and smaller somewhere."""
    return all(one[name] <= other[name] for name in other) and any(one[name] < other[name] for name in other)


def measure_front(config: RunConfig, request: FrontRequest) -> dict[str, Any]:
    """Measure the front of a trained network; writes `pareto.json`, `.md`, `.pth` and `page.html`.

    `pareto.pth` is the checkpoint with statistics of batch norms for every preference on the rays.

    Raises:
        FileNotFoundError, CheckpointError: the checkpoint is absent, damaged or of another network.
        ValueError: the network has no manifold of preferences.
    """
    settings = Settings.of(config)
    network, meta = trained_network(config, settings.protocol, request.checkpoint)
    network = network.to("cuda" if torch.cuda.is_available() else "cpu")
    device = next(network.parameters()).device
    whole = cache(partial(training_set, config))
    norms = calibrate_preferences(
        network,
        lambda: spread_images(config, request.images, whole()),
        lambda batch: network(batch.image.to(device)),
    )
    save_network(request.out / "pareto.pth", network.state_dict(), meta)
    section = request.section if config[request.section] else "val_data"

    def scores(preference: Preference) -> dict[str, float]:
        return headline_scores(config, settings, network, section, Context(preference=dict(preference)))

    manifold = manifold_of(network)
    assert manifold is not None  # `calibrate_preferences` refuses a network without one
    found = front_of(settings.protocol.tasks, manifold.preferences(), scores, request.reference)
    found |= {"section": section, "norms": norms, "images": request.images if norms else 0}
    write_text(request.out / "pareto.json", json.dumps(found, indent=2) + "\n")
    later, advice = Attempts(), "the numbers are in pareto.json"
    table = partial(markdown_table, *front_table(found, settings.protocol.tasks))
    later.run("pareto.md", lambda: write_text(request.out / "pareto.md", table() + "\n"), advice)
    page = partial(_page, config, settings, network, found, request.pictures)
    later.run("page.html", lambda: write_text(request.out / "page.html", page()), advice)
    return found


def front_table(found: Mapping[str, Any], tasks: Sequence[Task]) -> tuple[str, list[str], list[list[str]]]:
    """Title, columns and rows of a front."""
    columns = [f"{task.name} {task.headline} {'↑' if task.higher_is_better else '↓'}" for task in tasks]
    rows = [
        [_words(point["preference"])]
        + [f"{point['scores'][task.name]:.4g}" for task in tasks]
        + ["-" if point["uniformity"] is None else f"{point['uniformity']:.3f}"]
        + ["yes" if point["dominated"] else "no"]
        for point in found["points"]
    ]
    title = (
        f"Hypervolume {found['hypervolume']:.4f} (reference point {found['reference_point']:g} in every task)"
    )
    return title, ["preference", *columns, "uniformity", "dominated"], rows


def _words(preference: Preference) -> str:
    return ", ".join(f"{name} {share:.2g}" for name, share in preference.items())


@torch.no_grad()
def _page(
    config: RunConfig, settings: Settings, network: Network, found: Mapping[str, Any], pictures: int
) -> str:
    """A slider over the share of a task, and the choice of that task."""
    protocol, section = settings.protocol, found["section"]
    dataset = build_dataset(section, config[section], protocol, settings.seed)
    samples = [dataset[index * len(dataset) // max(pictures, 1)] for index in range(pictures)]
    shots = []
    shares: list[float] = []
    for second, task in enumerate(protocol.tasks):
        rays = [point for point in found["points"] if _on_ray(point["preference"], task.name)]
        shares = [point["preference"][task.name] for point in rays]
        for first, point in enumerate(rays):
            with use_context(Context(preference=point["preference"])):
                drawn = [picture(network, settings, sample) for sample in samples]
            scores = {
                f"{one.name} {one.headline}": f"{point['scores'][one.name]:.4g}" for one in protocol.tasks
            }
            shots.append(
                {
                    "budget": first,
                    "preference": second,
                    "share": f"{100 * point['preference'][task.name]:.0f} % {task.name}",
                    "facts": {"preference": _words(point["preference"])},
                    "scores": scores,
                    "pictures": drawn,
                }
            )
    note = f"{protocol.title}. One network, one checkpoint; its weights are a mixture by preference."
    names = [task.name for task in protocol.tasks]
    return control_page(
        "Preference", note, shares, names, shots, slider="its share", choice="task that matters"
    )


def _on_ray(preference: Preference, task: str) -> bool:
    """Whether all other tasks have equal shares."""
    others = [share for name, share in preference.items() if name != task]
    return max(others) - min(others) < 1e-5

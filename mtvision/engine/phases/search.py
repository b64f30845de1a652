"""The result of a phase that searches: an architecture, which later phases are built from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from mtvision.core.context import Context
from mtvision.core.registry import SEARCHERS
from mtvision.core.sample import Batch
from mtvision.engine.phases.part import Part, build_part
from mtvision.engine.run_dir.journal import Journal
from mtvision.recipe.config import RunConfig
from mtvision.recipe.phases.found import phases_asked
from mtvision.recipe.phases.plan import Phase
from mtvision.recipe.settings import to_plain_data
from mtvision.runtime.atomic import write_text
from mtvision.runtime.checkpoint import load_checkpoint, load_network_weights
from mtvision.runtime.launch import is_main_process
from mtvision.search import Searcher, SearchProblem


def found_before(
    config: RunConfig, plan: Sequence[Phase], first: int, work_dir: Path, journal: Journal
) -> dict[str, Any]:
    """{phase: what it found} of the phases that are done when a run continues.

    Args:
        config: of the whole run.
        plan: all phases.
        first: place of the phase that the run continues with.
        work_dir: of the run.
        journal: gets lines on frozen parts.
    """
    found = {}
    for phase in plan[:first]:
        if phase.name in phases_asked(to_plain_data(config["model"])):
            file = _file(work_dir, phase)
            if file.is_file():
                found[phase.name] = json.loads(file.read_text(encoding="utf-8"))["tree"]
                continue
            part = build_part(config, phase, journal, begins=False)  # the process ended before it was written
            path = work_dir / f"iter_{phase.end}.pth"
            load_network_weights(part.module.network, load_checkpoint(path), path)
            found[phase.name] = derived(part, work_dir)
    return found


def derived(part: Part, work_dir: Path) -> dict[str, Any]:
    """What the searcher of the config reads off the network of a phase; the main process writes it.

    The file is `architecture_NAME.json` in the work dir, as `mtvision search` writes it.

    Raises:
        ValueError: the searcher needs held-out images.
        TypeError: the network of the phase is not one that the searcher knows.
    """
    section = to_plain_data(part.config["search"])
    section.pop("held_out", None)
    searcher: Searcher = SEARCHERS.build(section)
    network = part.module.network.eval()
    result = searcher.search(
        SearchProblem(
            network=network,
            tasks=part.settings.protocol.tasks,
            held_out=_no_images,
            evaluate=_no_scores,
            losses=_no_scores,
        )
    )
    if is_main_process():
        about = {"searcher": type(searcher).__name__, "phase": part.phase.name}
        text = json.dumps({**about, **result}, indent=2)
        write_text(_file(work_dir, part.phase), text + "\n")
    tree: dict[str, Any] = result["tree"]
    return tree


def _file(work_dir: Path, phase: Phase) -> Path:
    return work_dir / f"architecture_{phase.name}.json"


def _no_images() -> Iterable[Batch]:
    _refuse()


def _no_scores(_: Context | None) -> dict[str, float]:
    _refuse()


def _refuse() -> NoReturn:
    raise ValueError(
        "search: a phase serves searchers that read the trained network alone (LTBSearcher, BMTASSearcher). "
        "Run `mtvision search` for this one, and train its architecture.json."
    )

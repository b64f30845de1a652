"""Facts and results of a run, as trackers take them."""

from __future__ import annotations

from functools import partial
from math import isfinite
from pathlib import Path

import cv2
import numpy as np

from mtvision.engine.evaluate import RECORD_FILE
from mtvision.engine.records import backbone_name
from mtvision.recipe.config import RunConfig
from mtvision.recipe.settings import Settings
from mtvision.report.provenance import config_entry
from mtvision.report.record import Record
from mtvision.runtime.attempts import Attempts
from mtvision.runtime.launch import is_main_process
from mtvision.tracking.loggers import Loggers, record_summary
from mtvision.tracking.run import RunFacts, RunFile
from mtvision.tracking.run_id import grid_of


def loggers_of(config: RunConfig, settings: Settings, work_dir: Path, run_id: str) -> Loggers:
    """The trackers of a run; other processes than the main one have none."""
    wanted = settings.logging if is_main_process() else type(settings.logging)()
    return Loggers(wanted, work_dir, facts_of(config, settings, work_dir, run_id))


def facts_of(config: RunConfig, settings: Settings, work_dir: Path, run_id: str) -> RunFacts:
    """A run as trackers list it. Runs that differ in their seed alone have one group."""
    protocol, own = settings.protocol, settings.logging
    name = config["name"] or work_dir.name
    grid = grid_of(work_dir)
    tags = [protocol.id, backbone_name(config), *own.tags, *([f"grid {grid['name']}"] if grid else [])]
    return RunFacts(
        name=name,
        run_id=run_id,
        config=dict(config),
        project=own.project,
        group=own.group or f"{name} {config_entry('', config.text)['row_sha256'][:8]}",
        grid=grid,
        tags=list(dict.fromkeys(tags)),
        higher_is_better={f"{task.name}/{task.headline}": task.higher_is_better for task in protocol.tasks},
    )


def log_result(
    loggers: Loggers, record: Record, checkpoint: Path, work_dir: Path, step: int, later: Attempts
) -> None:
    """Pictures of the evaluation, final numbers and files, where curves go; says what the loggers lost."""
    for path in sorted((work_dir / "pictures").glob("*.png")) if loggers.active else ():
        later.run(f"{path.name} in the loggers", partial(_log_picture, loggers, path, step))

    def finish() -> None:
        loggers.finish(record_summary(record), result_files(record, work_dir, checkpoint))

    later.run("final numbers in the loggers", finish)
    later.lines += loggers.failures  # printed when they happened


def result_files(record: Record, work_dir: Path, checkpoint: Path) -> list[RunFile]:
    """Record and checkpoint, as far as they are on the disk."""
    scores = {name: value for name, value in record_summary(record).items() if isfinite(value)}
    about = {
        "protocol": record.protocol,
        "method": record.method,
        "backbone": record.backbone,
        "seed": record.seed,
        "numbers": scores,
    }
    weights = {**about, **(record.checkpoint or {})}
    found = [RunFile(work_dir / RECORD_FILE, "record", about), RunFile(checkpoint, "checkpoint", weights)]
    return [item for item in found if item.path.is_file()]


def _log_picture(loggers: Loggers, path: Path, step: int) -> None:
    picture = cv2.imread(str(path))
    if picture is not None:
        loggers.image(f"pictures/{path.stem}", np.asarray(picture[..., ::-1], np.uint8), step)

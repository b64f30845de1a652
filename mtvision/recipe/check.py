"""Find the mistakes in a config before a slow import.

Only source files are read: torch, timm, OpenCV and mmengine's runner are not imported. A missing folder, or
channels that do not fit, are found when the parts are built.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtvision.core.naming import Mistakes, gathering
from mtvision.core.registry import ACTIVATIONS, COLOURS, LOSSES, METRICS
from mtvision.core.registry.entries import check_section
from mtvision.metrics.several.options import check_task, metric_configs
from mtvision.models.check import check_tasks_of_model
from mtvision.recipe.config import RunConfig, read_config
from mtvision.recipe.phases.plan import check_phases, phases_of
from mtvision.recipe.sections import TOP_LEVEL, TopLevel
from mtvision.recipe.selection import check_selection
from mtvision.recipe.settings import Settings, read_settings, to_plain_data

TO_TRAIN = ("model", "train_data", "optimizer", "test_data or val_data")
"""Sections without which `mtvision train` cannot finish."""

_EXPECTED = {
    "model": "dict(backbone=..., decoder=..., head=...)",
    "optimizer": "dict(type='AdamW', lr=...)",
    "search": "dict(type='...', held_out=0.2, ...)",
}


def load_checked(
    path: str | Path, options: Sequence[str] = (), plugins: Sequence[str] = (), needs: Sequence[str] = ()
) -> tuple[RunConfig, Settings]:
    """Read a config as `load_config` does and check it as `check_config` does; all mistakes are told at once.

    Args:
        path: of the file, or the name of a shipped config.
        options: `--cfg-options`.
        plugins: `--plugin`.
        needs: see `check_config`.

    Returns:
        The config and its settings.

    Raises:
        FileNotFoundError, PluginError, TypeError, ValueError, UnknownNameError, ConfigError: as both.
    """
    with gathering(f"config {path}") as found:
        config = read_config(found, path, options, plugins)
        settings = _check(found, config, needs)
    assert settings is not None  # without a mistake there are settings
    return config, settings


def check_config(config: Mapping[str, Any], needs: Sequence[str] = ()) -> Settings:
    """Refuse a config with an unknown key, name or argument, or a value of the wrong type or range.

    Args:
        config: from `load_config`.
        needs: sections that must be given; `a or b` asks for one of two.

    Returns:
        The checked settings.

    Raises:
        TypeError, ValueError, UnknownNameError: the only mistake. The message names the key, what was found
            and what was expected.
        ConfigError: several mistakes.
    """
    with gathering(f"config {config.file}" if isinstance(config, RunConfig) else "config") as found:
        settings = _check(found, config, needs)
    assert settings is not None  # without a mistake there are settings
    return settings


def _check(found: Mistakes, config: Mapping[str, Any], needs: Sequence[str]) -> Settings | None:
    plain = {**TOP_LEVEL, **to_plain_data(config)}
    settings = read_settings(found, plain)
    check_section(found, plain, TopLevel)
    _check_sections(found, plain, settings, needs)
    if plain["phases"] and not len(found):
        _check_phases(found, config, plain, needs)
    return settings


def _check_phases(
    found: Mistakes, config: Mapping[str, Any], plain: Mapping[str, Any], needs: Sequence[str]
) -> None:
    """The list of phases, then the config of every phase, whose keys are those of the phase."""
    check_phases(found, plain)
    if len(found):
        return
    tasks = found.tasks
    for phase in phases_of(plain):
        with found.at("phases"), found.at(phase.index):
            changed: Mapping[str, Any] = {**plain, **phase.options, "phases": []}
            if isinstance(config, RunConfig):  # which has the entries of tasks that only this phase has
                changed = phase.config_of(config)
            _check(found, changed, needs)
    found.tasks = tasks


def _check_sections(
    found: Mistakes, plain: Mapping[str, Any], settings: Settings | None, needs: Sequence[str]
) -> None:
    """Missing sections, tasks with their losses and metrics, and what contradicts itself."""
    for need in needs:
        names = need.split(" or ")
        if not any(plain[name] for name in names):
            expected = _EXPECTED.get(names[0], "dict(dataset=dict(type=...), batch_size=...)")
            with found.at(names[0]):
                raise ValueError(f"config: '{names[0]}' is missing; expected {expected}.")
    if settings is None:
        return
    _check_tasks(found, settings)
    if isinstance(plain["model"], Mapping):
        with found.at("model"):
            check_tasks_of_model(found, plain["model"], settings.protocol.tasks)
    training, evaluation = settings.training, settings.evaluation
    with found.at("training"), found.at("val_interval"):
        if training.val_interval and not plain["val_data"]:
            raise ValueError("training.val_interval is set, but 'val_data' is missing; give both or neither.")
    data = plain["train_data"]
    with found.at("training"), found.at("micro_batches"):
        images = data.get("batch_size") if isinstance(data, Mapping) else None
        if isinstance(images, int) and training.micro_batches > images:
            raise ValueError(
                f"training.micro_batches={training.micro_batches} are more parts than train_data.batch_size="
                f"{images} has images; {images} is the most."
            )
    with found.at("training"), found.at("init_from_data"):
        if training.init_from_data and settings.protocol.family != "own":
            raise ValueError(
                f"training.init_from_data: protocol {settings.protocol.id} is published, and its results "
                "start from the published initialisation. Leave it out, or make a protocol of your own."
            )
    with found.at("evaluation"), found.at("select"):
        if training.val_interval:
            check_selection(evaluation.select, settings.protocol, training.iterations, training.val_interval)


def _check_tasks(found: Mistakes, settings: Settings) -> None:
    """Losses, metrics, activations and colours of the tasks, with the options that the config changes."""
    training, evaluation = settings.training, settings.evaluation
    during = {**evaluation.metric_options, **evaluation.during_training}
    for task in settings.protocol.tasks:
        name = task.name
        with found.at("protocol"), found.at("tasks"), found.at(name):
            for field, table in (("activation", ACTIVATIONS), ("colours", COLOURS)):
                with found.at(field):
                    table.require(getattr(task, field))
            if not found.below(found.key):
                check_task(task)
        if found.below(f"protocol.tasks.{name}"):
            continue  # what its options are is not known
        with found.at("training"), found.at("loss_options"), found.at(name):
            LOSSES.check_config({**task.loss, **training.loss_options.get(name, {})}, found)
        measured = {"metric_options": evaluation.metric_options, "during_training": during}
        for key, options in measured.items():
            if found.below(f"evaluation.metric_options.{name}"):
                continue  # they count in both
            with found.at("evaluation"), found.at(key), found.at(name):
                for metric in metric_configs(task, options.get(name)):
                    METRICS.check_config(metric, found)

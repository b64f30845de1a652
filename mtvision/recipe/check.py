"""Find the mistakes in a config before a slow import.

Only source files are read: torch, timm, OpenCV and mmengine's runner are not imported. A missing folder, or
channels that do not fit, are found when the parts are built.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from mtvision.core.held_out import is_held_out
from mtvision.core.naming import within
from mtvision.core.registry import (
    BALANCERS,
    DATASETS,
    LOSSES,
    METRICS,
    OPTIMIZERS,
    SCHEDULES,
    SEARCHERS,
    STEPS,
    Registry,
)
from mtvision.core.values import check_fields
from mtvision.data.transforms.config import check_transforms
from mtvision.metrics.several.options import check_task, metric_configs
from mtvision.models.check import check_model
from mtvision.recipe.selection import check_selection
from mtvision.recipe.settings import (
    DATA_SECTIONS,
    LOADER_DEFAULTS,
    LoaderSettings,
    OptimizerSettings,
    Settings,
    check_keys,
    to_plain_data,
)

TO_TRAIN = ("model", "train_data", "optimizer", "test_data or val_data")
"""Sections without which `mtvision train` cannot finish."""

_EXPECTED = {
    "model": "dict(backbone=..., decoder=..., head=...)",
    "optimizer": "dict(type='AdamW', lr=...)",
    "search": "dict(type='...', held_out=0.2, ...)",
}


def check_config(config: Mapping[str, Any], needs: Sequence[str] = ()) -> Settings:
    """Refuse a config with an unknown key, name or argument, or a value of the wrong type or range.

    Args:
        config: from `load_config`.
        needs: sections that must be given; `a or b` asks for one of two.

    Returns:
        The checked settings.

    Raises:
        TypeError, ValueError, UnknownNameError: the first mistake. The message names the key, what was found
            and what was expected.
    """
    settings = Settings.of(config)
    plain = to_plain_data(config)
    _check_tasks(settings)
    if plain["model"]:
        check_model(plain["model"], settings.protocol.tasks)
    for name in DATA_SECTIONS:
        if plain[name]:
            _check_data(name, plain[name])
    for name, table in (("balancer", BALANCERS), ("step", STEPS)):
        _check_entry(name, table, plain[name])
    if plain["optimizer"]:
        _check_optimizer(plain["optimizer"])
    for index, entry in enumerate(plain["schedule"] or ()):
        with within(f"schedule.{index}"):
            SCHEDULES.check_config(entry)
    if plain["search"]:
        with within("search"):
            _check_search(plain["search"])
    if settings.training.val_interval and not plain["val_data"]:
        raise ValueError("training.val_interval is set, but 'val_data' is missing; give both or neither.")
    check_selection(
        settings.evaluation.select,
        settings.protocol,
        settings.training.iterations,
        settings.training.val_interval,
    )
    for need in needs:
        names = need.split(" or ")
        if not any(config[name] for name in names):
            expected = _EXPECTED.get(names[0], "dict(dataset=dict(type=...), batch_size=...)")
            raise ValueError(f"config: '{names[0]}' is missing; expected {expected}.")
    return settings


def _check_tasks(settings: Settings) -> None:
    """Losses and metrics of the tasks, with the options that the config changes."""
    training, evaluation = settings.training, settings.evaluation
    measured = {
        "evaluation.metric_options": evaluation.metric_options,
        "evaluation.during_training": {**evaluation.metric_options, **evaluation.during_training},
    }
    for task in settings.protocol.tasks:
        with within(f"protocol.tasks.{task.name}"):
            check_task(task)
        with within(f"training.loss_options.{task.name}"):
            LOSSES.check_config({**task.loss, **training.loss_options.get(task.name, {})})
        for key, options in measured.items():
            with within(f"{key}.{task.name}"):
                for metric in metric_configs(task, options.get(task.name)):
                    METRICS.check_config(metric)


def _check_data(section: str, given: Mapping[str, Any]) -> None:
    check_keys(f"key of '{section}'", given, ("dataset", *LOADER_DEFAULTS))
    if "dataset" not in given:
        raise ValueError(f"config: '{section}' has no 'dataset'; expected dict(type=..., ...).")
    check_fields(section, LoaderSettings(**{name: given[name] for name in LOADER_DEFAULTS if name in given}))
    _check_entry(f"{section}.dataset", DATASETS, given["dataset"])


def _check_entry(place: str, table: Registry, entry: Any) -> None:
    """An entry of a table, its transforms, and the entries of the same table inside it.

    The parts of a joint data set and the step inside a step are entries, too. A part may have a `name`.
    """
    with within(place):
        table.check_config(entry)
        if entry.get("transforms") is not None:
            check_transforms(entry["transforms"])
    for name, value in entry.items():
        several = isinstance(value, list | tuple) and name != "transforms"
        for index, item in enumerate(value if several else [value]):
            if isinstance(item, Mapping) and "type" in item:
                inside = f"{place}.{name}.{index}" if several else f"{place}.{name}"
                _check_entry(inside, table, {key: item[key] for key in item if key != "name"})


def _check_optimizer(given: Mapping[str, Any]) -> None:
    """Our keys and their types, then the further arguments of the optimizer's class."""
    own = {item.name for item in fields(OptimizerSettings)}
    with within("optimizer"):
        parameters = OPTIMIZERS.parameters(given.get("type", "AdamW"))
        if "lr" not in given:
            raise ValueError("'lr' is missing.")
        check_keys("optimizer argument", given, {*own, *parameters} - {"params"})
    settings = OptimizerSettings(**{name: value for name, value in given.items() if name in own})
    check_fields("optimizer", settings)


def _check_search(given: Mapping[str, Any]) -> None:
    is_held_out("", given.get("held_out", 0.0))  # refuses a share out of range
    SEARCHERS.check_config({name: value for name, value in given.items() if name != "held_out"})

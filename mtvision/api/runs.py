"""Configs from Python: build a network, train it, score it, list what is shipped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtvision.api.model import Model, load
from mtvision.data.dataset import DenseDataset
from mtvision.evaluation.evaluator import SampleEvaluator, Scores
from mtvision.evaluation.scoring import evaluate as evaluate_network
from mtvision.recipe.building import network_of
from mtvision.recipe.check import TO_TRAIN, check_config
from mtvision.recipe.config import RunConfig, load_config
from mtvision.recipe.data import build_dataset, evaluation_loader
from mtvision.recipe.sections import LOADER_DEFAULTS
from mtvision.recipe.settings import Settings, protocol_of
from mtvision.recipe.shipped import shipped_configs
from mtvision.report.record import Record
from mtvision.runtime.progress import messages

SECTIONS = ("test", "val")


def build(
    config: str | Path | RunConfig,
    *,
    options: Sequence[str] = (),
    plugins: Sequence[str] = (),
    device: str = "cpu",
) -> Model:
    """The network of a config before training, with pretrained weights where the config has some.

    Args:
        config: a file, the name of a shipped config (`list_recipes`), or a loaded one.
        options: `key=value`, as `--cfg-options`.
        plugins: as `--plugin`.
        device: where to compute.

    Raises:
        FileNotFoundError, ValueError, TypeError, UnknownNameError: mistakes in the config.

    >>> model = build("synthetic/demo_resnet10t_synthetic_1xb16_400", options=["tasks=depth"])
    >>> list(model.tasks)
    ['depth']
    """
    chosen = _config(config, options, plugins)
    check_config(chosen, ("model",))
    protocol = protocol_of(chosen)
    return Model(network_of(chosen, protocol), chosen, protocol, source=chosen.name, device=device)


def train(
    config: str | Path | RunConfig,
    work_dir: str | Path | None = None,
    *,
    options: Sequence[str] = (),
    plugins: Sequence[str] = (),
    resume: bool = False,
    overwrite: bool = False,
) -> Record:
    """Train a config and score its last checkpoint, as `mtvision train` does.

    Args:
        config: a file, the name of a shipped config, or a loaded one.
        work_dir: receives everything that is written; None = `work_dirs/<config>`. `mtvision.load(work_dir)`
            gives the trained network.
        options: `key=value`, as `--cfg-options`.
        plugins: as `--plugin`.
        resume: start, continue, or return the record of a run that is done.
        overwrite: delete an earlier run in `work_dir`.

    Raises:
        IncompleteError: a part of the record could not be measured or written.
        FileExistsError: an earlier run is there and neither `resume` nor `overwrite` is given.
        NonFiniteError, TrainingInterruptedError, LostProcessError: see `mtvision.engine.training.train`.
    """
    from mtvision.engine.records import require_whole
    from mtvision.engine.training import train as train_config

    chosen = _config(config, options, plugins)
    check_config(chosen, TO_TRAIN)
    folder = Path(work_dir) if work_dir is not None else Path("work_dirs") / Path(chosen.file).stem
    record = train_config(chosen, folder, resume="auto" if resume else None, overwrite=overwrite)
    require_whole(record)
    return record


def evaluate(
    model: Model | str | Path,
    data: str | Mapping[str, Any] | DenseDataset = "test",
    *,
    batch_size: int | None = None,
    progress: bool = False,
) -> Scores:
    """Scores of a network with the full metrics of its protocol.

    Args:
        model: from `load`, or what `load` takes: a checkpoint, the folder of a run, `demo`, …
        data: `test` or `val`, the data of its config; a data set; or `dict(type="FolderDataset", …)`.
        batch_size: images at once; None = that of the config, else 1. No score depends on it.
        progress: show a progress bar.

    Returns:
        {task: {score: number}}, shares as fractions.

    Raises:
        ValueError, FileNotFoundError: the data cannot be opened.
        NothingLabelledError: a task has no label in the whole split.

    >>> import mtvision
    >>> model = mtvision.load("demo", tasks=["depth"])
    >>> scores = evaluate(model, dict(type="SyntheticScenes", split="val", length=2))
    >>> scores["depth"]["rmse"] < 10  # metres
    True
    """
    if not isinstance(model, Model):
        model = load(model)
    settings = Settings.of(model.config)
    section, entry = _section(model, data)
    if isinstance(data, DenseDataset):
        dataset = data
    else:
        dataset = build_dataset(section, entry, model.protocol, settings.seed)
    loader = evaluation_loader(
        dataset, {**entry, **({} if batch_size is None else {"batch_size": batch_size})}
    )
    options = {
        name: values
        for name, values in settings.evaluation.metric_options.items()
        if name in model.protocol.task_names
    }
    evaluator = SampleEvaluator(model.protocol.tasks, options, settings.evaluation.workers)
    try:
        return evaluate_network(
            model.network,
            loader,
            evaluator,
            precision=settings.evaluation.precision,
            console=messages(quiet=not progress),
        )
    finally:
        evaluator.close()


def _section(model: Model, data: str | Mapping[str, Any] | DenseDataset) -> tuple[str, dict[str, Any]]:
    """Name and content of a section of data, complete."""
    if isinstance(data, str):
        if data not in SECTIONS:
            raise ValueError(f"data='{data}': expected 'test', 'val', a data set or dict(type=...).")
        section = f"{data}_data" if model.config[f"{data}_data"] else "val_data"
        return section, {**LOADER_DEFAULTS, **(model.config[section] or {})}
    entry = {"dataset": dict(data)} if isinstance(data, Mapping) else {}
    return "data", {**LOADER_DEFAULTS, **entry, "batch_size": 1}


def list_recipes(*words: str) -> list[str]:
    """Names of the shipped configs that hold all words; every function and command takes them.

    >>> list_recipes("synthetic", "demo")
    ['synthetic/demo_resnet10t_synthetic_1xb16_400']
    """
    return [item.name for item in shipped_configs() if all(word in item.name for word in words)]


def _config(config: str | Path | RunConfig, options: Sequence[str], plugins: Sequence[str]) -> RunConfig:
    if not isinstance(config, RunConfig):
        return load_config(config, options, plugins)
    if options or plugins:
        raise TypeError("options= and plugins= belong to a config's file or name; use config.with_options.")
    return config

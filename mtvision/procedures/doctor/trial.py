"""A short run of a config, and whether its loader keeps up with its network."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from mtvision.core.sample import Batch
from mtvision.engine.building import training_module
from mtvision.engine.evaluate import device
from mtvision.engine.optimization.optimizer import build_optimization
from mtvision.procedures.doctor.check import Check
from mtvision.procedures.doctor.machine import usable_cores
from mtvision.procedures.validation import Validation
from mtvision.recipe.building import network_of, without_pretrained
from mtvision.recipe.config import RunConfig
from mtvision.recipe.data import build_dataset, train_loader
from mtvision.recipe.settings import Settings

SECONDS = 5.0
"""How long loading and training are each timed."""
MOST, LEAST = 20, 2
"""Batches that are timed."""


def self_test(config: RunConfig) -> Iterator[Check]:
    """Build, train one step, write a checkpoint, read it back, score, write a record: on two images."""
    with TemporaryDirectory(prefix="mtvision-doctor-") as folder:
        trial = Validation(config, Path(folder) / "run")
        yield Check("build", "ok", trial.build().text)
        yield Check("data", "ok", trial.data().text)
        yield Check("step", "ok", trial.step().text)
        yield Check("score", "ok", trial.score().text)


def speed(config: RunConfig) -> Iterator[Check]:
    """Images a second of the training loader, and of training steps on a batch that is there."""
    settings = Settings.of(config)
    section = config["train_data"]
    dataset = build_dataset("train_data", section, settings.protocol, settings.seed)
    size, workers = int(section["batch_size"]), int(section["num_workers"])
    batch, seconds = _loading(train_loader(dataset, section, settings.seed))
    loading = size / seconds
    plain = {**config, "model": without_pretrained(config["model"])}
    module = training_module(plain, settings, network_of(plain, settings.protocol)).to(device()).train()
    wrapper, _ = build_optimization(plain, settings.training, module.network, module.balancer)

    def step() -> None:
        module.train_step(batch, wrapper)
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    step()  # finds the roles of parameters, fills caches
    training = size / _seconds(step)
    text = f"{loading:.1f} images/s are loaded by {workers} workers, {training:.1f} images/s are trained"
    facts = {"loading": loading, "training": training, "workers": workers, "batch_size": size}
    if loading < training:
        remedy = (
            f"The loader is the limit. Raise train_data.num_workers ({usable_cores()} cores are usable), or "
            "write an array cache."
        )
        yield Check("loader and step", "note", text, remedy, facts)
    else:
        yield Check("loader and step", "ok", text, "", facts)


def _loading(loader: Iterable[Batch]) -> tuple[Batch, float]:
    """A batch, and the mean time of those after it; the workers end with this function."""
    batches = iter(loader)
    first = next(batches)  # starts the workers
    return first, _seconds(lambda: next(batches))


def _seconds(call: Callable[[], object]) -> float:
    """Mean time of a call."""
    started = time.perf_counter()
    for count in range(1, MOST + 1):
        call()
        passed = time.perf_counter() - started
        if passed > SECONDS and count >= LEAST:
            break
    return passed / count

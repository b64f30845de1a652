"""Whether a config trains: it is built without weights in memory, then trained and scored on two images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from mtvision.core.files.foreign import ForeignError, foreign_errors
from mtvision.core.naming import ReportedError
from mtvision.core.output import NetworkOutput
from mtvision.core.shapes import without_values
from mtvision.core.task import Task
from mtvision.data.dataset import DenseDataset
from mtvision.engine.building import training_module
from mtvision.engine.evaluate import RECORD_FILE, evaluate_checkpoint
from mtvision.engine.hooks import StepWatch
from mtvision.engine.optimization.optimizer import build_optimization
from mtvision.engine.training import FittedRun, fit
from mtvision.models.dry_run import in_mode, with_values
from mtvision.models.network import Network
from mtvision.protocols import Protocol
from mtvision.recipe.building import network_of, without_pretrained
from mtvision.recipe.config import RunConfig
from mtvision.recipe.data import build_dataset, first_labelled, require_labels, train_loader
from mtvision.recipe.phases.found import without_found
from mtvision.recipe.sections import DATA_SECTIONS
from mtvision.recipe.settings import Settings, protocol_of
from mtvision.report.record import Record
from mtvision.runtime.attempts import failure_line

IMAGES = 2
"""Images of the one step, and of the evaluation; more where two do not have labels of all tasks."""
LOOKED_AT = 100
"""Training images that are searched for labels of every task."""
NAMED = 3
"""Names that a line lists before it only counts."""


class StageError(ReportedError, ValueError):
    """A config fails at a stage. The message is one line: stage, key of the config, what happened."""


@dataclass(frozen=True)
class Passed:
    """What a stage found.

    Args:
        text: for a person, one line.
        facts: the same as plain data.
    """

    text: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@contextmanager
def stage(name: str, place: str) -> Iterator[None]:
    """Errors of any kind inside a block become a `StageError`.

    Args:
        name: of the stage.
        place: key of the config that the block is about.
    """
    try:
        with foreign_errors(StageError):
            yield
    except ForeignError as error:
        raise StageError(failure_line(f"{name}: {place}", error.error)) from error.error


class Validation:
    """A config on its way through the stages. Each is called once, in this order.

    Args:
        config: from `load_config`, checked by `check_config`.
        folder: receives the run of the last two stages.
        random_data: replace the data sets by random labelled images.
        size: (H, W) of these images, which are then not transformed. By default they have the protocol's
            sizes, and the transforms of the config.
        pretrained: start the step from the pretrained weights that the config names.
    """

    def __init__(
        self,
        config: RunConfig,
        folder: Path,
        *,
        random_data: bool = False,
        size: tuple[int, int] | None = None,
        pretrained: bool = False,
    ) -> None:
        known = without_found(config)  # what a phase finds is not known before it has run
        self._config = with_random_data(known, size) if random_data else known
        self._folder = folder
        self._pretrained = pretrained
        self._settings = Settings.of(self._config)
        self._selected: dict[str, list[str]] = {}
        self._trial: RunConfig | None = None
        self._run: FittedRun | None = None

    def build(self) -> Passed:
        """Build network, losses, balancer, step, optimizer and schedule; check the shape of all logits.

        Nothing has values, on torch's meta device. What cannot run there runs on the CPU instead.
        """
        plain = {**self._config, "model": without_pretrained(self._config["model"])}
        settings, protocol = self._settings, self._settings.protocol
        network, notes = _network(plain, protocol)
        if settings.training.freeze:
            with stage("build", "training.freeze"):
                network.freeze(settings.training.freeze)
        with stage("build", "balancer, step, training"), torch.device(_device(network)):
            module = training_module(plain, settings, network)
        with stage("build", "optimizer, schedule"):
            wrapper, _ = build_optimization(plain, settings.training, network, module.balancer)
        sizes = _sizes(network, protocol)
        for training, size in sizes.items():
            notes += _check_outputs(network, protocol.tasks, size, training=training)
        parameters = sum(item.numel() for item in network.parameters())
        trainable = sum(item.numel() for item in network.parameters() if item.requires_grad)
        groups = len(wrapper.optimizer.param_groups)
        shown = " and ".join(dict.fromkeys(f"{height}x{width}" for height, width in sizes.values()))
        text = [
            f"{parameters / 1e6:.2f} M parameters"
            + (f", {trainable / 1e6:.2f} M trainable" if trainable < parameters else ""),
            f"logits of {_counted(protocol.tasks, 'task')} at {shown}",
            f"{_counted(wrapper.optimizer.param_groups, 'parameter group')}",
            *notes[:1],
        ]
        return Passed(
            "; ".join(text), {"parameters": parameters, "trainable": trainable, "parameter_groups": groups}
        )

    def data(self) -> Passed:
        """Open the data sets of all sections, read a sample of each, and look for labels of every task."""
        texts, facts = [], {}
        for section in (name for name in DATA_SECTIONS if self._config[name]):
            entry = self._config[section]
            root = entry["dataset"].get("root")
            place = f"{section}.dataset" + (f".root={root!r}" if root is not None else "")
            with stage("data", place):
                dataset = build_dataset(section, entry, self._settings.protocol, self._settings.seed)
                image = dataset[0].image
            lacking = self._look_for_labels(section, dataset)
            height, width = image.shape[-2:]
            text = f"{section} {_counted(dataset.ids, 'image')}, {height}x{width}"
            if lacking:
                text += f", no label of {', '.join(lacking)} in {min(len(dataset), LOOKED_AT)} of them"
            texts.append(text)
            facts[section] = {"images": len(dataset), "size": [height, width], "unlabelled": lacking}
        return Passed("; ".join(texts), facts)

    def step(self) -> Passed:
        """Train one step on the selected images with everything that `train` uses."""
        self._trial = self._with_selected_images()
        watch = StepWatch()
        with stage("step", "training"):
            self._run = fit(self._trial, self._folder, hooks=[watch], quiet=True)
        names = self._settings.protocol.task_names
        losses = {name: watch.logs[f"loss/{name}"] for name in names if f"loss/{name}" in watch.logs}
        text = [f"losses {_values(losses)}" if losses else "no task had a label"]
        every = _counted(watch.parameters, "parameter tensor")
        if watch.unreached:
            found = f"{len(watch.unreached)} of {every}: {_some(watch.unreached)}"
            text.append(f"no gradient in this step of {found}")
        else:
            text.append(f"gradients of {every}")
        return Passed("; ".join(text), {"losses": losses, "without_gradient": watch.unreached})

    def score(self) -> Passed:
        """Score the trained network, draw a panel, write the record and read it back.

        Raises:
            RuntimeError: `step` was not called before.
        """
        if self._trial is None or self._run is None:
            raise RuntimeError("score: the stage 'step' has to run first; it trains what is scored.")
        section = "test_data" if self._trial["test_data"] else "val_data"
        with stage("score", f"{section}, evaluation"):
            written = evaluate_checkpoint(
                self._trial,
                self._folder,
                self._run.checkpoint,
                section=section,
                quiet=True,
                training=self._run.training,
                with_cost=False,
            )
            record = Record.load(self._folder / RECORD_FILE)
        for line in (*written.missing, *record.failures):
            raise StageError(f"score: {line}")
        protocol = self._settings.protocol
        scores = {task.name: record.scores[task.name][task.headline] for task in protocol.tasks}
        return Passed(
            f"{_values(scores)}; record.json and {_counted(self._pictures(), 'picture')}",
            {"scores": record.scores},
        )

    def _pictures(self) -> list[Path]:
        return sorted((self._folder / "pictures").glob("*.png"))

    def _look_for_labels(self, section: str, dataset: DenseDataset) -> list[str]:
        """Select the images of the trial; returns the tasks that none of the training images looked at has.

        Raises:
            StageError: a label is damaged, or no image that is scored has a label of a task.
        """
        lacking: list[str] = []
        with stage("data", section):
            if section == "train_data":
                entry = {**self._config[section], "num_workers": 0}
                train_loader(dataset, entry, self._settings.seed)  # refuses what is no whole batch
                found = first_labelled(dataset, LOOKED_AT)
                lacking = [name for name in dataset.tasks if name not in found]
            else:
                found = require_labels(section, dataset)
        wanted = dict.fromkeys([*found.values(), *range(min(IMAGES, len(dataset)))])
        count = max(IMAGES, len(set(found.values())))
        self._selected[section] = [dataset.ids[index] for index in list(wanted)[:count]]
        return lacking

    def _whole_schedule(self) -> list[dict[str, Any]] | None:
        """The schedule with the ends that it has in the whole run."""
        entries = self._config["schedule"]
        end = self._settings.training.iterations
        return None if entries is None else [{"end": end, **entry} for entry in entries]

    def _with_selected_images(self) -> RunConfig:
        """The config for one step on few images: no loggers, no worker processes, no weights from the net."""
        evaluation = self._config["evaluation"]
        quick = {
            name: {
                **evaluation["metric_options"].get(name, {}),
                **evaluation["during_training"].get(name, {}),
            }
            for name in self._settings.protocol.task_names
        }
        options: dict[str, Any] = {
            "training.iterations": 1,
            "schedule": self._whole_schedule(),
            "training.checkpoint_interval": 0,
            "training.val_interval": 0,
            "training.non_finite": "stop",
            "training.first_look": 0,  # the stage before has read the data
            "training.init_from_data": False,
            "evaluation.metric_options": quick,
            "evaluation.select": "last",
            "evaluation.workers": 0,
            "evaluation.pictures": 1,
            "evaluation.constant_predictor": min(evaluation["constant_predictor"], IMAGES),
            "logging.tensorboard": False,
            "logging.wandb": False,
        }
        if not self._pretrained:
            options["model"] = without_pretrained(self._config["model"])
        for section, ids in self._selected.items():
            entry = self._config[section]
            chosen = {"type": "SelectedImages", "dataset": entry["dataset"], "ids": ids}
            batch = len(ids) if section == "train_data" else min(entry["batch_size"], len(ids))
            options[section] = {**entry, "dataset": chosen, "batch_size": batch, "num_workers": 0}
        return self._config.with_options(options)


def with_random_data(config: RunConfig, size: tuple[int, int] | None = None) -> RunConfig:
    """The config with `RandomImages` in place of its data sets.

    Args:
        config: any.
        size: (H, W) of the images, which then are not transformed; None = sizes of the protocol, transforms
            of the config.
    """
    protocol = protocol_of(config)
    sections = {}
    for section in (name for name in DATA_SECTIONS if config[name]):
        training = section == "train_data"
        own = protocol.train_size if training else protocol.eval_size or protocol.train_size
        images = {
            "type": "RandomImages",
            "split": section,
            "length": max(IMAGES, config[section]["batch_size"]) if training else IMAGES,
            "size": size or own or (96, 128),
            "transforms": "tensor" if size else _transforms(config[section]["dataset"]),
        }
        sections[section] = {**config[section], "dataset": images}
    return config.with_options(sections)


def _transforms(dataset: Mapping[str, Any]) -> Any:
    """Those of a data set, or of the first part of a joint one."""
    for entry in (dataset, *(dataset.get("parts") or ())):
        if entry.get("transforms") is not None:
            return entry["transforms"]
    return "tensor"


def _network(config: Mapping[str, Any], protocol: Protocol) -> tuple[Network, list[str]]:
    """The network without values, or with random weights where it cannot be made without; and notes."""
    notes: list[str] = []
    with stage("build", "model"):
        try:
            with without_values(), foreign_errors(ReportedError, ValueError, TypeError, OSError):
                return network_of(config, protocol), notes
        except ForeignError as error:
            notes.append(f"built on the CPU: the meta device cannot ({error.first_line})")
        return network_of(config, protocol), notes


def _sizes(network: Network, protocol: Protocol) -> dict[bool, tuple[int, int]]:
    """{in training mode: (H, W)} that the network is run at."""
    trial = network.backbone.trial_size()
    train = protocol.train_size or (int(trial[0]), int(trial[1]))
    return {True: train, False: protocol.eval_size or train}


def _check_outputs(
    network: Network, tasks: Sequence[Task], size: tuple[int, int], *, training: bool
) -> list[str]:
    """Run the network once and compare its logits with the tasks; returns notes.

    Raises:
        StageError: it fails, or a shape is wrong.
    """
    notes = []
    with stage("build", f"model, on images of {size[0]}x{size[1]}"):
        try:
            with foreign_errors():
                output = _outputs(network, size, training=training)
        except ForeignError as error:
            if _device(network) != "meta":
                raise error.error from None
            with with_values(network) as copied:  # says whether the network or the meta device is the cause
                output = _outputs(copied, size, training=training)
            notes.append(f"run on the CPU: the meta device cannot ({error.first_line})")
    for task in tasks:
        _check_shapes(task, output, size)
    return notes


@torch.no_grad()
def _outputs(network: Network, size: tuple[int, int], *, training: bool) -> NetworkOutput:
    device = _device(network)
    place = without_values() if device == "meta" else nullcontext()
    with in_mode(network, training), torch.random.fork_rng(devices=[]), place:
        return network.outputs(torch.zeros(IMAGES, 3, *size, device=device))


def _check_shapes(task: Task, output: NetworkOutput, size: tuple[int, int]) -> None:
    """Compare the logits of a task, deep supervision included, with the task.

    Raises:
        StageError: a shape is wrong, or there are no logits.
    """
    expected = (IMAGES, task.out_channels, *size)
    shapes = [tuple(item.logits.shape) for item in output.auxiliary if item.task == task.name]
    if task.name in output.logits:
        shapes.append(tuple(output.logits[task.name].shape))
    else:
        raise StageError(f"build: model: no logits of task '{task.name}', expected shape {expected}.")
    for shape in shapes:
        if shape != expected:
            raise StageError(
                f"build: model: logits of task '{task.name}' have shape {shape}, expected {expected}: the "
                f"task has {task.out_channels} channels. Look at the task's head and at its out_channels."
            )


def _device(network: Network) -> str:
    return next(network.parameters()).device.type


def _counted(items: Sequence[Any], noun: str) -> str:
    return f"{len(items):,} {noun}{'s' * (len(items) != 1)}"


def _values(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (", …" if len(names) > NAMED else "")

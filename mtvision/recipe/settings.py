"""What a run's config may contain, with types and defaults."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, get_args

from mtvision.core.naming import UnknownNameError, look_up
from mtvision.protocols import Protocol, get_protocol, own_protocol
from mtvision.recipe.selection import RULES
from mtvision.runtime.precision import Precision

TOP_LEVEL: dict[str, Any] = {
    "name": None,
    "provenance": "ours",
    "protocol": None,
    "tasks": None,
    "model": None,
    "train_data": None,
    "val_data": None,
    "test_data": None,
    "balancer": {"type": "FixedWeights"},
    "step": {"type": "PlainStep"},
    "search": None,
    "optimizer": None,
    "schedule": None,
    "training": None,
    "evaluation": None,
    "logging": None,
    "seed": 0,
}
"""Every key a config may have. `model`, `protocol`, `train_data` and `optimizer` must be given to train."""

DATA_SECTIONS = ("train_data", "val_data", "test_data")
LOADER_DEFAULTS = {"batch_size": 1, "num_workers": 0}
"""Of every data section, besides its `dataset`; `batch_size` is per process."""


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How long and how to train.

    Args:
        iterations: optimizer steps.
        val_interval: steps between evaluations on `val_data`; 0 = only at the end.
        checkpoint_interval: steps between checkpoints; 0 = only at the end.
        keep_checkpoints: how many of the newest checkpoints stay on disk.
        log_interval: steps between two log lines; losses of every step go to `losses.jsonl` regardless.
        micro_batches: parts a batch is split into to save memory; gradients add up to the same step.
        clip_grad: maximum L2 norm of all gradients, None = no clipping.
        precision: of forward and loss in training. `fp16` needs CUDA, `bf16` works on CPUs too.
        ema: momentum of an exponential moving average of the weights (e.g. 0.0002), which is then what is
            evaluated and saved; None = off.
        sync_bn: turn BatchNorm into SyncBatchNorm when training on several GPUs.
        channels_last: memory format of images and weights.
        load_from: checkpoint whose weights training starts from.
        role_overrides: {glob of parameter names: role}, see `mtvision.core.roles`.
        loss_options: {task: options} that replace those of the protocol's loss, e.g. ATRC's
            `dict(edge=dict(positive_weight=0.8))` on NYUD-v2.
    """

    iterations: int = 1000
    val_interval: int = 0
    checkpoint_interval: int = 1000
    keep_checkpoints: int = 2
    log_interval: int = 50
    micro_batches: int = 1
    clip_grad: float | None = None
    precision: Precision = "fp32"
    ema: float | None = None
    sync_bn: bool = True
    channels_last: bool = False
    load_from: str | None = None
    role_overrides: dict[str, str] = field(default_factory=dict)
    loss_options: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("iterations", "keep_checkpoints", "log_interval", "micro_batches"):
            if getattr(self, name) < 1:
                raise ValueError(f"training.{name} must be at least 1, got {getattr(self, name)}.")
        if self.precision not in get_args(Precision):
            raise UnknownNameError("training.precision", self.precision, get_args(Precision))


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """How to score.

    Args:
        precision: of the forward pass in evaluation.
        metric_options: {task: options} that replace the protocol's metric options; the record says so.
        during_training: {task: options} for evaluations while training runs, e.g. fewer edge thresholds.
        workers: processes that measure expensive metrics (edges); 0 = in the main process.
        constant_predictor: how many training images the constant-predictor row is fitted on; 0 = no such row.
        baseline: name of one of the protocol's single-task baselines, or {task: score}, for the gain.
        pictures: how many panels a final evaluation writes.
        select: `last`; or `best_compat`, `average_last_10` for a second set of scores chosen from the
            evaluations during training (`mtvision.recipe.selection`). The record is the last checkpoint's.
    """

    precision: Precision = "fp32"
    metric_options: dict[str, dict[str, Any]] = field(default_factory=dict)
    during_training: dict[str, dict[str, Any]] = field(default_factory=dict)
    workers: int = 0
    constant_predictor: int = 0
    baseline: Any = None
    pictures: int = 4
    select: str = "last"

    def __post_init__(self) -> None:
        if self.select not in ("last", *RULES):
            raise UnknownNameError("evaluation.select", self.select, ("last", *RULES))


@dataclass(frozen=True, kw_only=True)
class LoggingSettings:
    """Where curves go besides `losses.jsonl`; both are off by default.

    Args:
        tensorboard: write event files below the work dir.
        wandb: write a Weights & Biases run; offline unless a key is configured.
        project: W&B project.
    """

    tensorboard: bool = False
    wandb: bool = False
    project: str = "mtvision"


SECTIONS = {"training": TrainingSettings, "evaluation": EvaluationSettings, "logging": LoggingSettings}


def section_defaults() -> dict[str, dict[str, Any]]:
    """{section: {key: default}} of the sections with fixed keys."""
    return {name: asdict(kind()) for name, kind in SECTIONS.items()}


def check_keys(what: str, given: Mapping[str, Any], known: Iterable[str]) -> None:
    """Refuse unknown keys, naming near ones."""
    known = list(known)
    for key in given:
        if key not in known:
            raise UnknownNameError(what, key, known)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A completed config, checked: the sections with fixed keys and the protocol."""

    protocol: Protocol
    training: TrainingSettings
    evaluation: EvaluationSettings
    logging: LoggingSettings
    seed: int

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Settings:
        """Read a config that `load_config` returned.

        Raises:
            TypeError, ValueError, UnknownNameError: a value is missing, of the wrong kind or unknown.
        """
        sections = {}
        for name, kind in SECTIONS.items():
            values = to_plain_data(config[name])
            check_keys(f"key of '{name}'", values, (item.name for item in fields(kind)))
            sections[name] = kind(**values)
        seed = config["seed"]
        if not isinstance(seed, int) or seed < 0:
            raise ValueError(f"seed must be a non-negative integer, got {seed!r}.")
        rule = sections["evaluation"].select
        if rule != "last" and not sections["training"].val_interval:
            raise ValueError(
                f"evaluation.select='{rule}' chooses from evaluations during training: set "
                "training.val_interval, e.g. to the iterations of an epoch."
            )
        protocol = protocol_of(config)
        _check_tasks(protocol, sections["training"], sections["evaluation"])
        return cls(protocol=protocol, seed=seed, **sections)


def _check_tasks(protocol: Protocol, training: TrainingSettings, evaluation: EvaluationSettings) -> None:
    """Every option of a task is one of the run's; said here, before training, and not after it.

    Raises:
        UnknownNameError: a task or a baseline that the protocol does not have.
        ValueError: a baseline without a score of a task.
    """
    for key, entries in (
        ("training.loss_options", training.loss_options),
        ("evaluation.metric_options", evaluation.metric_options),
        ("evaluation.during_training", evaluation.during_training),
    ):
        check_keys(f"task in {key}", entries, protocol.task_names)
    baseline = evaluation.baseline
    if not baseline:
        return
    if isinstance(baseline, str):
        baseline = look_up(f"baseline of protocol {protocol.id}", baseline, protocol.baselines)
    check_keys("task in evaluation.baseline", baseline, protocol.task_names)
    lacking = [name for name in protocol.task_names if name not in baseline]
    if lacking:
        raise ValueError(
            f"evaluation.baseline has no score of {', '.join(lacking)}; the gain needs one for every task. "
            "Train the other tasks alone (tasks=[...]), or leave the baseline out."
        )


def protocol_of(config: Mapping[str, Any]) -> Protocol:
    """The protocol a config names (`protocol="nyud-invpt"`) or defines, restricted to its `tasks`."""
    entry = config["protocol"]
    if entry is None:
        raise ValueError("config: 'protocol' is missing; name one, or describe your own data's tasks.")
    if isinstance(entry, str):
        protocol = get_protocol(entry)
    else:
        protocol = own_protocol(**{key: to_plain_data(value) for key, value in entry.items()})
    tasks = config.get("tasks")
    return protocol if tasks is None else protocol.select(list(tasks))


def to_plain_data(value: Any) -> Any:
    """Copy of nested config containers as plain dicts and lists."""
    if isinstance(value, Mapping):
        return {str(key): to_plain_data(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(to_plain_data(item) for item in value)
    return value

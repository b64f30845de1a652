"""What a run's config may contain, with types and defaults."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from mtvision.core.naming import UnknownNameError, look_up
from mtvision.core.values import Count, Factor, Positive, Rate, Share, check_fields
from mtvision.protocols import Protocol, get_protocol, own_protocol
from mtvision.recipe.selection import RULES
from mtvision.runtime.precision import Precision


@dataclass(frozen=True, kw_only=True)
class TopLevel:
    """Every key a config may have. `model`, `protocol`, `train_data` and `optimizer` must be given to train.

    Args:
        name: of the method in tables; by default the file's.
        provenance: who made the numbers, see `docs/records.md`.
        protocol: id of a benchmark, or tasks of your own.
        tasks: a part of the protocol's.
        model: see `mtvision.models.factory.build_network`.
        train_data: the data set and its loader, as `val_data` and `test_data`.
        val_data: judged during training; scored at the end where there is no `test_data`.
        test_data: scored at the end.
        balancer: how losses or gradients of the tasks become one step.
        step: how a batch becomes gradients.
        search: the searcher of `mtvision search`.
        optimizer: see `OptimizerSettings`.
        schedule: schedulers of mmengine, in iterations.
        training: see `TrainingSettings`.
        evaluation: see `EvaluationSettings`.
        logging: see `LoggingSettings`.
        plugins: modules or files that register classes, see `mtvision.recipe.plugins`; added to the bases'.
        seed: of every random draw.
    """

    name: str | None = None
    provenance: str = "ours"
    protocol: str | dict[str, Any] | None = None
    tasks: list[str] | None = None
    model: dict[str, Any] | None = None
    train_data: dict[str, Any] | None = None
    val_data: dict[str, Any] | None = None
    test_data: dict[str, Any] | None = None
    balancer: dict[str, Any] = field(default_factory=lambda: {"type": "FixedWeights"})
    step: dict[str, Any] = field(default_factory=lambda: {"type": "PlainStep"})
    search: dict[str, Any] | None = None
    optimizer: dict[str, Any] | None = None
    schedule: list[dict[str, Any]] | None = None
    training: dict[str, Any] | None = None
    evaluation: dict[str, Any] | None = None
    logging: dict[str, Any] | None = None
    plugins: list[str] = field(default_factory=list)
    seed: Count = 0

    def __post_init__(self) -> None:
        check_fields("", self)


TOP_LEVEL: dict[str, Any] = asdict(TopLevel())
"""{key: default} of the whole config."""


@dataclass(frozen=True, kw_only=True)
class LoaderSettings:
    """Of every data section, besides its `dataset`.

    Args:
        batch_size: images per step and process.
        num_workers: processes that load; 0 = the main one.
    """

    batch_size: Positive = 1
    num_workers: Count = 0


DATA_SECTIONS = ("train_data", "val_data", "test_data")
LOADER_DEFAULTS: dict[str, Any] = asdict(LoaderSettings())


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """What every optimizer takes; the further arguments of its class stand beside these keys.

    Args:
        type: AdamW, Adam, SGD or a torch class.
        lr: learning rate.
        weight_decay: of everything that is decayed.
        no_decay: no weight decay for biases, norms and position embeddings.
        layer_decay: factor < 1 by which the rate shrinks per block towards the stem.
        backbone_lr: factor of the whole backbone.
        balancer_lr: rate of the balancer's own parameters, by default `lr`.
        architecture_lr: rate of architecture parameters, by default `lr`.
        lr_factors: {glob of parameter names: factor}; the first that matches counts.
    """

    type: Any = "AdamW"
    lr: Factor
    weight_decay: Factor = 0.0
    no_decay: bool = True
    layer_decay: Rate | None = None
    backbone_lr: Factor = 1.0
    balancer_lr: Factor | None = None
    architecture_lr: Factor | None = None
    lr_factors: dict[str, float] | None = None


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
        loss_means: `rank`, means over the labels of each process, as in the code of the papers. `global`,
            over those of all processes and micro-batches, so that N processes train like one. None =
            `global`, but `rank` for steps that divide batches themselves.
        non_finite: what to do with a step whose losses or gradients are NaN or infinite. `stop` ends the
            run; `skip` leaves the step out and counts it, up to 20 in a row.
        sync_bn: turn BatchNorm into SyncBatchNorm when training on several GPUs.
        channels_last: memory format of images and weights.
        load_from: checkpoint whose weights training starts from; `FILE#PART` where a file has several.
        load_partly: load what fits of `load_from` and report the rest, see `mtvision.models.partial`.
        freeze: globs of parameter names that are not trained, see `mtvision.models.freezing`.
        role_overrides: {glob of parameter names: role}, see `mtvision.core.roles`.
        loss_options: {task: options} that replace those of the protocol's loss, e.g. ATRC's
            `dict(edge=dict(positive_weight=0.8))` on NYUD-v2.
    """

    iterations: Positive = 1000
    val_interval: Count = 0
    checkpoint_interval: Count = 1000
    keep_checkpoints: Positive = 2
    log_interval: Positive = 50
    micro_batches: Positive = 1
    clip_grad: Rate | None = None
    precision: Precision = "fp32"
    ema: Share | None = None
    loss_means: Literal["rank", "global"] | None = None
    non_finite: Literal["stop", "skip"] = "stop"
    sync_bn: bool = True
    channels_last: bool = False
    load_from: str | None = None
    load_partly: bool = False
    freeze: list[str] = field(default_factory=list)
    role_overrides: dict[str, str] = field(default_factory=dict)
    loss_options: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fields("training", self)
        if self.load_partly and not self.load_from:
            raise ValueError("training.load_partly is set, but training.load_from names no checkpoint.")


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
    workers: Count = 0
    constant_predictor: Count = 0
    baseline: str | dict[str, float] | None = None
    pictures: Count = 4
    select: str = "last"

    def __post_init__(self) -> None:
        check_fields("evaluation", self)
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

    def __post_init__(self) -> None:
        check_fields("logging", self)


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
        TopLevel(**{name: to_plain_data(config[name]) for name in TOP_LEVEL})
        sections = {}
        for name, kind in SECTIONS.items():
            values = to_plain_data(config[name])
            check_keys(f"key of '{name}'", values, (item.name for item in fields(kind)))
            sections[name] = kind(**values)
        rule = sections["evaluation"].select
        if rule != "last" and not sections["training"].val_interval:
            raise ValueError(
                f"evaluation.select='{rule}' chooses from evaluations during training: set "
                "training.val_interval, e.g. to the iterations of an epoch."
            )
        protocol = protocol_of(config)
        _check_tasks(protocol, sections["training"], sections["evaluation"])
        return cls(protocol=protocol, seed=config["seed"], **sections)


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
    named = evaluation.baseline
    if not named:
        return
    baseline: Mapping[str, float] = (
        look_up(f"baseline of protocol {protocol.id}", named, protocol.baselines)
        if isinstance(named, str)
        else named
    )
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

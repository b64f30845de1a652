"""What a run's config may contain: every section as a dataclass with types, ranges, defaults and texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

from mtvision.core.values import (
    Between,
    ByTask,
    CheckedBy,
    Count,
    Entry,
    Factor,
    NameIn,
    OptionsOf,
    Positive,
    Rate,
    Share,
    Text,
    check_fields,
)
from mtvision.models.check import ModelSettings
from mtvision.runtime.precision import Precision

Seed = Annotated[int, Between(0, 2**32 - 1)]
Processes = Annotated[int, Between(1, 256)]
Workers = Annotated[int, Between(0, 256)]
"""Processes beside the main one. Thousands of them, as after a slip of a digit, stop a machine."""
OWN_PROTOCOL = "mtvision.protocols.protocol:own_protocol"
OwnProtocol = Annotated[Mapping[str, Any], OptionsOf(OWN_PROTOCOL)]
ProtocolName = Annotated[str, NameIn("PROTOCOLS")]
Scores = Annotated[Mapping[str, float], ByTask()]
TaskOptions = Annotated[Mapping[str, dict[str, Any]], ByTask()]


@dataclass(frozen=True, kw_only=True)
class LoaderSettings:
    """Of every data section, besides its `dataset`.

    Args:
        batch_size: images per step and process.
        num_workers: processes that load; 0 = the main one.
    """

    batch_size: Positive = 1
    num_workers: Workers = 0


@dataclass(frozen=True, kw_only=True)
class DataSettings(LoaderSettings):
    """A data set and its loader.

    Args:
        dataset: the images and labels.
        batch_size: images per step and process.
        num_workers: processes that load; 0 = the main one.
    """

    dataset: Annotated[Mapping[str, Any], Entry("DATASETS")]


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
    lr_factors: dict[str, Factor] | None = None


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How long and how to train.

    Args:
        iterations: optimizer steps.
        val_interval: steps between evaluations on `val_data`; 0 = only at the end.
        checkpoint_interval: steps between checkpoints; 0 = only at the end.
        keep_checkpoints: how many of the newest checkpoints stay on disk.
        keep_every: checkpoints of multiples of this number of steps stay, too; 0 = none do.
        async_checkpoints: copy the state and write checkpoints in the background, while training continues.
            It takes memory for one more checkpoint.
        log_interval: steps between two log lines; losses of every step go to `losses.jsonl` regardless.
        diagnostics_interval: steps between two measurements of norms, cosines and conflicts of the tasks'
            gradients, each one forward pass and one backward pass per task; 0 = none. See
            [balancing](balancing.md#diagnostics).
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
        shard: `zero` keeps the optimizer's state of every parameter on one of several processes only, to
            save memory. The updates and the checkpoints are the same.
        channels_last: memory format of images and weights; often faster, on CPUs too.
        threads: of the network on the CPU, in training, scoring and timing; None = `OMP_NUM_THREADS`, else
            one per core. Leave cores to the workers that load data. Another number changes results by
            rounding.
        recompute: parts that are computed again in the backward pass, to save memory: globs of module
            paths, or `backbone`, `decoder`. See [training](training.md#less-memory).
        time_limit_minutes: the run ends with a checkpoint and exit code 75 before so many minutes are over.
            None = the limit that Slurm or Torque says, if any.
        stuck_minutes: minutes without progress after which a run on several processes ends and names the
            process that lags; at most 60.
        load_from: checkpoint whose weights training starts from; `FILE#PART` where a file has several.
        load_partly: load what fits of `load_from` and report the rest, see `mtvision.models.partial`.
        freeze: globs of parameter names that are not trained; `!GLOB` thaws what an earlier one froze. See
            `mtvision.models.freezing`.
        role_overrides: {glob of parameter names: role}, see `mtvision.core.roles`.
        first_look: images of every split that are read before the first step; 0 = none. See
            [training](training.md#a-first-look).
        first_look_errors: what to do if they show that a score or a loss cannot be right: `stop`, or `warn`.
        init_from_data: start outputs and losses at the scale of the labels; protocols of your own only.
        loss_options: {task: options} that replace those of the protocol's loss, e.g. ATRC's
            `dict(edge=dict(positive_weight=0.8))` on NYUD-v2.
    """

    iterations: Positive = 1000
    val_interval: Count = 0
    checkpoint_interval: Count = 1000
    keep_checkpoints: Positive = 2
    keep_every: Count = 0
    async_checkpoints: bool = False
    log_interval: Positive = 50
    diagnostics_interval: Count = 0
    micro_batches: Positive = 1
    clip_grad: Rate | None = None
    precision: Precision = "fp32"
    ema: Share | None = None
    loss_means: Literal["rank", "global"] | None = None
    non_finite: Literal["stop", "skip"] = "stop"
    sync_bn: bool = True
    shard: Literal["zero"] | None = None
    channels_last: bool = False
    threads: Annotated[int, Between(1, 1024)] | None = None
    recompute: list[Text] = field(default_factory=list)
    time_limit_minutes: Rate | None = None
    stuck_minutes: Annotated[float, Between(0.1, 60)] = 50.0
    load_from: Text | None = None
    load_partly: bool = False
    freeze: list[Text] = field(default_factory=list)
    role_overrides: dict[str, str] = field(default_factory=dict)
    first_look: Count = 8
    first_look_errors: Literal["stop", "warn"] = "stop"
    init_from_data: bool = False
    loss_options: TaskOptions = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fields("training", self)
        if self.load_partly and not self.load_from:
            raise ValueError("training.load_partly is set, but training.load_from names no checkpoint.")
        if self.init_from_data and self.load_from:
            raise ValueError(
                "training.init_from_data would replace output biases that training.load_from loads; use one."
            )
        if self.init_from_data and not self.first_look:
            raise ValueError(
                "training.init_from_data takes the scale from the images that training.first_look reads, "
                "which is 0; leave it at its default."
            )


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
        select: `last`; or `best`, `best_compat`, `average_last_10` for a second set of scores chosen from the
            evaluations during training (`mtvision.recipe.selection`). The record is the last checkpoint's.
            With `best` and `best_compat` the checkpoint that is chosen stays on disk.
        leave_one_out: record the headline score without each image too, which comparisons over images need.
    """

    precision: Precision = "fp32"
    metric_options: TaskOptions = field(default_factory=dict)
    during_training: TaskOptions = field(default_factory=dict)
    workers: Workers = 0
    constant_predictor: Count = 100
    baseline: Text | Scores | None = None
    pictures: Count = 4
    select: Annotated[str, CheckedBy("mtvision.recipe.selection:check_rule")] = "last"
    leave_one_out: bool = False

    def __post_init__(self) -> None:
        check_fields("evaluation", self)


@dataclass(frozen=True, kw_only=True)
class LoggingSettings:
    """Where curves go besides `losses.jsonl`; all are off by default. See [tracking](tracking.md).

    Args:
        tensorboard: write event files below the work dir.
        wandb: write a Weights & Biases run; offline unless a key is configured.
        mlflow: write an MLflow run, where `MLFLOW_TRACKING_URI` says.
        project: W&B project, MLflow experiment.
        group: of the W&B run. Empty = the config without its seed, so that seeds form one group.
        tags: words to filter runs by, besides protocol and backbone.
        artifacts: files that W&B and MLflow receive at the end: `none`, `record`, or `checkpoint`, which is
            the record and the last checkpoint.
    """

    tensorboard: bool = False
    wandb: bool = False
    mlflow: bool = False
    project: Text = "mtvision"
    group: str = ""
    tags: list[Text] = field(default_factory=list)
    artifacts: Literal["none", "record", "checkpoint"] = "record"

    def __post_init__(self) -> None:
        check_fields("logging", self)


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """What stands beside the arguments of a searcher.

    Args:
        held_out: share of the training images that the search alone sees.
    """

    held_out: Share = 0.0


@dataclass(frozen=True, kw_only=True)
class PhaseSettings:
    """Some consecutive steps of a run, and what differs in them from the rest of the config.

    Args:
        name: unique among the phases.
        iterations: its optimizer steps.
        start: `previous`, from the weights of the phase before, as far as they fit; `fresh`, from those that
            the config's network starts with. A `training.load_from` of the phase is a fresh start, too.
            `dict(phase=NAME)` takes the weights of an earlier phase, and `dict(merge=METHOD, parents=dict(
            TASK=NAME), base=NAME, options=dict(...))` merges those of several, see [phases](phases.md).
        tasks: of this phase. The last phase has those of the config.
        model: the network of this phase. The last phase has that of the config.
        train_data: keys that differ.
        val_data: keys that differ.
        balancer: instead of the config's.
        step: instead of the config's.
        optimizer: instead of the config's; it starts anew.
        schedule: instead of the config's; it starts anew.
        training: keys that differ, such as `freeze`.
    """

    name: Text
    iterations: Positive
    start: Literal["previous", "fresh"] | Mapping[str, Any] | None = None
    tasks: list[Text] | Text | None = None
    model: Mapping[str, Any] | None = None
    train_data: Mapping[str, Any] | None = None
    val_data: Mapping[str, Any] | None = None
    balancer: Mapping[str, Any] | None = None
    step: Mapping[str, Any] | None = None
    optimizer: Mapping[str, Any] | None = None
    schedule: list[dict[str, Any]] | None = None
    training: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class TopLevel:
    """Every key a config may have. `model`, `protocol`, `train_data` and `optimizer` must be given to train.

    Args:
        name: of the method in tables; by default the file's.
        provenance: who made the numbers, see [records](records.md).
        protocol: id of a benchmark, or tasks of your own.
        tasks: a part of the protocol's, names or text with commas between; None = all.
        model: the network.
        train_data: the data set and its loader.
        val_data: judged during training; scored at the end where there is no `test_data`.
        test_data: scored at the end.
        balancer: how losses or gradients of the tasks become one step.
        step: how a batch becomes gradients.
        search: the searcher of `mtvision search`.
        optimizer: the rule of the updates and its learning rates.
        schedule: schedulers of mmengine, in iterations; None = poly with power 0.9, to 0.
        training: how long and how to train.
        phases: parts of the run in which sections differ, see [phases](phases.md).
        evaluation: how to score.
        logging: where curves go.
        plugins: modules or files that register classes, see [plugins](plugins.md); added to the bases'.
        seed: of every random draw.
    """

    name: Text | None = None
    provenance: Literal["ours", "released", "smoke"] = "ours"
    protocol: ProtocolName | OwnProtocol | None = None
    tasks: list[Text] | Text | None = None
    model: ModelSettings | None = None
    train_data: DataSettings | None = None
    val_data: DataSettings | None = None
    test_data: DataSettings | None = None
    balancer: Annotated[Mapping[str, Any], Entry("BALANCERS")] = field(
        default_factory=lambda: {"type": "FixedWeights"}
    )
    step: Annotated[Mapping[str, Any], Entry("STEPS")] = field(default_factory=lambda: {"type": "PlainStep"})
    search: (
        Annotated[Mapping[str, Any], Entry("SEARCHERS", also="mtvision.recipe.sections:SearchSettings")]
        | None
    ) = None
    optimizer: (
        Annotated[Mapping[str, Any], Entry("OPTIMIZERS", also="mtvision.recipe.sections:OptimizerSettings")]
        | None
    ) = None
    schedule: list[Annotated[dict[str, Any], Entry("SCHEDULES")]] | None = None
    training: TrainingSettings | None = None
    phases: list[PhaseSettings] = field(default_factory=list)
    evaluation: EvaluationSettings | None = None
    logging: LoggingSettings | None = None
    plugins: list[Text] = field(default_factory=list)
    seed: Seed = 0


TOP_LEVEL: dict[str, Any] = asdict(TopLevel())
"""{key: default} of the whole config."""

SECTIONS = {"training": TrainingSettings, "evaluation": EvaluationSettings, "logging": LoggingSettings}


def section_defaults() -> dict[str, dict[str, Any]]:
    """{section: {key: default}} of the sections with fixed keys."""
    return {name: asdict(kind()) for name, kind in SECTIONS.items()}

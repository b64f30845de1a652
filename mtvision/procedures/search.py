"""Searches: train what is searched, judge variants on the held-out slice, write `architecture.json`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from mtvision.core.context import Context, use_context
from mtvision.core.random import HELD_OUT_SHARE, is_held_out
from mtvision.core.registry import SEARCHERS, STEPS
from mtvision.core.sample import Batch
from mtvision.data.dataset import DenseDataset
from mtvision.data.part import PartOfDataset
from mtvision.engine.building import training_module
from mtvision.engine.module import TrainingModule
from mtvision.engine.phases.part import seed_everything
from mtvision.engine.training import fit
from mtvision.evaluation.evaluator import SampleEvaluator
from mtvision.evaluation.scoring import evaluate
from mtvision.models.factory import build_network
from mtvision.models.network import Network
from mtvision.recipe.building import network_of, trained_network
from mtvision.recipe.config import RunConfig
from mtvision.recipe.data import build_dataset, evaluation_loader, train_loader
from mtvision.recipe.settings import Settings, to_plain_data
from mtvision.runtime.atomic import write_text
from mtvision.runtime.checkpoint import load_checkpoint, load_network_weights
from mtvision.runtime.launch import is_main_process
from mtvision.runtime.whole import file_sha256
from mtvision.search import Searcher, SearchProblem

FORMAT = "mtvision-architecture-1"


@dataclass(frozen=True, kw_only=True)
class SearchRequest:
    """Options of a search besides its config.

    Args:
        work_dir: receives trained networks.
        checkpoint: weights of the config's network; without it they are trained first.
        others: {name: checkpoint} of further networks, e.g. the single-task ones.
        options: what the searcher is asked for, e.g. `budget`, `preference`.
        resume: continue an interrupted search. Trained networks are kept.
        overwrite: delete what an earlier search trained.
    """

    work_dir: Path
    checkpoint: Path | None = None
    others: Mapping[str, Path] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    resume: bool = False
    overwrite: bool = False


def search(config: RunConfig, request: SearchRequest) -> dict[str, Any]:
    """Run the search of a config's section `search`.

    That section holds the searcher, `dict(type=..., **options)`, and `held_out`, the share of the training
    images (by id) that judge variants. It is never trained on, except by steps that train the logits of the
    search on it. The test split is not read.

    Returns:
        What the searcher found, with `format`, `searcher`, `protocol`, `tasks` and `search` (options, hash of
        the config, checkpoints, held-out images, seconds of training and of searching).

    Raises:
        ValueError: the config has no section `search`, or nothing to train from and no checkpoint.
        FileExistsError: an earlier search lies in the work dir; neither `resume` nor `overwrite` is given.
    """
    settings = Settings.of(config)
    searcher, share = build_searcher(config)
    started = time.perf_counter()
    network, others, sources = _networks(config, settings, searcher, share, request)
    trained = time.perf_counter()
    seed_everything(settings.seed)
    module = training_module(config, settings, network)
    module = module.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    for item in others.values():
        item.to(module.device).eval()
    slice_ = HeldOut(config, settings, module, share)
    problem = SearchProblem(
        network=network,
        tasks=settings.protocol.tasks,
        held_out=slice_.batches,
        evaluate=slice_.evaluate,
        losses=slice_.losses,
        batch_losses=lambda batch: module(batch).losses,
        training=lambda: _training_batches(config, settings, share, module.device),
        options=dict(request.options),
        others=others,
        held_out_images=slice_.count,
        step_state=step_state(sources.get("network")),
    )
    found = searcher.search(problem)
    return {
        "format": FORMAT,
        "searcher": type(searcher).__name__,
        "protocol": settings.protocol.id,
        "tasks": list(settings.protocol.task_names),
        **found,
        "search": {
            "options": dict(request.options),
            "config_sha256": config.sha256,
            "checkpoints": {name: file_sha256(path) for name, path in sources.items()},
            "held_out": {"share": share, "images": slice_.count},
            "seconds": {"training": trained - started, "searching": time.perf_counter() - trained},
        },
    }


def build_searcher(config: Mapping[str, Any]) -> tuple[Searcher, float]:
    """The searcher of a config and the share of held-out images.

    Raises:
        ValueError: there is no section `search`.
        UnknownNameError: unknown searcher or option.
    """
    section = to_plain_data(config["search"] or {})
    if not section:
        raise ValueError(
            "config: no section 'search'; expected search=dict(type='...', held_out=0.2, ...) with one of "
            f"the searchers {', '.join(sorted(SEARCHERS))}."
        )
    share = float(section.pop("held_out", HELD_OUT_SHARE))
    is_held_out("", share)  # refuses a share out of range
    searcher: Searcher = SEARCHERS.build(section)
    return searcher, share


def _networks(
    config: RunConfig, settings: Settings, searcher: Searcher, share: float, request: SearchRequest
) -> tuple[Network, dict[str, Network], dict[str, Path]]:
    """The network searched, the other ones, and where their weights come from."""
    sources: dict[str, Path] = {}
    others: dict[str, Network] = {}
    given = dict(request.others)
    if searcher.compares_single_tasks and not given:
        for task in settings.protocol.task_names:
            given[task] = trained(
                single_task(config, task), request.work_dir / f"single_{task}", share, request
            )
    for name, path in given.items():
        content = load_checkpoint(path)
        tasks = settings.protocol.select(list(content["meta"].get("tasks") or [name])).tasks
        architecture = content["meta"].get("architecture") or to_plain_data(config["model"])
        others[name] = build_network(architecture, tasks).eval()
        load_network_weights(others[name], content, path)
        sources[name] = Path(path)
    checkpoint = request.checkpoint
    if checkpoint is None and not searcher.compares_single_tasks:
        checkpoint = trained(config, request.work_dir / "training", share, request)
    if checkpoint is None:
        seed_everything(settings.seed)
        return network_of(config, settings.protocol).eval(), others, sources
    sources["network"] = Path(checkpoint)
    return trained_network(config, settings.protocol, checkpoint)[0], others, sources


def single_task(config: RunConfig, task: str) -> RunConfig:
    """The same config for one task: no balancing, no adapters."""
    model = {key: value for key, value in config["model"].items() if key != "adapters"}
    return config.with_options({"tasks": [task], "balancer": {"type": "FixedWeights"}, "model": model})


def trained(config: RunConfig, folder: Path, share: float, request: SearchRequest) -> Path:
    """Train a config on what is not held out, unless that was done before; returns the last checkpoint."""
    if not config["optimizer"] or not config["train_data"]:
        raise ValueError(
            "search: give a CHECKPOINT, or a config with 'optimizer' and 'train_data' to train one first."
        )
    last = folder / f"iter_{config['training']['iterations']}.pth"
    if request.resume and last.is_file() and (folder / "config.py").read_text() == config.text:
        return last
    keep = _training_part(config, share)
    resume = "auto" if request.resume else None
    run = fit(config, folder, resume=resume, overwrite=request.overwrite, keep=keep)
    run.loggers.finish({})
    return run.checkpoint


def step_state(checkpoint: Path | None) -> dict[str, Any]:
    """State of the step in a run's checkpoint, by name; empty without a checkpoint."""
    state = load_checkpoint(checkpoint)["state_dict"] if checkpoint is not None else {}
    return {name.removeprefix("step."): item for name, item in state.items() if str(name).startswith("step.")}


def _training_part(config: Mapping[str, Any], share: float) -> Callable[[str], bool] | None:
    """Which images are trained on. A step that reads the held-out ones itself gets all."""
    own = STEPS.build(to_plain_data(config["step"])).held_out
    if own is None:
        return (lambda name: not is_held_out(name, share)) if share else None
    if own != share:
        raise ValueError(
            f"step.held_out is {own} but search.held_out {share}: the same images must be held out."
        )
    return None


def _training_batches(
    config: RunConfig, settings: Settings, share: float, device: torch.device
) -> Iterator[Batch]:
    """Batches of the training images that are not held out, in the order of a training run."""
    section = to_plain_data(config["train_data"])
    whole = build_dataset("train_data", section, settings.protocol, settings.seed)
    part = PartOfDataset(whole, lambda name: not is_held_out(name, share))
    for batch in train_loader(part, section, settings.seed):
        yield batch.to(device)


class HeldOut:
    """The held-out slice of the training set, with the transforms of `val_data` (or none).

    Args:
        config: of the search.
        settings: of the config.
        module: around the network that is judged.
        share: of the training images.
    """

    def __init__(self, config: RunConfig, settings: Settings, module: TrainingModule, share: float) -> None:
        self.settings, self.module = settings, module
        like = config["val_data"] or config["test_data"] or {}
        plain = {
            **to_plain_data(config["train_data"] or {}).get("dataset", {}),
            "transforms": to_plain_data(like.get("dataset", {})).get("transforms", "tensor"),
        }
        whole = build_dataset("train_data", {"dataset": plain}, settings.protocol, settings.seed)
        self._whole, self._share = whole, share
        self._loading = {
            "batch_size": like.get("batch_size", 1),
            "num_workers": like.get("num_workers", 0),
        }
        self._dataset: DenseDataset | None = None

    @property
    def count(self) -> int:
        """Number of images."""
        return sum(is_held_out(name, self._share) for name in self._whole.ids)

    def batches(self) -> Iterable[Batch]:
        """A new pass, on the network's device.

        Raises:
            ValueError: nothing is held out.
        """
        for batch in self._loader():
            yield batch.to(self.module.device)

    def evaluate(self, context: Context | None = None) -> dict[str, float]:
        """{task: headline score}."""
        options = self.settings.evaluation
        evaluator = SampleEvaluator(
            self.settings.protocol.tasks,
            {**options.metric_options, **options.during_training},
            options.workers,
        )
        with use_context(context):
            scores = evaluate(self.module.network, self._loader(), evaluator, precision=options.precision)
        evaluator.close()
        return {task.name: float(scores[task.name][task.headline]) for task in self.settings.protocol.tasks}

    @torch.no_grad()
    def losses(self, context: Context | None = None) -> dict[str, float]:
        """{task: mean loss over images}, unweighted."""
        self.module.eval()
        sums: dict[str, float] = {}
        counts: dict[str, int] = {}
        with use_context(context):
            for batch in self.batches():
                for name, loss in self.module(batch).losses.items():
                    images = int(batch.present[name].sum())
                    sums[name] = sums.get(name, 0.0) + float(loss) * images
                    counts[name] = counts.get(name, 0) + images
        return {name: total / counts[name] for name, total in sums.items()}

    def _loader(self) -> Any:
        if self._dataset is None:
            self._dataset = PartOfDataset(self._whole, lambda name: is_held_out(name, self._share))
        return evaluation_loader(self._dataset, self._loading)


def write_architecture(found: Mapping[str, Any], path: Path, console: Console | None = None) -> None:
    """Write the result of a search; a crash leaves the old file or the new one."""
    if not is_main_process():
        return
    write_text(path, json.dumps(found, indent=2) + "\n")
    if console is not None:
        console.print(f"wrote {path}")

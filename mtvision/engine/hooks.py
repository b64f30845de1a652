"""Progress on the terminal, losses on disk, curves in the loggers."""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from rich.console import Console
from rich.progress import Progress, TextColumn
from torch import Tensor

from mtvision.engine.module import SKIPPED, UNLABELLED
from mtvision.recipe.selection import VALIDATION_FILE
from mtvision.runtime.atomic import write_text
from mtvision.runtime.launch import is_main_process
from mtvision.runtime.progress import bars, messages
from mtvision.tracking.loggers import Loggers

LOSS_FILE = "losses.jsonl"


class ProgressHook(Hook):
    """Shows a progress bar with time left and the tasks' losses, and writes every step's losses to a file.

    Args:
        loggers: TensorBoard, W&B.
        interval: steps between two lines on the terminal and two points in the loggers.
        headlines: scores (`task/name`) shown after an evaluation.
        console: where the bar and the lines go, by default stderr.
    """

    priority = "BELOW_NORMAL"  # before the schedule moves on and before a checkpoint is written

    def __init__(
        self, loggers: Loggers, interval: int, headlines: Sequence[str], console: Console | None = None
    ) -> None:
        self._loggers = loggers
        self._headlines = tuple(headlines)
        self._interval = interval
        self._console = console or messages()
        self._pending: list[dict[str, Tensor | float]] = []
        self._recent: list[dict[str, float]] = []  # on disk already, since the last report
        self._progress: Progress | None = None
        self._task: Any = None
        self._since = self._started = time.perf_counter()
        self._warned: set[str] = set()
        self.hours = 0.0

    def before_train(self, runner: Any) -> None:
        """Open the bar; forget logged steps that a resumed run will do again."""
        self._since = self._started = time.perf_counter()
        if not is_main_process():
            return
        for name in (LOSS_FILE, VALIDATION_FILE):
            _keep_until(Path(runner.work_dir) / name, runner.iter)
        if not self._console.is_terminal:
            return
        self._progress = bars(self._console, TextColumn("{task.fields[losses]}"))
        self._task = self._progress.add_task(
            "[bold]train", total=runner.max_iters, completed=runner.iter, losses=""
        )
        self._progress.start()

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Mapping[str, Tensor] | None = None
    ) -> None:
        """Note the losses; print and log them every `interval` steps."""
        step = runner.iter + 1
        rate = runner.optim_wrapper.optimizer.param_groups[0]["lr"]
        self._pending.append({"iter": step, "lr": float(rate), **(outputs or {})})
        if self._progress is not None:
            self._progress.update(self._task, completed=step)
        if step % self._interval == 0 or step == runner.max_iters:
            self._report(runner, step)

    def _report(self, runner: Any, step: int) -> None:
        self._flush(Path(runner.work_dir))
        rows, self._recent = self._recent, []
        now = time.perf_counter()
        seconds = (now - self._since) / max(len(rows), 1)
        self._since = now
        if not rows or not is_main_process():
            return
        lr = rows[-1]["lr"]
        means = _means(rows)
        shown = {name: value for name, value in means.items() if not name.startswith(("weight/", UNLABELLED))}
        losses = "  ".join(f"{name.removeprefix('loss/')} {value:.3f}" for name, value in shown.items())
        left = (runner.max_iters - step) * seconds
        if self._progress is not None:
            self._progress.update(self._task, losses=losses)
        if not self._console.is_terminal:
            memory = f"  {torch.cuda.max_memory_allocated() >> 20} MiB" if torch.cuda.is_available() else ""
            self._console.print(
                f"iter {step}/{runner.max_iters}  eta {left / 60:.1f} min  {seconds:.3f} s/iter  "
                f"lr {lr:.2e}  {losses}{memory}",
                soft_wrap=True,
            )
        self._loggers.scalars({**means, "lr": lr, "seconds_per_iteration": seconds}, step)
        self._warn_of(rows)

    def _warn_of(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Say which tasks had no labelled pixel at all since the last report, once each."""
        empty = [name for name in rows[0] if name.startswith(UNLABELLED)]
        for name in empty:
            if name not in self._warned and all(row.get(name) == 1 for row in rows):
                self._warned.add(name)
                self._console.print(
                    f"no labelled pixel of {name.removeprefix(UNLABELLED)} in iterations "
                    f"{rows[0]['iter']:.0f} to {rows[-1]['iter']:.0f}: its loss is 0 and it learns nothing. "
                    "Look at its labels with check_dataset.",
                    soft_wrap=True,
                )

    def _flush(self, work_dir: Path) -> None:
        rows = [_row(entry) for entry in self._pending]
        self._pending = []
        self._recent += rows
        if rows and is_main_process():
            with (work_dir / LOSS_FILE).open("a") as file:
                file.writelines(json.dumps(row) + "\n" for row in rows)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """The loss file never lags behind a checkpoint."""
        self._flush(Path(runner.work_dir))

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Print and log the headline scores of an evaluation during training."""
        if metrics and is_main_process():
            with (Path(runner.work_dir) / VALIDATION_FILE).open("a") as file:
                file.write(json.dumps({"iter": runner.iter, "scores": metrics}) + "\n")
            self._console.print(f"evaluation at iteration {runner.iter}:")
            line = "  ".join(f"{name} {metrics[name]:.4f}" for name in self._headlines if name in metrics)
            self._console.print(f"  {line}", soft_wrap=True)
            self._loggers.scalars({f"val/{name}": value for name, value in metrics.items()}, runner.iter)

    def after_train(self, runner: Any) -> None:
        """Close the bar."""
        self._flush(Path(runner.work_dir))
        self.close()

    def close(self) -> None:
        """Stop drawing; safe to call twice."""
        self.hours = (time.perf_counter() - self._started) / 3600
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


class StepWatch(Hook):
    """Remembers what the last optimizer step saw.

    Attributes:
        logs: {what: value} of the step, as `losses.jsonl` has them.
        parameters: names of the trainable parameters of network and balancer.
        unreached: those that had no gradient.
    """

    def __init__(self) -> None:
        self.logs: dict[str, float] = {}
        self.parameters: list[str] = []
        self.unreached: list[str] = []

    def before_train(self, runner: Any) -> None:
        """Look at the gradients whenever the optimizer is about to use them."""
        module = runner.plain_model
        pairs = [*module.network.named_parameters(), *module.balancer.named_parameters(prefix="balancer")]
        trainable = {name: item for name, item in pairs if item.requires_grad}
        self.parameters = list(trainable)

        def look(*_: Any) -> None:
            self.unreached = [name for name, item in trainable.items() if item.grad is None]

        runner.optim_wrapper.optimizer.register_step_pre_hook(look)

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Mapping[str, Tensor] | None = None
    ) -> None:
        """Keep the losses."""
        self.logs = _row(outputs or {})


def _row(entry: Mapping[str, Tensor | float]) -> dict[str, float]:
    """Plain numbers of a step; without shares of zero, and without the NaN of a step that was left out."""
    values = {name: value.item() if isinstance(value, Tensor) else value for name, value in entry.items()}
    return {
        name: value
        for name, value in values.items()
        if math.isfinite(value) and not (name.startswith(UNLABELLED) and value == 0)
    }


def _means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean of every value over the steps that have it; the sum of those that were left out."""
    names = dict.fromkeys(name for row in rows for name in row if name not in ("iter", "lr"))
    found = {name: [row[name] for row in rows if name in row] for name in names}
    return {
        name: sum(values) if name == SKIPPED else sum(values) / len(values) for name, values in found.items()
    }


def marked_steps(work_dir: Path) -> dict[str, Any]:
    """Steps of a run that were left out, and those without any labelled pixel of a task.

    Returns:
        `skipped_steps`, if any, and `unlabelled_steps` {task: number}, if any.
    """
    skipped, empty = 0, Counter[str]()
    path = work_dir / LOSS_FILE
    for line in path.read_text().splitlines() if path.is_file() else ():
        row = json.loads(line)
        skipped += SKIPPED in row
        empty.update(
            name.removeprefix(UNLABELLED) for name in row if name.startswith(UNLABELLED) and row[name] == 1
        )
    found: dict[str, Any] = {}
    if skipped:
        found["skipped_steps"] = skipped
    if empty:
        found["unlabelled_steps"] = dict(empty)
    return found


def _keep_until(path: Path, iteration: int) -> None:
    """Drop lines of steps after `iteration`, and a half-written last line."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            if json.loads(line)["iter"] <= iteration:
                kept.append(line)
        except (json.JSONDecodeError, KeyError):
            continue
    write_text(path, "".join(f"{line}\n" for line in kept))

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
from rich.markup import escape
from rich.progress import Progress, TextColumn
from torch import Tensor

from mtvision.engine.module import SKIPPED, UNLABELLED
from mtvision.engine.run_dir.books import LOSS_FILE, METRICS_FILE
from mtvision.engine.run_dir.journal import Journal
from mtvision.models.partial import grouped
from mtvision.recipe.selection import VALIDATION_FILE
from mtvision.runtime.atomic import write_text
from mtvision.runtime.launch import is_main_process
from mtvision.runtime.progress import bars, messages
from mtvision.runtime.state_dicts import some
from mtvision.steps.gradients.diagnostics import GRADIENT, SHARE, Diagnostics, loss_shares
from mtvision.tracking.loggers import Loggers

_UNSHOWN = ("weight/", UNLABELLED, GRADIENT, SHARE)
"""Values that are logged, but not part of a line on the terminal."""


class ProgressHook(Hook):
    """Shows a progress bar with time left and the tasks' losses, and writes every step's losses to a file.

    Args:
        loggers: TensorBoard, W&B; `metrics.jsonl` has the same numbers.
        interval: steps between two lines on the terminal and two points in the loggers.
        headlines: scores (`task/name`) shown after an evaluation.
        journal: where the bar and the lines go, by default stderr.
    """

    priority = "BELOW_NORMAL"  # before the schedule moves on and before a checkpoint is written

    def __init__(
        self, loggers: Loggers, interval: int, headlines: Sequence[str], journal: Journal | None = None
    ) -> None:
        self._loggers = loggers
        self._headlines = tuple(headlines)
        self._interval = interval
        self._journal = journal or Journal(messages(), None)
        self._console = self._journal.console
        self._pending: list[dict[str, Tensor | float]] = []
        self._recent: list[dict[str, float]] = []  # on disk already, since the last report
        self._progress: Progress | None = None
        self._task: Any = None
        self._since, self._timed = time.perf_counter(), 0  # steps since then
        self._warned: set[str] = set()

    def before_train(self, runner: Any) -> None:
        """Open the bar; forget logged steps that a resumed run will do again."""
        self._since, self._timed = time.perf_counter(), 0
        if not is_main_process():
            return
        for name in (LOSS_FILE, METRICS_FILE, VALIDATION_FILE):
            _keep_until(Path(runner.work_dir) / name, runner.iter)
        # The next report is of as many steps as that of a run that was not stopped.
        reported = runner.iter - runner.iter % self._interval
        self._recent = [row for row in _rows(Path(runner.work_dir) / LOSS_FILE) if row["iter"] > reported]
        if not self._console.is_terminal:
            return
        self._progress = bars(self._console, TextColumn("{task.fields[losses]}"))
        self._task = self._progress.add_task(
            "[bold]train", total=runner.max_iters, completed=runner.iter, losses=""
        )
        self._progress.start()

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """A step that is reported shows the gradients that its balancer knows."""
        step = runner.iter + 1
        runner.plain_model.shows_gradients = step % self._interval == 0 or step == runner.max_iters

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Mapping[str, Tensor] | None = None
    ) -> None:
        """Note the losses; print and log them every `interval` steps."""
        step = runner.iter + 1
        rate = runner.optim_wrapper.optimizer.param_groups[0]["lr"]
        self._timed += 1
        self._pending.append({"iter": step, "lr": float(rate), **(outputs or {})})
        if self._progress is not None:
            self._progress.update(self._task, completed=step)
        if step % self._interval == 0 or step == runner.max_iters:
            self._report(runner, step)

    def _report(self, runner: Any, step: int) -> None:
        self._flush(Path(runner.work_dir))
        rows, self._recent = self._recent, []
        now = time.perf_counter()
        seconds = (now - self._since) / max(self._timed, 1)
        self._since, self._timed = now, 0
        if not rows or not is_main_process():
            return
        lr = rows[-1]["lr"]
        means = _means(rows)
        shown = {name: value for name, value in means.items() if not name.startswith(_UNSHOWN)}
        losses = "  ".join(f"{name.removeprefix('loss/')} {value:.3f}" for name, value in shown.items())
        left = (runner.max_iters - step) * seconds
        if self._progress is not None:
            self._progress.update(self._task, losses=losses)
        memory = f"  {torch.cuda.max_memory_allocated() >> 20} MiB" if torch.cuda.is_available() else ""
        line = f"iter {step}/{runner.max_iters}  eta {left / 60:.1f} min  {seconds:.3f} s/iter  lr {lr:.2e}"
        keep = (
            self._journal.keep if self._console.is_terminal else self._journal.say
        )  # a terminal has the bar
        keep(f"{line}  {losses}{memory}")
        values = {**means, **_shares(means), "lr": lr, "seconds_per_iteration": seconds}
        _append(Path(runner.work_dir) / METRICS_FILE, [{"iter": step, **values}])
        self._loggers.scalars(values, step)
        self._warn_of(rows)

    def _warn_of(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Say which tasks had no labelled pixel at all since the last report, once each."""
        empty = [name for name in rows[0] if name.startswith(UNLABELLED)]
        for name in empty:
            if name not in self._warned and all(row.get(name) == 1 for row in rows):
                self._warned.add(name)
                self._journal.say(
                    f"no labelled pixel of {name.removeprefix(UNLABELLED)} in iterations "
                    f"{rows[0]['iter']:.0f} to {rows[-1]['iter']:.0f}: its loss is 0 and it learns nothing. "
                    "Look at its labels with check_dataset."
                )

    def _flush(self, work_dir: Path) -> None:
        rows = [_row(entry) for entry in self._pending]
        self._pending = []
        self._recent += rows
        if rows and is_main_process():
            _append(work_dir / LOSS_FILE, rows)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """The loss file never lags behind a checkpoint."""
        self._flush(Path(runner.work_dir))

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Print and log the headline scores of an evaluation during training."""
        if metrics and is_main_process():
            work_dir, values = (
                Path(runner.work_dir),
                {f"val/{name}": value for name, value in metrics.items()},
            )
            _append(work_dir / VALIDATION_FILE, [{"iter": runner.iter, "scores": metrics}])
            _append(work_dir / METRICS_FILE, [{"iter": runner.iter, **values}])
            self._journal.say(f"evaluation at iteration {runner.iter}:")
            line = "  ".join(f"{name} {metrics[name]:.4f}" for name in self._headlines if name in metrics)
            self._journal.say(f"  {line}")
            self._loggers.scalars(values, runner.iter)

    def after_train(self, runner: Any) -> None:
        """Close the bar."""
        self._flush(Path(runner.work_dir))
        self.close()

    def close(self) -> None:
        """Stop drawing; safe to call twice."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


class DiagnosticsHook(Hook):
    """Measures how the gradients of the tasks relate, at the first step and every `interval` steps.

    Args:
        interval: steps between two measurements.
    """

    def __init__(self, interval: int) -> None:
        self._interval = interval
        self._diagnostics = Diagnostics()

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Let the module measure before this step, or not."""
        runner.plain_model.watch = None if runner.iter % self._interval else self._diagnostics


class UnreachedHook(Hook):
    """Says once which trainable parameters no loss has reached in the first steps: they are not trained.

    Args:
        steps: how many steps a parameter has; tasks may be absent from single batches.
        journal: where the line goes.
    """

    def __init__(self, steps: int, journal: Journal) -> None:
        self._steps, self._journal = steps, journal
        self._waiting: dict[str, torch.nn.Parameter] = {}
        self._all: list[str] = []

    def before_train(self, runner: Any) -> None:
        """Look at the gradients whenever the optimizer is about to use them, until all had one."""
        named = runner.plain_model.named_parameters()
        self._waiting = {name: item for name, item in named if item.requires_grad}
        self._all = list(self._waiting)
        last = min(runner.iter + self._steps, runner.max_iters)

        def look(*_: Any) -> None:  # other hooks may follow: it must not remove itself while they run
            if not self._waiting:
                return
            self._waiting = {name: item for name, item in self._waiting.items() if item.grad is None}
            if self._waiting and runner.iter + 1 >= last:
                self._say(last)
                self._waiting = {}

        runner.optim_wrapper.optimizer.register_step_pre_hook(look)

    def _say(self, iteration: int) -> None:
        names = list(self._waiting)
        self._journal.say(
            f"{len(names)} of {len(self._all)} parameters had no gradient until iteration {iteration}; no "
            f"loss depends on them: {escape(some(grouped(names, self._all), 8))}."
        )


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


def _shares(means: Mapping[str, float]) -> dict[str, float]:
    """Share of each task in the loss since the last report."""
    found = loss_shares({name: torch.tensor(value, dtype=torch.float64) for name, value in means.items()})
    return {name: float(value) for name, value in found.items()}


def marked_steps(work_dir: Path) -> dict[str, Any]:
    """Steps of a run that were left out, and those without any labelled pixel of a task.

    Returns:
        `skipped_steps`, if any, `unlabelled_steps` {task: number}, if any, and `gradients` {what: mean over
        the steps at which gradients were measured}, if any.
    """
    skipped, empty = 0, Counter[str]()
    measured: dict[str, list[float]] = {}
    for row in _rows(work_dir / LOSS_FILE):
        skipped += SKIPPED in row
        for name in row:
            if name.startswith((GRADIENT, SHARE)):
                measured.setdefault(name.removeprefix(GRADIENT), []).append(row[name])
        empty.update(
            name.removeprefix(UNLABELLED) for name in row if name.startswith(UNLABELLED) and row[name] == 1
        )
    found: dict[str, Any] = {}
    if skipped:
        found["skipped_steps"] = skipped
    if empty:
        found["unlabelled_steps"] = dict(empty)
    if measured:
        found["gradients"] = {name: sum(values) / len(values) for name, values in measured.items()}
    return found


def draw_gradients(work_dir: Path) -> None:
    """Plot how gradients related to `pictures/gradients.png`, if that was measured at some step."""
    rows = [row for row in _rows(work_dir / LOSS_FILE) if any(name.startswith(GRADIENT) for name in row)]
    if not rows:
        return
    from mtvision.visualize.gradients import plot_gradients  # matplotlib takes a second to import

    path = work_dir / "pictures" / "gradients.png"
    path.parent.mkdir(exist_ok=True)
    plot_gradients(rows, path)


def _append(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add lines of JSON to a file."""
    with path.open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def _rows(path: Path) -> list[dict[str, Any]]:
    """The lines of a file, none without one."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


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

"""Which checkpoints are written, and which stay."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook

from mtvision.engine.run_dir.start import from_main
from mtvision.recipe.selection import validations
from mtvision.runtime.checkpoint import Saved
from mtvision.runtime.whole import checkpoints_of

Choose = Callable[[Sequence[Mapping[str, Any]]], int]
"""From lines of the evaluations to the place of the best one."""


class CheckpointHook(Hook):
    """Writes a checkpoint every `interval` steps and after the last one; deletes what need not stay.

    What stays is decided from the files in the work dir, so that a resumed run keeps what one run would.

    Args:
        interval: steps between checkpoints; 0 = only after the last step.
        keep: how many of the newest stay.
        every: those of multiples of this stay, too; 0 = none.
        best: chooses the evaluation whose checkpoint stays, too; None = none does. It is written after the
            evaluation.
        say: gets one line per checkpoint.
        ends: steps at which phases end; their checkpoints stay, too.
    """

    priority = "VERY_LOW"

    def __init__(
        self,
        *,
        interval: int,
        keep: int,
        every: int,
        best: Choose | None,
        say: Callable[[str], object],
        ends: Collection[int] = (),
    ) -> None:
        self._interval, self._keep, self._every, self._best = interval, keep, every, best
        self._say, self._ends = say, ends

    def before_run(self, runner: Any) -> None:
        """Hear of every checkpoint that is on the disk."""
        runner.writer.done = self._written

    def after_train_iter(self, runner: Any, *_: Any, **__: Any) -> None:
        """Write a checkpoint if it is time."""
        step = runner.iter + 1
        if step == runner.max_iters or (self._interval and step % self._interval == 0):
            runner.save(step)

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Write a checkpoint of the step that was evaluated, if it is the best so far."""
        if self._best is None or not metrics:
            return
        folder, step = Path(runner.work_dir), runner.iter

        def is_best() -> bool:
            return self._best_step(folder) == step and step not in checkpoints_of(folder)

        if from_main(is_best):
            runner.save_now()

    def _best_step(self, folder: Path) -> int | None:
        if self._best is None:
            return None
        rows = validations(folder)
        return int(rows[self._best(rows)]["iter"]) if rows else None

    def _written(self, saved: Saved) -> None:
        """Say it, and delete what need not stay any more."""
        self._say(str(saved))
        folder = saved.path.parent
        done = {step: path for step, path in checkpoints_of(folder).items() if path.is_file()}
        stay = {*list(done)[-self._keep :], self._best_step(folder), *self._ends}
        for step, path in done.items():
            if step not in stay and not (self._every and step % self._every == 0):
                path.unlink(missing_ok=True)

"""The training loop: one iteration is one optimizer step, and resuming decodes nothing twice."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from mmengine.runner import BaseLoop, ValLoop
from torch.utils.data import DataLoader

from mtvision.core.non_finite import NonFiniteError
from mtvision.engine.ranks import largest_over_ranks, statistics_of_main
from mtvision.recipe.selection import validations
from mtvision.runtime.checkpoint import CheckpointError, find_checkpoint
from mtvision.runtime.heartbeat import ELSEWHERE, note
from mtvision.runtime.launch import is_main_process
from mtvision.runtime.signals import EndRequest, end_request, interrupted


def _way_back(work_dir: Path) -> str:
    """Which checkpoint is left, in one sentence."""
    try:
        newest = find_checkpoint(work_dir)
        return f"The newest checkpoint is {newest}, from before this; --resume continues from it."
    except CheckpointError:
        return "No checkpoint was written before this."


class TrainLoop(BaseLoop):
    """Iteration-based loop over a loader whose batch sampler can start anywhere.

    Args:
        runner: the mmengine runner.
        dataloader: loader with a `PositionBatchSampler`.
        max_iters: steps of the run when this loop is done.
        val_interval: steps between evaluations; 0 = never (the caller evaluates at the end).
        val_before: an evaluation belongs to a step before this one.
        data_from: step of the run at which the loader begins.
    """

    def __init__(
        self,
        runner: Any,
        dataloader: DataLoader[Any],
        max_iters: int,
        val_interval: int,
        val_before: int,
        data_from: int = 0,
    ) -> None:
        super().__init__(runner, dataloader)
        self._val_before, self._data_from = val_before, data_from
        self.max_iters = max_iters
        self.max_epochs = 1  # mmengine's hooks ask for it; an iteration-based run is one long epoch
        self.val_interval = val_interval
        self.val_begin = 1
        self.stop_training = False
        self._iter = 0
        self._longest = {"step": 0.0, "writing": 0.0}  # seconds

    @property
    def iter(self) -> int:
        """Finished optimizer steps."""
        return self._iter

    @property
    def epoch(self) -> int:
        """Always 0, see `max_epochs`."""
        return 0

    def start_from(self, iteration: int) -> None:
        """Continue after `iteration` finished steps."""
        self._iter = iteration

    def run(self) -> Any:
        """Train up to `max_iters`.

        Raises:
            TrainingInterruptedError: after a signal or before a time limit, once a checkpoint is on disk.
        """
        try:
            with end_request().between_steps() as end:
                self._steps(end)
        finally:
            note(self._iter, ELSEWHERE)
        return self.runner.model

    def _steps(self, end: EndRequest) -> None:
        runner = self.runner
        runner.call_hook("before_train")
        runner.call_hook("before_train_epoch")
        self.dataloader.batch_sampler.start_batch = self._iter - self._data_from
        batches = iter(self.dataloader)
        if self._lacks_an_evaluation():  # the run was stopped within it
            self._evaluate(end)
        while self._iter < self.max_iters and not self.stop_training:
            runner.model.train()
            note(self._iter + 1, "reading data")
            self._run_iteration(next(batches))
            end.look_at_the_clock(sum(self._longest.values()))
            self._end_if_asked(end)
            if self._evaluation_is_due():
                self._evaluate(end)
        runner.call_hook("after_train_epoch")
        runner.call_hook("after_train")

    def _evaluation_is_due(self) -> bool:
        return (
            bool(self.val_interval) and self._iter % self.val_interval == 0 and self._iter < self._val_before
        )

    def _lacks_an_evaluation(self) -> bool:
        """Whether a resumed run stands at an evaluation that `validations.jsonl` lacks."""
        if not self._iter or not self._evaluation_is_due():
            return False
        rows = validations(Path(self.runner.work_dir)) if is_main_process() else []
        lacks = is_main_process() and not any(row["iter"] == self._iter for row in rows)
        return largest_over_ranks(int(lacks)) > 0

    def _evaluate(self, end: EndRequest) -> None:
        note(self._iter, "in an evaluation")
        if self.runner.val_loop.run() is None:
            self._end_if_asked(end)

    def _end_if_asked(self, end: EndRequest) -> None:
        """Write a checkpoint and end if any process was asked to; all processes call this."""
        code = largest_over_ranks(end.code)
        if not code:
            return
        path = self.runner.save_now()
        raise interrupted(
            f"stopped by {end.reason or 'a request to another process'} after iteration {self._iter}; "
            f"checkpoint {path}. {end.goes_on}",
            code,
        )

    def _run_iteration(self, batch: Any) -> None:
        runner, index, start = self.runner, self._iter, time.monotonic()
        note(index + 1, "in the step")
        runner.call_hook("before_train_iter", batch_idx=index, data_batch=batch)
        try:
            outputs = runner.model.train_step(batch, optim_wrapper=runner.optim_wrapper)
        except NonFiniteError as error:
            runner.finish_writing()
            error.args = (f"iteration {index + 1}: {error}\n{_way_back(Path(runner.work_dir))}",)
            raise
        self._took("step", start)
        note(index + 1, "writing or logging")
        start = time.monotonic()
        runner.call_hook("after_train_iter", batch_idx=index, data_batch=batch, outputs=outputs)
        self._took("writing", start)
        self._iter += 1

    def _took(self, what: str, start: float) -> None:
        self._longest[what] = max(self._longest[what], time.monotonic() - start)


class EvaluationLoop(ValLoop):
    """mmengine's loop of evaluations, which a request to end breaks off; the weights are as before."""

    def run(self) -> dict[str, float] | None:
        """Scores of the split on all processes; None if any of them was asked to end meanwhile."""
        runner, end = self.runner, end_request()
        runner.call_hook("before_val")
        runner.call_hook("before_val_epoch")
        runner.model.eval()
        with statistics_of_main(runner.plain_model.network):
            for index, batch in enumerate(self.dataloader):
                self.run_iter(index, batch)
                note(runner.iter, "in an evaluation")
                end.look_at_the_clock(0.0)
                if end.code:
                    break
        metrics: dict[str, float] | None = None
        if not largest_over_ranks(end.code):
            metrics = self.evaluator.evaluate(len(self.dataloader.dataset))
        runner.call_hook("after_val_epoch", metrics=metrics)
        runner.call_hook("after_val")
        return metrics

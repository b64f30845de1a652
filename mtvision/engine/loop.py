"""The training loop: one iteration is one optimizer step, and resuming decodes nothing twice."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from mmengine.runner import BaseLoop
from torch.utils.data import DataLoader

from mtvision.core.naming import ReportedError
from mtvision.core.non_finite import NonFiniteError
from mtvision.runtime.checkpoint import CheckpointError, find_checkpoint


class TrainingInterruptedError(ReportedError, RuntimeError):
    """Training was stopped by SIGINT or SIGTERM; a checkpoint of the last finished step was written."""

    exit_code = 130


class _StopRequest:
    def __init__(self) -> None:
        self.signal: int | None = None

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Remember the first request; a second one ends the process at once."""
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = number


@contextmanager
def _stop_on_signals() -> Iterator[_StopRequest]:
    request = _StopRequest()
    previous = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            previous[number] = signal.signal(number, request.handle)
        except ValueError:  # not the main thread (a notebook, a test): leave signals alone
            break
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


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
        max_iters: optimizer steps.
        val_interval: steps between evaluations; 0 = never (the caller evaluates at the end).
    """

    def __init__(self, runner: Any, dataloader: DataLoader[Any], max_iters: int, val_interval: int) -> None:
        super().__init__(runner, dataloader)
        self.max_iters = max_iters
        self.max_epochs = 1  # mmengine's hooks ask for it; an iteration-based run is one long epoch
        self.val_interval = val_interval
        self.val_begin = 1
        self.stop_training = False
        self._iter = 0

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
            TrainingInterruptedError: after SIGINT or SIGTERM, once a checkpoint is on disk.
        """
        runner = self.runner
        runner.call_hook("before_train")
        runner.call_hook("before_train_epoch")
        self.dataloader.batch_sampler.start_batch = self._iter
        batches = iter(self.dataloader)
        with _stop_on_signals() as stop:
            while self._iter < self.max_iters and not self.stop_training:
                runner.model.train()
                self._run_iteration(next(batches))
                if stop.signal is not None:
                    path = runner.save_now()
                    raise TrainingInterruptedError(
                        f"stopped by signal {stop.signal} after iteration {self._iter}; checkpoint {path}. "
                        "Run the same command with --resume to continue."
                    )
                if self.val_interval and self._iter % self.val_interval == 0 and self._iter < self.max_iters:
                    runner.val_loop.run()
        runner.call_hook("after_train_epoch")
        runner.call_hook("after_train")
        return runner.model

    def _run_iteration(self, batch: Any) -> None:
        runner, index = self.runner, self._iter
        runner.call_hook("before_train_iter", batch_idx=index, data_batch=batch)
        try:
            outputs = runner.model.train_step(batch, optim_wrapper=runner.optim_wrapper)
        except NonFiniteError as error:
            error.args = (f"iteration {index + 1}: {error}\n{_way_back(Path(runner.work_dir))}",)
            raise
        runner.call_hook("after_train_iter", batch_idx=index, data_batch=batch, outputs=outputs)
        self._iter += 1

"""The runs of a grid elsewhere: on Slurm through submitit, or as commands to copy."""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtvision.core.files.foreign import ForeignError, foreign_errors
from mtvision.recipe.config import parse_option
from mtvision.runtime.lock import lock_file
from mtvision.sweep.grid import Run, finished_record
from mtvision.sweep.local import TRAIN, Outcome, Watcher, outcome_of, prepared

_GENERAL = ("cpus_per_task", "gpus_per_node", "mem_gb", "name", "nodes", "tasks_per_node", "timeout_min")
"""Parameters of submitit that are the same on every cluster; others are Slurm's own."""


@dataclass(frozen=True)
class TrainJob:
    """Slurm job that trains one run, from its checkpoint if it has one.

    submitit calls `checkpoint` when a job is about to be preempted or runs out of time, and submits what it
    returns. The run writes a checkpoint of its own on the same signal.

    Args:
        run: which one.
        command: what starts it.
        launcher: `slurm` where a job has several tasks, else `none`.
    """

    run: Run
    command: tuple[str, ...] = TRAIN
    launcher: str = "none"

    def __call__(self) -> int:
        """Train; returns the exit code."""
        rank = int(os.environ.get("SLURM_PROCID", "0")) if self.launcher == "slurm" else 0
        self.run.work_dir.mkdir(parents=True, exist_ok=True)
        lock = lock_file(self.run.lock, wait=True) if rank == 0 else None  # submitted twice: one waits
        with lock or nullcontext():
            record = finished_record(self.run)
            if record is not None and record.whole:
                return 0
            log = self.run.log if rank == 0 else self.run.log.with_suffix(f".{rank}.log")
            arguments = [*self.command, *prepared(self.run).arguments, "--launcher", self.launcher]
            with log.open("ab") as file:
                return subprocess.run(
                    arguments, stdout=file, stderr=subprocess.STDOUT, check=False
                ).returncode

    def checkpoint(self) -> Any:
        """The same job again."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


def slurm_executor(folder: Path, settings: Sequence[str], *, workers: int | None = None) -> Any:
    """A submitit executor.

    Args:
        folder: receives the jobs' scripts and logs.
        settings: `key=value`: `timeout_min nodes tasks_per_node gpus_per_node cpus_per_task mem_gb name`,
            Slurm's own such as `partition account qos constraint`, and `cluster` (`slurm`, or `local` and
            `debug` to try it without a cluster).
        workers: jobs at once.

    Raises:
        ImportError: submitit is not installed.
        ValueError: a setting is not `key=value` or unknown to submitit, or this machine has no Slurm.
    """
    try:
        import submitit
    except ImportError as error:
        raise ImportError(
            "--slurm needs `pip install 'mtvision[slurm]'`; --print gives commands to start by hand."
        ) from error
    values = dict(parse_option(setting, "--slurm") for setting in settings)
    cluster = values.pop("cluster", "slurm")
    if workers is not None and cluster == "slurm":
        values.setdefault("array_parallelism", workers)
    try:
        executor = submitit.AutoExecutor(folder=str(folder), cluster=cluster)
        executor.update_parameters(**slurm_parameters(values))
    except (NameError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"--slurm: {error} (--print gives commands to start by hand.)") from error
    return executor


def slurm_parameters(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as submitit names them: Slurm's own begin with `slurm_`."""
    return {
        key if key in _GENERAL or key.startswith("slurm_") else f"slurm_{key}": value
        for key, value in values.items()
    }


def run_on_cluster(
    runs: Sequence[Run],
    executor: Any,
    *,
    command: Sequence[str] = TRAIN,
    several_tasks: bool = False,
    watcher: Watcher | None = None,
    poll_seconds: float = 5.0,
) -> list[Outcome]:
    """Submit the runs as one array and wait for all of them.

    If the wait is interrupted, jobs continue. The same command later skips finished runs.

    Args:
        runs: to train.
        executor: like submitit's: `batch()`, `submit(function)`, jobs with `job_id done() result()`.
        command: what starts a run.
        several_tasks: a job has several processes, which find one another through Slurm.
        watcher: told about progress.
        poll_seconds: how often jobs are looked at.
    """
    watcher = watcher or Watcher()
    launcher = "slurm" if several_tasks else "none"
    with executor.batch():
        jobs = [executor.submit(TrainJob(run, tuple(command), launcher)) for run in runs]
    waiting = list(zip(runs, jobs, strict=True))
    outcomes: dict[str, Outcome] = {}
    for run, _ in waiting:
        watcher.started(run)
    while waiting:
        for run, job in [item for item in waiting if item[1].done()]:
            waiting.remove((run, job))
            outcomes[run.name] = _outcome(run, job)
            watcher.ended(outcomes[run.name])
        watcher.running([run for run, _ in waiting])
        if waiting:
            time.sleep(poll_seconds)
    return [outcomes[run.name] for run in runs]


def _outcome(run: Run, job: Any) -> Outcome:
    try:
        with foreign_errors():  # submitit raises what the job raised, and errors of its own for lost jobs
            code = int(job.result())
    except ForeignError as error:
        return Outcome(run, None, f"job {job.job_id}: {error.first_line}")
    return outcome_of(run, code)


def commands(
    runs: Sequence[Run], *, nodes: int = 1, gpus: int = 1, endpoint: str = "$HEAD_NODE:29500"
) -> list[str]:
    """One command per run, to be typed on every node: torchrun for several processes, else plain Python.

    Args:
        runs: which ones.
        nodes: machines.
        gpus: processes per machine.
        endpoint: where the machines meet, `host:port`.
    """
    lines = []
    for run in runs:
        words = ["-m", "mtvision.cli.main", "train", *run.arguments]
        start = ["python"]
        if nodes > 1:
            meeting = ["--rdzv-backend=c10d", f"--rdzv-id={run.name}", f"--rdzv-endpoint={endpoint}"]
            start = ["torchrun", f"--nnodes={nodes}", f"--nproc-per-node={gpus}", *meeting]
        elif gpus > 1:
            start = ["torchrun", "--standalone", f"--nproc-per-node={gpus}"]
        lines.append(
            " ".join(word if word.endswith(endpoint) else shlex.quote(word) for word in [*start, *words])
        )
    return lines

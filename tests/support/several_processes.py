"""A tool of the suite on one or several CPU processes, with the environment of torchrun."""

from __future__ import annotations

import os
from pathlib import Path

import torch
import warm

SUPPORT = Path(__file__).parent
TOOL = SUPPORT / "run_tool.py"


def variables(*, dropout: bool = False) -> dict[str, str]:
    """Of the environment: the folder of helpers on the path of processes that the command starts, too."""
    path = os.pathsep.join([str(SUPPORT), os.environ.get("PYTHONPATH", "")])
    return {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", **({} if dropout else {"WITHOUT_DROPOUT": "1"})}


def attempt(processes, *arguments, dropout=False):
    """Run `mtvision <arguments>`, without dropout unless asked for; what came of it."""
    known = variables(dropout=dropout)
    return warm.run([TOOL, *arguments], variables=known, path=[SUPPORT], processes=processes)


def begin(*arguments, dropout=False):
    """As `attempt` on one process, in the background: to be killed."""
    files = (Path(os.devnull), Path(os.devnull))
    (process,) = warm.start([TOOL, *arguments], files, variables=variables(dropout=dropout), path=[SUPPORT])
    return process


def tool(processes, *arguments, dropout=False):
    """As `attempt`; fails with the tool's own words."""
    done = attempt(processes, *arguments, dropout=dropout)
    assert done.returncode == 0, done.stderr[-3000:]


def two_ranks(script, folder, *files):
    """What two gloo processes of a script wrote: [result of rank 0, result of rank 1].

    The script is called with RANK WORLD RENDEZVOUS_FILE [files …] RESULT_FILE; it saves with `torch.save`.
    """
    results = [folder / f"{rank}.pt" for rank in range(2)]
    logs = [(folder / f"{rank}.out", folder / f"{rank}.err") for rank in range(2)]
    started = [
        warm.start(
            [script, rank, 2, folder / "rendezvous", *files, result],
            log,
            variables=variables(dropout=True),
            path=[SUPPORT],
        )
        for rank, (result, log) in enumerate(zip(results, logs, strict=True))
    ]
    for (process,), (_, errors) in zip(started, logs, strict=True):
        process.join(600)
        assert process.exitcode == 0, errors.read_text()[-3000:]
    return [torch.load(result, weights_only=False) for result in results]

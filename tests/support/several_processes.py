"""A tool of the suite on one or several CPU processes, as torchrun starts it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch


def command(processes=1, *arguments, dropout=False):
    """What to start, and the environment."""
    support = Path(__file__).parent
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    path = os.pathsep.join([str(support), os.environ.get("PYTHONPATH", "")])
    variables = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    if not dropout:
        variables["WITHOUT_DROPOUT"] = "1"
    return [*start, str(support / "run_tool.py"), *map(str, arguments)], {**os.environ, **variables}


def attempt(processes, *arguments, dropout=False):
    """Run `mtvision <arguments>`, without dropout unless asked for; what came of it."""
    line, environment = command(processes, *arguments, dropout=dropout)
    return subprocess.run(line, capture_output=True, text=True, timeout=300, env=environment, check=False)


def tool(processes, *arguments, dropout=False):
    """As `attempt`; fails with the tool's own words."""
    done = attempt(processes, *arguments, dropout=dropout)
    assert done.returncode == 0, done.stderr[-3000:]


def two_ranks(script, folder, *files):
    """What two gloo processes of a script wrote: [result of rank 0, result of rank 1].

    The script is called with RANK WORLD RENDEZVOUS_FILE [files …] RESULT_FILE; it saves with `torch.save`.
    """
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    results = [folder / f"{rank}.pt" for rank in range(2)]
    processes = [
        subprocess.Popen(
            [sys.executable, *map(str, (script, rank, 2, folder / "rendezvous", *files, result))],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, result in enumerate(results)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors[-3000:]
    return [torch.load(result, weights_only=False) for result in results]

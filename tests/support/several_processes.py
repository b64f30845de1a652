"""A tool of the suite on one or several CPU processes, as torchrun starts it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def command(processes=1):
    """What to start, up to the tool's own arguments, and the environment."""
    support = Path(__file__).parent
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    path = os.pathsep.join([str(support), os.environ.get("PYTHONPATH", "")])
    variables = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "WITHOUT_DROPOUT": "1"}
    return [*start, str(support / "run_tool.py")], {**os.environ, **variables}


def tool(processes, *arguments):
    """Run `mtvision <arguments>` without dropout; fails with the tool's own words."""
    start, environment = command(processes)
    done = subprocess.run(
        [*start, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]

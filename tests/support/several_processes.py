"""A tool of the suite on one or several CPU processes, as torchrun starts it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


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


def tool(processes, *arguments, dropout=False):
    """Run `mtvision <arguments>`, without dropout unless asked for; fails with the tool's own words."""
    line, environment = command(processes, *arguments, dropout=dropout)
    done = subprocess.run(line, capture_output=True, text=True, timeout=300, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]

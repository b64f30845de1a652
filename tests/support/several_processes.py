"""A tool of the suite on one or several CPU processes, as torchrun starts it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def tool(processes, *arguments):
    """Run `mtvision <arguments>` without dropout; fails with the tool's own words."""
    support = Path(__file__).parent
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    variables = {"PYTHONPATH": os.pathsep.join([str(support), os.environ.get("PYTHONPATH", "")]),
                 "OMP_NUM_THREADS": "1", "WITHOUT_DROPOUT": "1"}  # fmt: skip
    done = subprocess.run(
        [*command, str(support / "run_tool.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **variables},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]

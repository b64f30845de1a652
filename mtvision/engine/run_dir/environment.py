"""What a run was computed with: machine, packages, code."""

from __future__ import annotations

import os
import platform
from functools import cache
from importlib import metadata
from typing import Any

import torch

from mtvision.report.provenance import code_difference, code_version, processor_model

VARIABLES = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "SLURM_JOB_ID", "WORLD_SIZE")
"""Variables of the environment that are kept. Others may hold secrets."""


@cache
def environment() -> dict[str, Any]:
    """Machine, versions of all packages, and code, as plain data.

    Returns:
        `python`, `system`, `processor`, `cores`, `gpus`, `torch` (how it was built), `variables`, `packages`
        {name: version}, `code` (commit, and whether it was changed).
    """
    cuda = torch.cuda.is_available()
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": processor_model(),
        "cores": os.cpu_count(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if cuda else [],
        "torch": torch.__config__.show().splitlines()[:40],  # type: ignore[no-untyped-call]
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        "packages": dict(sorted((item.name, item.version) for item in metadata.distributions())),
        "code": code_version(),
    }


@cache
def changes_of_code() -> str:
    """What differs from the commit, as a patch of bounded size; empty without a difference."""
    return code_difference() if environment()["code"]["dirty"] else ""

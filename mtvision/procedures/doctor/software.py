"""Optional packages and back-ends: what is there, what it is for, and whether the kernels are right."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import torch
import torch.distributed as dist

from mtvision.ops import available_backends
from mtvision.ops.scan.interface import selective_scan
from mtvision.procedures.doctor.check import Check

OPTIONAL = {
    "kornia_rs": ("kornia-rs", "PNG files are decoded in less than half the time"),
    "torchjd": ("'mtvision[balancers]'", "gradient balancers: UPGrad, MGDA, PCGrad, …"),
    "wandb": ("'mtvision[wandb]'", "logging to Weights & Biases"),
    "tensorboard": ("'mtvision[tensorboard]'", "logging to TensorBoard"),
    "av": ("'mtvision[video]'", "H.264 videos of `mtvision predict`"),
    "pymoo": ("'mtvision[search]'", "hypervolumes of controllable networks"),
    "submitit": ("'mtvision[slurm]'", "`mtvision launch --slurm`"),
}
"""{module: (what to install, what it is for)}"""
TOLERANCE = 1e-4
"""Largest difference of a scan back-end from the written-out one, relative to the largest output."""


def software() -> Iterator[Check]:
    """Checks of packages, process groups and kernels."""
    for module, (package, purpose) in OPTIONAL.items():
        if importlib.util.find_spec(module) is None:
            yield Check(module, "note", f"not installed: {purpose}", f"pip install {package}")
        else:
            yield Check(module, "ok", purpose)
    groups = {"gloo": dist.is_gloo_available(), "nccl": dist.is_nccl_available()}
    there = [name for name, found in groups.items() if found]
    if there:
        yield Check("process groups", "ok", ", ".join(there), "", groups)
    else:
        yield Check(
            "process groups", "note", "none: one process only", "Install a usual build of torch.", groups
        )
    yield from _scans()


def _scans() -> Iterator[Check]:
    """Every back-end of the selective scan against the written-out one, on random input."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    names = available_backends(device)
    if device == "cpu" and "cpp" not in names:
        yield Check(
            "scan: cpp",
            "note",
            "no kernel: MTMamba uses the slower 'torch' back-end",
            "Install a C++ compiler (Debian: apt install g++), or set CXX.",
        )
    draw = torch.Generator().manual_seed(0)
    batch, channels, steps, states = 2, 8, 65, 4
    u, delta = (torch.randn(batch, channels, steps, generator=draw).to(device) for _ in range(2))
    decay = -torch.rand(channels, states, generator=draw).to(device)
    into, out = (torch.randn(batch, states, steps, generator=draw).to(device) for _ in range(2))

    def output(name: str) -> torch.Tensor:
        result: torch.Tensor = selective_scan(u, delta, decay, into, out, delta_softplus=True, backend=name)
        return result

    wanted = output("reference")
    for name in names[1:]:
        error = float((output(name) - wanted).abs().max() / wanted.abs().max())
        text, facts = f"differs from the written-out scan by {error:.0e}", {"difference": error}
        if error > TOLERANCE:
            remedy = "Do not use it: set MTVISION_TRACEBACK=1 and report the processor; see docs/mamba.md."
            yield Check(f"scan: {name}", "problem", text, remedy, facts)
        else:
            yield Check(f"scan: {name}", "ok", text, "", facts)

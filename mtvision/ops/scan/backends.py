"""Choice of the scan's implementation."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from mtvision.core.naming import UnknownNameError
from mtvision.ops.scan.build import load_kernel

BACKENDS = ("auto", "reference", "torch", "cpp", "triton", "mamba_ssm", "graph")
"""Names; "graph" is for exported programs, which do not have this package's operators."""

_chosen = "auto"


@functools.cache
def _has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def has_mamba_ssm() -> bool:
    """Whether mamba-ssm's compiled kernels are installed."""
    return _has("mamba_ssm") and _has("selective_scan_cuda")


def available_backends(device: str = "cpu") -> tuple[str, ...]:
    """Names of the backends that can run on `device` ("cpu" or "cuda") here, slowest first."""
    names = ["reference", "torch"]
    if device == "cpu" and load_kernel() is not None:
        names.append("cpp")
    if device == "cuda" and _has("triton"):
        names.append("triton")
    if device == "cuda" and has_mamba_ssm():
        names.append("mamba_ssm")
    return tuple(names)


def check_backend(name: str) -> str:
    """Return `name` if it is a backend.

    Raises:
        UnknownNameError: it is not.
    """
    if name not in BACKENDS:
        raise UnknownNameError("scan backend", name, BACKENDS)
    return name


def chosen_backend() -> str:
    """The backend that calls without a `backend` argument use; "auto" unless `use_backend` says otherwise."""
    return _chosen


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Within the block, scans use this backend (in all threads).

    Raises:
        UnknownNameError: no such backend.
    """
    global _chosen
    before, _chosen = _chosen, check_backend(name)
    try:
        yield
    finally:
        _chosen = before


def resolve(name: str, x: Tensor) -> str:
    """The kernel behind "auto" for a tensor; other names are returned as they are."""
    if name != "auto":
        return name
    if x.device.type == "cpu":
        return "cpp" if load_kernel() is not None else "torch"
    return "triton" if x.device.type == "cuda" and _has("triton") else "torch"

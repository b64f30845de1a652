"""Kernels, each with a slow, obvious reference beside it."""

from mtvision.ops.scan import (
    BACKENDS,
    available_backends,
    benchmark_scan,
    selective_scan,
    selective_scan_2d,
    stacked_scan_2d,
    use_backend,
)

__all__ = [
    "BACKENDS",
    "available_backends",
    "benchmark_scan",
    "selective_scan",
    "selective_scan_2d",
    "stacked_scan_2d",
    "use_backend",
]

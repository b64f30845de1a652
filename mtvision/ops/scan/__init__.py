"""The selective scan of state-space models: one function, several backends."""

from mtvision.ops.scan.backends import BACKENDS, available_backends, use_backend
from mtvision.ops.scan.benchmark import benchmark_scan
from mtvision.ops.scan.interface import selective_scan, selective_scan_2d, stacked_scan_2d

__all__ = [
    "BACKENDS",
    "available_backends",
    "benchmark_scan",
    "selective_scan",
    "selective_scan_2d",
    "stacked_scan_2d",
    "use_backend",
]

"""Speed and memory of the scan backends against the reference, measured in one run on one machine."""

from __future__ import annotations

import ctypes
import gc
import math
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mtvision.core.compiled import architecture
from mtvision.ops.scan.backends import available_backends
from mtvision.ops.scan.build import load_kernel
from mtvision.ops.scan.interface import selective_scan, selective_scan_2d, stacked_scan_2d

Shape = tuple[int, int, int, int, int]
"""(batch, channels, steps, states, groups)."""


@dataclass(frozen=True)
class Timing:
    """One backend at one shape.

    Args:
        name: backend.
        shape: (batch, channels, steps, states, groups).
        forward: seconds, without gradients.
        both: seconds, forward and backward.
        forward_core: the same as `forward` in seconds of processor time, all threads together.
        both_core: the same as `both` in seconds of processor time, which a busy machine changes less.
        forward_memory: bytes above the arguments, at the peak of a forward pass; NaN where not measured.
        both_memory: the same for forward and backward.
        forward_spread: longest less shortest run, by the clock, in parts of `forward`.
        both_spread: the same for forward and backward.
    """

    name: str
    shape: Shape
    forward: float
    both: float
    forward_core: float
    both_core: float
    forward_memory: float
    both_memory: float
    forward_spread: float = 0.0
    both_spread: float = 0.0


def _arguments(shape: Shape) -> list[Tensor]:
    batch, channels, steps, states, groups = shape
    draw = torch.Generator().manual_seed(0)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=draw)

    rates = -torch.arange(1.0, states + 1).repeat(channels, 1)
    bias = torch.log(torch.expm1(torch.logspace(-3, -1, channels)))  # the usual start: steps of 0.001 to 0.1
    sides = [normal(batch, groups, states, steps) for _ in range(2)]
    x = [
        normal(batch, channels, steps),
        normal(batch, channels, steps),
        rates,
        *sides,
        torch.ones(channels),
        bias,
    ]
    return [item.requires_grad_() for item in x]


def _resident() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024
    return 0


def _available() -> float:
    """Bytes of memory that can be had without swapping; infinite where the system does not say."""
    table = Path("/proc/meminfo")
    lines = table.read_text().splitlines() if table.exists() else []
    return next((float(x.split()[1]) * 1024 for x in lines if x.startswith("MemAvailable")), float("inf"))


def _peak(run: Callable[[], object]) -> float:
    """Growth of the process's resident memory while `run` runs, in bytes (sampled every millisecond)."""
    if not Path("/proc/self/status").exists():
        return float("nan")
    gc.collect()
    # Memory that the allocator kept from earlier runs would hide what this one needs.
    with suppress(AttributeError):  # a C library other than glibc has no such function
        ctypes.CDLL(None).malloc_trim(0)
    start, peak, stop = _resident(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not stop.wait(1e-3):
            peak = max(peak, _resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        result = run()
        peak = max(peak, _resident())
    finally:
        stop.set()
        watcher.join()
    del result
    return float(max(0, peak - start))


def _seconds(run: Callable[[], object], repeats: int) -> tuple[float, float, float]:
    """Medians of seconds on the clock and of processor time, and the spread on the clock."""
    clock, core = [], []
    for _ in range(repeats):
        start, used = time.perf_counter(), time.process_time()
        run()
        clock.append(time.perf_counter() - start)
        core.append(time.process_time() - used)
    middle = statistics.median(clock)
    return middle, statistics.median(core), (max(clock) - min(clock)) / middle


def _costs(run: Callable[[], object], repeats: int) -> tuple[float, ...]:
    """Seconds on the clock and of processor time, bytes at the peak, and the spread on the clock."""
    clock, core, spread = _seconds(run, repeats)
    return clock, core, _peak(run), spread


def _warm_up(name: str) -> None:
    """What only the first call does: compile a kernel, import, start threads."""
    arguments = _arguments((1, 4, 8, 16, 1))
    u, delta, A, B, C, D, bias = arguments
    y = selective_scan(u, delta, A, B, C, D, None, bias, True, backend=name)
    torch.autograd.grad(torch.as_tensor(y).sum(), arguments)


def measure(name: str, shape: Shape, repeats: int = 3, *, half: bool = False) -> Timing:
    """Time and memory of one CPU backend at one shape; the median of `repeats` runs.

    With `half`, u, delta, B and C are bf16. The reference holds several tensors of all channels x steps x
    states. Where memory will not do for that, its numbers are NaN.
    """
    arguments = _arguments(shape)
    if half:
        arguments = [x if x.ndim < 3 else x.detach().bfloat16().requires_grad_() for x in arguments]
    u, delta, A, B, C, D, bias = arguments
    weight = torch.randn(shape[:3], generator=torch.Generator().manual_seed(1)).to(u.dtype)

    def forward() -> Tensor:
        with torch.no_grad():
            return torch.as_tensor(selective_scan(u, delta, A, B, C, D, None, bias, True, backend=name))

    def both() -> tuple[Tensor, ...]:
        y = selective_scan(u, delta, A, B, C, D, None, bias, True, backend=name)
        return torch.autograd.grad(y, arguments, weight)

    _warm_up(name)
    nan = float("nan")
    numbers, room = math.prod(shape[:4]), _available()
    results = []
    for run, need in ((forward, 24), (both, 56)):  # bytes per number that the reference was seen to need
        fits = name != "reference" or need * numbers < 0.8 * room
        results.append(_costs(run, repeats) if fits else (nan,) * 4)
    forward_numbers, both_numbers = results
    pairs = zip(forward_numbers, both_numbers, strict=True)
    return Timing(f"{name} bf16" if half else name, shape, *(number for pair in pairs for number in pair))


def exponential_floor() -> float:
    """Nanoseconds that the kernel's exponential alone takes per number on one core; NaN without a kernel."""
    kernel = load_kernel()
    if kernel is None:
        return float("nan")
    kernel.exponentials.restype = ctypes.c_float
    numbers = torch.linspace(-5, 0, 4096)

    def run() -> None:
        count = ctypes.c_int64(numbers.numel())
        kernel.exponentials(ctypes.c_void_p(numbers.data_ptr()), count, ctypes.c_int64(1000))

    run()
    return _seconds(run, 5)[1] / 1000 / numbers.numel() * 1e9


def measure_2d(
    size: tuple[int, int, int, int], states: int = 16, repeats: int = 3
) -> dict[str, tuple[float, ...]]:
    """`{"walked" | "stacked": (forward s, both s, peak bytes)}` for a map; seconds of processor time.

    Args:
        size: (B, H, W, E).
        states: numbers of the state.
        repeats: the median of so many runs counts.
    """
    channels = size[3]
    draw = torch.Generator().manual_seed(0)
    u = torch.randn(size, generator=draw).requires_grad_()
    delta = torch.randn(*size[:3], 4, channels, generator=draw).requires_grad_()
    A = -torch.arange(1.0, states + 1).repeat(4 * channels, 1).requires_grad_()
    B, C = (torch.randn(*size[:3], 4, states, generator=draw).requires_grad_() for _ in range(2))
    D = torch.ones(4 * channels).requires_grad_()
    bias = torch.full((4 * channels,), -4.0).requires_grad_()
    weight = torch.randn(size, generator=draw)
    arguments = [u, delta, A, B, C, D, bias]
    results: dict[str, tuple[float, ...]] = {}
    for name, scan in (("stacked", stacked_scan_2d), ("walked", selective_scan_2d)):

        def forward(scan: Callable[..., Tensor] = scan) -> Tensor:
            with torch.no_grad():
                return scan(*arguments, True)

        def both(scan: Callable[..., Tensor] = scan) -> tuple[Tensor, ...]:
            return torch.autograd.grad(scan(*arguments, True), arguments, weight)

        memory = _peak(both)
        results[name] = (_seconds(forward, repeats)[1], _seconds(both, repeats)[1], memory)
    return results


def benchmark_scan(
    shapes: Sequence[Shape] = ((1, 768, 4032, 16, 4), (1, 1536, 16128, 16, 4)),
    backends: Sequence[str] | None = None,
    repeats: int = 3,
    write: Callable[[str], object] = print,
) -> list[Timing]:
    """Write a table of all CPU backends with their ratios to the reference; return the measurements.

    Args:
        shapes: (batch, channels, steps, states, groups). The second default is the last stage of MTMamba at
            448 x 576; the reference needs about 10 GB for its forward pass and 22 GB for both.
        backends: names; default: all that can run here.
        repeats: the median of so many runs counts.
        write: takes each line.
    """
    names = list(available_backends() if backends is None else backends)
    floor, kernel = exponential_floor(), load_kernel()
    vectors = (
        "no kernel" if kernel is None else f"vectors of {kernel.vector_bytes()} bytes ({architecture()})"
    )
    write(f"{torch.get_num_threads()} threads; {vectors}; the exponential alone: {floor:.3f} ns")
    timings: list[Timing] = []
    for shape in shapes:
        write(f"\n(B, D, L, N, G) = {shape}: speed and extra memory against '{names[0]}'")
        write("core: processor time, all threads together; ns: of it per channel x step x state, forward.")
        write(f"medians of {repeats} runs; spread: longest less shortest run in parts of the median.")
        write(
            "backend        fwd s spread       x  core x  fwd+bwd s spread       x  core x   fwd MB       x"
            "  both MB       x      ns  exps"
        )
        base: Timing | None = None
        for name, half in (
            (name, half) for name in names for half in (False, True) if name == "cpp" or not half
        ):
            now = measure(name, shape, repeats, half=half)
            base = base or now
            write(_row(now, base, floor))
            timings.append(now)
        if base is not None and math.isnan(base.both):
            write(f"  nan: '{base.name}' does not fit into the memory that is free")
    return timings


def _row(now: Timing, base: Timing, floor: float) -> str:
    # core-nanoseconds per channel x step x state
    each = now.forward_core / math.prod(now.shape[:4]) * 1e9
    forward = base.forward / now.forward, base.forward_core / now.forward_core
    both = base.both / now.both, base.both_core / now.both_core
    columns = (
        f"{now.name:10}",
        f"{now.forward:9.4f}{now.forward_spread:7.0%}{forward[0]:8.1f}{forward[1]:8.1f}",
        f"{now.both:11.4f}{now.both_spread:7.0%}{both[0]:8.1f}{both[1]:8.1f}",
        f"{now.forward_memory / 2**20:9.0f}{_share(now.forward_memory, base.forward_memory):>8}",
        f"{now.both_memory / 2**20:9.0f}{_share(now.both_memory, base.both_memory):>8}",
        f"{each:8.3f}{each / floor:6.1f}",
    )
    return "".join(columns)


def _share(part: float, whole: float) -> str:
    return f"1/{whole / part:.0f}" if part > 0 and not math.isnan(whole) else "-"


MAPS = ((1, 28, 36, 1536), (1, 56, 72, 768), (1, 112, 144, 384))
"""(B, H, W, E) of MTMamba's three stages at 448 x 576."""


def benchmark_scan_2d(
    sizes: Sequence[tuple[int, int, int, int]] = MAPS,
    repeats: int = 3,
    write: Callable[[str], object] = print,
) -> dict[tuple[int, int, int, int], dict[str, tuple[float, ...]]]:
    """Write a table of the scan over maps against four stacked copies; return `{size: measure_2d(size)}`."""
    write(
        "\nfour directions over a map (B, H, W, E), 16 states, processor time: stacked copies -> walking it"
    )
    results = {}
    for size in sizes:
        results[size] = measure_2d(size, repeats=repeats)
        old, new = results[size]["stacked"], results[size]["walked"]
        line = (
            f"{size!s:20} fwd {old[0]:.4f} -> {new[0]:.4f} s (x {old[0] / new[0]:.2f})",
            f"fwd+bwd {old[1]:.4f} -> {new[1]:.4f} s (x {old[1] / new[1]:.2f})",
            f"peak {old[2] / 2**20:.0f} -> {new[2] / 2**20:.0f} MB",
        )
        write(", ".join(line))
    return results

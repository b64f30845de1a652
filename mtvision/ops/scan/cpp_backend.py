"""Calls of the C++ kernel: strides, the split over threads, and the sums that threads leave behind.

Shapes: B batch, L steps, G groups (or the four directions), P channels per group, N states. channels = G * P,
and E = P for the 2-D scan.
"""

# ruff: noqa: N806, N815  gradients and tensors keep the names of the paper: A, dB, u_T
from __future__ import annotations

import ctypes
from dataclasses import dataclass

import torch
from torch import Tensor

from mtvision.ops.scan.build import load_kernel
from mtvision.ops.scan.constants import CHUNK

_SMALL = 1 << 18  # below so many (channel x step x state) a second thread costs more than it gives

Layout = tuple[int, int, int, int]  # strides: batch, group, step, channel (or state)


@dataclass(frozen=True)
class Scan:
    """One problem as the kernel sees it; tensors are on the CPU.

    u, delta, B and C have one dtype: fp32, fp64 or bf16. A, D and the bias have that of arithmetic, which is
    fp32 for bf16.
    """

    batch: int
    groups: int
    width: int
    states: int
    length: int
    height: int
    walk: bool
    softplus: bool
    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    bias: Tensor | None
    at_u: Layout
    at_delta: Layout
    at_B: Layout
    at_C: Layout

    @property
    def channels(self) -> int:
        """Channels over all groups."""
        return self.groups * self.width

    @property
    def chunks(self) -> int:
        """Number of stored states along the sequence."""
        return -(-self.length // CHUNK)


def sequence_layout(x: Tensor, groups: int) -> Layout:
    """Strides of a sequence (B, channels, L), channels split into `groups`."""
    batch, channel, step = x.stride()
    return batch, channel * (x.shape[1] // groups), step, channel


def _kernel() -> ctypes.CDLL:
    kernel = load_kernel()
    if kernel is None:
        raise RuntimeError(
            "selective scan: backend 'cpp' needs a C++ compiler (g++ or clang++); use 'torch'."
        )
    return kernel


def _plan(scan: Scan) -> tuple[int, list[tuple[int, ...]], list[int]]:
    """Threads, runs (thread, batch, group, group_end, from, to, row), (batch, group) index of each row."""
    lanes = _kernel().vector_bytes() // scan.A.element_size()
    blocks = -(-scan.width // lanes)
    # All directions of a map add up into one output, so that one thread must own them.
    spans = [(0, scan.groups)] if scan.walk else [(g, g + 1) for g in range(scan.groups)]
    units = scan.batch * len(spans) * blocks
    work = scan.batch * scan.channels * scan.length * scan.states
    threads = 1 if work < _SMALL else max(1, min(torch.get_num_threads(), units))
    runs: list[tuple[int, ...]] = []
    rows: list[int] = []
    for thread in range(threads):
        start, stop = units * thread // threads, units * (thread + 1) // threads
        while start < stop:
            pair, first = divmod(start, blocks)
            last = min(blocks, first + stop - start)
            batch, (group, end) = pair // len(spans), spans[pair % len(spans)]
            runs.append((thread, batch, group, end, first, last, len(rows)))
            rows += [batch * scan.groups + g for g in range(group, end)]
            start += last - first
    return threads, runs, rows


def _call(
    name: str,
    scan: Scan,
    tensors: list[Tensor | None],
    layouts: list[Layout],
    plan: tuple[int, list[tuple[int, ...]], list[int]],
) -> None:
    threads, runs, _ = plan
    numbers = [scan.groups, scan.width, scan.states, scan.length, scan.height, CHUNK]
    numbers += [int(scan.walk), int(scan.softplus), threads, len(runs)]
    for layout in layouts:
        numbers += layout
    for run in runs:
        numbers += run
    pointers = [None if item is None else item.data_ptr() for item in tensors]
    stored = str(scan.u.dtype).removeprefix("torch.")
    _kernel()[f"scan_{name}_{stored}"](
        (ctypes.c_int64 * len(numbers))(*numbers), (ctypes.c_void_p * len(pointers))(*pointers)
    )


def forward(scan: Scan, y: Tensor, at_y: Layout, *, keep: bool) -> tuple[Tensor, Tensor]:
    """Write the output into `y`; return last state (B, channels, N) and, if `keep`, the states on the way.

    `y` has the dtype of `u`. Where the directions of a map add up in it, it has that of A.
    """
    A = scan.A.t().contiguous()
    last = A.new_empty(scan.batch, scan.states, scan.channels)
    states = A.new_empty(scan.batch, scan.chunks if keep else 0, scan.states, scan.channels)
    if y.numel() == 0:
        return last.zero_().transpose(1, 2).contiguous(), states
    plan = _plan(scan)
    inputs = [scan.u, scan.delta, A, scan.B, scan.C, scan.D, scan.bias]
    none: Layout = (0, 0, 0, 0)
    layouts = [scan.at_u, scan.at_delta, scan.at_B, scan.at_C, at_y, none, none, none]
    _call("forward", scan, [*inputs, y, last, states if keep else None, *[None] * 9], layouts, plan)
    return last.transpose(1, 2).contiguous(), states


@dataclass(frozen=True)
class Gradients:
    """What the backward pass returns; B and C as (B, G, L, N), the rest like their inputs."""

    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor
    bias: Tensor


@dataclass(frozen=True)
class Placed:
    """A tensor and how the kernel finds its numbers."""

    tensor: Tensor
    at: Layout


def backward(
    scan: Scan, dy: Placed, last: Tensor | None, states: Tensor, du: Placed, ddelta: Placed
) -> Gradients:
    """Write the gradients of u and delta into `du` and `ddelta`; return the others.

    Args:
        scan: the problem of the forward pass.
        dy: gradient of the output.
        last: gradient (B, channels, N) of the last state.
        states: what the forward pass stored.
        du: where to write; its dtype is as that of `y` in `forward`.
        ddelta: where to write.
    """
    A = scan.A.t().contiguous()
    last = None if last is None else last.transpose(1, 2).contiguous()
    plan = _plan(scan)
    index = torch.tensor(plan[2])
    per_batch = (scan.batch, scan.states, scan.channels)
    dA, dD, dbias = (A.new_zeros(shape) for shape in (per_batch, per_batch[::2], per_batch[::2]))
    dB = A.new_empty(len(index), scan.length, scan.states)
    dC = torch.empty_like(dB)
    if scan.u.numel():
        tensors = [
            scan.u,
            scan.delta,
            A,
            scan.B,
            scan.C,
            scan.D,
            scan.bias,
            None,
            None,
            states,
            dy.tensor,
            last,
        ]
        tensors += [du.tensor, ddelta.tensor, dA, dB, dC, dD, dbias]
        layouts = [scan.at_u, scan.at_delta, scan.at_B, scan.at_C, (0, 0, 0, 0), dy.at, du.at, ddelta.at]
        _call("backward", scan, tensors, layouts, plan)
    shape = (scan.batch, scan.groups, scan.length, scan.states)
    sums = [
        part.new_zeros(shape[0] * shape[1], *shape[2:]).index_add_(0, index, part).view(shape)
        for part in (dB, dC)
    ]
    return Gradients(dA.sum(0).t().contiguous(), sums[0], sums[1], dD.sum(0), dbias.sum(0))

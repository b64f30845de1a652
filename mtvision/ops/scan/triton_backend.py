"""The selective scan as two fused Triton kernels, for CUDA devices.

A program owns a few channels of one group and walks the sequence in chunks. Within a chunk the recurrence is
an associative scan over steps, state by state. B and C are read once per program. Nothing of size channels x
steps x states is written to memory. The backward kernel replays each chunk from its stored first state. Sums
over the channels of a group are added up in a fixed order, without atomics: results repeat bit by bit.

Checked under Triton's interpreter against the reference; not run on a GPU yet.

Shapes: B batch, G groups, P channels per group, L steps, N states; contiguous, channels = G * P.
"""

# mypy: disable-error-code="misc,no-untyped-call,untyped-decorator"
# ruff: noqa: N803, N806  names of the paper
from __future__ import annotations

import os
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from mtvision.ops.scan.constants import CHUNK

_CHANNELS = 4  # per program; more share loads of B and C, fewer fill the device


@triton.jit
def _join(decay_1, drive_1, decay_2, drive_2):  # type: ignore[no-untyped-def]
    """First step 1, then step 2, as one step."""
    return decay_1 * decay_2, decay_2 * drive_1 + drive_2


@triton.jit
def _softplus(x):  # type: ignore[no-untyped-def]
    """log(1 + exp(x)), accurate for small results (Kahan's log1p), the identity above 20."""
    v = tl.exp(tl.minimum(x, 20.0))
    w = 1.0 + v
    small = tl.where(w == 1.0, v, v * tl.log(w) / tl.where(w == 1.0, 1.0, w - 1.0))
    return tl.where(x > 20.0, x, small)


@triton.jit
def _steps(delta, bias, rows, t, inside, SOFTPLUS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Raw and final step sizes of a tile; zero outside, so that a state passes unchanged."""
    raw = tl.load(delta + rows + t[None, :], mask=inside, other=0.0) + bias[:, None]
    step = _softplus(raw) if SOFTPLUS else raw
    return raw, tl.where(inside, step, 0.0)


@triton.jit
def _place(width, CHANNELS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Batch entry and channels of this program, and which of them exist."""
    inner = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    return tl.program_id(2).to(tl.int64), tl.program_id(1) * width + inner, inner < width


@triton.jit
def _rows(D, bias, A, channel, real, HAS_D: tl.constexpr, HAS_BIAS: tl.constexpr, CHANNELS: tl.constexpr):  # type: ignore[no-untyped-def]
    """D and bias of the channels, zero where absent."""
    zero = tl.zeros([CHANNELS], dtype=A.dtype.element_ty)
    skip = tl.load(D + channel, mask=real, other=0.0) if HAS_D else zero
    shift = tl.load(bias + channel, mask=real, other=0.0) if HAS_BIAS else zero
    return skip, shift


@triton.jit
def _sweep(decay_before, drive_before, first, decay, decay_after, grad, coming, start):  # type: ignore[no-untyped-def]
    """Both directions through a chunk, for one state of each channel.

    Returns the state before each step, the decay of each step, and the gradient by the state after each step.
    """
    pairs = (tl.where(start, 0.0, decay_before), tl.where(start, first, drive_before))
    _, previous = tl.associative_scan(pairs, 1, _join)
    # Past the end of the chunk steps are zero and decays one: the gradient that comes in is already decayed.
    decays, drives = tl.associative_scan((decay_after, grad), 1, _join, reverse=True)
    return previous, decay, decays * coming + drives


@triton.jit
def _forward_kernel(  # type: ignore[no-untyped-def]
    u, delta, A, B, C, D, bias, y, last, states, width, length, num_states, chunks,
    HAS_D: tl.constexpr, HAS_BIAS: tl.constexpr, SOFTPLUS: tl.constexpr, KEEP: tl.constexpr,
    CHANNELS: tl.constexpr, STATES: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    """Grid (blocks of a group, groups, batch)."""
    batch, channel, real = _place(width, CHANNELS)
    channels = tl.num_programs(1) * width
    rows = ((batch * channels + channel) * length)[:, None]
    sides = (batch * tl.num_programs(1) + tl.program_id(1)) * num_states * length
    state_index = tl.arange(0, STATES)
    time = tl.arange(0, STEPS)
    skip, shift = _rows(D, bias, A, channel, real, HAS_D, HAS_BIAS, CHANNELS)
    state = tl.zeros([CHANNELS, STATES], dtype=A.dtype.element_ty)
    for m in range(chunks):
        t = m * STEPS + time
        inside = real[:, None] & (t < length)[None, :]
        _, step = _steps(delta, shift, rows, t, inside, SOFTPLUS)
        value = tl.load(u + rows + t[None, :], mask=inside, other=0.0)
        total = skip[:, None] * value
        if KEEP:
            at = ((batch * chunks + m) * num_states + state_index[None, :]) * channels + channel[:, None]
            tl.store(states + at, state, mask=real[:, None] & (state_index < num_states)[None, :])
        for n in range(num_states):
            rate = tl.load(A + channel * num_states + n, mask=real, other=0.0)
            b = tl.load(B + sides + n * length + t, mask=t < length, other=0.0)
            c = tl.load(C + sides + n * length + t, mask=t < length, other=0.0)
            decays, drives = tl.associative_scan(
                (tl.exp(step * rate[:, None]), step * value * b[None, :]), 1, _join
            )
            first = tl.sum(tl.where((state_index == n)[None, :], state, 0.0), axis=1)
            path = decays * first[:, None] + drives
            total += path * c[None, :]
            end = tl.sum(tl.where((time == STEPS - 1)[None, :], path, 0.0), axis=1)
            state = tl.where((state_index == n)[None, :], end[:, None], state)
        tl.store(y + rows + t[None, :], total, mask=inside)
    at = (batch * channels + channel[:, None]) * num_states + state_index[None, :]
    tl.store(last + at, state, mask=real[:, None] & (state_index < num_states)[None, :])


@triton.jit
def _backward_kernel(  # type: ignore[no-untyped-def]
    dy, dlast, u, delta, A, B, C, D, bias, states, du, ddelta, dA, dB, dC, dD, dbias,
    width, length, num_states, chunks,
    HAS_LAST: tl.constexpr, HAS_D: tl.constexpr, HAS_BIAS: tl.constexpr, SOFTPLUS: tl.constexpr,
    CHANNELS: tl.constexpr, STATES: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    """Grid as above; dB, dC have one row per program, dA, dD and dbias one per batch entry."""
    batch, channel, real = _place(width, CHANNELS)
    channels, blocks = tl.num_programs(1) * width, tl.num_programs(0)
    rows = ((batch * channels + channel) * length)[:, None]
    pair = batch * tl.num_programs(1) + tl.program_id(1)
    sides = pair * num_states * length
    part = (pair * blocks + tl.program_id(0)) * num_states * length
    state_index = tl.arange(0, STATES)
    time = tl.arange(0, STEPS)
    skip, shift = _rows(D, bias, A, channel, real, HAS_D, HAS_BIAS, CHANNELS)
    valid = real[:, None] & (state_index < num_states)[None, :]
    ends = (batch * channels + channel[:, None]) * num_states + state_index[None, :]
    carry = tl.zeros([CHANNELS, STATES], dtype=A.dtype.element_ty)
    if HAS_LAST:
        carry = tl.load(dlast + ends, mask=valid, other=0.0)
    to_rate = tl.zeros([CHANNELS, STATES], dtype=A.dtype.element_ty)
    to_skip, to_shift = 0.0 * skip, 0.0 * skip
    for back in range(chunks):
        m = chunks - 1 - back
        t = m * STEPS + time
        inside = real[:, None] & (t < length)[None, :]
        # The same tile one step earlier and one step later: a tile cannot be shifted in registers.
        before = real[:, None] & ((t - 1 < length) & (time > 0))[None, :]
        after = real[:, None] & ((t + 1 < length) & (time < STEPS - 1))[None, :]
        raw, step = _steps(delta, shift, rows, t, inside, SOFTPLUS)
        _, step_before = _steps(delta, shift, rows, t - 1, before, SOFTPLUS)
        _, step_after = _steps(delta, shift, rows, t + 1, after, SOFTPLUS)
        value = tl.load(u + rows + t[None, :], mask=inside, other=0.0)
        value_before = tl.load(u + rows + t[None, :] - 1, mask=before, other=0.0)
        grad = tl.load(dy + rows + t[None, :], mask=inside, other=0.0)
        read = tl.zeros([CHANNELS, STEPS], dtype=A.dtype.element_ty)
        turn = tl.zeros([CHANNELS, STEPS], dtype=A.dtype.element_ty)
        start = (time == 0)[None, :]
        for n in range(num_states):
            here = (state_index == n)[None, :]
            rate = tl.load(A + channel * num_states + n, mask=real, other=0.0)[:, None]
            b = tl.load(B + sides + n * length + t, mask=t < length, other=0.0)[None, :]
            c = tl.load(C + sides + n * length + t, mask=t < length, other=0.0)[None, :]
            b_before = tl.load(B + sides + n * length + t - 1, mask=(time > 0) & (t - 1 < length), other=0.0)
            at = ((batch * chunks + m) * num_states + n) * channels + channel
            first = tl.load(states + at, mask=real, other=0.0)[:, None]
            coming = tl.sum(tl.where(here, carry, 0.0), axis=1)[:, None]
            previous, decay, through = _sweep(
                tl.exp(step_before * rate), step_before * value_before * b_before[None, :], first,
                tl.exp(step * rate), tl.exp(step_after * rate), grad * c, coming, start,
            )  # fmt: skip
            path = decay * previous + step * value * b
            passed = decay * through
            carry = tl.where(here, tl.sum(tl.where(start, passed, 0.0), axis=1)[:, None], carry)
            read += through * b
            turned = passed * previous
            turn += turned * rate
            to_rate += tl.where(here, tl.sum(turned * step, axis=1)[:, None], 0.0)
            tl.store(dB + part + n * length + t, tl.sum(through * step * value, axis=0), mask=t < length)
            tl.store(dC + part + n * length + t, tl.sum(grad * path, axis=0), mask=t < length)
        tl.store(du + rows + t[None, :], skip[:, None] * grad + step * read, mask=inside)
        slope = tl.where(raw > 20.0, 1.0, 1.0 / (1.0 + tl.exp(-tl.minimum(raw, 20.0)))) if SOFTPLUS else 1.0
        change = tl.where(inside, (value * read + turn) * slope, 0.0)
        tl.store(ddelta + rows + t[None, :], change, mask=inside)
        to_skip += tl.sum(grad * value, axis=1)
        to_shift += tl.sum(change, axis=1)
    tl.store(dA + ends, to_rate, mask=valid)
    tl.store(dD + batch * channels + channel, to_skip, mask=real)
    tl.store(dbias + batch * channels + channel, to_shift, mask=real)


def _check_device(u: Tensor) -> None:
    if not u.is_cuda and os.environ.get("TRITON_INTERPRET") != "1":
        raise RuntimeError("selective scan: backend 'triton' needs CUDA tensors; use 'auto'.")


def _sizes(u: Tensor, A: Tensor, B: Tensor) -> tuple[tuple[int, int, int], tuple[int, ...], dict[str, Any]]:
    """Grid, scalar arguments, and compile-time arguments that both kernels share."""
    batch, channels, length = u.shape
    groups, states = B.shape[1], A.shape[1]
    width = channels // groups
    block = min(_CHANNELS, triton.next_power_of_2(width))
    grid = (triton.cdiv(width, block), groups, batch)
    fixed = {"CHANNELS": block, "STATES": triton.next_power_of_2(states), "STEPS": CHUNK}
    return grid, (width, length, states, -(-length // CHUNK)), fixed


def forward(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, bias: Tensor | None,
    softplus: bool, keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Same contract as `torch_backend.forward`."""
    _check_device(u)
    like = u
    u, delta, A, B, C = (x.contiguous() for x in (u, delta, A, B, C))
    grid, numbers, fixed = _sizes(u, A, B)
    y = torch.empty_like(u)
    last = u.new_empty(u.shape[0], *A.shape)
    states = u.new_empty(u.shape[0], numbers[3] if keep else 0, A.shape[1], A.shape[0])
    flags = {"HAS_D": D is not None, "HAS_BIAS": bias is not None, "SOFTPLUS": softplus, "KEEP": keep}
    _forward_kernel[grid](u, delta, A, B, C, D, bias, y, last, states, *numbers, **flags, **fixed)
    return torch.empty_like(like).copy_(y), last, states


def backward(
    dy: Tensor, dlast: Tensor | None, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor,
    D: Tensor | None, bias: Tensor | None, softplus: bool, states: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Same contract as `torch_backend.backward`."""
    _check_device(u)
    alike = [torch.empty_like(u), torch.empty_like(delta)]
    dy, u, delta, A, B, C = (x.contiguous() for x in (dy, u, delta, A, B, C))
    dlast = None if dlast is None else dlast.contiguous()
    grid, numbers, fixed = _sizes(u, A, B)
    du, ddelta = torch.empty_like(u), torch.empty_like(delta)
    batch, channels, length = u.shape
    dA, dD = u.new_empty(batch, *A.shape), u.new_empty(batch, channels)
    dbias = torch.empty_like(dD)
    dB = u.new_empty(batch, grid[1], grid[0], A.shape[1], length)
    dC = torch.empty_like(dB)
    given = {"HAS_LAST": dlast is not None, "HAS_D": D is not None, "HAS_BIAS": bias is not None}
    tensors = (dy, dlast, u, delta, A, B, C, D, bias, states, du, ddelta, dA, dB, dC, dD, dbias)
    _backward_kernel[grid](*tensors, *numbers, **given, SOFTPLUS=softplus, **fixed)
    du, ddelta = alike[0].copy_(du), alike[1].copy_(ddelta)
    return du, ddelta, dA.sum(0), dB.sum(2), dC.sum(2), dD.sum(0), dbias.sum(0)

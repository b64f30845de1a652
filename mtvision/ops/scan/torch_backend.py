"""The selective scan in plain PyTorch calls: any device, bounded memory.

The sequence is cut into chunks. Within a chunk everything but the recurrence is one call over all its steps;
the recurrence is one fused multiply-add per step. Only the states between chunks are kept; the backward pass
replays a chunk from its first state. Decays are only multiplied, never divided or summed as logarithms, so
nothing overflows however fast a state forgets.

Shapes: T steps of a chunk, B batch, G groups, P channels per group, N states; channels = G * P. Channels come
last, so that a broadcast multiplication runs over a long row of memory and not over the few states.
"""

# ruff: noqa: N806  gradients and tensors keep the names of the paper: A, dB, u_T
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mtvision.ops.scan.constants import CHUNK

_MAX_STATE = 1 << 18  # numbers of the state advanced at once; a chunk needs four tensors CHUNK times as large


@dataclass(frozen=True)
class _Chunk:
    """Steps [start, stop), step first, channels split into groups."""

    raw: Tensor  # (T, B, G, P): delta plus bias
    step: Tensor  # (T, B, G, P)
    u: Tensor  # (T, B, G, P)
    B: Tensor  # (T, B, G, N, 1)
    C: Tensor  # (T, B, G, N, 1)
    decay: Tensor  # (T, B, G, N, P)
    state: Tensor  # (T, B, G, N, P): after each step


def _replay(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, bias: Tensor | None, softplus: bool, h: Tensor
) -> _Chunk:
    """Run one chunk (u, delta (B, channels, T); B, C (B, G, N, T)) from the state `h` (B, G, N, P).

    A is (G, N, P).
    """
    groups = B.shape[1]
    raw = delta if bias is None else delta + bias[:, None]
    raw_T, u_T = (_step_first(x, groups) for x in (raw, u))
    step = F.softplus(raw_T) if softplus else raw_T
    B_T, C_T = (x.permute(3, 0, 1, 2).contiguous().unsqueeze(4) for x in (B, C))
    decay = (step.unsqueeze(3) * A).exp_()
    state = (step * u_T).unsqueeze(3) * B_T
    for decay_t, state_t in zip(decay, state, strict=True):
        h = torch.addcmul(state_t, decay_t, h, out=state_t)
    return _Chunk(raw_T, step, u_T, B_T, C_T, decay, state)


def _step_first(x: Tensor, groups: int) -> Tensor:
    """(B, channels, T) as contiguous (T, B, G, P)."""
    return torch.unflatten(x.permute(2, 0, 1).contiguous(), 2, (groups, -1))


def _weigh(x: Tensor, weights: Tensor) -> Tensor:
    """Sum over states: x (T, B, G, N, P), weights (T, B, G, N, 1) to (T, B, G, P). `matmul` would copy x."""
    return torch.bmm(weights.flatten(0, 2).mT, x.flatten(0, 2)).view(*x.shape[:3], -1)


def _gather(weights: Tensor, x: Tensor) -> Tensor:
    """Sum over channels: weights (T, B, G, P), x (T, B, G, N, P) to (B, G, N, T)."""
    sums = torch.bmm(x.flatten(0, 2), weights.flatten(0, 2).unsqueeze(2))
    return sums.view(*x.shape[:3], -1).permute(1, 2, 3, 0)


def _grouped(x: Tensor, groups: int) -> Tensor:
    """(..., channels, N) as contiguous (..., G, N, P)."""
    return torch.unflatten(x, -2, (groups, -1)).transpose(-1, -2).contiguous()


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread for PyTorch's calls on the CPU; the calling thread's own number is restored.

    A scan is thousands of short calls. If a call is split over threads, it waits for the slowest thread. With
    another process on a core, the whole scan was three to ten times slower than on one thread.
    """
    before = torch.get_num_threads()
    if before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _batch_step(A: Tensor) -> int:
    return max(1, _MAX_STATE // max(1, A.numel()))


@_one_thread()
def forward(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    bias: Tensor | None,
    softplus: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Output (B, channels, L), last state (B, channels, N), states (B, chunks, N, channels) if `keep`."""
    batch, channels, length = u.shape
    groups, chunks = B.shape[1], -(-length // CHUNK)
    y = torch.empty_like(u)
    last = u.new_zeros(batch, *A.shape)
    states = u.new_empty(batch, chunks if keep else 0, A.shape[1], channels)
    A_G = _grouped(A, groups)
    size = _batch_step(A)
    for first in range(0, batch, size):
        some = slice(first, first + size)
        h = _grouped(last[some], groups)
        for m in range(chunks):
            at = slice(m * CHUNK, (m + 1) * CHUNK)
            if keep:
                states[some, m] = h.transpose(1, 2).flatten(2)
            parts = (u[some, :, at], delta[some, :, at], A_G, B[some, ..., at], C[some, ..., at])
            chunk = _replay(*parts, bias, softplus, h)
            h = chunk.state[-1].clone()
            y[some, :, at] = _weigh(chunk.state, chunk.C).flatten(2).permute(1, 2, 0)
        last[some] = h.transpose(2, 3).flatten(1, 2)
    if D is not None:
        y.addcmul_(u, D[:, None])
    return y, last, states


@_one_thread()
def backward(
    dy: Tensor,
    dlast: Tensor | None,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    bias: Tensor | None,
    softplus: bool,
    states: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of u, delta, A, B, C, D and bias, from the stored states."""
    batch, _, length = u.shape
    groups = B.shape[1]
    du, ddelta, dB, dC = (torch.zeros_like(x) for x in (u, delta, B, C))
    A_G = _grouped(A, groups)
    dA_G = torch.zeros_like(A_G)
    size = _batch_step(A)
    for first in range(0, batch, size):
        some = slice(first, first + size)
        carry = torch.zeros_like(states[some, 0]).transpose(1, 2) if dlast is None else dlast[some]
        carry = _grouped(carry, groups)
        for m in reversed(range(-(-length // CHUNK))):
            at = slice(m * CHUNK, (m + 1) * CHUNK)
            h = torch.unflatten(states[some, m], 2, (groups, -1)).transpose(1, 2)
            parts = (u[some, :, at], delta[some, :, at], A_G, B[some, ..., at], C[some, ..., at])
            chunk = _replay(*parts, bias, softplus, h)
            dy_T = _step_first(dy[some, :, at], groups)
            grad = dy_T.unsqueeze(3) * chunk.C  # of the loss by each state; filled from the end
            grad[-1] += carry
            for t in range(len(grad) - 2, -1, -1):
                grad[t].addcmul_(chunk.decay[t + 1], grad[t + 1])
            passed = chunk.decay.mul_(grad)
            carry = passed[0].clone()
            dC[some, ..., at] = _gather(dy_T, chunk.state)
            dB[some, ..., at] = _gather(chunk.step * chunk.u, grad)
            read = _weigh(grad, chunk.B)
            passed[1:] *= chunk.state[:-1]
            passed[0] *= h
            dstep = torch.addcmul((passed * A_G).sum(3), chunk.u, read)
            dA_G += passed.mul_(chunk.step.unsqueeze(3)).sum((0, 1))
            if softplus:
                dstep *= torch.where(chunk.raw > 20, 1.0, torch.sigmoid(chunk.raw))
            du[some, :, at] = (chunk.step * read).flatten(2).permute(1, 2, 0)
            ddelta[some, :, at] = dstep.flatten(2).permute(1, 2, 0)
    if D is not None:
        du.addcmul_(dy, D[:, None])
    dA = dA_G.transpose(1, 2).reshape(A.shape)
    return du, ddelta, dA, dB, dC, (dy * u).sum((0, 2)), ddelta.sum((0, 2))

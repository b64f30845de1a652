"""The selective scan in plain PyTorch calls: any device, bounded memory.

The sequence is cut into chunks. Within a chunk everything but the recurrence is one call over all its steps;
the recurrence is one fused multiply-add per step. Only the states between chunks are kept; the backward pass
replays a chunk from its first state. Decays are only multiplied, never divided or summed as logarithms, so
nothing overflows however fast a state forgets.

Shapes: T steps of a chunk, B batch, G groups, P channels per group, N states; channels = G * P.
"""

# ruff: noqa: N806  gradients and tensors keep the names of the paper: A, dB, u_T
from __future__ import annotations

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
    B: Tensor  # (T, B, G, 1, N)
    C: Tensor  # (T, B, G, 1, N)
    decay: Tensor  # (T, B, G, P, N)
    state: Tensor  # (T, B, G, P, N): after each step


def _replay(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, bias: Tensor | None, softplus: bool, h: Tensor
) -> _Chunk:
    """Run one chunk (u, delta (B, channels, T); B, C (B, G, N, T)) from the state `h` (B, G, P, N)."""
    groups = B.shape[1]
    raw = delta if bias is None else delta + bias[:, None]
    raw_T, u_T = (_step_first(x, groups) for x in (raw, u))
    step = F.softplus(raw_T) if softplus else raw_T
    B_T, C_T = (x.permute(3, 0, 1, 2).contiguous().unsqueeze(3) for x in (B, C))
    decay = (step.unsqueeze(-1) * torch.unflatten(A, 0, (groups, -1))).exp_()
    state = (step * u_T).unsqueeze(-1) * B_T
    for decay_t, state_t in zip(decay, state, strict=True):
        h = torch.addcmul(state_t, decay_t, h, out=state_t)
    return _Chunk(raw_T, step, u_T, B_T, C_T, decay, state)


def _step_first(x: Tensor, groups: int) -> Tensor:
    """(B, channels, T) as contiguous (T, B, G, P)."""
    return torch.unflatten(x.permute(2, 0, 1).contiguous(), 2, (groups, -1))


def _weigh(x: Tensor, weights: Tensor) -> Tensor:
    """Sum over states: x (T, B, G, P, N), weights (T, B, G, 1, N) to (T, B, G, P). `matmul` would copy x."""
    return torch.bmm(x.flatten(0, 2), weights.flatten(0, 2).mT).view(x.shape[:-1])


def _gather(weights: Tensor, x: Tensor) -> Tensor:
    """Sum over channels: weights (T, B, G, P), x (T, B, G, P, N) to (B, G, N, T)."""
    sums = torch.bmm(weights.flatten(0, 2).unsqueeze(1), x.flatten(0, 2))
    return sums.view(*x.shape[:3], -1).permute(1, 2, 3, 0)


def _batch_step(A: Tensor) -> int:
    return max(1, _MAX_STATE // max(1, A.numel()))


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
    size = _batch_step(A)
    for first in range(0, batch, size):
        some = slice(first, first + size)
        h = torch.unflatten(last[some], 1, (groups, -1))
        for m in range(chunks):
            at = slice(m * CHUNK, (m + 1) * CHUNK)
            if keep:
                states[some, m] = h.flatten(1, 2).transpose(1, 2)
            parts = (u[some, :, at], delta[some, :, at], A, B[some, ..., at], C[some, ..., at])
            chunk = _replay(*parts, bias, softplus, h)
            h = chunk.state[-1].clone()
            y[some, :, at] = _weigh(chunk.state, chunk.C).flatten(2).permute(1, 2, 0)
        last[some] = h.flatten(1, 2)
    if D is not None:
        y.addcmul_(u, D[:, None])
    return y, last, states


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
    dA, A_G = torch.zeros_like(A), torch.unflatten(A, 0, (groups, -1))
    size = _batch_step(A)
    for first in range(0, batch, size):
        some = slice(first, first + size)
        carry = torch.zeros_like(states[some, 0]).transpose(1, 2) if dlast is None else dlast[some]
        carry = torch.unflatten(carry, 1, (groups, -1))
        for m in reversed(range(-(-length // CHUNK))):
            at = slice(m * CHUNK, (m + 1) * CHUNK)
            h = torch.unflatten(states[some, m].transpose(1, 2), 1, (groups, -1))
            parts = (u[some, :, at], delta[some, :, at], A, B[some, ..., at], C[some, ..., at])
            chunk = _replay(*parts, bias, softplus, h)
            dy_T = _step_first(dy[some, :, at], groups)
            grad = dy_T.unsqueeze(-1) * chunk.C  # of the loss by each state; filled from the end
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
            dstep = torch.addcmul((passed * A_G).sum(-1), chunk.u, read)
            dA += passed.mul_(chunk.step.unsqueeze(-1)).sum((0, 1)).flatten(0, 1)
            if softplus:
                dstep *= torch.where(chunk.raw > 20, 1.0, torch.sigmoid(chunk.raw))
            du[some, :, at] = (chunk.step * read).flatten(2).permute(1, 2, 0)
            ddelta[some, :, at] = dstep.flatten(2).permute(1, 2, 0)
    if D is not None:
        du.addcmul_(dy, D[:, None])
    return du, ddelta, dA, dB, dC, (dy * u).sum((0, 2)), ddelta.sum((0, 2))

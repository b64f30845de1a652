"""The selective scan written out, as an oracle to test against and a baseline to measure against.

Source: Gu and Dao, "Mamba", 2023, arXiv 2312.00752, eq. 2, with the input discretised by Euler's rule as in
the authors' kernels. For each batch entry, channel d of group g and state n:

    h_t = exp(delta_t A_dn) h_{t-1} + delta_t B_gnt u_t        y_t = sum_n C_gnt h_tn + D_d u_t

Shapes: B batch, L steps, D channels, G groups, N states; H, W a map, K = 4 directions, E channels of the map.
"""

# ruff: noqa: N806  gradients and tensors keep the names of the paper: A, dB, u_T
from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
) -> tuple[Tensor, Tensor]:
    """Output (B, D, L) and last state (B, D, N), step by step; autograd differentiates it, twice if asked.

    Both (B, D, L, N) tensors are materialised and split into steps once, as the algorithm is usually written
    down. Indexing inside the loop would make autograd quadratic in L.

    Args:
        u: (B, D, L).
        delta: (B, D, L), before bias and softplus.
        A: (D, N).
        B: (B, G, N, L).
        C: (B, G, N, L).
        D: (D,) or None.
        delta_bias: (D,) or None.
        delta_softplus: apply softplus to delta + bias.
    """
    if delta_bias is not None:
        delta = delta + delta_bias[:, None]
    if delta_softplus:
        delta = F.softplus(delta)
    repeats = u.shape[1] // B.shape[1]
    B, C = B.repeat_interleave(repeats, dim=1), C.repeat_interleave(repeats, dim=1)
    decay = torch.exp(torch.einsum("bdl,dn->bdln", delta, A))
    drive = torch.einsum("bdl,bdnl,bdl->bdln", delta, B, u)
    h = u.new_zeros(u.shape[0], *A.shape)
    outputs = []
    for decay_t, drive_t, C_t in zip(decay.unbind(2), drive.unbind(2), C.unbind(3), strict=True):
        h = decay_t * h + drive_t
        outputs.append((h * C_t).sum(-1))
    y = torch.stack(outputs, dim=-1)
    return (y if D is None else y + D[:, None] * u), h


def cross_scan(x: Tensor) -> Tensor:
    """The four sequences (B, 4, E, H*W) of a map (B, E, H, W): by rows, by columns, and both backwards."""
    by_rows = x.flatten(2)
    by_columns = x.transpose(2, 3).flatten(2)
    forwards = torch.stack([by_rows, by_columns], dim=1)
    return torch.cat([forwards, forwards.flip(-1)], dim=1)


def cross_merge(y: Tensor, height: int, width: int) -> Tensor:
    """Sum (B, E, H, W) of four sequences (B, 4, E, H*W), each put back in place: `merge(scan(x)) == 4 x`."""
    both = y[:, :2] + y[:, 2:].flip(-1)
    by_rows = torch.unflatten(both[:, 0], -1, (height, width))
    return by_rows + torch.unflatten(both[:, 1], -1, (width, height)).transpose(2, 3)


def sequences(x: Tensor) -> Tensor:
    """Per-direction values (B, H, W, 4, E) of a map as four sequences (B, 4, E, H*W), each in its order."""
    by_rows = x.permute(0, 3, 4, 1, 2).flatten(3)
    by_columns = x.permute(0, 3, 4, 2, 1).flatten(3)
    return torch.stack(
        [by_rows[:, 0], by_columns[:, 1], by_rows[:, 2].flip(-1), by_columns[:, 3].flip(-1)], dim=1
    )


def maps(x: Tensor, height: int, width: int) -> Tensor:
    """Inverse of `sequences`."""
    size, turned = (height, width), (width, height)
    directions = [
        torch.unflatten(x[:, 0], -1, size),
        torch.unflatten(x[:, 1], -1, turned).transpose(2, 3),
        torch.unflatten(x[:, 2].flip(-1), -1, size),
        torch.unflatten(x[:, 3].flip(-1), -1, turned).transpose(2, 3),
    ]
    return torch.stack(directions, dim=1).permute(0, 3, 4, 1, 2)

"""Selective scans and the layers around them, token by token. Maps have channels last, (B, H, W, C)."""

from __future__ import annotations

import torch
from plain import layer_norm, linear
from torch.nn import functional as F


def recurrence(x, step, A, B, C, D):
    """State-space recurrence: x, step (batch, E, L); A (E, N); B, C (batch, N, L); D (E)."""
    h, rows = 0, []
    for t in range(x.shape[-1]):
        drive = step[..., t, None] * B[:, None, :, t] * x[..., t, None]
        h = torch.exp(step[..., t, None] * A) * h + drive
        rows.append((h * C[:, None, :, t]).sum(-1) + D * x[..., t])
    return torch.stack(rows, -1)


def softplus(x):
    return torch.log1p(torch.exp(x))


def four_scans(u, source, w, name):
    """Sum of scans along rows, columns and both reversed; u, source (B, E, H, W). Lists, not flips."""
    _, E, H, W = u.shape
    rows = [r * W + c for r in range(H) for c in range(W)]
    columns = [r * W + c for c in range(W) for r in range(H)]
    A, D = -torch.exp(w[f"{name}.A_logs"]), w[f"{name}.Ds"]
    N, R = A.shape[1], w[f"{name}.dt_projs_weight"].shape[2]
    total = 0
    for k, order in enumerate((rows, columns, rows[::-1], columns[::-1])):
        x, s = u.flatten(2)[..., order], source.flatten(2)[..., order]
        small = torch.einsum("rc,bcl->brl", w[f"{name}.x_proj_weight"][k], s)
        step = torch.einsum("er,brl->bel", w[f"{name}.dt_projs_weight"][k], small[:, :R])
        step = softplus(step + w[f"{name}.dt_projs_bias"][k][:, None])
        part = slice(k * E, (k + 1) * E)
        y = recurrence(x, step, A[part], small[:, R : R + N], small[:, R + N :], D[part])
        total = total + y[..., [order.index(place) for place in range(H * W)]]
    return total.reshape(u.shape)


def ss2d(x, w, name, context=None):
    """SS2D of VMamba and MTMamba; gate and output projection where their weights are.

    Steps, B and C come from the scanned map, or from `context`.
    """
    E = w[f"{name}.out_norm.weight"].shape[0]
    projected = linear(x, w, f"{name}.in_proj")
    u = projected[..., :E].permute(0, 3, 1, 2)
    u = F.silu(F.conv2d(u, w[f"{name}.conv2d.weight"], w.get(f"{name}.conv2d.bias"), padding=1, groups=E))
    source = u if context is None else linear(context, w, f"{name}.in_proj_cross").permute(0, 3, 1, 2)
    y = layer_norm(four_scans(u, source, w, name).permute(0, 2, 3, 1), w, f"{name}.out_norm")
    if projected.shape[-1] > E:
        y = y * F.silu(projected[..., E:])
    return linear(y, w, f"{name}.out_proj") if f"{name}.out_proj.weight" in w else y

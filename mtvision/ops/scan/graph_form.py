"""The scans in PyTorch's own operators, for exported programs that run without this package.

One `scan` over the sequence holds the recurrence. Tracing takes long where shapes are symbols, about 0.03 s
for each view. So everything that a step reads is joined into one tensor, which is reordered once.

Shapes: L steps, B batch, G groups, P channels of a group, N states; H, W a map, E its channels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

Optional = Tensor | None


def scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Optional, bias: Optional,
         softplus: bool) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Output (B, channels, L) and last state (B, channels, N) of sequences; B and C are (B, G, N, L)."""
    groups = B.shape[1]
    step = _step(delta.movedim(2, 0), bias, softplus)
    parts = [torch.unflatten(x, 2, (groups, -1)) for x in (step, step * u.movedim(2, 0))]
    items = torch.cat([*parts, B.movedim(3, 0), C.movedim(3, 0)], dim=-1)
    y, last = _advance(items, torch.unflatten(A, 0, (groups, -1)))
    y = y.flatten(2).movedim(0, 2)
    return y if D is None else y + D[:, None] * u, last.flatten(1, 2)


def scan_2d(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Optional, bias: Optional,
            softplus: bool) -> Tensor:  # fmt: skip
    """Sum (B, H, W, E) of the four scans of a map; arguments as in `selective_scan_2d`."""
    height, width, channels = u.shape[1:]
    direction = torch.arange(4, device=u.device)[:, None]
    by_columns, backwards = direction % 2 == 1, direction >= 2
    step = _step(delta, None if bias is None else bias.view(4, channels), softplus)
    items = torch.cat([step, step * u.unsqueeze(3), B, C], dim=-1)
    rows = items.permute(1, 2, 0, 3, 4).flatten(0, 1)  # (L, B, 4, 2E + 2N)
    columns = items.permute(2, 1, 0, 3, 4).flatten(0, 1)
    walks = torch.where(by_columns, columns, rows)
    walks = torch.where(backwards, walks.flip(0), walks)
    y, _ = _advance(walks, A.view(4, channels, -1))
    y = torch.where(backwards, y.flip(0), y)
    rows = torch.unflatten(y, 0, (height, width))
    columns = torch.unflatten(y, 0, (width, height)).transpose(0, 1)
    y = torch.where(by_columns, columns, rows).sum(3).permute(2, 0, 1, 3).contiguous()
    return y if D is None else y + D.view(4, channels).sum(0) * u


def _step(delta: Tensor, bias: Optional, softplus: bool) -> Tensor:
    raw = delta if bias is None else delta + bias
    return F.softplus(raw) if softplus else raw


def _advance(items: Tensor, rates: Tensor) -> tuple[Tensor, Tensor]:
    """Output (L, B, G, P) and last state (B, G, P, N).

    Args:
        items: (L, B, G, 2P + 2N): step sizes, step sizes times input, B and C.
        rates: (G, P, N).
    """
    # The operator itself: `scan` in front of it would compile the function below for every call.
    from torch._higher_order_ops.scan import scan_op

    groups, channels, states = rates.shape

    def advance(state: Tensor, item: Tensor, rates: Tensor) -> list[Tensor]:
        step, drive, B, C = torch.split(item, [channels, channels, states, states], dim=-1)
        state = torch.exp(step.unsqueeze(-1) * rates) * state + drive.unsqueeze(-1) * B.unsqueeze(-2)
        return [state, (state * C.unsqueeze(-2)).sum(-1)]

    start = items.new_zeros(items.shape[1], groups, channels, states)
    last, y = scan_op(advance, [start], [items], (rates,))
    return y, last

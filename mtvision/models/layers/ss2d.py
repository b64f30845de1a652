"""SS2D, the four-direction selective-scan layer of VMamba (Liu et al., NeurIPS 2024, arXiv 2401.10166).

Parameter names are those of the official code, so that one module serves MTMamba, MTMamba++ and VMamba.

Shapes: B batch, H, W a map, C channels, E inner channels, N states, R rank of the step size, 4 directions.
Channels come last everywhere.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from timm.layers.drop import DropPath
from torch import Tensor, nn
from torch.nn import functional as F

from mtvision.models.declarations import Channels, Declaration, Declares
from mtvision.ops import selective_scan_2d

NORM_EPS = 1e-5


class SS2D(nn.Module, Declares):
    """Depthwise convolution, four selective scans, normalisation, and optionally a gate and a projection.

    Step sizes, B and C are linear functions of the scanned map itself or of another map, the context (CSS2D
    of MTMamba++). They are computed in the map's own order; the scan walks the map.

    Args:
        channels: C of the input.
        inner: E.
        out_channels: of the output; None = no projection, the output has E channels.
        states: N.
        rank: R; by default `channels` / 16, rounded up.
        gate: multiply by SiLU of a second half of the input projection.
        conv_bias: whether the depthwise convolution has a bias (VMamba's later blocks have none).
        context_channels: channels of the context; None = no context.
    """

    def __init__(
        self,
        channels: int,
        inner: int,
        out_channels: int | None = None,
        *,
        states: int = 16,
        rank: int | None = None,
        gate: bool = True,
        conv_bias: bool = True,
        context_channels: int | None = None,
    ) -> None:
        super().__init__()
        self.gate, self.states = gate, states
        self.rank = rank = math.ceil(channels / 16) if rank is None else rank
        self.in_proj = nn.Linear(channels, inner * (2 if gate else 1), bias=False)
        if context_channels is not None:
            self.in_proj_cross = nn.Linear(context_channels, inner, bias=False)
        self.conv2d = nn.Conv2d(inner, inner, 3, padding=1, groups=inner, bias=conv_bias)
        self.x_proj_weight = nn.Parameter(torch.empty(4, rank + 2 * states, inner))
        self.dt_projs_weight = nn.Parameter(torch.empty(4, inner, rank))
        self.dt_projs_bias = nn.Parameter(torch.empty(4, inner))
        self.A_logs = nn.Parameter(torch.empty(4 * inner, states))
        self.Ds = nn.Parameter(torch.empty(4 * inner))
        self.out_norm = nn.LayerNorm(inner, eps=NORM_EPS)
        self.out_proj = nn.Identity() if out_channels is None else nn.Linear(inner, out_channels, bias=False)
        self.reset_parameters()

    def declaration(self) -> Declaration:
        """The leading inner channels, with their own steps and rates in each of the four directions."""
        inner = Channels(self.dt_projs_bias.shape[1])
        return Declaration(
            tensors={
                "x_proj_weight": {2: inner},
                "dt_projs_weight": {1: inner},
                "dt_projs_bias": {1: inner},
                "A_logs": {0: (inner,) * 4},
                "Ds": {0: (inner,) * 4},
            },
            writes={"in_proj": (inner,) * (2 if self.gate else 1)},
        )

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Official start: steps log-uniform in 0.001..0.1, decay rates 1..N, a skip of one."""
        bound = self.x_proj_weight.shape[-1] ** -0.5  # that of nn.Linear
        self.x_proj_weight.uniform_(-bound, bound)
        self.dt_projs_weight.uniform_(-(self.rank**-0.5), self.rank**-0.5)
        low, high = math.log(1e-3), math.log(1e-1)
        step = torch.exp(torch.rand_like(self.dt_projs_bias) * (high - low) + low).clamp(min=1e-4)
        self.dt_projs_bias.copy_(step + torch.log(-torch.expm1(-step)))  # inverse of softplus
        self.A_logs.copy_(torch.log(torch.arange(1.0, self.states + 1)).expand_as(self.A_logs))
        self.Ds.fill_(1.0)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Map (B, H, W, C), and a context of that size where one is read, to (B, H, W, out_channels)."""
        u = self.in_proj(x)
        z = None
        if self.gate:
            u, z = u.chunk(2, dim=-1)
        # A map with channels last in memory: the convolution keeps it so, and the scan wants it so.
        u = F.silu(self.conv2d(u.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)
        y = self.out_norm(self.scan(u, u if context is None else self.in_proj_cross(context)))
        return cast(Tensor, self.out_proj(y if z is None else y * F.silu(z)))

    def scan(self, u: Tensor, source: Tensor) -> Tensor:
        """Sum of the four scans of `u`; step sizes, B and C come from `source`; all (B, H, W, E)."""
        parts = torch.unflatten(F.linear(source, self.x_proj_weight.flatten(0, 1)), -1, (4, -1))
        step, B, C = torch.split(parts, [self.rank, self.states, self.states], dim=-1)
        step = torch.einsum("bhwkr,ker->bhwke", step, self.dt_projs_weight)
        A = decay_rates(self.A_logs)
        return selective_scan_2d(u, step, A, B, C, self.Ds, self.dt_projs_bias.flatten(), True)


def decay_rates(logs: Tensor) -> Tensor:
    """`-exp(logs)` in fp32 at least: rates must stay negative and exact in half precision too."""
    return -torch.exp(logs.to(torch.promote_types(logs.dtype, torch.float32)))


class VSSBlock(nn.Module):
    """`x + SS2D(LN(x))`, with `mlp_ratio` also `x + MLP(LN(x))`: MTMamba's STM block and VMamba's block.

    Args:
        channels: C.
        expansion: E / C.
        states: N.
        drop_path: probability of dropping each branch, per sample.
        mlp_ratio: hidden channels of the MLP over C; 0 = no MLP.
        gate: as in `SS2D`.
        conv_bias: as in `SS2D`.
    """

    def __init__(
        self,
        channels: int,
        *,
        expansion: float = 2.0,
        states: int = 16,
        drop_path: float = 0.0,
        mlp_ratio: float = 0.0,
        gate: bool = True,
        conv_bias: bool = True,
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=NORM_EPS)
        self.op = SS2D(
            channels, int(expansion * channels), channels, states=states, gate=gate, conv_bias=conv_bias
        )
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()
        self.has_mlp = mlp_ratio > 0
        if self.has_mlp:
            self.norm2 = nn.LayerNorm(channels, eps=NORM_EPS)
            self.mlp = Mlp(channels, int(mlp_ratio * channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) to the same shape."""
        x = x + self.drop_path(self.op(self.norm(x)))
        if self.has_mlp:
            x = x + self.drop_path(self.mlp(self.norm2(x)))
        return x


class Mlp(nn.Module):
    """Linear, GELU, linear.

    Args:
        channels: read and written.
        hidden: in between.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(channels, hidden), nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) to the same shape."""
        return cast(Tensor, self.fc2(F.gelu(self.fc1(x))))

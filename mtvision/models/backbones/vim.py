"""Vision Mamba (Zhu et al., ICML 2024, arXiv 2401.09417): a plain backbone that scans tokens both ways.

Parameter names are those of the official code. Shapes: B batch, L tokens, C channels, E inner channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from timm.layers.drop import DropPath
from torch import Tensor, nn
from torch.nn import functional as F

from mtvision.core.naming import look_up
from mtvision.core.pyramid import ceil_div, size_of
from mtvision.core.registry import BACKBONES
from mtvision.core.values import Positive, Share
from mtvision.models.backbones.backbone import Backbone
from mtvision.models.convert.files import load_into
from mtvision.models.layers.ss2d import decay_rates
from mtvision.ops import selective_scan

WIDTHS = {"tiny": 192, "small": 384, "base": 768}
"""Channels of the published sizes; all have 24 blocks."""


@BACKBONES.register_module()
class VimBackbone(Backbone):
    """Vim: patches of 16, a class token in the middle of the sequence, four levels of stride 16.

    The position embedding is resampled to the image's grid; images are padded to whole patches. The last
    level passes the final norm; the class token is dropped from the maps.

    Args:
        variant: a key of `WIDTHS`.
        pretrained: path of an official checkpoint (`.pth`) or of one that `convert_checkpoint` made.
        img_size: side or (H, W) that the position embedding is stored for.
        depth: number of blocks.
        width: other number of channels.
        levels: blocks after which a level is read; by default four at equal distances.
        drop_path_rate: stochastic depth, rising linearly over the blocks.
        grad_checkpointing: recompute blocks in the backward pass.

    Raises:
        UnknownNameError: no such variant.
        FileNotFoundError: no such checkpoint.
        ValueError: the checkpoint belongs to another architecture.
    """

    size_multiple = 16

    def __init__(
        self,
        variant: str = "tiny",
        *,
        pretrained: str | Path | None = None,
        img_size: int | Sequence[int] = 224,
        depth: Positive = 24,
        width: Positive | None = None,
        levels: Sequence[int] | None = None,
        drop_path_rate: Share = 0.1,
        grad_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        channels = width or look_up("Vim variant", variant, WIDTHS)
        height, breadth = (img_size, img_size) if isinstance(img_size, int) else img_size
        self.grid = (height // 16, breadth // 16)
        self.grad_checkpointing = grad_checkpointing
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, channels, 16, stride=16)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, channels))
        self.pos_embed = nn.Parameter(torch.zeros(1, math.prod(self.grid) + 1, channels))
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        rates = torch.linspace(0, drop_path_rate, depth, device="cpu").tolist()
        self.layers = nn.ModuleList(VimBlock(channels, rate, depth) for rate in rates)
        self.norm_f = nn.RMSNorm(channels, eps=1e-5)
        taken = [(index + 1) * depth // 4 - 1 for index in range(4)] if levels is None else list(levels)
        self.exits = tuple(level + 1 for level in taken)
        self.measure()
        if pretrained is not None:
            load_into(self, Path(pretrained), "vim")

    def stem(self, image: Tensor) -> Tensor:
        """Tokens (B, h*w + 1, C), the class token in the middle."""
        patches = cast(Tensor, self.patch_embed.proj(self.pad(image)))  # type: ignore[operator]
        tokens = patches.flatten(2).transpose(1, 2)
        middle = tokens.shape[1] // 2
        token = self.cls_token.expand(tokens.shape[0], -1, -1)
        tokens = torch.cat([tokens[:, :middle], token, tokens[:, middle:]], dim=1)
        return tokens + self._positions(size_of(patches))

    def block_names(self) -> list[str]:
        """One unit per block."""
        return [f"layers.{name}" for name, _ in self.layers.named_children()]

    def to_map(self, state: Tensor, level: int, size: tuple[int, int]) -> Tensor:
        """Map without the class token."""
        if level == len(self.exits) - 1:
            state = self.norm_f(state)
        middle = (state.shape[1] - 1) // 2
        patches = torch.cat([state[:, :middle], state[:, middle + 1 :]], dim=1)
        height, width = (ceil_div(side, 16) for side in size)
        return patches.transpose(1, 2).reshape(state.shape[0], -1, height, width)

    def state_shape(self, state: Tensor, size: tuple[int, int]) -> tuple[int, int]:
        """(channels, stride) of a state."""
        return int(state.shape[2]), 16

    def _positions(self, grid: tuple[int, int]) -> Tensor:
        if grid == self.grid:
            return self.pos_embed
        middle = math.prod(self.grid) // 2
        own, token = self.pos_embed, self.pos_embed[:, middle : middle + 1]
        patches = torch.cat([own[:, :middle], own[:, middle + 1 :]], dim=1).transpose(1, 2)
        patches = patches.reshape(1, -1, *self.grid)
        patches = F.interpolate(patches, size=grid, mode="bicubic", align_corners=False)
        patches = patches.flatten(2).transpose(1, 2)
        half = math.prod(grid) // 2
        return torch.cat([patches[:, :half], token, patches[:, half:]], dim=1)


class VimBlock(nn.Module):
    """`x + Mixer(RMSNorm(x))`.

    Args:
        channels: C.
        drop_path: probability of skipping the block, per sample.
        depth: blocks of the network; residual outputs start smaller by its root.
    """

    def __init__(self, channels: int, drop_path: float, depth: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(channels, eps=1e-5)
        self.mixer = BiMamba(channels)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()
        with torch.no_grad():
            self.mixer.out_proj.weight /= math.sqrt(depth)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, L, C) to the same shape."""
        return x + cast(Tensor, self.drop_path(self.mixer(self.norm(x))))


class BiMamba(nn.Module):
    """Two Mamba branches between shared projections, one on the reversed sequence; their mean is projected.

    Args:
        channels: C.
        states: N.
    """

    A_log: Tensor
    A_b_log: Tensor

    def __init__(self, channels: int, states: int = 16) -> None:
        super().__init__()
        inner, self.rank, self.states = 2 * channels, math.ceil(channels / 16), states
        self.in_proj = nn.Linear(channels, 2 * inner, bias=False)
        self.out_proj = nn.Linear(inner, channels, bias=False)
        for ending, name in (("", "A_log"), ("_b", "A_b_log")):
            conv = nn.Conv1d(inner, inner, 4, padding=3, groups=inner)
            step = nn.Linear(self.rank, inner)
            _start_steps(step)
            self.add_module(f"conv1d{ending}", conv)
            self.add_module(f"x_proj{ending}", nn.Linear(inner, self.rank + 2 * states, bias=False))
            self.add_module(f"dt_proj{ending}", step)
            rates = torch.log(torch.arange(1.0, states + 1)).repeat(inner, 1)
            self.register_parameter(name, nn.Parameter(rates))
            self.register_parameter(f"D{ending}", nn.Parameter(torch.ones(inner)))

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, L, C) to the same shape."""
        u, z = self.in_proj(x).transpose(1, 2).chunk(2, dim=1)
        forwards = self._branch(u, z, "", self.A_log)
        backwards = self._branch(u.flip(2), z.flip(2), "_b", self.A_b_log)
        return cast(Tensor, self.out_proj((forwards + backwards.flip(2)).transpose(1, 2) / 2))

    def _branch(self, u: Tensor, z: Tensor, ending: str, A_log: Tensor) -> Tensor:  # noqa: N803
        """One direction; u, z and the result (B, E, L)."""
        conv, project = self.get_submodule(f"conv1d{ending}"), self.get_submodule(f"x_proj{ending}")
        dt = cast(nn.Linear, self.get_submodule(f"dt_proj{ending}"))
        u = F.silu(conv(u)[..., : u.shape[2]])  # causal: what the padding adds at the end is cut off
        step, B, C = project(u.transpose(1, 2)).split([self.rank, self.states, self.states], -1)
        delta = F.linear(step, dt.weight).transpose(1, 2)
        A, D = decay_rates(A_log), getattr(self, f"D{ending}")
        B, C = B.transpose(1, 2), C.transpose(1, 2)
        return cast(Tensor, selective_scan(u, delta, A, B, C, D, z, dt.bias, True))


@torch.no_grad()
def _start_steps(layer: nn.Linear) -> None:
    """Steps log-uniform in 0.001..0.1, as in Mamba."""
    bound = layer.in_features**-0.5
    layer.weight.uniform_(-bound, bound)
    low, high = math.log(1e-3), math.log(1e-1)
    step = torch.exp(torch.rand_like(layer.bias) * (high - low) + low).clamp(min=1e-4)
    layer.bias.copy_(step + torch.log(-torch.expm1(-step)))

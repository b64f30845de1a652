"""Blocks of MLoRE: low-rank experts chosen per image, in training form and folded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtvision.models.declarations import FIXED, SHARED, Channels, Declaration, Declares
from mtvision.models.layers.gate import MapGate


@dataclass(frozen=True)
class ExpertOptions:
    """Options shared by all blocks of a decoder; see `MLoREDecoder`."""

    width: int
    ranks: tuple[int, ...]
    task_rank: int
    top_k: int
    drop: Literal["before", "after"]
    grid: tuple[int, int] | None

    def __post_init__(self) -> None:
        if not 1 <= self.top_k <= len(self.ranks):
            raise ValueError(
                f"MLoRE: top_k={self.top_k} of {len(self.ranks)} experts; give 1 to {len(self.ranks)}."
            )
        if self.drop not in ("before", "after"):
            raise ValueError(f"MLoRE: drop={self.drop!r}; choose 'before' or 'after' (the softmax).")


class LowRank(nn.Module):
    """A 3x3 convolution of low rank: 3x3 down to `rank` channels, 1x1 up again."""

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(width, rank, 3, padding=1)
        self.up = nn.Conv2d(rank, width, 1)

    def forward(self, feature: Tensor) -> Tensor:
        """Map (B, width, h, w) of a map of the same shape."""
        return cast(Tensor, self.up(self.down(feature)))

    def kernel(self) -> Tensor:
        """The one kernel (width, width, 3, 3) that does the same."""
        return torch.einsum("or,rcij->ocij", self.up.weight.flatten(1), self.down.weight)

    def constant(self) -> Tensor:
        """The bias (width,) beside `kernel`."""
        return self.up.weight.flatten(1) @ cast(Tensor, self.down.bias) + cast(Tensor, self.up.bias)


class Router(nn.Module):
    """Weights of the shared experts, and of the task's own, for every image.

    In training mode noise is added to the scores before the choice; the gate also says how much.
    """

    def __init__(self, options: ExpertOptions) -> None:
        super().__init__()
        self.options = options
        self.gate = MapGate(options.width, 2 * len(options.ranks) + 1, options.grid)

    def forward(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        """(B, experts) and (B, 1) of a map (B, C, h, w)."""
        count, options = len(self.options.ranks), self.options
        scores, spread, own = self.gate(feature).split((count, count, 1), dim=1)
        if self.training:
            scores = scores + torch.randn_like(scores) * spread
        if options.drop == "before":
            return scores.masked_fill(~_largest(scores, options.top_k), -math.inf).softmax(dim=1), own
        weights = scores.softmax(dim=1)
        return weights * _largest(weights, options.top_k), own


def _largest(scores: Tensor, count: int) -> Tensor:
    return torch.zeros_like(scores, dtype=torch.bool).scatter(1, scores.topk(count, dim=1).indices, True)


class ExpertBlock(nn.Module, Declares):
    """One block in training form, for all tasks.

    Args:
        names: of the tasks.
        options: see `MLoREDecoder`.
    """

    def __init__(self, names: Sequence[str], options: ExpertOptions) -> None:
        super().__init__()
        width = options.width
        self.options = options
        self.experts = nn.ModuleList(LowRank(width, rank) for rank in options.ranks)
        self.shared = nn.Conv2d(width, width, 3, padding=1)
        self.before = nn.ModuleDict({name: nn.Conv2d(width, width, 1) for name in names})
        self.router = nn.ModuleDict({name: Router(options) for name in names})
        self.own = nn.ModuleDict({name: LowRank(width, options.task_rank) for name in names})
        self.experts_norm = nn.ModuleDict({name: nn.BatchNorm2d(width) for name in names})
        self.norm = nn.ModuleDict({name: nn.BatchNorm2d(width) for name in names})
        self.after = nn.ModuleDict({name: nn.Conv2d(width, width, 1) for name in names})
        for expert in self.low_rank_experts():
            nn.init.zeros_(cast(Tensor, expert.down.bias))
            nn.init.zeros_(cast(Tensor, expert.up.bias))
        self._routing: list[Tensor] = []

    def declaration(self) -> Declaration:
        """What all tasks share is as wide as the widest; ranks stay. Experts are used by their weights."""
        width = Channels(self.options.width, SHARED)
        experts = [f"experts.{index}" for index in range(len(self.experts))]
        rows, columns = {0: width}, {1: width}
        tensors = {f"{name}.up.{key}": rows for name in experts for key in ("weight", "bias")}
        for name in experts:
            tensors |= {f"{name}.down.weight": columns, f"{name}.down.bias": {}}
        numbers = {f"{name}.down.in_channels": width for name in experts}
        numbers |= {f"{name}.up.out_channels": width for name in experts}
        shared = [
            "shared",
            *(f"before.{name}" for name in self.before),
            *(f"own.{name}.up" for name in self.own),
        ]
        writes = {**dict.fromkeys(shared, SHARED), **{f"own.{name}.down": FIXED for name in self.own}}
        return Declaration(tensors=tensors, numbers=numbers, writes=writes, part=SHARED)

    def forward(self, feature: Tensor, name: str) -> Tensor:
        """Map (B, width, h, w) of task `name` from a map of the same shape."""
        feature = self.before[name](feature)
        weights, own = self.router[name](feature)
        if self.training and torch.is_grad_enabled():
            self._routing.append(weights)
        mixed = self.experts_norm[name](self._experts(feature, weights))
        mixed = mixed + self.own[name](feature) * own[..., None, None] + self.shared(feature.detach())
        return cast(Tensor, self.after[name](F.gelu(self.norm[name](mixed))))

    def low_rank_experts(self) -> list[LowRank]:
        """The shared experts."""
        return [cast(LowRank, item) for item in self.experts]

    def take_routing(self) -> Tensor | None:
        """Mean weight (experts,) over images and tasks since the last call; None if nothing ran."""
        if not self._routing:
            return None
        used = torch.cat(self._routing).float().mean(dim=0)
        self._routing.clear()
        return used

    def _experts(self, feature: Tensor, weights: Tensor) -> Tensor:
        """Weighted sum of all experts; side by side they are one convolution down and one up."""
        experts = self.low_rank_experts()
        ranks = [place for place, rank in enumerate(self.options.ranks) for _ in range(rank)]
        places = torch.tensor(ranks, device=feature.device)  # repeat_interleave has no ONNX form
        down = torch.cat([item.down.weight for item in experts])
        up = torch.cat([item.up.weight for item in experts], dim=1)
        inner = F.conv2d(
            feature, down, torch.cat([cast(Tensor, item.down.bias) for item in experts]), padding=1
        )
        inner = inner * weights.index_select(1, places)[..., None, None]
        biases = torch.stack([cast(Tensor, item.up.bias) for item in experts])
        return F.conv2d(inner, up) + (weights @ biases.to(weights.dtype))[..., None, None]


class FoldedBlock(nn.Module):
    """`ExpertBlock` in evaluation mode as one 3x3 convolution per image, whose kernel is a weighted sum.

    Args:
        names: of the tasks.
        options: see `MLoREDecoder`.
    """

    kernels: Tensor
    constants: Tensor
    scale: Tensor
    own_kernels: Tensor
    own_constants: Tensor
    fixed_kernels: Tensor
    fixed_constants: Tensor

    def __init__(self, names: Sequence[str], options: ExpertOptions) -> None:
        super().__init__()
        self.options, self.index = options, {name: index for index, name in enumerate(names)}
        count, width, tasks = len(options.ranks), options.width, len(names)
        self.before = nn.ModuleDict({name: nn.Conv2d(width, width, 1) for name in names})
        self.router = nn.ModuleDict({name: Router(options) for name in names})
        self.after = nn.ModuleDict({name: nn.Conv2d(width, width, 1) for name in names})
        shapes = {
            "kernels": (count, width, width, 3, 3),
            "constants": (count, width),
            "scale": (tasks, width),
            "own_kernels": (tasks, width, width, 3, 3),
            "own_constants": (tasks, width),
            "fixed_kernels": (tasks, width, width, 3, 3),
            "fixed_constants": (tasks, width),
        }
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape))

    @classmethod
    def of(cls, block: nn.Module) -> FoldedBlock:
        """The folded form of an `ExpertBlock`, sharing the modules that stay as they are."""
        source = cast(ExpertBlock, block)
        names = list(source.before)
        with torch.device("meta"):
            folded = cls(names, source.options)
        folded.before, folded.router, folded.after = source.before, source.router, source.after
        experts = source.low_rank_experts()
        folded.kernels = torch.stack([item.kernel() for item in experts])
        folded.constants = torch.stack([item.constant() for item in experts])
        parts = [_fold_task(source, name) for name in names]
        fields = ("scale", "own_kernels", "own_constants", "fixed_kernels", "fixed_constants")
        for field, values in zip(fields, zip(*parts, strict=True), strict=True):
            setattr(folded, field, torch.stack(values))
        return folded.train(source.training)

    def forward(self, feature: Tensor, name: str) -> Tensor:
        """As `ExpertBlock.forward` in evaluation mode.

        Raises:
            RuntimeError: in training mode, where norms and routers would have to be as before.
        """
        if self.training:
            raise RuntimeError(
                "MLoRE: a folded decoder only predicts. Train the unfolded one (folded=False)."
            )
        index = self.index[name]
        feature = self.before[name](feature)
        weights, own = self.router[name](feature)
        scale = self.scale[index]
        kernel = (
            torch.einsum("be,eocij->bocij", weights, self.kernels.to(weights.dtype))
            * scale[:, None, None, None]
        )
        kernel = kernel + own[..., None, None, None] * self.own_kernels[index] + self.fixed_kernels[index]
        constant = (weights @ self.constants.to(weights.dtype)) * scale + own * self.own_constants[index]
        constant = constant + self.fixed_constants[index]
        batch, channels, height, width = feature.shape
        mixed = F.conv2d(
            feature.reshape(1, batch * channels, height, width),
            kernel.flatten(0, 1).to(feature.dtype),
            constant.flatten().to(feature.dtype),
            padding=1,
            groups=batch,
        )
        return cast(Tensor, self.after[name](F.gelu(mixed.view(batch, channels, height, width))))


def _fold_task(block: ExpertBlock, name: str) -> tuple[Tensor, ...]:
    """(scale of the experts, own kernel, own constant, fixed kernel, fixed constant) of one task."""
    inner_scale, inner_shift = _affine(cast(nn.BatchNorm2d, block.experts_norm[name]))
    scale, shift = _affine(cast(nn.BatchNorm2d, block.norm[name]))
    own = cast(LowRank, block.own[name])
    fixed = scale * (inner_shift + cast(Tensor, block.shared.bias)) + shift
    column = scale[:, None, None, None]
    return (
        scale * inner_scale,
        column * own.kernel(),
        scale * own.constant(),
        column * block.shared.weight,
        fixed,
    )


def _affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Scale and shift of a batch norm in evaluation mode."""
    scale = norm.weight / torch.sqrt(cast(Tensor, norm.running_var) + norm.eps)
    return scale, norm.bias - cast(Tensor, norm.running_mean) * scale

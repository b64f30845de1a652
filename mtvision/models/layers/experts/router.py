"""Routers: which experts a token goes to, and with which weights."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mtvision.models.layers.conditioned import TaskConditioned, current_task


class Routing(NamedTuple):
    """Where N tokens go.

    Args:
        experts: (N, k), their numbers.
        gates: (N, k) weights of their results.
        probabilities: (N, E) softmax over all experts.
        logits: (N, E) without noise.
        noisy: (N, E) logits that decided, equal to `logits` without noise.
    """

    experts: Tensor
    gates: Tensor
    probabilities: Tensor
    logits: Tensor
    noisy: Tensor


class Router(nn.Module, TaskConditioned):
    """Base: softmax over all experts, then the k largest (M³ViT's order; weights do not sum to 1).

    Args:
        features: of a token.
        experts: E.
        top_k: experts per token.
        tasks: names.
        noise: standard deviation times E of what training adds to the logits.
        renormalise: divide the k weights by their sum.
        allowed: (T, E) bool, experts that a task may use; None = all.
    """

    allowed: Tensor | None

    def __init__(
        self,
        features: int,
        experts: int,
        top_k: int,
        tasks: Sequence[str],
        *,
        noise: float = 0.0,
        renormalise: bool = False,
        allowed: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.experts, self.top_k, self.tasks = experts, top_k, tuple(tasks)
        self.noise, self.renormalise = noise, renormalise
        self.register_buffer("allowed", allowed)
        self.build(features)

    def depends_on_task(self) -> bool:
        """Masks and gates of a task need a pass per task."""
        return True

    @abstractmethod
    def build(self, features: int) -> None:
        """Make the parameters."""

    @abstractmethod
    def logits(self, tokens: Tensor) -> Tensor:
        """Scores (N, E) of tokens (N, C)."""

    def task(self) -> str:
        """The current task; raises where it has no route."""
        return current_task(self.tasks, type(self).__name__)

    def forward(self, tokens: Tensor, noise: Tensor | None = None) -> Routing:
        """Routing of tokens (N, C).

        Args:
            tokens: to be routed.
            noise: (N, E) standard normal values to use; by default training draws them.
        """
        logits = self.logits(tokens)
        if self.allowed is not None:
            logits = logits.masked_fill(~self.allowed[self.tasks.index(self.task())], -math.inf)
        if noise is None and self.training and self.noise > 0:
            noise = torch.randn_like(logits)
        noisy = logits if noise is None else logits + noise * (self.noise / self.experts)
        probabilities = noisy.softmax(dim=-1)
        gates, index = probabilities.topk(self.top_k, dim=-1)
        if self.renormalise:
            gates = gates / gates.sum(dim=-1, keepdim=True)
        return Routing(index, gates, probabilities, logits, noisy)


class SharedRouter(Router):
    """One gate for all tasks; a mask makes it differ between them."""

    def depends_on_task(self) -> bool:
        """With a mask only."""
        return self.allowed is not None

    def build(self, features: int) -> None:
        """A matrix (C, E)."""
        self.gate = _gate(features, self.experts)

    def logits(self, tokens: Tensor) -> Tensor:
        """Scores (N, E)."""
        return tokens @ self.gate


class TaskRouter(Router):
    """One gate per task (M³ViT's multi-gate)."""

    def build(self, features: int) -> None:
        """A matrix (C, E) for each task."""
        self.gate = nn.ParameterDict({name: _gate(features, self.experts) for name in self.tasks})

    def logits(self, tokens: Tensor) -> Tensor:
        """Scores (N, E)."""
        scores: Tensor = tokens @ self.gate[self.task()]
        return scores


class ConditionedRouter(Router):
    """One gate that reads the token and an embedding of the task (M³ViT's task-conditioned router)."""

    def build(self, features: int) -> None:
        """An embedding by two linear layers of a one-hot task, and a matrix (2C, E)."""
        self.embedding = nn.Sequential(
            nn.Linear(len(self.tasks), features),
            nn.GELU(),
            nn.Linear(features, features),
            nn.LayerNorm(features),
        )
        self.gate = _gate(2 * features, self.experts)

    def logits(self, tokens: Tensor) -> Tensor:
        """Scores (N, E)."""
        which = torch.zeros(1, len(self.tasks), device=tokens.device, dtype=tokens.dtype)
        which[:, self.tasks.index(self.task())] = 1
        embedded = self.embedding(which).to(tokens.dtype)
        return torch.cat([tokens, embedded.expand(tokens.shape[0], -1)], dim=-1) @ self.gate


def exact_routing(router: Router, tokens: Tensor, noise: Tensor | None = None) -> Routing:
    """The routing of tokens (N, C), without mixed precision: a rounded score would send a token elsewhere."""
    # The meta device knows no autocast.
    with nullcontext() if tokens.is_meta else torch.autocast(tokens.device.type, enabled=False):
        routing: Routing = router(tokens.float() if tokens.dtype != torch.float64 else tokens, noise)
    return routing


def exclusive_mask(tasks: int, experts: int, share: float, *, excluded: bool, seed: int) -> Tensor:
    """Which experts a task may use, (T, E) bool (MMoEEx, Aoki et al., 2022).

    Args:
        tasks: T.
        experts: E.
        share: of the experts that are restricted.
        excluded: a restricted expert serves all tasks but one; by default it serves one alone.
        seed: of the choice.
    """
    generator = torch.Generator().manual_seed(seed)
    allowed = torch.ones(tasks, experts, dtype=torch.bool)
    chosen = torch.randperm(experts, generator=generator)[: round(share * experts)]
    for place, expert in enumerate(chosen.tolist()):
        allowed[:, expert] = excluded
        allowed[place % tasks, expert] = not excluded
    return allowed


def _gate(features: int, experts: int) -> nn.Parameter:
    weight = nn.Parameter(torch.empty(features, experts))
    nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
    return weight

"""PRISM's modules: conditions, the router that reads them, and the MLP with experts beside it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from timm.layers.mlp import Mlp
from torch import Tensor, nn
from torch.nn import functional as F

from mtvision.core.context import Context, current_context
from mtvision.models.declarations import Declaration, Declares
from mtvision.models.layers.conditioned import TaskConditioned, current_task
from mtvision.models.layers.experts.losses import switch_loss
from mtvision.models.layers.experts.mlp import NO_WIDTHS, Experts
from mtvision.models.layers.experts.router import Router, Routing, exact_routing

TEACHERS = "mtvision.prism.teachers"
"""Key in `Context.extra` of (B,) numbers of teachers: this pass is conditioned on them and on no task."""
PASS = "mtvision.prism.pass"
"""Key in `Context.extra` of what tells one forward pass from the next."""


class Conditions(nn.Module):
    """A learned vector for each task and each teacher.

    Args:
        tasks: names.
        teachers: names.
        features: of a vector.
    """

    def __init__(self, tasks: Sequence[str], teachers: Sequence[str], features: int) -> None:
        super().__init__()
        vectors = {name: nn.Parameter(torch.empty(features)) for name in tasks}
        self.tasks = nn.ParameterDict(vectors)
        self.teachers = nn.Parameter(torch.empty(len(teachers), features))
        for item in self.parameters():
            nn.init.trunc_normal_(item, std=0.02)

    def now(self) -> Tensor:
        """(1, C) of the current task, or (B, C) of the teachers that images are compared with."""
        numbers: Tensor | None = current_context().extra.get(TEACHERS)
        if numbers is not None:
            return self.teachers[numbers]
        vector: Tensor = self.tasks[current_task(list(self.tasks), "PRISM")]
        return torch.stack([vector])  # no view: hooks that count work refuse those of a parameter


def of_teachers(context: Context, numbers: Tensor) -> Context:
    """The context of a pass in which image b is conditioned on the teacher `numbers[b]`."""
    return replace(context, task=None, extra={**context.extra, TEACHERS: numbers})


class FiLMRouter(Router):
    """Scores of x + σ(Wx)·(FiLM(x; condition) - x), in training with expert dropout and learned noise.

    The weights of the chosen experts sum to 1. A fresh FiLM changes nothing, so that fresh scores do not
    depend on the condition.

    Args:
        conditions: of tasks and teachers, owned by the backbone.
        features: C of a token.
        experts: E.
        top_k: experts per token.
        dropout: probability that training closes an expert to a token; where all would close, none does.
        noisy: training adds noise whose deviation is learned.
    """

    def __init__(
        self,
        conditions: Conditions,
        features: int,
        experts: int,
        top_k: int,
        *,
        dropout: float,
        noisy: bool,
    ) -> None:
        super().__init__(features, experts, top_k, list(conditions.tasks), renormalise=True)
        self._conditions = (conditions,)  # no parameters of this module
        self.dropout, self.noisy = dropout, noisy
        if noisy:
            self.deviation = nn.Linear(features, experts)

    def build(self, features: int) -> None:
        """FiLM, the layer that decides where it counts, and the scores."""
        self.film = nn.Linear(features, 2 * features)
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)
        self.influence = nn.Linear(features, features)
        self.score = nn.Linear(features, self.experts)

    def conditioned(self, tokens: Tensor) -> Tensor:
        """Tokens (N, C) as the condition changes them; N is a multiple of the images conditioned on."""
        condition = self._conditions[0].now().to(tokens.dtype)
        gain, shift = self.film(condition).repeat_interleave(len(tokens) // len(condition), 0).chunk(2, -1)
        changed: Tensor = tokens + torch.sigmoid(self.influence(tokens)) * (gain * tokens + shift)
        return changed

    def logits(self, tokens: Tensor) -> Tensor:
        """Scores (N, E)."""
        scores: Tensor = self.score(self.conditioned(tokens))
        return scores

    def forward(self, tokens: Tensor, noise: Tensor | None = None, closed: Tensor | None = None) -> Routing:
        """Routing of tokens (N, C).

        Args:
            tokens: to be routed.
            noise: (N, E) standard normal values to use; by default training draws them.
            closed: (N, E) bool, experts closed to a token; by default training draws them.
        """
        seen = self.conditioned(tokens)
        logits = noisy = self.score(seen)
        if closed is None and self.training and self.dropout > 0:
            closed = torch.rand_like(logits) < self.dropout
        if closed is not None:
            noisy = logits.masked_fill(closed & ~closed.all(dim=-1, keepdim=True), -torch.inf)
        if self.noisy and noise is None and self.training:
            noise = torch.randn_like(logits)
        if self.noisy and noise is not None:
            noisy = noisy + noise * F.softplus(self.deviation(seen))
        best, index = noisy.topk(self.top_k, dim=-1)
        return Routing(index, best.softmax(dim=-1), noisy.softmax(dim=-1), logits, noisy)


class GatedExperts(nn.Module, TaskConditioned, Declares):
    """g·MLP(x) + (1-g)·(shared expert + routed experts), with g from each token in a fixed range.

    Args:
        dense: the MLP of the block; all experts start as its copies.
        router: chooses.
        gate: smallest and largest g.
        weigh_inputs: an expert's weight multiplies its input as well as its result, as released.
        balance: weight of `switch_loss`; of passes for tasks the mean counts, as released.
    """

    def __init__(
        self,
        dense: Mlp,
        router: FiLMRouter,
        gate: tuple[float, float],
        *,
        weigh_inputs: bool,
        balance: float,
    ) -> None:
        super().__init__()
        hidden, features = dense.state_dict()["fc1.weight"].shape
        self.dense, self.shared, self.router = dense, copy.deepcopy(dense), router
        self.experts = Experts(router.experts, features, hidden)
        self.gate = nn.Linear(features, 1)
        self.low, self.high = gate
        self.weigh_inputs, self.balance = weigh_inputs, balance
        with torch.no_grad():
            self.gate.bias.fill_(2.0)
            self.experts.copy_mlp(dense.get_submodule("fc1"), dense.get_submodule("fc2"))
        self._seen: list[tuple[bool, Routing]] = []
        self._pass: object = None

    def declaration(self) -> Declaration:
        """Not slimmed."""
        return Declaration(cannot_slim=NO_WIDTHS)

    def share(self, x: Tensor) -> Tensor:
        """g (..., 1) of tokens (..., C), in the range of the gate."""
        return torch.sigmoid(self.gate(x)) * (self.high - self.low) + self.low

    def forward(self, x: Tensor) -> Tensor:
        """Result (..., C) for tokens (B, ..., C)."""
        tokens = x.flatten(0, -2)
        routing = exact_routing(self.router, tokens)
        self._remember(routing)
        scale = routing.gates if self.weigh_inputs else None
        routed = self.experts.weighted(tokens, routing.experts, routing.gates, scale).view(x.shape)
        share = self.share(x)
        mixed: Tensor = share * self.dense(x) + (1 - share) * (self.shared(x) + routed)
        return mixed.to(x.dtype)

    def auxiliary_loss(self) -> Tensor:
        """The balance of the last forward pass in training mode: that of teachers plus the mean of tasks."""
        zero = next(self.parameters()).new_zeros(())
        total = zero
        for of_task in (False, True):
            terms = [switch_loss(routing) for kind, routing in self._seen if kind == of_task]
            total = total + (torch.stack(terms).mean() if terms else zero)
        return self.balance * total

    def inactive_parameters(self) -> int:
        """How many numbers a token does not read: those of experts that it does not go to."""
        return self.experts.unread_numbers(self.router.top_k)

    def _remember(self, routing: Routing) -> None:
        """Keep the routings of one forward pass of the backbone for the loss."""
        extra = current_context().extra
        if extra.get(PASS) is None or extra.get(PASS) is not self._pass:
            self._seen = []
        self._pass = extra.get(PASS)
        if self.training and torch.is_grad_enabled():
            self._seen.append((TEACHERS not in extra, routing))

    def __getstate__(self) -> dict[str, Any]:
        """Without the last pass, whose tensors have a graph."""
        return {**self.__dict__, "_seen": [], "_pass": None}

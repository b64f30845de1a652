"""A mixture of experts in the place of an MLP, in plain torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtvision.models.declarations import Declaration, Declares
from mtvision.models.layers.conditioned import pass_memory
from mtvision.models.layers.experts.losses import balance_loss, mutual_information_loss, z_loss
from mtvision.models.layers.experts.router import Router, Routing, exact_routing

NO_WIDTHS = "tokens are sorted by expert, which have no widths"
"""Why layers of experts are not slimmed."""


class Stacked(nn.Module):
    """E linear layers of one shape.

    Args:
        experts: E.
        inputs: features read.
        outputs: features written.
    """

    def __init__(self, experts: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(experts, outputs, inputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(experts, outputs).uniform_(-bound, bound))


class Experts(nn.Module):
    """E MLPs of two layers with GELU.

    Args:
        experts: E.
        features: C.
        hidden: inner width.
    """

    def __init__(self, experts: int, features: int, hidden: int) -> None:
        super().__init__()
        self.first = Stacked(experts, features, hidden)
        self.second = Stacked(experts, hidden, features)

    def copy_mlp(self, first: nn.Module, second: nn.Module) -> None:
        """Make every expert a copy of an MLP of these two linear layers, which have biases."""
        with torch.no_grad():
            for stacked, layer in ((self.first, first), (self.second, second)):
                stacked.weight.copy_(layer.get_parameter("weight").expand_as(stacked.weight))
                stacked.bias.copy_(layer.get_parameter("bias").expand_as(stacked.bias))

    def unread_numbers(self, top_k: int) -> int:
        """How many numbers a token does not read that goes to `top_k` experts."""
        stacked = sum(item.numel() for item in self.parameters())
        return stacked - stacked // len(self.first.weight) * top_k

    def forward(self, tokens: Tensor, index: Tensor, scale: Tensor | None = None) -> Tensor:
        """Results (N, k, C) of the chosen experts.

        Tokens are sorted by expert, and each expert runs once on all of its own. Exported and compiled
        programs, whose shapes may not depend on values, run all experts on all tokens.

        Args:
            tokens: (N, C).
            index: (N, k) experts.
            scale: (N, k) what an expert's input is multiplied with; None = 1.
        """
        if torch.compiler.is_compiling():
            chosen = index[..., None].expand(-1, -1, tokens.shape[1])
            if scale is not None:
                scale = scale.new_zeros(len(tokens), len(self.first.weight)).scatter(1, index, scale)
            return self.every(tokens, scale).gather(1, chosen)
        order = index.flatten().argsort(stable=True)
        joined = torch.cat([result for _, result in self._each(tokens, index, order, scale)])
        return torch.zeros_like(joined).index_copy(0, order, joined).view(*index.shape, -1)

    def weighted(self, tokens: Tensor, index: Tensor, gates: Tensor, scale: Tensor | None = None) -> Tensor:
        """Sum (N, C) of the chosen experts' results, each times its gate.

        An expert's results are added as soon as they are there, so that those of all are never in memory.

        Args:
            tokens: (N, C).
            index: (N, k) experts.
            gates: (N, k).
            scale: (N, k) what an expert's input is multiplied with; None = 1.
        """
        if torch.compiler.is_compiling():
            summed: Tensor = (self(tokens, index, scale) * gates[..., None]).sum(dim=1)
            return summed
        order = index.flatten().argsort(stable=True)
        shares = gates.flatten()[order][:, None]
        total = tokens.new_zeros(len(tokens), self.second.bias.shape[1], dtype=gates.dtype)
        for places, result in self._each(tokens, index, order, scale):
            total.index_add_(0, order[places] // index.shape[1], result * shares[places])
        return total

    def every(self, tokens: Tensor, scale: Tensor | None = None) -> Tensor:
        """Results (N, E, C) of all experts; `scale` is (N, E)."""
        inner = torch.einsum("nc,ehc->neh", tokens, self.first.weight)
        if scale is not None:
            inner = inner * scale[..., None].to(inner.dtype)
        inner = inner + self.first.bias
        return torch.einsum("neh,ech->nec", F.gelu(inner), self.second.weight) + self.second.bias

    def _each(
        self, tokens: Tensor, index: Tensor, order: Tensor, scale: Tensor | None
    ) -> Iterator[tuple[slice, Tensor]]:
        """(its places in `order`, its results) of every expert that is chosen."""
        rows, sizes = order // index.shape[1], self._sizes(index)
        parts: Iterable[Tensor]
        if torch.is_grad_enabled():  # one gather: the backward pass then adds gradients once
            parts = torch.split(tokens.index_select(0, rows), sizes)
        else:
            parts = (tokens.index_select(0, own) for own in torch.split(rows, sizes))
        layers = zip(
            self.first.weight.unbind(),
            self.first.bias.unbind(),
            self.second.weight.unbind(),
            self.second.bias.unbind(),
            strict=True,
        )
        factors = None if scale is None else scale.flatten()[order, None].to(tokens.dtype)
        start = 0
        for part, (first, shift, second, last) in zip(parts, layers, strict=True):
            if len(part):
                places = slice(start, start + len(part))
                given = part if factors is None else part * factors[places]
                yield places, F.linear(F.gelu(F.linear(given, first, shift)), second, last)
            start += len(part)

    def _sizes(self, index: Tensor) -> list[int]:
        """Tokens of each expert; equally many where tensors have no values."""
        experts = len(self.first.weight)
        if index.is_meta:
            each, rest = divmod(index.numel(), experts)
            return [each + (expert < rest) for expert in range(experts)]
        sizes: list[int] = index.flatten().bincount(minlength=experts).tolist()
        return sizes


Combine = Callable[[Experts, Tensor, Routing], Tensor]
"""(experts, tokens (N, C), routing) to one result (N, C) per token."""


def weighted_sum(experts: Experts, tokens: Tensor, routing: Routing) -> Tensor:
    """Sum of the chosen experts' results, each times its weight."""
    return experts.weighted(tokens, routing.experts, routing.gates)


def orthogonal_sum(experts: Experts, tokens: Tensor, routing: Routing) -> Tensor:
    """Weighted sum of the chosen experts' results, made orthonormal first (MOORE)."""
    return orthonormal_sum(experts(tokens, routing.experts), routing)


def orthonormal_sum(results: Tensor, routing: Routing) -> Tensor:
    """Weighted sum of results (N, k, C), made orthonormal by Gram-Schmidt in the order of experts.

    MOORE, Hendawy et al., ICLR 2024.

    A result that lies in the span of those before it counts as 0. (The released code divides by 0.)
    """
    order = routing.experts.argsort(dim=1)
    gates = routing.gates.gather(1, order)
    vectors = results.gather(1, order[..., None].expand_as(results)).float()
    basis: list[Tensor] = []
    for vector in vectors.unbind(dim=1):
        rest = vector
        for other in basis:
            rest = rest - (rest * other).sum(dim=-1, keepdim=True) * other
        length = torch.linalg.vector_norm(rest, dim=-1, keepdim=True)
        lost = length <= 1e-6 * torch.linalg.vector_norm(vector, dim=-1, keepdim=True)
        basis.append(torch.where(lost, 0.0, rest / length.masked_fill(lost, 1.0)))
    return (torch.stack(basis, dim=1) * gates[..., None]).sum(dim=1).to(results.dtype)


class MixtureMLP(nn.Module, Declares):
    """Routed experts; takes tokens (..., C) as the MLP did.

    Args:
        router: chooses.
        hidden: inner width of an expert.
        combine: joins the results.
        balance: weight of cv²(importance) + cv²(load).
        z: weight of the squared log-sum-exp.
        mutual: weight of the mutual information of tasks and experts.
        features: C.
    """

    def __init__(
        self,
        router: Router,
        features: int,
        hidden: int,
        combine: Combine = weighted_sum,
        *,
        balance: float = 0.01,
        z: float = 0.0,
        mutual: float = 0.0,
    ) -> None:
        super().__init__()
        self.router, self.combine = router, combine
        self.experts = Experts(router.experts, features, hidden)
        self.balance, self.z, self.mutual = balance, z, mutual
        self._seen: list[Routing] = []
        self._pass: object = None

    def declaration(self) -> Declaration:
        """Not slimmed."""
        return Declaration(cannot_slim=NO_WIDTHS)

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """Result (..., C) for tokens (..., C); `noise` as in `Router.forward`."""
        tokens = x.flatten(0, -2)
        routing = exact_routing(self.router, tokens, noise)
        self._remember(routing)
        return self.combine(self.experts, tokens, routing).view(x.shape).to(x.dtype)

    def auxiliary_loss(self) -> Tensor:
        """The weighted losses, summed over the passes of the last forward pass in training mode."""
        router = self.router
        deviation = router.noise / router.experts
        terms = [next(self.parameters()).new_zeros(())]
        terms += [
            self.balance * balance_loss(routing, deviation) + self.z * z_loss(routing)
            for routing in self._seen
        ]
        if self.mutual and self._seen:
            means = [routing.probabilities.mean(dim=0) for routing in self._seen]
            terms.append(self.mutual * mutual_information_loss(means))
        return torch.stack(terms).sum()

    def inactive_parameters(self) -> int:
        """How many numbers a token does not read: those of experts that it does not go to."""
        return self.experts.unread_numbers(self.router.top_k)

    def _remember(self, routing: Routing) -> None:
        """Keep the routings of one forward pass, which has a memory of its own, for the losses."""
        memory = pass_memory()
        if memory is None or memory is not self._pass:
            self._seen = []
        self._pass = memory
        if self.training and torch.is_grad_enabled():
            self._seen.append(routing)

    def __getstate__(self) -> dict[str, Any]:
        """Without the last pass, whose tensors have a graph."""
        return {**self.__dict__, "_seen": [], "_pass": None}

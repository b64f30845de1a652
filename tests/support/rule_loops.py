"""Every balancing rule once more, as a slow loop over tasks written from the paper's formula.

A loop takes the gradients (T, P) and the losses (T,) of one batch and gives the shared gradient (P,). What it
remembers between batches is in its closure. It calls nothing of `mtvision` and nothing of torchjd.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from math import exp, log, sqrt

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

Loop = Callable[[Tensor, Tensor], Tensor]

RATE = 0.1
"""Of the plain descent on a rule's own parameters after every batch."""
LATER = (0.9, 0.8, 0.95)
"""Losses of the same batch, or of held-out images, over those that were seen before."""


def plain(rule: Loop) -> Callable[[], Loop]:
    """A rule without state."""
    return lambda: rule


def weighted(J: Tensor, weights) -> Tensor:
    """Sum over tasks of weights[t] J[t]."""
    return sum(float(weight) * row for weight, row in zip(weights, J, strict=True))


def fixed(*weights: float) -> Callable[[], Loop]:
    return plain(lambda J, L: weighted(J, weights))


def drawn(call: int) -> None:
    """Start the random numbers of a call, as all processes do."""
    torch.manual_seed(call)


def softmax(values) -> list[float]:
    sizes = [exp(float(item)) for item in values]
    return [item / sum(sizes) for item in sizes]


class Adam:
    """Adam (Kingma and Ba, ICLR 2015, algorithm 1) with weight decay in the gradient."""

    def __init__(self, start: list[float], lr: float, decay: float = 0.0) -> None:
        self.x, self.lr, self.decay, self.step = list(start), lr, decay, 0
        self.m, self.v = [0.0] * len(start), [0.0] * len(start)

    def move(self, slopes) -> None:
        self.step += 1
        for t, slope in enumerate(slopes):
            slope = float(slope) + self.decay * self.x[t]
            self.m[t] = 0.9 * self.m[t] + 0.1 * slope
            self.v[t] = 0.999 * self.v[t] + 0.001 * slope**2
            mean, square = self.m[t] / (1 - 0.9**self.step), self.v[t] / (1 - 0.999**self.step)
            self.x[t] -= self.lr * mean / (sqrt(square) + 1e-8)


# ---------------------------------------------------------------------------------------- over losses


def uncertainty() -> Loop:
    s = [0.0] * 3

    def loop(J, L):
        update = weighted(J, [0.5 * exp(-item) for item in s])
        s[:] = [item - RATE * 0.5 * (1 - exp(-item) * float(loss)) for item, loss in zip(s, L, strict=True)]
        return update

    return loop


def imtl_l() -> Loop:
    s = [0.0] * 3

    def loop(J, L):
        update = weighted(J, [exp(item) for item in s])
        s[:] = [item - RATE * (exp(item) * float(loss) - 1) for item, loss in zip(s, L, strict=True)]
        return update

    return loop


def dwa() -> Loop:
    seen: list[Tensor] = []

    def loop(J, L):
        whole = len(seen) // 2  # periods of two batches
        seen.append(L)
        if whole < 2:
            return J.sum(dim=0)
        last, before = (sum(seen[2 * k : 2 * k + 2]) / 2 for k in (whole - 1, whole - 2))
        return weighted(J, [3 * item for item in softmax((last / before) / 2)])

    return loop


def random_scalar() -> Loop:
    calls = [0]

    def loop(J, L):
        calls[0] += 1
        drawn(calls[0])
        return weighted(J, softmax(torch.randn(3, dtype=torch.float64)))

    return loop


def geometric(J, L):
    return weighted(J, [float(L.prod()) ** (1 / 3) / (3 * float(item)) for item in L])


def tchebycheff(J, L):
    return weighted(J, [item / 3 for item in softmax(L / 3)])


def boundary_intersection(J, L):
    unit = torch.full((3,), 3**-0.5, dtype=torch.float64)
    across = L - (L @ unit) * unit
    return weighted(J, unit + 0.5 * across / across.norm())


def cosmos(J, L):
    w = torch.full((3,), 1 / 3, dtype=torch.float64)
    cosine_slope = w / (w.norm() * L.norm()) - (w @ L) * L / (w.norm() * L.norm() ** 3)
    return weighted(J, w - 0.1 * cosine_slope)


def smooth_tchebycheff() -> Loop:
    seen: list[Tensor] = []

    def loop(J, L):
        seen.append(L)
        if len(seen) <= 2:
            return weighted(J, 1 / L)
        ratios = (L / seen[1]).log()
        return weighted(J, [3 * item / float(loss) for item, loss in zip(softmax(ratios), L, strict=True)])

    return loop


def famo() -> Loop:
    adam = Adam([0.0] * 3, 0.025, 1e-3)

    def loop(J, L):
        z = softmax(adam.x)
        total = sum(item / float(loss) for item, loss in zip(z, L, strict=True))
        update = weighted(J, [item / float(loss) / total for item, loss in zip(z, L, strict=True)])
        change = [-log(item) for item in LATER]  # ln L − ln L'
        mean = sum(a * b for a, b in zip(z, change, strict=True))
        adam.move([a * (b - mean) for a, b in zip(z, change, strict=True)])
        return update

    return loop


def auto_lambda() -> Loop:
    adam = Adam([0.1] * 3, 1e-4)

    def loop(J, L):
        update = weighted(J, adam.x)
        adam.move(L * torch.tensor(LATER))
        return update

    return loop


def coba_weights(history: Tensor, tau: float, warmup: int, length: int) -> Tensor:
    """Weights after all rows of (observations, tasks), by a loop over the released formulas."""
    count = history.shape[1]
    ratios = history / history[0]
    slopes, totals = [], []

    def line(points: Tensor) -> Tensor:
        x = torch.arange(len(points), dtype=torch.float64)
        table = torch.stack([x, torch.ones_like(x)], dim=1)
        return torch.linalg.lstsq(table, points[:, None]).solution[0, 0]

    for end in range(warmup, len(history) + 1):
        window = ratios[max(0, end - length) : end]
        slopes.append(torch.stack([line(window[:, task]) for task in range(count)]))
        totals.append(line(window.max(dim=1).values))
    table = torch.stack(slopes, dim=1)[:, max(0, len(history) - length) :]
    rcs = (count * slopes[-1] / slopes[-1].abs().sum()).softmax(0)
    acs = (-table.shape[1] * table / table.abs().sum(1, keepdim=True))[:, -1].softmax(0)
    total = torch.stack(totals)
    factor = min(1.0, float((-tau * len(total) * total / total.abs().sum()).softmax(0)[-1] * len(total)))
    weights = (count * (factor * rcs + (1 - factor) * acs)).softmax(0)
    floor = 1 / (10 * count)
    return weights * (1 - count * floor) + floor if bool((weights < floor).any()) else weights


def coba() -> Loop:
    seen: list[Tensor] = []

    def loop(J, L):
        weights = coba_weights(torch.stack(seen), 5.0, 2, 3) if len(seen) >= 2 else torch.ones(3) / 3
        seen.append(L * torch.tensor(LATER, dtype=torch.float64))
        return weighted(J, weights)

    return loop


# ------------------------------------------------------------------------------------- over gradients


def nearest_in(J: Tensor, point: Tensor, bounds: Tensor) -> Tensor:
    """The d with J d ≥ bounds nearest to `point`: tries every set of constraints that hold with equality."""
    best, distance = None, float("inf")
    for size in range(len(J) + 1):
        for rows in combinations(range(len(J)), size):
            A = J[list(rows)]
            move = torch.zeros_like(point)
            if size:
                move = A.T @ torch.linalg.solve(A @ A.T, bounds[list(rows)] - A @ point)
            found = point + move
            if bool((J @ found >= bounds - 1e-9).all()) and float(move.norm()) < distance:
                best, distance = found, float(move.norm())
    return best


def onto_cone(J: Tensor, point: Tensor) -> Tensor:
    return nearest_in(J, point, torch.zeros(len(J), dtype=J.dtype))


def upgrad(J, L):
    return sum(onto_cone(J, row) for row in J) / len(J)


def aligned(J, L):
    U, sizes, Vt = torch.linalg.svd(J, full_matrices=False)  # all directions get the smallest length
    return sizes.min() * (Vt.T @ (U.T @ torch.full((3,), 1 / 3, dtype=J.dtype)))


def cagrad(J, L):
    mean = J.mean(dim=0)
    reach = 0.4 * float(mean.norm())

    def cost(w: np.ndarray) -> float:
        g = torch.as_tensor(w) @ J
        return float(g @ mean + reach * g.norm())

    total = {"type": "eq", "fun": lambda w: w.sum() - 1}
    found = minimize(cost, np.full(3, 1 / 3), bounds=[(0, 1)] * 3, constraints=total, tol=1e-12)
    g = torch.as_tensor(found.x) @ J
    return mean + reach * g / g.norm()


def config(J, L):
    units = torch.stack([row / row.norm() for row in J])
    direction = units.T @ torch.linalg.solve(units @ units.T, torch.ones(3, dtype=J.dtype))
    direction = direction / direction.norm()
    return sum(row @ direction for row in J) * direction


def bargained(G: Tensor) -> list[float]:
    """w > 0 with G w = 1/w: each equation in turn is a quadratic one."""
    w = [1.0] * len(G)
    for _ in range(2000):
        for t in range(len(G)):
            rest = sum(float(G[t, s]) * w[s] for s in range(len(G)) if s != t)
            w[t] = (-rest + sqrt(rest**2 + 4 * float(G[t, t]))) / (2 * float(G[t, t]))
    return w


def nash(J, L):
    G = J @ J.T
    update = weighted(J, bargained(G / G.norm()))
    return update / max(1.0, float(update.norm()))


def sign_dropout() -> Loop:
    calls = [0]

    def loop(J, L):
        calls[0] += 1
        drawn(calls[0])
        purity = 0.5 * (1 + J.sum(dim=0) / J.abs().sum(dim=0))
        positive = purity > torch.rand(6, dtype=torch.float64)
        return sum(torch.where(positive == (row > 0), row, 0.0) for row in J)

    return loop


def surgery() -> Loop:
    calls = [0]

    def loop(J, L):
        calls[0] += 1
        drawn(calls[0])
        total = torch.zeros(6, dtype=J.dtype)
        for i in range(3):
            row = J[i].clone()
            for j in torch.randperm(3).tolist():
                if j != i and float(row @ J[j]) < 0:
                    row = row - (row @ J[j]) / J[j].norm() ** 2 * J[j]
            total = total + row
        return total

    return loop


def vaccine() -> Loop:
    calls, goals = [0], torch.zeros(3, 3, dtype=torch.float64)

    def loop(J, L):
        calls[0] += 1
        drawn(calls[0])
        total = torch.zeros(6, dtype=J.dtype)
        for i in range(3):
            row, others = J[i].clone(), [j for j in range(3) if j != i]
            for j in (others[k] for k in torch.randperm(2).tolist()):
                cosine, goal = float(row @ J[j] / (row.norm() * J[j].norm())), float(goals[i, j])
                if cosine < goal:
                    wide = sqrt(1 - goal**2)
                    factor = row.norm() * (goal * sqrt(1 - cosine**2) - cosine * wide) / (J[j].norm() * wide)
                    row = row + factor * J[j]
                goals[i, j] = 0.5 * goal + 0.5 * cosine
            total = total + row
        return total

    return loop


def impartial_weights(J: Tensor) -> Tensor:
    """IMTL-G, eq. 3 to 5: α of tasks 2 to T from equal projections, α of the first from Σ α = 1."""
    units = torch.stack([row / row.norm() for row in J])
    D, U = J[:1] - J[1:], units[:1] - units[1:]
    rest = (J[0] @ U.T) @ torch.linalg.inv(D @ U.T)
    return torch.cat([1 - rest.sum()[None], rest])


def imtl() -> Loop:
    s = torch.zeros(3, dtype=torch.float64)

    def loop(J, L):
        scaled = J * s.exp()[:, None]
        update = weighted(scaled, impartial_weights(scaled))
        s.sub_(RATE * (s.exp() * L - 1))
        return update

    return loop

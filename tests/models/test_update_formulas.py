"""Updates of the low-rank family against their formulas, written with numpy and scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from disturbed import disturb
from scipy.integrate import solve_ivp
from scipy.special import erf, expit
from torch import nn

from mtvision.core.context import Context, use_context
from mtvision.models.adapters.low_rank.delta import Bottleneck, Matrices, Skills
from mtvision.models.adapters.low_rank.hyper import Generated, Hypernetwork
from mtvision.models.adapters.low_rank.spectrum import SpectrumWarp

NAMES = ["semseg", "depth"]
LAYER = disturb(nn.Linear(5, 6)).double()
X = torch.randn(3, 4, 5, dtype=torch.float64)


def numbers(tensor):
    return tensor.detach().numpy()


def linear(x, weight, bias=0.0):
    return x @ numbers(weight).T + bias


def lora(update, x, frozen):
    return linear(linear(x, update.A), update.B) * update.scale


def poly(update, x, frozen):
    """The common skills of the second task, mixed by sigmoids that are divided by their sum."""
    share = expit(numbers(update.assignment)[1])
    pairs = zip(share / share.sum(), update.A, update.B, strict=True)
    return sum(weight * linear(linear(x, a), b) for weight, a, b in pairs) * update.scale


def houlsby(update, x, frozen):
    inner = linear(frozen, update.down.weight, numbers(update.down.bias))
    inner = inner * (1 + erf(inner / np.sqrt(2))) / 2
    return linear(inner, update.up.weight, numbers(update.up.bias))


def hyper(update, x, frozen):
    source, (place, key) = update._source[0], update.place
    given = np.concatenate([numbers(source.tasks)[1], numbers(source.layers[place])])
    inner = np.maximum(linear(given, source.inner[0].weight, numbers(source.inner[0].bias)), 0)
    a, b = (linear(inner, part[key].weight, numbers(part[key].bias)) for part in (source.A, source.B))
    return x @ a.reshape(2, 5).T @ b.reshape(6, 2).T * update.scale


def ditask(update, x, frozen):
    """Singular values of two parts, read where the flow of the field has carried their places."""
    knots = np.concatenate([[0], numbers(update.velocity), [0]])
    found = []
    for part in np.split(numbers(LAYER.weight), 2):
        left, values, right = np.linalg.svd(part, full_matrices=False)
        start = np.linspace(0, 1, len(values))

        def field(_, place):
            return np.interp(place, np.linspace(0, 1, len(knots)), knots)

        end = solve_ivp(field, (0, 1), start, rtol=1e-10, atol=1e-12).y[:, -1]
        found.append(left @ np.diag(np.interp(end, start, values) - values) @ right)
    return x @ np.concatenate(found).T


SOURCE = disturb(Hypernetwork(2, 3, 4))
UPDATES = {
    "LowRank": (Matrices(5, 6, 2, 0.5, 0.0), lora),
    "PolySkills": (Skills(5, 6, 2, 3, NAMES, 0.5), poly),
    "Houlsby": (Bottleneck(6, 2), houlsby),
    "HyperLowRank": (Generated(SOURCE, SOURCE.add(5, 6, 2), NAMES, 0.5), hyper),
    "DiTASK": (SpectrumWarp(4, 2), ditask),
}


@pytest.mark.conformance("{name}", "formulas")
@pytest.mark.parametrize("name", UPDATES)
def test_an_update_is_that_of_its_formula(name):
    update, formula = UPDATES[name]
    disturb(update).double().eval()
    disturb(SOURCE).double()
    frozen = LAYER(X)
    with use_context(Context(task="depth")):
        found = update(X, frozen, LAYER)
    wanted = torch.from_numpy(formula(update, numbers(X), numbers(frozen)))
    # A step of the integration that crosses a knot of the field is not of fourth order.
    tolerance = 1e-4 if name == "DiTASK" else 1e-10
    torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance)
    assert float(found.detach().abs().max()) > 0.01

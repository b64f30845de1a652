"""For every example of a balancing rule: a loop from the paper's formula, and an answer known in full.

Keys are labels of `tests/testing/examples.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import log, sqrt

import rule_loops as loops
import torch
from rule_loops import RATE, Loop, bargained, fixed, plain, softmax, weighted
from torch import Tensor

# ------------------------------------------------------------------------------ rules that the suite writes


def min_norm(J: Tensor) -> Tensor:
    """Weights of MGDA by Frank and Wolfe's search (Sener and Koltun, algorithm 2)."""
    G = J @ J.T
    w = torch.full((len(J),), 1 / len(J), dtype=J.dtype)
    for _ in range(100):
        corner = torch.zeros_like(w)
        corner[int((G @ w).argmin())] = 1
        along, here, there = float(w @ G @ corner), float(w @ G @ w), float(corner @ G @ corner)
        if there <= along:
            step = 1.0
        elif here <= along:
            step = 0.0
        else:
            step = (here - along) / (here + there - 2 * along)
        w = (1 - step) * w + step * corner
        if step < 1e-3:
            break
    return w


def mgda(kind: str) -> Callable[[], Loop]:
    def loop(J, L):
        norms = J.norm(dim=1)
        scales = {"none": torch.ones(3), "l2": norms, "loss": L, "loss+": L * norms}[kind].double()
        return weighted(J, min_norm(J / scales[:, None]))

    return plain(loop)


def grad_norm() -> Loop:
    s, first = torch.zeros(3, dtype=torch.float64), []

    def loop(J, L):
        first[:] = first or [L]
        w = [3 * item for item in softmax(s)]
        sizes = [item * float(row.norm()) for item, row in zip(w, J, strict=True)]
        rates = (L / first[0]) / (L / first[0]).mean()
        goal = sum(sizes) / 3
        signs = [1.0 if a > goal * float(r) ** 1.5 else -1.0 for a, r in zip(sizes, rates, strict=True)]
        slope = torch.zeros(3, dtype=torch.float64)
        for t in range(3):  # ∂ w_t / ∂ s_u = w_t (1[t = u] − w_u / 3)
            for u in range(3):
                slope[u] += signs[t] * sizes[t] * ((t == u) - w[u] / 3)
        s.sub_(RATE * slope)
        return weighted(J, w)

    return loop


def norm_scaling() -> Loop:
    squares, calls = torch.zeros(3, dtype=torch.float64), [0]

    def loop(J, L):
        calls[0] += 1
        squares.mul_(0.9).add_(0.1 * (J**2).sum(dim=1))
        norms = (squares / (1 - 0.9 ** calls[0])).sqrt()
        return weighted(J, norms.mean() / norms)

    return loop


def principal(J, L):
    U, _, _ = torch.linalg.svd(J.T, full_matrices=False)
    lengths = torch.stack([(U[:, 0] @ row).abs() for row in J])
    return weighted(J, lengths / lengths.mean())


def log_losses(J, L):
    logs = J / L[:, None]
    return weighted(logs, min_norm(logs))


def smoothed() -> Loop:
    kept: list[Tensor] = []

    def loop(J, L):
        fresh = min_norm(J)
        kept[:] = [0.9 * kept[0] + 0.1 * fresh] if kept else [fresh]
        return weighted(J, kept[0])

    return loop


def onto_simplex(point: Tensor) -> Tensor:
    """The nearest point with entries >= 0 and sum 1: halves the interval of the common shift."""
    low, high = float(point.min()) - 1, float(point.max())
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if float((point - middle).clamp(min=0).sum()) > 1 else (low, middle)
    return (point - low).clamp(min=0)


def moco() -> Loop:
    y, w, calls = torch.zeros(3, 6, dtype=torch.float64), [torch.full((3,), 1 / 3).double()], [0]

    def loop(J, L):
        calls[0] += 1
        for t in range(3):
            fresh = J[t] / J[t].norm() * L[t]
            y[t] -= 0.5 / sqrt(calls[0]) * (y[t] - fresh)
        w[0] = torch.tensor(softmax(w[0] - 0.1 / sqrt(calls[0]) * (y @ y.T) @ w[0])).double()
        return weighted(y, w[0])

    return loop


def dual_balancing() -> Loop:
    kept = torch.zeros(3, 6, dtype=torch.float64)

    def loop(J, L):
        for t in range(3):
            kept[t] = 0.9 * kept[t] + 0.1 * J[t] / L[t]  # gradient of the logarithm
        norms = [float(row.norm()) for row in kept]
        return weighted(kept, [max(norms) / item for item in norms])

    return loop


def modo() -> Loop:
    w = [torch.full((3,), 1 / 3, dtype=torch.float64)]

    def loop(J, L):
        w[0] = onto_simplex(w[0] - 0.1 * (J @ J.T @ w[0] + 0.1 * w[0]))
        return weighted(J, w[0])

    return loop


def sdm_grad() -> Loop:
    w, even = [torch.full((3,), 1 / 3, dtype=torch.float64)], torch.full((3,), 1 / 3, dtype=torch.float64)

    def loop(J, L):
        products = J @ J.T / (float(J.norm(dim=1).mean()) ** 2 + 1e-8)  # torchjd's ε
        speed = torch.zeros(3, dtype=torch.float64)
        for _ in range(20):
            speed = 0.5 * speed + products @ (w[0] + 0.3 * even)
            w[0] = onto_simplex(w[0] - 10 * speed)
        return weighted(J, (w[0] + 0.3 * even) / 1.3)

    return loop


# -------------------------------------------------------------------------------- rules that torchjd writes


def excess() -> Loop:
    squares, first, weights = torch.zeros(3, 6, dtype=torch.float64), [], [1 / 3] * 3

    def loop(J, L):
        squares.add_(J**2)
        risk = [float((row**2 / (sums + 1e-7).sqrt()).sum()) for row, sums in zip(J, squares, strict=True)]
        scaled = [a / (b + 1e-7) for a, b in zip(risk, first, strict=True)] if first else risk
        first[:] = first or risk
        weights[:] = softmax([log(a) + b for a, b in zip(weights, scaled, strict=True)])
        return weighted(J, weights)

    return loop


def krum(J, L):
    scores = [min(float((a - b).norm()) for j, b in enumerate(J) if j != i) for i, a in enumerate(J)]
    return J[scores.index(min(scores))]


def priority() -> Loop:
    squares, calls = torch.zeros(3, dtype=torch.float64), [0]

    def loop(J, L):
        calls[0] += 1
        squares.mul_(0.999).add_(0.001 * (J**2).sum(dim=1))
        unit = J / (squares / (1 - 0.999 ** calls[0]) + 1e-8).sqrt()[:, None]
        found = loops.nearest_in(unit[1:], unit[0], 0.02 * (unit[1:] ** 2).sum(dim=1))
        return found * J[0].norm() / found.norm()

    return loop


def random_rows() -> Loop:
    return loops.random_scalar()


def trimmed(J, L):
    return J.sum(dim=0) - J.max(dim=0).values - J.min(dim=0).values


_MGDA = mgda("none")
LOOPS: dict[str, Callable[[], Loop]] = {
    "FixedWeights": fixed(1, 1, 1),
    "FixedWeights-protocol": fixed(1, 0.5, 50),
    "LogSum": plain(lambda J, L: weighted(J, 1 / L)),
    "Uncertainty": loops.uncertainty,
    "UPGrad": plain(loops.upgrad),
    "TorchJD-AlignedMTL": plain(loops.aligned),
    "TorchJD-CAGrad": plain(loops.cagrad),
    "TorchJD-ConFIG": plain(loops.config),
    "TorchJD-DualProj": plain(lambda J, L: loops.onto_cone(J, J.mean(dim=0))),
    "TorchJD-ExcessMTL": excess,
    "TorchJD-FairGrad": plain(lambda J, L: weighted(J, bargained(J @ J.T))),
    "TorchJD-GradDrop": loops.sign_dropout,
    "TorchJD-GradVac": loops.vaccine,
    "TorchJD-IMTLG": plain(lambda J, L: weighted(J, loops.impartial_weights(J))),
    "TorchJD-Krum": plain(krum),
    "TorchJD-MGDA": _MGDA,
    "TorchJD-Mean": fixed(1 / 3, 1 / 3, 1 / 3),
    "TorchJD-PCD": priority,
    "TorchJD-PCGrad": loops.surgery,
    "TorchJD-Random": random_rows,
    "TorchJD-Sum": fixed(1, 1, 1),
    "TorchJD-TrimmedMean": plain(trimmed),
    "TorchJD-UPGrad": plain(loops.upgrad),
    "Scalarizer-COSMOS": plain(loops.cosmos),
    "Scalarizer-DWA": loops.dwa,
    "Scalarizer-GeometricMean": plain(loops.geometric),
    "Scalarizer-IMTLL": loops.imtl_l,
    "Scalarizer-Mean": fixed(1 / 3, 1 / 3, 1 / 3),
    "Scalarizer-PBI": plain(loops.boundary_intersection),
    "Scalarizer-Random": loops.random_scalar,
    "Scalarizer-STCH": plain(loops.tchebycheff),
    "Scalarizer-Sum": fixed(1, 1, 1),
    "SmoothTchebycheff": loops.smooth_tchebycheff,
    "FAMO": loops.famo,
    "CoBa": loops.coba,
    "AutoLambda": loops.auto_lambda,
    "GradNorm": grad_norm,
    "PrincipalWeights": plain(principal),
    "LogLosses": plain(log_losses),
    "SmoothedWeights": smoothed,
    "NormScaling": norm_scaling,
    **{f"MGDA-{kind}": mgda(kind) for kind in ("none", "l2", "loss", "loss+")},
    "NashMTL": plain(loops.nash),
    "IMTL": loops.imtl,
    "FeatureWeights-MGDA": _MGDA,
    "FeatureWeights-AlignedMTL": plain(loops.aligned),
    "MoCo": moco,
    "DBMTL": dual_balancing,
    "MoDo": modo,
    "SDMGrad": sdm_grad,
}

REGULARISED = "torchjd adds 1e-4 to the diagonal of the products"
ROUGHLY: dict[str, tuple[float, str]] = {
    "UPGrad": (3e-3, REGULARISED),
    "TorchJD-UPGrad": (3e-3, REGULARISED),
    "TorchJD-DualProj": (3e-3, REGULARISED),
    "TorchJD-CAGrad": (1e-3, "two solvers of one convex programme"),
    "TorchJD-FairGrad": (1e-4, "torchjd's search ends at a relative change of 1e-8"),
    "NashMTL": (1e-6, "1e-8 on the diagonal"),
}
"""{label: (tolerance, why)} where more than rounding lies between rule and loop."""

# ------------------------------------------------------------------------------------------- known answers

RIGHT_ANGLES = ((2.0, 0.0), (0.0, 1.0))
AGAINST = ((1.0, 0.0), (-1.0, 1.0))
ALIKE = ((2.0, 1.0), (2.0, 1.0))
UNITS = ((1.0, 0.0), (0.0, 1.0))

Answer = tuple[Sequence[Sequence[float]], Sequence[float], Sequence[float], str]


def right_angles(first: float, second: float, why: str) -> Answer:
    return RIGHT_ANGLES, (0.5, 2.0), (first, second), why


_FOOT = right_angles(0.4, 0.8, "the foot of the perpendicular from 0")
_CONE: Answer = (AGAINST, (1, 1), (0.25, 0.75), "(1, 0) goes to (1, 1)/2, (-1, 1) to (0, 1); their mean")
_BALANCED = right_angles(0.5, 0.5, "both axes get the shorter length, 1")
_SUM = right_angles(2, 1, "the sum")
_MEAN = right_angles(1, 0.5, "the mean")
_SAME: Answer = (ALIKE, (1, 1), (2, 1), "weights add up to 1 and gradients are equal")
_PCD = 2 / sqrt(1 + 0.02**2)
_MOCO = 1 / (1 + 2.718281828459045 ** (-0.046875))
_EXCESS = 1 / (1 + 2.718281828459045 ** (-1.0))
ANSWERS: dict[str, Answer] = {
    "FixedWeights": _SUM,
    "FixedWeights-protocol": right_angles(2, 0.5, "weights 1 and 1/2"),
    "LogSum": right_angles(4, 0.5, "g / L"),
    "Uncertainty": right_angles(1, 0.5, "½ e^0"),
    "UPGrad": _CONE,
    "TorchJD-AlignedMTL": _BALANCED,
    "TorchJD-CAGrad": (UNITS, (1, 1), (0.7, 0.7), "by symmetry w = ½: mean times 1 + c, c = 0.4"),
    "TorchJD-ConFIG": right_angles(1.5, 1.5, "(1, 1)/√2, as long as both projections"),
    "TorchJD-DualProj": (((1, 0), (-3, 1)), (1, 1), (0, 0.5), "the mean (-1, ½) onto the edge x = 0"),
    "TorchJD-ExcessMTL": right_angles(2 * _EXCESS, 1 - _EXCESS, "softmax of the first risks, ‖g‖₁ = 2 and 1"),
    "TorchJD-FairGrad": right_angles(1, 1, "G w = 1/w with G = diag(4, 1)"),
    "TorchJD-GradDrop": (((2, -1), (1, -3)), (1, 1), (3, -4), "signs agree, so nothing is dropped"),
    "TorchJD-GradVac": (AGAINST, (1, 1), (0.5, 1.5), "the first target is 0: a projection"),
    "TorchJD-IMTLG": right_angles(2 / 3, 2 / 3, "equal projections, weights 1/3 and 2/3"),
    "TorchJD-Krum": (((1, 2), (1, 2), (9, 9)), (1, 1, 1), (1, 2), "two that are near one another"),
    "TorchJD-MGDA": _FOOT,
    "TorchJD-Mean": _MEAN,
    "TorchJD-PCD": right_angles(_PCD, 0.02 * _PCD, "(1, τ), as long as the first gradient"),
    "TorchJD-PCGrad": (AGAINST, (1, 1), (0.5, 1.5), "(1, 1)/2 and (0, 1), added up"),
    "TorchJD-Random": _SAME,
    "TorchJD-Sum": _SUM,
    "TorchJD-TrimmedMean": (((1, 5), (2, -7), (9, 0)), (1, 1, 1), (2, 0), "the middle of three"),
    "TorchJD-UPGrad": _CONE,
    "Scalarizer-COSMOS": (
        RIGHT_ANGLES,
        (1, 1),
        (1, 0.5),
        "the cosine is at its largest",
    ),
    "Scalarizer-DWA": _SUM,
    "Scalarizer-GeometricMean": right_angles(2, 0.25, "√(½ · 2) / (2 L)"),
    "Scalarizer-IMTLL": _SUM,
    "Scalarizer-Mean": _MEAN,
    "Scalarizer-PBI": (RIGHT_ANGLES, (1, 3), (sqrt(0.5), sqrt(0.5) * 1.5), "(1, 1)/√2 + ½ (-1, 1)/√2"),
    "Scalarizer-Random": _SAME,
    "Scalarizer-STCH": (RIGHT_ANGLES, (1, 1), (0.5, 0.25), "softmax ½ times preference ½"),
    "Scalarizer-Sum": _SUM,
    "SmoothTchebycheff": right_angles(4, 0.5, "g / L during the warm-up"),
    "FAMO": right_angles(1.6, 0.2, "c = 1 / (1 + ¼), weights ½ c / L"),
    "CoBa": _MEAN,
    "AutoLambda": right_angles(0.2, 0.1, "0.1 at the start"),
    "GradNorm": _SUM,
    "PrincipalWeights": right_angles(4, 0, "the main direction is that of the first"),
    "LogLosses": right_angles(4 / 65, 32 / 65, "least norm of (4, 0) and (0, ½)"),
    "SmoothedWeights": _FOOT,
    "NormScaling": right_angles(1.5, 1.5, "both as long as the mean norm"),
    "MGDA-none": _FOOT,
    "MGDA-l2": right_angles(1, 0.5, "unit gradients: weights ½"),
    "MGDA-loss": right_angles(2 / 65, 64 / 65, "weights of (4, 0) and (0, ½)"),
    "MGDA-loss+": right_angles(2 / 17, 16 / 17, "weights of (2, 0) and (0, ½)"),
    "NashMTL": right_angles(sqrt(0.5), sqrt(0.5), "w ‖g‖ are equal; norm 1"),
    "IMTL": right_angles(2 / 3, 2 / 3, "equal projections, weights 1/3 and 2/3"),
    "FeatureWeights-MGDA": _FOOT,
    "FeatureWeights-AlignedMTL": _BALANCED,
    "MoCo": right_angles(0.25 * _MOCO, 1 - _MOCO, "y = ½ L g/‖g‖, softmax of ½ − 0.1 (1/32, ½)"),
    "DBMTL": right_angles(0.4, 0.4, "(0.4, 0) and (0, 0.05), as long as the longer"),
    "MoDo": right_angles(0.85, 0.575, "½ − 0.1 (2.05, 0.55) onto the simplex: 0.425 and 0.575"),
    "SDMGrad": (UNITS, (1, 1), (0.5, 0.5), "by symmetry"),
}

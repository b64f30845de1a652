"""Losses: closed forms and plain loops in float64; what holds for every loss is in tests/testing."""

import math

import pytest
import torch
from torch import nan

from mtvision.core.naming import UnknownNameError
from mtvision.core.registry import LOSSES
from mtvision.losses import (
    BalancedBinaryLoss,
    BalancedCrossEntropyLoss,
    CrossEntropyLoss,
    EdgeLoss,
    L1Loss,
    NormalsCosineLoss,
    NormalsL1Loss,
)

B, H, W = 3, 4, 5


def classes(count: int, ignored: float = 0.3) -> torch.Tensor:
    label = torch.randint(count, (B, H, W))
    return label.masked_fill(torch.rand(B, H, W) < ignored, 255)


def values(channels: int, ignored: float = 0.3, whole_pixels: bool = True) -> torch.Tensor:
    label = torch.randn(B, channels, H, W)
    holes = torch.rand(B, 1 if whole_pixels else channels, H, W) < ignored
    return torch.where(holes, nan, label)


def binary(ignored: float = 0.3) -> torch.Tensor:
    label = (torch.rand(B, 1, H, W) < 0.2).float()
    return label.masked_fill(torch.rand(B, 1, H, W) < ignored, nan)


CASES = {
    "semseg": (CrossEntropyLoss(), 4, lambda: classes(4)),
    "depth": (L1Loss(), 1, lambda: values(1)),
    "normals sum": (NormalsL1Loss("sum"), 3, lambda: values(3)),
    "normals mean": (NormalsL1Loss("mean"), 3, lambda: values(3, whole_pixels=False)),
    "normals cosine": (NormalsCosineLoss(), 3, lambda: values(3)),
    "edge": (EdgeLoss(), 1, binary),
    "edge hed": (EdgeLoss(None), 1, binary),
    "edge all": (EdgeLoss(average="all"), 1, binary),
    "saliency": (BalancedCrossEntropyLoss(), 2, lambda: classes(2)),
    "saliency survey": (BalancedBinaryLoss(), 1, lambda: classes(2)),
}


# ---------------------------------------------------------------------------- plain loops, pixel by pixel


def softplus(x: float) -> float:
    return max(x, 0) + math.log1p(math.exp(-abs(x)))


def log_softmax(z: list[float], y: int) -> float:
    top = max(z)
    return z[y] - top - math.log(sum(math.exp(item - top) for item in z))


def pixels(logits: torch.Tensor, label: torch.Tensor) -> list[tuple[list[float], list[float]]]:
    """(logits, label) of every pixel, label values as a list, 255 and NaN kept."""
    found = []
    for b in range(B):
        for i in range(H):
            for j in range(W):
                truth = label[b, i, j].reshape(-1) if label.ndim == 3 else label[b, :, i, j]
                found.append((logits[b, :, i, j].tolist(), truth.tolist()))
    return found


def loop_semseg(data):
    terms = [-log_softmax(z, y) for z, (y,) in data if y != 255]
    return sum(terms) / len(terms)


def loop_depth(data):
    terms = [abs(z - d) for (z,), (d,) in data if not math.isnan(d)]
    return sum(terms) / len(terms)


def unit(z):
    length = math.sqrt(sum(item * item for item in z))
    return [item / length for item in z]


def loop_normals_sum(data):
    valid = [(unit(z), g) for z, g in data if not any(map(math.isnan, g))]
    return sum(abs(p - t) for z, g in valid for p, t in zip(z, g, strict=True)) / len(valid)


def loop_normals_mean(data):
    terms = [abs(p - t) for z, g in data for p, t in zip(unit(z), g, strict=True) if not math.isnan(t)]
    return sum(terms) / len(terms)


def loop_normals_cosine(data):
    valid = [(unit(z), g) for z, g in data if not any(map(math.isnan, g))]
    return 1 - sum(p * t for z, g in valid for p, t in zip(z, g, strict=True)) / len(valid)


def loop_edge(data, weight=0.95, everything=False):
    valid = [(z, y) for (z,), (y,) in data if not math.isnan(y)]
    if weight is None:
        weight = sum(y == 0 for _, y in valid) / len(valid)
    total = sum(weight * y * softplus(-z) + (1 - weight) * (1 - y) * softplus(z) for z, y in valid)
    return total / (len(data) if everything else len(valid))


def loop_saliency(data):
    valid = [(z, int(y)) for z, (y,) in data if y != 255]
    positive_weight = sum(y == 0 for _, y in valid) / len(valid)
    weights = [1 - positive_weight, positive_weight]
    return -sum(weights[y] * log_softmax(z, y) for z, y in valid) / len(valid)


def loop_saliency_survey(data):
    valid = [(z, y) for (z,), (y,) in data if y != 255]
    weight = sum(y == 0 for _, y in valid) / len(valid)
    total = sum(weight * y * softplus(-z) + (1 - weight) * (1 - y) * softplus(z) for z, y in valid)
    return total / len(data)


LOOPS = {
    "semseg": loop_semseg,
    "depth": loop_depth,
    "normals sum": loop_normals_sum,
    "normals mean": loop_normals_mean,
    "normals cosine": loop_normals_cosine,
    "edge": loop_edge,
    "edge hed": lambda data: loop_edge(data, None),
    "edge all": lambda data: loop_edge(data, everything=True),
    "saliency": loop_saliency,
    "saliency survey": loop_saliency_survey,
}


@pytest.mark.parametrize("name", list(CASES))
def test_equals_a_plain_loop(name):
    loss, channels, make = CASES[name]
    logits, label = torch.randn(B, channels, H, W, dtype=torch.float64) * 2, make()
    assert loss(logits, label).item() == pytest.approx(LOOPS[name](pixels(logits, label)), rel=1e-6)


# --------------------------------------------------------------------------------------- closed forms


@pytest.mark.parametrize("weight", [0.95, 0.8, 0.5])
@pytest.mark.parametrize("share", [0, 0.1, 1])
def test_edge_at_zero_logits(weight, share):
    """L(z=0) = ln 2 · [w ρ + (1−w)(1−ρ)] with ρ the share of edge pixels."""
    label = torch.zeros(1, 1, 10, 10)
    label.view(-1)[: int(100 * share)] = 1
    expected = math.log(2) * (weight * share + (1 - weight) * (1 - share))
    assert EdgeLoss(weight)(torch.zeros(1, 1, 10, 10), label).item() == pytest.approx(expected, rel=1e-6)


def test_edge_is_weighted_cross_entropy_as_published():
    """BCE-with-logits with pos_weight w/(1−w), times (1−w)."""
    logits, label = torch.randn(2, 1, 6, 6), (torch.rand(2, 1, 6, 6) < 0.3).float()
    w = 0.95
    published = torch.nn.functional.binary_cross_entropy_with_logits(
        logits, label, pos_weight=torch.tensor(w / (1 - w))
    ) * (1 - w)
    torch.testing.assert_close(EdgeLoss(w)(logits, label), published, rtol=1e-5, atol=0)


def test_edge_threshold_makes_labels_binary():
    logits, soft = torch.randn(1, 1, 2, 2), torch.tensor([[[[0.2, 0.5], [0.8, nan]]]])
    hard = torch.tensor([[[[0.0, 1.0], [1.0, nan]]]])
    assert EdgeLoss(threshold=0.5)(logits, soft) == EdgeLoss()(logits, hard)
    assert EdgeLoss()(logits, soft) != EdgeLoss()(logits, hard)


def test_normals_opposite_to_the_label():
    """p̂ = −g costs 2 Σ_c |g_c| averaged over pixels, a third of it as channel mean; 2 as cosine."""
    g = torch.nn.functional.normalize(torch.randn(2, 3, 4, 4), dim=1)
    summed = 2 * g.abs().sum(dim=1).mean()
    torch.testing.assert_close(NormalsL1Loss("sum")(-5 * g, g), summed)
    torch.testing.assert_close(NormalsL1Loss("mean")(-5 * g, g), summed / 3)
    torch.testing.assert_close(NormalsCosineLoss()(-5 * g, g), torch.tensor(2.0))


@pytest.mark.parametrize("loss", [NormalsL1Loss("sum"), NormalsL1Loss("mean"), NormalsCosineLoss()])
def test_normals_ignore_the_length_of_the_prediction_only(loss):
    z, g = torch.randn(1, 3, 4, 4), torch.randn(1, 3, 4, 4)
    torch.testing.assert_close(loss(7 * z, g), loss(z, g))
    assert not torch.isclose(loss(z, 2 * g), loss(z, g))  # labels are not made unit length


def test_normals_pixel_with_one_missing_channel():
    z, g = torch.randn(1, 3, 1, 2), torch.randn(1, 3, 1, 2)
    g[0, 1, 0, 0] = nan
    p = torch.nn.functional.normalize(z, dim=1)
    errors = (p - g).abs()
    torch.testing.assert_close(NormalsL1Loss("sum")(z, g), errors[..., 1].sum())
    torch.testing.assert_close(NormalsL1Loss("mean")(z, g), errors.nansum() / 5)


def test_uniform_logits_cost_the_logarithm_of_the_classes():
    assert CrossEntropyLoss()(torch.zeros(B, 7, H, W), classes(7)).item() == pytest.approx(math.log(7))


def test_saliency_divides_by_pixels_not_by_weights():
    """At z = 0 every pixel costs ln 2, hence L = ln 2 · 2ρ(1−ρ); PyTorch's weighted mean would be ln 2."""
    label = torch.zeros(1, 2, 5, dtype=torch.int64)
    label[0, 0, :3] = 1
    expected = math.log(2) * 2 * 0.3 * 0.7
    assert BalancedCrossEntropyLoss()(torch.zeros(1, 2, 2, 5), label).item() == pytest.approx(expected)
    assert BalancedBinaryLoss()(torch.zeros(1, 1, 2, 5), label).item() == pytest.approx(expected)


def test_saliency_without_salient_pixels_is_zero():
    label = torch.zeros(1, 2, 5, dtype=torch.int64)
    assert BalancedCrossEntropyLoss()(torch.randn(1, 2, 2, 5), label) == 0


def test_depth_is_the_raw_linear_error():
    """No clamp of the prediction: −1 against 2 costs 3."""
    assert L1Loss()(torch.full((1, 1, 1, 1), -1.0), torch.full((1, 1, 1, 1), 2.0)) == 3


def test_mean_over_all_pixels_skips_samples_without_the_task():
    loss, logits = EdgeLoss(average="all"), torch.randn(2, 1, 4, 4)
    label = torch.rand(2, 1, 4, 4).round()
    label[1] = nan
    assert loss(logits, label) == loss(logits[:1], label[:1])
    label[0, 0, 0] = nan  # a quarter of the pixels: they stay in the divisor
    torch.testing.assert_close(loss(logits, label) / 0.75, EdgeLoss()(logits, label))


# ---------------------------------------------------------------------------------- pooling over a batch


@pytest.mark.parametrize("name", ["semseg", "depth", "normals sum", "normals mean", "normals cosine", "edge"])
def test_batch_pools_its_pixels(name):
    """A batch's loss is the mean of its samples' losses weighted by their valid pixels."""
    loss, channels, make = CASES[name]
    logits, label = torch.randn(B, channels, H, W), make()
    known = (label != 255) if label.ndim == 3 else ~label.isnan()
    if name != "normals mean" and label.ndim == 4:
        known = known.all(dim=1)
    counts = known.flatten(1).sum(dim=1).float()
    single = torch.stack([loss(logits[i : i + 1], label[i : i + 1]) for i in range(B)])
    torch.testing.assert_close(loss(logits, label), (single * counts).sum() / counts.sum())


@pytest.mark.parametrize("name", ["saliency", "saliency survey", "edge hed"])
def test_class_weights_follow_the_batch(name):
    """A known quirk that is kept: these losses are not the mean of their samples' losses."""
    loss, channels, _ = CASES[name]
    label = torch.zeros(2, H, W, dtype=torch.int64)
    label[0, 0] = 1
    target = label[:, None].float() if name == "edge hed" else label
    logits = torch.randn(2, channels, H, W)
    single = [loss(logits[i : i + 1], target[i : i + 1]) for i in range(2)]
    assert not torch.isclose(loss(logits, target), (single[0] + single[1]) / 2, rtol=1e-3)


# ------------------------------------------------------------------------------------------- errors


def test_another_size_says_what_to_do():
    with pytest.raises(ValueError, match=r"L1Loss: logits have shape \(1, 1, 2, 2\).*\(1, 1, 4, 4\).*Resize"):
        L1Loss()(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 4, 4))


def test_wrong_channels_and_axes_are_named():
    with pytest.raises(ValueError, match=r"EdgeLoss: logits.*expected \(B, 1, H, W\)"):
        EdgeLoss()(torch.ones(1, 2, 2, 2), torch.ones(1, 1, 2, 2))
    with pytest.raises(ValueError, match=r"EdgeLoss: label.*expected \(B, 1, H, W\)"):
        EdgeLoss()(torch.ones(1, 1, 2, 2), torch.ones(1, 2, 2, 2))
    with pytest.raises(ValueError, match="CrossEntropyLoss: label.*of class ids"):
        CrossEntropyLoss()(torch.ones(1, 2, 2, 2), torch.ones(1, 1, 2, 2))
    with pytest.raises(ValueError, match="L1Loss: logits have shape"):
        L1Loss()(torch.ones(1, 2, 2, 2), torch.ones(1, 1, 2, 2))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"type": "EdgeLoss", "positive_weight": 1.5}, "in 0..1"),
        ({"type": "EdgeLoss", "average": "valids"}, "'valid' or 'all'"),
        ({"type": "NormalsL1Loss", "channels": "max"}, "'sum' or 'mean'"),
    ],
)
def test_bad_options_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        LOSSES.build(config)


def test_unknown_loss_and_argument():
    with pytest.raises(UnknownNameError, match="Did you mean 'L1Loss'"):
        LOSSES.build({"type": "L1Los"})
    with pytest.raises(UnknownNameError, match="Unknown EdgeLoss argument 'pos_weight'"):
        LOSSES.build({"type": "EdgeLoss", "pos_weight": 0.9})

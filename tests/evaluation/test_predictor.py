"""Predictions on images of any size: padding and scaling leave no trace in the frame."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import data_problems as problems
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mtvision.architecture.widths import WidthConfig
from mtvision.core.instances import OFFSET_UNIT
from mtvision.core.sample import IMAGE_MEAN, IMAGE_STD, Batch, Meta
from mtvision.engine.building import training_module
from mtvision.evaluation.evaluator import SampleEvaluator, without_padding
from mtvision.evaluation.predictor import Predictor
from mtvision.evaluation.scoring import predict_batch
from mtvision.metrics.checks import PredictionError
from mtvision.models import build_network
from mtvision.models.adapters.slimmable import calibrate, has_statistics
from mtvision.protocols import Protocol, own_protocol
from mtvision.protocols.tasks import instance
from mtvision.recipe.config import load_config
from mtvision.recipe.settings import Settings
from mtvision.search import BudgetError, WidthTable
from mtvision.search.cost_table import make_cost_table

PROTOCOL = own_protocol("one", {"depth": {}})


class Brightness(nn.Module):
    """Predicts the red channel in 0..1 as depth, and remembers what it was shown."""

    def forward(self, image, context=None):
        self.shape = tuple(image.shape[-2:])
        return {"depth": image[:, :1] * IMAGE_STD[0] + IMAGE_MEAN[0]}


def photo(height, width):
    ramp = np.linspace(0, 255, width).astype(np.uint8)
    return np.repeat(np.repeat(ramp[None, :, None], height, axis=0), 3, axis=2)


@pytest.mark.parametrize(
    ("protocol", "shown"),
    [
        (PROTOCOL, (40, 80)),
        (replace(PROTOCOL, train_size=(20, 40)), (20, 40)),
        (replace(PROTOCOL, eval_size=(64, 96)), (64, 96)),
    ],
    ids=["own size", "scaled", "padded"],
)
def test_prediction_lines_up_with_the_image(protocol, shown):
    network, image = Brightness(), photo(40, 80)
    depth = Predictor(network, protocol)(image)["depth"]
    assert network.shape == shown
    assert depth.shape == (1, 40, 80)
    assert np.abs(depth[0] - image[..., 0] / 255).max() < 0.02


class PointsToTheMiddle(nn.Module):
    """Three centres in a row; every pixel points to the middle one, in the pixels of the shown image."""

    def forward(self, image, context=None):
        height, width = image.shape[-2:]
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        scores = torch.stack([torch.full((height, width), -9.0), torch.full((height, width), 9.0)])
        centre = torch.zeros(height, width)
        centre[height // 2, [width // 8, width // 2, width - width // 8]] = 1.0
        offsets = torch.stack([height // 2 - rows, width // 2 - columns]) / OFFSET_UNIT
        return {"instance": torch.cat([scores, centre[None], offsets])[None]}


@pytest.mark.parametrize("size", [None, (16, 48), (64, 192)], ids=["as it is", "half", "twice"])
def test_lengths_in_pixels_grow_with_the_zoom(size):
    """Offsets that are too short leave pixels at the outer centres, and those that are too long, too."""
    protocol = Protocol(id="one", title="One", family="own", tasks=(instance(["thing"]),))
    ids, confidence = Predictor(PointsToTheMiddle(), protocol, size=size)(photo(32, 96))["instance"]
    assert len(np.unique(ids)) == 1
    assert (confidence > 0.2).all()  # a peak of one pixel is lower between pixels


@pytest.mark.parametrize(
    ("size", "reference"),
    [((40, 120), {"mode": "bilinear", "align_corners": False}), ((10, 30), {"mode": "area"})],
    ids=["larger", "smaller"],
)
def test_larger_images_are_interpolated_and_smaller_ones_averaged(size, reference):
    shown = []
    network = Brightness()
    network.register_forward_pre_hook(lambda module, inputs: shown.append(inputs[0]))
    image = np.random.default_rng(0).integers(0, 256, (20, 60, 3), dtype=np.uint8)
    Predictor(network, PROTOCOL, size=size)(image)
    expected = F.interpolate(torch.from_numpy(image).permute(2, 0, 1)[None].double(), size=size, **reference)
    mean, std = (torch.tensor(item, dtype=torch.float64).view(1, 3, 1, 1) for item in (IMAGE_MEAN, IMAGE_STD))
    assert ((shown[0] * std + mean) * 255 - expected).abs().max() <= 1


@pytest.mark.parametrize(
    ("size", "shape", "shown"),
    [
        ((20, 20), (40, 40), (20, 20)),
        ((20, 20), (10, 10), (20, 20)),
        ((30, 40), (60, 20), (60, 20)),
        ((30, 40), (80, 60), (40, 30)),
        ((2, 2), (400, 1), (40, 1)),
    ],
)
def test_images_are_scaled_to_the_area_with_their_own_aspect_ratio(size, shape, shown):
    network = Brightness()
    assert Predictor(network, PROTOCOL, size=size)(photo(*shape))["depth"].shape == (1, *shape)
    assert network.shape == shown


def test_a_large_image_is_fitted_into_the_padded_frame():
    """200 x 100 into 50 x 100: rows decide, and the columns are filled up on both sides."""
    network = Brightness()
    predictor = Predictor(network, replace(PROTOCOL, eval_size=(50, 100)))
    depth = predictor(photo(200, 100))["depth"]
    assert network.shape == (50, 100)
    assert predictor._scaled(photo(200, 100)).shape[:2] == (50, 25)
    assert predictor._padding(50, 25) == (0, 37, 0, 38)
    assert predictor._padding(31, 100) == (9, 0, 10, 0)
    assert np.abs(depth[0] - photo(200, 100)[..., 0] / 255).max() < 0.05


@pytest.mark.parametrize("protocol", [PROTOCOL, replace(PROTOCOL, eval_size=(64, 96))], ids=["own", "padded"])
def test_a_batch_is_its_images_one_by_one(protocol):
    """Of any sizes, in their order; those of one size pass the network together."""
    shown = []
    network = Brightness()
    network.register_forward_pre_hook(lambda module, inputs: shown.append(len(inputs[0])))
    images = [photo(40, 80), photo(30, 20), 255 - photo(40, 80), photo(40, 80)[:, ::-1].copy()]
    predictor = Predictor(network, protocol)
    together = predictor.batch(images)
    assert sorted(shown) == [1, 3]
    for image, maps in zip(images, together, strict=True):
        np.testing.assert_array_equal(maps["depth"], predictor(image)["depth"])
    assert predictor.batch([]) == []


@pytest.mark.parametrize("size", [(-5, 5), (0, 5), (5, 0)])
@problems.SIZES
def test_sizes_below_one_pixel_are_refused(size):
    with pytest.raises(ValueError, match=r"size: expected \(H, W\) of at least 1 pixel each"):
        Predictor(Brightness(), PROTOCOL, size=size)


def test_only_eight_bit_rgb_is_taken():
    with pytest.raises(ValueError, match=r"expected an RGB image \(H, W, 3\) of uint8, got \(4, 4\)"):
        Predictor(Brightness(), PROTOCOL)(np.zeros((4, 4), np.uint8))
    for wrong in (np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)):
        with pytest.raises(ValueError, match="expected an RGB image"):
            Predictor(Brightness(), PROTOCOL)(wrong)


def test_padding_is_cut_off_where_it_was_added():
    frame = torch.arange(30.0).view(5, 6)
    meta = Meta(id="a", size=(2, 3), original_size=(2, 3), padding=(1, 2, 2, 1))
    assert torch.equal(without_padding(frame, meta, (5, 6)), frame[1:3, 2:5])
    assert torch.equal(without_padding(frame, meta, (10, 12)), frame)


def test_an_evaluation_that_missed_an_image_is_refused():
    with pytest.raises(RuntimeError, match=r"0 images \(0 ids\) were measured, the split has 3"):
        SampleEvaluator(PROTOCOL.tasks).evaluate(3)


@pytest.mark.slow
def test_where_tasks_talk_the_best_widths_with_statistics_are_taken():
    """PAD-Net, calibrated for equal widths and for one mixture."""
    torch.manual_seed(0)
    protocol = own_protocol("two", {"depth": {}, "normals": {}})
    cfg = {
        "backbone": {"type": "TimmBackbone", "name": "resnet10t", "channels": (16, 24, 32, 48)},
        "decoder": {"type": "PADNetDecoder", "width": 32},
        "head": {"type": "ConvHead"},
        "adapters": [{"type": "Slimmable"}],
    }
    network = build_network(cfg, protocol.tasks).eval()
    ratios = (0.25, 0.5, 1.0)
    cost = make_cost_table(network, (64, 64), (1.0,), ratios)
    table = WidthTable(cost, {name: {(1.0, own): own - 1 for own in ratios} for name in ("depth", "normals")})
    equal = [WidthConfig(1.0, {"depth": own, "normals": own}) for own in ratios]
    mixture = WidthConfig(1.0, {"depth": 0.5, "normals": 0.25})
    calibrate(network, [torch.randn(2, 3, 64, 64)], [*equal, mixture])
    predictor = Predictor(network, protocol, width_table=table)
    budget = cost.cost(WidthConfig(1.0, {"depth": 1.0, "normals": 0.25}))
    by_rule = table.choose(budget, {"depth": 1.0}).widths
    assert by_rule.decoders == {"depth": 1.0, "normals": 0.25}
    assert not has_statistics(network, by_rule)
    assert has_statistics(network, mixture)
    taken = predictor.choose(budget, {"depth": 1.0})
    assert taken.widths.decoders == mixture.decoders  # as good for depth as 0.5 and 0.5, and cheaper
    assert taken.cost <= budget
    assert predictor.choose(1.0).widths.decoders == {"depth": 1.0, "normals": 1.0}
    least = cost.cost(equal[0])
    assert predictor.choose(least, {"depth": 1.0}).cost == least
    with pytest.raises(BudgetError, match="smallest configuration needs"):
        predictor.choose(least - 1, {"depth": 1.0})
    with pytest.raises(BudgetError):
        table.best_of([equal[2]], least)


TINY = Path(__file__).parents[2] / "configs/parallel/parallel_resnet18_tiny_synthetic_1xb8_300.py"


@pytest.mark.parametrize(("clamp", "expected"), [("True", 2.0), ("False", 3.0)])
def test_depths_below_zero_reach_a_metric_that_wants_them(clamp, expected):
    """A network that says -1 m everywhere, where 2 m are true: after training and while it runs."""
    config = load_config(
        TINY, ["tasks=['depth']", f"evaluation.metric_options={{'depth':{{'clamp':{clamp}}}}}"]
    )
    settings = Settings.of(config)
    network = build_network(config["model"], settings.protocol.tasks).eval()
    nn.init.zeros_(network.heads["depth"].logits.weight)
    nn.init.constant_(network.heads["depth"].logits.bias, -1.0)
    batch = Batch(
        image=torch.rand(1, 3, 32, 48),
        labels={"depth": torch.full((1, 1, 32, 48), 2.0)},
        present={"depth": torch.ones(1, dtype=torch.bool)},
        meta=[Meta(id="one", size=(32, 48), original_size=(32, 48))],
    )
    evaluator = SampleEvaluator(settings.protocol.tasks, settings.evaluation.metric_options)
    module = training_module(config, settings, network).eval()
    with torch.no_grad():
        validated = module.val_step(batch)
    for predictions in (predict_batch(network, evaluator.tasks, batch), validated):
        evaluator.process(predictions, batch)
        assert evaluator.evaluate(1)["depth/rmse"] == pytest.approx(expected)


@pytest.mark.parametrize("tile", [None, (32, 32)])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_logits_that_are_no_numbers_are_refused(tile, bad):
    """A running variance below 0 gives NaN; `argmax` would make class 0 of it, without a word."""
    network = Brightness()
    network.backbone = SimpleNamespace(strides=(4,))
    network.forward = lambda image, context=None: {"depth": torch.full_like(image[:, :1], bad)}
    predictor = Predictor(network, PROTOCOL, tile=tile)
    with pytest.raises(PredictionError, match="task 'depth', logits of the network: found .* of .* values"):
        predictor(photo(40, 80))

"""For every property a class that breaks it is caught, and the message says which and how to look."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import pytest

from mtvision.losses import L1Loss
from mtvision.protocols.tasks import depth
from mtvision.steps import PlainStep
from mtvision.testing import (
    BATTERIES,
    PropertyError,
    check_adapter,
    check_backbone,
    check_balancer,
    check_dataset,
    check_decoder,
    check_loss,
    check_merger,
    check_metric,
    check_step,
    properties,
)
from mtvision.testing.inputs import ToyBackbone

sys.path.insert(0, str(Path(__file__).parent))
import broken_data
import broken_mergers
import broken_modules
import broken_scores

CHECKS = {
    "backbone": (check_backbone, broken_modules.BACKBONES),
    "decoder": (check_decoder, broken_modules.DECODERS),
    "adapter": (check_adapter, broken_modules.ADAPTERS),
    "balancer": (check_balancer, broken_scores.BALANCERS),
    "loss": (check_loss, broken_scores.LOSSES),
    "metric": (partial(check_metric, task=depth()), broken_scores.METRICS),
    "dataset": (check_dataset, broken_data.DATASETS),
    "merger": (check_merger, broken_mergers.MERGERS),
    "step": (check_step, broken_data.STEPS),
}


@pytest.mark.parametrize("kind", CHECKS)
def test_every_property_has_a_broken_class(kind):
    assert set(CHECKS[kind][1]) == set(properties(kind))
    assert set(CHECKS) == set(BATTERIES)


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in CHECKS for name in CHECKS[kind][1]])
def test_a_broken_class_is_caught(kind, name):
    check, broken = CHECKS[kind]
    made = broken[name]
    given, options = made if isinstance(made, tuple) else (made, {})
    report = check(given, only=[name], **options)
    assert list(report.failed) == [name], str(report)
    with pytest.raises(PropertyError) as caught:
        report.raise_if_failed()
    text = str(caught.value)
    known = BATTERIES[kind].properties[name]
    assert f"{name}: failed" in text
    assert known.claim in text
    assert known.look.splitlines()[0] in text
    assert f"only=['{name}']" in text


GOOD = {
    "decoder": broken_modules.GoodDecoder,
    "balancer": broken_scores.Scalar,
    "loss": broken_scores.Absolute,
    "metric": broken_scores.Rmse,
    "dataset": broken_data.Tiny,
}


@pytest.mark.parametrize("kind", GOOD)
def test_the_class_without_the_mistake_passes(kind):
    graphs = ("exportable", "compiles_whole", "exportable_at_any_size")
    skip = dict.fromkeys(graphs, "tested above") if kind == "decoder" else None
    report = CHECKS[kind][0](GOOD[kind], skip=skip)
    report.raise_if_failed()


def test_a_report_of_the_whole_battery_prints_every_property():
    text = str(check_loss(broken_scores.OffByOne))
    assert text.splitlines()[0] == "loss OffByOne: 13 passed, 1 failed, 0 skipped"
    assert all(name in text for name in properties("loss"))
    assert check_loss(L1Loss).ok


def test_a_device_that_is_not_there_is_named():
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(RuntimeError, match="device 'cuda': torch sees no CUDA here; use 'cpu'"):
        check_step(PlainStep, device="cuda")
    with pytest.raises(ValueError, match="dtype torch.int8: choose one of"):
        check_backbone(ToyBackbone, dtype=torch.int8)

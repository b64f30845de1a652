"""Slimmable networks with encoder families of timm: slices, exports and costs as the battery states them."""

from __future__ import annotations

import pytest

from mtvision.testing.encoders import ENCODERS
from mtvision.testing.inputs import toy_tasks
from mtvision.testing.kinds.slimming import SLIMMABLE, SlimmableCase

FAMILIES = (
    "DINOv3",
    "EVA-02",
    "PE core",
    "RADIO, NaFlex",
    "BEiT",
    "SAM",
    "SAM 2 (Hiera)",
    "Hiera",
    "Swin v2",
)
FAMILIES += ("ConvNeXt v2",)
DECODER, HEAD = {"type": "ParallelDecoder", "width": 16}, {"type": "ConvHead"}
_CASES = {}


def case(family):
    """What the battery works on, built once per process."""
    if family not in _CASES:
        config = {"backbone": ENCODERS[family].config(), "decoder": DECODER, "head": HEAD, "adapters": []}
        _CASES[family] = SlimmableCase(config=config, tasks=toy_tasks()[:2], size=(64, 64), options={})
    return _CASES[family]


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", SLIMMABLE.properties)
@pytest.mark.parametrize("family", FAMILIES)
def test_battery(family, name):
    SLIMMABLE.run(family, case(family), only=[name]).raise_if_failed()

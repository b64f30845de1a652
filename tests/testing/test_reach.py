"""What a loss reaches is read from its graph; a backward pass through every decoder finds the same."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from mtvision.core.roles import _reached, find_reach, leaves_of
from mtvision.testing.modules import Setting

sys.path.insert(0, str(Path(__file__).parent))
from examples import EXAMPLES

DECODERS = {item.label: item for item in EXAMPLES if item.kind == "decoder"}


@pytest.mark.parametrize("label", DECODERS)
def test_the_graph_of_a_decoder_says_what_a_backward_pass_finds(label, tmp_path):
    torch.manual_seed(0)
    case = DECODERS[label].build(Setting(), tmp_path)
    decoder = case.build()
    output = case.trained(decoder, 0)
    losses = {name: feature.sum() for name, feature in output.features.items()}
    losses |= {f"{item.task} {at}": item.logits.sum() for at, item in enumerate(output.auxiliary)}
    named = list(decoder.named_parameters())
    found = find_reach(losses, named)
    assert found == {name: _reached(loss, named) for name, loss in losses.items()}
    assert all(leaves_of(loss) is not None for loss in losses.values()), "no backward pass was needed"

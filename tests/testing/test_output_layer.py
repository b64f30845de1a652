"""Every registered head, and every decoder with deep supervision, declares what makes its logits."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from mtvision.core.registry import HEADS
from mtvision.models.heads.output import output_layer
from mtvision.protocols.tasks import depth
from mtvision.testing.modules import Setting

sys.path.insert(0, str(Path(__file__).parent))
from examples import EXAMPLES

DECODERS = [item for item in EXAMPLES if item.kind == "decoder"]


@pytest.mark.parametrize("name", list(HEADS))
@torch.no_grad()
def test_the_logits_of_a_head_come_from_its_output_layer(name):
    head = HEADS.build({"type": name}, in_channels=16, task=depth()).eval()
    feature = torch.randn(2, 16, 6, 8)
    before = head(feature)
    layer = output_layer(head)
    layer.bias += 25
    torch.testing.assert_close(head(feature), before + 25)


@pytest.mark.parametrize("example", DECODERS, ids=[item.label for item in DECODERS])
@torch.no_grad()
def test_deep_supervision_comes_from_the_layers_of_the_decoder(example, tmp_path):
    """With weights of zero, these logits are the biases."""
    case = example.build(Setting(), tmp_path)
    decoder = case.build().train()
    pyramid = case.front(case.image)
    extra = [item for item in decoder(pyramid).auxiliary if item.task == "depth"]
    found = decoder.output_layers("depth")
    assert len(found) == len(extra)
    for layer in found:
        layer.weight.zero_()
        layer.bias.fill_(25)
    for item in decoder(pyramid).auxiliary:
        assert item.task != "depth" or bool((item.logits == 25).all())


def test_a_head_without_a_declaration_has_none():
    assert output_layer(nn.Conv2d(4, 1, 1)) is None

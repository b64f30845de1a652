"""Medusa: masks of one keep the shared maps, scale weights sum to one, tasks are independent."""

from __future__ import annotations

import pytest
import torch
from disturbed import disturb

from mtvision.core.pyramid import Pyramid
from mtvision.models.decoders import MedusaDecoder
from mtvision.models.decoders.medusa import MultiScaleAttention
from mtvision.models.layers import resize
from mtvision.protocols.tasks import depth, normals

MAPS = (torch.randn(2, 4, 6, 8), torch.randn(2, 6, 3, 4))


@pytest.mark.conformance("MedusaDecoder", "formulas")
def test_the_result_is_a_weighted_sum_of_masked_scales():
    head = disturb(MultiScaleAttention((4, 6), 5)).eval()
    with torch.no_grad():
        found = head(MAPS)
        scales = [
            resize(refine(mask(item) * item), (6, 8))
            for refine, mask, item in zip(head.refine, head.masks, MAPS, strict=True)
        ]
        weights = head.scales(torch.cat(scales, 1)).softmax(1)
        torch.testing.assert_close(found, sum(weights[:, i, None] * item for i, item in enumerate(scales)))
        assert all(
            mask(item).min() > 0 and mask(item).max() < 1 for mask, item in zip(head.masks, MAPS, strict=True)
        )


def test_a_new_task_changes_nothing_for_others():
    """Its parameters are its own, so that a head can be trained on a frozen backbone."""
    options = {"channels": (4, 6), "strides": (4, 8), "width": 5}
    one = MedusaDecoder(tasks=[depth()], **options).eval()
    two = MedusaDecoder(tasks=[depth(), normals()], **options).eval()
    two.load_state_dict(one.state_dict(), strict=False)
    pyramid = Pyramid(MAPS, (4, 8))
    with torch.no_grad():
        assert torch.equal(one(pyramid).features["depth"], two(pyramid).features["depth"])
        assert list(two(pyramid, ["normals"]).features) == ["normals"]

"""InvPT without stored attention logits: the same numbers, and memory that does not grow as a square."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mtvision.core.pyramid import Pyramid
from mtvision.models.decoders import InvPTDecoder
from mtvision.testing.inputs import ToyBackbone, random_image, toy_tasks

FLAT = (16, 16, 16), (16, 16, 16)
DOUBLING = (8, 12, 16, 24), (4, 8, 16, 32)


def pair(levels, most_scores):
    """A backbone, and the decoder with all logits stored and with parts of them."""
    backbone = ToyBackbone(*levels).double()
    made = []
    for most in (None, most_scores):
        torch.manual_seed(0)
        options = {"channels": backbone.channels, "strides": backbone.strides, "tasks": toy_tasks()}
        made.append(InvPTDecoder(width=16, hidden=10, most_scores=most, **options).double())
    return backbone, *made


@pytest.mark.parametrize("levels", [FLAT, DOUBLING], ids=["flat", "doubling"])
@pytest.mark.parametrize(("size", "most_scores"), [((96, 160), 1), ((75, 53), 4000), ((64, 96), 10**9)])
def test_logits_in_parts_give_the_same_features_and_gradients(levels, size, most_scores):
    backbone, whole, parts = pair(levels, most_scores)
    assert list(parts.state_dict()) == list(whole.state_dict())
    found = []
    for decoder in (parts, whole):
        maps = [item.detach().requires_grad_() for item in backbone(random_image(2, size).double()).maps]
        output = decoder.train()(Pyramid(tuple(maps), backbone.strides))
        loss = sum((item * item.detach().cos()).sum() for item in output.features.values())
        gradients = torch.autograd.grad(loss, [*decoder.parameters(), *maps], allow_unused=True)
        found.append((output.features, gradients, dict(decoder.named_buffers())))
    torch.testing.assert_close(found[0], found[1], rtol=1e-10, atol=1e-10)


class Largest(TorchDispatchMode):
    """Elements of the largest tensor that has an axis of that length."""

    def __init__(self, columns):
        super().__init__()
        self.columns, self.elements = columns, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.ndim and self.columns in result.shape:
            self.elements = max(self.elements, result.numel())
        return result


def test_a_step_makes_no_more_scores_at_once_than_allowed():
    """19 keys a task, 57 in all: no other tensor has an axis as long."""
    backbone, whole, parts = pair(FLAT, 3000)
    with torch.no_grad():
        pyramid = backbone(random_image(1, (32 * 37, 32)).double())
    sizes = []
    for decoder in (whole, parts):
        with Largest(3 * 19) as seen:
            sum(item.sum() for item in decoder.train()(pyramid).features.values()).backward()
        sizes.append(seen.elements)
    queries = 3 * 74 * 2  # of the last stage: maps are 148 x 4, queries half as fine
    assert sizes[0] >= 2 * queries * 57
    assert sizes[1] <= 2 * 3000

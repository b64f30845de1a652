"""Pyramid: side exits make per-task gradients right; per-task pyramids obey the same contract."""

import pytest
import torch
from torch import nn

from mtvision.core.naming import UnknownNameError
from mtvision.core.pyramid import Pyramid, TaskPyramids


def pyramid(channels: int = 2) -> Pyramid:
    return Pyramid.of([torch.randn(1, channels, 8, 8), torch.randn(1, 2 * channels, 4, 4)], [4, 8])


def test_facts():
    item = pyramid()
    assert item.channels == (2, 4)
    assert item.strides == (4, 8)
    assert item.for_task("anything") is item


def test_vit_levels_may_have_equal_strides():
    Pyramid.of([torch.zeros(1, 1, 2, 2)] * 2, [16, 16])


def test_lengths_must_agree_and_strides_go_from_fine_to_coarse():
    with pytest.raises(ValueError, match="1 maps but 2 strides"):
        Pyramid.of([torch.zeros(1, 1, 2, 2)], [4, 8])
    with pytest.raises(ValueError, match="from fine to coarse"):
        Pyramid.of([torch.zeros(1, 1, 2, 2)] * 2, [8, 4])


def test_side_exits_are_free_and_keep_values():
    original = torch.randn(1, 2, 4, 4)
    (exit_,) = Pyramid.of([original], [4]).maps
    assert exit_ is not original
    assert exit_.data_ptr() == original.data_ptr()
    assert torch.equal(exit_, original)


def test_gradient_at_a_level_does_not_hold_the_path_through_later_levels():
    """d(fine + coarse)/d fine is 1 at a side exit; at the raw map it would be 1 + w."""
    x = torch.ones(1, 1, 1, 1, requires_grad=True)
    later = nn.Conv2d(1, 1, 1, bias=False)
    fine = x * 1
    coarse = later(fine)
    exits = Pyramid.of([fine, coarse], [1, 1]).maps
    at_exits = torch.autograd.grad(sum(exits).sum(), exits, retain_graph=True)
    assert [item.item() for item in at_exits] == [1, 1]
    raw = torch.autograd.grad((fine + coarse).sum(), fine, retain_graph=True)[0]
    assert raw.item() == pytest.approx(1 + later.weight.item())
    # The chain over the exits is complete: the gradient of the input is the ordinary one.
    torch.testing.assert_close(torch.autograd.grad(sum(exits).sum(), x)[0], raw)


def test_task_pyramids():
    both = TaskPyramids({"depth": pyramid(2), "edge": pyramid(3)})
    assert both.channels == (2, 4)  # of the first
    assert both.for_task("edge").channels == (3, 6)
    assert isinstance(both, Pyramid)
    with pytest.raises(UnknownNameError, match="'dept'. Did you mean 'depth'"):
        both.for_task("dept")
    with pytest.raises(ValueError, match="at least one task"):
        TaskPyramids({})

"""The baseline decoder: tasks are independent, levels meet at the finest, supervision only while training."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mtvision.core.naming import UnknownNameError
from mtvision.core.pyramid import Pyramid, TaskPyramids
from mtvision.models.decoders import ParallelDecoder
from mtvision.protocols.tasks import depth, normals, semseg

TASKS = (semseg(("sky", "road", "car")), depth(), normals())
CNN = {"channels": (4, 6, 8), "strides": (4, 8, 16)}
VIT = {"channels": (8, 8, 8, 8), "strides": (16, 16, 16, 16)}


def pyramid_of(channels, strides, size=(64, 96), batch=2) -> Pyramid:
    maps = [
        torch.randn(batch, count, size[0] // stride, size[1] // stride)
        for count, stride in zip(channels, strides, strict=True)
    ]
    return Pyramid.of(maps, strides)


def test_a_task_alone_gives_what_it_gives_in_company():
    together = ParallelDecoder(**CNN, tasks=TASKS, width=8).eval()
    alone = ParallelDecoder(**CNN, tasks=TASKS[1:2], width=8).eval()
    alone.decoders["depth"].load_state_dict(together.decoders["depth"].state_dict())
    pyramid = pyramid_of(**CNN)
    assert torch.equal(alone(pyramid).features["depth"], together(pyramid).features["depth"])


def test_only_the_tasks_asked_for_are_computed():
    decoder = ParallelDecoder(**CNN, tasks=TASKS, width=8)
    calls: list[str] = []
    for name, module in decoder.decoders.items():
        module.register_forward_hook(lambda *_, name=name: calls.append(name))
    assert list(decoder(pyramid_of(**CNN), ["normals", "semseg"]).features) == ["semseg", "normals"]
    assert calls == ["semseg", "normals"]
    with pytest.raises(UnknownNameError, match=r"'dept'. Did you mean 'depth'"):
        decoder(pyramid_of(**CNN), ["dept"])


def test_no_task_reaches_another_tasks_weights():
    decoder = ParallelDecoder(**CNN, tasks=TASKS, width=8)
    decoder(pyramid_of(**CNN)).features["depth"].sum().backward()
    touched = {name.split(".")[1] for name, item in decoder.named_parameters() if item.grad is not None}
    assert touched == {"depth"}


def test_by_hand():
    """All layers made plain: the result is the finest level plus everything coarser, upsampled."""
    decoder = ParallelDecoder(channels=(2, 2), strides=(4, 8), tasks=TASKS[1:2], width=2, num_layers=0).eval()
    branch = decoder.decoders["depth"]
    for lateral in branch.lateral:
        nn.init.dirac_(lateral[0].weight)
        nn.init.zeros_(lateral[0].bias)
    for smooth in branch.smooth:
        nn.init.dirac_(smooth[0].weight)
        smooth[1].eps = 0.0  # identity in eval mode
    fine, coarse = torch.rand(1, 2, 6, 8), torch.rand(1, 2, 3, 4)
    up = F.interpolate(coarse, size=(6, 8), mode="bilinear", align_corners=False)
    result = decoder(Pyramid.of([fine, coarse], (4, 8))).features["depth"]
    torch.testing.assert_close(result, fine + 2 * up)  # once down the pyramid, once in the sum


def test_levels_of_one_stride_are_spread():
    decoder = ParallelDecoder(**VIT, tasks=TASKS, width=8)
    sizes = [
        tuple(lateral(item).shape[2:])
        for lateral, item in zip(decoder.decoders["depth"].lateral, pyramid_of(**VIT).maps, strict=True)
    ]
    assert sizes == [(16, 24), (8, 12), (4, 6), (2, 3)]  # strides 4, 8, 16, 32 of 64x96


def test_deep_supervision():
    decoder = ParallelDecoder(**CNN, tasks=TASKS, width=8, deep_supervision=0.4)
    pyramid = pyramid_of(**CNN)
    auxiliary = decoder(pyramid, ["semseg", "normals"]).auxiliary
    assert [(item.task, tuple(item.logits.shape), item.weight) for item in auxiliary] == [
        ("semseg", (2, 3, 8, 12), 0.4), ("semseg", (2, 3, 4, 6), 0.4),
        ("normals", (2, 3, 8, 12), 0.4), ("normals", (2, 3, 4, 6), 0.4),
    ]  # fmt: skip
    assert decoder.eval()(pyramid).auxiliary == []
    plain = ParallelDecoder(**CNN, tasks=TASKS, width=8)
    assert plain(pyramid).auxiliary == []
    assert not any("auxiliary" in name for name in plain.state_dict())


def test_own_width_per_task():
    decoder = ParallelDecoder(**CNN, tasks=TASKS, width=8, task_widths={"depth": 16})
    assert decoder.out_channels == {"semseg": 8, "depth": 16, "normals": 8}
    features = decoder(pyramid_of(**CNN)).features
    assert {name: item.shape[1] for name, item in features.items()} == decoder.out_channels
    with pytest.raises(UnknownNameError, match="task in task_widths 'edge'"):
        ParallelDecoder(**CNN, tasks=TASKS, task_widths={"edge": 16})


def test_each_task_reads_its_own_pyramid():
    decoder = ParallelDecoder(**CNN, tasks=TASKS, width=8).eval()
    first, second = pyramid_of(**CNN), pyramid_of(**CNN)
    mixed = decoder(TaskPyramids({"semseg": first, "depth": second, "normals": first})).features
    assert torch.equal(mixed["semseg"], decoder(first).features["semseg"])
    assert torch.equal(mixed["depth"], decoder(second).features["depth"])


def test_group_norm_is_independent_of_the_batch():
    decoder = ParallelDecoder(**CNN, tasks=TASKS, width=8, norm="group").train()
    pyramid = pyramid_of(**CNN)
    one = Pyramid.of([item[:1] for item in pyramid.maps], pyramid.strides)
    torch.testing.assert_close(decoder(one).features["depth"], decoder(pyramid).features["depth"][:1])
    with pytest.raises(ValueError, match="choose 'batch' or 'group'"):
        ParallelDecoder(**CNN, tasks=TASKS, norm="layer")

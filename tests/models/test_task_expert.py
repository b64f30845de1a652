"""TaskExpert: closed-form special cases, independence of tasks, gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mtvision.core.pyramid import Pyramid, TaskPyramids
from mtvision.models.decoders import TaskExpertDecoder
from mtvision.protocols import get_protocol

TASKS = get_protocol("nyud-invpt").tasks[:3]
NAMES = [task.name for task in TASKS]


def decoder(tasks=TASKS, **options):
    torch.manual_seed(0)
    given = {"width": 8, "experts": 3} | options
    return TaskExpertDecoder(channels=(16, 16), strides=(16, 16), tasks=tasks, **given)


def pyramid(batch=2, size=(3, 4)):
    generator = torch.Generator().manual_seed(1)
    return Pyramid.of([torch.randn(batch, 16, *size, generator=generator) for _ in range(2)], (16, 16))


def freeze_gates(made, scores):
    """Make every gate answer `scores` (cut to its number of choices) whatever it sees."""
    for layer in made.layers:
        for gate in layer.gate.values():
            nn.init.zeros_(gate.scores.weight)
            gate.scores.bias.data = scores[: len(gate.scores.bias)].clone()


@pytest.mark.conformance("taskexpert", "formulas")
def test_one_task_and_uniform_gates_equal_a_plain_chain():
    """Uniform weights: a level adds Write(mean of experts and the memory read) to the memory."""
    made, maps = decoder(TASKS[:1]).eval(), pyramid()
    freeze_gates(made, torch.zeros(4))
    name, memory = NAMES[0], torch.zeros(2, 8, 3, 4)
    for level, layer in enumerate(made.layers):
        parts = [expert(maps.maps[level]) for expert in layer.experts]
        if level:
            parts.append(layer.read[name](memory))
        memory = memory + layer.write[name](sum(parts) / len(parts))
    expected = F.interpolate(memory, scale_factor=4, mode="bilinear")
    torch.testing.assert_close(made(maps).features[name], expected, rtol=1e-5, atol=1e-6)


def test_a_gate_that_picks_the_memory_shuts_the_level_out():
    made = decoder().eval()
    freeze_gates(made, torch.tensor([0.0, 0.0, 0.0, 1e4]))
    first, second = pyramid(), pyramid()
    other = Pyramid.of([first.maps[0], torch.randn_like(second.maps[1])], (16, 16))
    before, after = made(first).features, made(other).features
    assert all(torch.equal(before[name], after[name]) for name in NAMES)


def test_gate_weights_follow_the_image():
    """Softmax over experts and memory: with the formulas written out for one task."""
    made, maps = decoder(grid=(3, 4)).eval(), pyramid()
    layer, feature, memory = made.layers[1], maps.maps[1], torch.randn(2, 8, 3, 4)
    name = NAMES[2]
    scores = layer.gate[name](feature)
    assert not torch.allclose(scores[0], scores[1])
    weights = scores.exp() / scores.exp().sum(dim=1, keepdim=True)
    mixed = sum(weights[:, i, None, None, None] * layer.experts[i](feature) for i in range(3))
    mixed = mixed + weights[:, 3, None, None, None] * layer.read[name](memory)
    expected = memory + layer.write[name](mixed)
    found = layer(feature, memory, name, layer.decompose(feature))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_fewer_tasks_change_nothing_and_task_pyramids_are_read():
    made, maps = decoder().eval(), pyramid()
    together = made(maps).features
    alone = made(maps, [NAMES[1]]).features
    assert list(alone) == [NAMES[1]]
    assert torch.equal(alone[NAMES[1]], together[NAMES[1]])
    other = Pyramid.of([item + 1 for item in maps.maps], (16, 16))
    mixed = made(TaskPyramids({NAMES[0]: maps, NAMES[1]: other, NAMES[2]: maps})).features
    assert torch.equal(mixed[NAMES[0]], together[NAMES[0]])
    assert torch.equal(mixed[NAMES[2]], together[NAMES[2]])
    assert torch.equal(mixed[NAMES[1]], made(other).features[NAMES[1]])


@pytest.mark.parametrize("learned", [False, True])
def test_gradients_reach_every_parameter(learned):
    made = decoder(learned_memory=learned, deep_supervision=0.5, grid=(3, 4)).train()
    for item in made.memory.values():
        nn.init.normal_(item)
    output = made(pyramid(batch=4))
    assert [item.task for item in output.auxiliary] == NAMES
    assert output.auxiliary[0].weight == 0.5
    total = sum((item * torch.randn_like(item)).sum() for item in output.features.values())
    total = total + sum((item.logits * torch.randn_like(item.logits)).sum() for item in output.auxiliary)
    total.backward()
    # The layer norm behind the pooling takes away what its bias adds; MLoRE's gate has it too.
    learning = [item for item in made.named_parameters() if not item[0].endswith("pool.bias")]
    assert [name for name, item in learning if item.grad is None or not item.grad.any()] == []


def test_sizes_batches_and_precision():
    made = decoder().eval()
    assert made(pyramid(batch=1, size=(5, 7))).features[NAMES[0]].shape == (1, 8, 20, 28)
    uneven = Pyramid.of([torch.randn(1, 16, 12, 16), torch.randn(1, 16, 3, 4)], (4, 16))
    assert made(uneven).features[NAMES[0]].shape == (1, 8, 12, 16)
    maps = pyramid()
    expected = made(maps).features
    last = Pyramid.of([item.contiguous(memory_format=torch.channels_last) for item in maps.maps], (16, 16))
    with torch.autocast("cpu", torch.bfloat16):
        half = made(maps).features
    for name in NAMES:
        torch.testing.assert_close(made(last).features[name], expected[name], rtol=1e-5, atol=1e-5)
        assert (half[name].float() - expected[name]).norm() / expected[name].norm() < 0.03
    with pytest.raises(ValueError, match=r"made for maps of \(3, 4\)"):
        decoder(grid=(3, 4))(pyramid(size=(4, 4)))
    with pytest.raises(ValueError, match="experts=0"):
        decoder(experts=0)

"""Who gets gradients from which images in an architecture search."""

from __future__ import annotations

from functools import partial

import pytest
import step_toy
import torch
from torch import nn

from mtvision.balance import TorchJD
from mtvision.balance.scalar.weighted import FixedWeights
from mtvision.core.random import is_held_out
from mtvision.core.sample import Batch, Meta
from mtvision.steps import LossReport, StepProblem
from mtvision.steps.search_step import SearchStep
from mtvision.testing.processes import Group


class Toy(nn.Module):
    """loss = mean over images of (weight + logit) · image."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0))
        self.architecture_logit = nn.Parameter(torch.tensor(3.0))

    def forward(self, batch):
        return LossReport({"a": ((self.weight + self.architecture_logit) * batch.image).mean()})


def make_batch(ids):
    image = torch.arange(1.0, len(ids) + 1)[:, None, None, None].expand(-1, 3, 2, 2)
    return Batch(
        image=image,
        labels={"a": image[:, :1]},
        present={"a": torch.ones(len(ids), dtype=torch.bool)},
        meta=[Meta(id=name, size=(2, 2), original_size=(2, 2)) for name in ids],
    )


def problem(toy):
    return StepProblem(
        forward=toy, balancer=FixedWeights(tasks=["a"]), parameters=list(toy.named_parameters())
    )


IDS = [f"image-{index}" for index in range(10)]


def test_held_out_images_train_the_logits_and_the_others_the_weights():
    toy, batch, step = Toy(), make_batch(IDS), SearchStep(held_out=0.5)
    logs = step(problem(toy), batch)
    held = [index + 1.0 for index, name in enumerate(IDS) if is_held_out(name, 0.5)]
    rest = [index + 1.0 for index, name in enumerate(IDS) if not is_held_out(name, 0.5)]
    assert 0 < len(held) < len(IDS)
    assert toy.architecture_logit.grad == pytest.approx(sum(held) / len(held))
    assert toy.weight.grad == pytest.approx(sum(rest) / len(rest))
    assert logs["held_out/a"] == pytest.approx(5 * sum(held) / len(held))
    assert logs["loss/a"] == pytest.approx(5 * sum(rest) / len(rest))
    assert all(item.requires_grad for item in toy.parameters())


def test_a_batch_of_one_kind_skips_the_other_pass_and_earlier_gradients_stay():
    toy, step = Toy(), SearchStep(held_out=0.5)
    toy.weight.grad = torch.tensor(7.0)
    only_held = [name for name in IDS if is_held_out(name, 0.5)][:2]
    step(problem(toy), make_batch(only_held))
    assert toy.weight.grad == 7.0
    assert toy.architecture_logit.grad == pytest.approx(1.5)


def test_joint_training_is_one_pass_over_everything():
    toy, step = Toy(), SearchStep(held_out=0.0)
    step(problem(toy), make_batch(IDS))
    assert toy.weight.grad == toy.architecture_logit.grad == pytest.approx(5.5)


def test_parts_keep_labels_and_drop_absent_tasks():
    batch = make_batch(IDS)
    batch.present["a"][:5] = False
    assert batch.part([0, 1]).labels == {}
    part = batch.part([6, 2])
    assert part.ids == ["image-6", "image-2"]
    assert part.labels["a"][0, 0, 0, 0] == 7.0


def test_a_process_without_training_images_takes_part_in_a_jacobian():
    """One of two processes has held-out images only: both end with half the gradient of the other's batch."""
    names = [f"image-{index}" for index in range(40)]
    held = [name for name in names if is_held_out(name, 0.5)][:2]
    free = [name for name in names if not is_held_out(name, 0.5)][:2]
    group = Group(2)

    def member(ids, average):
        network, batch = step_toy.make_toy(), step_toy.make_batch(2)
        for meta, name in zip(batch.meta, ids, strict=True):
            meta.id = name
        balancer = TorchJD(tasks=step_toy.NAMES, aggregator="Sum")
        forward, named = step_toy.ToyForward(network), list(network.named_parameters())
        SearchStep(held_out=0.5)(StepProblem(forward, balancer, named, average=average), batch)
        return step_toy.gradients(network)

    first, second = group.run([partial(member, ids, group.average) for ids in (held, free)])
    alone = member(free, list)
    for name, gradient in alone.items():
        if gradient is not None:
            torch.testing.assert_close(first[name], gradient / 2)
            assert torch.equal(first[name], second[name])

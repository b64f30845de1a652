"""Who gets gradients from which images in an architecture search."""

from __future__ import annotations

import copy
from dataclasses import replace
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


class Bent(nn.Module):
    """Two weights and two logits in losses that are linear in none of them."""

    def __init__(self, factor=1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.5, -0.3], dtype=torch.float64))
        self.architecture_logit = nn.Parameter(torch.tensor([0.2, 0.7], dtype=torch.float64))
        self.factor = factor

    def forward(self, batch):
        x = batch.image.double().mean(dim=(1, 2, 3)) / 10
        return LossReport({"a": self.factor * self.loss(x, self.weight, self.architecture_logit)})

    @staticmethod
    def loss(x, weight, logit):
        return ((weight[0] * x * logit[0].sin() + (weight[1] * x).tanh() * logit[1] - 1) ** 2).mean()


def unrolled(ahead):
    """The held-out loss after one step of the weights, differentiated as it is written."""
    x = torch.arange(1.0, len(IDS) + 1, dtype=torch.float64) / 10
    held = torch.tensor([is_held_out(name, 0.5) for name in IDS])
    toy = Bent()
    weight, logit = toy.weight, toy.architecture_logit
    slope = torch.autograd.grad(Bent.loss(x[~held], weight, logit), weight, create_graph=True)[0]
    return torch.autograd.grad(Bent.loss(x[held], weight - ahead * slope, logit), logit)[0]


def test_looking_ahead_differentiates_through_a_step_of_the_weights():
    toy, step = Bent(), SearchStep(held_out=0.5, look_ahead=0.3)
    logs = step(problem(toy), make_batch(IDS))
    torch.testing.assert_close(toy.architecture_logit.grad, unrolled(0.3), rtol=1e-4, atol=1e-7)
    assert (unrolled(0.3) - unrolled(0.0)).abs().max() > 0.01
    plain = Bent()
    assert "held_out/a" in logs
    SearchStep(held_out=0.5)(problem(plain), make_batch(IDS))
    torch.testing.assert_close(toy.weight.grad, plain.weight.grad)  # the weights see the other images alone
    assert torch.equal(toy.weight, plain.weight)


class Normed(nn.Module):
    """A batch norm behind a convolution, times a logit."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU())
        self.architecture_logit = nn.Parameter(torch.tensor(0.5))

    def forward(self, batch):
        return LossReport({"a": (self.architecture_logit * self.layers(batch.image) - 1).square().mean()})


def test_looking_ahead_leaves_running_statistics_to_the_pass_of_training():
    torch.manual_seed(0)
    toy = Normed()
    plain = copy.deepcopy(toy)
    given = replace(problem(toy), buffers=list(toy.named_buffers()))
    SearchStep(held_out=0.5, look_ahead=0.1)(given, make_batch(IDS))
    rest = [index for index, name in enumerate(IDS) if not is_held_out(name, 0.5)]
    plain(make_batch(IDS).part(rest))
    for (name, buffer), (_, want) in zip(toy.named_buffers(), plain.named_buffers(), strict=True):
        torch.testing.assert_close(buffer, want, msg=name)
    assert toy.architecture_logit.grad.isfinite()


def test_looking_ahead_over_processes():
    """One process has the held-out images and the other the rest: all gradients are half as long."""
    held = [name for name in IDS if is_held_out(name, 0.5)]
    rest = [name for name in IDS if not is_held_out(name, 0.5)]
    group = Group(2)

    def member(ids, average, factor=1.0):
        toy, step = Bent(factor), SearchStep(held_out=0.5, look_ahead=0.3)
        whole = make_batch(IDS)
        batch = whole.part([IDS.index(name) for name in ids])
        named, rule = list(toy.named_parameters()), FixedWeights(tasks=["a"])
        step(StepProblem(toy, rule, named, average=average), batch)
        return toy.architecture_logit.grad, toy.weight.grad

    first, second = group.run([partial(member, ids, group.average) for ids in (held, rest)])
    alone = member(IDS, list, 0.5)
    for one, other, want in zip(first, second, alone, strict=True):
        torch.testing.assert_close(one, want)
        assert torch.equal(one, other)


def test_looking_ahead_needs_held_out_images():
    with pytest.raises(ValueError, match=r"look_ahead=0.1 with held_out=0; it needs held-out images"):
        SearchStep(held_out=0.0, look_ahead=0.1)
    toy = Bent()
    toy.architecture_logit.requires_grad_(False)
    with pytest.raises(ValueError, match=r"look_ahead=0.1, but none of 1 trained parameters chooses"):
        SearchStep(held_out=0.5, look_ahead=0.1)(problem(toy), make_batch(IDS))


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

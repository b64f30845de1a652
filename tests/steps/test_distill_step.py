"""DistillStep: distances in closed form, teachers that stay as they are, and what it adds to other steps."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mtvision.balance import FixedWeights, UPGrad
from mtvision.core.context import Context, use_context
from mtvision.core.naming import UnknownNameError
from mtvision.core.observer import OBSERVER
from mtvision.losses import TaskLosses
from mtvision.models.backbones import TimmBackbone
from mtvision.models.factory import build_network
from mtvision.steps import DistillStep, LossReport, StepProblem
from mtvision.steps.teachers.distances import correlation_at_distance, representation_distance
from mtvision.steps.teachers.frozen import FrozenTeachers, whole_cells
from mtvision.testing.inputs import toy_batch, toy_tasks

TASKS = toy_tasks()
NAMES = tuple(task.name for task in TASKS)
VIT = {"type": "TimmBackbone", "name": "vit_tiny_patch16_224", "embed_dim": 16, "depth": 4, "num_heads": 2}
RESNET = {"type": "TimmBackbone", "name": "resnet18", "channels": (4, 8, 12, 16), "stem_width": 2}
RESNET |= {"stem_type": "deep"}
TEACHERS = {"vit": VIT, "resnet": RESNET}
CHANNELS = {"vit": 16, "resnet": [4, 8, 12, 16]}
ADAPTERS = {"SAK": {"align": True}, "PRISM": {"experts": 3, "top_k": 2}}


def network(adapter="SAK", **options):
    torch.manual_seed(0)
    taught = {"type": adapter, "teachers": CHANNELS, **ADAPTERS.get(adapter, {}), **options}
    config = {
        "backbone": VIT,
        "adapters": [taught] if adapter else [],
        "decoder": {"type": "ConcatDecoder"},
        "head": {"type": "LevelsHead"},
    }
    return build_network(config, TASKS).train()


def run(model, step, batch, balancer=FixedWeights):
    losses = TaskLosses(TASKS)

    def forward(item):
        tasks = [name for name in NAMES if name in item.labels]
        output = model.outputs(item.image, tasks=tasks, size=item.label_size)
        return LossReport(losses(output, item), model.auxiliary_losses())

    model.zero_grad(set_to_none=True)
    problem = StepProblem(forward, balancer(tasks=NAMES), list(model.named_parameters()), tasks=TASKS)
    return step(problem, batch)


@pytest.fixture(scope="module")
def batch():
    return toy_batch(TASKS, 4, (32, 48))


def test_the_distance_is_a_mixture_of_cosine_and_smooth_l1():
    one, other = torch.randn(3, 4, 2, 5, dtype=torch.float64), torch.randn(3, 4, 2, 5, dtype=torch.float64)
    assert representation_distance(one, one).abs() < 1e-12
    huber = torch.where((one - other).abs() < 1, (one - other) ** 2 / 2, (one - other).abs() - 0.5).mean()
    whole = torch.stack(
        [1 - a @ b / a.norm() / b.norm() for a, b in zip(one.flatten(1), other.flatten(1), strict=True)]
    )
    pixels = 1 - (one * other).sum(1) / one.norm(dim=1) / other.norm(dim=1)
    torch.testing.assert_close(representation_distance(one, other), 0.9 * whole.mean() + 0.1 * huber)
    found = representation_distance(one, other, l1=0.4, cosine="pixel")
    torch.testing.assert_close(found, 0.6 * pixels.mean() + 0.4 * huber)
    large = F.interpolate(other, (6, 10), mode="bilinear", align_corners=False)
    for pair in ((large, one), (one, large)):
        enlarged = [F.interpolate(item, (6, 10), mode="bilinear", align_corners=False) for item in pair]
        torch.testing.assert_close(representation_distance(*pair), representation_distance(*enlarged))


def test_the_correlation_is_a_mean_over_pairs_of_pixels():
    feature, total = torch.randn(2, 3, 3, 4), 0.0
    pixels = F.normalize(feature.flatten(2), dim=1)
    for a in range(12):
        for b in range(12):
            squared = (a // 4 - b // 4) ** 2 + (a % 4 - b % 4) ** 2
            far = 1 - torch.exp(torch.tensor(-squared / (2 * 0.6**2)))
            total = total + far * (pixels[..., a] * pixels[..., b]).sum(1).abs().mean() / 144
    torch.testing.assert_close(correlation_at_distance(feature, 0.2), total)


def test_teachers_are_drawn_alike_stay_as_they_are_and_are_in_no_state(batch):
    before = torch.random.get_rng_state()
    step = DistillStep(teachers=TEACHERS)
    assert torch.equal(torch.random.get_rng_state(), before)
    again = FrozenTeachers(TEACHERS, {})
    kept = {name: item.state_dict() for name, item in again.encoders.items()}
    step.train()
    run(network(), step, batch)
    for name, encoder in step.teachers.encoders.items():
        assert not encoder.training
        assert not any(item.requires_grad or item.grad is not None for item in encoder.parameters())
        found = encoder.state_dict()  # statistics of norms, too
        assert all(torch.equal(found[key], item) for key, item in kept[name].items())
    assert not step.state_dict()
    assert not list(step.parameters())


@pytest.mark.parametrize("adapter", sorted(ADAPTERS))
def test_distillation_alone_leaves_heads_out_and_needs_no_labels(adapter, batch):
    model = network(adapter)
    logs = run(model, DistillStep(teachers=TEACHERS, only=True, decorrelation=0.5), batch)
    parts = {name: item for name, item in logs.items() if name != "total"}
    assert all(name.startswith("auxiliary/") for name in parts)
    assert "auxiliary/decorrelation" in parts
    torch.testing.assert_close(logs["total"], torch.stack(list(parts.values())).sum())
    reached = {name for name, item in model.named_parameters() if item.grad is not None}
    assert not any(name.startswith(("heads.", "backbone.routers.")) for name in reached)
    assert any(name.startswith("backbone.inner.") for name in reached)


@pytest.mark.parametrize("adapter", sorted(ADAPTERS))
def test_tasks_and_distillation_go_with_a_jacobian_balancer(adapter, batch):
    """Distances are no row of the Jacobian; they reach paths, projections and the stem."""
    model = network(adapter)
    torch.manual_seed(1)
    logs = run(model, DistillStep(teachers=TEACHERS), batch, UPGrad)
    assert {"loss/depth", "weight/depth"} <= set(logs)
    missing = [
        name for name, item in model.named_parameters() if item.grad is None or not item.grad.isfinite().all()
    ]
    shown = {name.removeprefix("auxiliary/distillation/") for name in logs if "distillation" in name}
    absent = {f"backbone.projections.{list(TEACHERS).index(name)}_" for name in set(TEACHERS) - shown}
    assert all(name.startswith(tuple(absent)) for name in missing)


def test_the_weight_scales_what_distillation_adds(batch):
    gradients = []
    for weight in (0.0, 1.0, 3.0):
        model = network(noise="none")
        run(model, DistillStep(teachers=TEACHERS, weight=weight), batch)
        gradients.append(model.backbone.inner.model.blocks[0].attn.qkv.weight.grad)
    none, once, thrice = gradients
    torch.testing.assert_close(thrice - none, 3 * (once - none), rtol=1e-3, atol=1e-6)


def test_images_of_a_teacher_have_its_size_and_maps_only_whole_cells():
    seen = []

    class Looking(TimmBackbone):
        def forward(self, image):
            seen.append(tuple(image.shape[2:]))
            return super().forward(image)

    vit = {**VIT, "type": Looking}
    teachers = FrozenTeachers({"large": vit, "plain": vit}, {"large": 100})
    image = torch.randn(1, 3, 40, 50)
    sizes = [[tuple(item.shape[2:]) for item in teachers(name, image)] for name in ("large", "plain")]
    assert seen[-2:] == [(80, 100), (40, 50)]
    assert sizes == [[(5, 6)] * 4, [(2, 3)] * 4]
    assert whole_cells(torch.ones(1, 1, 1, 1), 32, (16, 16)).shape[2:] == (1, 1)  # one cell at least


def test_an_observer_of_the_step_around_still_sees_the_pass(batch):
    seen = []

    def observer(network, pyramid, logits):
        seen.append(sorted(logits))

    with use_context(Context(extra={OBSERVER: observer})):
        run(network(), DistillStep(teachers=TEACHERS), batch)
    assert seen == [sorted(NAMES)]


def test_a_step_inside_keeps_its_rules(batch):
    step = DistillStep(teachers=TEACHERS, step={"type": "SeveralBatchesStep"})
    inner = step.inner
    assert (step.serves, step.held_out, step.divides_batches) == (
        inner.serves,
        inner.held_out,
        inner.divides_batches,
    )
    assert step.averages_gradients(FixedWeights(tasks=NAMES))  # see tests/engine/test_distil_phase.py


def test_what_does_not_compare_is_named(batch):
    with pytest.raises(ValueError, match="teachers is empty"):
        DistillStep(teachers={})
    with pytest.raises(UnknownNameError, match="sam"):
        DistillStep(teachers=TEACHERS, sides={"sam": 64})
    with pytest.raises(ValueError, match="shows nothing that could be compared with vit, resnet"):
        run(network(""), DistillStep(teachers=TEACHERS), batch)
    few = {**TEACHERS, "vit": {**VIT, "levels": (1, 3)}}
    with pytest.raises(
        ValueError, match=r"teacher 'vit' has levels of \[16, 16\] channels, the student shows"
    ):
        run(network(), DistillStep(teachers=few), batch)
    with pytest.raises(UnknownNameError, match="resnet"):
        run(network(), DistillStep(teachers={"vit": VIT}), batch)
    assert isinstance(DistillStep(teachers=TEACHERS), nn.Module)

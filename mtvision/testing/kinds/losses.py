"""`check_loss`: what every loss of a task promises."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from mtvision.core.task import IGNORE, Task
from mtvision.data.random_images import random_label
from mtvision.losses.loss import Loss
from mtvision.protocols.tasks import depth, semseg
from mtvision.testing.battery import Battery, subject_of
from mtvision.testing.inputs import perfect_logits
from mtvision.testing.modules import Setting, copied
from mtvision.testing.numbers import all_finite, close, expect, same
from mtvision.testing.report import PropertyError, Report

SIZE = (9, 11)
"""(H, W) of labels."""


@dataclass(frozen=True, kw_only=True)
class LossCase:
    """A loss and the task whose labels it gets.

    Args:
        make: returns a loss.
        setting: device and precision of logits.
        task: kind of label and channels of logits; by default the one that `label_axes` means.
        floor: how far above the minimum the loss of a perfect prediction may be.
    """

    make: Callable[[], Loss]
    setting: Setting = field(default_factory=Setting)
    task: Task | None = None
    floor: float = 1e-3

    @cached_property
    def loss(self) -> Loss:
        """The loss."""
        return self.make()

    @cached_property
    def kind(self) -> Task:
        """The task."""
        if self.task is not None:
            return self.task
        return semseg(("sky", "road", "car")) if self.loss.label_axes == 3 else depth()

    def label(self, count: int = 3, missing: float = 0.3, seed: int = 0) -> Tensor:
        """Batch of labels."""
        return self.place(random_label(self.kind, count, SIZE, seed, missing))

    def logits(self, count: int = 3, seed: int = 0, dtype: torch.dtype | None = None) -> Tensor:
        """Batch of random logits."""
        generator = torch.Generator().manual_seed(100 + seed)
        drawn = torch.randn(count, self.kind.out_channels, *SIZE, generator=generator)
        return drawn.to(self.setting.device, dtype or self.setting.dtype)

    def place(self, label: Tensor) -> Tensor:
        """Labels on the device; real values stay float32 as data sets give them."""
        return label.to(self.setting.device)

    def unlabelled(self, label: Tensor) -> Tensor:
        """Labels without any labelled pixel, of the same shape."""
        return torch.full_like(label, torch.nan if label.is_floating_point() else IGNORE)


def holes_of(label: Tensor) -> Tensor:
    """Pixels (B, H, W) without any label."""
    return label.isnan().all(dim=1) if label.is_floating_point() else label == IGNORE


LOSS: Battery[LossCase] = Battery("loss", "mtvision.testing.check_loss(make, only=['{name}'])")


def check_loss(
    make: Callable[[], Loss],
    *,
    skip: Mapping[str, str] | None = None,
    only: Collection[str] | None = None,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    **case: Any,
) -> Report:
    """Run the properties of losses on one of them.

    Args:
        make: returns a loss, without arguments.
        skip: {property: reason} of those that do not apply.
        only: names of the properties to run, all by default; `properties("loss")` lists them.
        device: where to run.
        dtype: of the logits.
        case: fields of `LossCase`: `task`, `floor`.

    >>> from mtvision.losses import L1Loss
    >>> from mtvision.testing import check_loss
    >>> check_loss(L1Loss).ok
    True
    """
    made = LossCase(make=make, setting=Setting(device, dtype), **case)
    return LOSS.run(subject_of(make), made, only=only, skip=skip)


@LOSS.property("loss(logits, label).shape, .dtype")
def gives_a_real_scalar(case: LossCase) -> None:
    """The result is one finite float32 number with a graph, float64 for float64 logits."""
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        value = case.loss(case.logits(dtype=dtype).requires_grad_(), case.label())
        want = torch.float64 if dtype == torch.float64 else torch.float32
        expect(
            value.shape == () and value.dtype == want and value.requires_grad,
            f"{dtype} logits give shape {tuple(value.shape)}, {value.dtype}, requires_grad="
            f"{value.requires_grad}; expected a {want} scalar with a graph.",
        )
        all_finite([(f"loss of {dtype} logits", value)])


@LOSS.property("loss(logits, torch.full_like(label, nan)); logits.grad")
def nothing_labelled_is_zero(case: LossCase) -> None:
    """Without a labelled pixel the loss is exactly 0 and its gradient exists and is exactly 0."""
    logits = case.logits().requires_grad_()
    value = case.loss(logits, case.unlabelled(case.label()))
    expect(value == 0, f"the loss is {value.item()}.")
    expect(value.requires_grad, "the loss has no graph, so that a step cannot treat it like any other.")
    torch.autograd.backward(value)
    expect(
        logits.grad is not None and not bool(logits.grad.isnan().any()) and not bool(logits.grad.any()),
        "the gradient of the logits is not zero.",
    )


@LOSS.property("set logits to inf where label is 255 or NaN; loss(logits, label), logits.grad")
def unlabelled_pixels_do_not_matter(case: LossCase) -> None:
    """What the logits are at pixels without label changes neither the loss nor any gradient."""
    label, logits = case.label(), case.logits()
    holes = holes_of(label)
    calm = logits.clone().requires_grad_()
    torch.autograd.backward(case.loss(calm, label))
    want = case.loss(logits, label)
    for value in (torch.inf, -torch.inf, torch.nan, 1e4):
        wild = logits.clone()
        wild.movedim(1, -1)[holes] = value
        wild.requires_grad_()
        found = case.loss(wild, label)
        same(found.detach(), want.detach(), f"logits of {value} at unlabelled pixels")
        torch.autograd.backward(found)
        assert wild.grad is not None
        assert calm.grad is not None
        same(wild.grad, calm.grad, f"gradient with logits of {value} at unlabelled pixels")
        expect(not bool(wild.grad.movedim(1, -1)[holes].any()), "unlabelled pixels have a gradient.")


@LOSS.property("torch.autograd.gradcheck(lambda z: loss(z, label), (logits.double(),))")
def gradient_is_right(case: LossCase) -> None:
    """The gradient is that of finite differences, in float64."""
    logits = case.logits(count=2, dtype=torch.float64).requires_grad_()
    label = case.label(count=2)

    def value(given: Tensor) -> Tensor:
        return case.loss(given, label)

    try:
        torch.autograd.gradcheck(value, (logits,), fast_mode=True)
    except RuntimeError as error:
        raise PropertyError(f"gradcheck: {error}") from error


@LOSS.property("loss(logits[:1], label[:1])")
def batch_of_one(case: LossCase) -> None:
    """A batch of one sample works, and a sample given twice costs what it costs once."""
    logits, label = case.logits(1), case.label(1)
    once = case.loss(logits, label)
    all_finite([("loss of one sample", once)])
    twice = case.loss(torch.cat([logits, logits]), torch.cat([label, label]))
    close(twice, once, "the same sample twice")


@LOSS.property("loss(cat([logits, anything]), cat([label, no label]))")
def unlabelled_samples_do_not_matter(case: LossCase) -> None:
    """A sample without the task's label, as in partially labelled data, changes nothing."""
    logits, label = case.logits(2), case.label(2)
    more = torch.cat([logits, 7 * case.logits(1, seed=5)])
    found = case.loss(more, torch.cat([label, case.unlabelled(label[:1])]))
    close(found, case.loss(logits, label), "with an unlabelled sample")


@LOSS.property("loss(logits[order], label[order])")
def order_of_samples_is_irrelevant(case: LossCase) -> None:
    """Samples in another order give the same loss."""
    logits, label = case.logits(), case.label()
    order = torch.tensor([2, 0, 1])
    close(case.loss(logits[order], label[order]), case.loss(logits, label), "other order")


@LOSS.property("(loss(logits[:2], label[:2]) + loss(logits[2:], label[2:])) / 2")
def halves_average_to_the_whole(case: LossCase) -> None:
    """Two halves with as many labelled pixels each average to the loss of the whole batch."""
    logits, label = case.logits(4), case.label(4, missing=0.0)
    halves = torch.stack([case.loss(logits[part], label[part]) for part in (slice(0, 2), slice(2, 4))])
    close(halves.mean(), case.loss(logits, label), "mean over halves")


@LOSS.property("loss(logits[:1], label[:1], counts) + loss(logits[1:], label[1:], counts)")
def shares_add_up_to_the_whole(case: LossCase) -> None:
    """Parts with unequal numbers of labelled pixels, given the counts of the whole, add up to its loss.

    That makes N processes one: each computes its part, and counts come from all of them.
    """
    label, logits = case.label(4), case.logits(4)
    label[0] = case.unlabelled(label[:1])[0]
    label[1, ..., : SIZE[1] // 2] = case.unlabelled(label[:1])[0, ..., : SIZE[1] // 2]
    counts = case.loss.counts(label)
    pieces = [slice(0, 1), slice(1, 2), slice(2, 4)]
    added = torch.stack([case.loss.counts(label[piece]) for piece in pieces]).sum(dim=0)
    close(added, counts, "counts of the parts, added", torch.float32)
    whole, parts = (logits.clone().requires_grad_() for _ in range(2))
    value = case.loss(whole, label)
    shares = torch.stack([case.loss(parts[piece], label[piece], counts) for piece in pieces])
    close(shares.sum(), value, "losses of the parts, added")
    torch.autograd.backward(value)
    torch.autograd.backward(shares.sum())
    assert whole.grad is not None
    assert parts.grad is not None
    close(parts.grad, whole.grad, "gradient of the parts")


@LOSS.property("loss(logits.bfloat16(), label) against loss(logits.bfloat16().float(), label)")
def half_precision_is_computed_in_float32(case: LossCase) -> None:
    """Half precision logits give the float32 loss of the same values, under autocast as well."""
    for dtype in (torch.bfloat16, torch.float16):
        logits, label = case.logits(dtype=dtype), case.label()
        want = case.loss(logits.float(), label)
        same(case.loss(logits, label), want, f"{dtype} logits")
        with torch.autocast(torch.device(case.setting.device).type, torch.bfloat16):
            same(case.loss(logits, label), want, f"{dtype} logits under autocast")


@LOSS.property("loss(perfect_logits(task, label), label) against loss(anything else, label)")
def perfect_prediction_is_minimal(case: LossCase) -> None:
    """A perfect prediction costs nearly nothing, and other predictions cost more."""
    label = case.label(missing=0.0)
    perfect = perfect_logits(case.kind, label.cpu()).to(case.setting.device, case.setting.real)
    best = float(case.loss(perfect, label))
    others = {
        "random logits": case.logits(dtype=case.setting.real),
        "the opposite": -perfect,
        "a disturbed one": perfect + 0.5 * (1 + perfect.abs()) * case.logits(dtype=case.setting.real),
    }
    expect(
        -1e-6 <= best <= case.floor,
        f"a perfect prediction costs {best:.4g}, at most {case.floor} is accepted (floor).",
    )
    for what, logits in others.items():
        value = float(case.loss(logits, label))
        expect(value > best, f"{what} costs {value:.4g}, a perfect prediction {best:.4g}.")


@LOSS.property("logits and label before and after loss(logits, label)")
def inputs_are_left_alone(case: LossCase) -> None:
    """Logits and labels that are given stay as they are, and a second call gives the same."""
    logits, label = case.logits(), case.label()
    before = logits.clone(), label.clone()
    first = case.loss(logits, label)
    same(logits, before[0], "logits after the loss")
    same(label, before[1], "label after the loss")
    same(case.loss(logits, label), first, "second call")


@LOSS.property("loss(logits[..., :-1], label); loss(logits[0], label)")
def other_shapes_are_refused(case: LossCase) -> None:
    """Logits of another size or without batch axis raise a `ValueError`."""
    logits, label = case.logits(), case.label()
    wrong = {"another width": logits[..., :-1], "no batch axis": logits[0], "fewer samples": logits[:2]}
    for what, given in wrong.items():
        try:
            case.loss(given, label)
        except ValueError:
            continue
        raise PropertyError(f"logits with {what} were accepted: {tuple(given.shape)}, {tuple(label.shape)}.")


@LOSS.property("pickle.loads(pickle.dumps(loss)); copy.deepcopy(loss); repr(loss)")
def copies_are_equal(case: LossCase) -> None:
    """Deep copies and pickles give the same loss."""
    logits, label = case.logits(), case.label()
    want = case.loss(logits, label)
    for way, other in copied(case.loss).items():
        same(other(logits, label), want, way)

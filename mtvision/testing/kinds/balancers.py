"""`check_balancer`: what every balancer promises, on a small problem with known gradients."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mtvision.balance.balancer import Balancer
from mtvision.core.naming import UnknownNameError
from mtvision.testing import modules
from mtvision.testing.battery import Battery, subject_of
from mtvision.testing.kinds.training import TRAINING
from mtvision.testing.modules import Setting
from mtvision.testing.numbers import TOLERANCES, all_finite, close, expect, same
from mtvision.testing.report import NotApplicable, PropertyError, Report

WIDTH = 6
"""Shared numbers of the small problem."""


@dataclass(frozen=True, kw_only=True)
class BalancerCase:
    """A balancer and the names of its tasks.

    Args:
        make: called with `tasks`.
        setting: device and precision.
        tasks: three or more names.
    """

    make: Callable[..., Balancer]
    setting: Setting = field(default_factory=Setting)
    tasks: Sequence[str] = ("first", "second", "third")

    def build(self, tasks: Sequence[str] | None = None) -> Balancer:
        """A fresh balancer on the device."""
        return self.setting.module(self.make(tasks=tuple(tasks or self.tasks)))

    def gradients(self, seed: int = 0) -> dict[str, Tensor]:
        """{task: gradient of its loss (WIDTH,)}; some of them conflict."""
        generator = torch.Generator().manual_seed(seed)
        return {
            name: self.setting.tensor(torch.randn(WIDTH, generator=generator)) * (1 + index)
            for index, name in enumerate(self.tasks)
        }


def update(
    balancer: Balancer, gradients: Mapping[str, Tensor], values: Mapping[str, float] | None = None
) -> Tensor:
    """Gradient of the shared numbers that the balancer makes of the gradients of single losses.

    Args:
        balancer: of either kind.
        gradients: {task: (WIDTH,)}.
        values: of the losses, 1, 2, ... by default.
    """
    names = [name for name in balancer.tasks if name in gradients]
    _, losses = _losses(gradients, values)
    if not balancer.combines:
        if balancer.common_losses:
            balancer.see_losses({name: losses[name].detach() for name in names})
        rows = torch.stack([gradients[name] for name in names])
        return aggregated(balancer, rows, names)
    shared, losses = _losses(gradients, values)
    (gradient,) = torch.autograd.grad(balancer.combine(losses), shared, allow_unused=True)
    if balancer.needs in ("extra_forward", "held_out", "bilevel"):
        balancer.observe({name: 0.9 * item.detach() for name, item in losses.items()})
    return torch.zeros_like(shared) if gradient is None else gradient.detach()


def aggregated(balancer: Balancer, rows: Tensor, names: Sequence[str]) -> Tensor:
    """Result of a rule over gradients (T, WIDTH); rules that read parts of a batch get the same ones."""
    if balancer.needs == "several_batches":
        return balancer.aggregate_parts([rows] * balancer.batches, names)
    if balancer.needs == "features":
        return balancer.weigh(rows @ rows.T, names) @ rows
    return balancer.aggregate(rows, names)


def _losses(
    gradients: Mapping[str, Tensor], values: Mapping[str, float] | None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Shared numbers, zero, and linear losses of them with given values and gradients."""
    first = next(iter(gradients.values()))
    shared = torch.zeros_like(first, requires_grad=True)
    chosen = values or {name: 1.0 + index for index, name in enumerate(gradients)}
    return shared, {name: (item * shared).sum() + chosen[name] for name, item in gradients.items()}


BALANCER: Battery[BalancerCase] = Battery(
    "balancer", "mtvision.testing.check_balancer(make, only=['{name}'])"
)


def check_balancer(
    make: Callable[..., Balancer],
    *,
    skip: Mapping[str, str] | None = None,
    only: Collection[str] | None = None,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    **case: Any,
) -> Report:
    """Run the properties of balancers on one of them.

    Args:
        make: class or function, called with `tasks`.
        skip: {property: reason} of those that do not apply.
        only: names of the properties to run, all by default; `properties("balancer")` lists them.
        device: where to run.
        dtype: of gradients; half precision means float32, because balancers work outside of autocast.
        case: fields of `BalancerCase`: `tasks`.

    >>> from mtvision.balance import FixedWeights
    >>> from mtvision.testing import check_balancer
    >>> check_balancer(FixedWeights).ok
    True
    """
    made = BalancerCase(make=make, setting=Setting(device, dtype), **case)
    return BALANCER.run(subject_of(make), made, only=only, skip=skip)


def _same_direction(got: Tensor, want: Tensor, what: str) -> None:
    """Positive multiples of one another."""
    all_finite([(what, got)])
    expect(float(got.norm()) > 0, f"{what}: the update is zero.")
    unit = [(item / item.norm()).double() for item in (got, want)]
    apart = float((unit[0] - unit[1]).norm())
    expect(apart < TOLERANCES[torch.float32] * 10, f"{what}: directions differ, |u - v| = {apart:.3g}.")


@BALANCER.property("update(balancer, dict.fromkeys(tasks, gradient), dict.fromkeys(tasks, 1.0))")
def equal_losses_agree(case: BalancerCase) -> None:
    """Equal losses with equal gradients give a finite update along that gradient."""
    gradient = case.gradients()[case.tasks[0]]
    values = dict.fromkeys(case.tasks, 1.0)
    found = update(case.build(), dict.fromkeys(case.tasks, gradient), values)
    _same_direction(found, gradient, "equal losses")


@BALANCER.property("update(balancer, {n: 1024 * g ...}) against update(balancer, gradients)")
def common_scale_keeps_the_direction(case: BalancerCase) -> None:
    """A common factor of all losses does not change the direction of the update."""
    gradients = case.gradients()
    values = {name: 1.0 + index for index, name in enumerate(case.tasks)}
    want = update(case.build(), gradients, values)
    for factor in (2.0**-10, 2.0**12):
        scaled = {name: factor * item for name, item in gradients.items()}
        found = update(case.build(), scaled, {name: factor * item for name, item in values.items()})
        _same_direction(found, want, f"losses times {factor:g}")


@BALANCER.property("make(tasks=reversed(tasks)) on the gradients in that order")
def order_of_tasks_is_irrelevant(case: BalancerCase) -> None:
    """Naming the tasks in another order gives the same update."""
    gradients = case.gradients()
    values = {name: 1.0 + index for index, name in enumerate(case.tasks)}
    want = update(case.build(), gradients, values)
    for order in (list(reversed(case.tasks)), [*case.tasks[1:], case.tasks[0]]):
        found = update(case.build(order), {name: gradients[name] for name in order}, values)
        close(found, want, f"tasks in the order {order}")


@BALANCER.property("update(balancer, {n: zeros ...}); balancer.combine({n: zero ...})")
def zero_gradients_give_zero(case: BalancerCase) -> None:
    """Without any gradient the update is zero, and losses of zero stay finite."""
    zeros = {name: torch.zeros_like(item) for name, item in case.gradients().items()}
    for values in (None, dict.fromkeys(case.tasks, 0.0)):
        found = update(case.build(), zeros, values)
        expect(not found.any() and bool(found.isfinite().all()), f"zero gradients give {found.tolist()}.")
    one = case.gradients() | {case.tasks[0]: zeros[case.tasks[0]]}
    all_finite([("one zero gradient", update(case.build(), one))])


@BALANCER.property("make(tasks=['first']).aggregate(gradient[None], ['first'])")
def one_task_is_the_plain_gradient(case: BalancerCase) -> None:
    """With a single task the update is a positive multiple of its gradient."""
    name = case.tasks[0]
    gradient = case.gradients()[name]
    _same_direction(update(case.build([name]), {name: gradient}), gradient, f"'{name}' alone")


@BALANCER.property("update(make(tasks=['first', 'second', 'third']), gradients of two of them)")
def absent_tasks_count_for_nothing(case: BalancerCase) -> None:
    """A batch without a task gives the update of a balancer that was made without that task."""
    gradients = case.gradients()
    kept = {name: gradients[name] for name in (case.tasks[0], case.tasks[2])}
    balancer = case.build()
    close(update(balancer, kept), update(case.build(list(kept)), kept), f"tasks {list(kept)} of three")
    unknown = set(balancer.weights()) - set(case.tasks)
    expect(not unknown, f"weights() names {unknown}.")


@BALANCER.property("balancer.combine({}); balancer.aggregate(jacobian, ['no such task'])")
def unknown_and_missing_tasks_are_refused(case: BalancerCase) -> None:
    """No loss at all is a `ValueError`, an unknown task an `UnknownNameError`."""
    gradient = case.gradients()[case.tasks[0]]
    balancer = case.build()
    errors: dict[str, tuple[type[Exception], dict[str, Tensor]]] = {
        "no task": (ValueError, {}),
        "an unknown task": (UnknownNameError, {"no such task": gradient}),
    }
    for what, (kind, given) in errors.items():
        try:
            if not balancer.combines:
                rows = torch.stack(list(given.values())) if given else gradient.new_zeros(0, WIDTH)
                aggregated(balancer, rows, list(given))
            else:
                balancer.combine({name: item.sum() for name, item in given.items()})
        except kind:
            continue
        raise PropertyError(f"{what} was accepted; call self.check_tasks(names) first.")


@BALANCER.property("broken = dict(gradients, first=nan); update(balancer, broken)")
def non_finite_is_not_hidden(case: BalancerCase) -> None:
    """NaN or infinity in a loss or gradient shows in the update or the total, or is refused."""
    for bad in (torch.nan, torch.inf):
        gradients = case.gradients()
        gradients[case.tasks[0]] = gradients[case.tasks[0]].clone()
        gradients[case.tasks[0]][1] = bad
        balancer = case.build()
        try:
            if not balancer.combines:
                found = update(balancer, gradients)
            else:
                _, losses = _losses(case.gradients(), None)
                found = balancer.combine(losses | {case.tasks[0]: losses[case.tasks[0]] * bad})
        except (ValueError, ArithmeticError):
            continue
        expect(not bool(found.isfinite().all()), f"{bad} became {found.tolist()}.")


@BALANCER.property("jacobian before and after balancer.aggregate(jacobian, tasks)")
def inputs_are_left_alone(case: BalancerCase) -> None:
    """Gradients and losses that are given stay as they are, and results have their dtype and shape."""
    gradients = case.gradients()
    balancer = case.build()
    rows = torch.stack(list(gradients.values()))
    before = rows.clone()
    if not balancer.combines:
        _, losses = _losses(gradients, None)
        balancer.see_losses({name: item.detach() for name, item in losses.items()})
        found = aggregated(balancer, rows, list(gradients))
        same(rows, before, "jacobian after aggregate")
        expect(
            found.shape == (WIDTH,) and found.dtype == rows.dtype,
            f"update of shape {tuple(found.shape)} and {found.dtype}, expected ({WIDTH},) and {rows.dtype}.",
        )
    else:
        _, losses = _losses(gradients, None)
        kept = {name: item.detach().clone() for name, item in losses.items()}
        total = balancer.combine(losses)
        modules.agree_exactly({n: item.detach() for n, item in losses.items()}, kept, "losses after combine:")
        expect(total.shape == (), f"combine gives shape {tuple(total.shape)}, expected a scalar.")


@BALANCER.property("sum(w * gradients[n] for n, w in balancer.weights().items())")
def weights_are_those_used(case: BalancerCase) -> None:
    """Reported weights are finite, detached, and give the update as their weighted sum."""
    gradients = case.gradients()
    balancer = case.build()
    found = update(balancer, gradients)
    weights = balancer.weights()
    if not weights:
        raise NotApplicable("weights() is empty: the update is no weighted sum of gradients.")
    expect(set(weights) == set(case.tasks), f"weights of {list(weights)}, expected {list(case.tasks)}.")
    expect(not any(item.requires_grad for item in weights.values()), "weights() holds a graph; detach them.")
    total = torch.stack([weights[name].to(item) * item for name, item in gradients.items()]).sum(dim=0)
    close(total, found, "weighted sum of gradients")


@BALANCER.property("torch.manual_seed(1), then torch.manual_seed(2), each with a fresh balancer")
def every_process_gets_the_same(case: BalancerCase) -> None:
    """Two processes with other random streams get the same updates; the global stream is left alone."""
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        balancer = case.build()
        stream = torch.get_rng_state()
        found.append(torch.stack([update(balancer, case.gradients(call)) for call in range(3)]))
        expect(torch.equal(torch.get_rng_state(), stream), "the global generator was used.")
    same(found[1], found[0], "updates of another process")


@BALANCER.property("fresh.load_state_dict(torch.load(file, weights_only=True)), then two more calls")
def state_round_trip(case: BalancerCase) -> None:
    """Two calls, save, load into a fresh balancer and two more calls equal four calls in a row."""
    straight = modules.disturb(case.build())
    resumed = copy.deepcopy(straight)
    want = [update(straight, case.gradients(call)) for call in range(4)]
    for call in range(2):
        update(resumed, case.gradients(call))
    fresh = case.build()
    modules.reload(resumed, fresh)
    again = case.build()
    modules.reload(fresh, again)  # saved once more before any call
    for name, balancer in {"loaded": fresh, "loaded twice": again}.items():
        for call in (2, 3):
            same(update(balancer, case.gradients(call)), want[call], f"{name}, call {call}")


@BALANCER.property("balancer.combine(losses).backward(); [p.grad for p in balancer.parameters()]")
def own_parameters_learn(case: BalancerCase) -> None:
    """Learnable parameters get a finite gradient; an absent task's entries get none."""
    balancer = case.build()
    own = dict(balancer.named_parameters())
    if not own:
        raise NotApplicable("the balancer has no parameters.")
    if balancer.combines:
        _, losses = _losses(case.gradients(), None)
        balancer.combine(losses).backward()  # type: ignore[no-untyped-call]
    else:
        update(balancer, case.gradients())
        update(balancer, case.gradients(1))
    for name, item in own.items():
        expect(item.grad is not None and bool(item.grad.any()), f"no gradient reaches {name}.")
    all_finite((f"gradient of {name}", item.grad) for name, item in own.items() if item.grad is not None)


@BALANCER.property("copy.deepcopy(balancer); pickle.loads(pickle.dumps(balancer))")
def copies_are_equal(case: BalancerCase) -> None:
    """Deep copies and pickles give the balancer's next update."""
    balancer = case.build()
    update(balancer, case.gradients())
    made = modules.copied(balancer)
    want = update(balancer, case.gradients(1))
    for way, other in made.items():
        same(update(other, case.gradients(1)), want, way)


for look, claim in TRAINING:
    BALANCER.property(look)(claim)

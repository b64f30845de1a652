"""`check_step`: what every step promises, on a small network with three tasks."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from mtvision.balance import Balancer, TorchJD
from mtvision.core.sample import Batch, Sample, collate
from mtvision.core.task import Task
from mtvision.models.factory import build_network
from mtvision.models.network import Network
from mtvision.steps import Step, StepProblem
from mtvision.testing import modules
from mtvision.testing.battery import Battery, subject_of
from mtvision.testing.inputs import ToyBackbone, toy_samples, toy_tasks
from mtvision.testing.kinds.summing import all_kinds, linear, summing
from mtvision.testing.modules import Setting
from mtvision.testing.numbers import close, expect, same
from mtvision.testing.passes import Forward, forward_of
from mtvision.testing.processes import Group
from mtvision.testing.report import NotApplicable, PropertyError, Report

Gradients = dict[str, Tensor | None]


def plain_sum(step: Step, forward: Forward, batch: Batch) -> Tensor:
    """Sum of all losses of one pass over the batch."""
    del step
    report = forward(batch)
    return torch.stack([*report.losses.values(), *report.auxiliary.values()]).sum()


@dataclass(frozen=True, kw_only=True)
class StepCase:
    """A step and the scalar whose gradient it should give with weights of one.

    Args:
        make: returns a fresh step.
        setting: device and precision.
        obvious: (step, forward, batch) to that scalar, written as plainly as possible.
        backbone: config of the network's backbone, a `ToyBackbone` or a class derived from it.
    """

    make: Callable[[], Step]
    setting: Setting = field(default_factory=Setting)
    obvious: Callable[[Step, Forward, Batch], Tensor] = plain_sum
    backbone: Mapping[str, Any] = field(default_factory=lambda: {"type": ToyBackbone})

    @property
    def tasks(self) -> tuple[Task, ...]:
        """Of the network."""
        return toy_tasks()

    @property
    def names(self) -> tuple[str, ...]:
        """Of the tasks."""
        return tuple(task.name for task in self.tasks)

    def network(self) -> Network:
        """A copy of one network, in training mode."""
        return copy.deepcopy(self.original)

    @cached_property
    def original(self) -> Network:
        """A small network; one parameter is frozen and one module serves no task."""
        torch.manual_seed(0)
        decoder = {"type": "ParallelDecoder", "width": 4, "norm": "group"}
        config = {"backbone": dict(self.backbone), "decoder": decoder, "head": {"type": "ConvHead"}}
        network = self.setting.module(build_network(config, self.tasks)).train()
        network.add_module("unused", self.setting.module(nn.Linear(2, 2)))
        network.get_parameter("backbone.patches.bias").requires_grad_(False)
        return network

    def step(self) -> Step:
        """A fresh step on the device."""
        step = self.make()
        return step.to(self.setting.device) if isinstance(step, nn.Module) else step

    def samples(self, count: int = 4, lacking: Sequence[Sequence[str]] = (), seed: int = 0) -> list[Sample]:
        """Samples with labels everywhere, so that every loss is a mean over samples."""
        return toy_samples(self.tasks, count, (32, 48), seed, lacking)

    def batch(self, samples: Sequence[Sample]) -> Batch:
        """On the device."""
        batch = collate(samples).to(self.setting.device)
        return replace(batch, image=self.setting.tensor(batch.image))

    def summing(self) -> Balancer:
        """Weights of one, of the first kind that the step serves."""
        return next(iter(summing(self.names, self.step().serves).values()))()

    def problem(self, network: Network, balancer: Balancer | None = None, **options: Any) -> StepProblem:
        """What the step is given."""
        return StepProblem(
            forward_of(network, self.tasks, self.setting),
            balancer or self.summing(),
            list(network.named_parameters()),
            tasks=self.tasks,
            **options,
        )

    def stepped(
        self, batches: Sequence[Batch], balancer: Balancer | None = None, **options: Any
    ) -> Gradients:
        """Gradients of a fresh network after a fresh step on each batch."""
        network, step = self.network(), self.step()
        problem = self.problem(network, balancer, **options)
        for batch in batches:
            step(problem, batch)
        return gradients_of(network)

    def expected(self, batch: Batch) -> Gradients:
        """Gradients of the obvious scalar."""
        network = self.network()
        torch.autograd.backward(
            self.obvious(self.step(), forward_of(network, self.tasks, self.setting), batch)
        )
        return gradients_of(network)


def gradients_of(network: nn.Module) -> Gradients:
    """{parameter: gradient or None}."""
    return {
        name: None if item.grad is None else item.grad.clone() for name, item in network.named_parameters()
    }


def _agree(got: Gradients, want: Gradients, what: str, dtype: torch.dtype, factor: float = 1.0) -> None:
    for name, item in got.items():
        other = want[name]
        if item is None or other is None:
            zero = all(part is None or not bool(part.any()) for part in (item, other))
            expect(zero, f"{what} {name}: gradient {_told(item)}, expected {_told(other)}.")
        else:
            close(item * factor, other, f"{what} gradient of {name}", dtype)


def _told(gradient: Tensor | None) -> str:
    return "None" if gradient is None else f"of norm {float(gradient.norm()):.3g}"


STEP: Battery[StepCase] = Battery("step", "mtvision.testing.check_step(make, only=['{name}'])")


def check_step(
    make: Callable[[], Step],
    *,
    skip: Mapping[str, str] | None = None,
    only: Collection[str] | None = None,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    **case: Any,
) -> Report:
    """Run the properties of steps on one of them.

    Args:
        make: returns a fresh step, without arguments.
        skip: {property: reason} of those that do not apply.
        only: names of the properties to run, all by default; `properties("step")` lists them.
        device: where to run.
        dtype: `float32` or `float64`; `bfloat16` and `float16` run the network under autocast.
        case: fields of `StepCase`: `obvious`, `backbone`.

    >>> from mtvision.steps import PlainStep
    >>> from mtvision.testing import check_step
    >>> check_step(PlainStep, only=["gradients_equal_the_obvious", "gradients_add_up"]).ok
    True
    """
    made = StepCase(make=make, setting=Setting(device, dtype), **case)
    return STEP.run(subject_of(make), made, only=only, skip=skip)


@STEP.property("step(problem, batch) with FixedWeights of 1 against loss.backward() of the sum")
def gradients_equal_the_obvious(case: StepCase) -> None:
    """With weights of one the gradients are those of an obvious implementation, partial labels included."""
    full = case.batch(case.samples())
    partly = case.batch(case.samples(lacking=[["depth"], ["semseg", "normals"], []]))
    for what, batch in {"full labels:": full, "partial labels:": partly}.items():
        _agree(case.stepped([batch]), case.expected(batch), what, case.setting.dtype)


@STEP.property("step with TorchJD(aggregator='Sum') against step with FixedWeights of 1")
def both_kinds_of_balancer_agree(case: StepCase) -> None:
    """Summing the rows of the Jacobian gives what the sum of the losses gives."""
    if not {"scalar", "jacobian"} <= case.step().serves:
        raise NotApplicable("the step serves one of the kinds alone.")
    batch = case.batch(case.samples(lacking=[["depth"]]))
    found = case.stepped([batch], TorchJD(tasks=case.names, aggregator="Sum"))
    _agree(found, case.stepped([batch]), "Jacobian, sum of rows:", case.setting.dtype)


@STEP.property("gradients of heads.depth.* with TorchJD(aggregator='MGDA') and with FixedWeights of 1")
def parameters_of_one_task_are_not_balanced(case: StepCase) -> None:
    """Under a `jacobian` balancer a parameter of one task gets the plain gradient; shared ones do not."""
    if "jacobian" not in case.step().serves:
        raise NotApplicable("the step does not serve `jacobian` balancers.")
    batch = case.batch(case.samples())
    found, plain = case.stepped([batch], TorchJD(tasks=case.names, aggregator="MGDA")), case.expected(batch)
    own = {name: item for name, item in found.items() if name.startswith("heads.")}
    _agree(own, plain, "parameter of one task:", case.setting.dtype)
    shared, other = found["backbone.patches.weight"], plain["backbone.patches.weight"]
    expect(
        shared is not None and other is not None and not torch.allclose(shared, other, rtol=1e-3),
        "shared parameters got the plain gradient: the balancer was not asked.",
    )


@STEP.property("two half batches with losses halved against the whole batch")
def micro_batches_equal_the_batch(case: StepCase) -> None:
    """Two halves of a batch, each loss halved, add up to the whole batch, for both kinds of balancer."""
    samples = case.samples()
    halves = [case.batch(samples[:2]), case.batch(samples[2:])]
    for kind, make in linear(case.names, case.step().serves).items():
        found = case.stepped(
            halves, make(), scale=lambda loss: loss / 2, backward=lambda loss: (loss / 2).backward()
        )
        _agree(found, case.stepped([case.batch(samples)], make()), f"{kind}, halves:", case.setting.dtype)


@STEP.property("two processes with half a batch each; problem.average is the mean over both")
def processes_equal_one(case: StepCase) -> None:
    """Two processes with half a batch each end with the gradients of one with the whole batch."""
    samples = case.samples()
    for kind, make in all_kinds(case.names, case.step().serves).items():
        group = Group(2)
        averages = case.step().averages_gradients(make())
        members = [
            partial(case.stepped, [case.batch(part)], make(), average=group.average, gather=group.gather)
            for part in (samples[:2], samples[2:])
        ]
        first, second = group.run(members)
        if averages:
            _agree(second, first, f"{kind}, second process:", torch.float64)
        else:  # data parallel hooks average them
            first = {name: _mean(item, second[name]) for name, item in first.items()}
        _agree(first, case.stepped([case.batch(samples)], make()), f"{kind}, processes:", case.setting.dtype)


def _sum(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    return None if first is None or second is None else first + second


def _mean(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    total = _sum(first, second)
    return None if total is None else total / 2


@STEP.property("batch without any depth label: network.heads['depth'].weight.grad, logs")
def absent_tasks_are_left_out(case: StepCase) -> None:
    """A task without labels in the batch gets no gradient and no log, for both kinds of balancer."""
    batch = case.batch(case.samples(lacking=[["depth"]] * 4))
    for kind, make in linear(case.names, case.step().serves).items():
        network = case.network()
        logs = case.step()(case.problem(network, make()), batch)
        for name, item in gradients_of(network).items():
            if "depth" in name.split("."):
                idle = item is None or not bool(item.any())
                expect(idle, f"{kind}: {name} has a gradient without any label of depth.")
        named = [name for name in logs if name.endswith("/depth")]
        expect(not named, f"{kind}: {named} is logged without any label of depth.")


@STEP.property("step(problem, collate(samples without labels))")
def empty_batch_is_refused(case: StepCase) -> None:
    """A batch without any label raises a `ValueError` that names its images."""
    batch = case.batch(case.samples(2, lacking=[case.names] * 2))
    for kind, make in linear(case.names, case.step().serves).items():
        try:
            case.step()(case.problem(case.network(), make()), batch)
        except ValueError as error:
            expect("toy-0" in str(error), f"{kind}: the message names no image: {error}")
            continue
        raise PropertyError(f"{kind}: a batch without any label was accepted.")


@STEP.property("p.grad before and after a second step(problem, batch)")
def gradients_add_up(case: StepCase) -> None:
    """A step adds to `.grad` and leaves frozen and unused parameters without gradient."""
    first, second = case.batch(case.samples(2)), case.batch(case.samples(2, seed=1))
    for kind, make in linear(case.names, case.step().serves).items():
        both = case.stepped([first, second], make())
        parts = [case.stepped([batch], make()) for batch in (first, second)]
        total = {name: _sum(item, parts[1][name]) for name, item in parts[0].items()}
        _agree(both, total, f"{kind}, two steps:", case.setting.dtype)
        for name in ("unused.weight", "backbone.patches.bias"):
            expect(both[name] is None, f"{kind}: {name} is unused or frozen, but has a gradient.")


@STEP.property("problem.scale = lambda loss: 1024 * loss; p.grad / 1024")
def loss_scale_is_invisible(case: StepCase) -> None:
    """Scaled losses give gradients scaled alike, for both kinds of balancer."""
    batch = case.batch(case.samples())
    for kind, make in all_kinds(case.names, case.step().serves).items():
        found = case.stepped(
            [batch], make(), scale=lambda loss: loss * 1024, backward=lambda loss: (loss * 1024).backward()
        )
        _agree(found, case.stepped([batch], make()), f"{kind}, scaled:", case.setting.dtype, factor=1 / 1024)


@STEP.property("{n: (v.shape, v.requires_grad) for n, v in step(problem, batch).items()}")
def logs_are_detached_scalars(case: StepCase) -> None:
    """Logs are detached scalars: a loss for each task with labels, and `total`."""
    batch = case.batch(case.samples(lacking=[["depth"]] * 4))
    for kind, make in linear(case.names, case.step().serves).items():
        logs = case.step()(case.problem(case.network(), make()), batch)
        wanted = {"total", *(f"loss/{name}" for name in case.names if name != "depth")}
        expect(wanted <= set(logs), f"{kind}: {sorted(logs)} lacks {sorted(wanted - set(logs))}.")
        for name, item in logs.items():
            good = isinstance(item, Tensor) and item.shape == () and not item.requires_grad
            expect(good, f"{kind}: '{name}' is no detached scalar.")


@STEP.property("batch before and after step(problem, batch); network.state_dict() likewise")
def batch_and_weights_are_left_alone(case: StepCase) -> None:
    """A step changes gradients alone: neither the batch nor any weight."""
    batch, network = case.batch(case.samples(2)), case.network()
    kept = {"image": batch.image.clone(), **{name: item.clone() for name, item in batch.labels.items()}}
    state = copy.deepcopy(network.state_dict())
    case.step()(case.problem(network), batch)
    for name, item in {"image": batch.image, **batch.labels}.items():
        same(item, kept[name], f"{name} after the step")
    modules.agree_exactly(network.state_dict(), state, "weights after the step:")


@STEP.property("fresh.load_state_dict(step.state_dict()), then one more call")
def state_round_trip(case: StepCase) -> None:
    """Saved state loads into a fresh step, which then gives the same gradients."""
    step, fresh = case.step(), case.step()
    if not isinstance(step, nn.Module) or not isinstance(fresh, nn.Module):
        raise NotApplicable("the step is no nn.Module: it keeps nothing that a checkpoint needs.")
    batch, network = case.batch(case.samples(2)), case.network()
    for _ in range(2):
        step(case.problem(network), batch)
    modules.reload(step, fresh)
    found = []
    for one in (step, fresh):
        network.zero_grad(set_to_none=True)
        one(case.problem(network), batch)
        found.append(gradients_of(network))
    _agree(found[1], found[0], "loaded step:", torch.float64)
    expect(str(step.state_dict()) == str(fresh.state_dict()), "the states differ after one more call.")


@STEP.property("copy.deepcopy(step); pickle.loads(pickle.dumps(step))")
def copies_are_equal(case: StepCase) -> None:
    """Deep copies and pickles of a used step give its next gradients."""
    step, batch, network = case.step(), case.batch(case.samples(2)), case.network()
    step(case.problem(network), batch)
    made = modules.copied(step)
    found = {}
    for way, one in {"itself": step, **made}.items():
        network.zero_grad(set_to_none=True)
        one(case.problem(network), batch)
        found[way] = gradients_of(network)
    for way in made:
        _agree(found[way], found["itself"], f"{way}:", torch.float64)

"""`check_merger`: what every merger promises, on random states and on a small network that uses them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mtvision.core.sample import Batch, Meta
from mtvision.core.task import Task
from mtvision.merge.learned.problem import MergeProblem
from mtvision.merge.states import MergeError, State
from mtvision.protocols.tasks import edge, semseg, values
from mtvision.testing.battery import Battery, subject_of
from mtvision.testing.modules import Setting
from mtvision.testing.numbers import all_finite, close_to, expect, same
from mtvision.testing.report import NotApplicable, PropertyError, Report

Merger = Callable[..., Mapping[str, Any]]
TASKS = (edge(), semseg(("floor", "wall", "window")), values())
SHAPES = {
    "stem.weight": (4, 3, 3, 3),
    "norm.weight": (4,),
    "norm.bias": (4,),
    "mix.weight": (5, 4),
    "mix.scale": (),
}
MEAN, VAR, COUNTER, INDEX = "norm.running_mean", "norm.running_var", "norm.num_batches_tracked", "mix.index"


class _ReadOnly(Mapping[str, Any]):
    """A state whose every read gives a tensor of its own, as a file does."""

    def __init__(self, state: Mapping[str, Any]) -> None:
        self._state = state

    def __iter__(self) -> Iterator[str]:
        return iter(self._state)

    def __len__(self) -> int:
        return len(self._state)

    def __getitem__(self, name: str) -> Any:
        return self._state[name].clone()


def predict(state: State, batch: Batch, names: Sequence[str]) -> dict[str, Tensor]:
    """Logits of a network of one convolution, a batch norm, one mixing layer and a factor per task."""
    x = F.conv2d(batch.image, state["stem.weight"], padding=1)
    x = F.batch_norm(x, state[MEAN], state[VAR], state["norm.weight"], state["norm.bias"])
    logits = torch.einsum("oc,bchw->bohw", state["mix.weight"], x.tanh()) * (1 + state["mix.scale"])
    maps = dict(zip([task.name for task in TASKS], logits.split([1, 3, 1], dim=1), strict=True))
    return {name: maps[name] * state.get(f"heads.{name}.scale", 1.0) for name in names}


@dataclass(frozen=True, kw_only=True)
class MergerCase:
    """A merger and how it keeps everything.

    Args:
        make: the merger, called with `base`, `parents`, and `problem` and `task` if it has them.
        setting: device and precision; half precision means float32.
        keep_all: options with which one parent is returned; None where there are none. A `scale` is set to 1.
    """

    make: Merger
    setting: Setting = field(default_factory=Setting)
    keep_all: Mapping[str, Any] | None = field(default_factory=dict)

    def has(self, option: str) -> bool:
        """Whether the merger has an option."""
        return option in inspect.signature(self.make).parameters

    def state(self, seed: int, near: State | None = None) -> dict[str, Tensor]:
        """A random state, fine-tuned from `near` if that is given."""
        stream = torch.Generator().manual_seed(seed)
        found = {name: torch.randn(shape, generator=stream) for name, shape in SHAPES.items()}
        if near is not None:
            found = {name: near[name].cpu().float() + 0.1 * item for name, item in found.items()}
        found[MEAN], found[VAR] = torch.randn(4, generator=stream), torch.rand(4, generator=stream)
        found = {name: item.to(self.setting.real) for name, item in found.items()}
        return {**found, COUNTER: torch.tensor(100 + seed), INDEX: torch.arange(6)}

    def states(self) -> tuple[dict[str, Tensor], dict[str, State]]:
        """A base, and one parent for each of three tasks."""
        base = self.state(0)
        return base, {task.name: self.state(seed, base) for seed, task in enumerate(TASKS, start=1)}

    def problem(self, tasks: Sequence[Task]) -> MergeProblem:
        """Two batches of two images with labels."""
        stream, found, size = torch.Generator().manual_seed(9), [], (3, 4)
        for number in range(2):
            image = torch.randn(2, 3, *size, generator=stream)
            labels = {
                "semseg": torch.randint(3, (2, *size), generator=stream),
                "values": torch.randn(2, 1, *size, generator=stream),
                "edge": (torch.rand(2, 1, *size, generator=stream) < 0.3).float(),
            }
            meta = [Meta(id=f"{number}-{one}", size=size, original_size=size) for one in range(2)]
            names = [task.name for task in tasks]
            found.append(
                Batch(
                    image=self.setting.tensor(image),
                    labels={name: self.setting.tensor(labels[name]) for name in names},
                    present={name: torch.ones(2, dtype=torch.bool) for name in names},
                    meta=meta,
                )
            )
        own = {task.name: {f"heads.{task.name}.scale": self.setting.tensor(torch.ones(()))} for task in tasks}
        return MergeProblem(
            tasks=tasks,
            predict=predict,
            batches=lambda: iter(found),
            own=own,
            device=torch.device(self.setting.device),
        )

    def merge(self, base: State, parents: Mapping[str, State], **options: Any) -> dict[str, Any]:
        """Call the merger; the result without the tensors of single tasks."""
        given = dict(options)
        if self.has("task"):
            given["task"] = next(iter(sorted(parents)))
        if self.has("problem"):
            given["problem"] = self.problem([task for task in TASKS if task.name in parents])
        found = self.make(base=base, parents=parents, **given)
        return {name: item for name, item in found.items() if not name.startswith("heads.")}


MERGER: Battery[MergerCase] = Battery("merger", "mtvision.testing.check_merger(make, only=['{name}'])")


def check_merger(
    make: Merger,
    *,
    skip: Mapping[str, str] | None = None,
    only: Collection[str] | None = None,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    **case: Any,
) -> Report:
    """Run the properties of mergers on one of them.

    Args:
        make: the function; bind options that it needs, and a few steps if it learns, with `partial`.
        skip: {property: reason} of those that do not apply.
        only: names of the properties to run, all by default; `properties("merger")` lists them.
        device: where mergers that learn compute.
        dtype: of the weights; half precision means float32.
        case: fields of `MergerCase`: `keep_all`.

    >>> from mtvision.merge.task_arithmetic import task_arithmetic
    >>> from mtvision.testing import check_merger
    >>> check_merger(task_arithmetic).ok
    True
    """
    made = MergerCase(make=make, setting=Setting(device, dtype), **case)
    return MERGER.run(subject_of(make), made, only=only, skip=skip)


def _alike(got: Mapping[str, Any], want: Mapping[str, Any], what: str) -> None:
    """Equal to the last bit; weights in float64 to rounding, because arithmetic is not finer than that."""
    expect(list(got) == list(want), f"{what}: tensors {list(got)}, expected {list(want)}.")
    for name, item in want.items():
        if item.dtype == torch.float64:
            close_to(got[name], item, f"{what} '{name}'", tolerance=1e-12)
        else:
            same(got[name], item, f"{what} '{name}'")


def _copy(state: State) -> dict[str, Tensor]:
    return {name: item.clone() for name, item in state.items()}


@MERGER.property("{n: (x.shape, x.dtype) for n, x in make(base, parents).items()}")
def form_is_that_of_the_base(case: MergerCase) -> None:
    """The result has the names, shapes and types of the base, and no NaN."""
    base, parents = case.states()
    found = case.merge(base, parents)
    expect(list(found) == list(base), f"tensors {list(found)}, expected {list(base)}.")
    for name, item in base.items():
        got = (tuple(found[name].shape), found[name].dtype, found[name].device)
        want = (tuple(item.shape), item.dtype, item.device)
        expect(got == want, f"'{name}' is {got}, expected {want}.")
        expect(not found[name].requires_grad, f"'{name}' holds a graph; detach it.")
    all_finite((name, item) for name, item in found.items() if item.is_floating_point())


@MERGER.property("make(base, {'semseg': parent}, scale=1.0, **keep_all)")
def one_parent_is_returned(case: MergerCase) -> None:
    """One parent with scale 1 and nothing dropped is returned: weights, statistics and counters."""
    if case.keep_all is None:
        raise NotApplicable("no options keep everything.")
    base, parents = case.states()
    scale = {"scale": 1.0} if case.has("scale") else {}
    only = {"semseg": parents["semseg"]}
    _alike(case.merge(base, only, **case.keep_all, **scale), parents["semseg"], "the only parent")


@MERGER.property("make(base, {'semseg': base, 'values': base})")
def equal_states_stay(case: MergerCase) -> None:
    """Parents that are the base give the base."""
    base, parents = case.states()
    _alike(case.merge(base, dict.fromkeys(parents, base)), base, "the base")


@MERGER.property("make(base, parents, scale=0.0, **keep_all)")
def scale_0_is_the_base(case: MergerCase) -> None:
    """With scale 0 weights and statistics are the base's; counters are the largest."""
    if not case.has("scale") or case.keep_all is None:
        raise NotApplicable("the merger has no scale, or nothing keeps everything.")
    base, parents = case.states()
    counter = torch.stack([item[COUNTER] for item in parents.values()]).amax(dim=0)
    _alike(case.merge(base, parents, **case.keep_all, scale=0.0), {**base, COUNTER: counter}, "the base")


@MERGER.property("make(base, dict(reversed(parents.items())))")
def order_of_parents_is_irrelevant(case: MergerCase) -> None:
    """Parents in another order give the same."""
    base, parents = case.states()
    want = case.merge(base, parents)
    _alike(case.merge(base, dict(reversed(parents.items()))), want, "reversed parents")


@MERGER.property("torch.manual_seed(1), then torch.manual_seed(2), before make(base, parents)")
def same_call_gives_the_same(case: MergerCase) -> None:
    """A second call gives the same, whatever the global random state, which is left alone."""
    base, parents = case.states()
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        found.append(case.merge(base, parents))
        expect(torch.equal(torch.get_rng_state(), before), "the global generator was used.")
    for name, item in found[0].items():
        same(found[1][name], item, f"second call '{name}'")


@MERGER.property("base and parents before and after make(base, parents)")
def inputs_are_left_alone(case: MergerCase) -> None:
    """Nothing that is given changes, and the result shares no memory with it."""
    base, parents = case.states()
    given = {"the base": base, **parents}
    before = {name: _copy(state) for name, state in given.items()}
    found = case.merge(base, parents)
    for label, state in given.items():
        for name, item in state.items():
            same(item, before[label][name], f"{label} '{name}' after the call")
    places = {
        item.data_ptr(): f"{label} '{name}'" for label, one in given.items() for name, item in one.items()
    }
    for name, item in found.items():
        expect(item.data_ptr() not in places, f"'{name}' is the tensor {places.get(item.data_ptr())}.")


@MERGER.property("make(ReadOnly(base), {task: ReadOnly(state) ...})")
def states_may_lie_in_files(case: MergerCase) -> None:
    """States may be any mapping that cannot be written to and makes a tensor anew for each read."""
    base, parents = case.states()
    want = case.merge(base, parents)
    found = case.merge(_ReadOnly(base), {name: _ReadOnly(item) for name, item in parents.items()})
    for name, item in want.items():
        same(found[name], item, f"'{name}' of read-only states")


@MERGER.property("make(base, parents)['norm.running_var'] with parents whose variances are 0 and 100")
def statistics_are_possible(case: MergerCase) -> None:
    """Running statistics lie between those of base and parents; counters are the largest, indices equal."""
    base, parents = case.states()
    extremes = zip(parents.items(), (0.0, 100.0, 1.0), strict=True)
    changed = {name: {**state, VAR: torch.full_like(state[VAR], value)} for (name, state), value in extremes}
    found = case.merge(base, changed)
    for name in (MEAN, VAR):
        seen = torch.stack([state[name] for state in (base, *changed.values())]).double()
        low, high, item = seen.amin(dim=0), seen.amax(dim=0), found[name].double()
        slack = 1e-6 * (1 + seen.abs().amax(dim=0))
        inside = bool(((item >= low - slack) & (item <= high + slack)).all())
        expect(inside, f"'{name}' is {item.tolist()}, outside of {low.tolist()} .. {high.tolist()}.")
    largest = max(int(state[COUNTER]) for state in parents.values())
    expect(int(found[COUNTER]) == largest, f"the counter is {int(found[COUNTER])}, expected {largest}.")
    same(found[INDEX], base[INDEX], f"'{INDEX}'")


@MERGER.property("make(base, parents) with convolutions stored channels last")
def memory_formats_are_irrelevant(case: MergerCase) -> None:
    """Weights stored channels last give the same up to rounding."""
    base, parents = case.states()
    want = case.merge(base, parents)

    def stored(state: State) -> dict[str, Any]:
        last = state["stem.weight"].contiguous(memory_format=torch.channels_last)
        return {**state, "stem.weight": last}

    found = case.merge(stored(base), {name: stored(item) for name, item in parents.items()})
    for name, item in want.items():
        close_to(found[name], item, f"'{name}' of channels last", tolerance=1e-4)


_MISFITS: Mapping[str, Callable[[dict[str, Any]], Any]] = {
    "a missing tensor": lambda state: state.pop("mix.weight"),
    "an unknown tensor": lambda state: state.update(extra=state["norm.bias"]),
    "another shape": lambda state: state.update({"norm.bias": torch.zeros(5)}),
    "a NaN": lambda state: state.update({"norm.bias": state["norm.bias"] * torch.nan}),
    "other whole numbers": lambda state: state.update({INDEX: state[INDEX] + 1}),
}


@MERGER.property("make(base, {'semseg': parent with a NaN, ...})")
def misfits_are_refused(case: MergerCase) -> None:
    """A parent with other names, shapes or whole numbers, or with NaN, raises a `MergeError` of one line."""
    for what, change in _MISFITS.items():
        base, parents = case.states()
        wrong = dict(parents["semseg"])
        change(wrong)
        message = _refusal(partial(case.merge, base, {**parents, "semseg": wrong}), what)
        expect("\n" not in message, f"{what}: the message has several lines: {message!r}.")


def _refusal(call: Callable[[], Any], what: str) -> str:
    try:
        call()
    except MergeError as error:
        return str(error)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise PropertyError(f"{what} raises {type(error).__name__}, expected MergeError.") from error
    raise PropertyError(f"{what} is merged without an error.")

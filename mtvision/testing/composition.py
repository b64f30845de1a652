"""What adapters promise beside other parts: decoders, rules over gradients, widths, several processes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from mtvision.balance import Balancer, FixedWeights, TorchJD, UPGrad
from mtvision.core.context import means_over
from mtvision.core.sample import Batch
from mtvision.core.task import Task
from mtvision.models.factory import build_network
from mtvision.models.network import Network
from mtvision.steps import PlainStep, StepProblem
from mtvision.testing import modules
from mtvision.testing.inputs import random_image, toy_batch
from mtvision.testing.modules import Setting
from mtvision.testing.numbers import all_finite, expect
from mtvision.testing.passes import forward_of
from mtvision.testing.processes import Group
from mtvision.testing.report import NotApplicable, PropertyError

IMAGES = 4
"""Of a batch; two processes have half of it each."""
TOLERANCE = 1e-5
"""Of gradients in float64, as a share of a tensor's peak; routers and trees compute in float32."""

Gradients = dict[str, Tensor]


class Case(Protocol):
    """What is read of an adapter in a network, see `mtvision.testing.kinds.adapters.AdapterCase`."""

    @property
    def setting(self) -> Setting:
        """Device and precision."""

    @property
    def decoder(self) -> Mapping[str, Any]:
        """Config of the decoder."""

    @property
    def decoders(self) -> Sequence[Mapping[str, Any]]:
        """Configs of further decoders."""

    @property
    def tasks(self) -> Sequence[Task]:
        """Of the network."""

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the images."""

    @property
    def entry(self) -> dict[str, Any]:
        """The adapter's config entry."""

    @property
    def network(self) -> Network:
        """Disturbed, in evaluation mode."""

    @property
    def image(self) -> Tensor:
        """Three images."""

    def config(self) -> dict[str, Any]:
        """Config of the network."""

    def build(self) -> Network:
        """A fresh network."""

    def run(self, network: Network, image: Tensor) -> dict[str, Tensor]:
        """Logits without graph."""


def trains_with_every_decoder(case: Case) -> None:
    """With every decoder of `decoders` a training pass gives finite gradients, or is refused by name."""
    for decoder in (case.decoder, *case.decoders):
        with _refusals(case, _name(decoder)):
            _check_pass(case, _built(case, {"decoder": decoder}), _name(decoder))


def rules_over_gradients_agree(case: Case) -> None:
    """The sum of the tasks' gradients is the gradient of the sum, and UPGrad from products is UPGrad from the
    matrix.
    """
    names = [task.name for task in case.tasks]
    batch = _batch(case, 2)
    plain = _step(case, batch)
    summed = _step(case, batch, balancer=TorchJD(tasks=names, aggregator="Sum"))
    _agree(summed, plain, "sum of the rows")
    found = _step(case, batch, PlainStep(products="stages"), UPGrad(tasks=names))
    wanted = _step(case, batch, PlainStep(products="matrix"), UPGrad(tasks=names))
    _agree(found, wanted, "UPGrad from products")


def slims_or_is_refused(case: Case) -> None:
    """Behind the adapter `Slimmable` keeps logits at full width, or the build is refused by name."""
    with _refusals(case):
        network = _built(case, {"adapters": [*case.config()["adapters"], {"type": "Slimmable"}]})
        state = network.eval().state_dict()
        plain = case.build().eval()
        plain.load_state_dict({name: state[name] for name in plain.state_dict()})
        modules.agree_exactly(case.run(network, case.image), case.run(plain, case.image), "full width:")
        _check_pass(case, network.train(), "Slimmable")


def halves_average_to_the_whole(case: Case) -> None:
    """Gradients of two processes with half a batch each, averaged, are those of one with the whole batch.

    Batch norms and dropout are in evaluation mode. Regularisers that are no means over samples exchange what
    they read (`mtvision.core.context.batch_mean`).
    """
    batch = _batch(case, IMAGES)
    whole, again = (_step(case, batch, seed=seed) for seed in (0, 1))
    if any(not torch.equal(again[name], item) for name, item in whole.items()):
        raise NotApplicable("training draws random numbers, others on each process.")
    group = Group(2)
    halves = (slice(0, IMAGES // 2), slice(IMAGES // 2, IMAGES))
    for mine in group.run([partial(_step, case, _part(batch, half), group=group) for half in halves]):
        _agree(mine, whole, "two processes")


def _name(config: Mapping[str, Any]) -> str:
    kind = config["type"]
    return kind if isinstance(kind, str) else str(kind.__name__)


def _built(case: Case, changes: Mapping[str, Any]) -> Network:
    """A network in training mode with other parts."""
    torch.manual_seed(0)
    config = copy.deepcopy({**case.config(), **changes})
    return case.setting.module(build_network(config, tuple(case.tasks))).train()


@contextmanager
def _refusals(case: Case, *names: str) -> Iterator[None]:
    """Accept errors that name the adapter, one of `names`, or a module of the network."""
    try:
        yield
    except (TypeError, ValueError) as error:
        paths = [path for path, _ in case.network.named_modules() if "." in path]
        if not any(name in str(error) for name in (_name(case.entry), *names, *paths)):
            raise PropertyError(f"the refusal names none of the parts: {error}") from error


def _check_pass(case: Case, network: Network, what: str) -> None:
    """One pass in training mode: logits have their sizes, and what it changes has finite gradients."""
    image = case.setting.tensor(random_image(2, case.size))
    with case.setting.autocast():
        output = network.outputs(image)
    for task in case.tasks:
        size, wanted = tuple(output.logits[task.name].shape), (2, task.out_channels, *case.size)
        expect(size == wanted, f"{what}: logits of '{task.name}' have shape {size}, expected {wanted}.")
    maps = [*output.logits.values(), *(item.logits for item in output.auxiliary)]
    losses = [item.float().square().mean() for item in maps] + list(network.auxiliary_losses().values())
    torch.autograd.backward(torch.stack(losses).sum())
    gradients = {name: item.grad for name, item in network.named_parameters() if item.grad is not None}
    all_finite((f"{what}: gradient of {name}", item) for name, item in gradients.items())
    for part in ("backbone", "decoder", "heads"):
        own = {name: item for name, item in network.named_parameters() if name.startswith(f"{part}.")}
        trained = [name for name, item in own.items() if item.requires_grad]
        reached = any(bool(gradients[name].any()) for name in trained if name in gradients)
        expect(reached or not trained, f"{what}: no parameter of {part} has a gradient.")


def _batch(case: Case, count: int) -> Batch:
    batch = toy_batch(case.tasks, count, case.size).to(case.setting.device)
    return replace(batch, image=batch.image.double())


def _part(batch: Batch, half: slice) -> Batch:
    """Some samples of a batch."""
    labels, present = ({n: item[half] for n, item in part.items()} for part in (batch.labels, batch.present))
    return Batch(batch.image[half], labels, present, batch.meta[half])


def _step(
    case: Case,
    batch: Batch,
    step: PlainStep | None = None,
    balancer: Balancer | None = None,
    *,
    seed: int = 0,
    group: Group | None = None,
) -> Gradients:
    """Gradients of a copy of the network in float64 after a step; means over the members of a group."""
    network = copy.deepcopy(case.network).double().train()
    for module in network.modules():
        if any(word in type(module).__name__ for word in ("BatchNorm", "Drop")):
            module.eval()
    names = [task.name for task in case.tasks]
    rule = balancer or FixedWeights(tasks=names, weights=dict.fromkeys(names, 1.0))
    forward = forward_of(network, case.tasks, Setting(case.setting.device, torch.float64))
    problem = StepProblem(forward, rule.double().to(case.setting.device), list(network.named_parameters()))
    if group is not None:
        problem = replace(problem, average=group.average, gather=group.gather)
    torch.manual_seed(seed)
    with means_over(None if group is None else group.average):
        (step or PlainStep())(problem, batch)
    found = {name: item for name, item in network.named_parameters() if item.requires_grad}
    gradients = [torch.zeros_like(item) if item.grad is None else item.grad for item in found.values()]
    return dict(zip(found, problem.average(gradients), strict=True))


def _agree(got: Gradients, want: Gradients, what: str) -> None:
    """Gradients are equal to rounding; what is rounding of the largest one is no difference."""
    largest = max(float(item.abs().max()) for item in want.values())
    for name, item in want.items():
        apart = float((got[name] - item).abs().max())
        peak = max(float(item.abs().max()), TOLERANCE * largest)
        expect(
            apart <= TOLERANCE * peak,
            f"{what}: gradient of {name} differs by {apart:.3g}, its largest value is {peak:.3g}.",
        )


COMPOSITION: tuple[tuple[str, Callable[[Case], None]], ...] = (
    ("build_network({**config, 'decoder': other}, tasks).outputs(image)", trains_with_every_decoder),
    ("PlainStep()(problem, batch) with TorchJD(aggregator='Sum')", rules_over_gradients_agree),
    ("build_network with adapters=[..., dict(type='Slimmable')]", slims_or_is_refused),
    ("halves of a batch in `mtvision.testing.processes.Group(2)`", halves_average_to_the_whole),
)
"""(expressions that show the fault, property)."""

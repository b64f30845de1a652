"""Conversions tested by outputs: the converted network must predict what the authors' network predicts.

`check_outputs` draws a checkpoint under the authors' names and loads its conversion into our network. It
compares with a forward pass from plain tensor operations, which reads tensors by the authors' names.
`compares` marks the tests that do so; `test_convert_checkpoint` asks for one for every source.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping

import pytest
import torch
from torch import nn

from mtvision.models.convert import SOURCES, convert, revert

TOLERANCE = 1e-9
"""Of outputs, relative to the largest; in double precision they differ by rounding alone."""
ROUNDS = 4
"""Checkpoints that are drawn at most."""
_COMPARED: list[str] = []


class Checkpoint(Mapping[str, torch.Tensor]):
    """Tensors by the authors' names, which notes what is read."""

    def __init__(self, state: Mapping[str, torch.Tensor]) -> None:
        self.state, self.read = dict(state), set()

    def __getitem__(self, key: str) -> torch.Tensor:
        value = self.state[key]
        self.read.add(key)
        return value

    def __contains__(self, key: object) -> bool:
        return key in self.state

    def __iter__(self) -> Iterator[str]:
        return iter(self.state)

    def __len__(self) -> int:
        return len(self.state)


def compares(*sources: str):
    """Mark a test that compares outputs for these sources; it fails if it does not do so for one of them."""

    def mark(test):
        @functools.wraps(test)
        def marked(*arguments, **options):
            _COMPARED.clear()
            result = test(*arguments, **options)
            assert _COMPARED, f"{test.__name__} says that it compares outputs of {sources}, but does not"
            assert set(_COMPARED) <= set(sources), f"{test.__name__} compares {_COMPARED}, marked {sources}"
            return result

        return pytest.mark.slow(marked)  # whole networks in double precision, twice

    unknown = set(sources) - set(SOURCES)
    assert not unknown, f"no such sources: {unknown}"
    return mark


@torch.no_grad()
def random_tensors(template: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors of the template's shapes with random values, biases and running statistics included.

    Weights have unit gain, so that attention, gates and scans are far from trivial.
    """
    drawn = {}
    for key, value in template.items():
        last = key.rpartition(".")[2]
        if not value.is_floating_point():
            drawn[key] = value.clone()
        elif last == "running_var":
            drawn[key] = torch.empty_like(value).uniform_(0.5, 2)
        elif value.ndim < 2:
            drawn[key] = torch.empty_like(value).normal_(1.0 if last == "weight" else 0.0, 0.3)
        else:
            fan_in = value.shape[-1] if value.ndim == 3 else value[0].numel()
            drawn[key] = torch.empty_like(value).normal_(0, fan_in**-0.5)
    return drawn


@torch.no_grad()
def _near_those_of_the_data(network, run, image):
    """Running statistics around those of the maps, so that no network of many blocks saturates."""
    norms = [(name, item) for name, item in network.named_modules() if isinstance(item, nn.BatchNorm2d)]
    momenta = [item.momentum for _, item in norms]
    for _, item in norms:
        item.train().momentum = 1.0
    run(network, image)
    for (_, item), momentum in zip(norms, momenta, strict=True):
        item.eval().momentum = momentum
    drawn = {}
    for name, item in norms:
        var = item.running_var * torch.empty_like(item.running_var).uniform_(0.6, 1.6) + 1e-3
        drawn[f"{name}.running_mean"] = item.running_mean + 0.3 * var.sqrt() * torch.randn_like(var)
        drawn[f"{name}.running_var"] = var
    return drawn


def check_outputs(source, network, forward, image, *, run=None, idle=(), extra=None):
    """Both ways of a conversion, by outputs. `network` holds the values of a converted checkpoint afterwards.

    Args:
        source: of the conversion.
        network: ours; its keys are those of a `Network`, or of a part of it.
        forward: (checkpoint, image) to {name: output}, from plain operations on the authors' tensors.
        image: input of both.
        run: (network, image) to {name: output}; by default the network is called.
        idle: endings of the names of exactly those tensors that move no output, by the formulas.
        extra: tensors that the authors' files hold beside those of `revert`.

    Returns:
        The checkpoint, under the authors' names.
    """
    run = run or (lambda module, x: module(x))
    network.double().eval()
    silent = None
    for _ in range(ROUNDS):
        checkpoint, dropped = _draw(source, network, run, image, extra or {})
        want = forward(checkpoint, image)
        _compare(f"{source}: outputs", run, network, image, want)
        untouched = _without_counters(set(checkpoint) - checkpoint.read)
        assert untouched == dropped, (
            f"{source}: not read, {untouched - dropped}; not needed, {dropped - untouched}"
        )
        _a_changed_weight_shows(network, run, image, want)
        back = revert(network.state_dict(), source)[0]
        _compare(f"{source}: outputs of reverted weights", forward, back, image, want)
        _COMPARED.append(source)
        found = _silent_tensors(checkpoint, want)
        silent = found if silent is None else silent & found
        expected = {key for key in checkpoint.read if key.endswith(tuple(idle))}
        if silent == expected:
            return checkpoint
    raise AssertionError(f"{source}: silent or declared idle, not both: {sorted(silent ^ expected)[:5]}")


def _draw(source, network, run, image, extra):
    """A checkpoint, loaded into the network, and the names that the conversion drops."""
    official = random_tensors({**revert(network.state_dict(), source)[0], **extra})
    ours, report = convert(official, source)
    network.load_state_dict(ours)  # strict
    statistics = _near_those_of_the_data(network, run, image)
    whole = revert({**network.state_dict(), **statistics}, source)[0]
    official |= {key: value for key, value in whole.items() if ".running_" in key}
    network.load_state_dict(convert(official, source)[0])
    tensors = {key: value.requires_grad_(value.is_floating_point()) for key, value in official.items()}
    return Checkpoint(tensors), _without_counters(report.dropped)


def backbone_alone(backbone):
    """(network, run) for `check_outputs` of a backbone: its levels by number."""
    network = nn.ModuleDict({"backbone": backbone})
    return network, lambda module, image: dict(enumerate(module["backbone"](image).maps))


def _without_counters(keys):
    return {key for key in keys if not key.endswith("num_batches_tracked")}


def _largest_difference(got, want):
    assert got.keys() == want.keys()
    worst = 0.0
    for name, item in want.items():
        assert got[name].shape == item.shape
        assert got[name].isfinite().all()
        assert item.std() > 0.05 * item.abs().max()  # the comparison is about something
        worst = max(worst, float(((got[name] - item).abs().max() / item.abs().max()).detach()))
    return worst


@torch.no_grad()
def _compare(what, function, weights, image, want):
    worst = _largest_difference(function(weights, image), want)
    assert worst < TOLERANCE, f"{what} differ by {worst:.1e}"


def _silent_tensors(checkpoint, want):
    """Tensors that are read and do not move the outputs by far more than the tolerance.

    A single unit that is off and an expert that no image takes are silent in one draw, but not in all.
    """
    total = sum(
        (torch.randn_like(item) * item / item.std()).sum() / item.numel() ** 0.5 for item in want.values()
    )
    keys = [key for key in sorted(checkpoint.read) if checkpoint[key].requires_grad]
    gradients = torch.autograd.grad(total, [checkpoint[key] for key in keys])
    return {
        key
        for key, gradient in zip(keys, gradients, strict=True)
        if float((gradient * checkpoint[key].detach()).abs().max()) < 1e4 * TOLERANCE
    }


@torch.no_grad()
def _a_changed_weight_shows(network, run, image, want):
    """One number of one tensor, changed in our network, is a difference that the comparison sees."""
    name, tensor = next((key, item) for key, item in network.named_parameters() if item.ndim > 1)
    before = tensor.view(-1)[0].clone()
    tensor.view(-1)[0] += 0.1
    assert _largest_difference(run(network, image), want) > 100 * TOLERANCE, name
    tensor.view(-1)[0] = before

"""What batteries of `nn.Module`s share: where they compute, disturbed weights, copies, gradients, export."""

from __future__ import annotations

import copy
import io
import pickle
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from mtvision.testing.numbers import TOLERANCES, close, expect, same
from mtvision.testing.report import PropertyError

Module = TypeVar("Module", bound=nn.Module)
T = TypeVar("T")
Outputs = Mapping[str, Tensor]


@dataclass(frozen=True)
class Setting:
    """Where and in which precision a battery computes.

    `float32` and `float64` are the dtype of parameters and inputs. `bfloat16` and `float16` mean autocast
    with float32 parameters, as in training.

    Args:
        device: e.g. `cpu`, `cuda`.
        dtype: one of `mtvision.testing.numbers.TOLERANCES`.

    Raises:
        RuntimeError: the device is not there.
        ValueError: another dtype.
    """

    device: str = "cpu"
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        if torch.device(self.device).type == "cuda" and not torch.cuda.is_available():
            raise RuntimeError(f"device '{self.device}': torch sees no CUDA here; use 'cpu'.")
        if self.dtype not in TOLERANCES:
            raise ValueError(f"dtype {self.dtype}: choose one of {', '.join(map(str, TOLERANCES))}.")

    @property
    def real(self) -> torch.dtype:
        """Of parameters and inputs."""
        return torch.float64 if self.dtype == torch.float64 else torch.float32

    def autocast(self, dtype: torch.dtype | None = None) -> AbstractContextManager[Any]:
        """Autocast with `dtype`, by default with the setting's own; nothing for full precision."""
        dtype = dtype or self.dtype
        if dtype in (torch.float32, torch.float64):
            return nullcontext()
        return torch.autocast(torch.device(self.device).type, dtype)

    def module(self, module: Module) -> Module:
        """`module` on the device in the precision of parameters."""
        return module.to(self.device, self.real)

    def tensor(self, tensor: Tensor) -> Tensor:
        """`tensor` on the device, real values in the precision of parameters."""
        return tensor.to(self.device, self.real) if tensor.is_floating_point() else tensor.to(self.device)


@torch.no_grad()
def disturb(module: Module) -> Module:
    """Move parameters and running statistics away from their start, so that zeros and ones hide nothing."""
    for item in module.parameters():
        if item.is_floating_point():
            spread = item.float().square().mean().sqrt() if item.numel() else 0.0
            item.add_(torch.randn_like(item) * (0.1 * spread + 0.02))
    for name, buffer in module.named_buffers():
        if name.endswith("running_mean"):
            buffer.add_(0.1 * torch.randn_like(buffer))
        elif name.endswith("running_var"):
            buffer.mul_(0.8 + 0.4 * torch.rand_like(buffer))
    return module


def agree(got: Outputs, want: Outputs, what: str, dtype: torch.dtype = torch.float32) -> None:
    """Two dicts have the same keys in the same order and close values.

    Raises:
        PropertyError: they do not.
    """
    expect(list(got) == list(want), f"{what}: keys {list(got)}, expected {list(want)}.")
    for name, item in got.items():
        close(item.float() if item.dtype != want[name].dtype else item, want[name], f"{what} '{name}'", dtype)


def agree_exactly(got: Outputs, want: Outputs, what: str) -> None:
    """Two dicts are equal to the last bit.

    Raises:
        PropertyError: they are not.
    """
    expect(list(got) == list(want), f"{what}: keys {list(got)}, expected {list(want)}.")
    for name, item in got.items():
        same(item, want[name], f"{what} '{name}'")


def idle_parameters(
    build: Callable[[], Module], loss: Callable[[Module, int], Tensor], rounds: int = 4
) -> list[str]:
    """Names of trainable parameters that get no gradient from any of up to `rounds` starts.

    Several starts and batches, because a gate may leave out an expert and a single unit may be off.

    Args:
        build: a module with other random weights on each call.
        loss: scalar of a module and the number of the round.
        rounds: at most; fewer if every parameter has got a gradient.
    """
    idle: list[str] = []
    for number in range(rounds):
        module = build()
        table = {name: item for name, item in module.named_parameters() if item.requires_grad}
        idle = [name for name in (idle if number else table) if name in table]
        if not idle:
            break
        torch.autograd.backward(loss(module, number))
        idle = [name for name in idle if _is_idle(table[name])]
    return idle


def check_idle(idle: Collection[str], declared: Collection[str]) -> None:
    """Exactly the parameters that match the declared patterns are idle.

    Raises:
        PropertyError: one is idle without declaration, or a pattern matches none.
    """
    silent = [name for name in idle if not any(fnmatchcase(name, glob) for glob in declared)]
    expect(not silent, f"no gradient reaches {_listing(silent)}; declare dead=[...] if that is meant.")
    stale = [glob for glob in declared if not any(fnmatchcase(name, glob) for name in idle)]
    expect(not stale, f"dead={stale} is declared, but every parameter that it matches has a gradient.")


def reload(module: nn.Module, fresh: nn.Module) -> None:
    """Save the state of `module` and load it into `fresh`, strictly and as plain tensors.

    Raises:
        PropertyError: a key differs, or the file holds more than plain data.
    """
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    try:
        state = torch.load(file, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        raise PropertyError(
            f"state_dict: torch.load(weights_only=True) refuses it: {_first_line(error)}"
        ) from error
    try:
        fresh.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise PropertyError(f"load_state_dict(strict=True): {error}") from error


def copies(module: Module) -> dict[str, Module]:
    """A deep copy and one through pickle; neither shares parameters with `module`.

    Raises:
        PropertyError: they share a parameter.
    """
    made = copied(module)
    own = {id(item) for item in module.parameters()}
    for way, other in made.items():
        shared = [name for name, item in other.named_parameters() if id(item) in own]
        expect(not shared, f"{way}: the copy shares {_listing(shared)} with the original.")
    return made


def copied(thing: T) -> dict[str, T]:
    """A deep copy, and one through pickle if the class can be imported by its name.

    Classes that are defined inside a function cannot, whatever they hold.
    """
    made = {"copy.deepcopy": copy.deepcopy(thing)}
    home = vars(sys.modules[type(thing).__module__]) if type(thing).__module__ in sys.modules else {}
    if home.get(type(thing).__qualname__) is type(thing):
        made["pickle"] = pickle.loads(pickle.dumps(thing))
    return made


def check_export(module: nn.Module, inputs: tuple[Any, ...], outputs: Outputs, dtype: torch.dtype) -> None:
    """`torch.export` traces a module, and the traced program gives the same outputs.

    Args:
        module: in evaluation mode; returns a dict of tensors.
        inputs: its positional arguments.
        outputs: of the module itself.
        dtype: of the tolerance.

    Raises:
        PropertyError: the program gives something else.
    """
    with torch.no_grad():
        program = torch.export.export(module, inputs, strict=False)
        agree(program.module()(*inputs), outputs, "exported program:", dtype)


def check_graph(module: nn.Module, trials: Sequence[tuple[Any, ...]], dtype: torch.dtype) -> None:
    """`torch.compile` sees a module as one graph, which gives the same outputs on every trial.

    Args:
        module: in evaluation mode; returns a dict of tensors.
        trials: its positional arguments, each time of another batch and size.
        dtype: of the tolerance.

    Raises:
        PropertyError: there is a graph break, or an output differs.
    """
    from torch._dynamo.exc import TorchDynamoException

    torch.compiler.reset()
    compiled = torch.compile(module, fullgraph=True, dynamic=True, backend="eager")
    with torch.no_grad():
        for number, inputs in enumerate(trials):
            want = module(*inputs)
            try:
                found = compiled(*inputs)
            except TorchDynamoException as error:
                raise PropertyError(f"torch.compile breaks the graph: {_first_line(error)}") from error
            agree(found, want, f"compiled, trial {number}:", dtype)


def check_free_sizes(
    module: nn.Module, trials: Sequence[tuple[Any, ...]], free: Any, dtype: torch.dtype
) -> None:
    """`torch.export` with free sizes traces a module once, and the program gives the same on every trial.

    Args:
        module: in evaluation mode; returns a dict of tensors.
        trials: its positional arguments; the first one, of two or more samples, is traced.
        free: `dynamic_shapes` of the arguments.
        dtype: of the tolerance.

    Raises:
        PropertyError: a size was fixed, or an output differs.
    """
    with torch.no_grad():
        try:
            program = torch.export.export(module, trials[0], dynamic_shapes=free, strict=False)
        except RuntimeError as error:
            raise PropertyError(f"torch.export with free sizes: {error}") from error
        # Guards repeat that the example has more than one image, on which the graph does not depend.
        traced = program.module(check_guards=False)
        for number, inputs in enumerate(trials):
            agree(traced(*inputs), module(*inputs), f"exported, trial {number}:", dtype)


def check_bfloat16(setting: Setting, run: Callable[[], Outputs]) -> None:
    """Outputs under autocast with bfloat16 differ from those in full precision by rounding alone.

    Raises:
        PropertyError: some differ more.
    """
    with torch.no_grad():
        exact = run()
        with setting.autocast(torch.bfloat16):
            rough = run()
    same_types = {name: item.to(exact[name].dtype) for name, item in rough.items()}
    agree(same_types, exact, "bfloat16:", torch.bfloat16)


def check_independence(output: Callable[[Tensor], Outputs], image: Tensor) -> None:
    """No output of the first sample has a gradient with respect to another sample.

    Args:
        output: of an image batch, in evaluation mode.
        image: (B >= 2, 3, H, W).

    Raises:
        PropertyError: samples influence one another.
    """
    image = image.detach().clone().requires_grad_()
    for name, item in output(image).items():
        (gradient,) = torch.autograd.grad(item[0].float().sum(), image, retain_graph=True)
        leak = float(gradient[1:].abs().max())
        expect(leak == 0, f"'{name}' of sample 0 changes with another sample (gradient {leak:.3g}).")


def _is_idle(parameter: nn.Parameter) -> bool:
    return parameter.grad is None or not bool(parameter.grad.any())


def _listing(names: Collection[str]) -> str:
    shown = ", ".join(list(names)[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0]

"""State and random numbers of torchjd's objects, as training needs them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torchjd import Stateful

from mtvision.core.naming import UnknownNameError

_MODULE_ATTRIBUTES = frozenset(vars(nn.Module()))

State = dict[str, dict[str, Any]]
M = TypeVar("M", bound=nn.Module)


def accepts(factory: type[nn.Module], argument: str) -> bool:
    """Whether the constructor has an argument."""
    return argument in inspect.signature(factory).parameters


def checked_options(
    factory: type[nn.Module], options: Mapping[str, Any], ours: Mapping[str, Any]
) -> dict[str, Any]:
    """Arguments of a torchjd class from plain options; lists of numbers become tensors.

    Args:
        factory: the class.
        options: from a config.
        ours: arguments that the suite gives, if the class has them.

    Raises:
        UnknownNameError: the class has no such argument.
        TypeError: an argument without default is missing.
    """
    name = factory.__name__
    arguments = inspect.signature(factory).parameters
    known = [item for item in arguments if item not in ours]
    for option in options:
        if option not in known:
            raise UnknownNameError(f"{name} argument", option, known)
    given = {key: value for key, value in ours.items() if key in arguments and value is not None}
    given |= {
        key: torch.tensor(value) if isinstance(value, list | tuple) else value
        for key, value in options.items()
    }
    missing = [key for key, item in arguments.items() if item.default is item.empty and key not in given]
    if missing:
        raise TypeError(f"TorchJD: {name} needs {', '.join(missing)} (given: {sorted(options)}).")
    return given


def saved_state(owner: nn.Module) -> State:
    """{path of a stateful part: {attribute: value}}; constructor arguments are not state.

    Raises:
        ValueError: something is neither a tensor nor a plain value, so that resuming could not restore it.
    """
    state: State = {}
    for path, module in owner.named_modules():
        if not issubclass(type(module), Stateful):
            continue
        arguments = inspect.signature(type(module)).parameters
        own: dict[str, Any] = {
            key: value
            for key, value in vars(module).items()
            if key not in _MODULE_ATTRIBUTES and key.removeprefix("_") not in arguments
        }
        own |= dict(module.named_buffers(recurse=False)) | {
            key: None for key, value in module._buffers.items() if value is None
        }
        for key, value in own.items():
            if not _is_plain(value):
                raise ValueError(
                    f"balancer {type(owner).__name__}: its state ({key}: {type(value).__name__}) "
                    "cannot be saved, so a resumed run would differ. Use another aggregator (for NashMTL, "
                    "the balancer of that name)."
                )
        if own:
            state[path] = own
    return state


class Held(Generic[M]):
    """An object of torchjd and the state that it is going to have; no submodule of the balancer that has it.

    Buffers of such an object are absent until its first call, which `load_state_dict` of a fresh one refuses.
    Balancers therefore save `state()` as extra state.

    Args:
        owner: the object.
    """

    def __init__(self, owner: M) -> None:
        self.owner = owner
        self._pending: State | None = None

    def on(self, device: torch.device) -> M:
        """The object, with what was loaded in place."""
        if self._pending is not None:
            restore_state(self.owner, self._pending, device)
            self._pending = None
        return self.owner

    def state(self) -> State:
        """As `saved_state`; what was loaded before the first call stays as it is."""
        return saved_state(self.owner) if self._pending is None else self._pending

    def load(self, state: State) -> None:
        """Take a state, which is put in place on the device of the next call."""
        self._pending = dict(state)


def refuse_state_of_another(kind: str, saved: str, own: str) -> None:
    """Refuse the state of another object of torchjd.

    Args:
        kind: of object, `aggregator` or `scalarizer`.
        saved: name in the checkpoint.
        own: name in the config.

    Raises:
        ValueError: the names differ.
    """
    if saved != own:
        raise ValueError(
            f"balancer: the checkpoint holds the state of {saved}, the config asks for "
            f"{own}. Start from the network's weights alone or keep the {kind}."
        )


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, bool | int | float | str | torch.dtype | torch.device | Tensor)


def restore_state(owner: nn.Module, state: State, device: torch.device) -> None:
    """Put saved values back: on the gradients' device if the state names a device, else on the CPU."""
    modules = dict(owner.named_modules())
    for path, attributes in state.items():
        leaves = [leaf for value in attributes.values() for leaf in _leaves(value)]
        follows = any(isinstance(leaf, torch.device) for leaf in leaves)
        home = device if follows else torch.device("cpu")
        for key, value in attributes.items():
            setattr(modules[path], key, _moved(value, home))


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, tuple | list):
        return [leaf for item in value for leaf in _leaves(item)]
    return [value]


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.detach().to(device, copy=True)
    if isinstance(value, torch.device):
        return device
    if isinstance(value, tuple | list):
        return type(value)(_moved(item, device) for item in value)
    return value


@contextmanager
def common_randomness(device: torch.device, seed: int, call: int) -> Iterator[None]:
    """The same random numbers for the same call on every process; global generators stay as they were."""
    number = seed * 1_000_003 + call
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.default_generator.manual_seed(number)
        for item in devices:
            with torch.cuda.device(item):
                torch.cuda.manual_seed(number)
        yield

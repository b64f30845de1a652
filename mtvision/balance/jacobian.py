"""Aggregation of per-task gradients by torchjd (Quinton and Rey, "Jacobian Descent", arXiv 2406.16232).

torchjd's aggregators are used as they are. This module adds what training needs: names and options from a
config, preferences by task name, and batches without some tasks. Random draws are the same on every process,
and all state is in `state_dict`. Results do not depend on the scale of the gradients.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torchjd.aggregation as torchjd_aggregation
from torch import Tensor, nn
from torchjd import Stateful
from torchjd.aggregation import Aggregator, GramianWeightedAggregator, WeightedAggregator
from torchjd.linalg import QuadprogProjector

from mtvision.balance.balancer import Balancer, complete_weights
from mtvision.core.naming import UnknownNameError, look_up
from mtvision.core.registry import BALANCERS
from mtvision.core.values import Count, TaskWeights

_LEFT_OUT = (
    Aggregator,
    WeightedAggregator,
    GramianWeightedAggregator,
    torchjd_aggregation.Constant,  # `FixedWeights` is the same rule for the price of one backward pass
)
AGGREGATORS: dict[str, type[Aggregator]] = {
    name: item
    for name, item in vars(torchjd_aggregation).items()
    if isinstance(item, type) and issubclass(item, Aggregator) and item not in _LEFT_OUT
}
"""torchjd's aggregators by class name."""

_MODULE_ATTRIBUTES = frozenset(vars(nn.Module()))
_OURS = ("pref_vector", "projector")
_RANK_DEFICIENT = 1e-6
"""Eigenvalues of a Gramian below this fraction of the largest count as 0 (float32 products of 10^7 terms)."""

State = dict[str, dict[str, Any]]


@BALANCERS.register_module()
class TorchJD(Balancer):
    """Any aggregator of torchjd by name: `dict(type="TorchJD", aggregator="AlignedMTL", scale_mode="min")`.

    Rows are the gradients of the unweighted losses. An all-zero matrix gives zeros without a call of torchjd.
    A matrix with NaN or infinity gives its sum, so that loss scaling or a finiteness check detects it.

    Deviations from torchjd, each for a reason:

    * In torchjd, UPGrad and DualProj treat gradients with a squared norm below 1e-4 as zero. Here they do
      not, because a small learning signal is not zero.
    * ConFIG takes a pseudo-inverse of the T x P matrix, which is 0 in float32 for P > 8.4e6. Here it works on
      an isometric T x T matrix, which has the same solution.
    * Random draws come from a generator seeded by (`seed`, number of calls), equal on all processes and after
      resuming.

    Args:
        tasks: names of all tasks.
        aggregator: class name in `torchjd.aggregation`.
        preference: {task: weight >= 0} for aggregators that take one (`pref_vector`), for every task; the
            rows present are used. None is equal weights.
        seed: of aggregators that draw at random.
        default_weights: ignored.
        options: the aggregator's own arguments; lists of numbers become tensors.

    Raises:
        UnknownNameError: no such aggregator, or it has no such argument.
        ImportError: the aggregator's solver is not installed; the message says how to get it.
        ValueError: the aggregator keeps state that cannot be saved (NashMTL), or takes no preference.
    """

    needs = "jacobian"

    def __init__(
        self,
        *,
        tasks: Sequence[str],
        aggregator: str = "UPGrad",
        preference: TaskWeights | None = None,
        seed: Count = 0,
        default_weights: Mapping[str, float] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(tasks=tasks, default_weights=default_weights)
        self.name = aggregator
        self.seed = seed
        factory = look_up("torchjd aggregator", aggregator, AGGREGATORS)
        self._preference = self._read_preference(factory, preference)
        # In a tuple: not a submodule, because its buffers are absent until the first call, which
        # `load_state_dict` of a fresh object refuses. `get_extra_state` saves them instead.
        self._held = (_build(factory, options),)
        self._stateful = _saved_state(self.aggregator) != {}
        self._pending: State | None = None
        self._calls = 0
        self._last: dict[str, Tensor] = {}
        self._row_weights: Tensor | None = None
        if isinstance(self.aggregator, WeightedAggregator):
            self.aggregator.weighting.register_forward_hook(self._remember)

    @property
    def aggregator(self) -> Aggregator:
        """torchjd's object."""
        return self._held[0]

    def aggregate(self, jacobian: Tensor, tasks: Sequence[str]) -> Tensor:
        """Apply the aggregator; see the base class.

        Raises:
            ValueError: the number of rows is not that of `tasks`; or the aggregator keeps state per task and
                a task is missing from the batch.
        """
        self.check_tasks(tasks)
        if jacobian.ndim != 2 or jacobian.shape[0] != len(tasks):
            raise ValueError(
                f"{self.name}: jacobian has shape {tuple(jacobian.shape)} for the {len(tasks)} tasks "
                f"{list(tasks)}; expected (tasks, parameters)."
            )
        if self._stateful and tuple(tasks) != self.tasks:
            raise ValueError(
                f"{self.name} keeps state for every task: it needs all of {list(self.tasks)}, in this order, "
                f"in every batch, but got {list(tasks)}. "
                "Use an aggregator without state (UPGrad, AlignedMTL, MGDA, ...) on partially labelled data."
            )
        self._last = {}
        self._calls += 1
        peak = torch.linalg.vector_norm(jacobian, ord=float("inf")) if jacobian.numel() else jacobian.sum()
        if not bool(peak.isfinite()) or not bool(peak > 0):
            return jacobian.sum(dim=0)
        self._load_pending(jacobian.device)
        if self._preference is not None:
            preference = [self._preference[name] for name in tasks]
            dtype = torch.float64 if self.name == "ConFIG" else jacobian.dtype
            self.aggregator.pref_vector = torch.tensor(preference, dtype=dtype, device=jacobian.device)
        self._row_weights = None
        with torch.no_grad(), _common_randomness(jacobian.device, self.seed, self._calls):
            if self.name == "ConFIG":
                result = _by_isometry(self.aggregator, jacobian)
            else:
                result = self.aggregator(jacobian)
        if self._row_weights is not None:
            self._last = dict(zip(tasks, self._row_weights.unbind(), strict=True))
        return result

    def weights(self) -> dict[str, Tensor]:
        """Weights of the rows in the last call; empty if the aggregator is not a weighted sum."""
        return dict(self._last)

    def get_extra_state(self) -> dict[str, Any]:
        """Number of calls and the aggregator's own state (part of `state_dict`)."""
        state = _saved_state(self.aggregator) if self._pending is None else self._pending
        return {"aggregator": self.name, "calls": self._calls, "state": state}

    def set_extra_state(self, state: Any) -> None:
        """Counterpart of `get_extra_state`; the state is put in place on the next call's device.

        Raises:
            ValueError: it was saved by another aggregator.
        """
        if state["aggregator"] != self.name:
            raise ValueError(
                f"balancer: the checkpoint holds the state of {state['aggregator']}, the config asks for "
                f"{self.name}. Start from the network's weights alone or keep the aggregator."
            )
        self._calls = int(state["calls"])
        self._pending = dict(state["state"])

    def extra_repr(self) -> str:
        """For `print`."""
        return repr(self.aggregator)

    def _read_preference(
        self, factory: type[Aggregator], preference: Mapping[str, float] | None
    ) -> dict[str, float] | None:
        if preference is None:
            return None
        if "pref_vector" not in inspect.signature(factory).parameters:
            able = [name for name, item in AGGREGATORS.items() if _accepts(item, "pref_vector")]
            raise ValueError(f"{self.name} takes no preference; these do: {', '.join(sorted(able))}.")
        numbers = complete_weights(self.name, "preference", preference, self.tasks)
        return dict(zip(self.tasks, numbers, strict=True))

    def _remember(self, module: nn.Module, inputs: tuple[Any, ...], weights: Tensor) -> None:
        self._row_weights = weights.detach()

    def _load_pending(self, device: torch.device) -> None:
        if self._pending is not None:
            _restore_state(self.aggregator, self._pending, device)
            self._pending = None


@BALANCERS.register_module()
class UPGrad(TorchJD):
    """UPGrad (arXiv 2406.16232): every gradient projected onto the dual cone of all, then averaged.

    The update never has a negative product with the gradient of any task present.

    Args:
        tasks: names of all tasks.
        preference: {task: weight >= 0} of the final average, for every task; None is 1/T.
        default_weights: ignored.
    """

    def __init__(
        self,
        *,
        tasks: Sequence[str],
        preference: TaskWeights | None = None,
        default_weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(
            tasks=tasks, aggregator="UPGrad", preference=preference, default_weights=default_weights
        )


def _accepts(factory: type[Aggregator], argument: str) -> bool:
    return argument in inspect.signature(factory).parameters


def _build(factory: type[Aggregator], options: Mapping[str, Any]) -> Aggregator:
    """The aggregator from plain options."""
    name = factory.__name__
    known = [item for item in inspect.signature(factory).parameters if item not in _OURS]
    for option in options:
        if option not in known:
            raise UnknownNameError(f"{name} argument", option, known)
    missing = [
        key
        for key, item in inspect.signature(factory).parameters.items()
        if item.default is item.empty and key not in options
    ]
    if missing:
        raise TypeError(f"TorchJD: {name} needs {', '.join(missing)} (given: {sorted(options)}).")
    given = {
        key: torch.tensor(value) if isinstance(value, list | tuple) else value
        for key, value in options.items()
    }
    try:
        if _accepts(factory, "projector"):
            given["projector"] = QuadprogProjector(norm_eps=0.0)
        built = factory(**given)
    except ImportError as error:
        ours = " (or mtvision[balancers])" if _accepts(factory, "projector") else ""
        raise ImportError(f"balancer {name}: {error}{ours}") from error
    _saved_state(built)
    return built


def _saved_state(aggregator: Aggregator) -> State:
    """{path of a stateful part: {attribute: value}}; constructor arguments are not state.

    Raises:
        ValueError: something is neither a tensor nor a plain value, so that resuming could not restore it.
    """
    state: State = {}
    for path, module in aggregator.named_modules():
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
                    f"balancer {type(aggregator).__name__}: its state ({key}: {type(value).__name__}) "
                    "cannot be saved, so a resumed run would differ. Use another aggregator."
                )
        if own:
            state[path] = own
    return state


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, bool | int | float | str | torch.dtype | torch.device | Tensor)


def _restore_state(aggregator: Aggregator, state: State, device: torch.device) -> None:
    """Put saved values back: on the gradients' device if the state names a device, else on the CPU."""
    modules = dict(aggregator.named_modules())
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
def _common_randomness(device: torch.device, seed: int, call: int) -> Iterator[None]:
    """The same random numbers for the same call on every process; global generators stay as they were."""
    number = seed * 1_000_003 + call
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.default_generator.manual_seed(number)
        for item in devices:
            with torch.cuda.device(item):
                torch.cuda.manual_seed(number)
        yield


def _by_isometry(aggregator: Aggregator, jacobian: Tensor) -> Tensor:
    """Result of an aggregator that commutes with rotations, computed on a T x T matrix with the same Gramian.

    Let J Jᵀ = V Λ Vᵀ. The rows of S = V Λ^½ are the rows of J in an orthonormal basis of their span. The
    result a found there is Jᵀ V Λ^{−½} a in the parameters' coordinates.
    """
    values, vectors = torch.linalg.eigh((jacobian @ jacobian.T).double())
    kept = values > _RANK_DEFICIENT * values.max()
    roots, vectors = values[kept].sqrt(), vectors[:, kept]
    reduced = aggregator(vectors * roots)
    weights: Tensor = vectors @ (reduced / roots)
    return weights.to(jacobian.dtype) @ jacobian

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
from torchjd.aggregation import Aggregator, GramianWeightedAggregator, WeightedAggregator
from torchjd.linalg import QuadprogProjector

from mtvision.balance.balancer import Balancer, Need, Own, complete_weights
from mtvision.balance.foreign import (
    Held,
    accepts,
    checked_options,
    common_randomness,
    refuse_state_of_another,
)
from mtvision.core.naming import look_up
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

WITHOUT_STATE = "an aggregator without state (UPGrad, AlignedMTL, MGDA, ...)"

WITH_THRESHOLD = (
    torchjd_aggregation.CAGrad,
    torchjd_aggregation.DualProj,
    torchjd_aggregation.UPGrad,
)
"""Their weights do not depend on the scale of gradients, but torchjd takes small gradients for 0."""

_RANK_DEFICIENT = 1e-6
"""Eigenvalues of a Gramian below this fraction of the largest count as 0 (float32 products of 10^7 terms)."""


@BALANCERS.register_module()
class TorchJD(Balancer):
    """Any aggregator of torchjd by name: `dict(type="TorchJD", aggregator="AlignedMTL", scale_mode="min")`.

    Rows are the gradients of the unweighted losses. An all-zero matrix gives zeros without a call of torchjd.
    A matrix with NaN or infinity gives its sum, so that loss scaling or a finiteness check detects it.

    Deviations from torchjd, each for a reason:

    * In torchjd, UPGrad, DualProj and CAGrad treat gradients with a squared norm below 1e-4 as zero. Here
      they do not, because a small learning signal is not zero. `norm_eps` of CAGrad is relative here.
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
        own: gradients of parameters of a single task: `plain`, or `weighted` by the task's weight as in
            LibMTL's FairGrad, NashMTL and ExcessMTL.
        default_weights: ignored.
        options: the aggregator's own arguments; lists of numbers become tensors.

    Raises:
        UnknownNameError: no such aggregator, or it has no such argument.
        ImportError: the aggregator's solver is not installed; the message says how to get it.
        ValueError: the aggregator keeps state that cannot be saved (NashMTL), or takes no preference.
    """

    needs: Need = "jacobian"

    def __init__(
        self,
        *,
        tasks: Sequence[str],
        aggregator: str = "UPGrad",
        preference: TaskWeights | None = None,
        seed: Count = 0,
        own: Own = "plain",
        default_weights: Mapping[str, float] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(tasks=tasks, default_weights=default_weights)
        self.name = aggregator
        self.seed = seed
        self.own = own
        factory = look_up("torchjd aggregator", aggregator, AGGREGATORS)
        self._preference = self._read_preference(factory, preference)
        self._held = Held(_build(factory, options))
        self._rotates = issubclass(factory, torchjd_aggregation.ConFIG)
        self._by_weights = self._rotates or issubclass(factory, torchjd_aggregation.CAGrad)
        reads_products = self._rotates or isinstance(self.aggregator, GramianWeightedAggregator)
        if reads_products and type(self).aggregate is TorchJD.aggregate:  # else a subclass wants the matrix
            self.needs = "gramian"
        self._stateful = self._held.state() != {}
        self._calls = 0
        self._last: dict[str, Tensor] = {}
        self._row_weights: Tensor | None = None
        if isinstance(self.aggregator, WeightedAggregator):
            self.aggregator.weighting.register_forward_hook(self._remember)

    @property
    def aggregator(self) -> Aggregator:
        """torchjd's object."""
        return self._held.owner

    def aggregate(self, jacobian: Tensor, tasks: Sequence[str]) -> Tensor:
        """Apply the aggregator; see the base class.

        Raises:
            ValueError: the number of rows is not that of `tasks`.
            ValueError: the aggregator keeps state per task, or needs more tasks than the batch has.
        """
        self.check_tasks(tasks)
        if jacobian.ndim != 2 or jacobian.shape[0] != len(tasks):
            raise ValueError(
                f"{self.name}: jacobian has shape {tuple(jacobian.shape)} for the {len(tasks)} tasks "
                f"{list(tasks)}; expected (tasks, parameters)."
            )
        if self._stateful:
            self.require_all(tasks, WITHOUT_STATE, self.name)
        self._last = {}
        self._calls += 1
        largest = jacobian.sum() if not jacobian.numel() else torch.stack(jacobian.aminmax()).abs().max()
        if not bool(largest.isfinite()) or not bool(largest > 0):
            return jacobian.sum(dim=0)
        self._row_weights = None
        with self._ready(jacobian, tasks):
            if self._by_weights:
                self._row_weights = self._weights_from(jacobian @ jacobian.T)
                result = self._row_weights @ jacobian
            else:
                result = self.aggregator(jacobian)
        if self._row_weights is not None:
            self._last = dict(zip(tasks, self._row_weights.unbind(), strict=True))
        return result

    def weigh(self, gramian: Tensor, tasks: Sequence[str]) -> Tensor:
        """The aggregator's weights, for those that read products of gradients alone.

        Gradients that are all zero or not finite weigh 1.

        Raises:
            ValueError: as `aggregate`.
            NotImplementedError: the aggregator reads the gradients themselves.
        """
        self.check_tasks(tasks)
        if self.needs != "gramian":
            return super().weigh(gramian, tasks)
        if gramian.shape != (len(tasks), len(tasks)):
            raise ValueError(
                f"{self.name}: products of gradients have shape {tuple(gramian.shape)} for the tasks "
                f"{list(tasks)}; expected {(len(tasks), len(tasks))}."
            )
        if self._stateful:
            self.require_all(tasks, WITHOUT_STATE, self.name)
        self._calls += 1
        weights = gramian.new_ones(len(tasks))
        if bool(gramian.isfinite().all()) and bool(gramian.diagonal().max() > 0):
            with self._ready(gramian, tasks):
                weights = self._weights_from(gramian)
        self._last = dict(zip(tasks, weights.unbind(), strict=True))
        return weights

    def _weights_from(self, gramian: Tensor) -> Tensor:
        if isinstance(self.aggregator, GramianWeightedAggregator):
            given = of_common_size(gramian) if self._by_weights else gramian
            weights: Tensor = self.aggregator.gramian_weighting(given)
            return weights
        return _by_isometry(self.aggregator, gramian)

    @contextmanager
    def _ready(self, given: Tensor, tasks: Sequence[str]) -> Iterator[None]:
        """State, preference and random numbers of this call, on the device of what is given."""
        self._held.on(given.device)
        if self._preference is not None:
            preference = [self._preference[name] for name in tasks]
            dtype = torch.float64 if self._rotates else given.dtype
            self.aggregator.pref_vector = torch.tensor(preference, dtype=dtype, device=given.device)
        with torch.no_grad(), common_randomness(given.device, self.seed, self._calls):
            try:
                yield
            except ValueError as error:  # e.g. Krum, which needs three rows or more
                raise ValueError(
                    f"{self.name} refuses the gradients of {list(tasks)}, of the tasks {list(self.tasks)}: "
                    f"{error} On partially labelled data use one that takes any number of tasks, e.g. UPGrad."
                ) from error

    def weights(self) -> dict[str, Tensor]:
        """Weights of the rows in the last call; empty if the aggregator is not a weighted sum."""
        return dict(self._last)

    def own_weights(self) -> dict[str, Tensor]:
        """The weights if `own` is `weighted`."""
        return dict(self._last) if self.own == "weighted" else {}

    def get_extra_state(self) -> dict[str, Any]:
        """Number of calls and the aggregator's own state (part of `state_dict`)."""
        return {"aggregator": self.name, "calls": self._calls, "state": self._held.state()}

    def set_extra_state(self, state: Any) -> None:
        """Counterpart of `get_extra_state`; the state is put in place on the next call's device.

        Raises:
            ValueError: it was saved by another aggregator.
        """
        refuse_state_of_another("aggregator", state["aggregator"], self.name)
        self._calls = int(state["calls"])
        self._held.load(state["state"])

    def extra_repr(self) -> str:
        """For `print`."""
        return repr(self.aggregator)

    def _read_preference(
        self, factory: type[Aggregator], preference: Mapping[str, float] | None
    ) -> dict[str, float] | None:
        if preference is None:
            return None
        if "pref_vector" not in inspect.signature(factory).parameters:
            able = [name for name, item in AGGREGATORS.items() if accepts(item, "pref_vector")]
            raise ValueError(f"{self.name} takes no preference; these do: {', '.join(sorted(able))}.")
        numbers = complete_weights(self.name, "preference", preference, self.tasks)
        return dict(zip(self.tasks, numbers, strict=True))

    def _remember(self, module: nn.Module, inputs: tuple[Any, ...], weights: Tensor) -> None:
        self._row_weights = weights.detach()


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


def _build(factory: type[Aggregator], options: Mapping[str, Any]) -> Aggregator:
    """The aggregator from plain options."""
    try:
        projector = QuadprogProjector(norm_eps=0.0) if accepts(factory, "projector") else None
        return factory(**checked_options(factory, options, {"pref_vector": None, "projector": projector}))
    except ImportError as error:
        ours = " (or mtvision[balancers])" if accepts(factory, "projector") else ""
        raise ImportError(f"balancer {factory.__name__}: {error}{ours}") from error


def of_common_size(gramian: Tensor) -> Tensor:
    """Products (T, T) over a power of 2, so that the largest squared norm is between ½ and 1."""
    _, power = torch.frexp(gramian.diagonal().max())
    return torch.ldexp(gramian, -power)


def _by_isometry(aggregator: Aggregator, gramian: Tensor) -> Tensor:
    """Weights (T,) of an aggregator that commutes with rotations, from a T x T matrix with the same Gramian.

    Let J Jᵀ = V Λ Vᵀ. The rows of S = V Λ^½ are the rows of J in an orthonormal basis of their span. The
    result a found there is Jᵀ V Λ^{−½} a in the parameters' coordinates.
    """
    values, vectors = torch.linalg.eigh(gramian.double())
    kept = values > _RANK_DEFICIENT * values.max()
    roots, vectors = values[kept].sqrt(), vectors[:, kept]
    reduced = aggregator(vectors * roots)
    weights: Tensor = vectors @ (reduced / roots)
    return weights.to(gramian.dtype)

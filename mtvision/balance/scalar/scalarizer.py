"""Scalarizations of losses by torchjd."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torchjd.scalarization as torchjd_scalarization
from torch import Tensor
from torch.func import functional_call
from torchjd.scalarization import DWA, FAMO, STCH, UW, Constant, GeometricMean
from torchjd.scalarization import Scalarizer as TheirScalarizer

from mtvision.balance.balancer import Balancer, all_finite, complete_weights
from mtvision.balance.foreign import (
    Held,
    accepts,
    checked_options,
    common_randomness,
    refuse_state_of_another,
)
from mtvision.core.naming import look_up
from mtvision.core.registry import BALANCERS
from mtvision.core.values import Count, Positive, TaskWeights

_LEFT_OUT = (TheirScalarizer, Constant, UW, FAMO)  # FixedWeights, Uncertainty and FAMO are balancers of ours
SCALARIZERS: dict[str, type[TheirScalarizer]] = {
    name: item
    for name, item in vars(torchjd_scalarization).items()
    if isinstance(item, type) and issubclass(item, TheirScalarizer) and item not in _LEFT_OUT
}
"""torchjd's scalarizers by class name."""


@BALANCERS.register_module()
class Scalarizer(Balancer):
    """Any scalarizer of torchjd by name: `dict(type="Scalarizer", scalarizer="DWA", period=500)`.

    * `DWA` (Liu et al., CVPR 2019, eq. 7): Σ λ_t L_t, λ = T softmax(r/τ), r_t = ratio of the mean losses of
      the last two periods.
    * `Random`, known as RLW (Lin et al., TMLR 2022): weights are the softmax of normal numbers.
    * `GeometricMean`, known as GLS (Chennupati et al., CVPR-W 2019): (Π L_t)^(1/T).
    * `IMTLL` (Liu et al., ICLR 2021, eq. 7): Σ e^{s_t} L_t − s_t, s_t learnt.
    * `STCH` (Lin et al., ICML 2024): μ ln Σ exp(w_t (L_t − z_t)/μ). `SmoothTchebycheff` adds a warm-up.
    * `PBI` (Zhang and Li, 2007) and `COSMOS` (Ruchte and Grabocka, ICDM 2021): distances to a preference.

    The rule acts on the means of losses over processes, so N processes do what one does. Losses that are not
    finite are added up without asking the rule. Random draws come from a generator seeded by `seed` and the
    number of calls.

    Args:
        tasks: names of all tasks.
        scalarizer: class name in `torchjd.scalarization`.
        period: steps whose mean loss DWA compares; an epoch in the paper.
        preference: {task: weight} for `STCH`, `PBI` and `COSMOS`; None is 1/T of the tasks present.
        reference: {task: best value} that `STCH` and `PBI` subtract from losses; None is 0.
        seed: of random weights.
        default_weights: ignored.
        options: the scalarizer's own arguments (`temperature`, `mu`, `theta`, `lambda_`).

    Raises:
        UnknownNameError: no such scalarizer, or it has no such argument.
        ValueError: it takes no preference or no reference.
    """

    common_losses = True

    def __init__(
        self,
        *,
        tasks: Sequence[str],
        scalarizer: str = "GeometricMean",
        period: Positive = 100,
        preference: TaskWeights | None = None,
        reference: TaskWeights | None = None,
        seed: Count = 0,
        default_weights: Mapping[str, float] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(tasks=tasks, default_weights=default_weights)
        self.name, self.period, self.seed = scalarizer, period, seed
        factory = look_up("torchjd scalarizer", scalarizer, SCALARIZERS)
        self._by_task = {
            "weights": self._numbers(factory, "preference", "weights", preference),
            "reference": self._numbers(factory, "reference", "reference", reference),
        }
        ours = {"shape": len(self.tasks), "weights": torch.ones(()), "reference": None}
        built = factory(**checked_options(factory, options, ours))
        self._held = Held(built)
        if list(built.parameters()):
            self.scalarizer = built
        self._stateful = self._held.state() != {}
        self._calls = 0
        self._last: dict[str, Tensor] = {}

    def combine(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Apply the scalarizer; see the base class.

        Raises:
            ValueError: the scalarizer keeps state per task and a task is missing from the batch.
        """
        self.check_tasks(list(losses))
        names = [name for name in self.tasks if name in losses]
        values = torch.stack([losses[name] for name in names])
        self._last = {}
        self._calls += 1
        if not all_finite(losses):
            return values.sum()
        if self._stateful:
            self.require_all(names, "FixedWeights, GeometricMean or Random", self.name)
        built = self._held.on(values.device)
        if isinstance(built, GeometricMean):  # the logarithm of a loss of exactly 0 has no gradient
            values = values.clamp(min=torch.finfo(values.dtype).tiny)
        for argument, numbers in self._by_task.items():
            if numbers is not None:
                setattr(built, argument, values.new_tensor([numbers[name] for name in names]))
            elif argument == "weights":  # of the tasks present; rules without preference ignore it
                built.weights = values.new_full((len(names),), 1 / len(names))
        rows = [self.tasks.index(name) for name in names]
        own = {name: item[rows] for name, item in built.named_parameters()}
        with common_randomness(values.device, self.seed, self._calls):
            total: Tensor = functional_call(built, own, (values,)) if own else built(values)
        if isinstance(built, DWA) and self._calls % self.period == 0:
            built.step()
        if values.requires_grad:
            (weights,) = torch.autograd.grad(total, values, retain_graph=True)
            self._last = dict(zip(names, weights.unbind(), strict=True))
        return total

    def weights(self) -> dict[str, Tensor]:
        """Derivative of the last result with respect to each loss."""
        return dict(self._last)

    def get_extra_state(self) -> dict[str, Any]:
        """Number of calls and the scalarizer's own state (part of `state_dict`)."""
        return {"scalarizer": self.name, "calls": self._calls, "state": self._held.state()}

    def set_extra_state(self, state: Any) -> None:
        """Counterpart of `get_extra_state`.

        Raises:
            ValueError: it was saved by another scalarizer.
        """
        refuse_state_of_another("scalarizer", state["scalarizer"], self.name)
        self._calls = int(state["calls"])
        self._held.load(state["state"])

    def _numbers(
        self,
        factory: type[TheirScalarizer],
        what: str,
        argument: str,
        given: Mapping[str, float] | None,
    ) -> dict[str, float] | None:
        if given is None:
            return None
        if not accepts(factory, argument):
            able = [name for name, item in SCALARIZERS.items() if accepts(item, argument)]
            raise ValueError(f"{self.name} takes no {what}; these do: {', '.join(sorted(able))}.")
        numbers = complete_weights(self.name, what, given, self.tasks)
        return dict(zip(self.tasks, numbers, strict=True))


def smooth_maximum(values: Tensor, mu: float) -> Tensor:
    """μ ln Σ exp(v_t/μ), by torchjd's `STCH`."""
    result: Tensor = STCH(mu=mu, weights=torch.ones_like(values))(values)
    return result

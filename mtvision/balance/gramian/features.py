"""Upper bounds of gradient rules: weights from gradients of the encoder's features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchjd.aggregation import GramianWeightedAggregator

from mtvision.balance.balancer import Need, Own
from mtvision.balance.foreign import checked_options, common_randomness, saved_state
from mtvision.balance.gramian.gramian import GramianBalancer
from mtvision.balance.gramian.min_norm import Normalisation, normalisers
from mtvision.balance.jacobian.aggregators import AGGREGATORS, WITH_THRESHOLD, of_common_size
from mtvision.core.naming import look_up
from mtvision.core.registry import BALANCERS
from mtvision.core.values import Count


@BALANCERS.register_module()
class FeatureWeights(GramianBalancer):
    """Weights of a torchjd aggregator on products of gradients at the encoder's features.

    `MGDA` is MGDA-UB (Sener and Koltun, NeurIPS 2018, section 3.3). `AlignedMTL` is Aligned-MTL-UB (Senushkin
    et al., CVPR 2023, section 4.3). They bound the rules on gradients of parameters from above, for the
    price of one pass over the encoder. Features are all levels of the pyramid.

    Aligned-MTL of the authors and LibMTL adds up over tasks, torchjd's is 1/T of that.

    Args:
        tasks: names of all tasks.
        aggregator: class name in `torchjd.aggregation` of a rule without state on products of gradients.
        normalise: of the gradients before weights are sought, see `MGDA`.
        seed: of aggregators that draw at random.
        own: gradients of parameters of a single task.
        default_weights: ignored.
        options: the aggregator's own arguments.

    Raises:
        UnknownNameError: no such aggregator, or it has no such argument.
        ValueError: the aggregator keeps state.
    """

    needs: Need = "features"
    common_losses = True

    def __init__(
        self,
        *,
        tasks: Sequence[str],
        aggregator: str = "MGDA",
        normalise: Normalisation = "none",
        seed: Count = 0,
        own: Own = "plain",
        default_weights: Mapping[str, float] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(tasks=tasks, own=own, default_weights=default_weights)
        usable = {
            name: item for name, item in AGGREGATORS.items() if issubclass(item, GramianWeightedAggregator)
        }
        factory = look_up("torchjd aggregator on products of gradients", aggregator, usable)
        built = factory(**checked_options(factory, options, {"pref_vector": None, "projector": None}))
        if saved_state(built):
            raise ValueError(
                f"FeatureWeights: {aggregator} keeps state, which is for gradients of parameters. Use MGDA, "
                "AlignedMTL, IMTLG or UPGrad."
            )
        self.normalise, self.seed = normalise, seed
        self.search = built.gramian_weighting
        self._has_threshold = isinstance(built, WITH_THRESHOLD)
        self.memory = {"calls": 0}

    def rule(self, gramian: Tensor, tasks: Sequence[str]) -> Tensor:
        """Weights of the aggregator on normalised products."""
        self.memory["calls"] += 1
        scales = normalisers(self.normalise, gramian, [self.losses.get(name) for name in tasks])
        products = gramian / torch.outer(scales, scales)
        products = of_common_size(products) if self._has_threshold else products
        with common_randomness(gramian.device, self.seed, self.memory["calls"]):
            weights: Tensor = self.search(products)
        return weights

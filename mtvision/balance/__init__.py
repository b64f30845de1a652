"""Rules over losses or gradients; see `docs/balancing.md`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtvision.core.registry.lazy import lazy_exports

if TYPE_CHECKING:
    from mtvision.balance.balancer import Balancer
    from mtvision.balance.jacobian import TorchJD, UPGrad
    from mtvision.balance.log_sum import LogSum
    from mtvision.balance.uncertainty import Uncertainty
    from mtvision.balance.weighted import FixedWeights
else:
    __getattr__ = lazy_exports(__name__)

__all__ = ["Balancer", "FixedWeights", "LogSum", "TorchJD", "UPGrad", "Uncertainty"]

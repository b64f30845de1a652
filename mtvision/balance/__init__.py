"""Rules over losses or gradients; see `docs/balancing.md`. Importing this package fills `BALANCERS`."""

from mtvision.balance.balancer import Balancer
from mtvision.balance.jacobian import TorchJD, UPGrad
from mtvision.balance.log_sum import LogSum
from mtvision.balance.uncertainty import Uncertainty
from mtvision.balance.weighted import FixedWeights

__all__ = ["Balancer", "FixedWeights", "LogSum", "TorchJD", "UPGrad", "Uncertainty"]

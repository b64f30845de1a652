"""Rules over losses or gradients; see `docs/balancing.md`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtvision.core.registry.lazy import lazy_exports

if TYPE_CHECKING:
    from mtvision.balance.balancer import Balancer, RememberingBalancer
    from mtvision.balance.gramian.features import FeatureWeights
    from mtvision.balance.gramian.gramian import GramianBalancer
    from mtvision.balance.gramian.impartial import IMTL
    from mtvision.balance.gramian.min_norm import MGDA
    from mtvision.balance.gramian.nash import NashMTL
    from mtvision.balance.gramian.norms import GradNorm, NormScaling
    from mtvision.balance.gramian.principal import PrincipalWeights
    from mtvision.balance.gramian.smoothed import SmoothedWeights
    from mtvision.balance.jacobian.aggregators import TorchJD, UPGrad
    from mtvision.balance.jacobian.log_losses import LogLosses
    from mtvision.balance.jacobian.sampled import MoDo, SDMGrad
    from mtvision.balance.jacobian.tracked import DBMTL, MoCo
    from mtvision.balance.scalar.auto_lambda import AutoLambda
    from mtvision.balance.scalar.coba import CoBa
    from mtvision.balance.scalar.famo import FAMO
    from mtvision.balance.scalar.log_sum import LogSum
    from mtvision.balance.scalar.scalarizer import Scalarizer
    from mtvision.balance.scalar.tchebycheff import SmoothTchebycheff
    from mtvision.balance.scalar.uncertainty import Uncertainty
    from mtvision.balance.scalar.weighted import FixedWeights
else:
    __getattr__ = lazy_exports(__name__)

__all__ = [
    "DBMTL",
    "FAMO",
    "IMTL",
    "MGDA",
    "AutoLambda",
    "Balancer",
    "CoBa",
    "FeatureWeights",
    "FixedWeights",
    "GradNorm",
    "GramianBalancer",
    "LogLosses",
    "LogSum",
    "MoCo",
    "MoDo",
    "NashMTL",
    "NormScaling",
    "PrincipalWeights",
    "RememberingBalancer",
    "SDMGrad",
    "Scalarizer",
    "SmoothTchebycheff",
    "SmoothedWeights",
    "TorchJD",
    "UPGrad",
    "Uncertainty",
]

"""All batteries by kind."""

from __future__ import annotations

from typing import Any

from mtvision.core.naming import look_up
from mtvision.testing.battery import Battery
from mtvision.testing.kinds.adapters import ADAPTER
from mtvision.testing.kinds.backbones import BACKBONE
from mtvision.testing.kinds.balancers import BALANCER
from mtvision.testing.kinds.datasets import DATASET
from mtvision.testing.kinds.decoders import DECODER
from mtvision.testing.kinds.losses import LOSS
from mtvision.testing.kinds.mergers import MERGER
from mtvision.testing.kinds.metrics import METRIC
from mtvision.testing.kinds.steps import STEP

BATTERIES: dict[str, Battery[Any]] = {
    item.kind: item for item in (BACKBONE, DECODER, ADAPTER, BALANCER, LOSS, METRIC, DATASET, STEP, MERGER)
}
"""{kind: battery}."""


def properties(kind: str) -> tuple[str, ...]:
    """Names of a battery's properties, in the order in which they run.

    Args:
        kind: a key of `BATTERIES`.

    Raises:
        UnknownNameError: no such battery.

    >>> properties("loss")[:2]
    ('gives_a_real_scalar', 'nothing_labelled_is_zero')
    """
    battery: Battery[Any] = look_up("battery", kind, BATTERIES)
    return tuple(battery.properties)

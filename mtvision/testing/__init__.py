"""Batteries of named properties, for the suite's classes and for those of outsiders.

    from mtvision.testing import check_decoder
    check_decoder(MyDecoder).raise_if_failed()

`properties("decoder")` lists the names, so that a test runner can show one test per property; see
`docs/batteries.md`. Nothing here needs a test runner.
"""

from typing import Any

from mtvision.core.naming import look_up
from mtvision.testing.adapters import ADAPTER, check_adapter
from mtvision.testing.backbones import BACKBONE, check_backbone
from mtvision.testing.balancers import BALANCER, check_balancer
from mtvision.testing.battery import Battery, Property
from mtvision.testing.datasets import DATASET, check_dataset
from mtvision.testing.decoders import DECODER, check_decoder
from mtvision.testing.losses import LOSS, check_loss
from mtvision.testing.metrics import METRIC, check_metric
from mtvision.testing.report import NotApplicable, Outcome, PropertyError, Report
from mtvision.testing.steps import STEP, check_step

BATTERIES: dict[str, Battery[Any]] = {
    item.kind: item for item in (BACKBONE, DECODER, ADAPTER, BALANCER, LOSS, METRIC, DATASET, STEP)
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


__all__ = [
    "BATTERIES",
    "Battery",
    "NotApplicable",
    "Outcome",
    "Property",
    "PropertyError",
    "Report",
    "check_adapter",
    "check_backbone",
    "check_balancer",
    "check_dataset",
    "check_decoder",
    "check_loss",
    "check_metric",
    "check_step",
    "properties",
]

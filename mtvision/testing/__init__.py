"""Batteries of named properties, for the suite's classes and for those of outsiders.

    from mtvision.testing import check_decoder
    check_decoder(MyDecoder).raise_if_failed()

`properties("decoder")` lists the names, so that a test runner can show one test per property; see
`docs/batteries.md`. Nothing here needs a test runner.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtvision.core.registry.lazy import lazy_exports

if TYPE_CHECKING:
    from mtvision.testing.batteries import BATTERIES, properties
    from mtvision.testing.battery import Battery, Property
    from mtvision.testing.kinds.adapters import check_adapter
    from mtvision.testing.kinds.backbones import check_backbone
    from mtvision.testing.kinds.balancers import check_balancer
    from mtvision.testing.kinds.branching import check_branching
    from mtvision.testing.kinds.datasets import check_dataset
    from mtvision.testing.kinds.decoders import check_decoder
    from mtvision.testing.kinds.losses import check_loss
    from mtvision.testing.kinds.mergers import check_merger
    from mtvision.testing.kinds.metrics import check_metric
    from mtvision.testing.kinds.slimming import check_slimmable
    from mtvision.testing.kinds.steps import check_step
    from mtvision.testing.report import NotApplicable, Outcome, PropertyError, Report
else:
    __getattr__ = lazy_exports(__name__)

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
    "check_branching",
    "check_dataset",
    "check_decoder",
    "check_loss",
    "check_merger",
    "check_metric",
    "check_slimmable",
    "check_step",
    "properties",
]

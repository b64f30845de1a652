"""Networks whose widths are chosen at run time; see `docs/slimmable.md`."""

from mtvision.architecture.widths import active_channels
from mtvision.models.adapters.slimmable.adapter import Slimmable
from mtvision.models.adapters.slimmable.batch_norm import calibrate, has_statistics, slimming_of
from mtvision.models.adapters.slimmable.export import export
from mtvision.models.adapters.slimmable.sliced import Sliced
from mtvision.models.adapters.slimmable.width import Slimming

__all__ = [
    "Sliced",
    "Slimmable",
    "Slimming",
    "active_channels",
    "calibrate",
    "export",
    "has_statistics",
    "slimming_of",
]

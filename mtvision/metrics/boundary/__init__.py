"""The boundary benchmark (odsF) without MATLAB.

It can be used alone: `count_image` for one pair of maps, `summarize` for a data set, `find_pairs` and
`evaluate_folders` for folders. `BOUNDARY_PROTOCOLS` lists the differences between papers. See
docs/boundary.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtvision.core.registry.lazy import lazy_exports

if TYPE_CHECKING:
    from mtvision.metrics.boundary.aggregate import Point, Summary, summarize
    from mtvision.metrics.boundary.counts import ImageCounts, count_image
    from mtvision.metrics.boundary.ground_truth import regions, seg2bmap
    from mtvision.metrics.boundary.matching import Match, Matcher, match
    from mtvision.metrics.boundary.nms import suppress
    from mtvision.metrics.boundary.protocols import (
        BOUNDARY_PROTOCOLS,
        BoundaryProtocol,
        get_boundary_protocol,
    )
    from mtvision.metrics.boundary.readers import read_prediction, read_truth
    from mtvision.metrics.boundary.runner import Evaluation, evaluate_folders, find_pairs
else:
    __getattr__ = lazy_exports(__name__)

__all__ = [
    "BOUNDARY_PROTOCOLS",
    "BoundaryProtocol",
    "Evaluation",
    "ImageCounts",
    "Match",
    "Matcher",
    "Point",
    "Summary",
    "count_image",
    "evaluate_folders",
    "find_pairs",
    "get_boundary_protocol",
    "match",
    "read_prediction",
    "read_truth",
    "regions",
    "seg2bmap",
    "summarize",
    "suppress",
]

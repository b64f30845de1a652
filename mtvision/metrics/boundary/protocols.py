"""The boundary protocols of the papers, as data."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from mtvision.core.naming import look_up

SEISM_THRESHOLDS = (0.001, *(index / 100 for index in range(1, 100)), 0.999)
"""The 101 thresholds of SEISM's `HED.txt`."""


def even_thresholds(number: int) -> tuple[float, ...]:
    """`number` thresholds 1/(n+1) .. n/(n+1), formed as MATLAB's `linspace` forms them.

    8-bit values such as 51/255 equal some of them exactly, so that another formula with the same values on
    paper changes published scores.

    Raises:
        ValueError: the number is below 1.
    """
    if number < 1:
        raise ValueError(f"the number of thresholds must be at least 1, got {number}.")
    first, last = 1 / (number + 1), 1 - 1 / (number + 1)
    if number == 1:
        return (last,)
    return tuple(first + index * (last - first) / (number - 1) for index in range(number))


def seism_thresholds(number: int) -> tuple[float, ...]:
    """SEISM's own 101 thresholds, or another number of evenly spaced ones."""
    return SEISM_THRESHOLDS if number == len(SEISM_THRESHOLDS) else even_thresholds(number)


@dataclass(frozen=True, kw_only=True)
class BoundaryProtocol:
    """Options of one boundary benchmark.

    Args:
        id: its name.
        title: one line for people.
        max_distance: largest distance of matched pixels, as a share of the image diagonal.
        thresholds: increasing.
        strict: a pixel is a boundary if its strength is `>` the threshold, otherwise `>=`.
        quantize: floor predictions to 8 bits first (files of 8 bits are not changed by it).
        smoothing: triangle filter radius before suppression.
        suppression: radius of the non-maximum suppression; 0 = none.
        requantize: round to 8 bits after suppression, because the papers stored that map as PNG.
        thin_truth: thin the ground truth (the prediction is thinned always).
        label_truth: make boundaries from label maps and edge maps with `seg2bmap`, otherwise label images are
            refused and edge images are binary boundaries.
        components: split label maps into 4-connected components first.
        interpolate: look for the best F between thresholds as well.
        images: number of images of the published split; None is not checked.
        image_list: file that lists those images, where they are a part of the data set's split.
        empty: counts without pixels give precision and recall 0 (`zero`), or recall 1 and precision 0 without
            ground truth, recall 0 and precision 1 without prediction (`seism`).
    """

    id: str
    title: str
    max_distance: float = 0.0075
    thresholds: tuple[float, ...] = even_thresholds(99)
    strict: bool = False
    quantize: bool = False
    smoothing: int = 0
    suppression: int = 0
    requantize: bool = False
    thin_truth: bool = False
    label_truth: bool = False
    components: bool = False
    interpolate: bool = True
    images: int | None = None
    image_list: str | None = None
    empty: Literal["zero", "seism"] = "zero"

    def __post_init__(self) -> None:
        if not 0 < self.max_distance < 1:
            raise ValueError(
                f"boundary protocol {self.id}: max_distance is a share of the image diagonal "
                f"in 0..1 (the papers use 0.0075 and 0.011), got {self.max_distance}."
            )
        if not self.thresholds or list(self.thresholds) != sorted(self.thresholds):
            raise ValueError(f"boundary protocol {self.id}: thresholds must be increasing and at least one.")

    def counting(self) -> tuple[Any, ...]:
        """The options that decide the counts of an image, and not only their summary."""
        summary = ("id", "title", "images", "image_list", "interpolate", "empty")
        return tuple(
            (item.name, getattr(self, item.name)) for item in fields(self) if item.name not in summary
        )

    def with_thresholds(self, number: int) -> BoundaryProtocol:
        """The same protocol with another number of thresholds."""
        make = seism_thresholds if self.empty == "seism" else even_thresholds
        return replace(self, thresholds=make(number))


BSDS = BoundaryProtocol(id="bsds", title="BSDS500 boundary benchmark, 99 thresholds, several annotators")
SEISM_PASCAL = BoundaryProtocol(
    id="seism-pascal",
    title="SEISM on PASCAL-Context: NMS, 101 thresholds, boundaries of connected label regions",
    thresholds=SEISM_THRESHOLDS,
    strict=True,
    quantize=True,
    suppression=1,
    thin_truth=True,
    label_truth=True,
    components=True,
    interpolate=False,
    images=2498,
    image_list="test_new.txt",
    empty="seism",
)
SEISM_PASCAL_VAL = replace(
    SEISM_PASCAL,
    image_list=None,
    id="seism-pascal-val5105",
    title="SEISM on the whole validation split of PASCAL-Context; papers score 2498 images of it",
    images=5105,
)
SEISM_NYUD = replace(
    SEISM_PASCAL,
    id="seism-nyud",
    title="SEISM on NYUD-v2: NMS, 101 thresholds, the edge image read as a segmentation",
    max_distance=0.011,
    components=False,
    image_list=None,
    images=654,
)
LABEL_MAP = BoundaryProtocol(
    id="label-map",
    title="SEISM's procedure with the edge map itself as ground truth, as in this suite's own evaluation",
    thresholds=SEISM_THRESHOLDS,
    strict=True,
    quantize=True,
    suppression=1,
    thin_truth=True,
    interpolate=False,
    empty="seism",
)
MTI_PASCAL = replace(
    SEISM_PASCAL,
    id="mti-pascal",
    title="MTI-Net and M3ViT on PASCAL-Context: no NMS, 99 thresholds, ground truth as in seism-pascal",
    thresholds=even_thresholds(99),
    strict=False,
    suppression=0,
)
MTDP = BoundaryProtocol(
    id="mtdp",
    title="DiffusionMTL, SAK and PRISM: smoothed NMS of radius 4, 99 thresholds (PASCAL-Context)",
    quantize=True,
    smoothing=1,
    suppression=4,
    requantize=True,
    images=5105,
)
MTDP_NYUD = replace(
    MTDP,
    id="mtdp-nyud",
    title=MTDP.title.replace("PASCAL-Context", "NYUD-v2"),
    max_distance=0.011,
    images=654,
)

BOUNDARY_PROTOCOLS = {
    protocol.id: protocol
    for protocol in (BSDS, SEISM_PASCAL, SEISM_PASCAL_VAL, SEISM_NYUD, MTI_PASCAL, MTDP, MTDP_NYUD, LABEL_MAP)
}


def get_boundary_protocol(id: str) -> BoundaryProtocol:  # noqa: A002  the name used in records
    """The boundary protocol with that id; raises `UnknownNameError`."""
    return look_up("boundary protocol", id, BOUNDARY_PROTOCOLS)

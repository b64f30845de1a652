"""Speed of the benchmark: variants to time in turns, and an extrapolation to a whole data set."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter, map_coordinates
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree

from mtvision.metrics.boundary.counts import count_image, prepare
from mtvision.metrics.boundary.ground_truth import seg2bmap
from mtvision.metrics.boundary.matching import Matcher
from mtvision.metrics.boundary.protocols import SEISM_NYUD
from mtvision.metrics.boundary.thin import thin

Map = NDArray[np.float64]
Flags = NDArray[np.bool_]


def realistic_maps(seed: int, *, size: tuple[int, int] = (425, 560), regions: int = 45) -> tuple[Map, Flags]:
    """A soft boundary map and its ground truth, as dense as those of indoor images.

    The truth is a Voronoi diagram with warped cells; the prediction is a blurred, displaced copy with uneven
    strength and noise. With 45 regions about 2.2 % of the pixels are boundary; BSDS images have .8 to 2 %.

    Returns:
        Probabilities (H, W), boundary pixels (H, W).
    """
    generator = np.random.default_rng(seed)

    def waves(width: float, height: float) -> Map:
        noise: Map = gaussian_filter(generator.normal(size=size), width)
        return noise * height

    rows, columns = np.mgrid[: size[0], : size[1]].astype(np.float64)
    centres = generator.uniform(0, 1, (regions, 2)) * size
    warped = np.stack([rows + waves(12, 150), columns + waves(12, 150)], axis=-1)
    truth = thin(seg2bmap(cKDTree(centres).query(warped)[1]))
    distance = map_coordinates(
        distance_transform_edt(~truth), [rows + waves(6, 10), columns + waves(6, 10)], order=1, mode="nearest"
    )
    logits = 2.5 - 1.2 * distance + waves(3, 12) + waves(20, 40)
    return 1 / (1 + np.exp(-logits)), truth


def variants(*, thresholds: int = 4) -> Mapping[str, Callable[[], object]]:
    """One 320x480 image at a few thresholds: the benchmark, and simpler ways to the same counts.

    `every threshold matched` solves thresholds that change nothing again; `dense assignment` solves
    the full cost matrix with `scipy.optimize.linear_sum_assignment`.
    """
    strengths, truth = realistic_maps(0, size=(320, 480), regions=20)
    protocol = replace(SEISM_NYUD, max_distance=0.0075).with_thresholds(thresholds)
    radius = protocol.max_distance * float(np.hypot(*truth.shape))

    def cuts() -> list[Flags]:
        prepared = prepare(strengths, protocol)
        return [thin(prepared > threshold) for threshold in protocol.thresholds]

    return {
        "benchmark": lambda: count_image(strengths, [truth], protocol),
        "every threshold matched": lambda: [Matcher(truth, radius).match(cut) for cut in cuts()],
        "dense assignment": lambda: [_dense_matches(cut, truth, radius) for cut in cuts()],
    }


def extrapolate(*, images: int = 654, sample: int = 3, cores: int = 2, regions: int = 45) -> dict[str, float]:
    """Minutes for a data set of NYUD-sized maps at 101 thresholds, from the processor time of a few of them.

    Returns:
        `minutes` on `cores` processes, `seconds_per_image` and `milliseconds_per_threshold` of one core,
        `boundary_share` of the ground truth, and `peak_megabytes` of this process.
    """
    pairs = [realistic_maps(seed, regions=regions) for seed in range(sample)]
    start = time.process_time()
    for strengths, truth in pairs:
        count_image(strengths, [truth], SEISM_NYUD)
    seconds = (time.process_time() - start) / sample
    return {
        "minutes": seconds * images / cores / 60,
        "seconds_per_image": seconds,
        "milliseconds_per_threshold": 1000 * seconds / len(SEISM_NYUD.thresholds),
        "boundary_share": float(np.mean([truth.mean() for _, truth in pairs])),
        "peak_megabytes": _peak_megabytes(),
    }


def _peak_megabytes() -> float:
    """Most memory that this program has held; not a number where the system is not Linux.

    `ru_maxrss` would start at what the process held that started this one.
    """
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), math.nan)


def _dense_matches(prediction: Flags, truth: Flags, radius: float) -> int:
    """Number of matched pixels by the Hungarian method on all pairs."""
    a, b = np.argwhere(prediction), np.argwhere(truth)
    cost = np.hypot(a[:, None, 0] - b[None, :, 0], a[:, None, 1] - b[None, :, 1])
    cost[cost > radius] = 200 * radius
    rows, columns = linear_sum_assignment(cost)
    return int((cost[rows, columns] <= radius).sum())

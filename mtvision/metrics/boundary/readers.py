"""Boundary maps and ground truths from files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtvision.core.files.arrays import load_npy
from mtvision.core.files.mat import load_mat
from mtvision.core.files.pictures import load_picture
from mtvision.metrics.boundary.ground_truth import regions, seg2bmap
from mtvision.metrics.boundary.protocols import BoundaryProtocol
from mtvision.metrics.boundary.thin import thin

PREDICTION_SUFFIXES = (".png", ".npy", ".mat")
TRUTH_SUFFIXES = (".mat", ".png", ".npy")
INVERTED = 0.9
"""Share of edge pixels that no ground truth reaches."""


def read_prediction(path: Path) -> NDArray[np.floating]:
    """A boundary map (H, W) in 0..1.

    PNG of 8 or 16 bits (divided by its range), NPY of integers (8 bit, divided by 255) or floats, or MAT with
    `ucm2`. That is an ultrametric contour map at double size. Its rows and columns 3, 5, 7 ... (counted from
    1) are the image's pixels.

    Raises:
        ValueError: another format, several channels, values outside 0..1, or a `.mat` without `ucm2`.
    """
    if path.suffix.lower() == ".mat":
        variables = load_mat(path)
        if "ucm2" not in variables:
            raise ValueError(f"{path}: a prediction .mat must hold 'ucm2', found {_names(variables)}.")
        return np.asarray(variables["ucm2"], dtype=np.float64)[2::2, 2::2]
    values = _load_map(path, PREDICTION_SUFFIXES)
    if values.dtype == bool:
        strengths = values.astype(np.float64)
    elif np.issubdtype(values.dtype, np.integer):
        top = 255 if values.dtype == np.uint8 or values.max() <= 255 else 65535
        strengths = values.astype(np.float64) / top
    else:
        strengths = values
    if not (strengths.size and np.min(strengths) >= 0 and np.max(strengths) <= 1):
        raise ValueError(
            f"{path}: a boundary map must hold probabilities in 0..1 without NaN; apply the sigmoid "
            "to logits first."
        )
    return strengths


def read_truth(path: Path, protocol: BoundaryProtocol) -> list[NDArray[np.bool_]]:
    """Boundary maps (H, W) of every annotator, prepared as the protocol says.

    With `protocol.label_truth`, images, arrays and MAT files (`LabelMap`, or `Segmentation` of the BSDS
    layout) are label maps. `seg2bmap` turns them into boundaries. Without it they are edge maps (integers of
    two values, or floats of at least .5) or MAT files in the BSDS layout (`groundTruth{i}.Boundaries`).
    Arrays may have a leading axis of annotators.

    Raises:
        ValueError: another format, several channels, a label map where edges are expected, edges almost
            everywhere, or a `.mat` of another layout.
    """
    maps = _truth_maps(path, labels=protocol.label_truth)
    if protocol.label_truth:
        maps = [seg2bmap(regions(item) if protocol.components else item) for item in maps]
    else:
        share = max((float(item.mean()) for item in maps if item.size), default=0.0)
        if share > INVERTED:
            raise ValueError(
                f"{path}: {share:.0%} of the pixels are edges, expected few: the map is inverted. Store "
                "edges as the larger value."
            )
    return [thin(item) for item in maps] if protocol.thin_truth else list(maps)


def _truth_maps(path: Path, *, labels: bool) -> Sequence[NDArray[Any]]:
    if path.suffix.lower() == ".mat":
        return _truth_of_mat(path, labels=labels)
    values = _load_map(path, TRUTH_SUFFIXES, annotators=True)
    stack = values[None] if values.ndim == 2 else values
    if labels:
        if not np.issubdtype(stack.dtype, np.integer) and stack.dtype != bool:
            raise ValueError(f"{path}: a label map must hold integers, got {stack.dtype}.")
        return list(stack.astype(np.int64))
    if np.issubdtype(stack.dtype, np.integer):
        if np.unique(stack).size > 2:
            raise ValueError(
                f"{path}: an edge image must hold two values (0 and another), found {np.unique(stack).size}. "
                "For label maps use a seism protocol; store soft edges as a .npy of floats."
            )
        if stack.size and stack.min() != 0:
            raise ValueError(
                f"{path}: an edge image must hold 0 and another value, found no 0. Class ids that begin at 1 "
                "are a label map: use a seism protocol."
            )
        return list(stack > 0)
    if stack.dtype != bool and not (np.min(stack, initial=0) >= 0 and np.max(stack, initial=0) <= 1):
        if np.unique(stack).size > 2 or np.min(stack) != 0:
            raise ValueError(
                f"{path}: an edge map of real numbers must lie in 0..1, or hold 0 and another value, found "
                f"{np.min(stack):g}..{np.max(stack):g}. For label maps use a seism protocol."
            )
        return list(stack > 0)
    return list(stack >= 0.5)


def _truth_of_mat(path: Path, *, labels: bool) -> list[NDArray[Any]]:
    variables = load_mat(path)
    if labels and "LabelMap" in variables:
        return [_map_of_mat(path, "LabelMap", np.asarray(variables["LabelMap"]), labels=True)]
    field = "Segmentation" if labels else "Boundaries"
    if "groundTruth" not in variables:
        wanted = "'LabelMap' or 'groundTruth'" if labels else "'groundTruth'"
        raise ValueError(f"{path}: a ground-truth .mat must hold {wanted}, found {_names(variables)}.")
    cells = np.asarray(variables["groundTruth"]).ravel()
    if not cells.size:
        raise ValueError(f"{path}: 'groundTruth' is empty; at least one annotator is needed.")
    maps = []
    for cell in cells:
        if cell.dtype.names is None or field not in cell.dtype.names:
            raise ValueError(f"{path}: groundTruth has the fields {cell.dtype.names}, '{field}' is needed.")
        values = np.asarray(cell[field].ravel()[0]) if cell.size else np.zeros(0)
        maps.append(_map_of_mat(path, field, values, labels=labels))
    return maps


def _map_of_mat(path: Path, name: str, values: NDArray[Any], *, labels: bool) -> NDArray[Any]:
    if values.ndim != 2 or values.dtype.kind not in "biuf" or not values.size:
        raise ValueError(
            f"{path}: '{name}' has shape {values.shape} and type {values.dtype}, expected a matrix (H, W) of "
            "numbers."
        )
    return values.astype(np.int64) if labels else values > 0


def _load_map(path: Path, suffixes: Sequence[str], *, annotators: bool = False) -> NDArray[Any]:
    if path.suffix.lower() not in suffixes:
        raise ValueError(f"{path}: the formats read here are {', '.join(suffixes)}.")
    npy = path.suffix.lower() == ".npy"
    values = load_npy(path, what="cannot be read") if npy else load_picture(path)
    if values.dtype.kind not in "biuf":
        raise ValueError(f"{path}: expected a map of real numbers, got {values.dtype}. Write it again.")
    if values.ndim == 3 and values.shape[0] == 1 and not annotators:
        values = values[0]
    if values.ndim != 2 and not (annotators and path.suffix.lower() == ".npy" and values.ndim == 3):
        raise ValueError(f"{path}: expected a map with one channel (H, W), got shape {values.shape}.")
    return values


def _names(variables: dict[str, Any]) -> str:
    return ", ".join(repr(name) for name in variables if not name.startswith("__")) or "nothing"

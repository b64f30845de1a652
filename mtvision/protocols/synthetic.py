"""The embedded data set's protocol: six tasks on ray-cast rooms and streets."""

from __future__ import annotations

from dataclasses import replace

from mtvision.protocols.protocol import Protocol
from mtvision.protocols.tasks import depth, edge, human_parts, instance, normals, saliency, semseg

SYNTHETIC_CLASSES = (
    "wall", "floor", "ceiling", "window", "door", "table", "chair", "bed", "cabinet", "lamp", "picture",
    "box", "ball", "person", "road", "sidewalk", "building", "vegetation", "vehicle", "pole", "sky",
)  # fmt: skip

SYNTHETIC = Protocol(
    id="synthetic-scenes",
    title="Synthetic scenes (rooms and streets, 96x128)",
    family="synthetic",
    tasks=(
        semseg(SYNTHETIC_CLASSES),
        depth(),
        normals(),
        edge(max_distance=0.0075, thresholds=99),
        saliency(),
        human_parts(),
    ),
    train_size=(96, 128),
    loss_weights={"semseg": 1, "depth": 1, "normals": 10, "edge": 50, "saliency": 5, "human_parts": 2},
    source="mtvision/data/synthetic",
)

SYNTHETIC_THINGS = ("person", "vehicle")
"""Classes of streets that have instances."""

SYNTHETIC_INSTANCES = Protocol(
    id="synthetic-instances",
    title="Synthetic scenes: classes, instances of persons and vehicles, depth (96x128)",
    family="synthetic",
    tasks=(
        semseg(SYNTHETIC_CLASSES),
        instance(SYNTHETIC_THINGS, minimum_area=16),
        depth(),
    ),
    train_size=(96, 128),
    loss_weights={"semseg": 1, "instance": 1, "depth": 1},
    source="mtvision/data/synthetic; tasks of Kendall et al. (CVPR 2018)",
)
"""True instances of fewer than 16 pixels count neither as found nor as missed."""

FEET = 3.28084
"""Feet in a metre."""

SYNTHETIC_UNITS = Protocol(
    id="synthetic-units",
    title="Synthetic scenes: depth in metres, the same depth in feet, and other tasks (96x128)",
    family="synthetic",
    tasks=(
        depth(),
        replace(depth(), name="depth_feet", unit="ft"),
        semseg(SYNTHETIC_CLASSES),
        normals(),
    ),
    train_size=(96, 128),
    loss_weights={"depth": 1, "depth_feet": 1 / FEET, "semseg": 1, "normals": 10},
    source="mtvision/data/synthetic; for searches whose answer is known: two tasks are one map",
)

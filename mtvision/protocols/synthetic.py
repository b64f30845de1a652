"""The embedded data set's protocol: six tasks on ray-cast rooms and streets."""

from __future__ import annotations

from mtvision.protocols.protocol import Protocol
from mtvision.protocols.tasks import depth, edge, human_parts, normals, saliency, semseg

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

"""BSDS with saliency: boundaries of several annotators and salient objects of 300 photographs."""

from __future__ import annotations

from dataclasses import replace

from mtvision.core.task import Task
from mtvision.protocols.protocol import Protocol
from mtvision.protocols.tasks import edge, saliency

BSDS_SPLITS = {"train": 200, "val": 100}
MOST_ANNOTATORS = 9
"""Of one photograph; BSDS500 has four to nine."""


def annotated_edge(*, thresholds: int = 99) -> Task:
    """Boundaries of several people: channel 0 is the share that drew a pixel, each other one a person.

    The network predicts one channel and learns the share. The metric matches each person's boundaries.
    """
    return replace(
        edge(thresholds=thresholds),
        label_channels=1 + MOST_ANNOTATORS,
        loss={"type": "ShareEdgeLoss", "positive_weight": 0.95},
        metrics=({"type": "annotated_edge", "max_distance": 0.0075, "thresholds": thresholds},),
        colours="share",
    )


BSDS_SOD = Protocol(
    id="bsds-sod",
    title="BSDS with saliency (300 photographs, 321x481 and 481x321)",
    family="own",
    tasks=(annotated_edge(), saliency()),
    splits=BSDS_SPLITS,
    train_size=(192, 256),
    loss_weights={"edge": 50, "saliency": 5},
    source="Arbelaez et al. (TPAMI 2011) and Movahedi and Elder (POCV 2010)",
)
"""Trained on the 200 training photographs of BSDS500 and scored on its 100 validation photographs."""

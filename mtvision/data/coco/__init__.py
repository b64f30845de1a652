"""COCO files: the check of the whole file, masks, and the data set."""

from mtvision.data.coco.dataset import CROWD, CocoDataset, Segments

__all__ = ["CROWD", "CocoDataset", "Segments"]

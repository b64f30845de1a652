"""Data sets, transforms and samplers: from disk to batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtvision.core.registry.lazy import lazy_exports

if TYPE_CHECKING:
    from mtvision.data.bsds_sod import BSDSSaliency
    from mtvision.data.camvid import CamVid
    from mtvision.data.cityscapes import Cityscapes
    from mtvision.data.coco import CocoDataset
    from mtvision.data.dataset import DenseDataset
    from mtvision.data.folder import FolderDataset
    from mtvision.data.joint import JointDataset
    from mtvision.data.manifest import data_manifest
    from mtvision.data.mosd import Mosd
    from mtvision.data.mtan_npy import MtanNpy
    from mtvision.data.nyudv2 import NYUDv2
    from mtvision.data.part import HeldOutImages, SelectedImages
    from mtvision.data.pascal_context import PascalContext
    from mtvision.data.random_images import RandomImages
    from mtvision.data.synthetic import SyntheticScenes
else:
    __getattr__ = lazy_exports(__name__)

__all__ = [
    "BSDSSaliency",
    "CamVid",
    "Cityscapes",
    "CocoDataset",
    "DenseDataset",
    "FolderDataset",
    "HeldOutImages",
    "JointDataset",
    "Mosd",
    "MtanNpy",
    "NYUDv2",
    "PascalContext",
    "RandomImages",
    "SelectedImages",
    "SyntheticScenes",
    "data_manifest",
]

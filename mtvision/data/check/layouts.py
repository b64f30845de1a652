"""Known packagings and copies of data sets that cannot be opened as the expected one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class KnownCopy:
    """A packaging that is often taken for another one.

    Args:
        dataset: class it is mistaken for.
        found: whether a folder is that copy.
        text: what it is and what to do.
    """

    dataset: str
    found: Callable[[Path], bool]
    text: str


def _has(root: Path, pattern: str) -> bool:
    return next(root.glob(pattern), None) is not None


KNOWN_COPIES = (
    KnownCopy(
        "NYUDv2",
        lambda root: _has(root, "segmentation/*.mat"),
        "segmentation/*.mat: this is ASTMT's NYUD_MT.tgz (41 classes with background), which no "
        "protocol here uses. Take NYUDv2.tar.gz (InvPT) or the survey's NYUD_MT.tgz.",
    ),
    KnownCopy(
        "NYUDv2",
        lambda root: _has(root, "images/*.jpg") and _has(root, "normals/*.npy"),
        "images/*.jpg and normals/*.npy: this is the survey's NYUD_MT.tgz; read it with "
        "packaging='survey' under the protocol nyud-survey, not nyud-invpt.",
    ),
    KnownCopy(
        "NYUDv2",
        lambda root: _has(root, "images/*.png") and _has(root, "edge_mat/*.mat"),
        "edge_mat/: this is MTDP's copy of NYUDv2.tar.gz; it serves, and edge_mat belongs to MTDP's "
        "own edge tool.",
    ),
    KnownCopy(
        "NYUDv2",
        lambda root: _has(root, "*/image/*.npy"),
        "{train,val}/image/*.npy: this is MTAN's 13-class set; read it with MtanNpy under the "
        "protocol nyuv2-mtan.",
    ),
    KnownCopy(
        "NYUDv2",
        lambda root: _has(root, "nyu_depth_v2_labeled.mat"),
        "nyu_depth_v2_labeled.mat: this is the raw release; run tools/prepare_dataset.py nyudv2 on it.",
    ),
    KnownCopy(
        "PascalContext",
        lambda root: _has(root, "JPEGImages/*.jpg") and not _has(root, "normals_distill/*.png"),
        "no normals_distill/: a copy without the distilled labels circulates; normals and saliency are "
        "off. The original is PASCALContext.tar.gz (or ASTMT's PASCAL_MT.tgz).",
    ),
    KnownCopy(
        "PascalContext",
        lambda root: _has(root, "SegmentationClass") or _has(root, "VOC20*"),
        "SegmentationClass/ or VOC20xx/: this is PASCAL VOC; run tools/prepare_dataset.py pascal_context.",
    ),
    KnownCopy(
        "Cityscapes",
        lambda root: _has(root, "leftImg8bit_trainvaltest.zip"),
        "the archives are still packed; run tools/prepare_dataset.py cityscapes.",
    ),
    KnownCopy(
        "Cityscapes",
        lambda root: _has(root, "*/image/*.npy"),
        "{train,val}/image/*.npy: this is MTAN's set; read it with MtanNpy under cityscapes-mtan-7 or -19.",
    ),
    KnownCopy(
        "Cityscapes",
        lambda root: (
            _has(root, "leftImg8bit/train/*/*.png") and not _has(root, "gtFine/train/*/*_labelIds.png")
        ),
        "no *_gtFine_labelIds.png: only converted labels are left; unpack gtFine_trainvaltest.zip again.",
    ),
)


def known_copies(dataset: str, root: Path) -> list[str]:
    """Known copies that match a folder that should hold `dataset`."""
    return [copy.text for copy in KNOWN_COPIES if copy.dataset == dataset and copy.found(root)]

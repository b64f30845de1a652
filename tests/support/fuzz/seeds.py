"""Valid files, small and always the same, that mutations start from."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from PIL import Image
from report_records import make_record
from safetensors.torch import save as save_safetensors
from scipy.io import savemat

H, W = 12, 17
RNG = np.random.default_rng(0)
CLASSES = RNG.integers(0, 3, (H, W)).astype(np.uint8)
COLOURS = RNG.integers(0, 256, (H, W, 3)).astype(np.uint8)
DEPTHS = RNG.integers(500, 9000, (H, W)).astype(np.uint16)
VALUES = RNG.random((H, W, 2)).astype(np.float32)
SMOOTH = np.repeat(np.linspace(0, 255, 64 * 48).reshape(48, 64, 1), 3, axis=2).astype(np.uint8)


def picture(array: np.ndarray, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image = Image.fromarray(array)
    if options.pop("palette", False):
        image.putpalette([value for colour in range(256) for value in (colour, 0, 255 - colour)])
    image.save(file, kind, **options)
    return file.getvalue()


def saved(function: Callable, *arguments: object, **options: object) -> bytes:
    file = io.BytesIO()
    function(file, *arguments, **options)
    return file.getvalue()


def _state() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {"a.weight": torch.randn(4, 3, generator=generator), "a.bias": torch.arange(4.0)}


def _pth(**options: object) -> bytes:
    content = {"model": _state(), "epoch": 3, "meta": {"name": "x"}}
    return saved(lambda file: torch.save(content, file, **options))


def _mat(compressed: bool) -> bytes:
    truth = np.zeros(1, dtype=[("Boundaries", object), ("Segmentation", object)])
    truth["Boundaries"][0], truth["Segmentation"][0] = CLASSES > 1, CLASSES.astype(np.uint16)
    cells = np.empty(1, dtype=object)
    cells[0] = truth
    content = {"groundTruth": cells, "LabelMap": CLASSES.astype(np.uint16)}
    return saved(savemat, content, do_compression=compressed)


def _coco() -> bytes:
    annotations = [
        {"id": number + 1, "image_id": 5, "category_id": 3, "segmentation": shape, "iscrowd": crowd}
        for number, (shape, crowd) in enumerate(
            (([[2, 2, 9, 2, 9, 7.5, 2, 8]], 0), ({"size": [H, W], "counts": [20, 30, H * W - 50]}, 1))
        )
    ]
    content = {
        "images": [{"id": 5, "file_name": "a.png", "height": H, "width": W}],
        "categories": [{"id": 3, "name": "car"}, {"id": 17, "name": "cat"}],
        "annotations": annotations,
    }
    return json.dumps(content).encode()


def _manifest() -> bytes:
    content = {"version": 1, "suite": "0", "format": "exact", "complete": True}
    return json.dumps({**content, "tasks": {"semseg": ".png"}, "sizes": {"a": [H, W]}}).encode()


def _webp() -> bytes:
    return picture(COLOURS, "WEBP", lossless=True)


MAKERS: dict[str, Callable[[], bytes]] = {
    "png_gray": lambda: picture(CLASSES, "PNG"),
    "png_rgb": lambda: picture(COLOURS, "PNG"),
    "png_palette": lambda: picture(CLASSES, "PNG", palette=True),
    "png_16": lambda: picture(DEPTHS, "PNG"),
    "png_prediction": lambda: picture(CLASSES, "PNG"),
    "jpeg": lambda: picture(SMOOTH, "JPEG", quality=80),
    "jpeg_progressive": lambda: picture(SMOOTH, "JPEG", progressive=True),
    "webp": _webp,
    "bmp": lambda: picture(COLOURS, "BMP"),
    "tiff": lambda: picture(VALUES[..., 0], "TIFF"),
    "tiff_deflate": lambda: picture(VALUES[..., 0], "TIFF", compression="tiff_adobe_deflate"),
    "npy": lambda: saved(np.save, VALUES),
    "npy_prediction": lambda: saved(np.save, VALUES[..., 0]),
    "npz": lambda: saved(np.savez, VALUES),
    "npz_deflate": lambda: saved(np.savez_compressed, VALUES),
    "mat": lambda: _mat(False),
    "mat_deflate": lambda: _mat(True),
    "coco": _coco,
    "coco_gzip": lambda: gzip.compress(_coco(), mtime=0),
    "ids": lambda: b"a\nb\nsub/c\n",
    "manifest": _manifest,
    "checkpoint_pth": _pth,
    "checkpoint_old": lambda: _pth(_use_new_zipfile_serialization=False),
    "safetensors": lambda: save_safetensors(_state(), {"mtvision": json.dumps({"iteration": 3})}),
    "record": lambda: make_record().to_text().encode(),
}
"""{kind of file: what makes a valid one}."""

WITH_CHECKSUM = frozenset(
    {
        *("png_gray", "png_rgb", "png_palette", "png_16", "png_prediction", "npz", "npz_deflate"),
        *("mat_deflate", "coco_gzip", "checkpoint_pth"),
    }
)
"""Kinds whose format notices changed content."""


@cache
def seed(kind: str) -> bytes:
    """A valid file of a kind."""
    return MAKERS[kind]()

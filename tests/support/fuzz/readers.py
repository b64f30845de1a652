"""Each kind of file through the suite's public reading path."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fuzz.seeds import CLASSES, H, W, picture
from mtvision.data import FolderDataset
from mtvision.data.coco import CocoDataset
from mtvision.data.decode import read_image
from mtvision.data.pascal_context.labels import read_label_map
from mtvision.evaluation.predict.reading import read_picture
from mtvision.evaluation.prediction_files import PredictionFiles
from mtvision.metrics.boundary.protocols import BOUNDARY_PROTOCOLS
from mtvision.metrics.boundary.readers import read_truth
from mtvision.protocols import own_protocol
from mtvision.protocols.tasks import edge, semseg
from mtvision.report.record import Record
from mtvision.runtime.checkpoint import load_checkpoint

SEMSEG = own_protocol("fuzz-classes", {"semseg": {"class_names": ("a", "b", "c")}})
DEPTH = own_protocol("fuzz-depth", {"depth": {}})
VALUES = own_protocol("fuzz-values", {"values": {"label": "values", "label_channels": 2}})
PLANE = own_protocol("fuzz-plane", {"values": {"label": "values", "label_channels": 1}})
COCO = own_protocol("fuzz-coco", {"semseg": {"class_names": ("car", "cat")}})
TASKS = (semseg(("a", "b", "c")), edge())


@dataclass(frozen=True)
class Reader:
    """How a kind is read.

    Args:
        file: its place below a folder.
        read: what is read, given the folder and the file.
        others: files that have to lie beside it.
    """

    file: str
    read: Callable[[Path, Path], object]
    others: Sequence[str] = ("images/a.png",)


def _label(protocol: object, task: str, **options: object) -> Callable[[Path, Path], object]:
    def read(folder: Path, file: Path) -> object:
        labels = {task: {"folder": "labels", **options}}
        return FolderDataset(folder, labels=labels, protocol=protocol)[0].labels[task]

    return read


def _listed(folder: Path, file: Path) -> object:
    labels = {"semseg": "labels"}
    return FolderDataset(folder, labels=labels, protocol=SEMSEG, partial=True, ids="ids.txt").ids


def _prediction(task: object) -> Callable[[Path, Path], object]:
    def read(folder: Path, file: Path) -> object:
        found = PredictionFiles.find(folder / "out", [task])
        found.require(["a"])
        return found.read(task, "a", (H, W))

    return read


def _mat(folder: Path, file: Path) -> object:
    truths = [read_truth(file, BOUNDARY_PROTOCOLS[name]) for name in sorted(BOUNDARY_PROTOCOLS)]
    return [truths, read_label_map(file)]


def _coco(folder: Path, file: Path) -> object:
    dataset = CocoDataset(folder / "images", file, protocol=COCO)
    return [dataset.ids, [dataset[index].labels for index in range(len(dataset))]]


PICTURES = ("images/a.png",)
LISTED = ("images/a.png", "images/b.png", "images/sub/c.png")
READERS: dict[str, Reader] = {
    "png_gray": Reader("labels/a.png", _label(SEMSEG, "semseg")),
    "png_palette": Reader("labels/a.png", _label(SEMSEG, "semseg")),
    "png_16": Reader("labels/a.png", _label(DEPTH, "depth", scale=1000)),
    "png_rgb": Reader("a.png", lambda folder, file: [read_image(file), read_picture(file)], ()),
    "png_prediction": Reader("out/semseg/a.png", _prediction(TASKS[0]), ()),
    "npy": Reader("labels/a.npy", _label(VALUES, "values")),
    "npy_prediction": Reader("out/edge/a.npy", _prediction(TASKS[1]), ()),
    "npz": Reader("labels/a.npz", _label(VALUES, "values")),
    "npz_deflate": Reader("labels/a.npz", _label(VALUES, "values")),
    "tiff": Reader("labels/a.tif", _label(PLANE, "values")),
    "tiff_deflate": Reader("labels/a.tiff", _label(PLANE, "values")),
    "mat": Reader("a.mat", _mat, ()),
    "mat_deflate": Reader("a.mat", _mat, ()),
    "coco": Reader("a.json", _coco),
    "coco_gzip": Reader("a.json.gz", _coco),
    "ids": Reader("ids.txt", _listed, LISTED),
    "manifest": Reader("out/predictions.json", _prediction(TASKS[0]), ("out/semseg/a.png",)),
    "checkpoint_pth": Reader("a.pth", lambda folder, file: load_checkpoint(file), ()),
    "checkpoint_old": Reader("a.pth", lambda folder, file: load_checkpoint(file), ()),
    "safetensors": Reader("a.safetensors", lambda folder, file: load_checkpoint(file), ()),
    "record": Reader("record.json", lambda folder, file: Record.load(file).to_json(), ()),
    **{
        kind: Reader(name, lambda folder, file: [read_image(file), read_picture(file)], ())
        for kind, name in (
            ("jpeg", "a.jpg"),
            ("jpeg_progressive", "a.jpg"),
            ("webp", "a.webp"),
            ("bmp", "a.bmp"),
        )
    },
}


def prepare(kind: str, folder: Path, content: bytes) -> Path:
    """Write a file and what has to lie beside it; the path of the file."""
    reader = READERS[kind]
    for name in reader.others:
        path = folder / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture(CLASSES, "PNG"))
    path = folder / reader.file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def digest(value: object) -> str:
    """One hash of anything that a reader returns."""
    result = hashlib.sha256()
    _update(result.update, value)
    return result.hexdigest()


def _update(update: Callable[[bytes], None], value: object) -> None:
    if isinstance(value, Mapping):
        for key in sorted(value, key=str):
            update(repr(key).encode("utf-8", "replace"))
            _update(update, value[key])
    elif isinstance(value, list | tuple):
        update(f"[{len(value)}".encode())
        for item in value:
            _update(update, item)
    elif isinstance(value, torch.Tensor):
        _update(update, value.detach().numpy() if not value.is_sparse else str(value))
    elif isinstance(value, np.ndarray):
        update(f"{value.dtype}{value.shape}".encode())
        update(np.ascontiguousarray(value).tobytes())
    else:
        update(repr(value).encode("utf-8", "replace"))

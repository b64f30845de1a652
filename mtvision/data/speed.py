"""Speed of the NYUD training pipeline: variants to time in turns, against a plain implementation.

The plain implementation is a loop over a dict of float32 arrays with Pillow, NumPy and OpenCV, step by step
as the protocol states it. With the same random numbers it makes the same tensors.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mtvision.core.random import generator
from mtvision.core.sample import IMAGE_MEAN, IMAGE_STD
from mtvision.data.array_cache import write_cache
from mtvision.data.nyudv2 import NYUDv2
from mtvision.data.synthetic import SyntheticScenes

Arrays = dict[str, NDArray[Any]]
FRAME, CROP = (425, 560), (448, 576)


def write_frames(root: Path, count: int, size: tuple[int, int] = FRAME) -> Path:
    """A training split of `count` rendered rooms, packaged like `NYUDv2.tar.gz`.

    The pictures compress like photographs of rooms: 1.0 bytes a pixel as PNG; a frame of NYUD-v2 has 1.1.
    """
    scenes = SyntheticScenes(split="train", length=count, size=size, scenes=("room",))
    folders = ("gt_sets", "images", "segmentation", "normals", "edge", "depth")
    for name in folders:
        (root / name).mkdir(parents=True, exist_ok=True)
    names = [f"{index + 1:04d}" for index in range(count)]
    (root / "gt_sets" / "train.txt").write_text("\n".join(names) + "\n")
    for index, name in enumerate(names):
        maps = scenes.rendering(index)
        pictures: dict[str, NDArray[Any]] = {
            "images": maps.image,
            "segmentation": maps.semseg + 1,
            "normals": np.round((np.nan_to_num(maps.normals) + 1) * 127.5),
            "edge": maps.edge * 255,
        }
        for folder, picture in pictures.items():
            Image.fromarray(picture.astype(np.uint8)).save(root / folder / f"{name}.png")
        np.save(root / "depth" / f"{name}.npy", np.nan_to_num(maps.depth).astype(np.float32))
    return root


def variants(*, images: int = 6) -> Mapping[str, Callable[[], object]]:
    """The same training samples of NYUD-v2, by the obvious implementation, by the suite, and from its cache.

    One thread each: a training run has one process per core.
    """
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    folder = tempfile.TemporaryDirectory(prefix="mtvision-speed-")
    root = write_frames(Path(folder.name) / "NYUDv2", images)
    options: dict[str, Any] = {"split": "train", "transforms": "invpt-train", "check": False}
    dataset = NYUDv2(root, **options)
    write_cache(dataset, Path(folder.name) / "cache")
    cached = NYUDv2(root, cache=Path(folder.name) / "cache", **options)

    def obvious() -> object:
        assert folder.name  # the files live as long as the variants do
        return [plain_sample(root, name, index) for index, name in enumerate(dataset.ids)]

    return {
        "plain Pillow, NumPy, OpenCV": obvious,
        "suite": lambda: [dataset[index] for index in range(images)],
        "suite, memory-mapped cache": lambda: [cached[index] for index in range(images)],
    }


def plain_sample(root: Path, name: str, index: int, size: tuple[int, int] = CROP) -> dict[str, Tensor]:
    """One training sample of family A, written down step by step.

    Returns:
        `image` and labels as float32 or int64 tensors (C, H, W) or (H, W); 255 = no label.
    """
    rng = generator(0, 0, index)
    sample = _flip(_crop(_scale(_load(root, name), rng), rng, size), rng)
    sample["image"] = _distort(sample["image"], rng)
    sample["image"] = (sample["image"] / 255.0 - np.array(IMAGE_MEAN)) / np.array(IMAGE_STD)
    sample = _ignore(_pad(sample, size))
    tensors = {
        key: torch.from_numpy(np.moveaxis(value, 2, 0).copy()).float() for key, value in sample.items()
    }
    return {**tensors, "semseg": tensors["semseg"][0].long()}


def _load(root: Path, name: str) -> Arrays:
    def picture(folder: str) -> NDArray[np.float32]:
        with Image.open(root / folder / f"{name}.png") as file:
            return np.array(file, dtype=np.float32)

    semseg = picture("segmentation") - 1
    semseg[semseg == -1] = 255
    return {
        "image": picture("images"),
        "semseg": semseg[..., None],
        "normals": 2.0 * picture("normals") / 255.0 - 1.0,
        "edge": picture("edge")[..., None] / 255.0,
        "depth": np.load(root / "depth" / f"{name}.npy").astype(np.float32)[..., None],
    }


def _scale(sample: Arrays, rng: np.random.Generator) -> Arrays:
    factor = rng.uniform(0.5, 2.0)
    result: Arrays = {}
    for key, value in sample.items():
        size = (int(value.shape[1] * factor), int(value.shape[0] * factor))
        mode = cv2.INTER_LINEAR if key == "image" else cv2.INTER_NEAREST
        resized = np.asarray(cv2.resize(value, size, interpolation=mode))
        result[key] = resized if resized.ndim == 3 else resized[..., None]
    result["depth"] = result["depth"] / factor
    return result


def _crop(sample: Arrays, rng: np.random.Generator, size: tuple[int, int]) -> Arrays:
    height, width = sample["image"].shape[:2]
    if (height, width) == size:
        return sample

    def window() -> tuple[slice, slice]:
        top = rng.integers(0, max(height - size[0], 0), endpoint=True)
        left = rng.integers(0, max(width - size[1], 0), endpoint=True)
        return slice(top, top + size[0]), slice(left, left + size[1])

    chosen = window()
    for _ in range(10):
        ids, counts = np.unique(sample["semseg"][chosen], return_counts=True)
        counts = counts[ids != 255]
        if len(counts) > 1 and np.max(counts) / np.sum(counts) < 0.75:
            break
        chosen = window()
    return {key: value[chosen] for key, value in sample.items()}


def _flip(sample: Arrays, rng: np.random.Generator) -> Arrays:
    if rng.random() >= 0.5:
        return sample
    result = {key: np.fliplr(value).copy() for key, value in sample.items()}
    result["normals"][:, :, 0] *= -1
    return result


def _distort(image: NDArray[Any], rng: np.random.Generator) -> NDArray[np.float32]:
    def convert(values: NDArray[Any], factor: float = 1.0, offset: float = 0.0) -> NDArray[np.uint8]:
        moved = values.astype(np.float32) * np.float32(factor) + np.float32(offset)
        return np.asarray(np.clip(moved, 0, 255), dtype=np.uint8)

    def coin() -> bool:
        return bool(rng.integers(2))

    image = image.astype(np.uint8)
    if coin():
        image = convert(image, offset=rng.uniform(-32, 32))
    contrast_first = coin()
    if contrast_first and coin():
        image = convert(image, factor=rng.uniform(0.5, 1.5))
    if coin():
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        hsv[:, :, 1] = convert(hsv[:, :, 1], factor=rng.uniform(0.5, 1.5))
        image = np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))
    if coin():
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        hsv[:, :, 0] = (hsv[:, :, 0].astype(int) + rng.integers(-18, 18)) % 180
        image = np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))
    if not contrast_first and coin():
        image = convert(image, factor=rng.uniform(0.5, 1.5))
    return image.astype(np.float32)


def _pad(sample: Arrays, size: tuple[int, int]) -> Arrays:
    fill = {"image": 0, "normals": 0, "depth": 0}
    height, width = sample["image"].shape[:2]
    rows, columns = max(size[0] - height, 0), max(size[1] - width, 0)
    around = ((rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2), (0, 0))
    return {key: np.pad(value, around, constant_values=fill.get(key, 255)) for key, value in sample.items()}


def _ignore(sample: Arrays) -> Arrays:
    zero = np.linalg.norm(sample["normals"], axis=2) == 0
    sample["normals"][zero] = 255
    sample["depth"][sample["depth"] == 0] = 255
    return sample

"""Pictures as a notebook has them: paths, arrays, tensors and pictures of Pillow."""

from __future__ import annotations

import glob
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from mtvision.evaluation.predict.inputs import Source, find_inputs
from mtvision.evaluation.predict.reading import orientation_of, picture_of, upright
from mtvision.evaluation.predict.session import read_source

Given: TypeAlias = str | Path | NDArray[Any] | torch.Tensor | Image.Image
"""One picture."""


@dataclass(frozen=True)
class Picture:
    """A picture that can be read.

    Args:
        name: file name without ending, or `image` or, of several, `image3`, its position.
        image: reads it: RGB (H, W, 3), uint8.
    """

    name: str
    image: Callable[[], NDArray[np.uint8]]


def read_given(given: Sequence[Given], *, many: bool = True) -> list[Picture]:
    """All pictures that were given, in order. Files are read when their turn comes.

    Args:
        given: see `Given`; text may name folders and globs.
        many: False refuses text that names several files.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a folder without pictures, or with `many=False` more than one.
        TypeError: something else than a picture.
    """
    pictures: list[Picture] = []
    for index, item in enumerate(given):
        name = f"image{index}" if many else "image"
        if isinstance(item, str | Path):
            found = _files(str(item))
            if not many and (len(found) != 1 or Path(str(item)).is_dir()):
                raise ValueError(
                    f"{item} names {len(found)} pictures. Give a list: model.predict([{str(item)!r}])."
                )
            pictures += found
        elif isinstance(item, Image.Image):
            pictures.append(Picture(name, lambda item=item: from_pillow(item)))  # type: ignore[misc]
        elif isinstance(item, np.ndarray | torch.Tensor):
            image = from_array(item)
            pictures.append(Picture(name, lambda image=image: image))  # type: ignore[misc]
        else:
            raise TypeError(
                f"picture {index} is a {type(item).__name__}, expected a path, an array, a tensor or a "
                "picture of Pillow."
            )
    return pictures


def _files(text: str) -> list[Picture]:
    if not glob.has_magic(text) and "://" not in text and not Path(text).expanduser().exists():
        raise FileNotFoundError(f"{text} does not exist.")
    found = find_inputs([text])
    if found.problems:
        raise FileNotFoundError("\n".join(found.problems.values()))
    moving = [source.text for source in found.sources if source.kind != "image"]
    if moving:
        raise ValueError(f"{moving[0]} is a video; `mtvision predict` writes its frames.")
    return [_file(source) for source in found.sources]


def _file(source: Source) -> Picture:
    return Picture(Path(source.parts[-1]).stem, lambda: read_source(source))


def from_pillow(picture: Image.Image) -> NDArray[np.uint8]:
    """A picture of Pillow as `read_picture` reads its file: upright, without transparency, in 8 bits.

    Raises:
        DecodeError: values that are no picture.
    """
    return upright(picture_of(Path("picture"), picture), orientation_of(picture))


def from_array(values: NDArray[Any] | torch.Tensor) -> NDArray[np.uint8]:
    """An array (H, W, 3) or a tensor (3, H, W) as RGB (H, W, 3) of uint8; gray (H, W) in three channels.

    Raises:
        ValueError: another shape, another type, or reals outside 0..1.

    >>> from_array(np.ones((2, 4))).tolist()[0][0]
    [255, 255, 255]
    """
    tensor = isinstance(values, torch.Tensor)
    array = np.asarray(values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else values)
    axes = "(3, H, W)" if tensor else "(H, W, 3)"
    if tensor and array.ndim == 3:
        array = array.transpose(1, 2, 0)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3) or 0 in array.shape:
        more = " Several are a list: model.predict(list(batch))." if array.ndim == 4 else ""
        kind = "tensor" if tensor else "array"
        raise ValueError(f"found {kind} {tuple(values.shape)}, expected {axes} or (H, W).{more}")
    if array.dtype.kind == "f":
        low, high = float(array.min()), float(array.max())
        if not (low >= 0 and high <= 1):
            raise ValueError(
                f"found real values {low:g}..{high:g}, expected 0..1. Undo a normalisation, or give uint8."
            )
        array = np.round(array * 255).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise ValueError(f"found {array.dtype}, expected uint8, or reals in 0..1.")
    return np.ascontiguousarray(np.repeat(array, 3, axis=2) if array.shape[2] == 1 else array)

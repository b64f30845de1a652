"""Files as people have them, and a checkpoint of a tiny network, for tests of `predict`."""

from __future__ import annotations

from pathlib import Path

import cv2
import discs
import numpy as np
import torch

from mtvision.recipe.building import network_of
from mtvision.recipe.config import load_config
from mtvision.recipe.settings import protocol_of
from mtvision.runtime.checkpoint import save_checkpoint


def write_checkpoint(folder: Path, *, with_config: bool = True) -> Path:
    """An untrained network of two tasks, semseg and depth, as training would save it."""
    config = load_config(discs.write_config(folder))
    protocol = protocol_of(config)
    torch.manual_seed(0)
    network = network_of(config, protocol).eval()
    meta = {"config": config.text, "tasks": list(protocol.task_names)} if with_config else {}
    path = folder / ("network.pth" if with_config else "weights.pth")
    save_checkpoint(path, {"meta": meta, "state_dict": network.state_dict()})
    return path


def photo(height: int = 24, width: int = 40, seed: int = 0) -> np.ndarray:
    """RGB with large shapes, no two sides alike."""
    picture = np.random.default_rng(seed).integers(0, 60, (height, width, 3), dtype=np.uint8)
    picture[: height // 3, : width // 4] = [230, 30, 30]
    picture[-height // 3 :, -width // 2 :] = [20, 200, 60]
    return picture


def write_photo(path: Path, **options: int) -> Path:
    """A picture file; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    suffix = path.suffix if path.suffix.lower() in (".png", ".jpg", ".bmp", ".tif", ".webp") else ".png"
    path.write_bytes(cv2.imencode(suffix, photo(**options)[..., ::-1])[1].tobytes())
    return path


def write_video(path: Path, frames: int = 3, size: tuple[int, int] = (48, 64), code: str = "MJPG") -> Path:
    """A video whose frames become brighter."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*code), 5, (size[1], size[0]))
    for index in range(frames):
        writer.write(np.full((*size, 3), 255 * index // max(frames - 1, 1), dtype=np.uint8))
    writer.release()
    return path

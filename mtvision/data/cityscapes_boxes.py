"""Find images of Cityscapes with a vehicle, by the boxes of Cityscapes-3D."""

from __future__ import annotations

from pathlib import Path

from mtvision.core.files.foreign import DecodeError
from mtvision.core.files.json_file import read_json

VEHICLES = ("car", "truck", "bus", "train", "motorcycle", "bicycle")
"""Classes with boxes (Gaehlert et al., arXiv 2006.07864) that count; caravans and trailers do not."""


def has_vehicle(root: Path, split: str, name: str) -> bool:
    """Whether `gtBbox3d/<split>/<city>/<name>_gtBbox3d.json` holds a box of one of `VEHICLES`.

    TaskPrompter (ICLR 2023) trains on these images only.

    Raises:
        FileNotFoundError: there is no such file; it comes with `gtBbox3d_trainvaltest.zip`.
        DecodeError: it is no JSON of that form.
    """
    path = root / "gtBbox3d" / split / name.split("_")[0] / f"{name}_gtBbox3d.json"
    try:
        boxes = read_json(path)["objects"]
        return any(box["label"] in VEHICLES for box in boxes)
    except (KeyError, TypeError) as error:
        raise DecodeError(
            f"{path}: expected a JSON file with boxes under 'objects', each with a 'label' ({error!r}). Take "
            "gtBbox3d_trainvaltest.zip from cityscapes-dataset.com."
        ) from None

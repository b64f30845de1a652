"""Pictures of the site: rendered scenes, the panel of the front page, and the gallery of tasks and decoders.

    python tools/documentation gallery WORK_DIR

WORK_DIR has one folder per decoder, a run of its `*_tiny_synthetic_1xb8_300` config. Without it, the page
has no section of decoders.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

TASKS = ("semseg", "depth", "normals", "edge")
WORDS = "Classes, depth, normals and boundaries"
FRONT_TASKS = ("depth", "normals", "semseg")
DECODERS = {
    "parallel": ("One decoder per task", "decoders/parallel.md"),
    "cross_stitch": ("Cross-Stitch", "decoders/cross_stitch_nddr.md"),
    "nddr": ("NDDR-CNN", "decoders/cross_stitch_nddr.md"),
    "mtan": ("MTAN", "decoders/mtan.md"),
    "pad_net": ("PAD-Net", "decoders/pad_net.md"),
    "mti_net": ("MTI-Net", "decoders/mti_net.md"),
    "invpt": ("InvPT", "decoders/invpt.md"),
    "taskprompter": ("TaskPrompter", "decoders/taskprompter.md"),
    "taskexpert": ("TaskExpert", "decoders/taskexpert.md"),
    "mlore": ("MLoRE", "decoders/mlore.md"),
    "mtmamba": ("MTMamba", "decoders/mtmamba.md"),
    "mtmamba_plus": ("MTMamba++", "decoders/mtmamba.md"),
}
"""{folder of the run: (title, page of the decoder)}, in the order of the page."""
SCENES = {"room": 2, "street": 2}
"""{kind: index of the picture in the test split}; both are test images of the protocol."""
TILE = (192, 144)
"""Width and height of one map in the gallery: 1.5 times the size of training."""
HEAD = """\
# Gallery

<!-- Written by `python tools/documentation gallery WORK_DIR`. -->

All pictures are of rendered scenes that no network was trained on. The networks are small and their training
is short. The pictures show what a task or a decoder gives, not which one is best.
"""
TASK_HEAD = """\
## Tasks

Predictions of the [demo network](python.md#the-demo-network) above, labels below.
"""
DECODER_HEAD = """\
## Decoders

One network for four tasks in each row: classes, depth, normals and boundaries. Colours and the range of depth
are the same in all rows. Each was trained for {iterations} steps of {batch} scenes with one seed.
Rows differ in their backbones too.
[The leaderboard](leaderboard.md#the-synthetic-leaderboard) has full runs with three seeds.
"""


def make(root: Path, runs: Path | None) -> list[Path]:
    """Write the pictures and the page of the gallery.

    Args:
        root: of the repository.
        runs: folder of the decoders' runs; None = no section of decoders.

    Returns:
        The files written.
    """
    import mtvision

    images = root / "docs" / "images"
    demo = mtvision.load("demo")
    written, parts = [], [HEAD, TASK_HEAD]
    for kind in SCENES:
        scene = _scene(kind, (288, 384), list(demo.tasks))
        file = images / "scenes" / f"{kind}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(scene.image).save(file, optimize=True)
        result = demo.predict(scene.image)
        panel = _with_labels(scene, result, demo.protocol.tasks)
        written += [file, _save(panel, images / "gallery" / f"{kind}.webp")]
        parts.append(f"![Labels and predictions of a {kind}](images/gallery/{kind}.webp)\n")
    result = demo.predict(images / "scenes" / "street.png")
    written.append(_save(result.panel(FRONT_TASKS), images / "front.webp"))
    if runs is not None:
        parts += _decoders(runs, images / "gallery", written)
    page = root / "docs" / "gallery.md"
    page.write_text("\n".join(parts), encoding="utf-8")
    return [*written, page]


def _with_labels(scene: Any, result: Any, tasks: Any) -> Any:
    """The picture beside labels and predictions of all tasks."""
    from mtvision.core.sample import Sample
    from mtvision.visualize import panel

    labels = Sample.from_raw(scene).labels
    return panel(scene.image, dict(result), tasks, labels, width=256)


def _decoders(runs: Path, folder: Path, written: list[Path]) -> list[str]:
    """The section of decoders; adds its pictures to those written."""
    import mtvision
    from mtvision.visualize.colours import value_range

    scene = _scene("street", (96, 128), TASKS)
    limits = value_range(scene.labels["depth"][..., 0])
    strip = _strip({name: scene.labels[name] for name in TASKS}, scene.tasks, limits)
    written.append(_save(strip, folder / "labels.webp"))
    parts = ["### Labels\n", f"![{WORDS} of the scene](images/gallery/labels.webp)\n"]
    record: dict[str, Any] = {}
    for name, (title, page) in DECODERS.items():
        file = runs / name / "record.json"
        if not file.is_file():
            continue
        record = json.loads(file.read_text(encoding="utf-8"))
        model = mtvision.load(runs / name)
        written.append(
            _save(_strip(model.predict(scene.image), model.tasks, limits), folder / f"{name}.webp")
        )
        parts += [f"### {title}\n", f"![{WORDS} of {title}](images/gallery/{name}.webp)\n"]
        parts += [f"{_cost(record)}. [How it works]({page}).\n"]
    if not record:
        raise FileNotFoundError(
            f"{runs} has no run of {', '.join(DECODERS)}; each is a folder with record.json."
        )
    numbers = {"iterations": record["training"]["iterations"], "batch": record["effective_batch"]}
    return [DECODER_HEAD.format(**numbers), *parts]


def _scene(kind: str, size: tuple[int, int], tasks: Sequence[str]) -> Any:
    from mtvision.core.registry import DATASETS

    config = {
        "type": "SyntheticScenes",
        "split": "test",
        "size": size,
        "tasks": list(tasks),
        "scenes": [kind],
    }
    return DATASETS.build(config).read(SCENES[kind])


def _strip(maps: Any, tasks: Any, limits: Any) -> Any:
    """Maps of one picture side by side, RGB (h, w, 3)."""
    from mtvision.visualize.colours import colourise

    tiles = []
    for name in TASKS:
        values = np.asarray(maps[name])
        if values.ndim == 3 and values.shape[-1] <= 3 < values.shape[0]:
            values = values.transpose(2, 0, 1)  # labels before training have their channels last
        tiles.append(colourise(tasks[name], values, limits=limits if name == "depth" else None))
    resized = [Image.fromarray(tile).resize(TILE, Image.Resampling.NEAREST) for tile in tiles]
    return np.concatenate([np.asarray(tile) for tile in resized], axis=1)


def _cost(record: dict[str, Any]) -> str:
    """Backbone and size of a run's network."""
    cost = record.get("cost")
    size = f", {cost['parameters']['total'] / 1e6:.2f} M parameters" if cost else ""
    return f"Backbone `{record['backbone']}`{size}"


def _save(picture: Any, file: Path) -> Path:
    """A WebP file, which takes a fifth of the bytes of PNG."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(file, quality=85, method=6)
    return file

"""`mtvision predict CONFIG CHECKPOINT INPUT`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mtvision.cli.common import make_parser, read_config
from mtvision.core.context import Context
from mtvision.recipe.settings import protocol_of
from mtvision.runtime.atomic import atomic_file, atomic_path
from mtvision.runtime.progress import messages, track

if TYPE_CHECKING:
    from mtvision.evaluation.predictor import Predictor

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm")

DESCRIPTION = """\
Run a checkpoint on an image, a folder of images or a video. For every image NAME the output folder gets
  NAME.png        the image beside all predictions, with legends
  NAME.npz        the raw maps: class ids, metres, unit vectors, probabilities
A video becomes one panel video. --json prints what was written.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = make_parser("predict", DESCRIPTION, checkpoint=True)
    parser.add_argument("input", type=Path, help="image, folder of images, or video")
    parser.add_argument("--out", type=Path, required=True, help="output folder")
    parser.add_argument(
        "--size", nargs=2, type=int, metavar=("H", "W"), help="area images are scaled to inside"
    )
    parser.add_argument(
        "--budget", type=float, help="of a slimmable network: share of the full one (up to 1) or MACs"
    )
    parser.add_argument(
        "--preference", metavar="TASK=WEIGHT,…", help="of a slimmable network: how much each task matters"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, … (default: cpu)")
    parser.add_argument("--no-arrays", action="store_true", help="panels only, no .npz files")
    parser.add_argument("--json", action="store_true", help="print a JSON list of the written files")
    arguments = parser.parse_args(argv)
    config = read_config(arguments)
    protocol = protocol_of(config)
    from mtvision.evaluation.predictor import Predictor
    from mtvision.recipe.building import trained_network
    from mtvision.search.width_table import WidthTable

    network, meta = trained_network(config, protocol, arguments.checkpoint, other_tasks=True)
    predictor = Predictor(
        network,
        protocol,
        size=(arguments.size[0], arguments.size[1]) if arguments.size else None,
        device=arguments.device,
        width_table=WidthTable.from_plain(meta["width_table"]) if meta.get("width_table") else None,
    )
    control = _control(predictor, arguments)
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.input.suffix.lower() in VIDEOS:
        written = [_predict_video(predictor, arguments.input, arguments.out, control)]
    else:
        written = []
        images = list(find_images(arguments.input))
        for path in track(images, "predict", len(images), quiet=arguments.json):
            written += _predict_image(predictor, path, arguments.out, control, arrays=not arguments.no_arrays)
    if arguments.json:
        print(json.dumps([str(path) for path in written], indent=2))
    else:
        print(f"{len(written)} files in {arguments.out}")
    return 0


def _control(predictor: Predictor, arguments: argparse.Namespace) -> Context | None:
    """The context of `--budget` and `--preference`, chosen once for all images."""
    if arguments.budget is None and arguments.preference is None:
        return None
    from mtvision.search.width_table import parse_preference

    preference = None if arguments.preference is None else parse_preference(arguments.preference)
    choice = predictor.choose(arguments.budget, preference)
    text = f"{choice.widths}, {choice.cost / 1e6:.1f} of {choice.budget / 1e6:.1f} million MACs per image"
    messages().print(text)
    return Context(widths=choice.widths.to_plain())


def find_images(path: Path) -> Iterator[Path]:
    """The image itself, or all images of a folder in the order of their names.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: a file that is neither image nor video.
    """
    if path.is_file():
        if path.suffix.lower() not in IMAGES:
            raise ValueError(
                f"{path}: expected an image ({' '.join(IMAGES)}), a video ({' '.join(VIDEOS)}) or a folder."
            )
        yield path
        return
    if not path.is_dir():
        raise FileNotFoundError(f"{path} does not exist.")
    found = sorted(item for item in path.iterdir() if item.suffix.lower() in IMAGES)
    if not found:
        raise FileNotFoundError(f"no image ({' '.join(IMAGES)}) in {path}.")
    yield from found


def _predict_image(
    predictor: Predictor, path: Path, out: Path, control: Context | None, *, arrays: bool
) -> list[Path]:
    import numpy as np

    from mtvision.data.decode import read_image
    from mtvision.visualize import panel, write_picture

    image = read_image(path)
    prediction = predictor(image, control)
    written = [out / f"{path.stem}.png"]
    write_picture(written[0], panel(image, prediction, predictor.protocol.tasks))
    if arrays:
        written.append(out / f"{path.stem}.npz")
        with atomic_file(written[1]) as file:
            np.savez_compressed(file, allow_pickle=False, **prediction)
    return written


def _predict_video(predictor: Predictor, path: Path, out: Path, control: Context | None) -> Path:
    import cv2
    import numpy as np

    from mtvision.visualize import panel

    capture = cv2.VideoCapture(str(path))
    frames = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    rate = capture.get(cv2.CAP_PROP_FPS) or 25.0
    target = out / f"{path.stem}.mp4"
    writer = None
    with atomic_path(target, suffix=".part.mp4") as temporary:  # OpenCV chooses the format by the ending
        for _ in track(range(frames), "predict", frames):
            read, frame = capture.read()
            if not read:
                break
            image = np.ascontiguousarray(frame[..., ::-1], dtype=np.uint8)
            picture = panel(image, predictor(image, control), predictor.protocol.tasks)
            size = (picture.shape[1] // 2 * 2, picture.shape[0] // 2 * 2)
            writer = writer or cv2.VideoWriter(str(temporary), cv2.VideoWriter.fourcc(*"mp4v"), rate, size)
            writer.write(np.ascontiguousarray(picture[: size[1], : size[0], ::-1]))
        capture.release()
        if writer is None:
            raise OSError(
                f"{path}: no frame could be read; convert it to a common format, e.g. H.264 in .mp4."
            )
        writer.release()
    return target

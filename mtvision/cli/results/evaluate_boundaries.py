"""`mtvision evaluate-boundaries PREDICTIONS GROUND_TRUTH --protocol ...`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mtvision.cli.common import STDOUT, numeric, spare_inputs, write_json
from mtvision.core.files.text import read_ids
from mtvision.core.values import Positive, Rate
from mtvision.metrics.boundary.protocols import BOUNDARY_PROTOCOLS, BoundaryProtocol, get_boundary_protocol
from mtvision.recipe.config import parse_option
from mtvision.recipe.sections import Processes
from mtvision.runtime.progress import counting, messages

if TYPE_CHECKING:
    from rich.table import Table

    from mtvision.metrics.boundary.runner import Evaluation

DESCRIPTION = """\
Boundary scores (odsF, oisF, AP, R50) of a folder of predictions, as the papers' MATLAB tools compute them.

PREDICTIONS holds one file per image: PNG (8 or 16 bits), NPY (0..1), or MAT with a contour map `ucm2`.
GROUND_TRUTH holds files of the same names: MAT in the BSDS layout or with a `LabelMap`, label or edge PNG,
NPY.
Predictions must have the image's original size, without padding.
"""

LISTS = Path("ImageSets/Context")
"""Where PASCAL-Context keeps its lists."""

EPILOG = (
    "protocols:\n"
    + "\n".join(f"  {item.id:<13} {item.title}" for item in BOUNDARY_PROTOCOLS.values())
    + """

examples:
  %(prog)s work_dirs/run/edge data/PASCALContext/pascal-context/trainval --protocol seism-pascal \\
      --workers 8 --json odsf.json
  %(prog)s my_maps BSDS500/groundTruth/test --protocol bsds --json bsds.json

An interrupted run continues where it stopped. Scores of different protocols must not be compared: see
docs/boundary.md.
"""
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = _parser().parse_args(argv)
    from rich.console import Console

    from mtvision.evaluation.prediction_maps import BoundaryReader, map_options
    from mtvision.metrics.boundary.runner import evaluate_folders, find_pairs
    from mtvision.protocols.tasks import edge

    said = map_options(dict(parse_option(option, "--maps") for option in arguments.maps), [edge()])
    protocol = _protocol(arguments)
    listed = arguments.images
    if listed is None and not arguments.subset:
        listed = _published_list(arguments.ground_truth, protocol)
    ids = read_ids(listed) if listed else None
    pairs = find_pairs(
        arguments.predictions, arguments.ground_truth, protocol, ids=ids, subset=arguments.subset
    )
    files = [file for pair in pairs for file in (pair.prediction, pair.truth)]
    spare_inputs("--json", arguments.json, [*files, listed])
    cache = None if arguments.no_cache else arguments.cache
    if cache is None and not arguments.no_cache and arguments.json not in (None, STDOUT):
        cache = arguments.json.with_suffix(".counts")
    reader = BoundaryReader([pair.prediction for pair in pairs], said.get("edge"))
    with counting("images", len(pairs)) as counter:
        result = evaluate_folders(
            pairs, protocol, workers=arguments.workers, cache=cache, progress=counter.reach, read=reader
        )
    if result.reused:
        messages().print(f"{result.reused} of {len(pairs)} images were counted before ({cache}).")
    write_json(arguments.json, result.as_json())
    if arguments.json != STDOUT:
        Console().print(scores_table(result))
    return 0


def scores_table(result: Evaluation) -> Table:
    """The scores as a terminal table."""
    from rich.table import Table

    summary = result.summary
    table = Table(title=f"{result.protocol.title}\n{len(result.ids)} images")
    for name in ("score", "value", "recall", "precision", "threshold"):
        table.add_column(name, justify="left" if name == "score" else "right")
    for name, point in (("odsF", summary.ods), ("oisF", summary.ois)):
        threshold = "per image" if name == "oisF" else f"{point.threshold:.3f}"
        table.add_row(name, f"{point.f:.4f}", f"{point.recall:.4f}", f"{point.precision:.4f}", threshold)
    table.add_row("AP", f"{summary.ap:.4f}", "", "", "")
    table.add_row("R50", f"{summary.r50:.4f}", "", "", "")
    if result.protocol.images not in (None, len(result.ids)):
        table.caption = (
            f"a part of the protocol's {result.protocol.images} images: not comparable with papers"
        )
    return table


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mtvision evaluate-boundaries",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("predictions", type=Path, metavar="PREDICTIONS", help="folder of boundary maps")
    parser.add_argument("ground_truth", type=Path, metavar="GROUND_TRUTH", help="folder of ground truths")
    parser.add_argument("--protocol", required=True, metavar="ID", help="one of those listed below")
    parser.add_argument(
        "--thresholds",
        type=numeric(Positive),
        metavar="N",
        help="another number of thresholds, for a quick look",
    )
    parser.add_argument(
        "--max-distance",
        type=numeric(Rate),
        metavar="D",
        help="matching radius as a share of the image diagonal",
    )
    parser.add_argument(
        "--maps",
        nargs="+",
        default=[],
        metavar="edge.OPTION=VALUE",
        help="what prediction files hold where their content does not tell, e.g. edge.scale=100",
    )
    parser.add_argument("--images", type=Path, metavar="FILE", help="text file with one image name per line")
    parser.add_argument("--subset", action="store_true", help="accept fewer images than the protocol has")
    parser.add_argument(
        "--workers",
        type=numeric(Processes),
        default=os.cpu_count() or 1,
        metavar="N",
        help="processes (default: one per core)",
    )
    parser.add_argument(
        "--json", type=Path, metavar="OUT", help="write all results to this file; - prints only JSON"
    )
    parser.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        help="where finished images are remembered (default: OUT with .counts)",
    )
    parser.add_argument("--no-cache", action="store_true", help="remember nothing")
    return parser


def _protocol(arguments: argparse.Namespace) -> BoundaryProtocol:
    protocol = get_boundary_protocol(arguments.protocol)
    if arguments.thresholds is not None:
        protocol = protocol.with_thresholds(arguments.thresholds)
    if arguments.max_distance is not None:
        protocol = replace(protocol, max_distance=arguments.max_distance)
    return protocol


def _published_list(truths: Path, protocol: BoundaryProtocol) -> Path | None:
    """The list of the protocol's images in the data set that the ground truth is a part of.

    Raises:
        FileNotFoundError: the protocol needs a list and there is none.
    """
    if protocol.image_list is None:
        return None
    folders = [truths.resolve(), *truths.resolve().parents[:3]]
    tried = [place / protocol.image_list for folder in folders for place in (folder, folder / LISTS)]
    found = next((path for path in tried if path.is_file()), None)
    if found is None:
        raise FileNotFoundError(
            f"{truths}: {protocol.image_list}, the list of the {protocol.images} images of {protocol.id}, is "
            f"neither there nor in {LISTS}/ of the data set. It is not part of the data set but of "
            "Boundary-Detection-Evaluation-Tools (seism/src/gt_wrappers/gt_sets/PASCALContext/). Give it by "
            "--images, or score all 5105 images with --protocol seism-pascal-val5105; --subset scores what "
            "is there."
        )
    return found

"""What each decoder's network can be written as, measured on this machine: docs/export_support.md.

    python tools/export_table.py --out docs/export_support.md
    python tools/export_table.py --only ParallelDecoder --pieces onnx pt2
    python tools/export_table.py --speed --out docs/export_support.md

Per decoder, a small network is compiled and counted, and written in every format. Each file is run at three
sizes beside the network. `--speed` also measures inductor, in turns.
Every finished piece is kept in the work dir, one JSON file for each decoder, and not measured again.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

from mtvision.evaluation.export import FORMATS, Portable, export_network
from mtvision.evaluation.export.parity import TOLERANCE
from mtvision.evaluation.export.portable import ExportError
from mtvision.models.factory import build_network
from mtvision.models.network import Network
from mtvision.runtime.atomic import write_text
from mtvision.testing.inputs import toy_tasks

RESNET = {"type": "TimmBackbone", "name": "resnet10t"}
VIT = {"type": "TimmBackbone", "name": "vit_tiny_patch16_224", "embed_dim": 64, "depth": 4, "num_heads": 2}
PROMPTED = {**VIT, "img_size": (128, 256)}
ROWS: dict[str, dict[str, Any]] = {
    "ParallelDecoder": {"decoder": {"width": 32}},
    "ConcatDecoder": {},
    "MedusaDecoder": {"decoder": {"width": 32}},
    "PADNetDecoder": {"decoder": {"width": 32}},
    "MTINetDecoder": {},
    "InvPTDecoder": {"decoder": {"width": 64, "hidden": 64}},
    "MTMambaDecoder": {"decoder": {"num_blocks": 1, "states": 4}},
    "MTMambaPlusDecoder": {"decoder": {"num_blocks": 1, "states": 4}},
    "MLoREDecoder": {
        "decoder": {"width": 32, "ranks": (4, 8, 12), "task_rank": 8, "top_k": 2},
        "backbone": VIT,
    },
    "TaskExpertDecoder": {"decoder": {"width": 32, "experts": 3}, "backbone": VIT},
    "TaskPrompterDecoder": {
        "decoder": {"width": 32, "out_width": 32},
        "backbone": PROMPTED,
        "adapters": [{"type": "TaskPrompts", "windows": 2}],
        "size": (128, 256),
    },
}
"""{decoder: how its small network differs from ResNet-10t with the decoder's defaults}"""
TASKS = toy_tasks()[:2]
REPEATS, WARM_UP = 15, 3


@dataclass(frozen=True)
class Subject:
    """The small network of a row.

    Args:
        name: of the decoder.
        work_dir: for files that are written and removed.
    """

    name: str
    work_dir: Path

    @property
    def size(self) -> tuple[int, int] | None:
        """(H, W) of all images; None = any."""
        found: tuple[int, int] | None = ROWS[self.name].get("size")
        return found

    def build(self) -> Network:
        """With random weights."""
        given = ROWS[self.name]
        config = {
            "backbone": given.get("backbone", RESNET),
            "adapters": given.get("adapters", []),
            "decoder": {"type": self.name, **given.get("decoder", {})},
            "head": {"type": "ConvHead"},
        }
        torch.manual_seed(0)
        return build_network(config, TASKS).eval()

    def image(self, network: Network, count: int) -> Tensor:
        """(count, 3, H, W) of normal values, of the size that files are traced at."""
        height, width = self.size or Portable(network, logits=True).example_size()
        return torch.randn(count, 3, height, width)


def graphs(subject: Subject) -> int | str:
    """How many graphs `torch.compile` makes of one forward pass, or why it makes none."""
    from torch._dynamo.exc import TorchDynamoException

    count = 0

    def counted(graph: fx.GraphModule, _: list[Tensor]) -> Any:
        nonlocal count
        count += 1
        return graph.forward

    torch.compiler.reset()
    network = subject.build()
    compiled = torch.compile(network, backend=counted, dynamic=True)
    try:
        with torch.no_grad():
            compiled(subject.image(network, 2))
    except TorchDynamoException as error:
        return str(error).splitlines()[0]
    return count


def file_of(form: str) -> Callable[[Subject], dict[str, float] | str]:
    """The measurement of a format."""

    def measure(subject: Subject) -> dict[str, float] | str:
        """{(B, 3, H, W) as text: largest difference of any output}, or why there is no file."""
        path = subject.work_dir / f"{subject.name}{FORMATS[form].ending}"
        try:
            done = export_network(subject.build(), path, form=form, size=subject.size, logits=True)
        except ExportError as error:
            return str(error).splitlines()[0]
        path.unlink()
        found: dict[str, float] = {}
        for item in done.parity:
            place = "x".join(map(str, item.shape))
            found[place] = max(found.get(place, 0.0), item.difference)
        return found

    return measure


def ratio(subject: Subject) -> float:
    """Time without over time with inductor, medians of passes in turns on one image."""
    torch.compiler.reset()
    network = subject.build()
    image = subject.image(network, 1)
    runs = (network, torch.compile(network, dynamic=False))
    times: tuple[list[float], list[float]] = ([], [])
    with torch.no_grad():
        for repeat in range(WARM_UP + REPEATS):
            for run, taken in zip(runs, times, strict=True):
                begun = time.perf_counter()
                run(image)
                if repeat >= WARM_UP:
                    taken.append(time.perf_counter() - begun)
    return statistics.median(times[0]) / statistics.median(times[1])


PIECES: dict[str, Callable[[Subject], Any]] = {"graphs": graphs, **{form: file_of(form) for form in FORMATS}}
"""{key in the JSON file: how it is measured}"""
SPEED = "ratio"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is not measured yet and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/export_table"))
    parser.add_argument("--only", nargs="*", choices=ROWS, default=list(ROWS), metavar="DECODER")
    parser.add_argument("--pieces", nargs="*", choices=PIECES, default=list(PIECES), help="default: all")
    parser.add_argument("--speed", action="store_true", help="compile with inductor and measure")
    parser.add_argument("--out", type=Path, help="page to write")
    arguments = parser.parse_args(argv)
    wanted = {name: PIECES[name] for name in arguments.pieces} | ({SPEED: ratio} if arguments.speed else {})
    for name in arguments.only:
        file = arguments.work_dir / f"{name}.json"
        found = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        for piece in [piece for piece in wanted if piece not in found]:
            found[piece] = wanted[piece](Subject(name, arguments.work_dir))
            write_text(file, json.dumps(found, indent=2) + "\n")
            print(f"{name}: {piece} = {found[piece]}", flush=True)
    if arguments.out:
        write_text(arguments.out, page(arguments.work_dir))
    return 0


def page(folder: Path) -> str:
    """The page, of the pieces that are measured."""
    files = {name: folder / f"{name}.json" for name in ROWS}
    measured = {
        name: json.loads(file.read_text(encoding="utf-8")) for name, file in files.items() if file.exists()
    }
    machine = f"{platform.machine()}, {torch.get_num_threads()} thread(s), PyTorch {torch.__version__}"
    return "\n".join(
        [
            "# What each decoder can be exported as",
            "",
            "`python tools/export_table.py --speed --out docs/export_support.md` makes this page.",
            f"Networks are small, with two tasks and random weights. Machine: {machine}.",
            "Other programs ran at the same time. What has no entry is not measured yet.",
            "",
            "## Compiled",
            "",
            "* *breaks*: graph breaks of `torch.compile(dynamic=True)`.",
            "* *speed*: time of a forward pass without over time with `torch.compile` (inductor), one image.",
            "  Medians of 15 passes, taken in turns.",
            "",
            "| decoder | image size | breaks | speed |",
            "|---|---|---|---|",
            *(compiled_row(name, found) for name, found in measured.items()),
            "",
            "## Written",
            "",
            "* Numbers are the largest difference of the logits from those of the network.",
            f"  It is a share of the largest value, or of 1. Up to {TOLERANCE:.0e} is accepted.",
            "* The first size is that of the tracing. The batch is always free.",
            "* ONNX files ran in ONNX Runtime on the CPU.",
            "",
            "| decoder | format | traced size, 2 images | turned, 1 image | odd sides, 1 image |",
            "|---|---|---|---|---|",
            *(
                written_row(name, form, found[form])
                for name, found in measured.items()
                for form in FORMATS
                if form in found
            ),
            "",
        ]
    )


def compiled_row(name: str, found: Mapping[str, Any]) -> str:
    """A line of the table of compiled networks."""
    seen = found.get("graphs", "")
    breaks = seen - 1 if isinstance(seen, int) else seen
    speed = f"{found[SPEED]:.2f}" if SPEED in found else ""
    return f"| {name} | {'one' if Subject(name, Path()).size else 'any'} | {breaks} | {speed} |"


def written_row(name: str, form: str, found: Mapping[str, float] | str) -> str:
    """A line of the table of files."""
    if isinstance(found, str):
        return f"| {name} | {form} | {found} | | |"
    two, *one = (f"{item:.0e} ({place.split('x', 2)[2]})" for place, item in found.items())
    cells = [two, *one] if len(one) == 2 else [two, f"{one[0]}, not turned", "made for one size"]
    return f"| {name} | {form} | {' | '.join(cells)} |"


if __name__ == "__main__":
    raise SystemExit(main())

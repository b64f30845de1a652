"""`mtvision benchmark`: speed as ratios against a named baseline measured in the same run."""

from __future__ import annotations

import argparse
import inspect
import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtvision.cli.common import numeric
from mtvision.cli.machine.timings import (
    Variants,
    changes,
    differences_of_machines,
    machine,
    ratios,
    read,
)
from mtvision.core.naming import look_up
from mtvision.core.values import Positive

if TYPE_CHECKING:
    from torch import Tensor

    from mtvision.core.sample import Batch
    from mtvision.engine.module import TrainingModule
    from mtvision.engine.optimization.wrapper import PrecisionOptimWrapper

DESCRIPTION = """\
Time several variants in turns, so that all run under the same load, and print the median of each as a ratio
to the first one, the baseline. Absolute times of a shared machine mean little. Only `scan` and `loader` print
them. `scan`, `balancers` and `adapters` also compare memory.

  mtvision benchmark data scan                   two suites as tables
  mtvision benchmark --json > before.json        all, with the machine, its instruction set and its load
  mtvision benchmark compare before.json after.json
  mtvision benchmark page *.json > docs/benchmarks.md   tables of these files in Markdown

`compare` lists the variants of two files. A change counts where the interval of the factor (99 %, Welch, of
the logarithms of the turns' ratios) lies on one side of 1 and the medians differ by 3 %. Exit code 1: a
variant got slower.
"""


def checks() -> Variants:
    """The check of losses and gradients in every training step, against a step on one image of 448x576.

    Limit: a norm of each gradient, so reading all gradients once.
    """
    import torch

    module, batch, wrapper = _training(SMALL, "FixedWeights", partial(torch.optim.SGD, lr=1e-3))
    batch = _enlarged(batch, (448, 576))  # NYUD-v2's; the check costs the same whatever the size
    for parameter in module.parameters():
        parameter.grad = torch.randn_like(parameter)
    losses = torch.ones(2 * len(module.tasks))
    gradients = [item.grad for item in module.parameters()]

    def check() -> bool:
        for parameter, gradient in zip(module.parameters(), gradients, strict=True):
            parameter.grad = gradient  # a step clears them
        sound: bool = wrapper.is_sound(losses)
        return sound

    return {"training step": lambda: module.train_step(batch, wrapper), "its check": check}


def _enlarged(batch: Batch, size: tuple[int, int]) -> Batch:
    """The first image of a batch, laid side by side and cut to (height, width)."""
    from mtvision.core.sample import Batch

    def tiled(maps: Tensor) -> Tensor:
        counts = [-(-side // given) for side, given in zip(size, maps.shape[-2:], strict=True)]
        return maps[:1].repeat(*[1] * (maps.ndim - 2), *counts)[..., : size[0], : size[1]]

    labels = {name: tiled(label) for name, label in batch.labels.items()}
    present = {name: flags[:1] for name, flags in batch.present.items()}
    return Batch(tiled(batch.image), labels, present, batch.meta[:1])


SMALL: Mapping[str, Any] = {
    "backbone": {"type": "TimmBackbone", "name": "resnet10t"},
    "decoder": {"type": "ParallelDecoder", "width": 16},
    "head": {"type": "ConvHead"},
}


MAMBA: Mapping[str, Any] = {
    "backbone": {"type": "TimmBackbone", "name": "regnetx_002"},
    "decoder": {
        "type": "MTMambaDecoder",
        "widths": (64, 32, 16),
        "num_blocks": 1,
        "states": 8,
        "upsample": 2,
    },
    "head": {"type": "ConvHead"},
}


def _training_step(
    model: Mapping[str, Any], balancer: str, optimizer: Callable[..., Any]
) -> Callable[[], object]:
    """A training step on four rendered images."""
    module, batch, wrapper = _training(model, balancer, optimizer)
    return lambda: module.train_step(batch, wrapper)


def _training(
    model: Mapping[str, Any], balancer: str, optimizer: Callable[..., Any]
) -> tuple[TrainingModule, Batch, PrecisionOptimWrapper]:
    """What trains, four rendered images, and the optimizer."""
    import torch

    from mtvision.core.registry import BALANCERS, STEPS
    from mtvision.core.sample import collate
    from mtvision.data.synthetic import SyntheticScenes
    from mtvision.engine.module import TrainingModule
    from mtvision.engine.optimization.wrapper import PrecisionOptimWrapper
    from mtvision.models.factory import build_network
    from mtvision.protocols import SYNTHETIC

    dataset = SyntheticScenes(split="train", length=4)
    batch = collate([dataset[index] for index in range(4)])
    torch.manual_seed(0)
    network = build_network(model, SYNTHETIC.tasks)
    weighting = BALANCERS.build(
        {"type": balancer}, tasks=SYNTHETIC.task_names, default_weights=SYNTHETIC.loss_weights
    )
    module = TrainingModule(network, SYNTHETIC.tasks, weighting, STEPS.build({"type": "PlainStep"})).train()
    return module, batch, PrecisionOptimWrapper(optimizer(module.parameters()))


def data() -> Variants:
    """The same NYUD-v2 training samples, on one core, against the obvious implementation.

    Limit: decoding PNG and NumPy files is about half of a sample; resizing is the next.
    """
    from mtvision.data import speed

    return speed.variants()


def rendering() -> Variants:
    """One synthetic sample without transforms, and with the training transforms.

    Limit: about 65 bodies and 58 shadows an image, each some 20 NumPy calls on a small window.
    """
    from mtvision.data.synthetic import SyntheticScenes

    plain = SyntheticScenes(split="train", length=8, transforms="tensor")
    light = SyntheticScenes(split="train", length=8, transforms="light")
    return {
        "render": lambda: [plain[index] for index in range(8)],
        "render + light transforms": lambda: [light[index] for index in range(8)],
    }


def boundary() -> Variants:
    """Boundary counts of one 320x480 image at four thresholds, against simpler ways to the same counts.

    Limit: no single part. Suppression and the distance transform take two fifths, the assignment a tenth.
    """
    from mtvision.metrics.boundary import speed

    return speed.variants()


def mtmamba() -> Variants:
    """A training step of a narrow MTMamba with the backends of the scan, against the written-out one.

    Limit: with a compiled scan, the convolutions and linear layers around it.
    """
    import torch

    from mtvision.ops import available_backends, use_backend

    def step(backend: str) -> Callable[[], object]:
        train = _training_step(MAMBA, "FixedWeights", partial(torch.optim.AdamW, lr=1e-4))

        def run() -> object:
            with use_backend(backend):
                return train()

        return run

    return {name: step(name) for name in available_backends()}


def balancers(repeats: int, write: Callable[[str], object]) -> object:
    """Time and memory of a training step with each balancer, two networks, four tasks, 128x160, batch 4.

    Limit: a backward pass per task through what tasks share. GradDrop and DBMTL also need the whole matrix.
    """
    from mtvision.cli.machine.balancer_speed import benchmark_balancers

    return benchmark_balancers(repeats, write)


def adapters(repeats: int, write: Callable[[str], object]) -> object:
    """Time and memory of a training step with each adapter; experts against a dense MLP and against loops.

    Limit: a pass per task from the first block that has an own part. Changes of weights (`TAPS`,
    `SparseDeltas`) make every weight anew per task and step. Experts: equal operations in smaller products.
    """
    from mtvision.cli.machine.adapter_speed import benchmark_adapters

    return benchmark_adapters(repeats, write)


def scan(repeats: int, write: Callable[[str], object]) -> object:
    """Time and memory of the scan's backends against the written-out one.

    Limit: loads, transpositions and the softplus are two thirds of a forward pass with AVX-512, the
    exponential is one third.
    """
    from mtvision.ops.scan.benchmark import benchmark_scan, benchmark_scan_2d

    timings = benchmark_scan(repeats=repeats, write=write)
    maps = benchmark_scan_2d(repeats=repeats, write=write)
    return {
        "backends": [asdict(timing) for timing in timings],
        "maps": [{"size": size, **result} for size, result in maps.items()],
    }


def slimmable() -> Variants:
    """A pass of a slimmable ResNet-18 at several widths, against the plain network; and switching widths.

    Limit: convolutions are three quarters of a pass; narrow ones use the processor less well.
    """
    from mtvision.protocols import SYNTHETIC
    from mtvision.search import width_speed

    return width_speed.variants(SYNTHETIC.tasks)


def steps() -> Variants:
    """A training step of a ResNet-18 against a bare loop; the first step of a rule over gradients.

    Limit: convolutions and their gradients are two thirds of a step.
    """
    from mtvision.cli.machine import engine_speed

    return engine_speed.steps()


def evaluation() -> Variants:
    """Scores of a ResNet-18 on 16 rooms of 240x320, against reading, computing and measuring in turn.

    Limit: the network. On one core nothing can overlap, so the time is that of the loop.
    """
    from mtvision.cli.machine import engine_speed

    return engine_speed.evaluation()


def prediction() -> Variants:
    """Panels and maps of a folder of 480x640 photographs, against a loop that reads, predicts, writes.

    Limit: deflating the maps of an archive takes more than the network; drawing a panel is the next.
    """
    from mtvision.cli.machine import engine_speed

    return engine_speed.prediction()


def loader(repeats: int, write: Callable[[str], object]) -> object:
    """Time of a NYUD-v2 training sample through loaders with two workers, in one run.

    Limit: the processor time of a sample itself, which workers share out; batches are not copied.
    """
    from mtvision.cli.machine.loader_speed import benchmark_loader

    return benchmark_loader(repeats, write)


SUITES: dict[str, Callable[[], Variants]] = {
    "checks": checks,
    "data": data,
    "rendering": rendering,
    "boundary": boundary,
    "mtmamba": mtmamba,
    "slimmable": slimmable,
    "steps": steps,
    "evaluation": evaluation,
    "prediction": prediction,
}


REPORTS: dict[str, Callable[[int, Callable[[str], object]], object]] = {
    "adapters": adapters,
    "balancers": balancers,
    "loader": loader,
    "scan": scan,
}
"""Suites that measure more than time: (repeats, where each line goes) -> plain data."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    names = ", ".join((*SUITES, *REPORTS))
    parser = argparse.ArgumentParser(
        prog="mtvision benchmark",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("suites", nargs="*", help=f"which ones (default: all): {names}")
    parser.add_argument(
        "--repeats", type=numeric(Positive), default=5, help="timed turns per variant (default: 5)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    arguments = parser.parse_args(argv)
    if arguments.suites[:1] == ["page"]:
        return _page([Path(name) for name in arguments.suites[1:]], parser)
    if arguments.suites[:1] == ["compare"]:
        if len(arguments.suites) != 3:
            parser.error("compare takes two files of --json: compare BEFORE AFTER")
        return _compare(*map(Path, arguments.suites[1:]))
    import torch

    facts = machine()
    suites: dict[str, Mapping[str, Sequence[float]]] = {}
    reports: dict[str, object] = {}
    lines: dict[str, list[str]] = {}
    threads = torch.get_num_threads()
    for name in arguments.suites or (*SUITES, *REPORTS):
        suite = look_up("suite", name, {**SUITES, **REPORTS})
        torch.set_num_threads(threads)  # a suite may have changed it
        if arguments.json:
            print(f"measuring {name}", file=sys.stderr, flush=True)
        if name in REPORTS:
            if not arguments.json:
                print(f"{name}: {said_by(suite)[0].rstrip('.')}")
            lines[name] = []
            reports[name] = REPORTS[name](arguments.repeats, lines[name].append if arguments.json else print)
        else:
            suites[name] = turns = ratios(SUITES[name](), arguments.repeats)
            if not arguments.json:
                _show(name, turns)
    if arguments.json:
        found = {"machine": facts, "suites": suites, "reports": reports, "lines": lines}
        print(json.dumps(found, indent=2))
    return 0


def _compare(before: Path, after: Path) -> int:
    from rich.console import Console
    from rich.table import Table

    files = read(before), read(after)
    found = list(changes(*files))
    console = Console()
    for line in differences_of_machines(*files):
        console.print(f"not the same machine: {line}")
    table = Table("suite", "variant", "before", "after", "factor", "interval", "")
    for item in found:
        interval = "-" if item.verdict == "unknown" else f"{item.low:.2f} to {item.high:.2f}"
        cells = (f"{item.before:.3f}", f"{item.after:.3f}", f"{item.after / item.before:.2f}", interval)
        table.add_row(item.suite, item.variant, *cells, item.verdict)
    console.print(table)
    return int(any(item.verdict == "slower" for item in found))


def _page(files: Sequence[Path], parser: argparse.ArgumentParser) -> int:
    from mtvision.cli.machine.benchmark_page import page

    if not files:
        parser.error("page takes files of --json: page FILE [FILE ...]")
    said = {name: said_by(suite) for name, suite in {**SUITES, **REPORTS}.items()}
    print(page([read(file) for file in files], said), end="")
    return 0


def said_by(suite: object) -> tuple[str, str]:
    """What a suite measures and what limits it: the two paragraphs of its docstring."""
    title, _, limit = inspect.cleandoc(suite.__doc__ or "").partition("\n\n")
    return title, " ".join(limit.split())


def _show(name: str, turns: Mapping[str, Sequence[float]]) -> None:
    from rich.console import Console
    from rich.table import Table

    title = f"{name}: {said_by(SUITES[name])[0].rstrip('.')}"
    table = Table("variant", "time / baseline", "of all turns", "speed-up", title=title)
    for variant, values in turns.items():
        middle, *ends = (_ratio(value) for value in (statistics.median(values), min(values), max(values)))
        table.add_row(variant, middle, " to ".join(ends), f"{1 / statistics.median(values):.2f}x")
    Console().print(table)


def _ratio(value: float) -> str:
    return f"{value:.2f}" if value > 0.1 else f"{value:.4f}"

"""`mtvision benchmark`: speed as ratios against a named baseline measured in the same run."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import torch
from rich.console import Console
from rich.table import Table

from mtvision.core.naming import look_up
from mtvision.core.registry import BALANCERS, STEPS
from mtvision.core.sample import collate
from mtvision.data import speed as data_speed
from mtvision.data.synthetic import SyntheticScenes
from mtvision.engine.module import TrainingModule
from mtvision.engine.precision import PrecisionOptimWrapper
from mtvision.metrics.boundary import speed
from mtvision.models.factory import build_network
from mtvision.protocols import SYNTHETIC

DESCRIPTION = """\
Times variants of one thing in turns, so that all of them see the same machine, and prints the median of each
as a ratio to the first one, the baseline. Absolute times of a shared machine mean little and are not printed.
"""

Variants = Mapping[str, Callable[[], object]]


def balancers() -> Variants:
    """One training step with each balancer, against fixed weights."""
    dataset = SyntheticScenes(split="train", length=4)
    batch = collate([dataset[index] for index in range(4)])
    model = {
        "backbone": {"type": "TimmBackbone", "name": "resnet10t"},
        "decoder": {"type": "ParallelDecoder", "width": 16},
        "head": {"type": "ConvHead"},
    }

    def step(name: str) -> Callable[[], object]:
        torch.manual_seed(0)
        network = build_network(model, SYNTHETIC.tasks)
        balancer = BALANCERS.build(
            {"type": name}, tasks=SYNTHETIC.task_names, default_weights=SYNTHETIC.loss_weights
        )
        module = TrainingModule(
            network, SYNTHETIC.tasks, balancer, STEPS.build({"type": "PlainStep"})
        ).train()
        wrapper = PrecisionOptimWrapper(torch.optim.SGD(module.parameters(), lr=1e-3))
        return lambda: module.train_step(batch, wrapper)

    return {name: step(name) for name in ("FixedWeights", "LogSum", "Uncertainty", "UPGrad")}


def data() -> Variants:
    """The same NYUD-v2 training samples, on one core, against the obvious implementation."""
    return data_speed.variants()


def rendering() -> Variants:
    """One synthetic sample without transforms, and with the training transforms."""
    plain = SyntheticScenes(split="train", length=8, transforms="tensor")
    light = SyntheticScenes(split="train", length=8, transforms="light")
    return {
        "render": lambda: [plain[index] for index in range(8)],
        "render + light transforms": lambda: [light[index] for index in range(8)],
    }


def boundary() -> Variants:
    """Boundary counts of one 320x480 image at four thresholds, against simpler ways to the same counts."""
    return speed.variants()


SUITES: dict[str, Callable[[], Variants]] = {
    "balancers": balancers,
    "data": data,
    "rendering": rendering,
    "boundary": boundary,
}


def ratios(variants: Variants, repeats: int) -> dict[str, float]:
    """{variant: median time / median time of the first variant}, measured in turns after one warm-up each."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(repeats + 1):
        for name, call in variants.items():
            start = time.perf_counter()
            call()
            if turn:
                times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in times.items()}
    baseline = next(iter(medians.values()))
    return {name: value / baseline for name, value in medians.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="mtvision benchmark",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("suites", nargs="*", help=f"which ones (default: all): {', '.join(SUITES)}")
    parser.add_argument("--repeats", type=int, default=5, help="timed turns per variant (default: 5)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    arguments = parser.parse_args(argv)
    results = {
        name: ratios(look_up("suite", name, SUITES)(), arguments.repeats)
        for name in arguments.suites or SUITES
    }
    if arguments.json:
        print(json.dumps(results, indent=2))
        return 0
    for name, values in results.items():
        table = Table(
            "variant",
            "time / baseline",
            "speed-up",
            title=f"{name}: {(SUITES[name].__doc__ or '').rstrip('.')}",
        )
        for variant, value in values.items():
            table.add_row(variant, f"{value:.2f}", f"{1 / value:.2f}x")
        Console().print(table)
    return 0

"""A long run of a tiny network: slopes of memory, descriptors, threads and processes, with their intervals.

PYTHONPATH=.:tests/support python tests/support/soak.py --iterations 2000 --evaluations 200
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import discs
import numpy as np
from mmengine.hooks import Hook
from scipy import stats

from mtvision.engine.run_dir.environment import environment
from mtvision.engine.training import fit
from mtvision.recipe.config import load_config

BOUNDS = {"memory (MB)": 1.0, "descriptors": 0.1, "threads": 0.1, "processes": 0.1}
"""Most growth per 1,000 iterations: a slope fails if its whole interval lies above."""
WARM_UP = 0.2
"""Part of the samples that is left out: caches and pools fill at first."""
BLOCKS = 16
"""Samples are averaged in so many blocks. Neighbours are alike, so single samples would feign precision."""
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Slope:
    """Growth per 1,000 iterations.

    Args:
        name: of what is measured.
        mean: over the samples.
        value: least squares.
        low: end of the 95 % interval.
        high: the other one.
    """

    name: str
    mean: float
    value: float
    low: float
    high: float

    def grows(self) -> bool:
        """Whether the whole interval lies above the bound."""
        return self.low > BOUNDS[self.name]

    def line(self) -> str:
        """One row of a table."""
        interval = f"{self.low:+.3f} to {self.high:+.3f}"
        return f"| {self.name} | {self.mean:.1f} | {self.value:+.3f} | {interval} | {BOUNDS[self.name]} |"


HEAD = (
    "| of the process | mean | growth per 1,000 iterations | 95 % interval | bound |\n|---|---|---|---|---|"
)


def slope(name: str, steps: Sequence[float], values: Sequence[float]) -> Slope:
    """Of samples over steps, after the warm-up, by least squares over means of blocks.

    >>> found = slope("threads", range(200), [7 + step / 1000 for step in range(200)])
    >>> round(found.value, 6), found.grows()
    (1.0, True)
    >>> slope("threads", range(200), [7] * 200).line()
    '| threads | 7.0 | +0.000 | +0.000 to +0.000 | 0.1 |'
    """
    first = int(WARM_UP * len(steps))
    parts = [np.array_split(np.asarray(item[first:], np.float64), BLOCKS) for item in (steps, values)]
    x, y = (np.array([part.mean() for part in blocks]) for blocks in parts)
    x = (x - x.mean()) / 1000
    value = float(x @ y / (x @ x))
    rest = y - y.mean() - value * x
    error = float(np.sqrt(rest @ rest / (BLOCKS - 2) / (x @ x)))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, BLOCKS - 2)) * error
    return Slope(name, float(np.mean(values[first:])), value, value - half, value + half)


class Sampler(Hook):
    """Looks at this process between steps.

    Args:
        interval: steps between samples.
        samples: how many there will be. Their memory is taken at first: lists would grow and be measured.
    """

    def __init__(self, interval: int, samples: int) -> None:
        self.interval = interval
        self.table = np.full((samples, 1 + len(BOUNDS)), np.nan)
        self.taken = self.evaluations = 0

    def after_train_iter(self, runner: Any, *_: Any, **__: Any) -> None:
        """Note a sample if it is time."""
        if (runner.iter + 1) % self.interval:
            return
        task = Path("/proc/self/task")
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        children = sum(len((item / "children").read_text().split()) for item in task.iterdir())
        found = {
            "memory (MB)": pages * resource.getpagesize() / 1e6,
            "descriptors": len(os.listdir("/proc/self/fd")),
            "threads": len(list(task.iterdir())),
            "processes": children,
        }
        self.table[self.taken] = (runner.iter + 1, *(found[name] for name in BOUNDS))
        self.taken += 1

    def after_val_epoch(self, *_: Any, **__: Any) -> None:
        """Count evaluations."""
        self.evaluations += 1


def soak(folder: Path, iterations: int, evaluations: int) -> dict[str, Any]:
    """Train and evaluate, with one worker that loads data, a checkpoint every 50 steps and a moving average.

    Returns:
        `slopes`, `iterations`, `evaluations`, `seconds`, `processor`.
    """
    options = {
        "training.iterations": iterations,
        "training.val_interval": iterations // (evaluations + 1),
        "training.checkpoint_interval": 50,
        "training.ema": 0.1,
        "train_data.num_workers": 1,
        "val_data.num_workers": 1,
    }
    interval = max(1, iterations // 400)
    sampler = Sampler(interval, iterations // interval)
    begin = time.monotonic()
    config = load_config(discs.write_config(folder), [f"{key}={value}" for key, value in options.items()])
    fit(config, folder / "run", hooks=[sampler], quiet=True)
    steps, *columns = sampler.table[: sampler.taken].T
    return {
        "slopes": [vars(slope(name, steps, values)) for name, values in zip(BOUNDS, columns, strict=True)],
        "iterations": iterations,
        "evaluations": sampler.evaluations,
        "seconds": time.monotonic() - begin,
        "processor": environment()["processor"],
    }


def table(found: dict[str, Any]) -> str:
    """What `soak` returned, to read."""
    title = (
        f"{found['iterations']:,} iterations and {found['evaluations']} evaluations in "
        f"{found['seconds']:.0f} s on one core of: {found['processor']}"
    )
    return "\n".join([title, "", HEAD, *(Slope(**item).line() for item in found["slopes"])])


def main() -> int:
    """Print the table; 1 if something grows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--iterations", type=int, default=2000)
    parser.add_argument("--evaluations", type=int, default=200)
    parser.add_argument("--out", type=Path, default=None, help="a JSON file of the result")
    given = parser.parse_args()
    with TemporaryDirectory() as folder:
        found = soak(Path(folder), given.iterations, given.evaluations)
    print(table(found))
    if given.out is not None:
        given.out.write_text(json.dumps(found))
    return int(any(Slope(**item).grows() for item in found["slopes"]))


if __name__ == "__main__":
    sys.exit(main())

"""Do balancing rules beat a plain sum of losses, with equal and with tuned weights? Several seeds.

    python tools/balancing_experiment.py --work-dir work_dirs/balancing

* `conflict`: two tasks that need opposite values of the same weights, one in another unit. The right answer
  is known: the middle.
* `scenes`: four tasks on synthetic scenes, by `mtvision launch --search-weights`. It takes hours on two
  cores.

What is finished is not done again: the same command continues where it was stopped. `--iterations`,
`--images` and `--candidates` make it small, to try it out; such numbers say nothing about the rules.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mtvision.cli.common import numeric
from mtvision.cli.main import call
from mtvision.core.registry import BALANCERS
from mtvision.core.sample import Batch, Meta
from mtvision.core.values import Positive
from mtvision.recipe.sections import Seed
from mtvision.runtime.atomic import write_text
from mtvision.steps import LossReport, PlainStep, StepProblem
from mtvision.sweep.weight_search import SearchPlan, candidates

CONFIG = Path(__file__).parents[1] / "configs" / "parallel" / "parallel_tiny_synthetic_1xb8_300.py"
RULES: dict[str, dict[str, Any]] = {
    "LogSum": {"type": "LogSum"},
    "Uncertainty": {"type": "Uncertainty"},
    "DWA": {"type": "Scalarizer", "scalarizer": "DWA", "period": 50},
    "RLW": {"type": "Scalarizer", "scalarizer": "Random"},
    "GLS": {"type": "Scalarizer", "scalarizer": "GeometricMean"},
    "FAMO": {"type": "FAMO"},
    "STCH": {"type": "SmoothTchebycheff", "warmup": 50, "nadir": 10},
    "GradNorm": {"type": "GradNorm"},
    "NormScaling": {"type": "NormScaling"},
    "IMTL": {"type": "IMTL"},
    "MGDA": {"type": "MGDA"},
    "MGDA-l2": {"type": "MGDA", "normalise": "l2"},
    "NashMTL": {"type": "NashMTL"},
    "DB-MTL": {"type": "DBMTL"},
    "AlignedMTL": {"type": "TorchJD", "aggregator": "AlignedMTL"},
    "PCGrad": {"type": "TorchJD", "aggregator": "PCGrad"},
    "UPGrad": {"type": "UPGrad"},
}
"""{name in tables: balancer}. Their options are the defaults, with warm-ups that fit short runs."""

UNIT = 20.0
"""What the second task's loss is multiplied by: it counts centimetres where the first counts feet, say."""
DISTANCE = 2.0
FLOOR = 1.0
"""Of both losses at their best point; large enough for the product of losses to be least in the middle."""
BATCH = 8


class Conflict(nn.Module):
    """Two tasks that pull the same numbers x (3,) to opposite points a and b.

    L_a = ½ mean_i ‖x + ε_i − a‖² + 1, L_b = 20 (½ mean_i ‖x + ε_i − b‖² + 1), over the images ε_i of a batch.
    The Pareto front is the line from a to b. The tasks are equal but for their unit and their side. So the
    right answer is the middle, for any rule that looks at neither. Weights of 1 end at (a + 20 b) / 21.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.randn(3, generator=torch.Generator().manual_seed(seed)))
        half = torch.tensor([DISTANCE / 2, 0.0, 0.0])
        self.ends = {"a": -half, "b": half}

    def forward(self, batch: Batch) -> LossReport:
        """Losses of a batch whose images (B, 3, 1, 1) are the ε."""
        moved = self.x + batch.image.flatten(1)
        return LossReport({name: self.loss(name, moved) for name in batch.labels})

    def loss(self, name: str, points: Tensor) -> Tensor:
        """Of one task at points (B, 3)."""
        unit = UNIT if name == "b" else 1.0
        return unit * (0.5 * (points - self.ends[name]).square().sum(dim=1).mean() + FLOOR)

    @torch.no_grad()
    def mean_change(self) -> float:
        """Mean over tasks of the loss over its least value."""
        least = {name: self.loss(name, end[None]) for name, end in self.ends.items()}
        return sum(float(self.loss(name, self.x[None]) / least[name]) for name in least) / len(least)

    @torch.no_grad()
    def result(self) -> dict[str, float]:
        """Where x is: `position` along the front from 0 (a) to 1 (b), distance `beside` it, `excess`.

        The excess is that of the worse task's loss over its loss in the middle, in per cent.
        """
        along = float((self.x[0] - self.ends["a"][0]) / DISTANCE)
        middle = torch.zeros(1, 3)
        excess = [
            100 * float(self.loss(name, self.x[None]) / self.loss(name, middle) - 1) for name in self.ends
        ]
        return {"position": along, "beside": float(self.x[1:].norm()), "excess": max(excess)}


def noise(seed: int, step: int) -> Batch:
    """The images of a step."""
    generator = torch.Generator().manual_seed(1_000_003 * seed + step)
    image = 0.3 * torch.randn(BATCH, 3, 1, 1, generator=generator)
    labels = {name: torch.zeros(BATCH, 1, 1, 1) for name in ("a", "b")}
    present = {name: torch.ones(BATCH, dtype=torch.bool) for name in labels}
    meta = [Meta(id=f"{step}-{index}", size=(1, 1), original_size=(1, 1)) for index in range(BATCH)]
    return Batch(image, labels, present, meta)


def settled(config: Mapping[str, Any], seed: int, steps: int) -> Conflict:
    """The problem after training with a balancer, by Adam with a rate that falls to 0."""
    problem = Conflict(seed)
    balancer = BALANCERS.build({**config}, tasks=("a", "b"), default_weights={})
    step = PlainStep()
    optimizer = torch.optim.Adam([*problem.parameters(), *balancer.parameters()], lr=0.05)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    for index in range(steps):
        given = StepProblem(problem, balancer, list(problem.named_parameters()))
        batch = noise(seed, index)
        optimizer.zero_grad()
        step(given, batch)
        optimizer.step()
        schedule.step()
        if step.follows_up(balancer):
            step.after_update([(given, batch)])
    return problem


def tuned(seed: int, steps: int) -> dict[str, Any]:
    """The plain sum with the best of 27 weightings, each trained in full.

    They are judged by the mean of the losses over those of a network with that task alone, which are known.
    Short trainings would favour weights that are fast from where x starts.
    """
    plan = SearchPlan(candidates=27)
    changes = {}
    for weights in candidates({"a": 1.0, "b": 1.0}, plan):
        problem = settled({"type": "FixedWeights", "weights": weights}, plan.seed + seed, steps)
        changes[problem.mean_change()] = weights
    return {"type": "FixedWeights", "weights": changes[min(changes)]}


def conflict(folder: Path, seeds: Sequence[int], steps: int) -> str:
    """The table of the problem with a known answer, in Markdown; what is finished is read from the folder."""
    file = folder / f"conflict_{steps}.json"
    done: dict[str, dict[str, float]] = json.loads(file.read_text()) if file.is_file() else {}
    every: dict[str, dict[str, Any] | None] = {
        "equal weights": {"type": "FixedWeights"},
        "tuned weights": None,
        **RULES,
    }
    for name, config in every.items():
        for seed in seeds:
            key = f"{name}/{seed}"
            if key not in done:
                done[key] = settled(config or tuned(seed, steps), seed, steps).result()
                write_text(file, json.dumps(done, indent=1) + "\n")
    lines = [
        f"Right answer: position 0.5, excess 0. {len(seeds)} seeds, {steps} steps, mean ± std.",
        "",
        "| rule | position on the front | beside it | worse task's excess % |",
        "|---|---|---|---|",
    ]
    for name in every:
        rows = [done[f"{name}/{seed}"] for seed in seeds]
        cells = [_spread([row[key] for row in rows]) for key in ("position", "beside", "excess")]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    text = "\n".join(lines) + "\n"
    write_text(folder / "conflict.md", text)
    return text


def _spread(values: Sequence[float]) -> str:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.3f} ± {spread:.3f}"


def main() -> None:
    """Run both problems, or one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=("conflict", "scenes"))
    parser.add_argument("--seeds", nargs="+", type=numeric(Seed), default=[0, 1, 2])
    parser.add_argument("--rules", nargs="+", choices=list(RULES), default=list(RULES), help="of the scenes")
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/balancing"))
    parser.add_argument("--results", type=Path, help="folder that gets a copy of each record")
    parser.add_argument("--workers", type=numeric(Positive), default=1)
    parser.add_argument(
        "--candidates", type=numeric(Positive), default=9, help="weightings that are tried for the tuned sum"
    )
    parser.add_argument(
        "--iterations", type=numeric(Positive), help="of every training; default: the config's 300"
    )
    parser.add_argument("--images", type=numeric(Positive), help="to train on, default: the config's 1000")
    parser.add_argument("--conflict-steps", type=numeric(Positive), default=400)
    arguments = parser.parse_args()
    if arguments.only != "scenes":
        print(conflict(arguments.work_dir, arguments.seeds, arguments.conflict_steps), flush=True)
    if arguments.only == "conflict":
        return
    small = {
        "training.iterations": arguments.iterations,
        "training.checkpoint_interval": arguments.iterations,
        "train_data.dataset.length": arguments.images,
    }
    options = [f"{key}={value}" for key, value in small.items() if value is not None]
    words = [str(CONFIG), "--seeds", *map(str, arguments.seeds), "--workers", str(arguments.workers)]
    words += ["--work-dir", str(arguments.work_dir / "scenes")]
    words += ["--set", "balancer=" + ",".join(repr(RULES[name]) for name in arguments.rules)]
    words += ["--search-weights", str(arguments.candidates)]
    words += ["--results", str(arguments.results)] if arguments.results else []
    words += ["--cfg-options", *options] if options else []
    if code := call("launch", words):
        raise SystemExit(code)


if __name__ == "__main__":
    main()

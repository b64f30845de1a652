"""Does a searched tree beat full sharing and no sharing at equal parameters? Three seeds on synthetic scenes.

    python tools/branching_experiment.py --problem units --work-dir work_dirs/branching_experiment

One search, then three networks per seed: the tree, full sharing with a wider backbone, no sharing with
narrower ones. All backbones have (nearly) the same number of parameters in total. Finished runs are not
repeated. Problems:

* `units`: depth in metres, the same depth in feet, and classes. The backbone has one narrow width, and its
  last level goes straight to 1x1 heads.
* `scenes`: classes, depth and normals with decoders.

Two measures: the mean relative change over tasks, and over functions, where tasks that are one map in two
units count as one.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mtvision.architecture.tree import Tree
from mtvision.cli.common import numeric
from mtvision.cli.main import call
from mtvision.core.registry import BACKBONES
from mtvision.core.values import Positive
from mtvision.engine.start.begun import begin
from mtvision.metrics.gain import headline_gain
from mtvision.models.branching.encoder import BranchedEncoder
from mtvision.protocols import get_protocol
from mtvision.recipe.sections import Seed

CONFIGS = Path(__file__).parents[1] / "configs" / "branching"


@dataclass(frozen=True)
class Problem:
    """Tasks, configs and the backbone whose width is chosen.

    Args:
        protocol: of the configs.
        tasks: in the order of the tables.
        search: config of the search, with a place for the method.
        retrain: config of a tree.
        method: of the search by default.
        steps: of search and training by default.
        width: of the searched backbone's first stage.
        growth: channels of the stages, as multiples of the width.
        options: further ones of the backbone.
        functions: groups of tasks that are one function of the image.
    """

    protocol: str
    tasks: tuple[str, ...]
    search: str
    retrain: str
    method: str
    steps: int
    width: int
    growth: tuple[int, ...]
    options: dict[str, int]
    functions: tuple[tuple[str, ...], ...]

    def channels(self, width: int) -> tuple[int, ...]:
        """Of the stages."""
        return tuple(width * factor for factor in self.growth)

    def parameters(self, tree: Tree, width: int) -> int:
        """Of the branched backbone."""
        config = {"type": "TimmBackbone", "name": "resnet10t", "stem_width": 8, **self.options}
        backbone = BACKBONES.build({**config, "channels": self.channels(width)})
        return sum(item.numel() for item in BranchedEncoder(backbone, tree).parameters())


PROBLEMS = {
    "units": Problem(
        protocol="synthetic-units",
        tasks=("depth", "depth_feet", "semseg"),
        search="{}_narrow_synthetic_units_1xb8_800.py",
        retrain="tree_narrow_synthetic_units_1xb8_800.py",
        method="rsa",
        steps=800,
        width=20,
        growth=(1, 1, 1, 1),
        options={"output_stride": 8},
        functions=(("depth", "depth_feet"), ("semseg",)),
    ),
    "scenes": Problem(
        protocol="synthetic-scenes",
        tasks=("semseg", "depth", "normals"),
        search="{}_resnet10t_synthetic_1xb8_200.py",
        retrain="tree_resnet10t_synthetic_1xb8_200.py",
        method="ltb",
        steps=200,
        width=12,
        growth=(1, 2, 4, 8),
        options={},
        functions=(("semseg",), ("depth",), ("normals",)),
    ),
}


def run(command: str, *arguments: str) -> None:
    """One command of the suite; stops the experiment where it fails."""
    if code := call(command, list(arguments)):
        raise SystemExit(code)


def searched(problem: Problem, method: str, steps: int, folder: Path) -> Tree:
    """The tree that a search finds, or found before."""
    found = folder / "architecture.json"
    options = [f"training.iterations={steps}"]
    options += [] if method == "rsa" else [f"model.adapters.0.iterations={steps}"]
    if not found.is_file():
        config = str(CONFIGS / problem.search.format(method))
        run("search", config, "--work-dir", str(folder), "--resume", "--cfg-options", *options)
    tree = Tree.load(found)
    print(f"search: {json.loads(found.read_text())['search']['seconds']}\n{tree.draw()}", flush=True)
    return tree


def candidates(problem: Problem, tree: Tree) -> dict[str, tuple[Tree, int]]:
    """{name: tree and width}, with the parameters of the searched tree as nearly as whole widths permit."""
    budget = problem.parameters(tree, problem.width)
    chosen = {"tree": (tree, problem.width)}
    for name, kind in (("shared", Tree.shared), ("separate", Tree.separate)):
        other = kind(problem.tasks, tree.blocks)
        sizes = {width: problem.parameters(other, width) for width in range(4, 40)}
        chosen[name] = (other, min(sizes, key=lambda item: abs(sizes[item] - budget)))
    for name, (item, width) in chosen.items():
        print(f"{name}: width {width}, {problem.parameters(item, width)} parameters", flush=True)
    return chosen


def scores_of(
    problem: Problem, tree: Tree, width: int, steps: int, seed: int, work: Path
) -> dict[str, float]:
    """{task: headline score} of one training run on the test split."""
    if not (work / "record.json").is_file():
        options = [
            f"training.iterations={steps}", f"model.backbone.channels={problem.channels(width)}",
            f"model.adapters.0.tree={json.dumps(tree.to_plain())}",
        ]  # fmt: skip
        config = str(CONFIGS / problem.retrain)
        place = ["--work-dir", str(work), "--resume"]
        run("train", config, *place, "--seed", str(seed), "--cfg-options", *options)
    record = json.loads((work / "record.json").read_text())
    headlines = {task.name: task.headline for task in get_protocol(problem.protocol).tasks}
    row = {name: record["scores"][name][headlines[name]] for name in problem.tasks}
    print(seed, work.name, row, f"{record['training']['hours'] * 3600:.0f} s", flush=True)
    return row


def spread(values: Sequence[float]) -> str:
    """Mean ± population standard deviation, and the values."""
    listed = ", ".join(f"{value:.4f}" for value in values)
    return f"{statistics.mean(values):.4f} ± {statistics.pstdev(values):.4f}  [{listed}]"


def report(problem: Problem, scores: dict[str, list[dict[str, float]]]) -> None:
    """Scores per network and task; the tree's mean relative change against the others."""
    tasks = [get_protocol(problem.protocol).task(name) for name in problem.tasks]
    for name, rows in scores.items():
        for task in tasks:
            print(f"{name:9} {task.name:10} {task.headline:5} {spread([row[task.name] for row in rows])}")

    def nested(row: dict[str, float]) -> dict[str, dict[str, float]]:
        return {task.name: {task.headline: row[task.name]} for task in tasks}

    for other in ("shared", "separate"):
        per_task, per_function = [], []
        for mine, theirs in zip(scores["tree"], scores[other], strict=True):
            gain = headline_gain(tasks, nested(mine), nested(theirs))
            per_task.append(gain.percent)
            means = [statistics.mean(gain.parts[name] for name in group) for group in problem.functions]
            per_function.append(statistics.mean(means))
        print(f"tree against {other}: mean change over tasks, percent: {spread(per_task)}")
        print(f"tree against {other}: mean change over functions, percent: {spread(per_function)}")


def main() -> None:
    """Run the experiment."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--problem", choices=PROBLEMS, default="units")
    parser.add_argument("--search", choices=("ltb", "bmtas", "rsa"), help="default: the problem's own")
    parser.add_argument(
        "--steps", type=numeric(Positive), help="of search and training (default: the problem's own)"
    )
    parser.add_argument("--seeds", nargs="+", type=numeric(Seed), default=[0, 1, 2])
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/branching_experiment"))
    arguments = parser.parse_args()
    problem = PROBLEMS[arguments.problem]
    folder, steps = arguments.work_dir / arguments.problem, arguments.steps or problem.steps
    begin(folder, {"search": arguments.search or problem.method, "steps": steps})
    tree = searched(problem, arguments.search or problem.method, steps, folder / "search")
    chosen = candidates(problem, tree)
    scores: dict[str, list[dict[str, float]]] = {name: [] for name in chosen}
    for seed in arguments.seeds:
        for name, (branches, width) in chosen.items():
            work = folder / f"{name}_{seed}"
            scores[name].append(scores_of(problem, branches, width, steps, seed, work))
    report(problem, scores)


if __name__ == "__main__":
    main()

"""Does a searched tree beat full sharing and no sharing at equal parameters? Three seeds on synthetic scenes.

    python tools/branching_experiment.py --steps 200 --work-dir work_dirs/branching_experiment

One search, then three networks per seed: the tree, full sharing with a wider backbone, no sharing with
narrower ones; all backbones have (nearly) the same number of parameters in total. Prints a table of records.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

from mtvision.cli.main import call
from mtvision.core.registry import BACKBONES
from mtvision.core.tree import Tree

CONFIGS = Path(__file__).parents[1] / "configs" / "branching"
TASKS = ["semseg", "depth", "normals"]
HEADLINES = {"semseg": "miou", "depth": "rmse", "normals": "mean"}


def parameters(width: int, copies: int) -> int:
    """Of `copies` backbones whose first stage has `width` channels."""
    channels = (width, 2 * width, 4 * width, 8 * width)
    config = {"type": "TimmBackbone", "name": "resnet10t", "stem_width": 8, "channels": channels}
    return copies * sum(item.numel() for item in BACKBONES.build(config).parameters())


def run(command: str, *arguments: str) -> None:
    """One command of the suite; stops the experiment where it fails."""
    if code := call(command, list(arguments)):
        raise SystemExit(code)


def main() -> None:
    """Run the experiment."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--search", default="ltb", help="ltb, bmtas or rsa")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/branching_experiment"))
    arguments = parser.parse_args()
    folder, steps = arguments.work_dir, [f"training.iterations={arguments.steps}"]
    search = str(CONFIGS / f"{arguments.search}_resnet10t_synthetic_1xb8_200.py")
    found = folder / "search" / "architecture.json"
    more = [] if arguments.search == "rsa" else [f"model.adapters.0.iterations={arguments.steps}"]
    if not found.is_file():
        run("search", search, "--work-dir", str(found.parent), "--resume", "--cfg-options", *steps, *more)
    result = json.loads(found.read_text())
    tree, budget = Tree.load(found), result["cost"]["parameters"]
    print(f"search: {result['search']['seconds']}\n{tree.draw()}\nbudget {budget} parameters", flush=True)
    plain = {"tree": (tree, 12)}
    for name, kind, copies in (("shared", Tree.shared, 1), ("separate", Tree.separate, len(TASKS))):
        width = min(range(4, 40), key=lambda item, copies=copies: abs(parameters(item, copies) - budget))
        plain[name] = (kind(TASKS, tree.blocks), width)
        print(f"{name}: width {width}, {parameters(width, copies)} parameters", flush=True)
    scores: dict[str, list[dict[str, float]]] = {name: [] for name in plain}
    for seed in range(arguments.seeds):
        for name, (branches, width) in plain.items():
            work = folder / f"{name}_{seed}"
            if not (work / "record.json").is_file():
                channels = (width, 2 * width, 4 * width, 8 * width)
                options = [
                    *steps, f"model.backbone.channels={channels}",
                    f"model.adapters.0.tree={json.dumps(branches.to_plain())}",
                ]  # fmt: skip
                config = str(CONFIGS / "tree_resnet10t_synthetic_1xb8_200.py")
                run("train", config, "--work-dir", str(work), "--overwrite", "--seed", str(seed),
                    "--cfg-options", *options)  # fmt: skip
            record = json.loads((work / "record.json").read_text())
            row = {task: record["scores"][task][key] for task, key in HEADLINES.items()}
            scores[name].append(row)
            print(seed, name, row, f"{record['training']['hours'] * 3600:.0f} s", flush=True)
    for name, rows in scores.items():
        for task in HEADLINES:
            values = [row[task] for row in rows]
            print(
                f"{name:9} {task:8} {statistics.mean(values):.4f} ± {statistics.pstdev(values):.4f}  {values}"
            )


if __name__ == "__main__":
    main()

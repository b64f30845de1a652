"""Does teaching the smaller widths help, and by which distance? On synthetic scenes, several seeds.

    python tools/distillation_experiment.py --seeds 0 1 2 --work-dir work_dirs/distillation

Per seed, the slimmable network of `configs/slimmable` is trained without distillation, with each distance of
features, and with the largest network's outputs as labels. Plain networks of four widths follow. Prints the
relative change of the headline scores, mean over tasks, of every slimmed width against the plain network of
that width. What is finished is not trained again; `distillation.json` has every score.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from mtvision.architecture.widths import WidthConfig
from mtvision.cli.common import numeric
from mtvision.cli.main import call
from mtvision.core.context import Context
from mtvision.core.task import Task
from mtvision.metrics.gain import headline_gain
from mtvision.models.adapters.slimmable import calibrate
from mtvision.procedures.controllable import headline_scores, separate_scores
from mtvision.recipe.building import trained_network
from mtvision.recipe.config import load_config
from mtvision.recipe.data import build_dataset, evaluation_loader
from mtvision.recipe.sections import Seed
from mtvision.recipe.settings import Settings, protocol_of
from mtvision.runtime.atomic import write_text

CONFIGS = Path(__file__).parents[1] / "configs" / "slimmable"
SLIMMABLE = CONFIGS / "slimmable_regnetx_002_synthetic_1xb8_400.py"
WIDTHS = (0.25, 0.5, 0.75, 1.0)
VARIANTS = {
    "none": ["step.distillation=None"],
    "nested": [],
    "attention": ["step.distillation=attention"],
    "projector": [
        "step.distillation=projector",
        "model.adapters=[{'type': 'Slimmable', 'projectors': True}]",
    ],
    "outputs": ["step.distillation=None", "step.output_distillation=True"],
}


def trained(config: Path, folder: Path, seed: int, options: list[str]) -> Path:
    """The last checkpoint of a config, trained unless that was done before."""
    last = folder / f"iter_{load_config(config)['training']['iterations']}.pth"
    if not (folder / "record.json").is_file():
        more = ["--cfg-options", *options] if options else []
        code = call(
            "train", [str(config), "--work-dir", str(folder), "--overwrite", "--seed", str(seed), *more]
        )
        if code:
            raise SystemExit(code)
    return last


def slimmed_scores(checkpoint: Path) -> dict[float, dict[str, float]]:
    """{width: test scores} of one slimmable network, with statistics of four training batches."""
    config = load_config(checkpoint.parent / "config.py")
    settings = Settings.of(config)
    network, _ = trained_network(config, settings.protocol, checkpoint)
    section = {**config["train_data"], "dataset": {**config["train_data"]["dataset"], "transforms": "tensor"}}
    dataset = build_dataset("train_data", section, settings.protocol, settings.seed)
    images = [batch.image for batch in islice(evaluation_loader(dataset, section), 4)]
    scores = {}
    for ratio in WIDTHS:
        widths = WidthConfig(ratio, dict.fromkeys(settings.protocol.task_names, ratio))
        calibrate(network, images, [widths])
        context = Context(widths=widths.to_plain())
        scores[ratio] = headline_scores(config, settings, network, "test_data", context)
    return scores


def change(tasks: Sequence[Task], scores: dict[str, float], alone: dict[str, float]) -> float:
    """Relative change, mean over tasks, positive where better."""
    mine, theirs = ({task.name: {task.headline: row[task.name]} for task in tasks} for row in (scores, alone))
    return headline_gain(tasks, mine, theirs).percent / 100


def main() -> None:
    """Run the experiment."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", nargs="+", type=numeric(Seed), default=[0, 1, 2])
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/distillation"))
    arguments = parser.parse_args()
    tasks = protocol_of(load_config(SLIMMABLE)).tasks
    found: dict[str, dict[int, list[float]]] = {}
    everything = []
    for seed in arguments.seeds:
        alone = {}
        for ratio in WIDTHS:
            name = f"separate{round(100 * ratio)}"
            config = CONFIGS / f"{name}_regnetx_002_synthetic_1xb8_400.py"
            folder = arguments.work_dir / f"{name}_{seed}"
            alone[ratio] = separate_scores(load_config(config), trained(config, folder, seed, []))
        everything.append({"seed": seed, "variant": "separate", "scores": alone})
        for variant, options in VARIANTS.items():
            scores = slimmed_scores(
                trained(SLIMMABLE, arguments.work_dir / f"{variant}_{seed}", seed, options)
            )
            everything.append({"seed": seed, "variant": variant, "scores": scores})
            found.setdefault(variant, {})[seed] = [
                change(tasks, scores[item], alone[item]) for item in WIDTHS
            ]
            print(seed, variant, [f"{item:+.3f}" for item in found[variant][seed]], flush=True)
        write_text(arguments.work_dir / "distillation.json", json.dumps(everything, indent=1) + "\n")
    print("mean change against separate networks, ± sample standard deviation over seeds; widths", WIDTHS)
    for variant, rows in found.items():
        columns = list(zip(*rows.values(), strict=True))
        spread = [statistics.stdev(item) if len(item) > 1 else 0.0 for item in columns]
        cells = [
            f"{100 * statistics.mean(item):+.1f} ± {100 * deviation:.1f} %"
            for item, deviation in zip(columns, spread, strict=True)
        ]
        print(f"{variant:10}", "  ".join(cells), flush=True)


if __name__ == "__main__":
    main()

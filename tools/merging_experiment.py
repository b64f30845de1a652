"""When does merging pay? Single-task networks, their merges and joint training, scored alike.

    python tools/merging_experiment.py --data /data --work-dir work_dirs/merging --results results/merging

A ladder per data set and seed. All networks start from the same ImageNet weights and take the same steps:

1. one network per task: the reference of all gains;
2. their merges: average, task arithmetic, TIES, Consensus, learned coefficients (AdaMerging), and the average
   with its heads trained again while the backbone is frozen;
3. one network trained on all tasks.

A fifth of the training images is held out. No network is trained on it. Coefficients are chosen and learned
there. What is finished is not done again: the same command continues where it was stopped. A data set that is
not below `--data` is left out, and a line says so.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from mtvision.cli.common import numeric
from mtvision.cli.main import call
from mtvision.core.values import Positive
from mtvision.engine.building import training_module
from mtvision.engine.evaluate import evaluate_checkpoint
from mtvision.engine.start.begun import begin
from mtvision.engine.training import fit, train
from mtvision.procedures.merging import MergeRequest, merge_checkpoints
from mtvision.procedures.search import HeldOut
from mtvision.recipe.building import trained_network
from mtvision.recipe.config import RunConfig, load_config
from mtvision.recipe.sections import Seed
from mtvision.recipe.settings import Settings, to_plain_data
from mtvision.report.record import Record
from mtvision.runtime.atomic import write_text

CONFIGS = Path(__file__).parents[1] / "configs"
HELD_OUT = 0.2
"""Share of the training images that coefficients are chosen and learned on."""
IMAGES = 32
"""Training images that batch norms get new statistics from."""
SCALES = (0.3, 0.6, 1.0)
"""Coefficients that are tried on the held-out images."""
CROP = (96, 128)
BACKBONE = {"type": "TimmBackbone", "name": "tf_efficientnet_lite0", "pretrained": True}
AUGMENT = (
    {"type": "RandomScale", "low": 0.75, "high": 1.5},
    {"type": "RandomCrop", "size": CROP},
    {"type": "RandomHorizontalFlip"},
    {"type": "Normalize"},
    {"type": "PadImage", "size": CROP},
    {"type": "AddIgnoreRegions"},
)
WHOLE = ({"type": "RandomCrop", "size": CROP}, {"type": "Normalize"})
HALF = {"type": "FixedResize", "size": (240, 320)}


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A data set at a size that two cores can afford.

    Args:
        config: below `configs/`; of one network with all tasks.
        protocol: of the config, for tables.
        folder: of its data below `--data`; None = rendered.
        tasks: that are trained.
        before: transforms in front of all others.
        options: of the config.
    """

    config: str
    protocol: str
    folder: str | None
    tasks: tuple[str, ...]
    before: tuple[Mapping[str, Any], ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


PROBLEMS = {
    "scenes": Problem(
        config="parallel/parallel_tiny_synthetic_1xb8_300.py",
        protocol="synthetic-scenes",
        folder=None,
        tasks=("semseg", "depth", "normals"),
        options={
            "train_data.dataset.length": 300,
            "balancer": {"type": "FixedWeights"},
            "optimizer": {"type": "AdamW", "lr": 1e-3, "weight_decay": 1e-2, "backbone_lr": 0.3},
        },
    ),
    "mosd": Problem(
        config="mosd/parallel_lite0_mosd_1xb4_240.py",
        protocol="mosd",
        folder="mosd",
        tasks=("semseg", "depth", "normals"),
        before=(HALF,),
    ),
    "camvid": Problem(
        config="camvid/parallel_lite0_camvid_1xb4_200.py",
        protocol="camvid-sample",
        folder="camvid",
        tasks=("semseg", "edge"),
    ),
    "bsds_sod": Problem(
        config="bsds_sod/parallel_lite0_bsds_sod_1xb4_200.py",
        protocol="bsds-sod",
        folder="bsds_sod",
        tasks=("saliency", "edge"),
    ),
}


@dataclass(frozen=True)
class Rung:
    """A merge: method, options, images for batch norms, and whether its scale is chosen."""

    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    images: int = IMAGES
    chosen: bool = False


RUNGS = {
    "average, merged statistics": Rung("average", images=0),
    "average": Rung("average"),
    "task arithmetic": Rung("task_arithmetic", chosen=True),
    "TIES": Rung("ties", chosen=True),
    "Consensus": Rung("consensus", chosen=True),
    "learned": Rung("adamerging", {"objective": "parents", "scale": 0.5, "steps": 60, "lr": 0.01}),
}
"""{name in tables: merge}."""
TUNED = "average, heads tuned"
JOINT = "joint training"
ALONE = "single-task"


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is done: steps of every network, images per step, steps of the learned rung."""

    iterations: int = 240
    batch: int = 4
    learned: int = 60


class Ladder:
    """All networks of one data set and seed.

    Args:
        name: of the problem.
        problem: the data.
        seed: of all networks.
        data: folder of the real sets.
        folder: receives a folder per network.
        results: receives a copy of each record, or None.
        size: how much is done.
        options: `--cfg-options` for all networks.
    """

    def __init__(
        self,
        name: str,
        problem: Problem,
        seed: int,
        *,
        data: Path,
        folder: Path,
        results: Path | None,
        size: Size,
        options: Sequence[str] = (),
    ) -> None:
        self.name, self.problem, self.seed, self.size = name, problem, seed, size
        self.folder, self._results = folder / name / f"seed{seed}", results
        config = load_config(CONFIGS / problem.config, [])
        given = dict(problem.options)
        if problem.folder is not None:
            for section in ("train_data", "val_data"):
                given[f"{section}.dataset.root"] = str(data / problem.folder)
        given |= {
            "seed": seed,
            "tasks": list(problem.tasks),
            "model.backbone": BACKBONE,
            "train_data.batch_size": size.batch,
            "train_data.num_workers": 0,
            "train_data.dataset.transforms": [*problem.before, *AUGMENT],
            "training.iterations": size.iterations,
            "training.checkpoint_interval": size.iterations,
            "training.first_look": 0,
            "evaluation.constant_predictor": 0,
            "evaluation.workers": 0,
            "evaluation.pictures": 0,
        }
        self.whole = config.with_options(given).with_options(_parsed(options))

    @cached_property
    def section(self) -> str:
        """The data that are scored."""
        return "test_data" if self.whole["test_data"] else "val_data"

    @cached_property
    def config(self) -> RunConfig:
        """Of training and scoring: images that are not held out, and the test images."""
        inner = to_plain_data(self.whole["train_data"])["dataset"]
        rest = {"type": "HeldOutImages", "part": "rest", "held_out": HELD_OUT, "dataset": inner}
        scored = to_plain_data(self.whole[self.section])["dataset"]
        if self.problem.before:
            scored |= {"transforms": [*self.problem.before, {"type": "Normalize"}]}
        return self.whole.with_options({"train_data.dataset": rest, f"{self.section}.dataset": scored})

    @cached_property
    def judging(self) -> RunConfig:
        """Of merging: all training images in crops of the size of training, of which a part is held out."""
        dataset = {**to_plain_data(self.whole["train_data"])["dataset"]}
        changed = {"val_data.dataset": {**dataset, "transforms": [*self.problem.before, *WHOLE]}}
        return self.whole.with_options({**changed, "val_data.batch_size": self.size.batch})

    def run(self) -> None:
        """Everything that is not there yet, in the order of the ladder."""
        for task in self.problem.tasks:
            self._trained(f"{ALONE} {task}", {"tasks": [task], "balancer": {"type": "FixedWeights"}})
        for name, rung in RUNGS.items():
            self._once(name, lambda folder, rung=rung: self._merged(folder, rung))
        self._once(TUNED, self._tuned)
        self._trained(JOINT, {})

    def _place(self, name: str) -> Path:
        return self.folder / name.replace(",", "").replace(" ", "_")

    def _trained(self, name: str, options: Mapping[str, Any]) -> None:
        config = self.config.with_options({**options, "name": name})
        self._keep(name, train(config, self._place(name), resume="auto"))

    def _once(self, name: str, make: Callable[[Path], Path]) -> None:
        """Score the checkpoint that `make` writes into the folder of a rung, unless that was done."""
        folder = self._place(name)
        file = folder / "record.json"
        if not file.is_file() or not Record.load(file).whole:
            checkpoint = make(folder)
            config, training = self.config.with_options({"name": name}), {"iterations": self.size.iterations}
            evaluate_checkpoint(
                config,
                folder,
                checkpoint,
                section=self.section,
                training=training,
                with_cost=False,
                quiet=True,
            )
        self._keep(name, Record.load(file))

    def _keep(self, name: str, record: Record) -> None:
        if self._results is not None:
            record.save(self._results / f"{self.name}_{self._place(name).name}_seed{self.seed}.json")

    def parent(self, task: str) -> Path:
        """The single-task network of a task."""
        return self._place(f"{ALONE} {task}") / f"iter_{self.size.iterations}.pth"

    def _merge(self, out: Path, rung: Rung, **options: Any) -> Path:
        given = {**rung.options, **options}
        if "steps" in given:
            given["steps"] = self.size.learned
        request = MergeRequest(
            base="pretrained",
            parents={task: str(self.parent(task)) for task in self.problem.tasks},
            method=rung.method,
            options=given,
            out=out,
            images=rung.images,
            held_out=HELD_OUT,
        )
        merge_checkpoints(self.judging, request)
        return out

    def _merged(self, folder: Path, rung: Rung) -> Path:
        """The merge of a rung; where its scale is chosen, the one with the least loss on held-out images."""
        if not rung.chosen:
            return self._merge(folder / "merged.pth", rung)
        found = {}
        for scale in SCALES:
            tried = self._merge(folder / f"scale_{scale:g}.pth", rung, scale=scale)
            found[scale] = self._loss(self.judging, tried)
        best = min(found, key=found.__getitem__)
        write_text(folder / "choice.json", json.dumps({"scale": best, "loss": found}, indent=1) + "\n")
        shutil.move(folder / f"scale_{best:g}.pth", folder / "merged.pth")
        for scale in SCALES:
            (folder / f"scale_{scale:g}.pth").unlink(missing_ok=True)
        return folder / "merged.pth"

    @cached_property
    def _alone(self) -> dict[str, float]:
        """{task: loss of its single-task network on the held-out images}."""
        found = {}
        for task in self.problem.tasks:
            config = self.judging.with_options({"tasks": [task], "balancer": {"type": "FixedWeights"}})
            found |= held_out_losses(config, self.parent(task))
        return found

    def _loss(self, config: RunConfig, checkpoint: Path) -> float:
        """Mean over tasks of the held-out loss, as a multiple of the single-task network's."""
        losses = held_out_losses(config, checkpoint)
        return sum(losses[task] / self._alone[task] for task in losses) / len(losses)

    def _tuned(self, folder: Path) -> Path:
        """SIMO: the averaged network after training with a frozen backbone."""
        start = self._place("average") / "merged.pth"
        options = {"training.load_from": str(start), "training.freeze": ["backbone.*"], "name": TUNED}
        run = fit(self.config.with_options(options), folder / "heads", resume="auto")
        run.loggers.finish({})
        return run.checkpoint


def held_out_losses(config: RunConfig, checkpoint: Path) -> dict[str, float]:
    """{task: mean loss of a checkpoint on the held-out training images}."""
    settings = Settings.of(config)
    network, _ = trained_network(config, settings.protocol, checkpoint)
    return HeldOut(config, settings, training_module(config, settings, network), HELD_OUT).losses()


def _parsed(options: Sequence[str]) -> dict[str, Any]:
    import ast

    return {name: ast.literal_eval(text) for name, _, text in (item.partition("=") for item in options)}


def main() -> None:
    """Climb all ladders, then print a table per data set."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--problems", nargs="+", choices=list(PROBLEMS), default=list(PROBLEMS))
    parser.add_argument("--seeds", nargs="+", type=numeric(Seed), default=[0, 1, 2])
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the prepared real sets")
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/merging"))
    parser.add_argument("--results", type=Path, help="folder that gets a copy of each record")
    parser.add_argument(
        "--iterations", type=numeric(Positive), default=Size.iterations, help="of every network"
    )
    parser.add_argument("--batch", type=numeric(Positive), default=Size.batch, help="images per step")
    parser.add_argument(
        "--learned", type=numeric(Positive), default=Size.learned, help="steps of the learned rung"
    )
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="of all networks")
    arguments = parser.parse_args()
    size = Size(iterations=arguments.iterations, batch=arguments.batch, learned=arguments.learned)
    told = {**asdict(size), "options": arguments.cfg_options}
    there = {}
    for name in arguments.problems:
        problem = PROBLEMS[name]
        if problem.folder is None or (arguments.data / problem.folder).is_dir():
            begin(arguments.work_dir / name, told)
            there[name] = problem
        else:
            print(f"{name} is left out: no folder {arguments.data / problem.folder}, see datasets/{name}.md")
    for seed in arguments.seeds:
        for name, problem in there.items():
            Ladder(
                name, problem, seed,
                data=arguments.data, folder=arguments.work_dir, results=arguments.results, size=size,
                options=arguments.cfg_options,
            ).run()  # fmt: skip
    for name, problem in there.items():
        words = [str(arguments.work_dir / name), "--protocol", problem.protocol, "--baseline", ALONE]
        if code := call("table", words):
            raise SystemExit(code)


if __name__ == "__main__":
    main()

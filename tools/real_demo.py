"""The benchmark on real pictures: mOSD, BSDS with saliency and CamVid, on two CPU cores.

    python tools/real_demo.py --data /data --list
    python tools/real_demo.py --data /data --part bsds_sod.single bsds_sod.parallel --seeds 0

`--data` holds the prepared folders `mosd`, `bsds_sod` and `camvid`, see `datasets/`. Runs that have a record
are skipped, interrupted ones are continued: the same command continues where it was stopped. Single-task
networks come first, then the other parts, then the same with further seeds. Two runs of one thread each use
two cores better than one run of two threads. See docs/real_pictures.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mtvision.cli.common import numeric
from mtvision.cli.main import call
from mtvision.core.naming import UnknownNameError, look_up
from mtvision.core.values import Positive
from mtvision.protocols import get_protocol
from mtvision.recipe.sections import Seed
from mtvision.report.baseline import is_single_task
from mtvision.report.paired import best_rows
from mtvision.report.table import group_seeds
from mtvision.runtime.progress import messages
from mtvision.sweep.grid import FINISHED, Run, expand, look_up_states
from mtvision.sweep.local import run_locally
from mtvision.sweep.summary import Board

CONFIGS = Path(__file__).parents[1] / "configs"
DECODERS = ("multi_decoder", "pad_net", "mti_net", "invpt", "mlore", "taskexpert", "mtmamba", "mtmamba_plus")
STRUCTURES = ("mtan", "tree", "slimmable")
RULES = ("Uncertainty", "UPGrad", "FAMO", "NashMTL", "LogSum")
"""Balancers on the parallel decoder; the rest of the grid has the protocol's weights."""
CANDIDATES = 5
"""Sums that the search for weights tries."""
FIRST = ("bsds_sod.single", "bsds_sod.parallel", "bsds_sod.scratch", "camvid.single", "camvid.parallel")
"""The part that is run without `--part`: seven runs a seed, each of at most six minutes."""


@dataclass(frozen=True)
class Set:
    """One data set of the benchmark.

    Args:
        folder: below `--data`, and of its configs.
        protocol: id.
        suffix: ends the names of its configs.
        decoders: methods of the part `decoders`.
        structures: methods of the part `structures`.
    """

    folder: str
    protocol: str
    suffix: str
    decoders: tuple[str, ...] = DECODERS
    structures: tuple[str, ...] = STRUCTURES

    def config(self, method: str) -> Path:
        """The config of a method."""
        base, _, start = method.partition(" ")
        return CONFIGS / self.folder / f"{base}_lite0{start and '_scratch'}_{self.suffix}.py"

    def parts(self) -> dict[str, tuple[list[Path], dict[str, list[str]], str | None]]:
        """{part: configs, axes and name of its rows}, as `expand` takes them."""
        plain = [self.config("parallel")]
        tasks = [repr([name]) for name in get_protocol(self.protocol).task_names]
        return {
            "single": (plain, {"tasks": tasks}, "single-task {tasks}"),
            "parallel": (plain, {}, None),
            "scratch": ([self.config("parallel scratch")], {}, None),
            "decoders": ([self.config(name) for name in self.decoders], {}, None),
            "structures": ([self.config(name) for name in self.structures], {}, None),
            "balancers": (plain, {"balancer": list(RULES)}, None),
        }


SETS = {
    "mosd": Set("mosd", "mosd", "mosd_1xb4_240"),
    "bsds_sod": Set("bsds_sod", "bsds-sod", "bsds_sod_1xb4_200"),
    "camvid": Set(
        "camvid", "camvid-sample", "camvid_1xb4_200", ("pad_net", "mti_net", "taskexpert", "mtmamba"), ()
    ),
}
TUNED = "tuned"
"""Part whose weights are searched for first, by `mtvision launch --search-weights`."""
FULL = "full"
"""Part that trains nothing: it scores the best edges and the single-task ones again, with all thresholds."""
THRESHOLDS = 99
"""Of the three protocols; the configs have fewer."""


def part_names() -> list[str]:
    """All parts, in the order in which they are run."""
    kinds = list(dict.fromkeys(kind for item in SETS.values() for kind in item.parts()))
    named = [f"{name}.{kind}" for kind in kinds for name, item in SETS.items() if _count(item, kind)]
    return [*named, *(f"{name}.{kind}" for kind in (TUNED, FULL) for name in SETS)]


def _count(item: Set, kind: str) -> int:
    return len(item.parts()[kind][0])


def wanted(parts: Sequence[str]) -> list[str]:
    """The parts that are named, or that belong to a data set that is named, in the order of running.

    Raises:
        UnknownNameError: there is no such part.
    """
    names = part_names()
    known = dict.fromkeys([*SETS, *names])
    for part in parts:
        look_up("part", part, known)
    return [name for name in names if name in parts or name.split(".")[0] in parts]


def options(item: Set, data: Path) -> list[str]:
    """`--cfg-options` that say where the data lie; absolute, so that records are the same everywhere."""
    root = data.resolve() / item.folder
    return [f"{section}.dataset.root={root}" for section in ("train_data", "val_data")]


def planned(parts: Sequence[str], seeds: Sequence[int], data: Path, work_dir: Path) -> list[Run]:
    """The runs of parts but `TUNED` and `FULL`: seeds outermost, parts in their order."""
    found = []
    for seed in seeds:
        for part in parts:
            name, kind = part.split(".")
            item = SETS[name]
            if kind not in item.parts():
                continue
            configs, axes, title = item.parts()[kind]
            found += expand(
                configs,
                seeds=[seed],
                axes=axes,
                work_dir=work_dir / name,
                options=options(item, data),
                name=title,
            )
    return found


def train(runs: Sequence[Run], results: Path, workers: int) -> int:
    """Train runs, `workers` at once; returns 0 if each has a whole record, 130 if interrupted, else 1."""
    with Board(runs, messages(), lambda run: results / run.config.parent.name) as board:
        outcomes = run_locally(runs, workers=workers, watcher=board)
    if any(outcome.interrupted for outcome in outcomes):
        return 130
    return int(any(outcome.problem for outcome in outcomes))


def search_weights(name: str, arguments: argparse.Namespace) -> int:
    """The plain sum with equal and with tuned weights, on the parallel decoder."""
    item = SETS[name]
    words = [str(item.config("parallel")), "--seeds", *map(str, arguments.seeds)]
    words += ["--work-dir", str(arguments.work_dir / name), "--results", str(arguments.results / name)]
    words += ["--workers", str(arguments.workers)]
    return call(
        "launch",
        [*words, "--search-weights", str(CANDIDATES), "--cfg-options", *options(item, arguments.data)],
    )


def edge_rows(name: str, arguments: argparse.Namespace) -> list[Run]:
    """Runs of the single-task edge network, and of the row with all tasks and the best mean odsF.

    Rows without a record of every seed do not count. Without one of both kinds the list is empty.
    """
    parts = [f"{name}.{kind}" for kind in SETS[name].parts()]
    runs = planned(parts, arguments.seeds, arguments.data, arguments.work_dir)
    runs = look_up_states(runs, [arguments.results / name])
    rows = group_seeds([run.record for run in runs if run.record is not None])
    whole = [row for row in rows if len(row) == len(arguments.seeds)]
    best = best_rows([row for row in whole if not is_single_task(row[0])]).get("edge")
    alone = next((row for row in whole if row[0].method == "single-task edge"), None)
    if best is None or alone is None:
        return []
    return [run for row in (alone, best) for run in runs if run.method == row[0].method]


def score_fully(name: str, arguments: argparse.Namespace) -> int:
    """Score the rows of `edge_rows` with all thresholds; their records get a folder of their own."""
    runs = edge_rows(name, arguments)
    if not runs:
        seeds = " ".join(map(str, arguments.seeds))
        messages().print(f"{name}.{FULL}: no two rows have records of the seeds {seeds}; train others first.")
    for run in runs:
        file = arguments.results / "full_thresholds" / name / f"{run.name}.json"
        if file.exists():
            continue
        chosen = [
            *options(SETS[name], arguments.data),
            f"evaluation.metric_options.edge.thresholds={THRESHOLDS}",
        ]
        words = [str(run.work_dir), "--split", "val", "--json", str(file), "--cfg-options", *chosen]
        if code := call("test", [*words, "--work-dir", str(run.work_dir / "full_thresholds")]):
            return code
    return int(not runs)


def report(arguments: argparse.Namespace) -> int:
    """Table and page of what has records by now."""
    code = 0
    for name, item in SETS.items():
        folder = arguments.results / name
        if folder.is_dir():
            words = [str(folder), "--protocol", item.protocol, "--baseline", "single-task", "--sort", "gain"]
            code = call("table", words) or code
    if any((arguments.results / name).is_dir() for name in SETS):
        folders = [str(arguments.results / name) for name in SETS if (arguments.results / name).is_dir()]
        code = call("leaderboard", ["build", *folders, "--out", str(arguments.page)]) or code
    return code


def missing(parts: Sequence[str], data: Path) -> list[str]:
    """Prepared folders that the parts need and that are not there, with what makes them."""
    needed = dict.fromkeys(part.split(".")[0] for part in parts)
    return [f"{data / name} (see datasets/{name}.md)" for name in needed if not (data / name).is_dir()]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the prepared data sets")
    parser.add_argument(
        "--part",
        nargs="+",
        default=list(FIRST),
        help="data sets or parts, see --list; default: " + " ".join(FIRST),
    )
    parser.add_argument("--seeds", nargs="+", type=numeric(Seed), default=[0, 1, 2])
    parser.add_argument("--runs", type=numeric(Positive), help="train so many runs at most")
    parser.add_argument(
        "--workers", type=numeric(Positive), default=2, help="runs at once, each with its share of the cores"
    )
    parser.add_argument("--list", action="store_true", help="list the runs and their states, train nothing")
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/real"))
    parser.add_argument(
        "--results", type=Path, default=Path("results"), help="gets a folder for each data set"
    )
    parser.add_argument("--page", type=Path, default=Path("site/real"))
    arguments = parser.parse_args(argv)
    try:
        parts = wanted(arguments.part)
    except UnknownNameError as error:
        parser.error(f"--part: {error}")
    if lost := missing(parts, arguments.data):
        parser.error(f"--data: there is no {', no '.join(lost)}.")
    runs = planned(parts, arguments.seeds, arguments.data, arguments.work_dir)
    folders = [arguments.work_dir, *(arguments.results / name for name in SETS)]
    runs = look_up_states(runs, folders)
    if arguments.list:
        return _listed(runs)
    todo = [run for run in runs if run.state != FINISHED][: arguments.runs]
    code = train(todo, arguments.results, arguments.workers)
    last = {TUNED: search_weights, FULL: score_fully}
    for part in parts if arguments.runs is None else ():
        name, kind = part.split(".")
        if code == 0 and kind in last:
            code = last[kind](name, arguments)
    return code if code == 130 else report(arguments) or code


def _listed(runs: Sequence[Run]) -> int:
    counts: Mapping[str, int] = {run.state: sum(other.state == run.state for other in runs) for run in runs}
    for run in runs:
        print(f"{run.state:9}  {run.config.parent.name:9}  {run.name}")
    print(", ".join(f"{count} {state}" for state, count in counts.items()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

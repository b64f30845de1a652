"""`mtvision launch CONFIG…`: a grid of runs, and one table at its end."""

from __future__ import annotations

import argparse
import shlex
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from mtvision.cli.common import add_plugin_option, numeric, read_with
from mtvision.core.naming import look_up
from mtvision.core.values import Positive
from mtvision.recipe.check import TO_TRAIN, check_config
from mtvision.recipe.config import RunConfig
from mtvision.recipe.sections import Seed
from mtvision.recipe.settings import protocol_of
from mtvision.report.baseline import SINGLE_TASK, is_single_task, require_baseline, with_gain
from mtvision.report.comparable.gains import search_cost
from mtvision.report.record import Record
from mtvision.report.render import FORMATS
from mtvision.runtime.atomic import require_writable, write_text
from mtvision.runtime.attempts import Attempts
from mtvision.runtime.progress import messages
from mtvision.sweep.grid import (
    FINISHED,
    Run,
    discard,
    expand,
    known_records,
    look_up_states,
    parse_axes,
    record_key,
)
from mtvision.sweep.local import TRAIN, Outcome, run_locally
from mtvision.sweep.remote import commands, run_on_cluster, slurm_executor
from mtvision.sweep.summary import Board, summary
from mtvision.sweep.sums import Sums, plain_sums
from mtvision.sweep.weight_search import SearchInterruptedError, SearchPlan
from mtvision.tracking.run_id import write_grid

AGAIN = "make room, then run the same command again"

DESCRIPTION = """\
Train every config with every combination of changed values and every seed. Print mean ± standard deviation
of every row and paired differences. The same command again skips finished runs (same config, same seed) and
continues interrupted ones.

  mtvision launch configs/a.py configs/b.py --seeds 0 1 2 --workers 2
  mtvision launch configs/a.py --seeds 0 1 2 --set balancer=Uncertainty,UPGrad --set optimizer.lr=1e-3,2e-3
  mtvision launch configs/a.py --seeds 0 1 2 --set balancer=UPGrad,FAMO --search-weights 9
  mtvision launch configs/a.py --seeds 0 1 2 --slurm partition=gpu gpus_per_node=1 timeout_min=600
  mtvision launch configs/a.py --seeds 0 1 2 --print --nodes 2 --gpus 8
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mtvision launch",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("configs", nargs="+", metavar="CONFIG")
    parser.add_argument("--seeds", nargs="+", type=numeric(Seed), help="default: each config's own")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE,VALUE",
        help="an axis of the grid, part of the rows' names. Brackets and quotes hold commas together: "
        "\"tasks=['semseg'],['depth']\". `balancer=UPGrad` replaces a component by that type",
    )
    parser.add_argument(
        "--name",
        metavar="TEXT",
        help="what the rows are called, {key} standing for a value of --set, e.g. 'single-task {tasks}'; "
        "default: the config's name and all values",
    )
    parser.add_argument(
        "--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="changes to all runs, not named"
    )
    add_plugin_option(parser)
    parser.add_argument(
        "--work-dir", type=Path, default=Path("work_dirs/launch"), help="one folder per run in it"
    )
    parser.add_argument("--results", type=Path, help="folder that gets a copy of each record")
    parser.add_argument("--overwrite", action="store_true", help="train everything anew")
    parser.add_argument(
        "--baseline",
        metavar="NAME",
        help=f"compute gains and store them in --results: '{SINGLE_TASK}' for the runs of one task in this "
        "grid and in --results, or a baseline of the protocol",
    )
    parser.add_argument(
        "--reference", metavar="METHOD", help="row of the paired differences (default: the first)"
    )
    parser.add_argument(
        "--search-weights",
        type=numeric(Positive),
        metavar="N",
        help="find the weights of the plain sum by successive halving of N candidates on held-out training "
        "images. Adds the rows 'equal weights' and 'tuned weights' and a table of gains over both",
    )
    place = parser.add_mutually_exclusive_group()
    place.add_argument(
        "--slurm",
        nargs="*",
        metavar="KEY=VALUE",
        help="run on Slurm through submitit: partition=… timeout_min=… gpus_per_node=… tasks_per_node=…",
    )
    place.add_argument("--print", action="store_true", help="only print the commands of unfinished runs")
    place.add_argument("--dry-run", action="store_true", help="only list the runs and their states")
    parser.add_argument(
        "--workers", type=numeric(Positive), help="runs at once (default: 1 here, all on Slurm)"
    )
    parser.add_argument("--nodes", type=numeric(Positive), default=1, help="machines per run, for --print")
    parser.add_argument(
        "--gpus", type=numeric(Positive), default=1, help="processes per machine, for --print"
    )
    parser.add_argument("--endpoint", default="$HEAD_NODE:29500", help="where machines meet, for --print")
    parser.add_argument(
        "--train-command",
        default=shlex.join(TRAIN),
        help="what starts a run, e.g. a script of your own that calls `mtvision train`",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code.

    It is 0 if every run has a whole record and --results has all of them, 1 if not, 130 if interrupted.
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
    read_with(parser, arguments, "print", "nodes", "gpus", "endpoint")
    if arguments.search_weights is not None and (arguments.print or arguments.dry_run):
        parser.error("--search-weights trains before the grid is known: leave --print and --dry-run out.")
    console = messages()
    runs = expand(
        arguments.configs,
        seeds=arguments.seeds,
        axes=parse_axes(arguments.set),
        work_dir=arguments.work_dir,
        options=arguments.cfg_options,
        plugins=arguments.plugin,
        name=arguments.name,
        check=_check_of(arguments),
    )
    try:
        sums = _sums(arguments, console)
    except SearchInterruptedError as error:
        console.print(str(error), markup=False)
        return 130
    runs += [run for item in sums for run in item.runs]
    if arguments.reference is not None:  # a mistake here should not come up after days of training
        look_up("method to compare with", arguments.reference, {run.method: run for run in runs})
    folders = [arguments.work_dir, *([arguments.results] if arguments.results else [])]
    runs = look_up_states(runs, folders, overwrite=arguments.overwrite)
    todo = [run for run in runs if run.state != FINISHED]
    if not (arguments.dry_run or arguments.print):
        for folder in folders:
            require_writable(folder)
        write_grid(arguments.work_dir, arguments.work_dir.name)
    if arguments.print:
        print(
            "\n".join(commands(todo, nodes=arguments.nodes, gpus=arguments.gpus, endpoint=arguments.endpoint))
        )
        return 0
    resumed = sum(run.state == "resumable" for run in todo)
    console.print(
        f"{len(runs)} runs: {len(runs) - len(todo)} finished, {len(todo)} to train "
        f"({resumed} from a checkpoint)."
    )
    if arguments.dry_run:
        for run in runs:
            print(f"  {run.state:<9} {run.name}")
        return 0
    outcomes = _train(todo, arguments, console, arguments.results)
    done = {outcome.run.name: outcome.record for outcome in outcomes if outcome.record is not None}
    records = [record for run in runs if (record := done.get(run.name, run.record)) is not None]
    for item in sums:
        records = [item.costed(record) for record in records]
    kept = Attempts()
    kept.run("records in --results", lambda: _keep(runs, records, arguments), AGAIN)
    _summarise(runs, records, arguments, console, kept, sums)
    return _report_failures(outcomes, console) or int(bool(kept.lines))


def _check_of(arguments: argparse.Namespace) -> Callable[[RunConfig], object]:
    """The check of a config before its run; a command of somebody's own may know more than the suite."""
    own = arguments.train_command != shlex.join(TRAIN)

    def check(config: RunConfig) -> None:
        if not own:
            check_config(config, TO_TRAIN)
        if arguments.baseline is not None:
            require_baseline([protocol_of(config).id], arguments.baseline)

    return check


def _sums(arguments: argparse.Namespace, console: Console) -> list[Sums]:
    """Rows of plain sums, after the search for their weights; none without `--search-weights`."""
    if arguments.search_weights is None:
        return []
    return plain_sums(
        arguments.configs,
        SearchPlan(candidates=arguments.search_weights),
        seeds=arguments.seeds,
        work_dir=arguments.work_dir,
        train=lambda runs: _train(runs, arguments, console, results=None),
        options=arguments.cfg_options,
        plugins=arguments.plugin,
        check=_check_of(arguments),
        say=lambda text: console.print(text, markup=False, soft_wrap=True),
        overwrite=arguments.overwrite,
    )


def _train(
    todo: Sequence[Run], arguments: argparse.Namespace, console: Console, results: Path | None
) -> list[Outcome]:
    command = shlex.split(arguments.train_command)
    if not command or (arguments.slurm is None and shutil.which(command[0]) is None):
        raise ValueError(
            f"--train-command: {arguments.train_command!r} does not begin with a program of this machine. "
            f"Give its path, or a command such as {shlex.join(TRAIN)!r}."
        )
    if arguments.overwrite:
        for run in todo:
            discard(run)
    if not todo:
        return []
    with Board(todo, console, results) as board:
        if arguments.slurm is None:
            return run_locally(
                todo,
                workers=1 if arguments.workers is None else arguments.workers,
                command=command,
                watcher=board,
            )
        executor = slurm_executor(arguments.work_dir / "slurm", arguments.slurm, workers=arguments.workers)
        several = any(setting.startswith(("nodes=", "tasks_per_node=")) for setting in arguments.slurm)
        return run_on_cluster(todo, executor, command=command, several_tasks=several, watcher=board)


def _keep(runs: Sequence[Run], records: Sequence[Record], arguments: argparse.Namespace) -> None:
    """Copies of records that were found elsewhere join the results; those of tuned sums get their cost."""
    if arguments.results is None:
        return
    by_key = {record_key(record): record for record in records}
    there = known_records([arguments.results])  # under any file name
    for run in runs:
        key, file = (run.fingerprint, run.seed), arguments.results / f"{run.name}.json"
        new, old = by_key.get(key), there.get(key)
        if new is None:
            continue
        if (
            old is None
            or (new.whole and not old.whole)
            or (file.is_file() and search_cost(new) not in (None, search_cost(old)))
        ):
            new.save(file)


def _summarise(
    runs: Sequence[Run],
    records: Sequence[Record],
    arguments: argparse.Namespace,
    console: Console,
    kept: Attempts,
    sums: Sequence[Sums],
) -> None:
    """Store gains, print the summary, write it to the work dir; say which rows have no gain and why."""
    if not records:
        return
    baseline, shown = arguments.baseline, list(records)
    if baseline == SINGLE_TASK and arguments.results:  # single-task runs of earlier grids count too
        shown = _with_single_task_runs(shown, arguments.results)
    problems: list[str] = []
    if baseline:
        gains = with_gain(shown, baseline, problems)
        kept.run("gains in --results", lambda: _store_gains(runs, gains, arguments.results), AGAIN)
    options = {"reference": arguments.reference, "baseline": baseline}
    grids = [grid for item in sums if (grid := item.grid(runs, records)) is not None]

    def text(format: str) -> str:  # noqa: A002  the word users type
        return "\n\n".join(
            [summary(shown, format=format, **options), *(FORMATS[format](grid) for grid in grids)]
        )

    print(f"\n{text('terminal')}\n", flush=True)
    file, markdown = arguments.work_dir / "summary.md", text("markdown")
    Attempts().run(file.name, lambda: write_text(file, markdown + "\n"), AGAIN)
    for problem in problems:
        console.print(f"no gain: {problem}", markup=False, soft_wrap=True)


def _with_single_task_runs(records: Sequence[Record], results: Path) -> list[Record]:
    known = {record_key(record) for record in records}
    protocols = {record.protocol for record in records}
    others = [
        record
        for record in known_records([results]).values()
        if is_single_task(record) and record.protocol in protocols and record_key(record) not in known
    ]
    return [*records, *others]


def _store_gains(runs: Sequence[Run], gains: Sequence[Record], results: Path | None) -> None:
    if results is None:
        return
    names = {(run.fingerprint, run.seed): run.name for run in runs}
    for record in gains:
        key = record_key(record)
        name = None if key is None else names.get(key)
        if name is not None and record.gain is not None:
            record.save(results / f"{name}.json")


def _report_failures(outcomes: Sequence[Outcome], console: Console) -> int:
    failed = [outcome for outcome in outcomes if outcome.problem]
    if not failed:
        return 0
    console.print(
        f"{len(failed)} of {len(outcomes)} runs have no whole record; run the same command to continue:"
    )
    for outcome in failed:
        line = f"  {outcome.run.name}: {outcome.problem}\n    log: {outcome.run.log}"
        console.print(line, markup=False, soft_wrap=True)
    return 130 if all(outcome.interrupted for outcome in failed) else 1

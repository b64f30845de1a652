"""Terminal output of a grid: progress while it runs, and one summary at the end."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import TaskID

from mtvision.report.baseline import SINGLE_TASK, fold_single_task, with_gain
from mtvision.report.comparable.key import group_records
from mtvision.report.display import display_of
from mtvision.report.paired import paired_grids
from mtvision.report.record import Record
from mtvision.report.render import FORMATS
from mtvision.report.table import build_grid, group_seeds
from mtvision.runtime.attempts import Attempts
from mtvision.runtime.progress import bars
from mtvision.sweep.grid import Run
from mtvision.sweep.local import Outcome, Watcher


class Board(Watcher):
    """Bars on a terminal, one for all iterations and one per run at work; lines anywhere else.

    Args:
        runs: that will be trained.
        console: where to draw, see `mtvision.runtime.progress.messages`.
        results: receives a copy of each record as soon as its run has ended, or None; may depend on the run.
    """

    def __init__(
        self, runs: Sequence[Run], console: Console, results: Path | Callable[[Run], Path] | None = None
    ) -> None:
        self._results = results
        self._total, self._done, self._iterations = len(runs), 0, 0
        self._bars: dict[str, TaskID] = {}
        self._progress = bars(console)
        self._all = self._progress.add_task("[bold]all", total=sum(run.iterations for run in runs))

    def __enter__(self) -> Board:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def started(self, run: Run) -> None:
        """Announce a run and open its bar."""
        self._bars[run.name] = self._progress.add_task(run.name, total=run.iterations)
        self._say(f"started  {run.name}" + (" (goes on)" if run.state == "resumable" else ""))

    def running(self, runs: Sequence[Run]) -> None:
        """Move the bars to what the runs have written."""
        if self._progress.disable:
            return
        steps = {run.name: last_step(run.work_dir / "losses.jsonl") for run in runs}
        for name, step in steps.items():
            self._progress.update(self._bars[name], completed=step)
        self._progress.update(self._all, completed=self._iterations + sum(steps.values()))

    def ended(self, outcome: Outcome) -> None:
        """Close the bar, copy the record, say how it ended."""
        run = outcome.run
        self._done += 1
        self._iterations += run.iterations
        if run.name in self._bars:
            self._progress.remove_task(self._bars.pop(run.name))
        if outcome.record is None:
            self._say(f"failed   {run.name}: {outcome.problem}")
            return
        if self._results is not None:  # a full disk there must not end the runs that are still at work
            folder = self._results if isinstance(self._results, Path) else self._results(run)
            save = partial(outcome.record.save, folder / f"{run.name}.json")
            Attempts().run(f"{run.name} in --results", save, f"the record is in {run.work_dir}")
        self._say(f"finished {run.name}  {headlines(outcome.record)}")
        if outcome.problem:
            self._say(f"but      {run.name}: {outcome.problem}")

    def _say(self, text: str) -> None:
        self._progress.console.print(f"[{self._done}/{self._total}] {text}", markup=False, soft_wrap=True)


def last_step(losses: Path) -> int:
    """The last iteration in a `losses.jsonl`; 0 if there is none yet."""
    try:
        with losses.open("rb") as file:
            file.seek(max(0, losses.stat().st_size - 8192))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return 0
    for line in reversed(lines):
        try:
            return int(json.loads(line)["iter"])
        except (ValueError, KeyError, TypeError):
            continue
    return 0


def headlines(record: Record) -> str:
    """The headline scores in one line."""
    parts = []
    for entry in record.tasks:
        shown = display_of(entry, entry["headline"])
        value = record.scores.get(entry["name"], {}).get(entry["headline"])
        parts.append(f"{entry['name']} {shown.title} {shown.text(value)}")
    return "  ".join(parts)


def summary(
    records: Sequence[Record],
    *,
    reference: str | None = None,
    baseline: str | None = None,
    format: str = "terminal",  # noqa: A002  the word users type
) -> str:
    """Mean ± standard deviation of every row, and paired differences over seeds; one block per protocol.

    Records that do not compare are parted within the block, and differences are taken within a group only.

    Args:
        records: of all finished runs.
        reference: method that the others are compared with; None = the first row with several tasks.
        baseline: of the gain, see `mtvision.report.baseline.with_gain`; None = as recorded.
        format: a table format.
    """
    texts = []
    for protocol in dict.fromkeys(record.protocol for record in records):
        chosen = [record for record in records if record.protocol == protocol]
        chosen = with_gain(chosen, baseline, []) if baseline else chosen
        chosen = fold_single_task(chosen) if baseline == SINGLE_TASK else chosen
        texts.append(FORMATS[format](build_grid(chosen)))
        for group in group_records(chosen):
            rows = [row for row in group_seeds(group.records) if reference in (None, row[0].method)]
            first = max(rows, key=lambda row: len(row[0].tasks), default=None)
            several = {record.method for record in group.records}
            if first is not None and len(several) > 1 and len(first) > 1:
                texts += [FORMATS[format](grid) for grid in paired_grids(group.records, first[0].method)]
    return "\n\n".join(texts)

"""`kill -9` at random moments of tiny runs; the same command ends with what an undisturbed run has.

PYTHONPATH=.:tests/support python -m kills --kills 100
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import discs
import torch
import warm
from several_processes import SUPPORT, TOOL, variables

from mtvision.runtime.checkpoint import load_checkpoint
from mtvision.runtime.lock import Holder
from mtvision.runtime.whole import checkpoints_of

STEPS = 8
TRAINING = ("training.iterations=8", "training.checkpoint_interval=2", "training.val_interval=4")
PER_RUN = 5
"""Most kills of one run."""
ENDS_WITHIN = 60.0
"""Seconds in which the other ranks must end when one was killed."""
AT_START = 0.2
"""Part of the kills while the data and the network are built: that takes most of the time of a tiny run."""
AFTER = "after the last step"
TIMES = {"seconds_per_iteration"}

SLIMMABLE = (
    discs.CONFIG.replace('head=dict(type="ConvHead"),', 'head=dict(type="ConvHead"), adapters=[ADAPTER],')
    .replace("ADAPTER", 'dict(type="Slimmable")')
    .replace('type="DropoutNet"', 'type="DropoutNet", width=16, norm="group"')
    .replace("width=8)", 'width=16, norm="group")')
)
SLIMMABLE += 'step = dict(type="SandwichStep", encoder=[0.5, 0.75, 1.0], decoders=[0.5, 1.0], stages=3)\n'
MAMBA = discs.CONFIG.replace(
    'type="ParallelDecoder", width=8', 'type="MTMambaDecoder", widths=(8, 8), num_blocks=1, states=2'
)


@dataclass(frozen=True)
class Case:
    """A run to be killed.

    Args:
        text: of the config.
        options: `KEY=VALUE` besides those of all cases.
        ranks: processes.
    """

    text: str = discs.CONFIG
    options: tuple[str, ...] = ()
    ranks: int = 1


CASES = {
    "parallel, FixedWeights": Case(),
    "two ranks": Case(ranks=2),
    "bf16, EMA, accumulation": Case(
        options=("training.precision=bf16", "training.ema=0.1", "training.micro_batches=2")
    ),
    "MTMamba, Uncertainty": Case(MAMBA, ("balancer.type=Uncertainty",)),
    "UPGrad": Case(options=("balancer.type=UPGrad",)),
    "slimmable": Case(SLIMMABLE),
}


def kills_of(case: str, total: int) -> int:
    """The part of all kills that a case gets."""
    return total // len(CASES) + (list(CASES).index(case) < total % len(CASES))


@dataclass
class Seconds:
    """How long the parts of a run take.

    Args:
        start: until it trains.
        training: from then on to the last checkpoint.
        scoring: of the last checkpoint.
        pace: of the machine now; runs that end before their moment were faster than was thought.
    """

    start: float
    training: float
    scoring: float
    pace: float = 1.0

    def left(self, folder: Path) -> float:
        """From the time on at which a run trains that continues from what is in its folder."""
        done = max(checkpoints_of(folder), default=0)
        return self.pace * (self.training * (1 - done / STEPS) + self.scoring)


class Runs:
    """Starts the command of a case in a folder.

    Args:
        case: of `CASES`.
        folder: receives the config, runs and what they say.
    """

    def __init__(self, case: str, folder: Path) -> None:
        self.case, self.folder = CASES[case], folder
        self.config = discs.write_config(folder, self.case.text)
        self.said = [folder / "out", folder / "err"]

    def start(self, name: str) -> list[BaseProcess]:
        """All ranks of one attempt; the command is the same for every attempt."""
        words = [TOOL, "train", self.config, "--work-dir", self.folder / name, "--resume"]
        options = ["--cfg-options", *TRAINING, *self.case.options]
        known = {"variables": variables(dropout=True), "path": [SUPPORT], "processes": self.case.ranks}
        return warm.start([*words, *options], self.said, **known)

    def finish(self, name: str) -> Seconds:
        """One attempt to its end.

        Raises:
            AssertionError: it failed; with what it said.
        """
        before, begin = _attempts(self.folder / name), time.monotonic()
        ranks = self.start(name)
        while ranks[0].exitcode is None and _attempts(self.folder / name) == before:
            ranks[0].join(0.01)
        trains = time.monotonic()
        while ranks[0].exitcode is None and _moment(self.folder / name) != AFTER:
            ranks[0].join(0.01)
        scores = time.monotonic()
        _end(ranks, 300)
        codes = [rank.exitcode for rank in ranks]
        assert codes == [0] * len(ranks), f"{name}: exit codes {codes}\n{self.said[1].read_text()[-3000:]}"
        return Seconds(trains - begin, scores - trains, time.monotonic() - scores)


def _end(ranks: Sequence[BaseProcess], seconds: float) -> bool:
    """Wait for all; whether they ended by themselves."""
    limit = time.monotonic() + seconds
    for rank in ranks:
        rank.join(max(0.0, limit - time.monotonic()))
    alive = [rank for rank in ranks if rank.exitcode is None]
    for rank in alive:
        rank.kill()
        rank.join()
    return not alive


def _moment(folder: Path) -> str:
    """What a run was doing, from what is in its folder."""
    if (folder / f"iter_{STEPS}.pth").exists():
        return AFTER
    return "in training" if (folder / "losses.jsonl").exists() else "before the first step"


def _met(folder: Path, ranks: Sequence[BaseProcess]) -> bool:
    """Whether the ranks are in one group: until then only a launcher can end those that wait."""
    holder = Holder.of(folder)
    return holder is not None and holder.pid == ranks[0].pid


def _attempts(folder: Path) -> int:
    """How many attempts have begun to train."""
    return len(list((folder / "attempts").glob("*.json")))


def killed(runs: Runs, name: str, kills: int, seconds: Seconds, draw: random.Random) -> list[str]:
    """Kill a run up to so many times, or until a kill comes after its last step; then let it end.

    Args:
        runs: starts it.
        name: of its folder.
        kills: most.
        seconds: of an undisturbed run. Moments are drawn evenly from its start, and from what is left of it.
        draw: of moments and victims.

    Returns:
        The moments of the kills: a run that ended before its moment was not killed.

    Raises:
        AssertionError: an attempt failed, or ranks waited for a killed one.
    """
    moments: list[str] = []
    while len(moments) < kills and moments[-1:] != [AFTER]:  # what is left then is scoring alone
        before, left = _attempts(runs.folder / name), seconds.left(runs.folder / name)
        ranks = runs.start(name)
        if draw.random() < AT_START:
            ranks[0].join(draw.uniform(0, seconds.start))
        else:
            while ranks[0].exitcode is None and _attempts(runs.folder / name) == before:
                ranks[0].join(0.01)
            ranks[0].join(draw.uniform(0, left))
        victims = ranks if draw.random() < 0.5 else [draw.choice(ranks)]
        struck = [rank.pid for rank in victims if rank.exitcode is None and rank.pid is not None]
        for pid in struck:
            os.kill(pid, signal.SIGKILL)
        alone = _end(ranks, ENDS_WITHIN if _met(runs.folder / name, ranks) else 0)
        assert alone or not _met(runs.folder / name, ranks), f"{name}: a rank waits for one that was killed"
        if not any(rank.exitcode == -signal.SIGKILL for rank in ranks):
            codes = [rank.exitcode for rank in ranks]
            assert not any(codes), f"{name}: exit codes {codes}\n{runs.said[1].read_text()[-3000:]}"
            seconds.pace *= 0.8
            return moments
        moments.append(_moment(runs.folder / name))
    runs.finish(name)
    return moments


def differences(cut: Path, whole: Path) -> list[str]:
    """What a killed run has that differs from the undisturbed one, to the last bit; empty = nothing."""
    found = [f"{name} differs" for name in ("losses.jsonl", "validations.jsonl") if _text(cut, name, whole)]
    if _reports(cut) != _reports(whole):
        found.append("metrics.jsonl differs")
    steps = [json.loads(line)["iter"] for line in (cut / "losses.jsonl").read_text().splitlines()]
    if steps != list(range(1, STEPS + 1)):
        found.append(f"losses.jsonl has the steps {steps}")
    contents = [load_checkpoint(folder / f"iter_{STEPS}.pth") for folder in (cut, whole)]
    parts = sorted((contents[0].keys() | contents[1].keys()) - {"meta"})
    sick = [part for part in parts if not _equal(contents[0].get(part), contents[1].get(part))]
    found += [f"{part} of the last checkpoint differs" for part in sick]
    one, other = (json.loads((folder / "record.json").read_text()) for folder in (cut, whole))
    fields = [field for field in ("scores", "missing") if one[field] != other[field]]
    found += [f"{field} differ: {one[field]}, expected {other[field]}" for field in fields]
    names = [_names(folder) for folder in (cut, whole)]
    if names[0] != names[1]:
        found.append(f"files that one of both has: {sorted(names[0] ^ names[1])}")
    return found


def _text(cut: Path, name: str, whole: Path) -> bool:
    return (cut / name).read_text() != (whole / name).read_text()


def _reports(folder: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]


def _names(folder: Path) -> set[str]:
    """All files, without the books: every attempt has its own."""
    paths = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    return {path.as_posix() for path in paths if path.parts[0] != "attempts" or ".part" in path.name}


def _equal(one: Any, other: Any) -> bool:
    """Of nested containers of tensors and numbers; NaN equals NaN."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one.nan_to_num(), other.nan_to_num())
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(_equal(*pair) for pair in zip(one, other, strict=True))
    return bool(one == other)


def battery(case: str, kills: int, folder: Path, seed: int = 0) -> str:
    """Kill runs of a case until so many kills were made; every run must end as if nothing had happened.

    Returns:
        One line: how many runs and kills, and when.

    Raises:
        AssertionError: a run differs, or failed.
    """
    runs, draw = Runs(case, folder), random.Random(f"{seed} {case}")
    runs.finish("warm")  # loads what is loaded once, e.g. the compiled kernel
    seconds = runs.finish("whole")
    assert not differences(folder / "warm", folder / "whole"), "two undisturbed runs differ"
    moments: Counter[str] = Counter()
    number = 0
    while moments.total() < kills:
        number += 1
        name = f"run{number}"
        new = killed(runs, name, min(PER_RUN, kills - moments.total()), seconds, draw)
        found = differences(folder / name, folder / "whole")
        assert not found, f"{case}, {name}, killed {', '.join(new)}: {'; '.join(found)}"
        moments.update(new)
    when = ", ".join(f"{moments[name]} {name}" for name in sorted(moments))
    return f"{case}: {moments.total()} kills of {number} runs ({when}), all as undisturbed"


def main() -> None:
    """All cases, one line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=CASES, default=None)
    given = parser.parse_args()
    for case in [given.only] if given.only else CASES:
        with TemporaryDirectory() as folder:
            begin = time.monotonic()
            line = battery(case, kills_of(case, given.kills), Path(folder), given.seed)
            print(f"{line}; {time.monotonic() - begin:.0f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())

"""`mtvision compare-runs REV_A REV_B [CONFIG…]`: whether two revisions train alike, bit for bit."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from mtvision.cli.common import STDOUT, numeric, spare_inputs, write_json
from mtvision.cli.run_differences import Comparison, compare_folders
from mtvision.core.naming import UnknownNameError
from mtvision.core.values import Positive
from mtvision.recipe.config import load_config
from mtvision.recipe.sections import Seed
from mtvision.runtime.atomic import write_text

DESCRIPTION = """\
Train the same configs for a few steps with two revisions of the code. Report whether every loss and every
score is identical to the last bit, or the first difference. Use it to check a change that claims to change no
number.

  python tools/compare_runs.py main .                      every default config, the working tree against main
  python tools/compare_runs.py main~5 main configs/a.py    one config
  python tools/compare_runs.py main . configs/old.py=configs/new.py    a config that was renamed
  python tools/compare_runs.py main . --keep work_dirs/compare         call it again to continue

A revision is anything that git can check out, or `.` for the working tree. Runs use one thread and no GPU,
so that sums are taken in one order. A config's header names the command that is run (train.py or search.py).
The exit code is 0 if everything is identical, 1 if not, 2 for wrong arguments.
"""

DEFAULT_CONFIGS = (
    "configs/*/*_tiny_synthetic_*.py",
    "configs/slimmable/slimmable_*.py",
    "configs/branching/*_synthetic_*.py",
)
"""Configs compared when none is named: those that train on rendered images and a CPU."""

TEST_IMAGES, EPOCHS = 10, 3
"""Test images, and passes over the training images, of data sets whose config states their `length`."""

CODE_FOLDERS = ("mtvision", "tools", "configs")
WORKING_TREE = "."
DONE_FILE, LOG_FILE = "done.json", "log.txt"
COMMAND = re.compile(r"tools/(train|search)\.py +configs/\S+\.py([^\n]*)")
"""The command in a config's header, and its arguments after the config."""


@dataclass(frozen=True)
class Pair:
    """One config, which may have another path at either revision.

    Args:
        a: path at the first revision, relative to the repository.
        b: path at the second revision.
    """

    a: str
    b: str

    @property
    def name(self) -> str:
        """For reports."""
        return self.a if self.a == self.b else f"{self.a}={self.b}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = _parser().parse_args(argv)
    spare_inputs("--json", arguments.json, (name for pair in arguments.configs for name in pair.split("=")))
    repository = Path(_git(Path.cwd(), "rev-parse", "--show-toplevel"))
    results = []
    shown = sys.stderr if arguments.json == STDOUT else sys.stdout
    with tempfile.TemporaryDirectory(prefix="compare_runs_") as folder:
        scratch = Path(folder)
        runs = arguments.keep.resolve() if arguments.keep else scratch / "runs"
        with (
            checkout(repository, arguments.rev_a, scratch / "a") as a,
            checkout(repository, arguments.rev_b, scratch / "b") as b,
        ):
            keys = _key(a), _key(b)
            again = "_again" if keys[0] == keys[1] else ""  # the same code must be run twice, too
            sides = {"a": (a, runs / keys[0]), "b": (b, runs / f"{keys[1]}{again}")}
            for pair in pairs_of(arguments.configs, a, b):
                result = _compare(pair, sides, arguments)
                print(result, flush=True, file=shown)
                results.append(result)
    data = {"a": arguments.rev_a, "b": arguments.rev_b, "iterations": arguments.iterations}
    entries = [{**asdict(item), "identical": item.identical} for item in results]
    write_json(arguments.json, {**data, "configs": entries})
    same = sum(item.identical for item in results)
    print(
        f"{same} of {len(results)} configs identical ({arguments.rev_a} against {arguments.rev_b})",
        file=shown,
    )
    return 0 if same == len(results) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mtvision compare-runs",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("rev_a", metavar="REV_A", help="a revision, or . for the working tree")
    parser.add_argument("rev_b", metavar="REV_B")
    parser.add_argument(
        "configs", nargs="*", metavar="CONFIG", help="path, or OLD=NEW; default: " + " ".join(DEFAULT_CONFIGS)
    )
    parser.add_argument(
        "--iterations", type=numeric(Positive), default=20, metavar="N", help="steps (default 20)"
    )
    parser.add_argument("--seed", type=numeric(Seed), default=0)
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the result as JSON; - prints only JSON"
    )
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="keep the runs; a later call repeats only what is missing"
    )
    parser.add_argument(
        "--workers", type=numeric(Positive), default=1, choices=(1, 2), help="2: both revisions at once"
    )
    for side, text in (("", "both revisions"), ("-a", "REV_A only"), ("-b", "REV_B only")):
        parser.add_argument(
            f"--cfg-options{side}", nargs="+", default=[], metavar="KEY=VALUE", help=f"changes for {text}"
        )
    return parser


def pairs_of(named: Sequence[str], a: Path, b: Path) -> list[Pair]:
    """The configs to compare, by default all that either checkout has.

    Raises:
        ValueError: neither checkout has a config.
    """
    if not named:
        named = sorted(
            {
                str(path.relative_to(root))
                for root in (a, b)
                for pattern in DEFAULT_CONFIGS
                for path in root.glob(pattern)
            }
        )
    pairs = []
    for entry in named:
        old, _, new = entry.partition("=")
        pair = Pair(os.path.normpath(old), os.path.normpath(new or old))
        if not (a / pair.a).is_file() and not (b / pair.b).is_file():
            raise ValueError(
                f"config {entry}: neither revision has it; paths are relative to the repository."
            )
        pairs.append(pair)
    return pairs


@contextmanager
def checkout(repository: Path, revision: str, target: Path) -> Iterator[Path]:
    """A folder with the files of a revision, in `target`, for the time of the block.

    A revision becomes a git worktree. The working tree (`.`) is copied, without what git ignores, so that
    edits and caches cannot change a comparison that is under way.

    Raises:
        ValueError: git has no such revision.
    """
    if revision == WORKING_TREE:
        for name in _files(repository):
            if (repository / name).is_file():  # deleted files are listed too
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(repository / name, target / name)
        yield target
        return
    commit = _git(repository, "rev-parse", "--verify", f"{revision}^{{commit}}")
    _git(repository, "worktree", "add", "--detach", str(target), commit)
    try:
        yield target
    finally:
        _git(repository, "worktree", "remove", "--force", str(target))


def _key(folder: Path) -> str:
    """Name of the code of a checkout: the hash of its files. Changes of other files do not repeat runs."""
    digest = hashlib.sha256()
    files = (path for name in CODE_FOLDERS for path in (folder / name).rglob("*") if path.is_file())
    for path in sorted(files):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(folder).as_posix()}\0{content}\n".encode())
    return digest.hexdigest()[:12]


def _files(repository: Path) -> list[str]:
    names = _git(repository, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    return [name for name in names.split("\0") if name]


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"git {shlex.join(arguments)} in {folder}: {done.stderr.strip()}")
    return done.stdout.strip()


def _compare(pair: Pair, sides: Mapping[str, tuple[Path, Path]], arguments: argparse.Namespace) -> Comparison:
    """Run one config at both revisions, unless that was done before, and compare."""
    paths = {"a": pair.a, "b": pair.b}
    steps = arguments.iterations
    limits = set.intersection(*({*_limits(root / paths[side], steps)} for side, (root, _) in sides.items()))
    common = [f"seed={arguments.seed}", f"training.iterations={steps}", *sorted(limits)]
    jobs = {}
    for side, (root, runs) in sides.items():
        own = [*common, *arguments.cfg_options, *getattr(arguments, f"cfg_options_{side}")]
        folder = runs / Path(paths[side]).with_suffix("") / hashlib.sha256(repr(own).encode()).hexdigest()[:8]
        jobs[side] = (root, paths[side], folder, own)
    with ThreadPoolExecutor(arguments.workers) as pool:
        outcomes = dict(zip(jobs, pool.map(lambda job: run_config(*job), jobs.values()), strict=True))
    problems = {side: text for side, text in outcomes.items() if text}
    return compare_folders(pair.name, jobs["a"][2], jobs["b"][2], problems)


def _limits(config: Path, iterations: int) -> list[str]:
    """Options that make a run short without leaving out a kind of number."""
    options = ["training.checkpoint_interval=0", "evaluation.pictures=0", "evaluation.constant_predictor=0"]
    try:
        loaded = load_config(config)
    except (OSError, UnknownNameError, ValueError):
        return options  # the run itself says what is wrong
    train_data = loaded["train_data"] or {}
    train_images = max(1, iterations * train_data.get("batch_size", 1) // EPOCHS)
    sizes = {"train_data": train_images, "val_data": TEST_IMAGES, "test_data": TEST_IMAGES}
    for section, size in sizes.items():
        dataset = (loaded[section] or {}).get("dataset", {})
        if dataset.get("length", 0) > size:
            options.append(f"{section}.dataset.length={size}")
    return options


def run_config(root: Path, config: str, folder: Path, options: Sequence[str]) -> str:
    """Run a config with the code of a checkout; returns why it failed, or an empty text.

    Args:
        root: of the checkout.
        config: path relative to it.
        folder: receives the run. A run that ended there before is not repeated.
        options: `--cfg-options`.
    """
    if (folder / DONE_FILE).is_file():
        return ""
    if not (root / config).is_file():
        return f"there is no {config}"
    header = re.sub(r"\\\n\s*", "", (root / config).read_text(encoding="utf-8").split('"""')[1])
    found = COMMAND.search(header)
    tool, rest = found.groups() if found else ("train", "")
    command = [sys.executable, f"tools/{tool}.py", config, *shlex.split(rest, comments=True)]
    command += ["--work-dir", str(folder), "--overwrite", "--cfg-options", *options]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    environment = {**os.environ, **threads, "PYTHONPATH": str(root), "CUDA_VISIBLE_DEVICES": ""}
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOG_FILE).open("wb") as log:
        code = subprocess.run(command, cwd=root, env=environment, stdout=log, stderr=log).returncode
    if code:
        lines = (folder / LOG_FILE).read_text(encoding="utf-8", errors="replace").strip().splitlines()
        told = [line for line in lines if line.startswith("mtvision ")] or lines[-1:]
        return f"exit code {code}: {' '.join(told) or 'no output'}"
    for checkpoint in folder.rglob("*.pth"):
        checkpoint.unlink()  # of no use here, and large
    write_text(folder / DONE_FILE, json.dumps({"command": command[1:]}, indent=2) + "\n")
    return ""

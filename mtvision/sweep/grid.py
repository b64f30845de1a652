"""Grids of runs: every config with every combination of changed values and every seed."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mtvision.core.naming import look_up, within
from mtvision.recipe.config import RunConfig, load_config, parse_option
from mtvision.recipe.differences import fingerprint
from mtvision.recipe.plugins import resolve_plugin
from mtvision.report.record import Record, RecordError, json_files
from mtvision.tracking.run_id import RUN_ID_FILE

FINISHED, RESUMABLE, NEW = "finished", "resumable", "new"
LOG_FILE = "launch.log"
_LEFT = (
    *("config.py", "record.json", "*.jsonl", "iter_*.pth", "checkpoints.json", "attempts/*", "train.log"),
    *("selection.json", RUN_ID_FILE, LOG_FILE),
)
"""What `discard` deletes."""

_OPEN, _CLOSE = "([{", ")]}"


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of a grid.

    Args:
        name: of its folder and its record: config, changed values, seed.
        method: of its row in tables.
        config: the config file.
        options: `--cfg-options` that make the run out of the config, without the seed.
        seed: of the run.
        fingerprint: of the completed config, see `fingerprint`.
        iterations: how long it trains.
        work_dir: where it is trained.
        plugins: `--plugin` of the command line, as the run's process needs them.
        record: of an earlier run with this config and seed, or None.
        state: `FINISHED` (there is a whole record), `RESUMABLE` (there is a checkpoint) or `NEW`.
    """

    name: str
    method: str
    config: Path
    options: tuple[str, ...]
    seed: int
    fingerprint: str
    iterations: int
    work_dir: Path
    plugins: tuple[str, ...] = ()
    record: Record | None = field(default=None, compare=False)
    state: str = NEW

    @property
    def arguments(self) -> list[str]:
        """Arguments of `mtvision train`, whatever is there: it starts, continues, or is done."""
        words = [str(self.config), "--work-dir", str(self.work_dir), "--seed", str(self.seed)]
        words.append("--resume")
        words += [word for name in self.plugins for word in ("--plugin", name)]
        return words + (["--cfg-options", *self.options] if self.options else [])

    @property
    def log(self) -> Path:
        """Everything that the run printed."""
        return self.work_dir / LOG_FILE

    @property
    def lock(self) -> Path:
        """Locked as long as a process trains the run."""
        return self.work_dir / ".lock"


def split_values(text: str) -> list[str]:
    """The values between commas, of which those inside brackets and quotes separate nothing.

    >>> split_values("1e-3,2e-3"), split_values("['a', 'b'],['c']"), split_values("{'type': 'A', 'b': 1}")
    (['1e-3', '2e-3'], ["['a', 'b']", "['c']"], ["{'type': 'A', 'b': 1}"])
    """
    values, depth, quote, start = [], 0, "", 0
    for position, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter in _OPEN:
            depth += 1
        elif letter in _CLOSE:
            depth -= 1
        elif letter == "," and depth == 0:
            values.append(text[start:position])
            start = position + 1
    if quote or depth:
        raise ValueError(f"--set: {text!r} has an open quote or bracket.")
    return [value.strip() for value in (*values, text[start:])]


def parse_axes(settings: Sequence[str]) -> dict[str, list[str]]:
    """`["optimizer.lr=1e-3,2e-3"]` as `{"optimizer.lr": ["1e-3", "2e-3"]}`.

    Raises:
        ValueError: not `key=values`, an empty or repeated value, a key twice, `seed`.
    """
    axes: dict[str, list[str]] = {}
    for setting in settings:
        key, separator, text = setting.partition("=")
        values = split_values(text)
        if key == "seed":
            raise ValueError("--set: seeds are not set but given with --seeds 0 1 2.")
        if not separator or not key or not all(values):
            raise ValueError(f"--set: expected key=value,value,…, got {setting!r}.")
        meant = [parse_option(f"{key}={value}")[1] for value in values]
        if key in axes or any(a == b for a, b in itertools.combinations(meant, 2)):
            raise ValueError(f"--set: {setting!r} repeats a key or a value; give each once.")
        axes[key] = values
    return axes


def expand(
    configs: Sequence[str | Path],
    *,
    seeds: Sequence[int] | None,
    axes: Mapping[str, Sequence[str]],
    work_dir: Path,
    options: Sequence[str] = (),
    plugins: Sequence[str] = (),
    name: str | None = None,
    check: Callable[[RunConfig], object] | None = None,
) -> list[Run]:
    """All runs of the grid, configs outermost and seeds innermost; nothing on disk is looked at.

    A value of `--set` becomes part of the row's method, so that rows differ in name. A plain name set for a
    component (`balancer=UPGrad`) replaces it with that type and no arguments.

    Args:
        configs: files.
        seeds: of every row; None = the config's own.
        axes: from `parse_axes`.
        work_dir: receives one folder per run.
        options: `--cfg-options` that all runs get, without becoming part of their names.
        plugins: `--plugin` of all runs; relative paths start at the working folder.
        name: of the rows, with `{key}` where a value of `--set` belongs; by default the config's name and all
            values.
        check: called with the config of every run; raises for one that cannot be trained.

    Raises:
        FileNotFoundError, UnknownNameError, ValueError: as `load_config`.
        UnknownNameError: `name` has a key that is not set.
        ValueError: two runs would be the same, or `name` calls two rows of a config alike.
    """
    runs: list[Run] = []
    plugins = [resolve_plugin(text, Path.cwd()) for text in plugins]
    for config in map(Path, configs):
        plain, methods = load_config(config, options, plugins), list[str]()
        for values in itertools.product(*axes.values()):
            changes = dict(zip(axes, values, strict=True))
            every = [int(plain["seed"])] if seeds is None else seeds
            method = None if name is None else _named(name, changes)
            row = [_run(config, plain, options, changes, seed, work_dir, method, plugins) for seed in every]
            for run, completed in row:
                if check is not None:
                    with within(run.name):
                        check(completed)
            runs += [run for run, _ in row]
            methods.append(row[0][0].method)
        if len(set(methods)) < len(methods):
            keys = ", ".join(f"{{{key}}}" for key in axes)
            raise ValueError(
                f"--name: {name!r} calls {len(methods)} rows of {config} alike; use {keys} in it."
            )
    twice = sorted({a.name for a, b in itertools.combinations(runs, 2) if a.fingerprint == b.fingerprint})
    if twice:
        raise ValueError(f"the grid has the same run more than once: {', '.join(twice)}.")
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        again = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"several runs would share a folder: {', '.join(again)}. Rename a config file.")
    return runs


def _run(
    file: Path,
    plain: RunConfig,
    common: Sequence[str],
    changes: Mapping[str, str],
    seed: int,
    folder: Path,
    method: str | None,
    plugins: Sequence[str],
) -> tuple[Run, RunConfig]:
    """The run and its completed config."""
    changed = [f"{key}={_value(plain, key, text)}" for key, text in changes.items()]
    labels = [_label(key, text) for key, text in changes.items()]
    renamed = bool(labels) or method is not None
    method = method or ", ".join([plain["name"] or file.stem, *labels])
    options = (*common, *changed, *([f"name={method}"] if renamed else []))
    config = load_config(file, [*options, f"seed={seed}"], plugins)
    slug = "_".join([file.stem, *map(_slug, labels)])[:180]
    run_name = f"{slug}_seed{seed}"
    run = Run(
        name=run_name,
        method=method,
        config=file,
        options=options,
        seed=seed,
        fingerprint=fingerprint(config.text),
        iterations=int(config["training"]["iterations"]),
        work_dir=folder / run_name,
        plugins=tuple(plugins),
    )
    return run, config


def _named(template: str, changes: Mapping[str, str]) -> str:
    """The template with the values of `--set`; lists of names are joined with a plus sign.

    >>> _named("single-task {tasks}", {"tasks": "['depth']"})
    'single-task depth'
    """
    values = {}
    for key, text in changes.items():
        _, value = parse_option(f"{key}={text}")
        values[key] = "+".join(map(str, value)) if isinstance(value, list | tuple) else text
    return re.sub(
        r"\{([^{}]*)\}", lambda found: look_up("key of --set in --name", found[1], values), template
    )


def _value(config: Mapping[str, Any], key: str, text: str) -> str:
    """The option's value; a bare name for a component means that type."""
    node: Any = config
    for part in key.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    _, value = parse_option(f"{key}={text}")
    named = isinstance(value, str) and isinstance(node, Mapping) and "type" in node
    return repr({"type": value}) if named else text


def _label(key: str, text: str) -> str:
    """How a changed value is called in the method: names alone, others with the last part of their key."""
    *_, last = key.split(".")
    _, value = parse_option(f"{key}={text}")
    if isinstance(value, dict) and "type" in value:
        others = [f"{name}={item}" for name, item in value.items() if name != "type"]
        return " ".join([str(value["type"]), *others])
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return f"{last} {'+'.join(value)}"
    return value if isinstance(value, str) else f"{last}={text}"


def _slug(label: str) -> str:
    short = re.sub(r"[^A-Za-z0-9_.+=-]+", "-", label).strip("-")
    if re.fullmatch(r"[A-Za-z0-9_.+= -]{1,60}", label):
        return short
    return f"{short[:40]}-{hashlib.sha256(label.encode()).hexdigest()[:6]}"


def record_key(record: Record) -> tuple[str, int] | None:
    """Key of a run's record: the config's fingerprint and the seed; None if the record does not have them."""
    if record.config is None or record.seed is None:
        return None
    return fingerprint(record.config["text"]), record.seed


def look_up_states(runs: Sequence[Run], folders: Sequence[Path], *, overwrite: bool = False) -> list[Run]:
    """The runs with their states: finished if one of the folders has a record with the same config and seed.

    A run whose record lacks a part is evaluated again if its checkpoint is there, else it counts as finished.

    Args:
        runs: from `expand`.
        folders: searched for records, besides the runs' own.
        overwrite: take every run for new.

    Raises:
        FileExistsError: a run's folder holds the run of another config.
    """
    if overwrite:
        return list(runs)
    known = known_records(folders)
    result = []
    for run in runs:
        record = known.get((run.fingerprint, run.seed)) or finished_record(run)
        finished = record is not None and (record.whole or start_state(run) == NEW)
        result.append(replace(run, record=record, state=FINISHED if finished else start_state(run)))
    return result


def start_state(run: Run) -> str:
    """`RESUMABLE` if the run's folder has a checkpoint of it, else `NEW`.

    Raises:
        FileExistsError: the folder holds the run of another config.
    """
    started = run.work_dir / "config.py"
    if not started.is_file():
        return NEW
    if fingerprint(started.read_text()) != run.fingerprint:
        raise FileExistsError(
            f"{run.work_dir} holds a run of another config or seed (its config.py differs). Choose another "
            "--work-dir, or throw that run away with --overwrite."
        )
    return RESUMABLE if any(run.work_dir.glob("iter_*.pth")) else NEW


def discard(run: Run) -> None:
    """Throw away what an earlier run left in the folder."""
    for pattern in _LEFT:
        for path in run.work_dir.glob(pattern):
            path.unlink()


def finished_record(run: Run) -> Record | None:
    """The record that the run has written, if it is one of this config and seed."""
    try:
        record = Record.load(run.work_dir / "record.json")
    except (OSError, RecordError):
        return None
    return record if record_key(record) == (run.fingerprint, run.seed) else None


def known_records(folders: Sequence[Path]) -> dict[tuple[str, int], Record]:
    """{`record_key`: newest record, whole ones first} of what lies below the folders; others are skipped."""
    found: dict[tuple[str, int], Record] = {}
    for folder in folders:
        for file in json_files(folder) if folder.is_dir() else ():
            try:
                record = Record.load(file)
            except (OSError, RecordError):
                continue
            key = record_key(record)
            if key is not None:
                found[key] = max(record, found.get(key, record), key=lambda item: (item.whole, item.created))
    return found

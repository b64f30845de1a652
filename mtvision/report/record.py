"""A result with everything needed to judge and to repeat it: `record.json`.

A record is self-contained: tables and pages are made from records alone, without configs, checkpoints or the
data, also for protocols of users' own data.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from math import isfinite, isnan, nan
from pathlib import Path
from typing import Any

from mtvision.core.files.find import find_files
from mtvision.core.files.foreign import DecodeError
from mtvision.core.files.json_file import read_json
from mtvision.report.comparable.task_entry import plain
from mtvision.report.provenance import now
from mtvision.report.schema_check import SCHEMA_VERSION, record_schema, violations
from mtvision.runtime.atomic import write_text

Scores = dict[str, dict[str, float]]
"""{task: {score: value}}; NaN where nothing could be scored."""


def _to_version_2(data: dict[str, Any]) -> dict[str, Any]:
    """Digest and fingerprints are unknown; the number of scored images is that of the data's manifest."""
    parts = data.get("data")
    manifests = parts.items() if isinstance(parts, dict) else ()
    tested = [part for name, part in manifests if isinstance(part, dict) and name != "train"]
    scored = {name: tested[0].get(name) for name in ("images", "split")} if tested else None
    return {
        **data,
        "protocol_digest": None,
        "scored": None if scored is None else {**scored, "fingerprint": None, "labels": {}},
    }


MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _to_version_2}
"""{version: function from plain data of that version to the next one}. Never remove an entry."""


class RecordError(ValueError):
    """A record breaks the schema or contradicts itself.

    Args:
        source: file or description of the record.
        problems: one sentence per violation.
    """

    def __init__(self, source: str, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        lines = "".join(f"\n  {problem}" for problem in problems)
        super().__init__(f"{source}: {len(problems)} violation{'s' * (len(problems) != 1)}:{lines}")


@dataclass(frozen=True, kw_only=True)
class Record:
    """One network scored under one protocol; the fields are those of `schema/record_v2.json`.

    Args:
        protocol: id. What else must be equal to compare says `mtvision.report.comparable.key`.
        protocol_digest: `Protocol.digest()` at the time of scoring; None = unknown (a record of version 1).
        protocol_title: for headings.
        method: what is compared, e.g. `MTMamba`, `ParallelDecoder + UPGrad`.
        backbone: e.g. `swin_large_patch4_window12_384`.
        provenance: `paper` (typed from a publication) or `released` (the authors' weights, our evaluation).
            For own runs: `ours` (trained with this package) or `smoke` (a tiny run, never in a leaderboard).
        source: citation, for `paper` and `released`.
        tasks: from `mtvision.report.comparable.task_entry.describe_tasks`.
        scores: {task: {score: value}}, all digits; NaN where nothing could be scored.
        constant: the same for the best constant prediction, or None.
        leave_one_out: {task: {image: headline score of the other images}}, or None; for comparisons over
            images (`mtvision.report.comparable.ledger`).
        gain: `convention`, `percent`, `parts`, `higher_is_better`, `baseline` {`name`, `scores`}; or None.
        config: from `mtvision.report.provenance.config_entry`.
        command: what to type to repeat the run.
        code: from `mtvision.report.provenance.code_version`.
        data: {`train`, `test`: manifest of the data or None}.
        scored: from `mtvision.data.manifest.scored_data`: `images`, `split`, `fingerprint` of the images and
            `labels` {task: fingerprint}; None where it is not known, e.g. for `paper`.
        replaced: from `mtvision.core.registry.replaced_entries`: `table`, `name`, `by` of every shipped
            component that an outsider's replaced.
        plugins: from `mtvision.recipe.plugins.plugin_entries`: `name`, `version`, `sha256`, `file` of every
            module from outside that was in use.
        seed: of the run.
        world_size: processes.
        effective_batch: images per optimizer step, over all processes and micro-batches.
        precision: {`train`, `evaluation`: `fp32`, `bf16`, `fp16`}.
        training: `iterations`, `hours`, `images`, `device`, where known.
        versions: from `mtvision.report.provenance.package_versions`.
        cost: what `mtvision.report.cost.measure_cost` returns, or None.
        checkpoint: `sha256`, and `file` (name), `iteration`, `rule` where known; or None.
        notes: deviations, in words.
        missing: one line per part that could not be measured (cost, constant predictor, …), with a reason. A
            record without such lines is whole.
        failures: one line per thing that failed once the record was there: table, pictures, loggers.
        created: UTC time, ISO 8601.
    """

    protocol: str
    method: str
    backbone: str
    provenance: str
    tasks: list[dict[str, Any]]
    scores: Scores
    protocol_title: str = ""
    protocol_digest: str | None = None
    source: str = ""
    constant: Scores | None = None
    leave_one_out: Scores | None = None
    gain: dict[str, Any] | None = None
    config: dict[str, str] | None = None
    command: str = ""
    code: dict[str, Any] | None = None
    data: dict[str, Any] | None = None
    scored: dict[str, Any] | None = None
    replaced: list[dict[str, str]] = field(default_factory=list)
    plugins: list[dict[str, str | None]] = field(default_factory=list)
    seed: int | None = None
    world_size: int | None = None
    effective_batch: int | None = None
    precision: dict[str, str] | None = None
    training: dict[str, Any] | None = None
    versions: dict[str, str] | None = None
    cost: dict[str, Any] | None = None
    checkpoint: dict[str, Any] | None = None
    notes: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    created: str = field(default_factory=now)

    def to_json(self) -> dict[str, Any]:
        """Plain data with `schema` first; NaN scores become None, empty optional fields are left out."""
        data: dict[str, Any] = {"schema": SCHEMA_VERSION}
        for item in fields(self):
            value = getattr(self, item.name)
            if value is None and item.name not in _NULLABLE:
                continue
            data[item.name] = plain(value)
        for name in _SCORES:
            if data.get(name):
                data[name] = _without_nan(data[name], name)
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any], *, source: str = "record") -> Record:
        """Read plain data, of this or an older version.

        Args:
            data: what `to_json` or `json.load` gave.
            source: named in errors, e.g. the file.

        Raises:
            RecordError: it breaks the schema, contradicts itself or has an unknown version; lists all of it.
        """
        current = migrate(data, source=source)
        problems = violations(current)
        if problems:
            raise RecordError(source, problems)
        values = {key: value for key, value in current.items() if key != "schema"}
        for name in _SCORES:
            if values.get(name) is not None:
                values[name] = _with_nan(values[name])
        return cls(**values)

    def save(self, path: str | Path) -> Path:
        """Validate and write atomically: the file is the old one or the complete new one, never half of it.

        Raises:
            RecordError: the record breaks the schema; nothing is written.
        """
        target = Path(path)
        write_text(target, self.to_text(source=f"record for {target.name}"))
        return target

    def to_text(self, *, source: str = "record") -> str:
        """The content of the file, validated.

        Args:
            source: named in errors.

        Raises:
            RecordError: the record breaks the schema.
        """
        data = self.to_json()
        problems = violations(data)
        if problems:
            raise RecordError(source, problems)
        return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def load(cls, path: str | Path) -> Record:
        """Read and validate a file.

        Raises:
            FileNotFoundError: there is none.
            RecordError: it is not JSON, or not a valid record.
        """
        file = Path(path)
        try:
            data = read_json(file, strict=True)
        except DecodeError as error:
            raise RecordError(str(file), [*_fields_at_fault(file), f"not JSON: {error}"]) from error
        return cls.from_json(data, source=str(file))

    def task(self, name: str) -> dict[str, Any]:
        """The entry of `tasks` with that name; raises `KeyError`."""
        for entry in self.tasks:
            if entry["name"] == name:
                return entry
        raise KeyError(f"the record has no task '{name}'; it has {', '.join(self.task_names)}.")

    @property
    def whole(self) -> bool:
        """Whether every part of the record was measured."""
        return not self.missing

    @property
    def task_names(self) -> tuple[str, ...]:
        """Names of the tasks, in order."""
        return tuple(entry["name"] for entry in self.tasks)

    @property
    def row_key(self) -> tuple[str, ...]:
        """Equal for records that differ in their seed alone and therefore form one row of a table."""
        row = self.config["row_sha256"] if self.config else ""
        return (
            self.protocol,
            ",".join(self.task_names),
            self.method,
            self.backbone,
            self.provenance,
            self.source,
            row,
        )


_SCORES = ("scores", "constant", "leave_one_out")
"""Fields of numbers of which some may be undefined."""
_LOST = 2
"""So many needed fields may be lost; other files of this suite have fewer of them."""
_NULLABLE = ("protocol_digest", "scored", "seed", "world_size", "effective_batch", "precision", "cost")
"""Fields that a run states even when it does not know them."""


def migrate(data: Any, *, source: str = "record") -> dict[str, Any]:
    """Plain data brought to the current version step by step; the input is left as it is.

    Raises:
        RecordError: no object, no version, or a version newer than this package or no longer known.
    """
    if not isinstance(data, Mapping):
        raise RecordError(source, [f"found {type(data).__name__}, expected a JSON object."])
    current = json.loads(json.dumps(data))
    version = current.get("schema")
    if isinstance(version, bool) or not isinstance(version, int):
        raise RecordError(source, [f"schema: found {version!r}, expected the version, an integer."])
    if version > SCHEMA_VERSION:
        newer = (
            f"schema: version {version} is newer than {SCHEMA_VERSION}, the newest that this mtvision reads"
        )
        raise RecordError(source, [f"{newer}; update mtvision."])
    while version < SCHEMA_VERSION:
        if version not in MIGRATIONS:
            raise RecordError(
                source, [f"schema: version {version} cannot be read; known are 1 to {SCHEMA_VERSION}."]
            )
        current = MIGRATIONS[version](current)
        version += 1
        current["schema"] = version
    return dict(current)


def json_files(folder: Path) -> list[Path]:
    """All `*.json` below a folder, by path; which files count is in `mtvision.core.files.find`."""
    return sorted(find_files(folder, (".json",)).files.values())


def record_files(paths: Iterable[str | Path]) -> Iterator[Path]:
    """Files that are meant as records, in the order of their paths.

    Args:
        paths: a file counts. Of a folder, every `*.json` below it counts that lacks at most two of the needed
            fields. So does one that is named `record.json`, or is no JSON: what lost a part shall be told.

    Raises:
        FileNotFoundError: a path does not exist.
    """
    for path in map(Path, paths):
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist; give record files or folders that hold some.")
        if path.is_dir():
            yield from filter(_meant_as_record, json_files(path))
        else:
            yield path


def find_records(paths: Iterable[str | Path]) -> list[Record]:
    """Load records from files and folders, in the order of their paths.

    Args:
        paths: see `record_files`.

    Raises:
        FileNotFoundError: a path does not exist.
        RecordError: a record is invalid; the message lists the problems of all invalid ones.
    """
    records, problems = [], []
    for file in record_files(paths):
        try:
            records.append(Record.load(file))
        except RecordError as error:
            problems += [f"{file}: {problem}" for problem in error.problems]
    if problems:
        raise RecordError("records", problems)
    return records


def _fields_at_fault(file: Path) -> list[str]:
    """What is wrong with single fields of a file that only a lenient reader takes, e.g. a score of NaN."""
    try:
        return list(violations(read_json(file)))
    except DecodeError:
        return []


def _meant_as_record(file: Path) -> bool:
    if file.name == "record.json":
        return True
    try:
        data = read_json(file)
    except DecodeError:
        return True
    return isinstance(data, dict) and len(set(record_schema()["required"]) - data.keys()) <= _LOST


def _without_nan(
    scores: Mapping[str, Mapping[str, float]], field_name: str
) -> dict[str, dict[str, float | None]]:
    result: dict[str, dict[str, float | None]] = {}
    for task, values in scores.items():
        result[task] = {}
        for name, value in values.items():
            if isinstance(value, float) and not isfinite(value) and not isnan(value):
                problem = f"{field_name}.{task}.{name}: found {value}, expected a finite number or NaN."
                raise RecordError("record", [problem])
            result[task][name] = None if isinstance(value, float) and isnan(value) else value
    return result


def _with_nan(scores: Mapping[str, Mapping[str, float | None]]) -> Scores:
    return {
        task: {name: nan if value is None else value for name, value in values.items()}
        for task, values in scores.items()
    }

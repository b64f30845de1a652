"""Checks of records before they enter a leaderboard: found, expected, and what to try next."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from mtvision.report.baseline import NoRatioError, is_single_task, with_gain
from mtvision.report.comparable.key import SHOWN, UNKNOWN, conflicts, departures, group_records, in_words
from mtvision.report.comparable.task_entry import PROTOCOL_EVALUATOR, describe_tasks
from mtvision.report.record import Record, RecordError, record_files

FIELDS = {
    "protocol digest": "protocol_digest",
    "test images": "scored.images",
    "test fingerprint": "scored.fingerprint",
    "provenance": "provenance",
    "replaced": "replaced",
}
"""{fact of a record: field that holds it}."""

Level = Literal["violation", "note"]


@dataclass(frozen=True)
class Finding:
    """One violation or note about one file.

    Args:
        file: where.
        field: path in the record, e.g. `tasks[0].headline`; empty for the whole file.
        problem: what was found and what was expected.
        advice: what to try next.
        level: `violation`, or `note` for what does not keep a record out.
    """

    file: str
    field: str
    problem: str
    advice: str
    level: Level = "violation"

    def __str__(self) -> str:
        place = f"{self.field}: " if self.field else ""
        return f"{self.level}: {place}{self.problem}\n    next: {self.advice}"


ADVICE: tuple[tuple[str, str], ...] = (
    ("not JSON", "the file was cut off or edited; copy record.json from the work directory again."),
    ("is newer than", "update mtvision, or write the record with the version that everybody has."),
    ("cannot be read", "write the record again: `mtvision test CONFIG CHECKPOINT`."),
    ("no such field", "correct the name, or remove the field; free text belongs in notes."),
    ("absolute path", "write '<path>/name' in its place; in `command`, use a path relative to the checkout."),
    ("was it edited", "take config from the run's own record; a changed config is another run."),
    ("the range of metric", "score the checkpoint again; shares are stored as 0 to 1, never in per cent."),
    ("a finite number", "write null where nothing could be scored; a network of NaN has no result."),
    ("the mean of gain.parts", "let `mtvision table --baseline` or a new run compute it; never type a gain."),
    ("baseline", "let `mtvision launch --baseline` or a new run compute it; never type a gain."),
    ("no headline score", "score the checkpoint again: `mtvision test CONFIG CHECKPOINT`."),
    ("no entry of tasks", "remove the score, or add the task's entry as `describe_tasks` gives it."),
    ("missing", "add it as docs/records.md describes, or score the checkpoint again with `mtvision test`."),
    ("found", "correct the field; docs/records.md says what it holds."),
)
"""(words of a violation, what to try next); the first that occurs counts."""


def check_files(paths: Iterable[str | Path]) -> tuple[list[Path], list[Finding]]:
    """Check record files one by one, then against one another.

    Args:
        paths: see `record_files`; a file that is named twice is checked once.

    Returns:
        The files that were checked, and what was found, in their order.

    Raises:
        FileNotFoundError: a path does not exist.
        ValueError: there is no record.
    """
    files = list({file.resolve(): file for file in record_files(paths)}.values())
    if not files:
        raise ValueError("there are no records to check; give record files or folders that hold some.")
    findings: list[Finding] = []
    records: dict[str, Record] = {}
    for file in files:
        try:
            records[str(file)] = Record.load(file)
        except RecordError as error:
            findings += [_explain(str(file), problem) for problem in error.problems]
    findings += check_records(records)
    order = {str(file): position for position, file in enumerate(files)}
    return files, sorted(findings, key=lambda item: (order[item.file], item.level != "violation"))


def _explain(file: str, problem: str) -> Finding:
    field, colon, rest = problem.partition(": ")
    if not colon or " " in field:
        field, rest = "", problem
    advice = next((text for words, text in ADVICE if words in problem), "see docs/records.md.")
    return Finding(file, field, rest, advice)


def check_records(records: Mapping[str, Record]) -> list[Finding]:
    """Checks across files: unknown or changed protocols, duplicates, gains without a baseline, groups.

    Args:
        records: {name of the file: record}.
    """
    findings: list[Finding] = []
    for file, record in records.items():
        findings += [*_protocol(file, record), *_departures(file, record), *_origin(file, record)]
        findings += [
            Finding(file, "missing", line, "score the checkpoint again: `mtvision test`.", "note")
            for line in record.missing
        ]
        findings += _baseline(file, record, list(records.values()))
    return [*findings, *_doubles(records), *_changed_plugins(records), *_groups(records)]


def _departures(file: str, record: Record) -> Iterator[Finding]:
    """Findings for a record that was not scored as the shipped protocol of its id says."""
    advice = {
        "protocol digest": "score the checkpoint again with `mtvision test` of this version; a changed "
        "protocol needs an id of its own.",
        "test images": "score the whole split, or give the protocol of the part an id of its own.",
    }
    for name, (found, expected) in departures(record).items():
        yield Finding(
            file,
            FIELDS.get(name, "replaced"),
            f"{name}: found {found}, expected {expected}, as protocol {record.protocol} says.",
            advice.get(name, "score with the shipped component, or register yours under a name of its own."),
        )


def _groups(records: Mapping[str, Record]) -> Iterator[Finding]:
    """Notes for records of one protocol that do not compare: which field keeps which files apart."""
    for protocol in dict.fromkeys(record.protocol for record in records.values()):
        files = {id(record): file for file, record in records.items() if record.protocol == protocol}
        groups = group_records([record for record in records.values() if record.protocol == protocol])
        largest = max(groups, key=lambda group: len(group.records))
        for group in groups:
            if group is largest:
                continue
            first = group.records[0]
            other = min(largest.records, key=lambda record: len(conflicts(first, record)))
            differing = conflicts(first, other) or {"": (group.label, largest.label)}
            others = f" (and {len(group.records) - 1} more)" if len(group.records) > 1 else ""
            yield Finding(
                files[id(first)],
                FIELDS.get(next(iter(differing)), ""),
                f"does not compare{others} with {files[id(other)]}: {in_words(differing)}.",
                "tables and the page keep them apart and rank each group alone; score them alike to compare.",
                "note",
            )


def _changed_plugins(records: Mapping[str, Record]) -> Iterator[Finding]:
    """Notes for seeds of one row that were made with different files of a plugin."""
    first: dict[tuple[Any, ...], tuple[str, str | None]] = {}
    for file, record in sorted(records.items(), key=lambda item: item[1].created):
        for entry in record.plugins:
            other, digest = first.setdefault((record.row_key, entry["name"]), (file, entry["sha256"]))
            if digest != entry["sha256"]:
                yield Finding(
                    file,
                    "plugins",
                    f"plugin {entry['name']} differs from that of {other}, which is of the same row: sha256 "
                    f"{(entry['sha256'] or UNKNOWN)[:SHOWN]} against {(digest or UNKNOWN)[:SHOWN]}.",
                    "train the seeds again with one version of the plugin if its change concerns the scores.",
                    "note",
                )


def _protocol(file: str, record: Record) -> Iterator[Finding]:
    from mtvision.protocols import PROTOCOLS

    definition = PROTOCOLS.get(record.protocol)
    if definition is None:
        if not _defines_protocol(record):
            near = get_close_matches(record.protocol, PROTOCOLS, n=1)
            hint = f"did you mean '{near[0]}'? " if near else ""
            yield Finding(
                file,
                "protocol",
                f"found '{record.protocol}', expected one of {', '.join(PROTOCOLS)}, or one that the "
                "record's config defines.",
                f"{hint}Own data needs `protocol = dict(id=…, tasks=…)` in the config; see "
                "datasets/own_data.md.",
            )
        return
    expected = {entry["name"]: entry for entry in describe_tasks(definition.tasks)}
    for index, entry in enumerate(record.tasks):
        known = expected.get(entry["name"])
        if known is None:
            yield Finding(
                file,
                f"tasks[{index}].name",
                f"found '{entry['name']}', expected one of the protocol's tasks {', '.join(expected)}.",
                "leave the task out, or give the changed protocol an id of its own.",
            )
            continue
        fields = ["metric", "headline", "higher_is_better", "unit"]
        fields += ["metric_options", "further_metrics"] if entry["evaluator"] == PROTOCOL_EVALUATOR else []
        for field in fields:
            found, expected_value = entry.get(field), known.get(field)
            if found != expected_value:
                yield Finding(
                    file,
                    f"tasks[{index}].{field}",
                    f"found {found!r}, expected {expected_value!r}, as protocol {record.protocol} says.",
                    "score the checkpoint again with `mtvision test`, or name what differs in `evaluator`.",
                )


def _defines_protocol(record: Record) -> bool:
    """Whether the config spells the protocol out (own data) instead of naming one."""
    try:
        nodes = ast.parse((record.config or {}).get("text", "")).body
    except SyntaxError:
        return False
    for node in nodes:
        if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
            continue
        if node.targets[0].id == "protocol":
            return isinstance(node.value, ast.Call | ast.Dict) and repr(record.protocol) in ast.unparse(
                node.value
            )
    return False


def _origin(file: str, record: Record) -> Iterator[Finding]:
    if record.provenance in ("paper", "released") and not record.source.strip():
        yield Finding(
            file,
            "source",
            f"empty, expected where the numbers or weights of provenance '{record.provenance}' come from.",
            "name the paper and table, or the repository and file.",
        )
    if record.provenance in ("ours", "smoke"):
        if record.config is None or record.seed is None:
            name = "config" if record.config is None else "seed"
            yield Finding(
                file,
                name,
                f"missing, but a run of provenance '{record.provenance}' must be repeatable.",
                "train or test with mtvision, which writes it.",
            )
        if (record.code or {}).get("dirty"):
            yield Finding(
                file,
                "code.dirty",
                "the checkout had uncommitted changes, so the commit alone does not repeat the run.",
                "commit, then run again, before the number goes into a paper.",
                "note",
            )


def _baseline(file: str, record: Record, every: Sequence[Record]) -> Iterator[Finding]:
    """Finding for a multi-task result without a gain."""
    from mtvision.protocols import PROTOCOLS

    if len(record.tasks) < 2 or record.provenance not in ("ours", "smoke"):
        return
    level: Level = "violation" if record.provenance == "ours" and record.protocol in PROTOCOLS else "note"
    if record.gain is None:
        single = [item for item in every if is_single_task(item) and item.protocol == record.protocol]
        try:
            with_gain([record, *single])
        except NoRatioError as error:
            yield Finding(file, "gain", f"no gain: {error}", "nothing is to be done.", "note")
        except ValueError as error:
            definition = PROTOCOLS.get(record.protocol)
            names = ", ".join(f"'{name}'" for name in definition.baselines) if definition else ""
            other = f"; or set evaluation.baseline to one of {names}" if names else ""
            yield Finding(
                file,
                "gain",
                f"baseline missing: the record has no gain, and none can be computed: {error}",
                "train the same config with tasks=['…'] once per task and give those records too"
                f" (`mtvision launch … --baseline single-task` stores the gain){other}.",
                level,
            )
        return
    name, scores = record.gain["baseline"]["name"], record.gain["baseline"]["scores"]
    known = PROTOCOLS[record.protocol].baselines.get(name) if record.protocol in PROTOCOLS else None
    for task, value in (known or {}).items():
        entry = next((item for item in record.tasks if item["name"] == task), None)
        found = scores.get(task, {}).get(entry["headline"]) if entry else None
        if found is not None and found != value:
            yield Finding(
                file,
                f"gain.baseline.scores.{task}",
                f"found {found}, expected {value}, which protocol {record.protocol} has for '{name}'.",
                "compute the gain again; a baseline of one's own needs a name of its own.",
            )


def _doubles(records: Mapping[str, Record]) -> Iterator[Finding]:
    runs: dict[tuple[Any, ...], list[str]] = defaultdict(list)
    for file, record in records.items():
        if record.config is not None and record.seed is not None:
            key = (record.protocol, record.task_names, record.config["row_sha256"], record.seed)
            runs[(*key, record.provenance)].append(file)
    for key, files in runs.items():
        first, *others = sorted(files, key=lambda name: (records[name].created, name), reverse=True)
        for file in others:
            yield Finding(
                file,
                "config.row_sha256, seed",
                f"config {key[2][:8]} with seed {key[3]} is also in {first}, expected one record of each.",
                f"keep one of them (tables count the newer, {first}), or run another seed.",
            )

"""The one rule for what compares: facts of a record, and groups of records that agree in all of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mtvision.report.comparable.task_entry import metrics_of
from mtvision.report.record import Record

SCORING_TABLES = ("dataset", "transform", "transforms preset", "label derivation", "activation")
"""Tables whose replaced entries concern every score; those of `metric` concern the tasks that use them."""

TASK_FIELDS = ("metric", "headline", "higher_is_better", "unit")
SHOWN = 12
"""Digits of a hash in texts."""

_REPLACED = ": replaced metric"
UNKNOWN, NOTHING = "unknown", "nothing"


@dataclass(frozen=True)
class Group:
    """Records whose numbers compare.

    Args:
        label: what tells it from the others, e.g. `test images: 60 (test)`; empty if it is the only one.
        records: in the order in which they were given.
    """

    label: str
    records: tuple[Record, ...]


def common_facts(record: Record) -> dict[str, str]:
    """The facts that every record has, whatever its tasks."""
    scored, manifest = record.scored or {}, scored_manifest(record.data)
    images = scored.get("images", manifest.get("images"))
    split = scored.get("split", manifest.get("split"))
    return {
        "protocol": record.protocol,
        "protocol digest": record.protocol_digest or UNKNOWN,
        "provenance": record.provenance,
        "test images": UNKNOWN if images is None else f"{images} ({split})",
        "test fingerprint": (scored.get("fingerprint") or UNKNOWN)[:SHOWN],
        "replaced": _replaced(record, SCORING_TABLES),
    }


def key_digest(record: Record) -> str:
    """Common facts and replaced metrics in eight hexadecimal digits, where only a short text fits."""
    metrics = {name: text for name, text in facts(record).items() if _REPLACED in name}
    content = {**common_facts(record), **{name: text for name, text in metrics.items() if text != NOTHING}}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]


def facts(record: Record) -> dict[str, str]:
    """{field: value} of everything that two records must share to compare, as far as both have the field.

    Every record has protocol id, digest, provenance, test images, test fingerprint and what was replaced. The
    fields of a task begin with its name, so that records of different tasks do not differ in them.
    """
    found, manifest = common_facts(record), scored_manifest(record.data)
    if not (record.scored or {}).get("fingerprint") and manifest.get(
        "hash"
    ):  # version 1: one hash of everything
        tasks = ", ".join(manifest.get("tasks") or ("all tasks",))
        found[f"test fingerprint with labels of {tasks}"] = str(manifest["hash"])[:SHOWN]
    for entry in record.tasks:
        found.update(_task_facts(record, entry))
    return found


def _task_facts(record: Record, entry: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    task = entry["name"]
    for field in TASK_FIELDS:
        yield f"{task}: {field}", str(entry[field])
    for index, (metric, options) in enumerate(metrics_of(entry).items()):
        which = f" {metric}" if index else ""
        yield f"{task}{_REPLACED}{which}", _replaced(record, ("metric",), metric)
        # Another evaluator is a matter of the column: tables refuse or mark it.
        yield f"{task}: metric_options{which} ({entry['evaluator']})", str(sorted(options.items()))
    labels = (record.scored or {}).get("labels", {}).get(task)
    if labels:
        yield f"{task}: fingerprint of the labels", labels[:SHOWN]


def _replaced(record: Record, tables: Sequence[str], name: str | None = None) -> str:
    found = [
        f"{item['table']} {item['name']} by {item['by']}"
        for item in record.replaced
        if item["table"] in tables and name in (None, item["name"])
    ]
    return ", ".join(found) or NOTHING


def scored_manifest(data: Mapping[str, Any] | None) -> dict[str, Any]:
    """The manifest of the scored split among those of a record; empty if there is none."""
    parts = {name: part for name, part in (data or {}).items() if part and name != "train"}
    return dict(next(iter(parts.values()), {}))


def conflicts(one: Record, other: Record) -> dict[str, tuple[str, str]]:
    """{field: (value of one, value of the other)} for every fact in which two records differ."""
    return _differing(facts(one), facts(other))


def _differing(one: Mapping[str, str], other: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    return {name: (one[name], other[name]) for name in one if name in other and one[name] != other[name]}


def departures(record: Record) -> dict[str, tuple[str, str]]:
    """{field: (found, expected)} where a record was not scored as the shipped protocol of its id says.

    What a record does not hold, such as the digest in version 1, is no departure; neither is anything in a
    protocol that is not shipped.
    """
    from mtvision.protocols import PROTOCOLS

    definition = PROTOCOLS.get(record.protocol)
    if definition is None:
        return {}
    scored, found = record.scored or {}, facts(record)
    expected = {name: NOTHING for name in found if name == "replaced" or _REPLACED in name}
    if record.protocol_digest is not None:
        expected["protocol digest"] = definition.digest()
    split = scored.get("split")
    if isinstance(split, str) and split in definition.splits and scored.get("images") is not None:
        expected["test images"] = f"{definition.splits[split]} ({split})"
    return _differing({name: found[name] for name in expected}, expected)


def in_words(differing: Mapping[str, tuple[str, str]]) -> str:
    """`test images: 60 (test) against 100 (test); …`."""
    return "; ".join(f"{name}: {one} against {other}" for name, (one, other) in differing.items())


def group_records(records: Sequence[Record]) -> list[Group]:
    """Part records into groups without a conflict inside, in the order in which their first records came.

    Records of several tasks are placed first; one of a single task then joins the group that it agrees with.
    """
    known: list[dict[str, str]] = []
    members: list[list[int]] = []
    for index in sorted(range(len(records)), key=lambda place: -len(records[place].tasks)):
        own = facts(records[index])
        place = next((n for n, common in enumerate(known) if not _differing(own, common)), len(known))
        if place == len(known):
            known.append({})
            members.append([])
        known[place].update(own)
        members[place].append(index)
    order = sorted(range(len(members)), key=lambda place: min(members[place]))
    labels = _labels([known[place] for place in order])
    return [
        Group(label, tuple(records[index] for index in sorted(members[place])))
        for label, place in zip(labels, order, strict=True)
    ]


def varying(every: Sequence[Mapping[str, str]]) -> dict[str, list[str]]:
    """{field: its values} for the fields in which facts differ."""
    names = dict.fromkeys(name for common in every for name in common)
    values = {name: list(dict.fromkeys(c[name] for c in every if name in c)) for name in names}
    return {name: found for name, found in values.items() if len(found) > 1}


def _labels(every: Sequence[Mapping[str, str]]) -> list[str]:
    """Texts that tell groups apart, made of as few fields as that takes."""
    texts = [""] * len(every)
    for name in varying(every):
        if len(set(texts)) == len(texts):
            break
        longer = [
            " · ".join(part for part in (text, f"{name}: {common[name]}" if name in common else "") if part)
            for text, common in zip(texts, every, strict=True)
        ]
        texts = longer if len(set(longer)) > len(set(texts)) else texts
    return texts


def parting(groups: Iterable[Group]) -> str:
    """A line that names every field in which groups differ; empty for one group."""
    groups = list(groups)
    if len(groups) < 2:
        return ""
    every = [dict(pair for record in group.records for pair in facts(record).items()) for group in groups]
    found = [f"{name} ({' / '.join(values)})" for name, values in varying(every).items()]
    return f"{len(groups)} groups that do not compare; they differ in: {'; '.join(found)}."

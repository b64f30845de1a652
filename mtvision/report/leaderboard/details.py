"""Details of a row as plain data for the page: all digits, all scores, origin, cost, curves."""

from __future__ import annotations

from collections.abc import Mapping
from math import fsum, isnan
from statistics import stdev
from typing import Any

from mtvision.report.comparable.key import NOTHING, SHOWN, UNKNOWN, common_facts
from mtvision.report.comparable.task_entry import PROTOCOL_EVALUATOR
from mtvision.report.compare import OTHER_TOOL, compare
from mtvision.report.display import display_of
from mtvision.report.leaderboard.rows import BoardRow, Section, latency_condition
from mtvision.report.leaderboard.runs import RunFolders
from mtvision.report.published import CERTAINTIES, published_rows
from mtvision.report.record import Record
from mtvision.report.render import plain


class Pictures:
    """Embedded pictures, each once however many rows show it."""

    def __init__(self) -> None:
        self.uris: list[str] = []
        self._places: dict[str, int] = {}

    def place(self, uri: str) -> int:
        """Index of a picture in `uris`."""
        if uri not in self._places:
            self._places[uri] = len(self.uris)
            self.uris.append(uri)
        return self._places[uri]


def row_detail(row: BoardRow, section: Section, runs: RunFolders, pictures: Pictures) -> dict[str, Any]:
    """Everything about one row; texts are free of control characters, numbers are those of the records."""
    first = row.records[0]
    kept = [(record, runs.files(record)) for record in row.records]
    return {
        "protocol": section.protocol,
        "method": plain(row.method),
        "backbone": plain(first.backbone),
        "kind": row.kind,
        "group": plain(row.group),
        "provenance": first.provenance,
        "certainty": row.certainty,
        "source": plain(first.source),
        "notes": [plain(note) for record in row.records[:1] for note in record.notes],
        "licence": plain(row.licence),
        "scores": _scores(row),
        "gain": _gain(first),
        "published": _published(row),
        "cost": _cost(first),
        "training": _training(first),
        "versions": first.versions or {},
        "config": _config(first),
        "seeds": [
            {
                **_run(record),
                "curves": files.curves,
                "pictures": [[plain(name), pictures.place(uri)] for name, uri in files.pictures.items()],
            }
            for record, files in kept
        ],
    }


def level_text(row: BoardRow, task: str, score: str) -> str:
    """Why a score is level with the best of its group; empty if it is not, or was not tested."""
    if task not in row.level or row.records[0].task(task)["headline"] != score:
        return ""
    p = row.level[task]
    return "best" if p is None else f"no significant difference from the best (p = {p:.2g})"


def _scores(row: BoardRow) -> list[dict[str, Any]]:
    """One entry per score of any task: mean and standard deviation over seeds, printed and in full."""
    found = []
    records = row.records
    for entry in records[0].tasks:
        task = entry["name"]
        for score in records[0].scores.get(task, {}):
            shown = display_of(entry, score)
            values = [record.scores.get(task, {}).get(score) for record in records]
            known = [value for value in values if value is not None]
            undefined = not known or any(isnan(value) for value in known)
            mean = None if undefined else fsum(known) / len(known)
            spread = shown.text(stdev(known)) if len(known) > 1 and not undefined else ""
            found.append(
                {
                    "task": plain(task.replace("_", " ")),
                    "score": plain(score),
                    "title": plain(f"{shown.title} {shown.unit}".strip()),
                    "headline": score == entry["headline"],
                    "higher": shown.higher_is_better,
                    "factor": shown.factor,
                    "digits": shown.digits,
                    "text": "–" if mean is None else shown.text(mean),
                    "spread": spread,
                    "level": level_text(row, task, score),
                    "value": mean,
                    "values": [None if value is None or isnan(value) else value for value in values],
                    "evaluator": ""
                    if entry["evaluator"] == PROTOCOL_EVALUATOR
                    else plain(entry["evaluator"]),
                }
            )
    return found


def _gain(record: Record) -> dict[str, Any] | None:
    if record.gain is None:
        return None
    return {
        "convention": plain(record.gain["convention"]),
        "percent": record.gain["percent"],
        "parts": {plain(name): value for name, value in record.gain["parts"].items()},
        "higher": record.gain["higher_is_better"],
        "baseline": plain(record.gain["baseline"]["name"]),
    }


def _published(row: BoardRow) -> list[dict[str, Any]]:
    """Published values of the same method and backbone, with the verdict of `compare`."""
    first = row.records[0]
    if row.kind != "result" or first.protocol not in {item.protocol for item in published_rows()}:
        return []
    found = []
    for item in compare(row.records, published_rows(first.protocol, CERTAINTIES)):
        shown = display_of(first.task(item.task), item.score)
        found.append(
            {
                "score": plain(f"{item.task.replace('_', ' ')} {shown.title}"),
                "published": shown.text(item.published),
                "reproduced": shown.text(item.mean) + (f" ± {shown.text(item.std)}" if item.std else ""),
                "difference": "" if item.verdict == OTHER_TOOL else _signed(item.gain, shown),
                "verdict": item.verdict,
                "certainty": item.certainty,
            }
        )
    return found


def _signed(value: float, shown: Any) -> str:
    return f"{value * shown.factor:+z.{shown.digits}f}"


def _cost(record: Record) -> list[list[str]]:
    cost = record.cost or {}
    lines: list[list[str]] = []
    parameters, macs = cost.get("parameters") or {}, cost.get("macs") or {}
    latency, memory = cost.get("latency"), cost.get("peak_memory")
    named = {"total": "Parameters", "trainable": "Trained parameters", "active": "Active parameters"}
    lines += [
        [text, f"{parameters[key]:,}"] for key, text in named.items() if parameters.get(key) is not None
    ]
    if macs.get("total") is not None:
        counted = f"; {plain(macs['counted'])}" if macs.get("counted") else ""
        lines.append(["Multiply–accumulates", f"{macs['total']:,}{counted}"])
    if latency:
        spread = f"{latency['min_ms']:.1f} to {latency['max_ms']:.1f}" if "min_ms" in latency else ""
        text = f"{latency['median_ms']:.1f} ms" + (f" ({spread})" if spread else "")
        lines.append(["Latency, median", f"{text}; {plain(latency_condition(record))}"])
    if memory:
        lines.append(["Peak memory", f"{memory['bytes'] / 2**20:.1f} MiB; {plain(str(memory['device']))}"])
    return lines


def _training(record: Record) -> list[list[str]]:
    training, precision = record.training or {}, record.precision or {}
    found: list[tuple[str, Any]] = [
        ("Iterations", training.get("iterations")),
        ("Images per step", record.effective_batch),
        ("Processes", record.world_size),
        ("Hours", None if training.get("hours") is None else f"{training['hours']:.2f}"),
        ("Device", training.get("device")),
        ("Precision", ", ".join(f"{name} {value}" for name, value in precision.items())),
    ]
    for name, text in common_facts(record).items():
        if text not in (UNKNOWN, NOTHING) and name not in ("protocol", "provenance"):
            found.append((name.capitalize(), text))
    found += [(f"Replaced {item['table']}", f"{item['name']} by {item['by']}") for item in record.replaced]
    found += [(f"Plugin {item['name']}", _plugin(item)) for item in record.plugins]
    for split, manifest in (record.data or {}).items():
        if manifest:
            images = f"{manifest['images']} images" if manifest.get("images") is not None else "images"
            digest = str(manifest.get("hash", ""))[:12]
            found.append((f"Data, {split}", f"{images}" + (f", fingerprint {digest}" if digest else "")))
    return [[name, plain(str(value))] for name, value in found if value not in (None, "")]


def _config(record: Record) -> dict[str, str] | None:
    """Line breaks of the config are kept; other control characters are not."""
    if record.config is None:
        return None
    text = "\n".join(plain(line) for line in record.config["text"].splitlines())
    return {"name": plain(record.config["name"]), "text": text, "sha256": record.config["sha256"]}


def _run(record: Record) -> dict[str, Any]:
    code: Mapping[str, Any] = record.code or {}
    return {
        "seed": record.seed,
        "command": plain(record.command),
        "created": plain(record.created) if record.config else "",
        "commit": code.get("commit") or "",
        "dirty": bool(code.get("dirty")),
        "checkpoint": (record.checkpoint or {}).get("sha256", ""),
        "percent": (record.gain or {}).get("percent"),
    }


def _plugin(entry: Mapping[str, str | None]) -> str:
    version, digest = entry["version"], entry["sha256"]
    parts = [f"version {version}" if version else "", f"sha256 {digest[:SHOWN]}" if digest else ""]
    return ", ".join(part for part in parts if part) or "version unknown"

"""Violations of a record in words: the field, found and expected."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from difflib import get_close_matches
from functools import cache
from importlib import resources
from math import fsum, isclose
from typing import TYPE_CHECKING, Any

from mtvision.report.comparable.ranges import number_errors, range_errors
from mtvision.report.provenance import absolute_paths, config_entry

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

SCHEMA_VERSION = 2


@cache
def record_schema() -> dict[str, Any]:
    """The JSON Schema of the current version; also in the package as `report/schema/record_v2.json`."""
    file = resources.files("mtvision.report") / "schema" / f"record_v{SCHEMA_VERSION}.json"
    schema: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return schema


def violations(data: Any) -> list[str]:
    """Everything that is wrong with a record's plain data, one sentence each; empty if nothing is.

    Numbers and the schema are checked first. If they hold, the content is checked: every task has an entry
    and every headline score exists. Scores lie in the range of their metric, and the gain follows from them.
    The config has its hash, and no path is absolute.
    """
    from jsonschema import Draft202012Validator  # slow, and many commands read no record

    validator = Draft202012Validator(record_schema())
    found = sorted({*number_errors(data), *_flatten(validator.iter_errors(data))})
    checks = (_task_errors, range_errors, _gain_errors, _config_errors, _time_errors, _path_errors)
    return found or sorted({problem for check in checks for problem in check(data)})


def _flatten(errors: Any) -> Iterator[str]:
    for error in errors:
        alternatives = [
            item for item in error.context or () if item.relative_path or item.validator != "type"
        ]
        yield from _flatten(alternatives) if error.validator == "anyOf" and alternatives else _explain(error)


def _explain(error: ValidationError) -> Iterator[str]:
    where = field_name(error.absolute_path)
    expected: Any = error.validator_value
    schema: Any = error.schema
    found: Any = error.instance
    if error.validator == "required":
        missing = [name for name in expected if name not in found]
        yield from (f"{_join(where, name)}: missing." for name in missing)
    elif error.validator == "additionalProperties":
        known = list(schema.get("properties", ()))
        for name in found:
            if name not in known:
                near = get_close_matches(name, known, n=1)
                hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(known)}."
                yield f"{_join(where, name)}: no such field; {hint}"
    else:
        yield f"{where or 'record'}: found {shown(found)}, expected {_expectation(error)}."


def _expectation(error: ValidationError) -> str:
    value: Any = error.validator_value
    words: dict[str, Callable[[], str]] = {
        "type": lambda: " or ".join([value] if isinstance(value, str) else value),
        "enum": lambda: "one of " + ", ".join(json.dumps(item) for item in value),
        "const": lambda: json.dumps(value),
        "minimum": lambda: f"at least {value}",
        "maximum": lambda: f"at most {value}",
        "exclusiveMinimum": lambda: f"more than {value}",
        "minLength": lambda: "a non-empty text",
        "minItems": lambda: f"at least {value} entries",
        "maxItems": lambda: f"at most {value} entries",
        "minProperties": lambda: f"at least {value} entry",
        "pattern": lambda: f"text that matches {value}",
        "anyOf": lambda: " or ".join(str(item.get("type", "another form")) for item in value),
    }
    about = error.schema.get("description") if isinstance(error.schema, Mapping) else None
    return words.get(str(error.validator), lambda: error.message)() + (f" ({about})" if about else "")


def shown(value: Any) -> str:
    """A value as an error message quotes it, with its JSON type, at most 60 characters."""
    kind = {dict: "object", list: "array", str: "string", bool: "boolean", type(None): "null"}.get(
        type(value), "number" if isinstance(value, int | float) else type(value).__name__
    )
    if value is None:
        return "null"
    text = json.dumps(value, default=str, ensure_ascii=False)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({kind})"


def field_name(path: Sequence[str | int]) -> str:
    """`tasks[0].name` for the path `tasks, 0, name`."""
    name = ""
    for part in path:
        name = f"{name}[{part}]" if isinstance(part, int) else _join(name, part)
    return name


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _task_errors(data: Mapping[str, Any]) -> Iterator[str]:
    tasks = {task["name"]: task for task in data["tasks"]}
    if len(tasks) != len(data["tasks"]):
        yield "tasks: a name occurs twice, expected distinct names."
    for field in ("scores", "constant"):
        for name, scores in (data.get(field) or {}).items():
            if name not in tasks:
                yield f"{field}.{name}: no entry of tasks has this name; there are {', '.join(tasks)}."
            elif tasks[name]["headline"] not in scores:
                headline = tasks[name]["headline"]
                yield f"{field}.{name}: no headline score '{headline}'; there are {', '.join(scores)}."


def _gain_errors(data: Mapping[str, Any]) -> Iterator[str]:
    gain = data.get("gain")
    if gain is None:
        return
    parts = gain["parts"]
    if not parts:
        yield "gain.parts: empty, expected one entry per task or score that the gain is the mean of."
        return
    mean = fsum(parts.values()) / len(parts)
    if not isclose(mean, gain["percent"], rel_tol=1e-9, abs_tol=1e-9):
        yield f"gain.percent: found {gain['percent']}, expected {mean}, the mean of gain.parts."
    tasks = {task["name"]: task for task in data["tasks"]}
    for name, part in parts.items() if gain["convention"] == "headline" else ():
        headline = tasks.get(name, {}).get("headline")
        score = data["scores"].get(name, {}).get(headline)
        base = gain["baseline"]["scores"].get(name, {}).get(headline)
        if not base or score is None:
            yield f"gain.parts.{name}: no headline score, or no baseline of it, that it could follow from."
            continue
        expected = (1 if tasks[name]["higher_is_better"] else -1) * 100 * (score - base) / abs(base)
        if not isclose(part, expected, rel_tol=1e-9, abs_tol=1e-9):
            yield f"gain.parts.{name}: found {part}, but score {score} and baseline {base} give {expected}."


def _config_errors(data: Mapping[str, Any]) -> Iterator[str]:
    config = data.get("config")
    if config is None:
        return
    expected = config_entry(config["name"], config["text"])
    for field in ("sha256", "row_sha256"):
        if config[field] != expected[field]:
            yield f"config.{field}: found {config[field]}, but the text has {expected[field]}; was it edited?"


def _time_errors(data: Mapping[str, Any]) -> Iterator[str]:
    try:
        datetime.fromisoformat(data["created"])
    except ValueError as error:
        yield f"created: found {shown(data['created'])}, which is no time: {error}."


def _path_errors(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[str]:
    if isinstance(value, str):
        for found in absolute_paths(value):
            yield f"{field_name(path)}: holds the absolute path '{found}', expected nothing of one machine."
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _path_errors(item, (*path, str(name)))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _path_errors(item, (*path, index))

"""The JSON schema of a config, for editors: made from the sections and from the signatures of all classes."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import is_dataclass
from inspect import Parameter
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from mtvision.core.registry import TASKS, tables
from mtvision.core.registry.entries import also_of, definition_at
from mtvision.core.registry.options import Option, options_at, options_of_section
from mtvision.core.values import (
    Above,
    AtLeast,
    Between,
    Entry,
    NameIn,
    NotEmpty,
    OptionsOf,
    Other,
    extras_of,
    parts_of,
)
from mtvision.recipe.sections import OWN_PROTOCOL, TopLevel
from mtvision.recipe.settings import task_fields

DRAFT = "https://json-schema.org/draft/2020-12/schema"
_PLAIN = {int: "integer", float: "number", bool: "boolean", str: "string", Path: "string", type(None): "null"}

Schema = dict[str, Any]


def config_schema() -> Schema:
    """The schema of draft 2020-12; classes of plugins that are loaded are in it.

    A `type` may also be the dotted path of a class, whose arguments are then free.
    """
    writer = _Writer()
    root = writer.options(options_of_section(TopLevel).values())
    return {
        "$schema": DRAFT,
        "title": "Config of mtvision",
        **root,
        "$defs": dict(sorted(writer.definitions.items())),
    }


class _Writer:
    """Schemas of kinds; those of sections and tables are definitions, each written once."""

    def __init__(self) -> None:
        self.definitions: dict[str, Schema] = {}

    def options(self, options: Iterable[Option], *, closed: bool = True) -> Schema:
        """An object with some keys; `closed` says whether others are refused."""
        options = list(options)
        schema: Schema = {
            "type": "object",
            "properties": {option.name: self._property(option) for option in options},
        }
        required = [option.name for option in options if option.required]
        if required:
            schema["required"] = required
        return {**schema, "additionalProperties": False} if closed else schema

    def _property(self, option: Option) -> Schema:
        schema = self.kind(option.kind)
        if option.text:
            schema = {**schema, "description": option.text}
        try:
            default = ast.literal_eval(option.default or "None")
        except (ValueError, SyntaxError):  # an expression
            return schema
        return schema if default is None or isinstance(default, bytes) else {**schema, "default": default}

    def kind(self, kind: Any) -> Schema:
        """Of a type; what is not understood accepts everything."""
        parts = [part for part in parts_of(kind) if part is not Other]
        if len(parts) > 1:
            schemas = [self.kind(part) for part in parts]
            return {"anyOf": [item for place, item in enumerate(schemas) if item not in schemas[:place]]}
        kind = parts[0] if parts else Any
        if get_origin(kind) is Annotated:
            return self._annotated(kind)
        origin, arguments = get_origin(kind) or kind, get_args(kind)
        if origin is Literal:
            return {"enum": list(arguments)}
        if not isinstance(origin, type):
            return {}
        if is_dataclass(origin):
            return self._section(origin)
        if issubclass(origin, Mapping):
            return {
                "type": "object",
                **({"additionalProperties": self.kind(arguments[1])} if arguments else {}),
            }
        if origin is tuple and arguments and arguments[-1] is not ...:
            items = [self.kind(item) for item in arguments]
            return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}
        if issubclass(origin, Sequence) and not issubclass(origin, str):
            return {"type": "array", **({"items": self.kind(arguments[0])} if arguments else {})}
        return {"type": _PLAIN[origin]} if origin in _PLAIN else {}

    def _annotated(self, kind: Any) -> Schema:
        schema = self.kind(get_args(kind)[0])
        for extra in extras_of(kind):
            if isinstance(extra, Entry):
                schema = self._entry(extra)
            elif isinstance(extra, OptionsOf):
                schema = self._options_of(extra)
            elif isinstance(extra, NameIn):
                schema = {**schema, "enum": sorted(tables()[extra.table])}
            elif isinstance(extra, AtLeast):
                schema = {**schema, "minimum": extra.minimum}
            elif isinstance(extra, Above):
                schema = {**schema, "exclusiveMinimum": extra.bound}
            elif isinstance(extra, Between):
                schema = {**schema, "minimum": extra.low, "maximum": extra.high}
            elif isinstance(extra, NotEmpty):
                schema = {**schema, "minLength": 1}
        return schema

    def _section(self, section: type) -> Schema:
        if section.__name__ not in self.definitions:
            self.definitions[section.__name__] = {}  # it may hold itself
            self.definitions[section.__name__] = self.options(options_of_section(section).values())
        return {"$ref": f"#/$defs/{section.__name__}"}

    def _options_of(self, extra: OptionsOf) -> Schema:
        definition = definition_at(extra.path)
        options = options_at(definition)
        if definition.name not in self.definitions:
            schema = self.options(options.values())
            if extra.path == OWN_PROTOCOL:
                schema["properties"]["tasks"] |= self._tasks()
            self.definitions[definition.name] = schema
        return {"$ref": f"#/$defs/{definition.name}"}

    def _tasks(self) -> Schema:
        """{task: options of its constructor and fields}; a task of another name names its constructor."""
        fields = task_fields()
        own = self.options(fields.values(), closed=False)  # the options of any constructor
        own["properties"]["type"] = {"enum": sorted(TASKS)}
        tasks: Schema = {}
        for name in sorted(TASKS):
            plain = self.options({**fields, **TASKS.options(name)}.values())
            tasks[name] = {"if": {"required": ["type"]}, "then": own, "else": plain}
        return {"properties": tasks, "additionalProperties": own}

    def _entry(self, entry: Entry) -> Schema:
        name = tables()[entry.table].name.replace(" ", "_")
        if entry.also:
            name = f"{name}_with_{definition_at(entry.also).name}"
        if name not in self.definitions:
            self.definitions[name] = {}  # an entry may hold others of its table
            self.definitions[name] = self._entry_definition(entry)
        reference = {"$ref": f"#/$defs/{name}"}
        if not entry.alone:
            return reference
        return {"anyOf": [{"enum": sorted(tables()[entry.table])}, reference]}

    def _entry_definition(self, entry: Entry) -> Schema:
        table, also = tables()[entry.table], also_of(entry)
        names = sorted(table)
        cases = []
        for name in names:
            parameters = table.parameters(name).values()
            options = {**table.options(name), **also}
            for shared, option in table.shared.items():
                if shared in options:
                    options[shared] = Option(shared, option.kind, options[shared].required, None)
            options.pop(entry.key, None)
            then = self.options(
                options.values(), closed=not any(item.kind is Parameter.VAR_KEYWORD for item in parameters)
            )
            then["properties"][entry.key] = True
            is_it: Schema = {"properties": {entry.key: {"const": name}}}
            if entry.key not in also or name != ast.literal_eval(str(also[entry.key].default)):
                is_it["required"] = [entry.key]
            cases.append({"if": is_it, "then": then})
        default = also.get(entry.key)
        kind: Schema = {"anyOf": [{"enum": names}, {"type": "string", "pattern": r"\."}]}
        if default is not None and default.default is not None:
            kind["default"] = ast.literal_eval(default.default)
        schema: Schema = {"type": "object", "properties": {entry.key: kind}, "allOf": cases}
        return schema if default is not None else {**schema, "required": [entry.key]}

"""Reading a run's config and changing it from the command line."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mtvision.core.naming import UnknownNameError
from mtvision.engine.settings import DATA_SECTIONS, LOADER_DEFAULTS, TOP_LEVEL, check_keys, section_defaults


def load_config(path: str | Path, options: Sequence[str] = ()) -> Config:
    """Read a Python config, fill in the defaults of every section and apply `key=value` options.

    Args:
        path: a `.py` file; text configs and lazy ones (`read_base`, imported classes) both work. Variables in
            upper case are the file's own constants and no part of the config.
        options: `--cfg-options`, e.g. `training.iterations=100`; see `override`.

    Raises:
        FileNotFoundError: no such file.
        UnknownNameError: a top-level key, a key of a section or an option's key is unknown.
        ValueError: the file cannot be read as a config, an option is not `key=value`.
    """
    file = Path(path)
    if not file.is_file():
        near = (
            ", ".join(sorted(str(item) for item in file.parent.glob("*.py"))[:8])
            if file.parent.is_dir()
            else ""
        )
        raise FileNotFoundError(
            f"config {file} does not exist." + (f" In that folder: {near}." if near else "")
        )
    try:
        config = Config.fromfile(str(file))
    except (SyntaxError, RuntimeError, ImportError) as error:
        reason = (
            str(error) or "a config holds data only: no function definitions and no calls of imported names"
        )
        raise ValueError(f"config {file}: {reason}") from error
    for name in getattr(config, "_imported_names", ()):  # `read_base` and classes, which are no settings
        config._cfg_dict.pop(name, None)
    for name in [name for name in config if name.isupper()]:
        config.pop(name)
    check_keys(f"top-level key of {file.name}", config, TOP_LEVEL)
    for name, defaults in section_defaults().items():
        given = dict(config.get(name) or {})
        check_keys(f"key of '{name}' in {file.name}", given, defaults)
        config[name] = {**defaults, **given}
    for name in DATA_SECTIONS:
        if config.get(name):
            config[name] = {**LOADER_DEFAULTS, **config[name]}
    for name, default in TOP_LEVEL.items():
        config.setdefault(name, default)
    override(config, dict(parse_option(option) for option in options))
    return config


def parse_option(option: str) -> tuple[str, Any]:
    """Split `key=value`; the value is a Python literal if it reads as one, else text.

    >>> parse_option("optimizer.lr=1e-4"), parse_option("tasks=['depth']")
    (('optimizer.lr', 0.0001), ('tasks', ['depth']))
    """
    key, separator, text = option.partition("=")
    if not separator or not key:
        raise ValueError(f"--cfg-options: expected key=value, got {option!r}.")
    literal = {"true": "True", "false": "False", "none": "None"}.get(text, text)
    try:
        return key, ast.literal_eval(literal)
    except (SyntaxError, ValueError):
        return key, text


def override(config: Config, options: dict[str, Any]) -> None:
    """Apply `--cfg-options`, refusing keys the config does not have.

    mmengine would create the key and train on without a word; a mistyped learning rate then costs a day. Dots
    descend into dicts and, as integers, into lists. Below a component (a dict with `type`) new arguments are
    allowed, since the component itself refuses those it does not know.

    Raises:
        UnknownNameError: a key is absent; the message names its siblings.
    """
    for path, value in options.items():
        node: Any = config._cfg_dict
        *parents, last = path.split(".")
        for depth, part in enumerate(parents):
            node = _child(node, part, ".".join(parents[:depth]))
        if isinstance(node, list):
            _child(node, last, ".".join(parents))
            node[int(last)] = value
        elif isinstance(node, dict) and "type" in node:
            node[last] = value
        else:
            _child(node, last, ".".join(parents))
            node[last] = value


def _child(node: Any, part: str, where: str) -> Any:
    if isinstance(node, list | tuple):
        if part.isdigit() and int(part) < len(node):
            return node[int(part)]
        raise UnknownNameError(f"index of {where}", part, map(str, range(len(node))))
    if not isinstance(node, dict):
        raise UnknownNameError(f"key of {where} (which is the value {node!r})", part, ())
    if part not in node:
        raise UnknownNameError(f"key of {where or 'the config'}", part, node)
    return node[part]


def config_text(config: Config) -> str:
    """The completed config as Python text, the same for the same run on every machine."""
    return str(config.pretty_text)


def config_sha256(config: Config) -> str:
    """Of `config_text`: what a search was made with."""
    return hashlib.sha256(config_text(config).encode()).hexdigest()

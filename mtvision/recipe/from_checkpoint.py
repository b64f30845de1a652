"""The config that a checkpoint was trained with, from the checkpoint itself.

A checkpoint may come from anywhere, so its text is read as data and never run.
"""

from __future__ import annotations

import ast
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtvision.recipe.config import RunConfig, load_config
from mtvision.recipe.differences import Difference, differences, plain_options
from mtvision.recipe.sections import TOP_LEVEL
from mtvision.report.provenance import without_paths
from mtvision.runtime.atomic import write_text
from mtvision.runtime.checkpoint import CheckpointError

WAYS = "`predict` and `export` take --config CONFIG, `test` CONFIG CHECKPOINT, `cost` CONFIG alone"
"""How commands are told the config of a checkpoint that has none."""


def config_of_checkpoint(
    content: Mapping[str, Any],
    path: str | Path,
    options: Sequence[str] = (),
    plugins: Sequence[str] = (),
    *,
    trusted: bool = True,
) -> RunConfig:
    """The config in a checkpoint's `meta`.

    Args:
        content: of the checkpoint, as `load_checkpoint` returns it.
        path: of the checkpoint, for messages.
        options: `--cfg-options`.
        plugins: `--plugin`.
        trusted: False refuses a config that names plugins which are not in `plugins`, because importing one
            runs its code.

    Raises:
        CheckpointError: the checkpoint holds no config, or is not trusted and names plugins.
        ValueError, PluginError, UnknownNameError: the config in it cannot be used here.
    """
    text = content["meta"].get("config")
    if not isinstance(text, str) or not text.strip():
        raise CheckpointError(
            f"checkpoint {path} holds weights only, no config. Name the one that it was trained with: {WAYS}."
        )
    data = config_data(text, path)
    own = {Path(name).name for name in plugins}
    if isinstance(data.get("plugins"), list):  # a file that is elsewhere on this machine
        data["plugins"] = [item for item in data["plugins"] if Path(str(item)).name not in own]
    if data.get("plugins") and not trusted:
        names = ", ".join(map(str, data["plugins"]))
        raise CheckpointError(
            f"checkpoint {path} names the plugins {names}. They are not imported, because the file comes "
            "from the hub and importing runs code. If you trust them, name them yourself: --plugin NAME, or "
            "plugins=[...]."
        )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config_in_checkpoint.py"
        write_text(file, "".join(f"{name} = {value!r}\n" for name, value in data.items()))
        return load_config(file, options, plugins)


def config_data(text: str, path: str | Path) -> dict[str, Any]:
    """{top-level key: value} of a completed config's text, which is not run.

    Args:
        text: of assignments whose values are literals or `dict(key=literal)`.
        path: of the checkpoint, for messages.

    Raises:
        CheckpointError: it holds anything else.

    >>> config_data("name = 'a'\\nmodel = dict(head=dict(type='ConvHead'))\\n", "a.pth")
    {'name': 'a', 'model': {'head': {'type': 'ConvHead'}}}
    """
    found: dict[str, Any] = {}
    line = 0
    try:
        for node in ast.parse(text).body:
            line = node.lineno
            if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
                raise ValueError("no assignment")
            name = node.targets[0].id
            if name not in TOP_LEVEL or len(node.targets) > 1:
                raise ValueError(f"'{name}' is no key of a config")
            found[name] = _literal(node.value)
    except (SyntaxError, ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"checkpoint {path}: line {line} of the config in it is more than data ({error}). It is not run, "
            "because it could be anybody's code. Name the config: "
            f"{WAYS}."
        ) from error
    return found


def changed_since(before: str, config: RunConfig, path: str | Path) -> list[Difference]:
    """What a config says otherwise than an earlier one; the folders of paths do not count.

    Args:
        before: text of the earlier one, completed.
        config: completed.
        path: where the text stands, for messages.

    Raises:
        CheckpointError: the text is more than data.
    """
    earlier = config_data(without_paths(before), path)
    return differences(plain_options(earlier), plain_options(config_data(without_paths(config.text), path)))


def trained_otherwise(meta: Mapping[str, Any], config: RunConfig, path: str | Path) -> list[Difference]:
    """In which settings of the training, besides its tasks, a config differs from that of a checkpoint.

    Args:
        meta: of the checkpoint. One of a phase, or of other code, does not tell.
        config: of a test, whose tasks may be fewer.
        path: of the checkpoint.
    """
    text = meta.get("config")
    if not text or meta.get("phase") is not None:
        return []
    alike = config.with_options({"tasks": config_data(text, path).get("tasks")})
    return [item for item in changed_since(text, alike, path) if not item.harmless]


def _literal(node: ast.expr) -> Any:
    """The value of a literal, in which dicts may be written as calls.

    Raises:
        ValueError: it is none, or a text that mmengine would replace by other text.
    """
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "dict" and len(node.args) <= 1:
        found = dict(_literal(node.args[0])) if node.args else {}
        for item in node.keywords:
            found |= {item.arg: _literal(item.value)} if item.arg else _literal(item.value)
        return found
    if isinstance(node, ast.Dict) and all(key is not None for key in node.keys):
        pairs = zip(node.keys, node.values, strict=True)
        return {_literal(key): _literal(value) for key, value in pairs if key is not None}
    if isinstance(node, ast.List | ast.Tuple):
        items = [_literal(item) for item in node.elts]
        return items if isinstance(node, ast.List) else tuple(items)
    value = ast.literal_eval(node)
    if isinstance(value, str) and "{{" in value:
        raise ValueError("a text with '{{'")
    return value

"""Reading a run's config and changing it from the command line; the only reader of mmengine's configs."""

from __future__ import annotations

import ast
import copy
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtvision.core.naming import Mistakes, UnknownNameError, gathering
from mtvision.core.registry.entries import check_kind
from mtvision.core.values import Text
from mtvision.recipe.plugin_lists import every_plugin
from mtvision.recipe.plugins import load_plugins
from mtvision.recipe.sections import DATA_SECTIONS, LOADER_DEFAULTS, TOP_LEVEL, section_defaults
from mtvision.recipe.settings import protocol_of, task_names, to_plain_data
from mtvision.recipe.shipped import find_config, package_folder
from mtvision.recipe.tasks import drop_absent_tasks

if TYPE_CHECKING:
    from mmengine.config import Config


class RunConfig(Mapping[str, Any]):
    """A completed config: every key that a config may have, as plain data. It cannot be changed.

    Entries of tasks that its `tasks` leaves out are not in it, e.g. their loss weights.
    `load_config` makes it; `with_options` makes a changed copy, which may have other tasks.

    >>> config = load_config("synthetic/demo_resnet10t_synthetic_1xb16_400")
    >>> config.name, config["protocol"]
    ('demo', 'synthetic-scenes')
    >>> config.with_options({"training.iterations": 5})["training"]["iterations"]
    5
    """

    def __init__(self, content: Config, found: Mistakes) -> None:
        load_plugins(content["plugins"])  # their names may stand anywhere in it
        self._whole = content  # with the entries of all tasks, for `with_options`
        self._content = content
        with found.at("tasks"):
            self._content = _of_its_tasks(content)
        self._plain: dict[str, Any] = to_plain_data(self._content._cfg_dict)

    def __getitem__(self, key: str) -> Any:
        return self._plain[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._plain)

    def __len__(self) -> int:
        return len(self._plain)

    @property
    def file(self) -> str:
        """Path of the file it was read from."""
        return str(self._content.filename)

    @property
    def name(self) -> str:
        """The config's `name`, or that of its file."""
        return self["name"] or Path(self.file).stem

    @property
    def text(self) -> str:
        """The completed config as Python text, the same for the same run on every machine."""
        return str(self._content.pretty_text)

    @property
    def sha256(self) -> str:
        """Hash of `text`: what a search was made with."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def with_options(self, options: Mapping[str, Any]) -> RunConfig:
        """A copy with some values replaced.

        Args:
            options: {dotted key: value}, e.g. `{"training.iterations": 100}`.

        Raises:
            UnknownNameError: the config has no such key; the message names its siblings.
            ConfigError: several mistakes.
        """
        content = copy.deepcopy(self._whole)
        with gathering(f"config {self.file}") as found:
            _override(found, content, options)
            return RunConfig(content, found)


def load_config(path: str | Path, options: Sequence[str] = (), plugins: Sequence[str] = ()) -> RunConfig:
    """Read a Python config, fill in the defaults of every section and apply `key=value` options.

    Args:
        path: a `.py` file, or the name of a shipped config (`mtvision.recipe.shipped`). Text configs and lazy
            ones (`read_base`, imported classes) both work. Variables in upper case are the file's own
            constants and no part of the config.
        options: `--cfg-options`, e.g. `training.iterations=100`; see `RunConfig.with_options`.
        plugins: `--plugin`, loaded after those that the config and its bases name. Relative paths start at
            the working folder.

    Raises:
        PluginError: a plugin cannot be used.
        FileNotFoundError: no such file or shipped config.
        UnknownNameError: a top-level key, a key of a section or an option's key is unknown.
        ValueError: the file cannot be read as a config, an option is not `key=value`.
        ConfigError: several mistakes.

    >>> config = load_config("synthetic/demo_resnet10t_synthetic_1xb16_400", ["training.iterations=100"])
    >>> config["training"]["iterations"]
    100
    """
    with gathering(f"config {path}") as found:
        return read_config(found, path, options, plugins)


def read_config(
    found: Mistakes, path: str | Path, options: Sequence[str] = (), plugins: Sequence[str] = ()
) -> RunConfig:
    """As `load_config`, but mistakes are collected; what is wrong is left out, or stays for `check_config`.

    Raises:
        PluginError, FileNotFoundError: as `load_config`.
        ValueError: the file cannot be read as a config.
    """
    file = find_config(path)
    config = _content_of(file)
    for key in [key for key in config if key not in TOP_LEVEL]:
        with found.at(key):
            config.pop(key)
            raise UnknownNameError(f"top-level key of {file.name}", key, TOP_LEVEL)
    for name, defaults in section_defaults().items():
        given = config.get(name)
        if given is None:
            given = {}
        if isinstance(given, Mapping):
            with found.at(name):
                _note_unknown(found, f"key of '{name}' in {file.name}", given, defaults)
            config[name] = {**defaults, **{key: given[key] for key in given if key in defaults}}
    for name in DATA_SECTIONS:
        if isinstance(config.get(name), Mapping):
            config[name] = {**LOADER_DEFAULTS, **config[name]}
    for name, default in TOP_LEVEL.items():
        config.setdefault(name, default)
    given_options: dict[str, Any] = {}
    for option in options:
        with found.at("--cfg-options"):
            key, value = parse_option(option)
            given_options[key] = value
    _override(found, config, given_options)
    with found.at("plugins"):
        check_kind(found, config["plugins"], list[Text])
    if found.below("plugins"):
        found.end(f"config {path}")  # names cannot be judged without them
    config["plugins"] = every_plugin(file, config["plugins"], plugins)
    return RunConfig(config, found)


def _note_unknown(found: Mistakes, what: str, given: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    for key in given:
        with found.at(key):
            if key not in known:
                raise UnknownNameError(what, key, known)


def _content_of(file: Path) -> Config:
    """What a file and its bases say.

    Raises:
        ValueError: it cannot be read as a config.
    """
    from mmengine.config import Config

    try:
        with _bases_by_import():
            config = Config.fromfile(str(file))
        for name in config._imported_names:  # `read_base` and classes, which are no settings
            config._cfg_dict.pop(name, None)
        names = list(config)  # finds what was imported and is not there
    except (SyntaxError, RuntimeError, ImportError) as error:
        reason = (
            str(error) or "a config holds data only: no function definitions and no calls of imported names"
        )
        raise ValueError(f"config {file}: {reason}") from error
    for name in [name for name in names if name.isupper()]:
        config.pop(name)
    return config


@contextmanager
def _bases_by_import() -> Iterator[None]:
    """Let mmengine find `with read_base(): from PACKAGE.… import …` as Python finds the package.

    mmengine 0.10.7 asks `pkg_resources` for it, which current setuptools no longer have, and knows no package
    whose configs lie beside it. `mtvision.configs` is the folder of the shipped configs.
    """
    from mmengine.config import config as module

    before = module.get_installed_path
    module.get_installed_path = package_folder
    try:
        yield
    finally:
        module.get_installed_path = before


def _of_its_tasks(content: Config) -> Config:
    """A copy without the entries of tasks that `tasks` leaves out; the config itself if it names no tasks.

    Raises:
        TypeError, ValueError, UnknownNameError: `tasks` or `protocol` is wrong.
    """
    if content["tasks"] is None or content["protocol"] is None:
        return content
    restricted = copy.deepcopy(content)
    restricted["tasks"] = task_names(content["tasks"])
    drop_absent_tasks(restricted._cfg_dict, protocol_of(restricted))
    return restricted


def parse_option(option: str, of: str = "--cfg-options") -> tuple[str, Any]:
    """Split `key=value`; the value is a Python literal if it reads as one, else text.

    Args:
        option: as it was typed.
        of: the command's option that it was given to, for messages.

    >>> parse_option("optimizer.lr=1e-4"), parse_option("tasks=['depth']")
    (('optimizer.lr', 0.0001), ('tasks', ['depth']))
    """
    key, separator, text = option.partition("=")
    if not separator or not key:
        raise ValueError(f"{of}: expected key=value, got {option!r}.")
    literal = {"true": "True", "false": "False", "none": "None"}.get(text, text)
    try:
        return key, ast.literal_eval(literal)
    except (SyntaxError, ValueError):
        return key, text


OPEN = ("protocol.tasks.", "training.loss_options", "evaluation.metric_options", "evaluation.during_training")
"""Dicts of a task's options, which a config states as far as they differ from the defaults."""


def _override(found: Mistakes, config: Config, options: Mapping[str, Any]) -> None:
    """Apply `--cfg-options`; a key that the config does not have is an error.

    mmengine would create the key silently and train with the old value. Dots descend into dicts and, as
    integers, into lists. Below a component (a dict with `type`) and in `OPEN` places new keys are allowed,
    because `check_config` checks them.

    Mistakes are an absent key, whose siblings are named, and a key of a plain value.
    """
    for path, value in options.items():
        *parents, last = path.split(".")
        with found.at(path):
            node: Any = config._cfg_dict
            for depth, part in enumerate(parents):
                where = ".".join(parents[:depth])
                if isinstance(node, dict) and where.startswith(OPEN):
                    node.setdefault(part, {})
                node = _child(node, part, where)
            if isinstance(node, list):
                _child(node, last, ".".join(parents))
                node[int(last)] = value
            elif isinstance(node, dict) and ("type" in node or ".".join(parents).startswith(OPEN)):
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
        raise ValueError(f"--cfg-options: {where} is {node!r} and has no key '{part}'. Set {where} itself.")
    if part not in node:
        raise UnknownNameError(f"key of {where or 'the config'}", part, node)
    return node[part]

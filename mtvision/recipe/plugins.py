"""Plugins: modules of others that register classes when they are imported.

A config names them (`plugins = ["mylab.multitask"]`), or the command line (`--plugin`). An installed package
announces them as entry points of the group `mtvision.plugins`. Those are imported only where a table has no
entry of a name. So they must not replace anything, and a broken one is left out.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module, invalidate_caches, metadata
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType

from mtvision import __version__
from mtvision.core.files.foreign import ForeignError, foreign_errors
from mtvision.core.naming import ReportedError
from mtvision.core.registry import tables
from mtvision.core.registry.outside import OUTSIDE, Origin
from mtvision.recipe.plugin_sources import PluginSource, source_files

GROUP = "mtvision.plugins"
"""Group of the entry points; each is the dotted name of a module."""

REQUIRES = "mtvision_requires"
"""Name of a plugin's constant with the versions of mtvision that it works with, e.g. `">=0.2"`."""

_log = logging.getLogger("mtvision")


class PluginError(ReportedError, ImportError):
    """A plugin cannot be used; the message is one line."""


@dataclass(frozen=True)
class Plugin:
    """A plugin of this process.

    Args:
        module: dotted name.
        path: of the file or package folder that it was given as; None for a module that Python finds itself.
        source: its files as they were when it was imported.
        distribution: name of the installed package that announces it, if one does.
    """

    module: str
    path: Path | None
    source: PluginSource
    distribution: str | None = None

    @property
    def version(self) -> str | None:
        """Of the installed package, else `__version__` of the module or its package; None without both."""
        found = _distribution_version(self) if self.path is None else None
        modules = [sys.modules.get(name) for name in (self.module, self.module.partition(".")[0])]
        texts = [vars(module).get("__version__") for module in modules if module is not None]
        return found or next((text for text in texts if isinstance(text, str)), None)


_plugins: dict[str, Plugin] = {}
"""{module: plugin} of this process."""


def plugin_entries() -> list[dict[str, str | None]]:
    """The `plugins` field of a record: `name`, `version`, `sha256` and `file` of every plugin in use."""
    return [
        {
            "name": plugin.module,
            "version": plugin.version,
            "sha256": plugin.source.sha256,
            "file": plugin.source.name,
        }
        for plugin in sorted(_plugins.values(), key=lambda item: item.module)
    ]


def resolve_plugin(text: str, folder: Path) -> str:
    """A plugin's name as it means the same everywhere: a module's name, or the absolute path of a file.

    Args:
        text: name of a module, or path of a `.py` file or of a package's folder; see `is_path`.
        folder: where relative paths start.

    Raises:
        PluginError: there is no such file or module.
    """
    if not is_path(text):
        _require_module(text, folder)
        return text
    path = Path(folder, Path(text).expanduser()).resolve()
    if path.is_dir() and not (path / "__init__.py").is_file():
        raise PluginError(f"plugin {path}: the folder has no __init__.py; name one of its files.")
    if path.is_file() and path.suffix != ".py":
        raise PluginError(f"plugin {path}: expected a .py file, the folder of a package or a module's name.")
    if not path.exists():
        names = [item.name for item in path.parent.iterdir()] if path.parent.is_dir() else []
        near = get_close_matches(path.name, names, n=1)
        hint = f" Did you mean {path.parent / near[0]}?" if near else ""
        raise PluginError(f"plugin {path} does not exist.{hint} Relative paths start at {folder.resolve()}.")
    if not path.stem.isidentifier():
        raise PluginError(
            f"plugin {path}: '{path.stem}' cannot be a module's name; use letters, digits and underscores."
        )
    return str(path)


def is_path(text: str) -> bool:
    """Whether a plugin is given as a path, with a slash or `.py` at its end, not by a module's name."""
    return "/" in text or "\\" in text or text.endswith(".py")


def load_plugins(names: Sequence[str], folder: Path | None = None) -> None:
    """Import plugins; one that is loaded already is left as it is.

    Args:
        names: names of modules and paths, see `resolve_plugin`.
        folder: where relative paths start, by default the working folder.

    Raises:
        PluginError: a plugin is not found, raises, registers a name that is taken, or needs another version
            of mtvision. What it had registered is forgotten.
    """
    for text in names:
        name = resolve_plugin(text, folder or Path.cwd())
        if name not in OUTSIDE.named:
            _load(name, named=True)
            OUTSIDE.named.append(name)


def load_announced() -> None:
    """Import the plugins that installed packages announce, once; a broken one is said and left out."""
    OUTSIDE.search = _nothing
    for entry in metadata.entry_points(group=GROUP):
        try:
            _load(entry.module, named=False, distribution=entry.dist.name if entry.dist else None)
        except PluginError as error:
            _log.warning("%s It is left out; the entry point '%s' announces it.", error, entry.name)


def _nothing() -> None:
    """Find no further entry."""


def _load(name: str, *, named: bool, distribution: str | None = None) -> None:
    path = Path(name) if is_path(name) else None
    module = name if path is None else path.stem
    if path is not None:
        _refuse_hidden(module, path)
    if module in _plugins:
        return
    if path is None:
        _require_module(module, Path.cwd())
    with _folder_first(path):
        source = source_files(module)
        _require_version(name, source.constant(REQUIRES))
        with _all_or_nothing(module), OUTSIDE.registering(Origin(module, named)):
            imported = _import(name, module, source)
            _require_version(name, vars(imported).get(REQUIRES))
    _plugins[module] = Plugin(module, path, source, distribution)


def _import(name: str, module: str, source: PluginSource) -> ModuleType:
    try:
        with foreign_errors():
            return import_module(module)
    except SystemExit as error:
        raise PluginError(f"plugin {name} ends the program when it is imported (SystemExit).") from error
    except ForeignError as error:
        raise PluginError(_in_one_line(name, module, error.error, source)) from error.error


def _in_one_line(name: str, module: str, error: Exception, source: PluginSource) -> str:
    if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
        return _not_found(module, Path.cwd())
    first = (str(error).splitlines() or [""])[0].rstrip(" .")
    kind = "" if isinstance(error, ReportedError) else f"{type(error).__name__}: "
    return f"plugin {name}: {kind}{first} ({_place(error, source)})."


def _place(error: Exception, source: PluginSource) -> str:
    """`file:line` where a plugin raised: its own last line, or the last line of all if it has none."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = [item for item in traceback.extract_tb(error.__traceback__) if not item.filename.startswith("<")]
    own = [item for item in frames if source.holds(Path(item.filename))]
    last = (own or frames)[-1]
    return f"{last.filename}:{last.lineno}"


@contextmanager
def _folder_first(path: Path | None) -> Iterator[None]:
    """Python finds the file or package, and the files beside it, inside the block."""
    if path is None:
        yield
        return
    folder = str(path.parent)
    sys.path.insert(0, folder)
    invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(folder)


@contextmanager
def _all_or_nothing(module: str) -> Iterator[None]:
    """Tables and imported modules are as before if the block raises, so that it can be tried again."""
    modules, saved = set(sys.modules), {name: table.saved() for name, table in tables().items()}
    try:
        yield
    except PluginError:
        for name, table in tables().items():
            table.restore(saved[name])
        top = module.partition(".")[0]
        for name in set(sys.modules) - modules:
            if name.partition(".")[0] == top:
                del sys.modules[name]
        raise


def _refuse_hidden(module: str, path: Path) -> None:
    """A file must not hide another module of its name, or be hidden by it."""
    loaded = sys.modules.get(module)
    if loaded is None:
        spec = find_spec(module)
        if (
            spec is None or spec.origin is None
        ):  # nothing, or a folder without __init__.py, which hides nothing
            return
        other: str | None = spec.origin
    else:
        other = vars(loaded).get("__file__")
    if other is None or Path(other).resolve() not in (path, path / "__init__.py"):
        raise PluginError(
            f"plugin {path}: another module has the name '{module}' already ({other or 'built in'}); rename "
            "the file."
        )


def _require_module(name: str, folder: Path) -> None:
    top = name.partition(".")[0]
    if top not in sys.modules and (not top or find_spec(top) is None):
        raise PluginError(_not_found(name, folder))


def _not_found(name: str, folder: Path) -> str:
    """One line that names what was probably meant."""
    near = get_close_matches(name, _known_modules(name), n=1)
    file = folder / Path(*name.split("."))
    for path in (file.with_suffix(".py"), file):
        if path.is_file() or (path / "__init__.py").is_file():
            near = [f"./{path.relative_to(folder).as_posix()}"]
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return (
        f"plugin '{name}' is not found: Python can import no module of that name.{hint} Install its package, "
        "add its folder to PYTHONPATH, or give the path of its file."
    )


def _known_modules(name: str) -> list[str]:
    """Modules beside the one that is not found, and those that entry points announce."""
    announced = [entry.module for entry in metadata.entry_points(group=GROUP)]
    parent = name.rpartition(".")[0]
    while parent and parent not in sys.modules:
        parent = parent.rpartition(".")[0]
    search = vars(sys.modules[parent]).get("__path__") if parent else None
    prefix = f"{parent}." if parent else ""
    return [*announced, *(f"{prefix}{item.name}" for item in iter_modules(search))]


def _require_version(name: str, wanted: object) -> None:
    if wanted is None:
        return
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        versions = SpecifierSet(wanted if isinstance(wanted, str) else "no text")
    except InvalidSpecifier:
        problem = f"{REQUIRES} is {wanted!r}, expected a text such as '>=0.2'"
        raise PluginError(f"plugin {name}: {problem}.") from None
    if not versions.contains(__version__, prereleases=True):
        raise PluginError(
            f"plugin {name} needs mtvision {wanted}, but this is {__version__}. Install such a version, or "
            "another version of the plugin."
        )


def _distribution_version(plugin: Plugin) -> str | None:
    top = plugin.module.partition(".")[0]
    names = [plugin.distribution] if plugin.distribution else []
    owners: Mapping[str, Sequence[str]] = {} if names else metadata.packages_distributions()
    for name in [*names, *owners.get(top, ()), top]:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


OUTSIDE.load, OUTSIDE.search = load_plugins, load_announced

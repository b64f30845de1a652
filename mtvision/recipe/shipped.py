"""The configs that come with the suite: where they are, their names, and copies that work anywhere.

In a checkout they lie in `configs/`, in an installed wheel in `mtvision/configs/`. A config is called by its
path below that folder without the ending, e.g. `mtmamba/mtmamba_swin_large_nyud_invpt_8xb1_50k`.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path

import mtvision

FOLDER = "configs"
BASES = "_base_"


def configs_folder() -> Path:
    """The folder of the shipped configs.

    Raises:
        FileNotFoundError: this installation has none.
    """
    package = Path(mtvision.__file__).parent
    for folder in (package / FOLDER, package.parent / FOLDER):
        if (folder / BASES).is_dir():
            return folder
    raise FileNotFoundError(
        f"no shipped configs in {package / FOLDER} or {package.parent / FOLDER}: install mtvision again."
    )


@dataclass(frozen=True)
class ShippedConfig:
    """A config that comes with the suite.

    Args:
        name: path below the folder without the ending.
        file: where it is.
    """

    name: str
    file: Path

    @property
    def method(self) -> str:
        """The folder it lies in."""
        return self.name.split("/")[0]

    @property
    def summary(self) -> str:
        """First line of its header."""
        text = ast.get_docstring(ast.parse(self.file.read_text(encoding="utf-8"))) or ""
        return text.split("\n")[0].rstrip(".:")


def shipped_configs() -> list[ShippedConfig]:
    """All of them in the order of their names, without the bases that they are made from."""
    root = configs_folder()
    files = sorted(path for path in root.rglob("*.py") if BASES not in path.relative_to(root).parts)
    return [ShippedConfig(path.relative_to(root).with_suffix("").as_posix(), path) for path in files]


def find_config(text: str | Path) -> Path:
    """The file that a command's CONFIG means: a path, or the name of a shipped config.

    A path that exists wins. Names may have `configs/` in front and `.py` at their end, so that commands of
    the documentation work in any folder. The last part alone is enough.

    Raises:
        FileNotFoundError: neither; the message lists near names, and the configs of the folder meant.
    """
    path = Path(text)
    return path if path.is_file() else named_config(path.as_posix()).file


def named_config(name: str) -> ShippedConfig:
    """The shipped config of a name, as `find_config` reads it.

    Raises:
        FileNotFoundError: there is none.
    """
    wanted = name.removeprefix("./").removeprefix(f"{FOLDER}/").removesuffix(".py")
    known = {item.name: item for item in shipped_configs()}
    ends = [item for item in known.values() if item.name.rpartition("/")[2] == wanted]
    if wanted in known:
        return known[wanted]
    if len(ends) == 1:
        return ends[0]
    raise FileNotFoundError(_not_found(Path(name), wanted, list(known)))


def _not_found(path: Path, wanted: str, known: list[str]) -> str:
    lines = [f"config {path} does not exist, and no shipped config has this name."]
    near = [name for name in known if name.rpartition("/")[2] == wanted]  # several: none of them is guessed
    if "/" in wanted:
        near += get_close_matches(wanted, known, n=3, cutoff=0.6)
    short = {name.rpartition("/")[2]: name for name in known}
    near += [short[item] for item in get_close_matches(wanted.rpartition("/")[2], short, n=3, cutoff=0.6)]
    if near:
        lines.append(f"Did you mean {' or '.join(list(dict.fromkeys(near))[:3])}?")
    there = sorted(path.parent.glob("*.py")) if path.parent.is_dir() else []
    if there:
        lines.append(f"In that folder: {', '.join(str(item) for item in there[:8])}.")
    lines.append("`mtvision configs list` shows the shipped ones.")
    return " ".join(lines)


_RELATIVE = re.compile(r"^(?P<indent>[ \t]*)from (?P<dots>\.+)(?P<module>[\w.]*) import ", re.MULTILINE)


def standalone_text(config: ShippedConfig) -> str:
    """The text of a config whose bases are imported from the package, so that it works in any folder.

    >>> config = named_config("parallel_tiny_synthetic_1xb16_1000")
    >>> "from .." in standalone_text(config)
    False
    """
    folders = config.name.split("/")[:-1]

    def absolute(found: re.Match[str]) -> str:
        parents = folders[: len(folders) - (len(found["dots"]) - 1)]
        module = ".".join([mtvision.__name__, FOLDER, *parents, found["module"]])
        return f"{found['indent']}from {module} import "

    return _RELATIVE.sub(absolute, config.file.read_text(encoding="utf-8"))


def package_folder(package: str) -> str:
    """Folder in which the base configs of a package are looked for: `PACKAGE.a.b` is `a/b.py` in it.

    Raises:
        ImportError: Python finds no such package.
    """
    if package == mtvision.__name__:
        return str(configs_folder().parent)
    spec = find_spec(package)
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    if not places:
        raise ImportError(f"the package '{package}' of a base config is not installed; is it on PYTHONPATH?")
    return places[0]

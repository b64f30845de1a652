"""Source files of a plugin: found without importing it, read once, hashed for records."""

from __future__ import annotations

import ast
import hashlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path


@dataclass(frozen=True)
class PluginSource:
    """Files of a plugin.

    Args:
        file: of its module; None if there is none that Python finds without importing.
        root: the file of a single module; the folder of the outermost package around any other.
        name: the file's path below the folder that holds `root`, e.g. `mylab/multitask.py`.
        sha256: of the file, for a single module. For a package: of the lines `<sha256>  <path>` of all its
            Python files in the order of their paths, as `sha256sum` prints them.
    """

    file: Path | None
    root: Path | None
    name: str | None
    sha256: str | None

    def holds(self, path: Path) -> bool:
        """Whether a file belongs to the plugin."""
        return self.root is not None and path.resolve().is_relative_to(self.root)

    def constant(self, name: str) -> str | None:
        """The text that the module, or its outermost package, assigns to a name; None if neither does."""
        files = [self.file, self.root / "__init__.py" if self.root is not None else None]
        found = (text_constant(file, name) for file in files if file is not None and file.is_file())
        return next((text for text in found if text is not None), None)


def source_files(module: str) -> PluginSource:
    """The files of a module that Python can find; neither it nor a package around it is imported.

    Args:
        module: dotted name.
    """
    top, *inner = module.split(".")
    spec = find_spec(top)
    if spec is None:
        return PluginSource(None, None, None, None)
    folders = [Path(item) for item in spec.submodule_search_locations or ()]
    if not folders:
        file = Path(spec.origin).resolve() if spec.has_location and spec.origin else None
        digest = None if file is None else hashlib.sha256(file.read_bytes()).hexdigest()
        return PluginSource(file, file, None if file is None else file.name, digest)
    for folder in folders:
        path = folder.joinpath(*inner).resolve()
        for file in (path / "__init__.py", path.with_name(f"{path.name}.py")):
            if file.is_file():
                return _in_package(file, folder.resolve())
    return PluginSource(None, None, None, None)


def _in_package(file: Path, top: Path) -> PluginSource:
    """The source of a file below a top-level folder, whose first folders may have no `__init__.py`."""
    within = file.relative_to(top).parts[:-1]
    folders = [top.joinpath(*within[:depth]) for depth in range(len(within) + 1)]
    root = next((item for item in folders if (item / "__init__.py").is_file()), file)
    files = sorted(root.rglob("*.py")) if root.is_dir() else [file]
    names = {path: path.relative_to(top.parent).as_posix() for path in files}
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {name}\n" for path, name in names.items()]
    whole = hashlib.sha256("".join(lines).encode()).hexdigest() if root.is_dir() else lines[0].split()[0]
    return PluginSource(file, root, file.relative_to(top.parent).as_posix(), whole)


def text_constant(file: Path, name: str) -> str | None:
    """The text that a file assigns to a name at its top level; None if it assigns none."""
    try:
        nodes = ast.parse(file.read_bytes()).body
    except (SyntaxError, ValueError):
        return None  # importing the file says where
    for node in nodes:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            value = node.value
            return value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else None
    return None

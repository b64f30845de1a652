"""`mtvision new KIND NAME`: a file of your own that works, and its test."""

from __future__ import annotations

import argparse
import keyword
import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from string import Template

from mtvision.cli.catalogue.common import refuse_existing
from mtvision.core.naming import look_up
from mtvision.core.registry import tables
from mtvision.core.registry.described import table_of
from mtvision.runtime.atomic import require_writable, write_text

TEMPLATES = Path(__file__).parent / "templates"

KINDS = {
    "decoder": 'model = dict(..., decoder=dict(type="$name", width=64))',
    "balancer": 'balancer = dict(type="$name")',
    "metric": 'protocol = dict(id="my-data", tasks=dict(depth=dict(metrics=["depth", "$key"])))',
    "dataset": 'train_data = dict(dataset=dict(type="$name", root="data/mine"), batch_size=8)',
    "task": 'protocol = dict(id="my-data", tasks=dict($key=dict()))',
}
"""{kind: what a config says then}."""

DESCRIPTION = """\
Write a Python file with a small class that works, and a test that holds it to the suite's properties.

  mtvision new decoder MyDecoder                my_decoder.py and test_my_decoder.py, here
  mtvision new task albedo --folder mylab       in another folder
  python -m pytest test_my_decoder.py           passes from the start
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="mtvision new", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", metavar="KIND", help=" | ".join(KINDS))
    parser.add_argument("name", metavar="NAME", help="of the class, e.g. MyDecoder; of a task, e.g. albedo")
    parser.add_argument("--folder", type=Path, default=Path(), help="where the files go (default: here)")
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    arguments = parser.parse_args(argv)
    usage = look_up("kind of file", arguments.kind, KINDS)
    names = names_of(arguments.kind, arguments.name)
    _refuse_taken(arguments.kind, names, arguments.folder)
    require_writable(arguments.folder)
    module, test = write_files(arguments.kind, names, arguments.folder, overwrite=arguments.overwrite)
    print(f"{module}\n{test}\n")
    print(f'In a config beside it:\n\n    plugins = ["./{module.name}"]')
    print(f"    {Template(usage).substitute(names)}")
    print(f"\nTest it: python -m pytest {test}")
    return 0


def names_of(kind: str, name: str) -> dict[str, str]:
    """What the templates are filled with: `name` of the class, `key` in lower case, `module`.

    >>> names_of("decoder", "MyDecoder")
    {'name': 'MyDecoder', 'key': 'my_decoder', 'module': 'my_decoder'}
    >>> names_of("task", "albedo")
    {'name': 'Albedo', 'key': 'albedo', 'module': 'albedo'}

    Raises:
        ValueError: it cannot be a name in Python.
    """
    if not name.isidentifier() or keyword.iskeyword(name):
        raise ValueError(f"name '{name}': use letters, digits and underscores, e.g. MyDecoder or albedo.")
    key = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
    title = "".join(part[:1].upper() + part[1:] for part in name.split("_"))
    if kind != "task" and name != title:
        raise ValueError(f"name '{name}': a class is written like {title}.")
    return {"name": title, "key": key, "module": key}


def _refuse_taken(kind: str, names: dict[str, str], folder: Path) -> None:
    """Refuse a name under which the file could not be registered or imported.

    Raises:
        ValueError: the suite has such an entry, or Python another module of that name.
    """
    entry = names["key" if kind in ("metric", "task") else "name"]
    if entry in table_of(kind, tables()):
        raise ValueError(
            f"{kind} '{entry}' is in the suite already (mtvision show {kind} {entry}). Give another name."
        )
    found = find_spec(names["module"])
    if found is not None and Path(found.origin or "").resolve().parent != folder.resolve():
        raise ValueError(
            f"{names['module']}.py would hide the module '{names['module']}' of Python ({found.origin}). "
            "Give another name."
        )


def write_files(kind: str, names: dict[str, str], folder: Path, *, overwrite: bool) -> tuple[Path, Path]:
    """Write the module and its test; returns their paths.

    Raises:
        FileExistsError: one of them is there already.
    """
    files = (folder / f"{names['module']}.py", folder / f"test_{names['module']}.py")
    refuse_existing(files, overwrite=overwrite)
    folder.mkdir(parents=True, exist_ok=True)
    for file, template in zip(files, (f"{kind}.txt", f"test_{kind}.txt"), strict=True):
        write_text(file, Template((TEMPLATES / template).read_text(encoding="utf-8")).substitute(names))
    return files

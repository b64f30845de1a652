"""What the source files of a package define, read without importing them.

Importing a decoder imports torch, and a backbone imports timm. That takes seconds, too long to find a
misspelt argument. Names and signatures stand in the text, so they are read from there.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from inspect import Parameter
from pathlib import Path
from typing import Annotated, Any, Literal, Optional, Union

from mtvision.core import values


@dataclass(frozen=True)
class Definition:
    """A class or function at the top level of a module.

    Args:
        module: dotted name of the module.
        name: of the class or function in it.
    """

    module: str
    name: str


def registered_names(package: str, table: str) -> dict[str, Definition]:
    """{name: definition} of what `@<table>.register_module()` decorates below a package.

    Args:
        package: dotted name of a package or module.
        table: the name that the files give the table, e.g. `DECODERS`.
    """
    pattern = re.compile(
        rf"^@{table}\.register_module\((?:[\"']([^\"']+)[\"'])?[^)]*\)\n(?:@.*\n)*(?:class|def) (\w+)",
        re.MULTILINE,
    )
    return {
        match[1] or match[2]: Definition(module, match[2])
        for module, path in _modules(package)
        for match in pattern.finditer(path.read_text(encoding="utf-8"))
    }


def parameters_of(definition: Definition) -> dict[str, Parameter]:
    """The parameters of a function, or of the `__init__` that a class has or inherits within its own package.

    Annotations and defaults are the text of the file.
    """
    return {name: item for name, (item, _) in _signature(definition).items()}


def kinds_of(definition: Definition) -> dict[str, Any]:
    """{parameter: its type}, as far as it is made of plain types and aliases of the package; else `Any`."""
    return {
        name: Any if item.annotation is Parameter.empty else _type_of(item.annotation, module)
        for name, (item, module) in _signature(definition).items()
    }


def constant_of(definition: Definition, attribute: str) -> Any:
    """The literal that a class, or a base of its own package, assigns to a name; None if none does."""
    node = _top_level(definition.module).get(definition.name)
    if not isinstance(node, ast.ClassDef):
        return None
    for item in node.body:
        if isinstance(item, ast.Assign | ast.AnnAssign) and item.value is not None:
            targets = item.targets if isinstance(item, ast.Assign) else [item.target]
            if any(isinstance(target, ast.Name) and target.id == attribute for target in targets):
                return ast.literal_eval(item.value)
    inherited = [constant_of(base, attribute) for base in bases_of(definition)]
    return next((value for value in inherited if value is not None), None)


def bases_of(definition: Definition) -> list[Definition]:
    """Where the bases of a class are defined, those within its own package."""
    node = _top_level(definition.module).get(definition.name)
    found = (
        [find(definition.module, ast.unparse(base)) for base in node.bases]
        if isinstance(node, ast.ClassDef)
        else []
    )
    return [base for base in found if base is not None]


def docstring_of(definition: Definition) -> str | None:
    """The docstring of a class or function, empty if it has none; None for anything else."""
    node = _top_level(definition.module).get(definition.name)
    known = isinstance(node, ast.ClassDef | ast.FunctionDef)
    return (ast.get_docstring(node) or "") if known else None  # type: ignore[arg-type]


def line_of(definition: Definition) -> int | None:
    """The line of its file on which a definition begins, counted from 1."""
    node = _top_level(definition.module).get(definition.name)
    return None if node is None else node.lineno


@cache
def _signature(definition: Definition) -> Mapping[str, tuple[Parameter, str]]:
    """{name: (parameter, the module whose names its annotation uses)}."""
    node = _top_level(definition.module).get(definition.name)
    if isinstance(node, ast.FunctionDef):
        return _within(definition.module, _parameters(node.args))
    if not isinstance(node, ast.ClassDef):
        return {}
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            parameters = _parameters(item.args)
            del parameters[next(iter(parameters))]  # self
            return _within(definition.module, parameters)
    inherited = [_signature(base) for base in bases_of(definition)]
    dataclass_call = next(
        (item for item in map(ast.unparse, node.decorator_list) if "dataclass" in item), None
    )
    if dataclass_call is not None:
        merged = {name: item for parameters in reversed(inherited) for name, item in parameters.items()}
        own = _fields(node, keyword_only="kw_only=True" in dataclass_call)
        return merged | _within(definition.module, own)
    return _passed_on(inherited)


def _passed_on(inherited: list[Mapping[str, tuple[Parameter, str]]]) -> dict[str, tuple[Parameter, str]]:
    """The parameters of the first base that has some; where it takes any, those of the next one are added.

    So does a mixin that passes `*args, **kwargs` on to the class behind it.
    """
    merged: dict[str, tuple[Parameter, str]] = {}
    for parameters in filter(None, inherited):
        rest = {item.kind: name for name, (item, _) in merged.items()}
        for kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD):
            merged.pop(rest.get(kind, ""), None)
        merged = {**parameters, **merged}
        if not any(item.kind is Parameter.VAR_KEYWORD for item, _ in parameters.values()):
            break
    return merged


def _within(module: str, parameters: dict[str, Parameter]) -> dict[str, tuple[Parameter, str]]:
    return {name: (item, module) for name, item in parameters.items()}


_PLAIN: dict[str, Any] = {
    item.__name__: item for item in (int, float, bool, str, list, dict, tuple, Mapping, Sequence, Path)
} | {"Any": Any, "Literal": Literal, "Annotated": Annotated, "Optional": Optional, "Union": Union}
_PLAIN |= {"Dict": dict, "List": list, "Tuple": tuple}
_PLAIN |= {name: item for name, item in vars(values).items() if name[0].isupper() and name not in _PLAIN}


def _type_of(annotation: str, module: str) -> Any:
    """The type that an annotation means, with `Other` for every class in it that is no plain type."""
    names = {node.id for node in ast.walk(ast.parse(annotation, mode="eval")) if isinstance(node, ast.Name)}
    space: dict[str, Any] = {"__builtins__": {}}
    for name in names:
        alias = find(module, name)
        text = value_of(alias) if alias is not None else None
        if name in _PLAIN:
            space[name] = _PLAIN[name]
        else:
            space[name] = values.Other if alias is None or text is None else _type_of(text, alias.module)
    try:
        return eval(annotation, space)  # our own text, with nothing in reach but the types above
    except (TypeError, AttributeError):  # e.g. `np.ndarray`
        return Any


def find(module: str, name: str) -> Definition | None:
    """Where a name that a module uses is defined; None outside the module's own top-level package."""
    node = _top_level(module).get(name)
    if not isinstance(node, ast.ImportFrom):
        return None if node is None else Definition(module, name)
    source = node.module or ""
    if node.level:
        source = ".".join([*module.split(".")[: -node.level], source])
    if source.partition(".")[0] != module.partition(".")[0]:
        return None
    original = next(item.name for item in node.names if (item.asname or item.name) == name)
    return find(source, original)


def value_of(definition: Definition) -> str | None:
    """The text of what a module assigns to a name, e.g. of a type alias; None for anything else."""
    node = _top_level(definition.module).get(definition.name)
    return ast.unparse(node.value) if isinstance(node, ast.Assign) else None


def exported_names(package: str) -> dict[str, Definition]:
    """{name: where it is imported from} of the imports in a package's `__init__.py`."""
    return {
        name: Definition(node.module, item.name)
        for name, node in _top_level(package).items()
        if isinstance(node, ast.ImportFrom) and node.module is not None
        for item in node.names
        if (item.asname or item.name) == name
    }


def file_of(module: str) -> Path | None:
    """The source file of a module or package; neither it nor a package around it is imported."""
    top, *inner = module.split(".")
    spec = find_spec(top)
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0], *inner)
    candidates = (path / "__init__.py", path.with_name(f"{path.name}.py"))
    return next((item for item in candidates if item.is_file()), None)


def loaded_file(module: str) -> Path | None:
    """The file of a module: where it was imported from, or its source file if it is not imported."""
    if module not in sys.modules:
        return file_of(module)
    file = vars(sys.modules[module]).get("__file__")
    return Path(file) if file else None


def _modules(package: str) -> Iterator[tuple[str, Path]]:
    """Dotted name and file of a package's modules, in the order of their names."""
    file = file_of(package)
    if file is None:
        raise ModuleNotFoundError(f"no package {package}; is it installed, or its folder on PYTHONPATH?")
    if file.name != "__init__.py":
        yield package, file
        return
    for path in sorted(file.parent.rglob("*.py")):
        parts = path.relative_to(file.parent).with_suffix("").parts
        yield ".".join((package, *(part for part in parts if part != "__init__"))), path


@cache
def _top_level(module: str) -> dict[str, ast.stmt]:
    """{name: the statement that binds it} of a module, `if TYPE_CHECKING` included."""
    file = file_of(module)
    if file is None:
        return {}
    bound: dict[str, ast.stmt] = {}
    waiting: list[ast.stmt] = list(reversed(ast.parse(file.read_text(encoding="utf-8")).body))
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If):
            waiting += reversed(node.body)
        elif isinstance(node, ast.ImportFrom):
            bound |= {item.asname or item.name: node for item in node.names}
        elif isinstance(node, ast.ClassDef | ast.FunctionDef):
            bound[node.name] = node
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            bound[node.targets[0].id] = node
    return bound


def _fields(node: ast.ClassDef, *, keyword_only: bool) -> dict[str, Parameter]:
    """The parameters that `@dataclass` makes of a class's fields."""
    return {
        item.target.id: Parameter(
            item.target.id,
            Parameter.KEYWORD_ONLY if keyword_only else Parameter.POSITIONAL_OR_KEYWORD,
            default=Parameter.empty if item.value is None else ast.unparse(item.value),
            annotation=ast.unparse(item.annotation),
        )
        for item in node.body
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
        if not ast.unparse(item.annotation).startswith("ClassVar")
        if item.value is None or "init=False" not in ast.unparse(item.value)
    }


def _parameters(arguments: ast.arguments) -> dict[str, Parameter]:
    positional = [*arguments.posonlyargs, *arguments.args]
    optional = {
        item.arg: ast.unparse(default)
        for item, default in [
            *zip(reversed(positional), reversed(arguments.defaults), strict=False),
            *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
        ]
        if default is not None
    }
    found: list[tuple[ast.arg, Any]] = [(item, Parameter.POSITIONAL_OR_KEYWORD) for item in positional]
    if arguments.vararg is not None:
        found.append((arguments.vararg, Parameter.VAR_POSITIONAL))
    found += [(item, Parameter.KEYWORD_ONLY) for item in arguments.kwonlyargs]
    if arguments.kwarg is not None:
        found.append((arguments.kwarg, Parameter.VAR_KEYWORD))
    return {
        item.arg: Parameter(
            item.arg,
            kind,
            default=optional.get(item.arg, Parameter.empty),
            annotation=Parameter.empty if item.annotation is None else ast.unparse(item.annotation),
        )
        for item, kind in found
    }

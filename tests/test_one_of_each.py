"""What exists once: the way to write a file, a lock, a progress bar. Each list below may shrink, not grow."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILES = sorted([*(ROOT / "mtvision").rglob("*.py"), *(ROOT / "tools").glob("*.py")])

ATOMIC = "mtvision/runtime/atomic.py"
RENAMES = {  # files that may rename or make temporary files on their own, and why
    ATOMIC: "the one writer",
    "mtvision/core/compiled/library.py": "the compiler writes the file itself",
}
DIRECT_WRITES = {  # files that may write by other means, and why
    "mtvision/cli/compare_runs.py": "the log of a process",
    "mtvision/data/speed.py": "temporary files of a benchmark",
    "mtvision/cli/machine/engine_speed.py": "temporary files of a benchmark",
    "mtvision/core/files/arrays.py": "a part of an archive, into a file that its caller opened",
    "mtvision/metrics/boundary/runner.py": "`metrics` may not read `runtime`; a reader finds damage",
    "mtvision/evaluation/predict/video.py": "an encoder, into a temporary file of `atomic_path`",
}
TEMPORARY_FILES = {"mkstemp", "mktemp", "NamedTemporaryFile", "rename", "renames"}
WRITERS = {
    "write_text",
    "write_bytes",
    "imwrite",
    "savefig",
    "savez",
    "savez_compressed",
    "save_file",
    "tofile",
}
OURS = {"file", "temporary"}
"""What a block calls the result of `atomic_file` and `atomic_path`."""


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """Everything in the syntax tree of a file."""
    return tuple(ast.walk(ast.parse(path.read_text())))


def found_in_files(wanted: Callable[[ast.Call], bool]) -> dict[str, list[int]]:
    """{file: lines of the calls that are wanted}."""
    found = {}
    for path in FILES:
        lines = [node.lineno for node in nodes(path) if isinstance(node, ast.Call) and wanted(node)]
        if lines:
            found[path.relative_to(ROOT).as_posix()] = lines
    return found


def imports(path: Path) -> set[str]:
    """Top names of the packages that a file imports."""
    names = [alias.name for node in nodes(path) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in nodes(path) if isinstance(node, ast.ImportFrom)]
    return {name.split(".")[0] for name in names}


def renames(call: ast.Call) -> bool:
    called = ast.unparse(call.func)
    name = called.split(".")[-1]
    # str.replace has two arguments, dataclasses.replace and datetime.replace have keywords
    of_a_path = "." in called and name == "replace" and len(call.args) == 1 and not call.keywords
    return name in TEMPORARY_FILES or called == "os.replace" or of_a_path


def writes(call: ast.Call) -> bool:
    receiver, _, name = ast.unparse(call.func).rpartition(".")
    first = call.args[0] if call.args else None
    if name == "open":  # the mode is a keyword, the only argument, or the one after the path
        modes = [item.value for item in [*call.args, *call.keywords] if isinstance(item, ast.Constant)]
        modes += [item.value.value for item in call.keywords if isinstance(item.value, ast.Constant)]
        texts = [item for item in modes if isinstance(item, str) and set(item) <= set("rwxabt+")]
        return receiver != "temporary" and any(set(item) & set("wx") for item in texts)
    ours = receiver in OURS or (isinstance(first, ast.Name) and first.id in OURS)
    return bool(receiver) and name in WRITERS and not ours


def test_one_module_renames_files():
    found = found_in_files(renames)
    assert found.keys() == RENAMES.keys(), f"use mtvision.runtime.atomic: {found}"


def test_results_are_written_by_the_one_writer():
    found = found_in_files(writes)
    assert found.keys() == DIRECT_WRITES.keys(), f"use mtvision.runtime.atomic: {found}"


def test_one_module_locks_files():
    files = [path.relative_to(ROOT).as_posix() for path in FILES if {"filelock", "fcntl"} & imports(path)]
    assert files == ["mtvision/runtime/lock.py"]


def test_tables_need_scipy_only_for_paired_differences():
    code = "import sys, mtvision.report.paired, mtvision.report.table; sys.exit('scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_one_module_shows_progress():
    """Others may name rich's types, but only one builds bars or writes to stderr through a console."""

    def builds(call: ast.Call) -> bool:
        name = ast.unparse(call.func).split(".")[-1]
        to_stderr = any(keyword.arg == "stderr" for keyword in call.keywords)
        return name in {"Progress", "tqdm", "Status"} or (name == "Console" and to_stderr)

    assert found_in_files(builds).keys() == {"mtvision/runtime/progress.py"}
    users = [path for path in FILES if "Console()" in path.read_text()]
    assert {path.parent.relative_to(ROOT).parts[:2] for path in users} <= {
        ("mtvision", "cli"),
        ("mtvision", "runtime"),
    }


OWN_WALKS = {  # files that list folders on their own, and why; data goes through `mtvision.core.files`
    "mtvision/core/files/names.py": "the one finder",
    "mtvision/core/files/walk.py": "the one finder",
    "mtvision/core/registry/sources.py": "Python files of a package",
    "mtvision/recipe/plugin_sources.py": "Python files of a package",
    "mtvision/recipe/plugins.py": "Python files, for a hint",
    "mtvision/recipe/shipped.py": "configs of the suite",
    "mtvision/cli/compare_runs.py": "code of two checkouts",
    "mtvision/cli/run_differences.py": "files of the suite's runs, by exact name",
    "mtvision/data/coco/fields.py": "looks names up, many per folder",
    "mtvision/engine/runner.py": "whether a folder is empty",
    "mtvision/engine/run_dir/start.py": "whether a folder is empty",
    "mtvision/runtime/atomic.py": "temporary files of the suite's own writes",
    "mtvision/runtime/whole.py": "checkpoints of a run, by exact name",
    "mtvision/evaluation/prediction_files.py": "whether a folder is empty",
    "mtvision/evaluation/predict/inputs.py": "patterns of the command line",
    "mtvision/evaluation/predict/outputs.py": "whether a folder is empty",
}
WALKS = {"os.walk", "os.scandir", "os.listdir", "glob.glob", "glob.iglob"}

OWN_LINES = {  # files that break the text of a file into lines on their own, and why
    "mtvision/cli/compare_runs.py": "a log of the suite",
    "mtvision/cli/run_differences.py": "a log of the suite",
    "mtvision/engine/hooks.py": "a log of the suite",
    "mtvision/metrics/boundary/speed.py": "the kernel's description of a process",
    "mtvision/ops/scan/benchmark.py": "the kernel's description of a process",
    "mtvision/core/compiled/library.py": "the kernel's description of the processor",
    "mtvision/recipe/selection.py": "a log of the suite",
    "mtvision/report/leaderboard/runs.py": "a log of the suite",
    "mtvision/sweep/local.py": "a log of the suite",
    "mtvision/sweep/summary.py": "a log of the suite",
}


def test_one_finder_lists_folders_of_data():
    def lists(call: ast.Call) -> bool:
        called = ast.unparse(call.func)
        return called in WALKS or called.split(".")[-1] in {"rglob", "iterdir"}

    found = found_in_files(lists)
    assert found.keys() == OWN_WALKS.keys(), f"use mtvision.core.files.find: {found}"


def test_one_reader_breaks_files_into_lines():
    def breaks(call: ast.Call) -> bool:
        receiver, _, name = ast.unparse(call.func).rpartition(".")
        reads = any(f".{source}(" in receiver for source in ("read_text", "read", "read_bytes", "decode"))
        return name in {"splitlines", "readlines"} and reads

    found = found_in_files(breaks)
    assert found.keys() == OWN_LINES.keys(), f"use mtvision.core.files.text: {found}"


BROAD = {  # files that catch every exception, once each, and why; never more than three
    "mtvision/core/files/foreign.py": "libraries that raise anything",
    "mtvision/testing/battery.py": "what the class under test raises is the finding",
    "mtvision/testing/processes.py": "what a pretended process raises is raised again where it was started",
}


def test_few_places_catch_every_exception():
    assert len(BROAD) <= 3
    broad = []
    for path in FILES:
        for node in nodes(path):
            if isinstance(node, ast.ExceptHandler):
                caught = [] if node.type is None else ast.walk(node.type)
                names = {item.id for item in caught if isinstance(item, ast.Name)}
                if node.type is None or names & {"Exception", "BaseException"}:
                    broad.append(path.relative_to(ROOT).as_posix())
    assert broad == sorted(BROAD)


PROBES = {  # {file: (how many it has, why)}
    "mtvision/ops/flops.py": (1, "an operator that only some versions of torch have"),
    "mtvision/data/transforms/albumentations_adapter.py": (1, "a method that only new albumentations have"),
    "mtvision/models/weights.py": (1, "timm itself finds the conversion of a model in this way"),
    "mtvision/data/pictures.py": (1, "a module that only new versions of OpenCV have"),
    "mtvision/ops/scan/operator.py": (1, "a function that torch has since 2.5"),
    "mtvision/sweep/local.py": (1, "a function that only some systems have"),
}


def test_attributes_are_declared_and_not_probed():
    """No `hasattr`, no `getattr` of a fixed name: declare an interface and ask for that."""

    def probes(call: ast.Call) -> bool:
        if not isinstance(call.func, ast.Name):
            return False
        fixed = len(call.args) > 1 and isinstance(call.args[1], ast.Constant)
        return call.func.id == "hasattr" or (call.func.id == "getattr" and fixed)

    found = {file: len(lines) for file, lines in found_in_files(probes).items()}
    assert found == {file: count for file, (count, _) in PROBES.items()}


def test_objects_keep_their_class():
    found = [
        f"{path.relative_to(ROOT).as_posix()}:{node.lineno}"
        for path in FILES
        for node in nodes(path)
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).endswith(".__class__")
    ]
    assert found == []


def test_one_reader_checks_the_numbers_of_options():
    """`numeric` of `mtvision.cli.common` says a range; `int` takes -1 for a number of images."""

    def unchecked(call: ast.Call) -> bool:
        return ast.unparse(call.func).endswith("add_argument") and any(
            item.arg == "type" and ast.unparse(item.value) in ("int", "float") for item in call.keywords
        )

    assert found_in_files(unchecked) == {}

"""`examples/outside` is a repository that a stranger copies: installed, tested, trained, and in a table."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from installed import Environment, build_wheel

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "outside"
PAGE = ROOT / "docs" / "how_to" / "your_own_repository.md"
MOST_LINES = 60


def sources() -> list[Path]:
    return sorted(path for path in EXAMPLE.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """A copy outside this checkout, installed beside a wheel of mtvision: (environment, folder)."""
    folder = tmp_path_factory.mktemp("outside")
    copy = shutil.copytree(EXAMPLE, folder / "mylab", ignore=shutil.ignore_patterns("__pycache__"))
    return Environment(folder / "environment", build_wheel(folder), copy), copy


@pytest.mark.slow
def test_its_own_tests_pass(example):
    environment, folder = example
    said = environment.run("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=folder)
    assert re.search(r"\d\d passed", said)
    assert "failed" not in said
    assert "skipped" not in said


@pytest.mark.slow
def test_its_config_trains_anywhere_and_its_row_is_in_a_table(example, tmp_path):
    environment, folder = example
    where = environment.run("python", "-c", "import mtvision; print(mtvision.__file__)", cwd=tmp_path)
    assert str(environment.scripts.parent) in where
    shown = environment.run("mtvision", "show", "decoder", "GatedDecoder", cwd=tmp_path)
    assert "mylab" in shown  # found by its entry point
    config = folder / "configs" / "albedo_discs.py"
    options = ["training.iterations=20", "training.checkpoint_interval=20"]
    environment.run("mtvision", "train", config, "--work-dir", "run", "--cfg-options", *options, cwd=tmp_path)
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert record["missing"] == record["failures"] == []
    (plugin,) = record["plugins"]
    assert (plugin["name"], plugin["version"], plugin["file"]) == ("mylab", "0.1.0", "mylab/__init__.py")
    assert re.fullmatch(r"[0-9a-f]{64}", plugin["sha256"])
    task = next(item for item in record["tasks"] if item["name"] == "albedo")
    assert (task["metric"], task["headline"]) == ("albedo_error", "si_rmse")
    assert [item["metric"] for item in task["further_metrics"]] == ["values"]
    assert set(record["scores"]["albedo"]) == {"si_rmse", "mae", "rmse"}
    assert len(list((tmp_path / "run" / "pictures").glob("*.png"))) == 2
    table = environment.run("mtvision", "table", "run", "--format", "markdown", cwd=tmp_path)
    assert "| gated" in table
    assert "albedo si\\_rmse" in table


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.relative_to(EXAMPLE).as_posix())
def test_its_files_are_short(path):
    assert len(path.read_text().splitlines()) <= MOST_LINES


def test_the_page_shows_its_files():
    """A block with a title is a part of that file, to the letter."""
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r'^```\w+ title="([^"]+)"\n(.*?)^```', text, flags=re.DOTALL | re.MULTILINE)
    assert {"pyproject.toml", "mylab/decoder.py", "configs/albedo_discs.py"} <= {name for name, _ in blocks}
    for name, block in blocks:
        assert block in (EXAMPLE / name).read_text(encoding="utf-8"), name


def test_the_page_names_every_file():
    text = PAGE.read_text(encoding="utf-8")
    assert [name for path in sources() if (name := path.relative_to(EXAMPLE).as_posix()) not in text] == []

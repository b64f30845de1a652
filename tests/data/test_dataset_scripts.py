"""Each data set has a page and a script, and the scripts prepare and check miniature copies."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "datasets"
PAGES = [
    "bsds_sod", "camvid", "cityscapes", "mosd", "mtan_npy", "nyudv2", "pascal_context", "synthetic",
]  # fmt: skip


def run(name, *arguments):
    """Exit code and what was printed, on one line."""
    environment = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(FOLDER.parent), "COLUMNS": "200"}
    done = subprocess.run(
        ["bash", str(FOLDER / f"{name}.sh"), *map(str, arguments)],
        capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def test_every_data_set_has_a_page_and_a_script():
    pages = {path.stem for path in FOLDER.glob("*.md")} - {"own_data"}  # which is about data of any kind
    assert pages == {path.stem for path in FOLDER.glob("*.sh")}
    assert pages == set(PAGES)
    assert all(os.access(path, os.X_OK) for path in FOLDER.glob("*.sh"))


@pytest.mark.parametrize("name", PAGES)
def test_scripts_say_what_they_need(name):
    code, printed = run(name)
    assert code == 2
    assert "usage:" in printed
    assert f"datasets/{name}.md" in printed


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["nyudv2", *(pytest.param(name, marks=pytest.mark.long) for name in ("cityscapes", "pascal_context"))],
)
def test_scripts_prepare_and_check(miniature, tmp_path, name):
    """The copies are miniatures, and their numbers and sizes all that the check finds wrong."""
    release = {
        "nyudv2": lambda: miniature.nyu_release(tmp_path, count=5),
        "pascal_context": lambda: miniature.voc_release(tmp_path / "downloads"),
        "cityscapes": lambda: miniature.cityscapes_zips(tmp_path),
    }[name]()
    code, printed = run(name, release, tmp_path / "data", "--any-count", "--workers", "1", "--quiet")
    assert "Complete. Next: tools/check_dataset.py." in printed
    assert "images, the protocol has" in printed
    assert code == 1
    assert (tmp_path / "data" / f"{name}_train.png").is_file()  # the sheet of samples


@pytest.mark.slow
def test_sets_of_mtan_are_checked_as_unpacked(miniature, tmp_path):
    miniature.mtan(tmp_path / "nyuv2_mtan")
    miniature.mtan(tmp_path / "cityscapes_mtan", kind="cityscapes")
    code, printed = run("mtan_npy", tmp_path, "--workers", "1", "--quiet")
    assert code == 1
    assert "12 images, the protocol has 795" in printed
    assert "12 images, the protocol has 2975" in printed
    assert {path.name for path in tmp_path.glob("*_train.png")} >= {
        "nyuv2-mtan_train.png",
        "cityscapes-mtan-7_train.png",
    }


@pytest.mark.slow
def test_synthetic_scenes_are_checked(tmp_path):
    code, printed = run("synthetic", tmp_path, "--limit", "4", "--workers", "1", "--quiet")
    assert code == 0, printed
    assert (tmp_path / "synthetic_train.png").is_file()

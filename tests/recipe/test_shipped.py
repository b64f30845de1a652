"""Shipped configs: found by name from anywhere, copied and inherited from anywhere, and inside the wheel."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from installed import build_wheel
from sampling import sampled

from mtvision.cli.main import command_line
from mtvision.recipe import shipped
from mtvision.recipe.config import load_config
from mtvision.recipe.shipped import (
    configs_folder,
    find_config,
    named_config,
    shipped_configs,
    standalone_text,
)

ROOT = Path(__file__).parents[2]
TINY = "mtmamba/mtmamba_tiny_synthetic_1xb8_300"


def test_all_configs_have_names_and_first_lines():
    files = [path for path in (ROOT / "configs").rglob("*.py") if "_base_" not in path.parts]
    found = shipped_configs()
    assert [item.file for item in found] == sorted(files)
    assert len({item.name for item in found}) == len(found)
    assert all(item.summary and item.name.startswith(f"{item.method}/") for item in found)


@pytest.mark.parametrize(
    "text",
    [
        TINY,
        f"{TINY}.py",
        f"configs/{TINY}.py",
        f"./configs/{TINY}.py",
        "mtmamba_tiny_synthetic_1xb8_300",
        "mtmamba_tiny_synthetic_1xb8_300.py",
        str(ROOT / "configs" / f"{TINY}.py"),
    ],
)
def test_a_name_works_in_any_folder(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_config(text) == ROOT / "configs" / f"{TINY}.py"
    assert load_config(text).name == "mtmamba"


def test_a_file_that_exists_wins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = Path("configs") / f"{TINY}.py"
    file.parent.mkdir(parents=True)
    file.write_text('name = "mine"\n')
    assert find_config(file) == file
    assert load_config(str(file)).name == "mine"


def test_a_misspelt_name_lists_near_ones_and_what_lies_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"Did you mean {TINY}"):
        find_config("mtmamba_tiny_synthetic_1xb8_30")
    (tmp_path / "here.py").touch()
    with pytest.raises(FileNotFoundError, match=r"In that folder: .*here\.py"):
        find_config(tmp_path / "there.py")


def test_two_configs_of_one_last_part_are_not_guessed(tmp_path, monkeypatch):
    for folder in ("_base_", "a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same.py").write_text('"""One."""\n')
    monkeypatch.setattr(shipped, "configs_folder", lambda: tmp_path)
    assert find_config("a/same") == tmp_path / "a" / "same.py"
    with pytest.raises(FileNotFoundError, match="Did you mean a/same or b/same"):
        find_config("same")


@pytest.mark.parametrize("config", sampled(list(shipped_configs())), ids=lambda item: item.name)
def test_copies_say_the_same_elsewhere(config, tmp_path):
    """A copy inherits by import; its completed text is that of the original, to the letter."""
    copy = tmp_path / config.file.name
    copy.write_text(standalone_text(config))
    assert load_config(copy).text == load_config(config.file).text


def test_inheritance_from_a_package_of_ones_own(tmp_path, monkeypatch):
    package = tmp_path / "mylab" / "recipes"
    package.mkdir(parents=True)
    (tmp_path / "mylab" / "__init__.py").touch()
    (package / "base.py").write_text(
        "from mmengine.config import read_base\n\nwith read_base():\n"
        "    from mtvision.configs._base_.synthetic_four_tasks import optimizer, protocol, train_data\n"
        "optimizer.update(lr=0.25)\n"
    )
    leaf = tmp_path / "elsewhere" / "leaf.py"
    leaf.parent.mkdir()
    leaf.write_text(
        "from mmengine.config import read_base\n\nwith read_base():\n"
        "    from mylab.recipes.base import optimizer, protocol, train_data\n"
        "train_data.update(batch_size=3)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    config = load_config(leaf)
    assert config["optimizer"]["lr"] == 0.25
    assert config["train_data"]["batch_size"] == 3
    assert config["protocol"] == load_config(TINY)["protocol"]


def test_a_base_that_is_not_installed_is_named(tmp_path):
    leaf = tmp_path / "leaf.py"
    leaf.write_text(
        "from mmengine.config import read_base\n\n"
        "with read_base():\n    from nobody.recipes.base import optimizer\n"
    )
    with pytest.raises(ValueError, match=r"leaf\.py: the package 'nobody' of a base config is not installed"):
        load_config(leaf)


def test_the_command_lists_shows_and_copies(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert command_line(["configs", "list", "MTMamba", "tiny", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert TINY in [item["name"] for item in listed]
    assert all("tiny" in item["name"] for item in listed)
    assert command_line(["configs", "list", "no such word"]) == 0
    assert "no shipped config holds 'no such word'" in capsys.readouterr().out
    assert command_line(["configs", "show", TINY]) == 0
    assert capsys.readouterr().out.strip() == named_config(TINY).file.read_text().strip()
    assert command_line(["configs", "show", TINY, "--completed"]) == 0
    assert "keep_checkpoints" in capsys.readouterr().out
    assert command_line(["configs", "copy", TINY, "my/own.py"]) == 0
    assert capsys.readouterr().out.strip() == str(Path("my/own.py"))
    assert load_config("my/own.py").text == load_config(TINY).text
    assert command_line(["configs", "copy", TINY, "my/own.py"]) == 2
    assert "my/own.py exists; give another name" in capsys.readouterr().err
    assert command_line(["configs", "copy", TINY, "my"]) == 0
    assert (tmp_path / "my" / "mtmamba_tiny_synthetic_1xb8_300.py").is_file()
    assert command_line(["configs", "show", "mtmamba_tiny"]) == 2


def in_wheel(site, folder, *arguments):
    """A command of the package in `site`, in an empty folder, with nothing of the checkout on the path."""
    code = (
        "import sys, mtvision; from mtvision.cli.main import command_line; "
        f"assert mtvision.__file__.startswith({str(site)!r}), mtvision.__file__; "
        "sys.exit(command_line(sys.argv[1:]))"
    )
    environment = os.environ | {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-P", "-c", code, *map(str, arguments)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.slow
def test_the_wheel_holds_the_configs_and_trains_by_name(tmp_path):
    wheel = build_wheel(tmp_path)
    site, folder = tmp_path / "site", tmp_path / "empty"
    folder.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(site)
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*.py")}  # bases, too
    assert {f"mtvision/{name}" for name in files} <= set(names)
    listed = in_wheel(site, folder, "configs", "list", "--json")
    assert listed.returncode == 0, listed.stderr
    assert [item["name"] for item in json.loads(listed.stdout)] == [item.name for item in shipped_configs()]
    options = ["training.iterations=10", "train_data.batch_size=2", "train_data.dataset.length=8"]
    options += ["train_data.num_workers=0", "test_data.dataset.length=2", "evaluation.pictures=0"]
    options += ["val_data.dataset.length=2", "training.val_interval=0", "evaluation.constant_predictor=2"]
    name = "parallel/parallel_tiny_synthetic_1xb8_300"
    validated = in_wheel(site, folder, "validate", name, "--cfg-options", *options)
    assert validated.returncode == 0, validated.stderr[-3000:]
    assert not (folder / "run").exists()
    trained = in_wheel(site, folder, "train", name, "--work-dir", "run", "--cfg-options", *options)
    assert trained.returncode == 0, trained.stderr[-3000:]
    record = json.loads((folder / "run" / "record.json").read_text())
    assert record["training"]["iterations"] == 10
    table = in_wheel(site, folder, "table", "run", "--format", "markdown")
    assert table.returncode == 0, table.stderr
    assert "| parallel" in table.stdout


def test_an_installation_without_configs_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(shipped.mtvision, "__file__", str(tmp_path / "mtvision" / "__init__.py"))
    with pytest.raises(FileNotFoundError, match="install mtvision again"):
        configs_folder()

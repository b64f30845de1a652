"""`mtvision doctor`: what is wrong with a machine is said, with what to do."""

from __future__ import annotations

import importlib
import importlib.util
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mtvision.cli.main import command_line
from mtvision.procedures.doctor import machine, sets, software
from mtvision.procedures.doctor.check import Check, tried

GIB = 1024**3


@pytest.fixture
def miniature(monkeypatch):
    """Makes data sets in their published layout."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "data")
    return importlib.import_module("miniature")


def levels(checks):
    return {check.name: check.level for check in checks}


def test_a_sound_machine_has_no_problem(tmp_path):
    found = list(machine.machine(tmp_path / "new"))
    assert "problem" not in levels(found).values()
    assert not (tmp_path / "new").exists()
    assert (
        dict(next(item for item in found if item.name == "versions").facts)["torch"]
        == torch.__version__.split("+")[0]
    )


def test_a_container_with_little_shared_memory_is_a_problem(tmp_path, monkeypatch):
    monkeypatch.setattr(
        shutil, "disk_usage", lambda _: SimpleNamespace(total=64 * 1024**2, free=64 * 1024**2)
    )
    (check,) = machine._shared_memory(tmp_path)
    assert (check.level, check.text) == ("problem", "0.06 GiB")
    assert "--shm-size" in check.remedy
    assert machine._disk("work dir", tmp_path).level == "note"
    assert list(machine._shared_memory(tmp_path / "none")) == []


def test_memory_of_a_container_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "_physical", lambda: 64 * GIB)
    limit = tmp_path / "memory.max"
    for text, expected in (("max\n", None), (f"{4 * GIB}\n", 4 * GIB), (f"{100 * GIB}\n", None)):
        limit.write_text(text)
        assert machine._limit_of_container(limit) == expected
    monkeypatch.setattr(machine, "_limit_of_container", lambda: 4 * GIB)
    assert (machine._memory().level, machine._memory().text) == ("note", "4.0 GiB")


def test_a_driver_without_a_build_for_it_is_a_problem(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/nvidia-smi")
    assert levels(machine._gpus()) == {"GPU": "problem"}
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert levels(machine._gpus()) == {"GPU": "note"}


def test_a_folder_that_cannot_be_written_is_a_problem(tmp_path):
    (tmp_path / "file").write_text("")
    check = machine._disk("work dir", tmp_path / "file" / "runs")
    assert check.level == "problem"
    assert "file" in check.text


def test_a_missing_package_says_what_it_is_for(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "wandb" else found(name))
    check = next(item for item in software.software() if item.name == "wandb")
    assert (check.level, check.remedy) == ("note", "pip install 'mtvision[wandb]'")


def test_a_kernel_that_computes_something_else_is_a_problem(monkeypatch):
    real = software.selective_scan

    def broken(*inputs, backend, **options):
        return real(*inputs, backend=backend, **options) * (1.001 if backend == "torch" else 1)

    assert levels(software._scans())["scan: torch"] == "ok"
    monkeypatch.setattr(software, "selective_scan", broken)
    assert levels(software._scans())["scan: torch"] == "problem"


def test_data_sets_are_found_and_opened(tmp_path, monkeypatch, miniature):
    monkeypatch.chdir(tmp_path)
    absent = levels(sets.data_sets())
    assert set(absent.values()) == {"note"}
    miniature.nyud(Path("data") / "NYUDv2", size=(35, 46))
    found = {check.name: check for check in sets.data_sets()}
    assert set(absent) - set(found) == {"data/NYUDv2"}
    check = found["data/NYUDv2 (nyud_invpt)"]
    assert check.level == "problem"  # a miniature has fewer images than the published set
    assert "795" in check.text


def test_an_error_in_a_look_is_a_problem_and_not_the_end():
    def look():
        yield Check("a", "ok", "fine")
        raise KeyError("b")

    first, second = tried("data", look, "Look there.")
    assert (first.level, second.level, second.remedy) == ("ok", "problem", "Look there.")
    assert "KeyError" in second.text


@pytest.mark.parametrize("section", ["software"])
def test_json_and_nothing_else(section, capsys):
    code = command_line(["doctor", "--only", section, "--json"])
    content = json.loads(capsys.readouterr().out)
    assert code == 0
    assert (content["problems"], sorted(content)) == (0, ["config", "problems", section])


@pytest.mark.slow
def test_a_short_run_and_its_speed(capsys):
    small = ["--cfg-options", "train_data.dataset.length=4", "train_data.batch_size=2"]
    code = command_line(["doctor", "--only", "test", "speed", "--json", *small])
    content = json.loads(capsys.readouterr().out)
    assert code == 0, content
    assert [item["name"] for item in content["test"]] == ["build", "data", "step", "score"]
    (check,) = content["speed"]
    assert check["facts"]["batch_size"] == 2
    assert (check["level"] == "note") == (check["facts"]["loading"] < check["facts"]["training"])

"""Merging of files stays within 2.2 times one checkpoint of memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mtvision.merge.files import StateFile
from mtvision.runtime.checkpoint import save_checkpoint

ROOT = Path(__file__).parents[2]
TENSORS, SHAPE = 50, (1024, 1024)
SIZE = TENSORS * 4 * 1024 * 1024
"""Bytes of one checkpoint."""


def states(folder, ending, count=4):
    """Files of a base and its children."""
    paths = []
    for seed in range(count):
        stream = torch.Generator().manual_seed(seed)
        state = {f"layer.{index}": torch.rand(SHAPE, generator=stream) for index in range(TENSORS)}
        paths.append(folder / f"{seed}{ending}")
        if ending == ".pth":
            save_checkpoint(paths[-1], {"meta": {}, "state_dict": state})
        else:
            save_file(state, paths[-1])
    return paths


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize(
    ("ending", "method"),
    [pytest.param(".pth", "ties", marks=pytest.mark.long), (".safetensors", "task_arithmetic")],
)
def test_three_parents_of_200_megabytes(tmp_path, ending, method):
    base, *parents = states(tmp_path, ending)
    done = subprocess.run(
        [
            sys.executable,
            ROOT / "tests/support/measure_merge.py",
            method,
            base,
            tmp_path / "out.pth",
            *parents,
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) <= 2.2 * SIZE


def test_a_file_is_mapped_anew_while_it_is_read(tmp_path, monkeypatch):
    """And gives the same tensors, in both formats, whatever was read before."""
    monkeypatch.setattr("mtvision.merge.files.MAPPED", 1)
    state = {name: torch.full((64,), float(index)) for index, name in enumerate("abcd")}
    save_checkpoint(tmp_path / "a.pth", {"meta": {"iter": 3}, "state_dict": state})
    save_file(state, tmp_path / "a.safetensors")
    for path in (tmp_path / "a.pth", tmp_path / "a.safetensors"):
        file = StateFile(path, state)
        opened = []
        read = file._open
        monkeypatch.setattr(file, "_open", lambda read=read, opened=opened: opened.append(1) or read())
        for _ in range(2):
            for name, item in state.items():
                assert torch.equal(file[name], item)
        assert len(opened) >= 4
        assert set(file) == set(state)


def test_files_of_other_code_and_old_ones(tmp_path):
    state = {name: torch.full((4,), float(index)) for index, name in enumerate("ab")}
    wrapped = {"epoch": 3, "model": {f"module.{name}": item for name, item in state.items()}}
    torch.save(wrapped, tmp_path / "wrapped.pth")
    torch.save(wrapped, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    torch.save({"model": state, "ema": {n: x + 1 for n, x in state.items()}}, tmp_path / "two.pth")
    for name in ("wrapped.pth", "old.pth"):
        file = StateFile(tmp_path / name, state)
        assert list(file) == ["a", "b"]
        assert torch.equal(file["b"], state["b"])
    assert torch.equal(StateFile(f"{tmp_path / 'two.pth'}#ema", state)["a"], state["a"] + 1)

"""A base and its children, in memory and in files."""

from __future__ import annotations

import pytest
import torch
from merge_files import CONFIG, TASKS, moved, network_of, write
from merge_states import random_state
from trial import no_plugins


@pytest.fixture(params=[torch.float32, torch.float64], ids=str)
def base(request):
    return random_state(0, dtype=request.param)


@pytest.fixture
def parents(base):
    dtype = base["stages.1.scale"].dtype
    return {
        name: random_state(seed, near=base, dtype=dtype)
        for seed, name in enumerate(("semseg", "depth", "edge"), start=1)
    }


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """A base and one child of it for each task."""
    folder = tmp_path_factory.mktemp("parents")
    (folder / "config.py").write_text(CONFIG)
    base = network_of(*TASKS).state_dict()
    write(folder / "base.pth", base, TASKS)
    for seed, task in enumerate(TASKS, start=1):
        own = network_of(task, seed=seed).state_dict()
        write(folder / f"{task}.pth", moved({**own, **{n: base[n] for n in own}}, seed), [task])
    return folder


@pytest.fixture
def here(files, tmp_path, monkeypatch):
    monkeypatch.chdir(files)
    with no_plugins(tmp_path, monkeypatch):
        yield tmp_path / "merged.pth"

"""Checkpoint files: atomic, safe, and refused with a message when they do not fit."""

from __future__ import annotations

import os
import random

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mtvision.engine.run_dir.random_states import random_states, set_random_states
from mtvision.runtime.checkpoint import (
    CheckpointError,
    find_checkpoint,
    load_checkpoint,
    load_network_weights,
    save_checkpoint,
)


def test_round_trip_without_pickled_code(tmp_path):
    path = tmp_path / "iter_1.pth"
    save_checkpoint(
        path, {"meta": {"iter": 1}, "state_dict": {"w": torch.arange(3)}, "random_states": [random_states()]}
    )
    assert torch.serialization.get_unsafe_globals_in_checkpoint(path) == []
    content = load_checkpoint(path)
    assert content["meta"] == {"iter": 1}
    assert torch.equal(content["state_dict"]["w"], torch.arange(3))


@pytest.mark.fault(
    "the disk is full while a checkpoint is written", expected="the old file stays; no temporary file"
)
def test_a_crash_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "iter_1.pth"
    save_checkpoint(path, {"state_dict": {"w": torch.zeros(1)}})

    def crash(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(path, {"state_dict": {"w": torch.ones(1)}})
    assert load_checkpoint(path)["state_dict"]["w"].item() == 0
    assert [item.name for item in tmp_path.iterdir()] == ["iter_1.pth"]


@pytest.mark.fault("a checkpoint that was cut off", expected="refused, with its size")
def test_truncated_file(tmp_path):
    path = tmp_path / "iter_1.pth"
    save_checkpoint(path, {"state_dict": {"w": torch.zeros(1000)}})
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(CheckpointError, match=r"iter_1.pth \(900 bytes\) is truncated or not a checkpoint"):
        load_checkpoint(path)


@pytest.mark.fault("a pickle that would run code", expected="refused; nothing runs")
def test_file_that_would_run_code_is_refused(tmp_path):
    path = tmp_path / "evil.pth"
    torch.save({"state_dict": {}, "hook": os.system}, path)
    with pytest.raises(CheckpointError, match="could run code"):
        load_checkpoint(path)


def test_safetensors_and_bare_state_dicts(tmp_path):
    save_file({"w": torch.ones(2)}, tmp_path / "a.safetensors")
    torch.save({"w": torch.ones(2)}, tmp_path / "a.pth")
    for name in ("a.safetensors", "a.pth"):
        content = load_checkpoint(tmp_path / name)
        assert content["meta"] == {}
        assert torch.equal(content["state_dict"]["w"], torch.ones(2))
    (tmp_path / "b.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes()[:40])
    with pytest.raises(CheckpointError, match="truncated"):
        load_checkpoint(tmp_path / "b.safetensors")


def test_weights_of_another_architecture(tmp_path):
    network = nn.Sequential(nn.Linear(2, 3))
    state = {
        "network.0.weight": torch.zeros(3, 4),
        "network.1.weight": torch.zeros(1),
        "balancer.x": torch.zeros(1),
    }
    meta = {"architecture": {"backbone": {"type": "Other"}}}
    with pytest.raises(CheckpointError) as caught:
        load_network_weights(network, {"state_dict": state, "meta": meta}, "file.pth")
    text = str(caught.value)
    assert "1 missing: 0.bias" in text
    assert "1 unexpected: 1.weight" in text
    assert "0.weight: (3, 4) in the file, (3, 2) in the network" in text
    assert '"type": "Other"' in text


def test_newest_readable_checkpoint_is_found(tmp_path):
    with pytest.raises(CheckpointError, match=r"no checkpoint iter_\*.pth in .*\.$"):
        find_checkpoint(tmp_path)
    for step in (9, 10):
        save_checkpoint(tmp_path / f"iter_{step}.pth", {"state_dict": {"w": torch.zeros(9)}})
    assert find_checkpoint(tmp_path).name == "iter_10.pth"
    (tmp_path / "iter_10.pth").write_bytes(b"half")
    assert find_checkpoint(tmp_path).name == "iter_9.pth"
    (tmp_path / "iter_9.pth").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"is whole:\n  iter_10.pth is cut.*\n  iter_9.pth is empty"):
        find_checkpoint(tmp_path)


def test_random_states_come_back():
    states = random_states()
    first = random.random(), np.random.rand(), torch.rand(1).item()
    set_random_states(states)
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == first


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"meta": [1]}, r"meta must be a dict, got \[1\]"),
        ({"meta": None}, "has no meta"),
        ({"state_dict": None}, "has no state_dict"),
        ({"state_dict": [1]}, "state_dict must be a dict"),
        ({"meta": {"iter": "five"}}, "meta.iter must be an integer of at least 0, got 'five'"),
        ({"meta": {"iter": -3}}, "meta.iter must be an integer of at least 0, got -3"),
        ({"meta": {"tasks": "depth"}}, "meta.tasks must be a list of strings, got 'depth'"),
        ({"meta": {"batches": [3]}}, "meta.batches must be a list of dicts"),
        ({"optimizer": [1]}, "optimizer must be a dict"),
        ({"random_states": [1]}, "random_states must be a list of dicts"),
    ],
)
def test_a_field_of_another_kind_is_named(change, words, tmp_path):
    """What other programs made of a checkpoint ended in an error of Python, wherever the field was read."""
    content = {"meta": {"iter": 1}, "state_dict": {"w": torch.ones(3)}, **change}
    save_checkpoint(tmp_path / "iter_1.pth", content)
    with pytest.raises(CheckpointError, match=f"iter_1.pth:? {words}.*use another checkpoint"):
        load_checkpoint(tmp_path / "iter_1.pth")


def test_weights_of_8_bits_and_in_a_file_of_another_name(tmp_path):
    network = nn.Conv2d(2, 2, 1)
    small = {key: value.to(torch.float8_e4m3fn) for key, value in network.state_dict().items()}
    save_file(small, tmp_path / "weights.bin")
    other = nn.Conv2d(2, 2, 1)
    load_network_weights(other, load_checkpoint(tmp_path / "weights.bin"), "weights.bin")
    assert torch.equal(other.weight, small["weight"].float())
    sparse = {key: value.to_sparse() for key, value in network.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"weight \(float32 sparse_coo for float32\)"):
        load_network_weights(other, {"meta": {}, "state_dict": sparse}, "sparse.pth")

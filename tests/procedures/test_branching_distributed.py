"""Branched encoders and supernets on two CPU processes."""

from __future__ import annotations

import json

import discs
import pytest
import torch
from several_processes import tool

from mtvision.architecture.tree import Tree
from mtvision.runtime.checkpoint import load_checkpoint

TREE = Tree.from_paths({"semseg": "aab", "depth": "abc"}, (1, 1, 1)).to_plain()
ADAPTERS = {
    "Branched": {"type": "Branched", "tree": TREE},
    "BranchingSearch": {
        "type": "BranchingSearch", "cuts": "blocks", "copies": [1, 2, 2], "iterations": 4, "warmup": 1,
        "image_size": (32, 32), "cost_weight": 1.0,
    },
}  # fmt: skip
SUPERNET = """
step = dict(type="SearchStep", held_out={share})
search = dict(type="LTBSearcher", held_out={share})
"""


def write(folder, adapter, more=""):
    text = discs.CONFIG.replace('type="DropoutNet"', 'type="DropoutNet", norm="group"').replace(
        'type="ParallelDecoder"', 'type="ParallelDecoder", norm="group"'
    )
    text = text.replace("decoder=", f"adapters=[{ADAPTERS[adapter]!r}],\n    decoder=", 1)
    return discs.write_config(folder, text + more)


@pytest.mark.conformance("{adapter}", "2 ranks = 1")
@pytest.mark.slow
@pytest.mark.parametrize("balancer", [pytest.param("FixedWeights", marks=pytest.mark.long), "UPGrad"])
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_two_processes_of_two_images_take_the_steps_of_one_of_four(tmp_path, adapter, balancer):
    config = write(tmp_path, adapter, SUPERNET.format(share=0.0) if adapter == "BranchingSearch" else "")
    options = ["training.iterations=4", "training.val_interval=0", "optimizer.type=SGD", "optimizer.lr=0.05"]
    options.append(f"balancer.type={balancer}")
    states = []
    for processes in (1, 2):
        batch = f"train_data.batch_size={4 // processes}"
        work = tmp_path / str(processes)
        tool(processes, "train", config, "--work-dir", work, "--cfg-options", *options, batch)
        state = load_checkpoint(work / "iter_4.pth")["state_dict"]
        states.append({name: item for name, item in state.items() if isinstance(item, torch.Tensor)})
    assert any(name.startswith("network.backbone.nodes.") for name in states[0])
    torch.testing.assert_close(states[0], states[1], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_a_search_on_two_processes_holds_images_out_and_writes_one_file(tmp_path):
    config = write(tmp_path, "BranchingSearch", SUPERNET.format(share=0.4))
    work = tmp_path / "work"
    options = ["training.iterations=4", "training.val_interval=0", "train_data.batch_size=1"]
    tool(2, "search", config, "--work-dir", work, "--cfg-options", *options)
    found = json.loads((work / "architecture.json").read_text())
    Tree.from_plain(found["tree"])
    assert 1 <= found["log"]["passes"] <= 4

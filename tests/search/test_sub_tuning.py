"""SubTuning's search: blocks that help are found, in order, and the network is left as it was."""

from __future__ import annotations

import json

import pytest
import torch

from mtvision.models.adapters.weight_deltas import Subset
from mtvision.models.factory import build_network
from mtvision.protocols.tasks import depth, semseg
from mtvision.search import SearchProblem, SubTuningSearcher

TASKS = (semseg(("sky", "road", "car")), depth())
VIT = {"type": "TimmBackbone", "name": "vit_tiny_patch16_224", "embed_dim": 16, "depth": 3, "num_heads": 2}
HELP = {"semseg": (0.0, 1.0, 2.0), "depth": (-3.0, 0.2, -1.0)}
"""{task: what a moved block adds to its score}; less is better for depth."""


def problem(**more):
    parts = {"decoder": {"type": "ParallelDecoder", "width": 8}, "head": {"type": "ConvHead", "hidden": 8}}
    network = build_network({"backbone": VIT, "adapters": [], **parts}, TASKS).eval()
    network.backbone.model.blocks[1].requires_grad_(False)
    start = {name: item.clone() for name, item in network.state_dict().items()}
    seen = []

    def evaluate(context):
        state = network.state_dict()
        moved = [
            any(not torch.equal(state[name], start[name]) for name in start if f"blocks.{index}." in name)
            for index in range(3)
        ]
        assert any(not torch.equal(state[name], start[name]) for name in start if name.startswith("heads."))
        seen.append(tuple(moved))
        return {
            name: 10.0 + sum(v for v, own in zip(values, moved, strict=True) if own)
            for name, values in HELP.items()
        }

    def losses(batch):
        return {name: item.square().mean() for name, item in network(batch).items()}

    made = SearchProblem(
        network=network,
        tasks=TASKS,
        held_out=list,
        evaluate=evaluate,
        losses=lambda context: {},
        batch_losses=losses,
        **{"training": lambda: iter([torch.randn(1, 3, 32, 32)]), **more},
    )
    return made, start, seen


def test_blocks_that_help_are_found_and_the_network_stays():
    made, start, seen = problem()
    found = SubTuningSearcher(iterations=1, smallest_gain=0.05).search(made)
    assert found["blocks"] == {
        "semseg": ["model.blocks.1", "model.blocks.2"],
        "depth": ["model.blocks.0", "model.blocks.2"],
    }
    assert found["scores"] == {"semseg": [10.0, 12.0, 13.0], "depth": [10.0, 7.0, 6.0]}
    assert found["tried"] == {"semseg": 7, "depth": 7}
    assert seen[:4] == [(False,) * 3, (True, False, False), (False, True, False), (False, False, True)]
    state = made.network.state_dict()
    assert all(torch.equal(state[name], item) for name, item in start.items())
    frozen = {name for name, item in made.network.named_parameters() if not item.requires_grad}
    assert frozen
    assert all(".blocks.1." in name for name in frozen)


def test_a_search_without_training_images_says_so():
    with pytest.raises(ValueError, match="give training images"):
        SubTuningSearcher().search(problem(training=None)[0])
    with pytest.raises(ValueError, match="none of 0 batches has a label of 'semseg'"):
        SubTuningSearcher().search(problem(training=lambda: iter([]))[0])


def test_a_config_names_the_file_of_a_search(tmp_path):
    file = tmp_path / "architecture.json"
    file.write_text(json.dumps({"kind": "subset", "blocks": {"depth": ["model.blocks.2"]}}))
    adapter = Subset(blocks=str(file))
    assert adapter.plain({"type": "Subset", "blocks": str(file)})["blocks"] == {"depth": ["model.blocks.2"]}
    file.write_text(json.dumps({"tree": {}}))
    with pytest.raises(ValueError, match=r"architecture.json holds no blocks per task"):
        Subset(blocks=str(file))
    with pytest.raises(FileNotFoundError, match=r"Search it with `mtvision search`"):
        Subset(blocks=str(tmp_path / "none.json"))

"""Multi-Task Structural Learning: CKA, which groups merge first, merged weights, and whole phases."""

from __future__ import annotations

import json

import discs
import pytest
import torch

from mtvision.architecture.tree import Tree
from mtvision.models.factory import build_network
from mtvision.procedures.rounds.structure import (
    StructureRequest,
    group_features,
    learn_structure,
    merged_nodes,
)
from mtvision.protocols import own_protocol
from mtvision.recipe.config import load_config
from mtvision.search.alignment import grown_tree, linear_cka, merged_groups

TASKS = ("semseg", "depth", "normals")
PROTOCOL = own_protocol("three", {"semseg": {"class_names": ["a", "b"]}, "depth": {}, "normals": {}})


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("debiased", [False, True])
def test_cka_ignores_rotation_and_scale(debiased):
    x = random(20, 5)
    rotation = torch.linalg.qr(random(5, 5, seed=1))[0]
    assert linear_cka(x, 3 * x @ rotation + 2, debiased=debiased) == pytest.approx(1)
    assert linear_cka(x, torch.ones(20, 3, dtype=torch.float64), debiased=debiased) == 0
    far = linear_cka(x, random(20, 5, seed=2), debiased=debiased)
    assert far < 0.5


def test_cka_is_the_formula():
    x, y = random(9, 4), random(9, 6, seed=1)
    centred = [item - item.mean(dim=0) for item in (x, y)]
    norm = [(item.T @ item).norm() for item in centred]
    wanted = (centred[1].T @ centred[0]).norm() ** 2 / (norm[0] * norm[1])
    assert linear_cka(x, y, debiased=False) == pytest.approx(float(wanted))
    with pytest.raises(ValueError, match="4 images or more, got 3"):
        linear_cka(x[:3], y[:3])


def test_unbiased_cka_of_unrelated_features_is_0_on_average():
    values = [linear_cka(random(12, 30, seed=2 * i), random(12, 30, seed=2 * i + 1)) for i in range(60)]
    biased = [
        linear_cka(random(12, 30, seed=2 * i), random(12, 30, seed=2 * i + 1), debiased=False)
        for i in range(60)
    ]
    assert abs(sum(values)) / 60 < 0.05
    assert sum(biased) / 60 > 0.5


def test_the_most_similar_pair_merges_first_and_sharing_grows_by_a_level():
    alike = {frozenset("ab"): 0.9, frozenset("bc"): 0.95, frozenset("ac"): 0.7}

    def similarity(one, two):
        return min(alike[frozenset({a, b})] for a in one for b in two)

    groups = [("a",), ("b",), ("c",)]
    assert merged_groups(groups, similarity, 0.8) == [("a",), ("b", "c")]
    assert len(merged_groups(groups, similarity, 0.6)) == 1
    assert merged_groups(groups, similarity, 0.95) == groups  # it must be exceeded
    tree = Tree.separate("abc", (1, 1))
    grown = grown_tree(tree, lambda _, one, two: similarity(one, two), 0.8)
    assert [sorted(level) for level in grown.levels] == [
        [("a",), ("b", "c")],
        [("a",), ("b",), ("c",)],
    ]
    again = grown_tree(grown, lambda _, one, two: similarity(one, two), 0.8)
    assert [sorted(level) for level in again.levels] == [[("a",), ("b", "c")]] * 2


def network(tree):
    torch.manual_seed(0)
    model = {
        "backbone": {"type": "DropoutNet"},
        "decoder": {"type": "ParallelDecoder", "width": 8},
        "head": {"type": "ConvHead"},
        "adapters": [{"type": "Branched", "tree": tree.to_plain()}],
    }
    return build_network(model, PROTOCOL.tasks).eval()


def test_two_copies_with_noise_merge_first_into_their_mean():
    tree = Tree.separate(TASKS, (1, 1, 1))
    own = network(tree)
    with torch.no_grad():
        for level in range(3):
            nodes = own.backbone.nodes[level]
            for one, two, three in zip(*(node.parameters() for node in nodes), strict=True):
                two.copy_(one + 0.01 * torch.randn_like(one))  # depth is a noisy copy of semseg
                three.copy_(0.3 * torch.randn_like(three))
    images = [torch.randn(16, 3, 32, 32)]
    features = group_features(own, tree, images)

    def similarity(level, one, two):
        return linear_cka(features[level, one], features[level, two])

    copies = similarity(0, ("semseg",), ("depth",))
    assert copies > max(similarity(0, (name,), ("normals",)) for name in ("semseg", "depth"))
    grown = grown_tree(tree, similarity, 0.98 * copies)
    assert set(grown.levels[0]) == {("semseg", "depth"), ("normals",)}
    assert grown.levels[1:] == tree.levels[1:]
    merged = network(grown)
    state = own.state_dict()
    merged.load_state_dict(merged_nodes(state, tree, grown))
    key = "stage0.0.weight"
    (name,) = [item for item in merged.state_dict() if item.startswith("backbone.nodes.0.0") and key in item]
    pair = [state[name.replace("nodes.0.0", f"nodes.0.{index}")] for index in (0, 1)]
    assert torch.allclose(merged.state_dict()[name], (pair[0] + pair[1]) / 2)


@pytest.mark.slow
def test_phases_of_learning_and_merging_end_with_a_tree(tmp_path):
    options = ["training.iterations=2", "training.val_interval=0", "training.first_look=0"]
    config = load_config(discs.write_config(tmp_path), options)
    request = StructureRequest(
        work_dir=tmp_path / "out", phases=3, threshold=0.5, cuts="blocks", held_out=0.5
    )
    found = learn_structure(config, request)
    trees = [Tree.from_plain(item) for item in found["log"]["trees"]]
    assert len(trees) == 3
    assert len(trees[0].levels[0]) == 2
    assert len(trees[1].levels[0]) == 1  # both copies start with the same weights
    assert Tree.load(tmp_path / "out/architecture.json") == trees[-1]
    assert learn_structure(config, request) == found
    assert json.loads((tmp_path / "out/architecture.json").read_text())["tasks"] == ["semseg", "depth"]

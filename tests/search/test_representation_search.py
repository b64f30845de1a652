"""Searches that compare what single-task networks represent."""

from __future__ import annotations

from types import SimpleNamespace

import discs
import pytest
import torch

from mtvision.models.branching.paths import cut_points
from mtvision.search import GroupingSearcher, RSASearcher
from mtvision.search.representation import rsa_affinities

NAMES = ("a", "b", "c")


def test_groups_follow_the_mean_over_levels():
    networks = {}
    for seed, name in enumerate(NAMES):
        torch.manual_seed(seed)
        networks[name] = SimpleNamespace(backbone=discs.DropoutNet().eval(), eval=lambda: None)
    image = torch.randn(6, 3, 32, 32)
    made = SimpleNamespace(
        tasks=tuple(SimpleNamespace(name=name) for name in NAMES),
        others=networks,
        held_out=lambda: [SimpleNamespace(image=image)],
        options={},
    )
    found = GroupingSearcher(affinity="rsa", networks=2, images=6).search(made)
    ends = cut_points(networks["a"].backbone, "stages")
    levels = rsa_affinities(networks, made, ends, 6)
    assert len(levels) == len(ends) > 1
    for one, row in enumerate(found["affinities"]["mean"]):
        assert row == pytest.approx([float(levels[:, one, two].mean()) for two in range(3)])
    pairs = {(NAMES[one], NAMES[two]): levels.mean(dim=0)[one, two] for one, two in ((0, 1), (0, 2), (1, 2))}
    assert list(max(pairs, key=pairs.get)) in found["groups"]


def test_the_size_for_macs_is_height_and_width():
    assert RSASearcher(image_size=(32, 64)).image_size == (32, 64)

"""Efficient Computation Sharing on videos of shifted crops, against plain passes and a rule written out."""

from __future__ import annotations

import copy
from fnmatch import fnmatchcase

import pytest
import torch
from disturbed import disturb

from mtvision.core.context import current_context
from mtvision.models.adapters.weight_deltas import VideoReuse, shifted_crops
from mtvision.models.adapters.weight_deltas.sparse import SITES
from mtvision.models.factory import build_network
from mtvision.protocols.tasks import depth, normals

TASKS = (depth(), normals())
NAMES = ("depth", "normals")
VIT = {"type": "TimmBackbone", "name": "vit_tiny_patch16_224", "embed_dim": 8, "depth": 2, "num_heads": 2}
SIZE, CELLS = (32, 48), 1 + 6


def build(threshold=0.0, reuse=1.0):
    options = {"base": "depth", "gates": "fixed", "threshold": threshold}
    adapters = [{"type": "SparseDeltas", "reuse": reuse, **options}]
    parts = {"decoder": {"type": "ParallelDecoder", "width": 4}, "head": {"type": "ConvHead"}}
    torch.manual_seed(0)
    return disturb(build_network({"backbone": dict(VIT), "adapters": adapters, **parts}, TASKS)).eval()


def frames(*shifts):
    torch.manual_seed(1)
    return shifted_crops(torch.randn(2, 3, 40, 56), SIZE, shifts)


def written_out(threshold, split, video, key_every):
    """Logits of all frames by the published rule: dictionaries, and no module of the suite that reuses."""
    network = build(reuse=None)
    before, now = {}, {}

    def site(path, block):
        def hook(_, __, output):
            task = current_context().task
            own = task == "depth" or block >= split
            reference = before.get((task, path)) if own else None
            if reference is None and task != "depth":
                reference = now["depth", path]
            if reference is not None:
                output = torch.where((output - reference).abs() >= threshold, output, reference)
            now[task, path] = output
            return output

        return hook

    for path, module in network.backbone.named_modules():
        if path.startswith("model.blocks.") and any(fnmatchcase(path, glob) for glob in SITES):
            module.register_forward_hook(site(path, int(path.split(".")[2])))
    found = []
    for number, frame in enumerate(video):
        if number % key_every == 0:
            before.clear()
        with torch.no_grad():
            found.append(network(frame))
        before.update(now)
        now.clear()
    return found


@pytest.mark.parametrize("split", [0, 1, 2])
def test_frames_follow_the_published_rule(split):
    video = frames((0, 0), (0, 1), (1, 2), (2, 3))
    want = written_out(0.3, split, video, 3)
    reuse = VideoReuse(build(0.3), split=split, key_every=3)
    plain = build()
    for expected, frame in zip(want, video, strict=True):
        found = reuse(frame)
        for name in NAMES:
            torch.testing.assert_close(found[name], expected[name])
    assert not torch.allclose(reuse(video[0])["normals"], plain(video[0])["normals"])
    shares = [share for table in reuse.shares().values() for share in table.values()]
    assert len(shares) == 2 * 2 * len(SITES)
    assert all(0 < share < 1 for share in shares)


def test_without_a_threshold_nothing_is_lost():
    video, plain = frames((0, 0), (0, 1), (3, 2)), build()
    reuse = VideoReuse(build())
    for frame in video:
        found = reuse(frame)
        with torch.no_grad():
            want = plain(frame)
        assert all(torch.equal(found[name], want[name]) for name in NAMES)


def test_work_is_dense_work_times_what_changed():
    (still, moved), network = frames((0, 0), (0, 4)), build()
    reuse = VideoReuse(network, split=1)
    reuse(still)
    work, width = reuse.work(), 8
    linear = 2 * 2 * CELLS * (3 * width**2 + width**2 + 2 * 4 * width**2)  # blocks, images, tokens, layers
    assert work["depth"] == {"dense": linear, "reused": linear}  # a key frame of the base task
    assert work["normals"]["dense"] == linear
    first = reuse.shares()["depth"]
    reuse(still)
    assert reuse.work()["depth"] == {"dense": 2 * linear, "reused": linear}  # an equal frame changes nothing
    assert set(reuse.shares()["depth"].values()) == {0.5}
    assert set(first.values()) == {1.0}
    reuse(moved)
    assert linear < reuse.work()["depth"]["reused"] <= 2 * linear
    keyed = VideoReuse(network, key_every=1)
    keyed(still)
    keyed(still)
    assert set(keyed.shares()["depth"].values()) == {1.0}


def test_a_video_leaves_the_network_as_it_was():
    network, (frame,) = build(0.3), frames((0, 0))
    with torch.no_grad():
        want = network(frame)
    reuse = VideoReuse(network, split=0)
    for moved in frames((0, 1), (4, 4)):
        reuse(moved, ["normals"])
    copied = copy.deepcopy(network)
    with torch.no_grad():
        for other in (network, copied):
            found = other(frame)
            assert all(torch.equal(found[name], want[name]) for name in NAMES)


def test_bad_videos_are_named():
    network = build(0.3)
    with pytest.raises(ValueError, match=r"split=3; the backbone has 2 blocks. Give 0 to 2"):
        VideoReuse(network, split=3)
    with pytest.raises(ValueError, match="key_every=0; expected 1 or more"):
        VideoReuse(network, key_every=0)
    with pytest.raises(ValueError, match="VideoReuse: the network has no SparseDeltas with reuse="):
        VideoReuse(build(reuse=None))
    reuse = VideoReuse(network)
    reuse(torch.randn(1, 3, 32, 48))
    with pytest.raises(
        ValueError, match=r"frame 1 has shape \(1, 3, 48, 48\), the first one \(1, 3, 32, 48\)"
    ):
        reuse(torch.randn(1, 3, 48, 48))
    with pytest.raises(ValueError, match=r"crop of \(32, 48\) at \(9, 0\) leaves the picture of \(40, 56\)"):
        frames((9, 0))

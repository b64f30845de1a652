"""Changes of weights per task: gates off = base, merged = unmerged, reuse of activations, passes, files."""

from __future__ import annotations

import pytest
import torch
from disturbed import disturb

from mtvision.core.naming import UnknownNameError
from mtvision.models.adapters.low_rank import merge_into_weights
from mtvision.models.adapters.weight_deltas.greedy import greedy_subset
from mtvision.models.adapters.weight_deltas.layers import Tuned, WeightDelta
from mtvision.models.adapters.weight_deltas.reuse import ActivationReuse, reuse_report
from mtvision.models.adapters.weight_deltas.sparse import SparseDelta, changed_values, hard_concrete
from mtvision.models.adapters.weight_deltas.taps import GatedDelta, changed_layers
from mtvision.models.factory import build_network
from mtvision.models.trained import trained_state
from mtvision.protocols.tasks import depth, normals, semseg

TASKS = (semseg(("sky", "road", "car")), depth(), normals())
NAMES = [task.name for task in TASKS]
VIT = {"type": "TimmBackbone", "name": "vit_tiny_patch16_224", "embed_dim": 16, "depth": 4, "num_heads": 2}
RESNET = {"type": "TimmBackbone", "name": "resnet10t", "channels": (4, 8, 12, 16), "stem_width": 4}
BLOCKS = {"depth": ["model.blocks.2"], "normals": ["model.blocks.3"]}
KINDS = {
    "TAPS": {"layers": ["*.2.mlp.*", "*.3.attn.*"]},
    "Subset": {"blocks": BLOCKS},
    "SparseDeltas": {"base": "depth", "reuse": 1e-3},
}


def build(kind=None, backbone=VIT, **options):
    adapters = [] if kind is None else [{"type": kind, **options}]
    parts = {"decoder": {"type": "ParallelDecoder", "width": 8}, "head": {"type": "ConvHead", "hidden": 8}}
    return build_network({"backbone": {**backbone}, "adapters": adapters, **parts}, TASKS)


def image(count=2):
    return torch.randn(count, 3, 32, 48)


def run(network, x, *tasks):
    with torch.no_grad():
        return network.eval()(x, tasks or None)


@pytest.mark.conformance("{kind}", "merges")
@pytest.mark.parametrize(("kind", "options"), KINDS.items())
def test_weights_merged_for_a_task_do_the_same_for_it(kind, options):
    network, x = disturb(build(kind, **options)), image()
    want = run(network, x)["normals"]
    plain = merge_into_weights(network, "normals")
    assert not any(isinstance(item, (Tuned, ActivationReuse)) for item in plain.modules())
    torch.testing.assert_close(run(plain, x)["normals"], want, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="task='semseg'"):
        merge_into_weights(network)


@pytest.mark.parametrize(("kind", "options"), KINDS.items())
def test_only_the_changes_train_and_are_saved(kind, options):
    network = build(kind, **options)
    saved = [name for name in trained_state(network) if name.startswith("backbone.")]
    assert saved
    assert all(".deltas." in name for name in saved)
    before = {name: item.clone() for name, item in network.state_dict().items()}
    network.train()
    sum(item.square().mean() for item in network(image()).values()).backward()
    torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1).step()
    after = network.state_dict()
    frozen = [name for name in before if name.startswith("backbone.") and ".deltas." not in name]
    assert all(torch.equal(before[name], after[name]) for name in frozen)


def test_a_layer_below_the_threshold_is_the_base_to_the_bit():
    plain, network, x = disturb(build()), build("TAPS"), image()
    network.load_state_dict(plain.state_dict(), strict=False)
    for item in network.modules():
        if isinstance(item, GatedDelta):
            item.delta.data.normal_()
            item.score.data.fill_(0.0999)
    want, found = run(plain, x), run(network, x)
    assert all(torch.equal(want[name], found[name]) for name in NAMES)
    assert changed_layers(network.backbone) == {name: [] for name in NAMES}
    gate = network.backbone.model.blocks[1].mlp.fc1.deltas["depth"]["weight"]
    gate.score.data.fill_(0.1)
    assert changed_layers(network.backbone)["depth"] == ["model.blocks.1.mlp.fc1"]
    found = run(network, x)
    assert torch.equal(want["normals"], found["normals"])
    assert not torch.equal(want["depth"], found["depth"])


@pytest.mark.conformance("TAPS", "formulas")
def test_a_score_has_the_gradient_of_a_factor_and_a_penalty():
    gate = GatedDelta(torch.zeros(2, 3), 0.15, 0.1, 0.5)
    gate.delta.data.normal_()
    weight, slope = torch.randn(2, 3), torch.randn(2, 3)
    torch.testing.assert_close(gate(weight), weight + gate.delta)
    (gate(weight) * slope).sum().backward()
    torch.testing.assert_close(gate.score.grad, (slope * gate.delta).sum().detach())
    network = build("TAPS", layers=["*.fc1", "*.fc2"], sparsity=2.0)
    total = sum(network.auxiliary_losses().values())
    torch.testing.assert_close(total, torch.tensor(2.0 * 0.15 * len(TASKS)))  # a mean over layers, per task


def test_norms_change_but_statistics_are_those_of_the_base():
    network = build("TAPS", RESNET, layers=["*.layer4.*conv1"]).train()
    norms = [
        item
        for item in network.backbone.modules()
        if isinstance(item, Tuned) and "running_mean" in item._buffers
    ]
    assert all(isinstance(item.deltas["depth"]["bias"], WeightDelta) for item in norms)
    before = [item.running_mean.clone() for item in norms]
    network(torch.randn(2, 3, 64, 64))
    assert norms
    assert all(torch.equal(item.running_mean, old) for item, old in zip(norms, before, strict=True))


@pytest.mark.conformance("SparseDeltas", "formulas")
def test_gates_are_stretched_and_take_their_noise_as_an_argument():
    delta = SparseDelta(torch.zeros(50), 0.2, 0.5, fixed=False)
    torch.nn.init.normal_(delta.delta)
    values, whole = torch.rand(50), torch.rand(())
    z = [
        (((u.log() - (1 - u).log() + 0.2) * 1.5).sigmoid() * 3 - 1.5).clamp(0, 1)
        for u in (values.clamp(1e-4, 1 - 1e-4), whole)
    ]
    torch.testing.assert_close(delta(torch.ones(50), (values, whole)), 1 + z[0] * z[1] * delta.delta)
    torch.testing.assert_close(delta.auxiliary_loss(), 0.5 * 51 * torch.tensor(0.2).sigmoid())
    assert not torch.equal(delta.train()(torch.ones(50)), delta(torch.ones(50)))
    assert torch.equal(delta.eval()(torch.ones(50)), delta(torch.ones(50)))
    fixed = SparseDelta(torch.zeros(3), 5.0, 0.5, fixed=True)
    assert torch.equal(fixed.train().gates(), torch.ones(3))
    assert [name for name, item in fixed.named_parameters() if item.requires_grad] == ["delta"]
    assert fixed.auxiliary_loss() == 0
    assert hard_concrete(torch.tensor([-5.0, 0.0, 5.0]), None).tolist() == [0, 0, 1]
    fixed.delta.data[0] = 1
    assert fixed.open_share() == (1, 3)


def test_changed_values_are_counted_for_every_task_but_the_base():
    backbone = build("SparseDeltas", base="depth", start=-5.0).backbone
    total = sum(item.numel() for name, item in backbone.named_parameters() if name.endswith(".delta")) // 2
    assert changed_values(backbone) == {"semseg": (0, total), "normals": (0, total)}
    layer = backbone.model.blocks[1].mlp.fc1.deltas["normals"]["weight"]
    layer.whole.data.fill_(9.0)
    layer.values.data[0, :3] = 9.0
    layer.delta.data[0, 1:] = 1.0
    assert changed_values(backbone) == {"semseg": (0, total), "normals": (2, total)}


def test_the_base_task_uses_the_backbone_as_it_is():
    plain = disturb(build())
    network, x = disturb(build("SparseDeltas", base="depth")), image()
    network.load_state_dict(plain.state_dict(), strict=False)
    want, found = run(plain, x), run(network, x)
    assert torch.equal(want["depth"], found["depth"])
    assert not torch.equal(want["normals"], found["normals"])
    assert torch.equal(run(network, x, "normals")["normals"], found["normals"])  # the base runs, unread


def test_a_large_threshold_reuses_everything():
    options = {"base": "depth", "reuse": 1.0, "threshold": 1e9, "gates": "fixed"}
    network, x = disturb(build("SparseDeltas", **options)), image()
    with torch.no_grad():
        maps = network.eval().backbone(x)
    for one, other in zip(maps.for_task("depth").maps, maps.for_task("normals").maps, strict=True):
        assert torch.equal(one, other)
    shares = reuse_report(network, x)
    assert list(shares) == ["semseg", "normals"]
    assert set(shares["normals"].values()) == {0.0}
    assert len(shares["normals"]) == 4 * 6
    network.backbone.reuse.threshold = 0.0
    assert reuse_report(network, x)["normals"]["model.blocks.3.mlp.fc2"] > 0.99
    with pytest.raises(ValueError, match="no SparseDeltas with reuse="):
        reuse_report(build(), x)


@pytest.mark.conformance("SparseDeltas", "formulas")
def test_the_loss_of_reuse_is_the_sum_of_differences():
    network = disturb(build("SparseDeltas", base="depth", reuse=0.5, gates="fixed")).train()
    outputs = []
    layer = network.backbone.model.blocks[3].mlp.fc2
    layer.register_forward_hook(lambda _, __, result: outputs.append(result.detach()))
    network(image(), ["depth", "normals"])
    base, other = outputs
    reuse = network.backbone.reuse
    assert len(reuse._sums) == 4 * 6
    torch.testing.assert_close(reuse._sums[-1], (other - base).abs().sum())
    torch.testing.assert_close(reuse.auxiliary_loss(), 0.5 * torch.stack(reuse._sums).sum())
    network(image(), ["depth"])
    assert reuse.auxiliary_loss() == 0  # a batch with labels of the base task alone compares nothing
    network.to("meta")(image().to("meta"), ["depth"])
    assert reuse.auxiliary_loss().device.type == "meta"


@pytest.mark.conformance("Subset", "formulas")
def test_own_blocks_start_the_passes_and_belong_to_their_task():
    network, counts = disturb(build("Subset", blocks=BLOCKS)), []
    for block in network.backbone.model.blocks:
        block.register_forward_hook(lambda module, *_: counts.append(module))
    run(network, image())
    assert [counts.count(block) for block in network.backbone.model.blocks] == [1, 1, 3, 3]
    own = {
        name.split(".deltas.")[1].split(".")[0]
        for name in network.state_dict()
        if "blocks.2.mlp.fc1.deltas" in name
    }
    assert own == {"depth"}


def test_a_greedy_choice_stops_when_nothing_helps():
    values = {"a": 1.0, "b": 2.0, "c": 0.2}
    found = greedy_subset(list(values), lambda chosen: sum(map(values.get, chosen)), smallest_gain=0.5)
    assert (found.names, found.scores, found.tried) == (("a", "b"), (0, 2.0, 3.0), 1 + 3 + 2 + 1)
    assert greedy_subset(list(values), lambda chosen: float(len(chosen)), most=1).names == ("a",)
    with pytest.raises(ValueError, match="no blocks"):
        greedy_subset([], lambda chosen: 0.0)


@pytest.mark.parametrize(
    ("kind", "options", "error", "text"),
    [
        ("TAPS", {"layers": ["*.fc9"]}, ValueError, "matches no layer in the backbone's blocks"),
        ("Subset", {"blocks": {"depth": ["model.blocks.9"]}}, UnknownNameError, "model.blocks.9"),
        ("Subset", {"blocks": {"edge": []}}, UnknownNameError, "edge"),
        ("SparseDeltas", {"base": "edge"}, UnknownNameError, "edge"),
        ("SparseDeltas", {"base": "depth", "gates": "open"}, ValueError, "give 'learn' or 'fixed'"),
    ],
)
def test_bad_options_are_named(kind, options, error, text):
    with pytest.raises(error, match=text):
        build(kind, **options)

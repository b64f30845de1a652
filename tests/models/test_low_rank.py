"""Low-rank adapters: the base at the start, merged weights, passes per task, frozen bases and their files."""

from __future__ import annotations

import pytest
import torch
from disturbed import disturb
from torch import nn

from mtvision.core.context import Context
from mtvision.core.naming import UnknownNameError
from mtvision.models.adapters.low_rank import merge_into_weights
from mtvision.models.adapters.low_rank.adapter import updated_layers
from mtvision.models.adapters.low_rank.spectrum import resampled, warped
from mtvision.models.factory import build_network
from mtvision.models.trained import load_trained, save_trained, trained_state
from mtvision.protocols.tasks import depth, normals, semseg
from mtvision.report.cost import measure_cost
from mtvision.runtime.checkpoint import CheckpointError, load_checkpoint

TASKS = (semseg(("sky", "road", "car")), depth(), normals())
NAMES = [task.name for task in TASKS]
VIT = {
    "type": "TimmBackbone",
    "name": "vit_tiny_patch16_224",
    "embed_dim": 16,
    "depth": 4,
    "num_heads": 2,
    "img_size": 32,
}
SWIN = {
    "type": "TimmBackbone",
    "name": "swin_tiny_patch4_window7_224",
    "embed_dim": 8,
    "depths": (2, 1, 1, 1),
    "num_heads": (1, 2, 2, 2),
    "window_size": 2,
}
RANKS = {"*.attn.qkv": 2, "*.mlp.*": 3}
LINEAR = {
    "LowRank": {"shared": RANKS, "scale": 2.0},
    "DiTASK": {"shared": {"*.attn.qkv": 5, "*.mlp.fc1": 4}},
}
OWN = {
    "LowRank": {"shared": RANKS, "own": {"*.2.attn.proj": 2, "*.3.mlp.*": 2}, "both": True},
    "DiTASK": {"own": {"*.3.mlp.fc1": 4}},
    "HyperLowRank": {"shared": {"*.2.attn.qkv": 2, "*.3.mlp.fc2": 2}, "embedding": 4, "hidden": 6},
    "PolySkills": {"shared": {"*.2.attn.qkv": 2}, "own": {"*.3.mlp.fc2": 2}},
}
ALL = [*LINEAR.items(), *OWN.items(), ("Houlsby", {"shared": {"*.attn.proj": 4}, "own": {"*.2.mlp.fc2": 4}})]


def build(kind=None, options=None, backbone=VIT, **more):
    adapters = [] if kind is None else [{"type": kind, **options}]
    parts = {"decoder": {"type": "ParallelDecoder", "width": 8}, "head": {"type": "ConvHead", "hidden": 8}}
    return build_network({"backbone": backbone, "adapters": adapters, **parts, **more}, TASKS)


def image(count=2, size=(32, 48)):
    return torch.randn(count, 3, *size)


def pair(kind, options, backbone=VIT):
    """A plain network, and one with a fresh adapter and the same base."""
    plain, adapted = disturb(build(backbone=backbone)).eval(), build(kind, options, backbone).eval()
    missing, unexpected = adapted.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected
    new = (".shared.", ".own.", ".hypernetwork.")
    assert all(any(part in name for part in new) for name in missing)
    return plain, adapted


@pytest.mark.parametrize(("kind", "options"), ALL)
def test_a_fresh_adapter_is_the_base_to_the_bit(kind, options):
    plain, adapted = pair(kind, options)
    x = image()
    with torch.no_grad():
        want, found = plain(x), adapted(x)
    assert all(torch.equal(want[name], found[name]) for name in NAMES)


@pytest.mark.conformance("{kind}", "merges")
@pytest.mark.parametrize(("kind", "options"), LINEAR.items())
def test_merged_weights_do_the_same(kind, options):
    network = disturb(build(kind, options)).double().eval()
    merged, x = merge_into_weights(network).double(), image().double()
    assert not updated_layers(merged)
    assert merged.architecture["adapters"] == []
    state = {name: item for name, item in network.state_dict().items() if ".shared." not in name}
    assert set(state) == set(merged.state_dict())
    with torch.no_grad():
        want, found = network(x), merged(x)
    for name in NAMES:
        torch.testing.assert_close(found[name], want[name], rtol=1e-6, atol=1e-6)


@pytest.mark.conformance("{kind}", "merges")
@pytest.mark.parametrize(("kind", "options"), OWN.items())
def test_weights_merged_for_a_task_do_the_same_for_it(kind, options):
    network, x = disturb(build(kind, options)).eval().double(), image().double()
    with torch.no_grad():
        want = network(x)["normals"]
        found = merge_into_weights(network, "normals")(x)["normals"]
    torch.testing.assert_close(found, want, rtol=1e-10, atol=1e-10)
    with pytest.raises(ValueError, match="task='semseg'"):
        merge_into_weights(network)


def test_what_cannot_be_merged_is_refused_by_name():
    with pytest.raises(ValueError, match="Bottleneck is not linear"):
        merge_into_weights(build("Houlsby", {"shared": {"*.attn.proj": 4}}))
    with pytest.raises(ValueError, match="no layer with low-rank updates"):
        merge_into_weights(build())
    side = {"shared": {"*.mlp.*": 2}, "own": {"*.mlp.*": 2}, "side": True}
    with pytest.raises(ValueError, match="side=True"):
        merge_into_weights(build("LowRank", side, SWIN), "depth")


def calls(network, x, tasks=None):
    """How often each block runs."""
    counts = dict.fromkeys(network.backbone.block_names(), 0)

    def note(name):
        def hook(*_):
            counts[name] += 1

        return hook

    handles = [network.backbone.get_submodule(name).register_forward_hook(note(name)) for name in counts]
    with torch.no_grad():
        network(x, tasks)
    for handle in handles:
        handle.remove()
    return list(counts.values())


def test_the_prefix_is_computed_once_and_the_rest_once_per_task():
    network = build("LowRank", OWN["LowRank"]).eval()
    assert calls(network, image()) == [1, 1, 3, 3]
    assert calls(network, image(), ["depth"]) == [1, 1, 1, 1]
    assert calls(build("LowRank", LINEAR["LowRank"]), image()) == [1, 1, 1, 1]


@pytest.mark.slow
def test_the_cost_tool_counts_the_passes():
    macs = {
        tasks: measure_cost(build("LowRank", OWN["LowRank"]), (32, 48), meta=True, tasks=tasks[:count])
        for count, tasks in ((1, ("depth",)), (2, ("depth", "normals")), (3, tuple(NAMES)))
    }
    one, two, three = (cost["macs"]["parts"]["backbone"] for cost in macs.values())
    assert two - one == three - two  # one more pass through the last two blocks
    assert 0 < two - one < one / 2


def test_the_context_chooses_one_task_for_the_whole_backbone():
    network, x = disturb(build("LowRank", OWN["LowRank"])).eval(), image()
    with torch.no_grad():
        own, all_tasks = network(x, context=Context(task="depth")), network(x)
    torch.testing.assert_close(own["depth"], all_tasks["depth"])
    assert (own["normals"] - all_tasks["normals"]).abs().max() > 1e-3
    with pytest.raises(UnknownNameError, match="edge"):
        network(x, context=Context(task="edge"))


def test_recomputed_blocks_keep_their_task():
    network = disturb(build("LowRank", OWN["LowRank"])).train()
    x, gradients = image(), []
    for recompute in (False, True):
        network.backbone.grad_checkpointing = recompute
        network.zero_grad()
        sum(item.square().mean() for item in network(x).values()).backward()
        gradients.append({name: p.grad.clone() for name, p in network.named_parameters() if p.requires_grad})
    for name, want in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], want, msg=name)


def mtlora_block(block, x, task):
    """The last block of a stage as MTLoRA's code computes it, without shift, drops or padding."""

    def both(layer, shared, own):
        frozen = nn.functional.linear(shared, layer.weight, layer.bias)
        a, b = layer.own[task].A, layer.own[task].B
        return frozen + layer.shared(shared, frozen, layer), frozen + own @ a.T @ b.T * layer.shared.scale

    taken = {}
    handle = block.attn.proj.register_forward_hook(lambda _, given, __: taken.update(x=given[0]))
    attended = block._attn(block.norm1(x))
    handle.remove()
    _, own_windows = both(block.attn.proj, taken["x"], taken["x"])
    area = block.window_size[0]
    own = own_windows.view(len(x), *(side // area for side in x.shape[1:3]), area, area, -1)
    own = own.permute(0, 1, 3, 2, 4, 5).reshape(x.shape)
    shared, own = x + attended, x + own
    first = both(block.mlp.fc1, block.norm2(shared), block.norm2(own))
    second = both(block.mlp.fc2, *(nn.functional.gelu(item) for item in first))
    return shared + second[0], own + second[1]


@pytest.mark.conformance("LowRank", "formulas")
def test_mtlora_as_released():
    options = {"shared": {"*.attn.*": 2, "*.mlp.*": 3}, "own": {"*.attn.proj": 2, "*.mlp.*": 2}, "side": True}
    network = disturb(build("LowRank", {**options, "scale": 4.0}, SWIN)).eval()
    x = image(size=(64, 64))
    backbone = network.backbone
    with torch.no_grad():
        found = backbone(x)
        states = list(backbone._states(x))
        for level, position in enumerate(backbone.exits):
            block = backbone.get_submodule(backbone.block_names()[position - 1])
            if any(block.shift_size):
                continue
            for name in NAMES:
                shared, own = mtlora_block(block, states[position - 1], name)
                torch.testing.assert_close(states[position], shared, rtol=1e-4, atol=1e-4)
                want = backbone.to_map(own, level, (64, 64))
                torch.testing.assert_close(found.for_task(name).maps[level], want, rtol=1e-4, atol=1e-4)
    assert calls(network, x) == [1, 4, 1, 4, 1, 4, 1, 4]  # a shared pass, and one per task at the ends


def added_block(block, x):
    """A block as MTLoRA's code computes it in its mode `addition`, without shift, drops or padding."""

    def layer(item, shared, own):
        frozen = nn.functional.linear(shared, item.weight, item.bias)
        made = {
            name: frozen + own[name] @ item.own[name].A.T @ item.own[name].B.T * item.own[name].scale
            for name in NAMES
        }
        return frozen + item.add(sum(made.values())), made

    shared = x + block._attn(block.norm1(x))  # all states are equal up to here
    inside, own = layer(block.mlp.fc1, *(block.norm2(shared), dict.fromkeys(NAMES, block.norm2(shared))))
    act = nn.functional.gelu
    after, own = layer(block.mlp.fc2, act(inside), {name: act(item) for name, item in own.items()})
    return shared + after, {name: shared + item for name, item in own.items()}


@pytest.mark.conformance("LowRank", "formulas")
def test_mtloras_addition_as_released():
    options = {"shared": {"*.attn.qkv": 2}, "own": {"*.mlp.*": 2}, "side": True, "addition": True}
    network = disturb(build("LowRank", options, SWIN)).eval()
    backbone, x = network.backbone, image(size=(64, 64))
    block, position = backbone.model.layers[0].blocks[1], backbone.exits[0]
    block.shift_size, block.attn_mask = (0, 0), None
    with torch.no_grad():
        found = backbone(x)
        state = list(backbone._states(x))[position - 1]
        shared, own = added_block(block, state)
        for name in NAMES:
            want = backbone.to_map(own[name], 0, (64, 64))
            torch.testing.assert_close(found.for_task(name).maps[0], want, rtol=1e-4, atol=1e-4)
        after = backbone.task_passes._stacked(backbone, block, state)[0]
    torch.testing.assert_close(after, shared, rtol=1e-4, atol=1e-4)
    assert calls(network, x) == [1] * 8  # one pass over all states
    with pytest.raises(ValueError, match="addition=True needs side=True"):
        build("LowRank", {**options, "side": False}, SWIN)


@pytest.mark.conformance("LowRank", "counts")
@pytest.mark.parametrize("rank", [16, 64])
def test_mtlora_has_the_published_number_of_values(rank):
    """Configs `mtlora_tiny_448_r*_scale4_pertask` of the released code: task ranks are 4."""
    layers = {"*.attn.qkv": rank, "*.attn.proj": rank, "*.mlp.*": rank}
    own = {"*.attn.proj": 4, "*.mlp.*": 4}
    swin = {"type": "TimmBackbone", "name": "swin_tiny_patch4_window7_224"}
    with torch.device("meta"):
        network = build("LowRank", {"shared": layers, "own": own, "side": True}, swin)
    trained = [p.numel() for p in network.backbone.parameters() if p.requires_grad]
    widths, depths = (96, 192, 384, 768), (2, 2, 6, 2)
    shared = sum(16 * width * depth for width, depth in zip(widths, depths, strict=True))
    assert shared == 70_656
    assert sum(trained) == rank * shared + 4 * len(TASKS) * sum(12 * width for width in widths)
    # The paper counts 4.95, 6.08 and 8.34 M trained parameters at ranks 16, 32 and 64, decoders included.
    assert [shared * step / 1e6 for step in (16, 32)] == pytest.approx([6.08 - 4.95, 8.34 - 6.08], abs=0.01)


def test_the_base_is_frozen_with_its_statistics():
    resnet = {"type": "TimmBackbone", "name": "vit_tiny_patch16_224", "embed_dim": 16, "depth": 2}
    network = build(
        "LowRank", {"shared": {"*": 1}, "train": ["*.norm1.*"]}, {**resnet, "num_heads": 2}
    ).train()
    backbone = network.backbone
    frozen = {name for name, item in backbone.named_parameters() if not item.requires_grad}
    updates = {name for name, _ in backbone.named_parameters() if ".shared." in name}
    norms = {name for name, _ in backbone.named_parameters() if ".norm1." in name}
    assert frozen == {name for name, _ in backbone.named_parameters()} - updates - norms
    assert not backbone.model.patch_embed.training
    assert not backbone.model.blocks[0].norm2.training
    assert backbone.model.blocks[0].norm1.training
    before = {name: item.clone() for name, item in network.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    sum(item.square().mean() for item in network(image()).values()).backward()
    optimizer.step()
    after = network.state_dict()
    assert all(torch.equal(before[f"backbone.{name}"], after[f"backbone.{name}"]) for name in frozen)


def test_a_file_holds_what_trains_and_loads_onto_the_base(tmp_path):
    plain, network = pair("LowRank", OWN["LowRank"])
    state = trained_state(network)
    updates = [item for name, item in state.items() if name.startswith("backbone.")]
    for item in updates:
        item.data.normal_(std=0.1)
    save_trained(network, tmp_path / "adapter.pth")
    stored = load_checkpoint(tmp_path / "adapter.pth")["state_dict"]
    trained = {name for name, p in network.named_parameters() if p.requires_grad}
    statistics = {name for name, _ in network.named_buffers() if not name.startswith("backbone.")}
    assert set(stored) == trained | statistics
    assert len(updates) == sum(name.startswith("backbone.") for name in trained)
    again = build("LowRank", OWN["LowRank"]).eval()
    with pytest.raises(CheckpointError, match="other frozen weights"):
        load_trained(again, tmp_path / "adapter.pth")
    again.load_state_dict(plain.state_dict(), strict=False)
    load_trained(again, tmp_path / "adapter.pth")
    x = image()
    with torch.no_grad():
        assert all(torch.equal(network(x)[name], again(x)[name]) for name in NAMES)
    other = build("LowRank", {**OWN["LowRank"], "shared": {"*.attn.qkv": 4, "*.mlp.*": 3}})
    with pytest.raises(CheckpointError, match=r"adapters\[0\].shared.*qkv is 2 in the file and 4"):
        load_trained(other, tmp_path / "adapter.pth")
    with pytest.raises(ValueError, match="no parameter of the network is frozen"):
        save_trained(plain, tmp_path / "whole.pth")


def test_a_warp_keeps_order_and_ends():
    values = torch.linspace(3, 0.5, 20)
    velocity = torch.tensor([0.3, -0.2, 0.4])
    moved = warped(velocity, 20)
    place = torch.linspace(0, 1, 20) + moved
    assert moved[0] == moved[-1] == 0
    assert (place.diff() > 0).all()
    found = resampled(values, moved)
    assert (found.diff() < 0).all()
    torch.testing.assert_close(
        found, values + moved * (0.5 - 3), rtol=1e-5, atol=1e-5
    )  # the values are a line
    assert torch.equal(resampled(values, warped(torch.zeros(3), 20)), values)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "neither `shared` nor `own` names layers"),
        ({"shared": {"*.attn.qvk": 2}}, r"'\*.attn.qvk' matches nothing in the backbone. There are.*qkv"),
        ({"shared": {"*.attn.qkv": 0}}, "rank 0 for"),
        ({"shared": {"*.attn.qkv": 2}, "train": ["*.bn.*"]}, r"LowRank.train: '\*.bn.\*'"),
    ],
)
def test_bad_options_are_named(options, text):
    with pytest.raises(ValueError, match=text):
        build("LowRank", options)


NAFLEX = {**VIT, "name": "naflexvit_base_patch16_siglip", "depth": 2, "img_size": None}


@pytest.mark.parametrize(
    ("kind", "options", "before"),
    [
        ("LowRank", {"shared": {"*": 1}, "own": {"*.1.mlp.*": 2}}, True),
        ("LowRank", {"own": {"*": 1}}, False),
        ("DiTASK", {"shared": {"*.attn.*": 2}, "own": {"*.1.attn.qkv": 2}}, False),
        ("PolySkills", {"shared": {"*": 1}}, False),
        ("HyperLowRank", {"shared": {"*": 1}}, False),
    ],
)
def test_no_update_lies_where_no_pass_reads_it(kind, options, before):
    """NaFlex has a linear layer before its blocks, which no task can have for itself."""
    network = disturb(build(kind, options, NAFLEX)).train()
    assert ("backbone.model.embeds.proj" in updated_layers(network)) == before
    sum(item.square().mean() for item in network(image()).values()).backward()
    trained = [(name, item) for name, item in network.named_parameters() if item.requires_grad]
    assert [name for name, item in trained if item.grad is None] == []


def test_what_does_not_fit_a_pass_per_task_is_refused():
    own = {"type": "LowRank", "own": {"*.mlp.*": 2}}
    with pytest.raises(ValueError, match="merge them into weights first"):
        build(adapters=[own, {"type": "Slimmable"}])
    resnet = {"type": "TimmBackbone", "name": "resnet18", "channels": (4, 8, 12, 16)}
    with pytest.raises(ValueError, match="the backbone has no linear layer. Choose a ViT"):
        build("LowRank", {"shared": {"*": 2}}, resnet)

"""Nodes, branched encoders and supernets against the plain backbone and against each other."""

from __future__ import annotations

import itertools
import json

import pytest
import torch

from mtvision.architecture.partitions import refinements, set_partitions
from mtvision.architecture.tree import Tree
from mtvision.core.context import Context, use_context
from mtvision.core.naming import UnknownNameError
from mtvision.core.registry import BACKBONES
from mtvision.models.branching.encoder import BranchedEncoder
from mtvision.models.branching.expected_cost import expected_nodes, expected_streams
from mtvision.models.branching.paths import cut_points
from mtvision.models.branching.select import select
from mtvision.models.branching.supernet import BranchingSearch, temperature
from mtvision.models.factory import build_network
from mtvision.ops.flops import count_flops
from mtvision.protocols.tasks import depth, edge, semseg

TASKS = (semseg(("a", "b")), depth(), edge())
NAMES = ["semseg", "depth", "edge"]
BACKBONE_CONFIGS = {
    "resnet": {"type": "TimmBackbone", "name": "resnet10t"},
    "swin": {
        "type": "SwinBackbone", "name": "swin_tiny_patch4_window7_224", "embed_dim": 8,
        "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2), "drop_path_rate": 0.0,
    },
    "vit": {
        "type": "TimmBackbone", "name": "vit_tiny_patch16_224", "embed_dim": 16, "depth": 4, "num_heads": 2,
        "img_size": 64,
    },
    "vmamba": {"type": "VMambaBackbone", "depths": (1, 1, 1, 1), "width": 8, "drop_path_rate": 0.0},
    "mobilenet": {"type": "TimmBackbone", "name": "mobilenetv2_050"},
}  # fmt: skip


def backbone(kind="resnet"):
    torch.manual_seed(0)
    return BACKBONES.build(BACKBONE_CONFIGS[kind]).eval()


def branch(net):
    ends = cut_points(net, "stages")
    return [end - start for start, end in itertools.pairwise((0, *ends))]


def supernet(net=None, **options):
    net = net or backbone()
    defaults = {"iterations": 20, "warmup": 0, "image_size": (64, 64)}
    return BranchingSearch(**{**defaults, **options}).apply(net, TASKS)


@pytest.mark.parametrize("kind", BACKBONE_CONFIGS)
def test_every_branch_starts_as_the_plain_backbone(kind):
    net, image = backbone(kind), torch.randn(1, 3, 64, 64)
    tree = Tree.from_paths({"semseg": "aaa", "depth": "aab", "edge": "abb"}, _three(branch(net)))
    branched = BranchedEncoder(net, tree).eval()
    assert (branched.channels, branched.strides) == (net.channels, net.strides)
    with torch.no_grad():
        expected, result = net(image), branched(image)
    for name in NAMES:
        for mine, plain in zip(result.for_task(name).maps, expected.maps, strict=True):
            assert torch.equal(mine, plain)
    sizes = [sum(item.numel() for item in node.parameters()) for node in branched.node_chain()]
    assert sum(sizes) == sum(item.numel() for item in net.parameters())  # nothing twice, nothing lost
    total = sum(item.numel() for item in branched.parameters())
    assert total == tree.cost(sizes)


def _three(blocks):
    return (blocks[0], blocks[1], sum(blocks[2:]))


@pytest.mark.parametrize("kind", BACKBONE_CONFIGS)
def test_every_parameter_left_in_a_branch_is_used(kind):
    net = backbone(kind)
    blocks = _three(branch(net))
    branched = BranchedEncoder(net, Tree.separate(NAMES, blocks)).train()
    maps = branched(torch.randn(2, 3, 64, 64)).for_task("depth").maps
    sum(item.square().sum() for item in maps).backward()
    reached = {name for name, item in branched.named_parameters() if item.grad is not None}
    own = {name for name, _ in branched.named_parameters() if name.split(".")[2] == "1"}
    assert reached == own


def test_only_branches_of_the_tasks_read_are_computed():
    model = {
        "backbone": BACKBONE_CONFIGS["resnet"],
        "adapters": [{"type": "Branched", "tree": Tree.separate(NAMES, branch(backbone())).to_plain()}],
        "decoder": {"type": "ParallelDecoder", "width": 8},
        "head": {"type": "ConvHead"},
    }
    network, image = build_network(model, TASKS).eval(), torch.zeros(1, 3, 64, 64)
    with torch.no_grad():
        counts = [
            count_flops(lambda t=t: network(image, tasks=t))["Network.backbone"] for t in (None, ["edge"])
        ]
        full, alone = network(image), network(image, tasks=["edge"])
    assert counts[0] == 3 * counts[1]
    assert list(alone) == ["edge"]
    assert torch.equal(alone["edge"], full["edge"])


def test_config_and_state_dict_rebuild_the_network_without_the_tree_file(tmp_path):
    tree = Tree.from_paths({"semseg": "aaaa", "depth": "aabb", "edge": "aabc"}, branch(backbone()))
    file = tmp_path / "architecture.json"
    file.write_text(json.dumps({"tree": tree.to_plain(), "cost": {}}))
    model = {
        "backbone": BACKBONE_CONFIGS["resnet"],
        "adapters": [{"type": "Branched", "tree": str(file)}],
        "decoder": {"type": "ParallelDecoder", "width": 8},
        "head": {"type": "ConvHead"},
    }
    network = build_network(model, TASKS)
    file.unlink()
    again = build_network(json.loads(json.dumps(network.architecture)), TASKS)
    again.load_state_dict(dict(network.state_dict()))  # a checkpoint's dict has no version numbers
    single = build_network(
        network.architecture | {"tasks": None, "heads": {"depth": {"type": "ConvHead"}}}, TASKS[1:2]
    )
    assert single.backbone.tree.levels[-1] == (("depth",),)


@pytest.mark.parametrize(
    ("levels", "blocks", "message"),
    [
        ([[["a"], ["b"]], [["a", "b"]]], [1, 1], "merges a, b again"),
        ([[["a", "b"]], [["a"]]], [1, 1], "no partition"),
        ([[["a", "b"]]], [1, 1], "one each"),
        ([[["a", "b"], ["b"]]], [1], "no partition"),
    ],
)
def test_what_is_no_tree_is_refused(levels, blocks, message):
    with pytest.raises(ValueError, match=message):
        Tree.from_plain({"levels": levels, "blocks": blocks})


def test_a_tree_of_another_backbone_or_other_tasks_is_refused(tmp_path):
    with pytest.raises(ValueError, match="tree has 2 blocks"):
        BranchedEncoder(backbone(), Tree.shared(NAMES, (1, 1)))
    with pytest.raises(FileNotFoundError, match="tools/search.py"):
        Tree.load(tmp_path / "none.json")
    with pytest.raises(UnknownNameError):
        Tree.shared(NAMES, (1,)).path("normals")


def test_numbers_of_partitions_are_bells():
    counts = [len(set(set_partitions(range(n)))) for n in range(6)]
    assert counts == [1, 1, 2, 5, 15, 52]
    assert len(list(refinements([(0, 1), (2, 3, 4)]))) == 2 * 5


@pytest.mark.slow
@pytest.mark.parametrize("mixing", ["straight_through", "streams"])
@pytest.mark.parametrize(
    ("tasks", "copies"), [(2, (1, 2)), (3, (1, 2, 3)), (4, (3, 2, 2)), (4, (1, 2, 2, 2))]
)
def test_expected_cost_equals_enumeration(mixing, tasks, copies):
    generator = torch.Generator().manual_seed(7)
    rows = [tasks] * len(copies) if mixing == "streams" else [*copies[1:], tasks]
    tables = [
        torch.randn(r, c, generator=generator, dtype=torch.float64).softmax(dim=1)
        for r, c in zip(rows, copies, strict=True)
    ]
    expected = torch.zeros(len(copies), dtype=torch.float64)
    spaces = [itertools.product(range(c), repeat=r) for r, c in zip(rows, copies, strict=True)]
    for choice in itertools.product(*map(list, spaces)):
        probability = 1.0
        for table, level in zip(tables, choice, strict=True):
            for child, parent in enumerate(level):
                probability *= float(table[child, parent])
        paths = []
        for task in range(tasks):
            if mixing == "streams":
                paths.append(tuple(level[task] for level in choice))
            else:
                child, path = task, []
                for level in reversed(choice):
                    child = level[child]
                    path.insert(0, child)
                paths.append(tuple(path))
        for level in range(len(copies)):
            expected[level] += probability * len({path[: level + 1] for path in paths})
    found = (expected_streams if mixing == "streams" else expected_nodes)(tables)
    torch.testing.assert_close(found, expected)


def test_selection_is_exact_forward_and_straight_through_backward():
    generator = torch.Generator().manual_seed(0)
    items = [torch.randn(2, 3, generator=generator, requires_grad=True) for _ in range(3)]
    logits = torch.randn(3, generator=generator, requires_grad=True)
    (picked,) = select([[item] for item in items], logits.softmax(dim=0), 1)
    assert torch.equal(picked, items[1])
    gradient = torch.randn(2, 3, generator=generator)
    found = torch.autograd.grad(picked, [logits, items[1]], gradient)
    soft = logits.softmax(dim=0)
    hard = torch.eye(3)[1] - soft.detach() + soft
    slow = sum(weight * item for weight, item in zip(hard, items, strict=True))
    expected = torch.autograd.grad(slow, [logits, items[1]], gradient)
    torch.testing.assert_close(found, expected)


@pytest.mark.conformance("BranchingSearch", "export")
@pytest.mark.slow
@pytest.mark.parametrize("mixing", ["straight_through", "streams"])
@pytest.mark.parametrize("kind", BACKBONE_CONFIGS)
def test_sampled_network_equals_the_exported_one(kind, mixing):
    plain = backbone(kind)
    levels = len(cut_points(plain, "stages"))
    net = supernet(plain, mixing=mixing, copies=[2, 2, 3, 3, 3][:levels]).eval()
    with torch.no_grad():
        for item in net.nodes.parameters():
            item.add_(0.05 * torch.randn_like(item))
    image = torch.randn(2, 3, 64, 64)
    for step in range(6 if kind == "resnet" else 2):
        choices = [draw.argmax(dim=1).tolist() for draw in net.sample(step)]
        tree, encoder = net.tree(choices), net.export(plain, choices).eval()
        assert encoder.tree == tree
        with torch.no_grad(), use_context(Context(branches={"choices": choices})):
            sampled, retrained = net(image), encoder(image)
        for name in NAMES:
            for mine, other in zip(sampled.for_task(name).maps, retrained.for_task(name).maps, strict=True):
                assert torch.equal(mine, other)


@pytest.mark.slow
@pytest.mark.parametrize("mixing", ["straight_through", "streams"])
def test_the_retrained_config_is_the_searched_network(mixing, tmp_path):
    """With the supernet's weights: same logits through decoder and heads, from nothing but plain data."""
    model = {
        "backbone": BACKBONE_CONFIGS["resnet"],
        "adapters": [{"type": "BranchingSearch", "mixing": mixing, "copies": [2, 2, 3, 3], "iterations": 9,
                      "image_size": (64, 64)}],
        "decoder": {"type": "ParallelDecoder", "width": 8},
        "head": {"type": "ConvHead"},
    }  # fmt: skip
    searched = build_network(model, TASKS).eval()
    net = searched.backbone
    with torch.no_grad():
        for item in searched.parameters():
            item.add_(0.05 * torch.randn_like(item))
    file = tmp_path / "architecture.json"
    file.write_text(json.dumps({"tree": net.tree().to_plain()}))
    retrained = build_network({**model, "adapters": [{"type": "Branched", "tree": str(file)}]}, TASKS).eval()
    retrained.backbone.load_state_dict(net.export(backbone()).state_dict())
    retrained.decoder.load_state_dict(searched.decoder.state_dict())
    retrained.heads.load_state_dict(searched.heads.state_dict())
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected, found = searched(image), retrained(image)
    for name in NAMES:
        assert torch.equal(found[name], expected[name])


@pytest.mark.parametrize("mixing", ["straight_through", "streams"])
def test_most_likely_trees_never_merge_again(mixing):
    """Whatever the logits say, tasks that part stay apart; the choices of streams alone do not say so."""
    net, met = supernet(mixing=mixing, copies=[2, 3, 3, 3]), 0
    generator = torch.Generator().manual_seed(2)
    for _ in range(200):
        with torch.no_grad():
            for logits in net.architecture_logits:
                logits.copy_(torch.randn(logits.shape, generator=generator))
        paths, tree = net.paths(net.best_choices()), net.tree()
        for one, two in itertools.combinations(NAMES, 2):
            together = [tree.path(one)[level] == tree.path(two)[level] for level in range(4)]
            assert together == sorted(together, reverse=True)
            chosen = [a == b for a, b in zip(paths[one], paths[two], strict=True)]
            assert together == [all(chosen[: level + 1]) for level in range(4)]
            met += chosen != together
    assert (met > 0) == (mixing == "streams")


def test_training_pass_is_the_sampled_tree_exactly():
    net = supernet(copies=[1, 2, 3, 3]).train()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.0
    image = torch.randn(2, 3, 64, 64)
    sampled = net(image)
    choices = [draw.argmax(dim=1).tolist() for draw in net.sample(0)]
    with use_context(Context(branches={"choices": choices})):
        given = net(image)
    for name in NAMES:
        for mine, other in zip(sampled.for_task(name).maps, given.for_task(name).maps, strict=True):
            assert torch.equal(mine, other)
    sum(sampled.for_task(name).maps[-1].square().mean() for name in NAMES).backward()
    assert net.architecture_logits[-1].grad.abs().sum() > 0


@pytest.mark.slow
def test_a_training_pass_costs_at_most_the_sampled_paths():
    plain = backbone()
    one = count_flops(lambda: plain(torch.zeros(1, 3, 64, 64)))["Global"]
    net = supernet(plain, copies=[3, 3, 3, 3]).train()
    image = torch.randn(2, 3, 64, 64)
    costs = []
    for step in range(8):
        tree = net.tree([draw.argmax(dim=1).tolist() for draw in net.sample(step)])
        costs.append(count_flops(lambda: net(image))["Global"] / 2)
        assert costs[-1] == 2 * tree.cost(net.macs) <= 3 * one
    assert int(net.passes) == 8
    assert min(costs) < 3 * one


@pytest.mark.slow
def test_streams_cost_the_square():
    plain = backbone()
    net = supernet(plain, mixing="streams").train()
    cost = count_flops(lambda: net(torch.randn(2, 3, 64, 64)))["Global"] / 2
    assert cost == 9 * 2 * sum(net.macs)


def test_draws_depend_on_seed_and_pass_alone():
    first, second, other = supernet(), supernet(), supernet(seed=1)
    second.load_state_dict(first.state_dict())
    torch.rand(100)
    for mine, theirs in zip(first.sample(11), second.sample(11), strict=True):
        assert torch.equal(mine, theirs)
    assert any(not torch.equal(a, b) for a, b in zip(first.sample(11), other.sample(11), strict=True))
    first.train()(torch.randn(2, 3, 64, 64))
    second.load_state_dict(first.state_dict())
    assert int(second.passes) == 1


def test_warm_up_trains_no_logits_and_keeps_copies_alike():
    net = supernet(warmup=2, copies=[1, 2, 2, 3], cost_weight=1.0).train()
    maps = net(torch.randn(2, 3, 64, 64)).for_task("depth").maps
    (maps[-1].square().mean() + net.auxiliary_loss()).backward()
    assert all(item.grad is None or not item.grad.any() for item in net.architecture_logits)
    gradients = [[item.grad for item in net.node(3, index).parameters()] for index in (0, 2)]
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two)


def test_temperatures_end_where_they_should():
    for kind in ("root", "linear"):
        values = [temperature(kind, step, 100, 10.0, 0.1) for step in range(101)]
        assert values[0] == 10.0
        assert values[-1] == pytest.approx(0.1)
        assert values == sorted(values, reverse=True)


@pytest.mark.slow
@pytest.mark.parametrize("mixing", ["straight_through", "streams"])
def test_cost_gradient_prefers_sharing(mixing):
    net = supernet(mixing=mixing, copies=[2, 2, 2, 2], cost_weight=1.0).train()
    net.passes.fill_(1)
    with torch.no_grad():
        for logits in net.architecture_logits:
            logits.add_(0.3 * torch.randn(logits.shape, generator=torch.Generator().manual_seed(1)))
    for _ in range(200):
        gradients = torch.autograd.grad(net.expected_macs() / sum(net.macs), list(net.architecture_logits))
        with torch.no_grad():
            for logits, gradient in zip(net.architecture_logits, gradients, strict=True):
                logits.sub_(5.0 * gradient)
    assert net.tree() == Tree.shared(NAMES, net.block_counts)
    assert net.expected_macs().item() < 1.15 * sum(net.macs)

"""Experts: equal to the dense MLP where they should be, routers, masks, combiners, losses, M3ViT's counts."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from disturbed import disturb
from timm.layers.mlp import Mlp

from mtvision.core.context import Context, current_context, use_context
from mtvision.core.naming import UnknownNameError
from mtvision.data.decode import read_image
from mtvision.models.adapters.experts import MixtureOfExperts
from mtvision.models.backbones.task_passes import remembering
from mtvision.models.factory import build_network
from mtvision.models.layers.experts import (
    Experts,
    MixtureMLP,
    Routing,
    SharedRouter,
    TaskRouter,
    exclusive_mask,
    losses,
    orthogonal_sum,
    orthonormal_sum,
    weighted_sum,
)
from mtvision.models.layers.experts.usage import expert_usage
from mtvision.protocols.tasks import depth, semseg
from mtvision.report.cost import measure_cost
from mtvision.visualize.experts import plot_expert_usage

TASKS = (semseg(("sky", "road", "car")), depth())
NAMES = [task.name for task in TASKS]
VIT = {"type": "TimmBackbone", "name": "vit_tiny_patch16_224", "embed_dim": 16, "depth": 4, "num_heads": 2}


def build(adapted=True, backbone=VIT, **options):
    adapters = [{"type": "MixtureOfExperts", "experts": 4, "top_k": 2, **options}] if adapted else []
    parts = {"decoder": {"type": "ParallelDecoder", "width": 8}, "head": {"type": "ConvHead", "hidden": 8}}
    return build_network({"backbone": {**backbone}, "adapters": adapters, **parts}, TASKS)


def mixture(router=SharedRouter, features=6, experts=5, top_k=2, combine=weighted_sum, **options):
    return disturb(MixtureMLP(router(features, experts, top_k, NAMES, **options), features, 7, combine))


def on(task):
    return use_context(Context(task=task))


@pytest.mark.parametrize("options", [{"renormalise": True}, {"top_k": 4}, {"experts": 1, "top_k": 1}])
def test_equal_experts_are_the_dense_mlp(options):
    """Weights that sum to 1: normalised ones, those of all experts, that of the only one."""
    mlp = disturb(Mlp(6, 9))
    adapter = MixtureOfExperts(**{"experts": 4, "top_k": 2, "router": "shared", "copy": True, **options})
    layer, x = adapter._mixture("mlp", mlp, NAMES), torch.randn(2, 5, 6)
    torch.testing.assert_close(layer(x), mlp(x), rtol=1e-5, atol=1e-5)


@pytest.mark.conformance("MixtureOfExperts", "formulas")
def test_sorted_experts_are_those_of_a_loop():
    experts, tokens = disturb(Experts(5, 6, 7)), torch.randn(11, 6)
    index = torch.stack([torch.randperm(4)[:3] for _ in range(11)])  # the last expert gets no token
    found = experts(tokens, index)
    for number, token in enumerate(tokens):
        for place, expert in enumerate(index[number]):
            inner = experts.first.weight[expert] @ token + experts.first.bias[expert]
            want = (
                experts.second.weight[expert] @ torch.nn.functional.gelu(inner) + experts.second.bias[expert]
            )
            torch.testing.assert_close(found[number, place], want, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(experts.every(tokens).gather(1, index[..., None].expand(-1, -1, 6)), found)
    found.sum().backward()
    assert experts.first.weight.grad[4].abs().max() == 0  # zero, not absent: distributed training needs it


def test_the_weights_are_the_chosen_part_of_a_softmax_over_all():
    router, tokens = disturb(SharedRouter(6, 5, 2, NAMES)), torch.randn(7, 6)
    routing = router(tokens)
    want = (tokens @ router.gate).softmax(dim=-1)
    torch.testing.assert_close(routing.gates, want.topk(2).values)
    assert (routing.gates.sum(dim=-1) < 1).all()
    normed = disturb(SharedRouter(6, 5, 2, NAMES, renormalise=True))(tokens)
    torch.testing.assert_close(normed.gates.sum(dim=-1), torch.ones(7))


def test_noise_is_given_or_drawn_in_training_alone():
    router, tokens = disturb(SharedRouter(6, 5, 2, NAMES, noise=2.0)), torch.randn(7, 6)
    noise = torch.randn(7, 5)
    routing = router.train()(tokens, noise)
    torch.testing.assert_close(routing.noisy, routing.logits + noise * 2 / 5)
    assert torch.equal(router(tokens, noise).experts, routing.experts)
    assert not torch.equal(router(tokens).noisy, router(tokens).noisy)
    assert torch.equal(router.eval()(tokens).noisy, routing.logits)


def test_a_task_without_route_is_named():
    layer, x = mixture(TaskRouter), torch.randn(3, 6)
    with pytest.raises(ValueError, match="this pass is of no task"):
        layer(x)
    with on("normals"), pytest.raises(UnknownNameError, match="normals"):
        layer(x)
    with on("depth"):
        first = layer(x)
    with on("semseg"):
        assert not torch.allclose(first, layer(x))


@pytest.mark.parametrize("excluded", [False, True])
def test_restricted_experts(excluded):
    allowed = exclusive_mask(3, 6, 0.5, excluded=excluded, seed=1)
    counts = sorted(allowed.sum(dim=0).tolist())
    assert counts == ([2, 2, 2, 3, 3, 3] if excluded else [1, 1, 1, 3, 3, 3])
    allowed = exclusive_mask(2, 5, 0.4, excluded=excluded, seed=1)
    router = disturb(SharedRouter(6, 5, 2, NAMES, allowed=allowed))
    for number, name in enumerate(NAMES):
        with on(name):
            routing = router(torch.randn(50, 6))
        assert allowed[number][routing.experts].all()
        assert (routing.probabilities[:, ~allowed[number]] == 0).all()


def test_orthogonal_results():
    layer = mixture(combine=orthogonal_sum, top_k=3)
    x = torch.randn(4, 6)
    routing = layer.router(x)
    results = layer.experts(x, routing.experts)
    found = layer(x)
    for number in range(4):
        order = routing.experts[number].argsort()
        basis = torch.linalg.qr(results[number][order].T).Q  # Gram-Schmidt up to signs
        basis = basis * torch.sign((basis * results[number][order].T).sum(dim=0))
        want = basis @ routing.gates[number][order]
        torch.testing.assert_close(found[number], want, rtol=1e-4, atol=1e-4)
    twice = results[:, :1].expand(-1, 3, -1)
    assert torch.isfinite(orthonormal_sum(twice, routing)).all()


def routing_of(logits, top_k=2, noise=None):
    noisy = logits if noise is None else logits + noise
    gates, index = noisy.softmax(dim=-1).topk(top_k)
    return Routing(index, gates, noisy.softmax(dim=-1), logits, noisy)


def test_losses_by_hand():
    logits = torch.tensor([[3.0, 1.0, 0.0], [0.0, 2.0, 1.0]], requires_grad=True)
    routing = routing_of(logits, 1)
    p = logits.softmax(dim=-1)
    weights = torch.stack([p[0, 0], p[1, 1], torch.zeros(())])
    counted = torch.tensor([1.0, 1.0, 0.0])
    want = sum(item.var() / item.mean() ** 2 for item in (weights, counted))
    torch.testing.assert_close(losses.balance_loss(routing, 0.0), want)
    torch.testing.assert_close(losses.z_loss(routing), logits.exp().sum(-1).log().square().mean())
    means = [torch.tensor([0.9, 0.1]), torch.tensor([0.2, 0.8])]
    joint = torch.stack(means) / 2
    information = sum(
        joint[t, e] * math.log(joint[t, e] / (joint[t].sum() * joint[:, e].sum()))
        for t in range(2)
        for e in range(2)
    )
    torch.testing.assert_close(losses.mutual_information_loss(means), -information)


@pytest.mark.parametrize("excluded", [False, True])
def test_experts_that_are_closed_to_a_task_share_no_information_and_get_no_gradient(excluded):
    allowed = exclusive_mask(2, 5, 0.4, excluded=excluded, seed=1)
    layer = MixtureMLP(TaskRouter(6, 5, 2, NAMES, noise=1.0, allowed=allowed), 6, 7, balance=1, z=1, mutual=1)
    x = torch.randn(9, 6)
    with remembering((1, 1)):
        for name in NAMES:
            with use_context(replace(current_context(), task=name)):
                layer(x)
    assert len(layer._seen) == 2
    torch.testing.assert_close(
        losses.mutual_information_loss([torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])]),
        torch.tensor(-math.log(2)),
    )
    layer.auxiliary_loss().backward()
    for number, name in enumerate(NAMES):
        gradient = layer.router.gate[name].grad
        assert torch.isfinite(gradient).all()
        assert (gradient.abs().sum(dim=0) > 0).tolist() == allowed[number].tolist()


def test_the_expected_load_is_that_of_many_draws():
    torch.manual_seed(0)
    logits, deviation = torch.randn(1, 4), 0.7
    noise = torch.randn(1, 4) * deviation
    found = losses.load(routing_of(logits, 2, noise), deviation)
    for expert in range(4):
        draws = (logits + noise).repeat(40_000, 1)
        draws[:, expert] = logits[0, expert] + torch.randn(40_000) * deviation
        share = (draws.topk(2).indices == expert).any(dim=-1).float().mean()
        assert abs(found[expert] - share) < 0.015


def test_losses_of_all_passes_are_collected_once():
    network = disturb(build()).train()
    mixtures = [item for item in network.modules() if isinstance(item, MixtureMLP)]
    x = torch.randn(2, 3, 32, 32)
    network(x)
    network(x)
    assert [len(item._seen) for item in mixtures] == [2, 2]  # the tasks of the last forward pass
    network(x, ["depth"])
    found = network.auxiliary_losses()
    assert sorted(found) == ["backbone.model.blocks.1.mlp", "backbone.model.blocks.3.mlp"]
    assert all(len(item._seen) == 1 for item in mixtures)
    want = 0.01 * losses.balance_loss(mixtures[0]._seen[0], 0.0)
    torch.testing.assert_close(found["backbone.model.blocks.1.mlp"], want)
    assert copy.deepcopy(mixtures[0]).auxiliary_loss() == 0
    with torch.no_grad():
        network.eval()(x)
    assert sum(network.auxiliary_losses().values()) == 0


@pytest.mark.parametrize("router", ["task", "shared"])
def test_usage_is_the_share_of_tokens_that_go_to_an_expert(router, tmp_path):
    network = disturb(build(router=router))
    first, last = network.backbone.model.blocks[1].mlp.router, network.backbone.model.blocks[3].mlp.router
    (
        first.gate if router == "shared" else first.gate["depth"]
    ).data.zero_()  # equal scores: the same two for all
    seen = []
    last.register_forward_hook(lambda _, __, routing: seen.append(routing.experts))
    usage = expert_usage(network, torch.randn(2, 3, 32, 48))
    names = ["all tasks"] if router == "shared" else NAMES
    assert [list(item) for item in usage.values()] == [names, names]
    assert sorted(usage["backbone.model.blocks.1.mlp.router"][names[-1]]) == [0, 0, 0.5, 0.5]
    for name, chosen in zip(names, seen, strict=True):
        counts = [int((chosen == expert).sum()) / chosen.numel() for expert in range(4)]
        assert usage["backbone.model.blocks.3.mlp.router"][name] == pytest.approx(counts)
    plot_expert_usage(usage, tmp_path / "usage.png")
    assert read_image(tmp_path / "usage.png").std() > 0
    with pytest.raises(ValueError, match="no experts with a router"):
        expert_usage(build(adapted=False), torch.randn(1, 3, 32, 32))


@pytest.mark.conformance("MixtureOfExperts", "counts")
def test_m3vit_has_the_values_of_its_formula():
    """16 experts of width 384 in every second block of a ViT-S, and a gate of 384 x 16 per task."""
    small = {"type": "TimmBackbone", "name": "vit_small_patch16_224"}
    with torch.device("meta"):
        dense, sparse = build(False, small), build(True, small, experts=16, top_k=4)
    size = {net: sum(item.numel() for item in net.backbone.parameters()) for net in (dense, sparse)}
    expert, mlp = 2 * 384 * 384 + 2 * 384, 2 * 4 * 384 * 384 + 5 * 384
    assert size[sparse] - size[dense] == 6 * (16 * expert + len(TASKS) * 384 * 16 - mlp)
    cost = measure_cost(sparse, (64, 64), meta=True, tasks=["depth"])
    assert cost["parameters"]["total"] - cost["parameters"]["active"] == 6 * 12 * expert
    plain = measure_cost(dense, (64, 64), meta=True, tasks=["depth"])["macs"]["parts"]["backbone"]
    # Four experts of width 384 do the work of one MLP of width 4 x 384; the gate comes on top, 17 tokens.
    assert cost["macs"]["parts"]["backbone"] - plain == 6 * 17 * 384 * 16


def test_meta_and_real_costs_agree():
    network = build(top_k=3)
    found = [measure_cost(network, (32, 48), meta=meta)["macs"]["total"] for meta in (True, False)]
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"top_k": 5}, "top_k=5 of 4 experts"),
        ({"restricted": 1.0, "top_k": 3}, "leaves a task 2 of 4 experts, fewer than top_k=3"),
        ({"blocks": ["*.9.mlp"]}, r"'\*.9.mlp' matches no MLP; the backbone has model.blocks.0.mlp"),
        ({"backbone": {"type": "TimmBackbone", "name": "resnet18"}}, "has 0 MLPs of timm"),
    ],
)
def test_bad_options_are_named(options, text):
    with torch.device("meta"), pytest.raises(ValueError, match=text):
        build(**options)

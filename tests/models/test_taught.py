"""SAK and PRISM: identities, routers, experts, counts of the released classes, what trains, and refusals."""

from __future__ import annotations

import copy

import pytest
import torch
from disturbed import disturb
from torch import nn
from torch.nn import functional as F

from mtvision.core.context import Context, use_context
from mtvision.core.naming import UnknownNameError
from mtvision.core.observer import REPRESENTATIONS, Representations
from mtvision.core.shapes import without_values
from mtvision.models.adapters.taught.conditions import Conditions, FiLMRouter, of_teachers
from mtvision.models.adapters.taught.layers import PathStep, RepresentationRouter
from mtvision.models.factory import build_network
from mtvision.models.layers.experts import Routing
from mtvision.models.layers.experts.losses import switch_loss
from mtvision.models.trained import save_trained
from mtvision.protocols import get_protocol
from mtvision.protocols.tasks import depth, semseg
from mtvision.report.cost import measure_cost
from mtvision.runtime.checkpoint import load_checkpoint
from mtvision.testing.inputs import ToyBackbone

TASKS = (semseg(("sky", "road", "car")), depth())
NAMES = ("semseg", "depth")
TEACHERS = {"clip": 16, "sam": [12, 12, 8, 8]}
VIT = {"type": "TimmBackbone", "name": "vit_tiny_patch16_224", "embed_dim": 16, "depth": 4, "num_heads": 2}
PARTS = {"decoder": {"type": "ConcatDecoder"}, "head": {"type": "LevelsHead"}}


def build(*adapters, **options):
    return build_network({"backbone": {**VIT, **options}, "adapters": list(adapters), **PARTS}, TASKS)


def sak(**options):
    return {"type": "SAK", "teachers": TEACHERS, "align": True, **options}


def prism(**options):
    return {"type": "PRISM", "teachers": TEACHERS, "experts": 4, "top_k": 2, **options}


def image(count=2):
    return torch.randn(count, 3, 32, 48)


def maps(network, x):
    with torch.no_grad():
        pyramid = network.backbone(x)
        return [item for name in NAMES for item in pyramid.for_task(name).maps]


def plain(network):
    """A network without adapter and without a final norm, whose ViT has the values of the one inside."""
    base = build(final_norm=False)
    inner = {
        key.replace(".mlp.dense.", ".mlp."): item for key, item in network.backbone.inner.state_dict().items()
    }
    base.backbone.load_state_dict({key: inner[key] for key in base.backbone.state_dict()})
    return base.eval()


def test_a_step_of_scale_0_changes_nothing():
    step, x = disturb(PathStep(8, 4)), torch.randn(2, 5, 8)
    assert not torch.equal(step(x), x)
    step.scale.data.zero_()
    assert torch.equal(step(x), x)


@pytest.mark.conformance("SAK", "formulas")
def test_routers_that_choose_the_stem_give_the_plain_vit():
    """Paths do not touch the stem."""
    x, network = image(), disturb(build(sak())).eval()
    for router in network.backbone.routers.values():
        nn.init.zeros_(router.layers[-1].weight)
        nn.init.zeros_(router.layers[-1].bias)
        router.layers[-1].bias.data[0] = 200.0
    found, want = maps(network, x), maps(plain(network), x)
    assert all(torch.equal(one, other) for one, other in zip(found, want, strict=True))


def test_a_sum_has_every_map_once_and_paths_follow_the_states():
    network, x = disturb(build(sak(teachers={"clip": 16}, mix="sum", align=False))).eval(), image()
    stem = plain(network).backbone
    with torch.no_grad():
        states = list(stem._states(x))
        path = network.backbone.paths["clip"][0](states[0])
        for level, state in enumerate(states[1:]):
            path = network.backbone.paths["clip"][level + 1](path + state)
            normed = F.layer_norm(
                path[:, 1:], (16,), *network.backbone.out_norms[f"{level}_clip"].parameters()
            )
            want = stem.to_map(state, level, (32, 48)) + normed.transpose(1, 2).unflatten(2, (2, 3))
            torch.testing.assert_close(network.backbone(x).maps[level], want)


def test_scores_are_of_an_image_and_noise_of_a_pixel_or_an_image():
    feature, shuffled = torch.randn(2, 6, 3, 4), torch.randperm(12)
    for kind, size in {"pixel": (3, 4), "image": (1, 1)}.items():
        router = disturb(RepresentationRouter(6, 3, kind))
        weights = router.weights(feature, torch.zeros(2, 3, 1, 1))
        moved = router.weights(
            feature.flatten(2)[..., shuffled].unflatten(2, (3, 4)), torch.zeros(2, 3, 1, 1)
        )
        torch.testing.assert_close(moved, weights)
        torch.testing.assert_close(router.eval().weights(feature), weights)
        scores = router.layers(feature.flatten(2).transpose(1, 2)).mean(1)[..., None, None]
        noise = torch.randn(2, 3, *size)
        want = (scores[:, :3] + noise * (F.softplus(scores[:, 3:]) + 0.01)).softmax(1)
        torch.testing.assert_close(router.weights(feature, noise), want)
        assert router.train().weights(feature).shape == (2, 3, *size)
    assert disturb(RepresentationRouter(6, 3, "none")).train().weights(feature).shape == (2, 3, 1, 1)


def test_a_gate_that_is_shut_gives_the_plain_vit():
    """Every level passes the final norm."""
    network, x = disturb(build(prism(gate=(1.0, 1.0)))).eval(), image()
    norm = network.backbone.norm
    want = [norm(item.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) for item in maps(plain(network), x)]
    assert all(torch.equal(one, other) for one, other in zip(maps(network, x), want, strict=True))


@pytest.mark.conformance("PRISM", "formulas")
def test_fresh_experts_are_copies_of_the_mlp():
    """With weights of inputs left out: g·f + (1 - g)·(f + f), since the weights of experts sum to 1."""
    network = build(prism(weigh_inputs=False, dropout=0.0, noise=False))
    layer, x = network.backbone.inner.model.blocks[1].mlp, torch.randn(2, 5, 16)
    with torch.no_grad(), use_context(Context(task="depth")):
        share = layer.share(x)
        torch.testing.assert_close(share, 0.5 + 0.5 * torch.sigmoid(layer.gate(x)))
        torch.testing.assert_close(layer(x), (2 - share) * layer.dense(x), rtol=1e-4, atol=1e-5)
    with torch.no_grad(), use_context(of_teachers(Context(), torch.tensor([1, 0]))):
        torch.testing.assert_close(layer(x), (2 - share) * layer.dense(x), rtol=1e-4, atol=1e-5)


def router(**options):
    conditions = disturb(Conditions(NAMES, ("clip", "sam"), 6))
    return FiLMRouter(conditions, 6, 5, 2, **{"dropout": 0.5, "noisy": True, **options}), torch.randn(8, 6)


def test_conditions_move_scores_once_film_has_learned():
    layer, tokens = router()
    given = [Context(task="depth"), Context(task="semseg"), of_teachers(Context(), torch.tensor([0, 1]))]

    def scores():
        found = []
        for context in given:
            with use_context(context):
                found.append(layer.eval()(tokens).logits)
        return found

    fresh = scores()
    assert all(torch.equal(item, fresh[0]) for item in fresh)
    disturb(layer)
    depth_, semseg_, taught = scores()
    assert not torch.allclose(depth_, semseg_)
    with use_context(of_teachers(Context(), torch.tensor([1]))):
        torch.testing.assert_close(layer(tokens[4:]).logits, taught[4:])  # tokens of the second image
    with use_context(Context(task="depth")):
        gain, shift = layer.film(layer._conditions[0].tasks["depth"]).chunk(2)
        seen = tokens + torch.sigmoid(layer.influence(tokens)) * (gain * tokens + shift)
        torch.testing.assert_close(layer.score(seen), depth_)


def test_noise_and_closed_experts_are_arguments():
    layer, tokens = router()
    disturb(layer)
    closed, noise = torch.rand(8, 5) < 0.5, torch.randn(8, 5)
    closed[0], closed[1] = True, torch.tensor([False, True, True, True, False])
    closed[2] = torch.tensor([True, True, True, False, True])
    with use_context(Context(task="depth")):
        routing = layer(tokens, noise, closed)
        deviation = F.softplus(layer.deviation(layer.conditioned(tokens)))
    shut = closed.clone()
    shut[closed.all(1)] = False  # where all would close none does
    want = (routing.logits + noise * deviation).masked_fill(shut, -torch.inf)
    torch.testing.assert_close(routing.noisy, want)
    assert (routing.probabilities[shut] == 0).all()
    assert set(routing.experts[1].tolist()) == {0, 4}
    assert routing.gates[2].tolist() == [1, 0]
    best = want.softmax(-1).gather(1, routing.experts)
    torch.testing.assert_close(routing.gates, best / best.sum(1, keepdim=True))
    with use_context(Context(task="depth")):
        assert torch.isfinite(layer.train()(tokens).gates).all()


def test_the_balance_is_k_for_even_use_and_counts_teachers_and_the_mean_of_tasks():
    even = torch.full((5, 5), 0.2)
    index = torch.stack([torch.arange(5), (torch.arange(5) + 1) % 5], dim=1)
    assert switch_loss(Routing(index, even[:, :2], even, even, even)) == pytest.approx(2.0)
    skewed = torch.tensor([[1.0, 0.0, 0.0, 0.0]]).expand(3, 4)
    one = Routing(torch.zeros(3, 1, dtype=torch.int64), skewed[:, :1], skewed, skewed, skewed)
    assert switch_loss(one) == pytest.approx(4.0)  # all tokens go to one of four
    network = build(prism(balance=1.0)).train()
    layer = network.backbone.inner.model.blocks[3].mlp
    for shown in (Representations(tuple(TEACHERS)), None):
        extra = {} if shown is None else {REPRESENTATIONS: shown}
        with use_context(Context(extra=extra)):
            network(image())
        taught, tasks = ([switch_loss(r) for kind, r in layer._seen if kind is of] for of in (False, True))
        assert (len(taught), len(tasks)) == (int(shown is not None), 2)  # an earlier pass is forgotten
        want = sum(taught) + torch.stack(tasks).mean()
        torch.testing.assert_close(layer.auxiliary_loss(), want)


def test_each_teacher_is_shown_its_own_images():
    network, x = disturb(build(prism())).eval(), image(4)
    assigned = torch.tensor([1, 0, 1, 1])
    shown = Representations(("clip", "sam"), assigned)
    with torch.no_grad(), use_context(Context(extra={REPRESENTATIONS: shown})):
        network.backbone(x)
    clip, sam = shown.of_teacher["clip"], shown.of_teacher["sam"]
    assert clip.samples.tolist() == [1]
    assert sam.samples.tolist() == [0, 2, 3]
    assert [tuple(item.shape) for item in sam.maps] == [(3, c, 2, 3) for c in TEACHERS["sam"]]
    swapped = Representations(("sam", "clip"), 1 - assigned)  # the step may name them in another order
    with torch.no_grad(), use_context(Context(extra={REPRESENTATIONS: swapped})):
        network.backbone(x)
    torch.testing.assert_close(swapped.of_teacher["sam"].maps, sam.maps)
    unknown = Context(extra={REPRESENTATIONS: Representations(("dino",))})
    with pytest.raises(UnknownNameError, match="dino"), use_context(unknown):
        network.backbone(x)
    with pytest.raises(UnknownNameError, match="clip"), use_context(unknown):
        build(sak()).backbone(x)


def test_recomputed_blocks_have_the_teachers_of_their_pass():
    x, gradients = image(), []
    network = disturb(build(prism(dropout=0.0, noise=False))).train()
    for recompute in (False, True):
        model = copy.deepcopy(network)
        model.backbone.grad_checkpointing = recompute
        shown = Representations(tuple(TEACHERS), torch.tensor([1, 0]))
        with use_context(Context(extra={REPRESENTATIONS: shown})):
            logits = model(x)
        terms = [item.square().mean() for found in shown.of_teacher.values() for item in found.maps]
        torch.stack([*terms, *(item.square().mean() for item in logits.values())]).sum().backward()
        gradients.append([item.grad for item in model.parameters() if item.grad is not None])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


C, CELLS, HIDDEN = 768, 28 * 36, 3072
LAYER = C * HIDDEN + HIDDEN + HIDDEN * C + C  # an MLP
STEM = 3 * 256 * C + C + C + (CELLS + 1) * C + 12 * (4 * C * C + 4 * C + LAYER + 4 * C)
HEAD = 4 * (C * C // 4 + C // 4) + 9 * C * C + C + 2 * C
CLASSES = 40 + 1 + 3 + 1
HEADS = 4 * HEAD + CLASSES * (C + 1)
STEPS = 3 * 13 * (2 * C * C // 4 + C // 4 + C + 1)
ROUTERS = 4 * 4 * (C * C // 2 + C // 2 + C + 8 * C // 2 + 8)
ROUTED = 16 * LAYER + 2 * C * C + 2 * C + C * C + C + 2 * (15 * C + 15) + C + 1
CONDITIONS = (4 + 3) * C + 2 * C + 3 * 4 * 2 * (C * C + C)  # vectors, the final norm, projections


@pytest.mark.parametrize(
    ("adapter", "count"),
    [
        ({"type": "SAK"}, STEM + STEPS + 3 * 4 * 2 * C + ROUTERS + HEADS),
        ({"type": "PRISM"}, STEM + 4 * ROUTED + CONDITIONS + HEADS),
    ],
)
def test_nyud_networks_have_the_parameters_of_the_released_classes(adapter, count):
    """Counts written out from the layers of the authors' code (no count is published), ViT-B and 448x576."""
    vit = {"type": "TimmBackbone", "name": "vit_base_patch16_384", "img_size": (448, 576)}
    teachers = {"dinov2": C, "clip": C, "sam": C}
    config = {"backbone": vit, "adapters": [{**adapter, "teachers": teachers}], **PARTS}
    with without_values():
        network = build_network(config, get_protocol("nyud-invpt").tasks)
    assert sum(item.numel() for item in network.parameters()) == count


def test_active_parameters_leave_out_experts_that_a_token_does_not_read():
    found = measure_cost(build(prism()).eval(), (32, 48))["parameters"]
    expert = 16 * 64 + 64 + 64 * 16 + 16
    assert found["total"] - found["active"] == 4 * 2 * expert


def test_a_file_of_what_trains_has_no_stem(tmp_path):
    network = build(sak())
    network.freeze(["backbone.inner.*"])
    save_trained(network, tmp_path / "paths.pth")
    stored = load_checkpoint(tmp_path / "paths.pth")["state_dict"]
    assert not any(name.startswith("backbone.inner.") for name in stored)
    assert {name for name, item in network.named_parameters() if item.requires_grad} <= set(stored)


def network_of(backbone, decoder, *adapters):
    parts = {"decoder": {"type": decoder}, "head": {"type": "ConvHead"}}
    return build_network({"backbone": backbone, "adapters": list(adapters), **parts}, TASKS)


@pytest.mark.parametrize("adapter", [sak(), prism()])
def test_refusals_name_what_does_not_fit(adapter):
    name = adapter["type"]
    with pytest.raises(TypeError, match=f"{name}: ToyBackbone is no plain ViT"):
        network_of({"type": ToyBackbone}, "ConcatDecoder", adapter)
    with pytest.raises(ValueError, match=f"{name}: pyramid and level_norms"):
        build(adapter, level_norms=True)
    with pytest.raises(ValueError, match="3 levels, the backbone has 4"):
        build({**adapter, "teachers": {"clip": [16, 16, 16]}})
    with pytest.raises(ValueError, match="runs the backbone once per task"):
        build({"type": "MixtureOfExperts", "experts": 2, "top_k": 1}, adapter)
    with pytest.raises(ValueError, match="(PathStep|GatedExperts), which cannot be slimmed"):
        build(adapter, {"type": "Slimmable"})
    with pytest.raises(ValueError, match="CrossStitch: .* cannot be run as one stream per task"):
        build(adapter, {"type": "CrossStitch"})


def test_passes_per_task_stand_behind_prism_but_not_behind_sak():
    own = {"type": "LowRank", "own": {"*.2.attn.qkv": 2}}
    with torch.no_grad():
        assert set(build(prism(), own)(image())) == set(NAMES)
    with pytest.raises(ValueError, match="the paths of teachers read the states of all blocks"):
        build(sak(), own)


def test_options_out_of_range_are_refused():
    with pytest.raises(ValueError, match="'clip' has"):
        build(sak(teachers={"clip": 8}, align=False))
    with pytest.raises(ValueError, match="top_k=5 of 4"):
        build(prism(top_k=5))
    with pytest.raises(ValueError, match=r"gate=\(0.9, 0.1\)"):
        build(prism(gate=(0.9, 0.1)))
    with pytest.raises(ValueError, match="4 MLPs of timm, and none that"):
        build(prism(blocks=["*.9.mlp"]))
    with pytest.raises(ValueError, match="16 channels are not 3 levels"):
        build_network(
            {
                "backbone": {**VIT, "levels": [3]},
                "decoder": PARTS["decoder"],
                "head": {**PARTS["head"], "levels": 3},
            },
            TASKS,
        )

"""SAK and PRISM: converted weights compute what the authors' code computes, for tasks and for teachers."""

from __future__ import annotations

import pytest
import torch
from converted import check_outputs, compares
from plain import (
    attention,
    batch_norm,
    bilinear,
    conv,
    layer_norm,
    linear,
    map_norm,
    mlp,
    same_conv,
    to_tokens,
    vit_block,
)
from torch.nn import functional as F

from mtvision.core.context import Context, use_context
from mtvision.core.observer import REPRESENTATIONS, Representations
from mtvision.models.convert import ConversionError, convert, revert
from mtvision.models.factory import build_network
from mtvision.protocols import get_protocol

TASKS = get_protocol("pascal-invpt").select(["semseg", "saliency"]).tasks
OFFICIAL = {"semseg": "semseg", "saliency": "sal"}
TEACHERS = ("dinov2", "sam")
ASSIGNED = torch.tensor([1, 0])
DEPTH, HEADS, WIDTH = 4, 2, 16


def student(adapter, **options):
    """A small network with four levels of a ViT of four blocks."""
    vit = {"type": "TimmBackbone", "name": "vit_tiny_patch16_224", "embed_dim": WIDTH, "img_size": 32}
    config = {
        "backbone": {**vit, "depth": DEPTH, "num_heads": HEADS},
        "adapters": [{"type": adapter, "teachers": {"dinov2": 16, "sam": 12}, **options}],
        "decoder": {"type": "ConcatDecoder"},
        "head": {"type": "LevelsHead"},
    }
    return build_network(config, TASKS)


def for_tasks_and_teachers(network, image):
    """Logits of tasks, and what is shown for each teacher by (teacher, level)."""
    shown = Representations(TEACHERS, ASSIGNED)
    with use_context(Context(extra={REPRESENTATIONS: shown})):
        logits = network(image)
    maps = {
        (name, level): item
        for name, found in shown.of_teacher.items()
        for level, item in enumerate(found.maps)
    }
    return {**logits, **maps}


def start(w, image, prefix):
    """Tokens of the patches behind the class token, with positions."""
    tokens = to_tokens(conv(image, w, f"{prefix}.patch_embed.proj", stride=16))
    return (
        torch.cat([w[f"{prefix}.cls_token"].expand(len(image), -1, -1), tokens], 1) + w[f"{prefix}.pos_embed"]
    )


def as_map(tokens, image):
    """Patches as a map."""
    size = [side // 16 for side in image.shape[-2:]]
    return tokens[:, 1:].transpose(1, 2).unflatten(2, size)


def logits_of(w, task, levels, image):
    """The authors' head: levels reduced, enlarged to a quarter of the image, fused; then the image's size."""
    quarter = [side // 4 for side in image.shape[-2:]]
    reduced = [
        bilinear(
            linear(item.permute(0, 2, 3, 1), w, f"heads.{task}.linears.{i}").permute(0, 3, 1, 2), quarter
        )
        for i, item in enumerate(levels)
    ]
    fused = same_conv(torch.cat(reduced, 1), w, f"heads.{task}.linear_fuse.0")
    fused = F.gelu(batch_norm(fused, w, f"heads.{task}.linear_fuse.1"))
    return bilinear(conv(fused, w, f"heads.{task}.last_conv"), image.shape[-2:])


def sak(w, image):
    """Logits of both tasks and aligned maps of both teachers."""
    x, out, levels = start(w, image, "backbone.vit"), {}, {task: [] for task in OFFICIAL.values()}
    paths = dict.fromkeys(TEACHERS, x)
    for i in range(DEPTH + 1):
        if i:
            x = vit_block(x, w, f"backbone.vit.blocks.{i - 1}", HEADS)
            paths = {name: path + x for name, path in paths.items()}
        for name, path in paths.items():
            step = f"backbone.tsap.{name}.{i}"
            paths[name] = path + mlp(path, w, f"{step}.down", f"{step}.up") * w[f"{step}.scale"]
        if not i:
            continue
        maps = [as_map(x, image)]
        for name, path in paths.items():
            maps.append(map_norm(as_map(path, image), w, f"backbone.out_norms.{i - 1}_{name}"))
            aligned = linear(maps[-1].permute(0, 2, 3, 1), w, f"backbone.ts_aligners.{i - 1}_{name}")
            out[name, i - 1] = aligned.permute(0, 3, 1, 2)
        for task, own in levels.items():
            router = f"backbone.mor.{i - 1}_{task}.router.module"
            inner = F.gelu(layer_norm(linear(x[:, 1:], w, f"{router}.0"), w, f"{router}.1"))
            clean = linear(inner, w, f"{router}.3").mean(1)[:, :3]  # the other half is for noise
            own.append(sum(p[:, None, None, None] * m for p, m in zip(clean.softmax(1).T, maps, strict=True)))
    return out | {ours: logits_of(w, task, levels[task], image) for ours, task in OFFICIAL.items()}


@pytest.mark.conformance("SAK", "formulas", "layout")
@compares("sak")
def test_sak():
    image = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    checkpoint = check_outputs("sak", student("SAK", align=True), sak, image, run=for_tasks_and_teachers)
    first = {
        key.removeprefix("backbone."): item for key, item in checkpoint.state.items() if "heads" not in key
    }
    assert set(convert(first, "sak")[0]) == {
        key for key in convert(checkpoint.state, "sak")[0] if not key.startswith("heads.")
    }


def routed(w, name, tokens, condition):
    """Experts of one image, token by token: a weight multiplies an expert's input and its result."""
    gain, shift = linear(condition, w, f"{name}.router.film_layer.to_gamma_beta").chunk(2, -1)
    film = (1 + gain) * tokens + shift
    seen = tokens + torch.sigmoid(linear(tokens, w, f"{name}.router.W_gate_stage1")) * (film - tokens)
    unread = 0 * linear(seen, w, f"{name}.router.W_noise").mean()  # of training alone
    rows = []
    for token, scores in zip(tokens, linear(seen, w, f"{name}.router.W_g_base"), strict=True):
        best, chosen = scores.topk(2)
        rows.append(
            sum(
                p * mlp(p * token, w, f"{name}.experts.{e}.fc1", f"{name}.experts.{e}.fc2")
                for p, e in zip(best.softmax(-1), chosen.tolist(), strict=True)
            )
        )
    return torch.stack(rows) + unread


def prism_levels(w, image, conditions):
    """Normed tokens after every block; every block but the first has experts."""
    x, out = start(w, image, "backbone.backbone"), []
    for i in range(DEPTH):
        name = f"backbone.backbone.blocks.{i}"
        if not i:
            x = vit_block(x, w, name, HEADS)
        else:
            x = x + attention(layer_norm(x, w, f"{name}.norm1", 1e-6), w, f"{name}.attn", HEADS)
            y, moe = layer_norm(x, w, f"{name}.norm2", 1e-6), f"{name}.moe_ffn_layer"
            experts = torch.stack([routed(w, moe, *pair) for pair in zip(y, conditions, strict=True)])
            experts = experts + mlp(y, w, f"{moe}.shared_expert.fc1", f"{moe}.shared_expert.fc2")
            gate = 0.5 + 0.5 * torch.sigmoid(linear(y, w, f"{name}.gate_linear"))
            dense = mlp(y, w, f"{name}.standard_ffn.fc1", f"{name}.standard_ffn.fc2")
            x = x + gate * dense + (1 - gate) * experts
        out.append(layer_norm(x, w, "backbone.backbone.norm", 1e-6))
    return out


def prism(w, image):
    """Logits of both tasks, and projected maps of each teacher for the images that are assigned to it."""
    out = {}
    for row, (ours, task) in enumerate(OFFICIAL.items()):
        vector = w["backbone.task_condition_embeddings.weight"][row]
        levels = [as_map(item, image) for item in prism_levels(w, image, [vector] * len(image))]
        out[ours] = logits_of(w, task, levels, image)
    vectors = w["backbone.vfm_condition_embeddings.weight"][ASSIGNED]
    for level, tokens in enumerate(prism_levels(w, image, vectors)):
        for number, name in enumerate(TEACHERS):
            net = f"backbone.vfm_projection_heads.{number}_{level}.net"
            own = tokens[number == ASSIGNED]
            out[name, level] = as_map(mlp(own, w, f"{net}.0", f"{net}.2"), image)
    return out


@pytest.mark.conformance("PRISM", "formulas", "layout")
@compares("prism")
def test_prism():
    image = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    blocks = [f"*blocks.{i}.mlp" for i in range(1, DEPTH)]
    network = student("PRISM", experts=3, top_k=2, blocks=blocks)
    idle = ("W_noise.weight", "W_noise.bias")
    checkpoint = check_outputs("prism", network, prism, image, run=for_tasks_and_teachers, idle=idle)
    assert checkpoint.state["backbone.task_composer_weights"].shape == (2, 2)
    first = {
        key.removeprefix("backbone."): item
        for key, item in checkpoint.state.items()
        if "heads." not in key[:6]
    }
    first["task_condition_embeddings.weight"] = torch.zeros(0, WIDTH)
    state, report = convert(first, "prism")
    own = {
        key for key in network.state_dict() if not key.startswith(("heads.", "backbone.conditions.tasks."))
    }
    assert set(state) == own
    assert "backbone.task_condition_embeddings.weight" in report.dropped


def test_a_file_of_prism_must_tell_its_tasks_and_have_all_experts():
    table = {"backbone.task_condition_embeddings.weight": torch.ones(2, 4)}
    with pytest.raises(ConversionError, match="2 vectors of tasks and 0 heads"):
        convert(table, "prism")
    expert = "backbone.backbone.blocks.2.moe_ffn_layer.experts.{}.fc1.bias"
    with pytest.raises(ConversionError, match=r"experts \[1\]"):
        convert({expert.format(1): torch.ones(3)}, "prism")
    two = {expert.format(number): torch.full((3,), float(number)) for number in (1, 0)}
    state, _ = convert(two, "prism")
    assert state["backbone.inner.model.blocks.2.mlp.experts.first.bias"].tolist() == [[0] * 3, [1] * 3]
    assert revert(state, "prism")[0].keys() == two.keys()

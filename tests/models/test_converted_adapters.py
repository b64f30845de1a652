"""Backbones with adapters: converted weights compute what the authors' code computes."""

from __future__ import annotations

import pytest
import torch
from converted import check_outputs, compares
from plain import attention, conv, layer_norm, linear, mlp, to_tokens, vit_block
from plain_swin import window_attention as window_attention_of_swin
from torch import nn
from torch.nn import functional as F

from mtvision.models.adapters import VTAGML, LowRank, MixtureOfExperts
from mtvision.models.backbones import TimmBackbone
from mtvision.models.convert import ConversionError, convert
from mtvision.protocols import get_protocol

TASKS = get_protocol("pascal-invpt").select(["semseg", "saliency"]).tasks
SCALE = 4.0


def levels_of_tasks(network, image):
    """Levels of all tasks by (task, level)."""
    pyramids = network["backbone"](image)
    return {
        (task.name, level): item
        for task in TASKS
        for level, item in enumerate(pyramids.for_task(task.name).maps)
    }


def experts(x, w, name, gate, top_k):
    """M3ViT's layer, token by token: softmax over all experts, then the largest, not normalised again."""
    out = torch.zeros_like(x)
    for image, tokens in enumerate(x):
        for place, token in enumerate(tokens):
            probability = (token @ w[f"{name}.gate.{gate}.w_gate"]).softmax(-1)
            for weight, expert in zip(*probability.topk(top_k), strict=True):
                inner = (
                    w[f"{name}.experts.htoh4.weight"][expert] @ token
                    + w[f"{name}.experts.htoh4.bias"][expert]
                )
                result = (
                    w[f"{name}.experts.h4toh.weight"][expert] @ F.gelu(inner)
                    + w[f"{name}.experts.h4toh.bias"][expert]
                )
                out[image, place] += weight * result
    return out


def m3vit(w, image):
    """Maps of each task after every block; gates are numbered in the order of the decoders."""
    tokens = to_tokens(conv(image, w, "backbone.patch_embed.proj", stride=16))
    start = (
        torch.cat([w["backbone.cls_token"].expand(len(image), -1, -1), tokens], 1) + w["backbone.pos_embed"]
    )
    out, size = {}, [side // 16 for side in image.shape[-2:]]
    for gate, task in enumerate(("semseg", "saliency")):
        x = start
        for i in range(4):
            name = f"backbone.blocks.{i}"
            if i % 2:
                x = x + attention(layer_norm(x, w, f"{name}.norm1", 1e-6), w, f"{name}.attn", 2)
                x = x + experts(layer_norm(x, w, f"{name}.norm2", 1e-6), w, f"{name}.mlp", gate, 2)
            else:
                x = vit_block(x, w, name, 2)
            out[task, i] = x[:, 1:].transpose(1, 2).unflatten(2, size)
    return out


@pytest.mark.conformance("MixtureOfExperts", "formulas", "layout")
@compares("m3vit")
def test_m3vit():
    vit = TimmBackbone("vit_tiny_patch16_224", embed_dim=8, depth=4, num_heads=2, img_size=32)
    backbone = MixtureOfExperts(experts=3, top_k=2).apply(vit, TASKS)
    backbone.model.norm = nn.Identity()  # the authors' decoders have this norm
    extra = {f"decoders.{name}.conv.weight": torch.ones(1) for name in ("semseg", "sal")}
    image = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    network = nn.ModuleDict({"backbone": backbone})
    check_outputs("m3vit", network, m3vit, image, run=levels_of_tasks, extra=extra)


def test_gates_without_decoders_have_no_names():
    gate = {"backbone.blocks.1.mlp.gate.0.w_gate": torch.ones(2, 3)}
    with pytest.raises(ConversionError, match="no counterpart"):
        convert(gate, "m3vit")
    one = convert({"backbone.blocks.1.mlp.gate.w_gate": torch.ones(2, 3)}, "m3vit")[0]
    assert list(one) == ["backbone.model.blocks.1.mlp.router.gate"]


def updated(states, w, name):
    """A layer of MTLoRA: every task adds its update to the frozen result of the shared state."""
    frozen = linear(states["shared"], w, f"{name}.linear")
    out = {}
    for task, official in (("semseg", "semseg"), ("saliency", "sal")):
        a, b = w[f"{name}.lora_tasks_A.{official}"], w[f"{name}.lora_tasks_B.{official}"]
        out[task] = frozen + states[task] @ a.T @ b.T * SCALE
    return {"shared": shared_update(states["shared"], w, name), **out}


def shared_update(x, w, name):
    update = x @ w[f"{name}.lora_shared_A"].T @ w[f"{name}.lora_shared_B"].T * SCALE
    return linear(x, w, f"{name}.linear") + update


def window_attention(x, w, name, heads):
    """Attention in windows of 2x2 pixels without shift, before the last layer."""
    (B, H, W, C), grid = x.shape, ((0, 0), (0, 1), (1, 0), (1, 1))
    windows = x.view(B, H // 2, 2, W // 2, 2, C).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, C)
    rows = [[(a - c + 1) * 3 + (b - d + 1) for c, d in grid] for a, b in grid]
    bias = w[f"{name}.relative_position_bias_table"][torch.tensor(rows)]
    q, k, v = shared_update(windows, w, f"{name}.qkv").split(C, -1)
    d = C // heads
    parts = [slice(h * d, (h + 1) * d) for h in range(heads)]
    mixed = [
        (q[..., p] @ k[..., p].transpose(1, 2) / d**0.5 + bias[..., h]).softmax(-1) @ v[..., p]
        for h, p in enumerate(parts)
    ]
    out = torch.cat(mixed, -1).view(B, H // 2, W // 2, 2, 2, C)
    return out.permute(0, 1, 3, 2, 4, 5).reshape(B, H, W, C)


def mtlora(w, image):
    """Maps of each task at the end of both stages, which have one block each."""
    x = conv(image, w, "backbone.patch_embed.proj", stride=4).permute(0, 2, 3, 1)
    x, out = layer_norm(x, w, "backbone.patch_embed.norm"), {}
    for stage in (0, 1):
        name = f"backbone.layers.{stage}.blocks.0"
        mixed = window_attention(layer_norm(x, w, f"{name}.norm1"), w, f"{name}.attn", 2)
        names = ("shared", "semseg", "saliency")
        states = updated(dict.fromkeys(names, mixed), w, f"{name}.attn.proj")
        states = {task: x + item for task, item in states.items()}
        inner = updated(
            {task: layer_norm(item, w, f"{name}.norm2") for task, item in states.items()},
            w,
            f"{name}.mlp.fc1",
        )
        last = updated({task: F.gelu(item) for task, item in inner.items()}, w, f"{name}.mlp.fc2")
        states = {task: states[task] + item for task, item in last.items()}
        unread = 0 * states["shared"].mean()  # of the last stage; the authors' code computes it as well
        out |= {(task, stage): states[task].permute(0, 3, 1, 2) + unread for task in names[1:]}
        if stage == 0:
            x = states["shared"]
            corners = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
            x = layer_norm(torch.cat(corners, -1), w, "backbone.layers.0.downsample.norm")
            x = shared_update(x, w, "backbone.layers.0.downsample.reduction")
    return out


@pytest.mark.conformance("LowRank", "formulas", "layout")
@compares("mtlora")
def test_mtlora():
    small = {"embed_dim": 4, "depths": (1, 1), "num_heads": (2, 2), "window_size": 2}
    adapter = LowRank(shared={"*": 2}, own={"*.attn.proj": 2, "*.mlp.*": 2}, scale=SCALE, side=True)
    backbone = adapter.apply(TimmBackbone("swin_tiny_patch4_window7_224", **small), TASKS)
    image = torch.randn(2, 3, 16, 32, dtype=torch.float64)
    unread = (".1.blocks.0.mlp.fc2.lora_shared_A", ".1.blocks.0.mlp.fc2.lora_shared_B")
    network = nn.ModuleDict({"backbone": backbone})
    check_outputs("mtlora", network, mtlora, image, run=levels_of_tasks, idle=unread)
    extra = {
        "backbone.layers.0.blocks.1.mlp.fc1.lora_norm.weight": torch.ones(1),
        "decoders.decoders.sal.last_layer.weight": torch.ones(1),
    }
    state, report = convert(extra, "mtlora")
    assert list(state) == ["backbone.model.layers.0.blocks.1.mlp.fc1.add.weight"]
    assert list(report.dropped) == ["decoders.decoders.sal.last_layer.weight"]


def film(x, w, name, embedding):
    gamma, beta = linear(embedding, w, f"{name}.gb_weights").chunk(2)
    return (1 + gamma) * x + beta


def merged(x, w, name):
    """Patch merging as Swin's authors write it."""
    corners = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
    return linear(layer_norm(torch.cat(corners, -1), w, f"{name}.norm"), w, f"{name}.reduction")


def vtagml_block(x, w, name, heads, shift, embedding):
    """A Swin block; norms and attention of a conditioned one are those of a task."""
    added, norms = 0.0, []
    for number in (1, 2):
        norm = f"{name}.norm{number}"
        gain = w[f"{norm}.weight"]
        if f"{norm}.ln_weight_modulation.gb_weights.weight" in w:
            gain = film(gain, w, f"{norm}.ln_weight_modulation", embedding)
        norms.append((gain, w[f"{norm}.bias"]))
    if f"{name}.attn.random_weight_matrix" in w:
        rows = film(w[f"{name}.attn.random_weight_matrix"], w, f"{name}.attn.taa_attn", embedding)
        added = torch.block_diag(rows[:2], rows[2:])
    normed = F.layer_norm(x, x.shape[-1:]) * norms[0][0] + norms[0][1]
    x = x + window_attention_of_swin(normed, w, f"{name}.attn", heads, shift, 2, added=added)[0]
    normed = F.layer_norm(x, x.shape[-1:]) * norms[1][0] + norms[1][1]
    return x + mlp(normed, w, f"{name}.mlp.fc1", f"{name}.mlp.fc2")


def vtagml(w, image):
    """Maps of each task: the first stage's state, then the normed stream, or the last state without one."""
    streamed, out = any(".adapter_layer." in key for key in w), {}
    for index, task in enumerate(("semseg", "saliency")):
        embedding = w["task_type_embeddings.weight"][index]
        x = conv(image, w, "patch_embed.proj", stride=4).permute(0, 2, 3, 1)
        x = layer_norm(x, w, "patch_embed.norm")
        stream = torch.zeros_like(x)
        for stage, place in ((0, 0), (0, 1), (1, 0)):
            x = vtagml_block(x, w, f"layers.{stage}.blocks.{place}", stage + 1, place, embedding)
            if streamed:
                step = f"layers.{stage}.adapter_layer.{place}"
                given = linear(embedding, w, f"{step}.emb_transf")
                stream = film(x + stream, w, f"{step}.hidden_modulation", given)
                stream = linear(linear(stream, w, f"{step}.down_proj_layer"), w, f"{step}.up_proj_layer")
            if (stage, place) == (0, 1):
                out[task, 0] = x.permute(0, 3, 1, 2)
                x = merged(x, w, "layers.0.downsample")
                stream = merged(stream, w, "layers.0.downsample_bottleneck") if streamed else stream
        out[task, 1] = (layer_norm(stream, w, "norm") if streamed else x).permute(0, 3, 1, 2)
    return out


@pytest.mark.conformance("VTAGML", "formulas", "layout")
@compares("vtagml")
@pytest.mark.parametrize("stream", [True, False])
def test_vtagml(stream):
    small = {"embed_dim": 6, "depths": (2, 1), "num_heads": (1, 2), "window_size": 2}
    backbone = VTAGML(embedding=8, stream=stream).apply(
        TimmBackbone("swin_tiny_patch4_window7_224", **small), TASKS
    )
    image = torch.randn(2, 3, 16, 32, dtype=torch.float64)
    extra = {
        "decoder_layers_output.0.weight": torch.ones(1),
        "layers.0.blocks.1.attn_mask": torch.ones(1),
        "layers.0.blocks.0.attn.relative_position_index": torch.ones(1),
    }
    if not stream:
        extra |= {"norm.bias": torch.ones(1), "layers.0.downsample_bottleneck.norm.bias": torch.ones(1)}
    network = nn.ModuleDict({"backbone": backbone})
    check_outputs("vtagml", network, vtagml, image, run=levels_of_tasks, extra=extra)

"""TaskPrompter: an independent derivation on the authors' names, conversion, behaviour."""

from __future__ import annotations

import pytest
import torch
from converted import check_outputs, compares
from plain import batch_norm, bilinear, conv, layer_norm, linear, mlp
from plain_swin import window_attention
from torch.nn import functional as F

from mtvision.core.pyramid import Pyramid
from mtvision.models.convert import convert, revert
from mtvision.models.decoders import TaskPrompterDecoder
from mtvision.models.factory import build_network
from mtvision.protocols import get_protocol
from mtvision.protocols.tasks import depth, normals, semseg

TASKS = (semseg(("sky", "road", "car")), depth(), normals())
NAMES = [task.name for task in TASKS]
HEADS = 2


def shake(module, seed=0):
    """Unit-gain random weights, so that attention and gates are far from uniform."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for key, value in module.state_dict().items():
            last = key.rpartition(".")[2]
            if not value.is_floating_point():
                continue
            if last == "running_var":
                value.uniform_(0.5, 2)
            elif value.ndim < 2:
                value.normal_(1.0 if last == "weight" else 0.0, 0.3)
            else:
                value.normal_(0, value[0].numel() ** -0.5)
    return module


def vit(windows=2, reweight=HEADS, tasks=TASKS, size=(64, 96)):
    backbone = {"type": "TimmBackbone", "name": "vit_tiny_patch16_224", "embed_dim": 12, "depth": 4}
    backbone |= {"num_heads": HEADS, "img_size": size}
    decoder = {"type": "TaskPrompterDecoder", "width": 6, "out_width": 8, "reweight": reweight}
    head = {"type": "ConvHead", "hidden": 8, "activation": "gelu"}
    prompts = {"type": "TaskPrompts", "windows": windows}
    cfg = {"backbone": backbone, "adapters": [prompts], "decoder": decoder, "head": head}
    return shake(build_network(cfg, tasks)).eval()


def swin(size=(96, 192), scale=0.75, extra=("3ddet",), tasks=TASKS):
    inside = [round(side * scale) for side in size]
    backbone = {"type": "SwinBackbone", "name": "swin_tiny_patch4_window7_224", "embed_dim": 8}
    backbone |= {"depths": (2, 2), "num_heads": (2, 4), "window_size": 4, "levels": (0, 1)}
    backbone |= {"img_size": inside, "level_norms": False}
    decoder = {"type": "TaskPrompterDecoder", "width": 6, "out_width": 8, "kernel": 3, "smooth": True}
    decoder |= {"gate_upscale": 2, "upscale": 1}
    prompts = {"type": "TaskPrompts", "image_scale": scale, "channel_width": 5, "extra": extra}
    cfg = {"backbone": backbone, "adapters": [prompts], "decoder": decoder, "head": {"type": "DeconvHead"}}
    return shake(build_network(cfg, tasks)).eval()


# ------------------------------------------------------------ the formulas, on the authors' names


def gated(Y, S, K, w, level, t, kernel, larger):
    """Both paths of one task: S (B, heads, h, w), K (B, C, g, g)."""
    _, C, h, wd = Y.shape
    per_head, g = C // S.shape[1], K.shape[-1]
    heads = [c // per_head for c in range(C)]
    rows, columns = ([place * g // side for place in range(side)] for side in (h, wd))
    spatial, channel = S[:, heads] * Y + Y, K[:, :, rows][..., columns] * Y + Y
    size = (h * larger, wd * larger)
    both = [
        conv(bilinear(x, size), w, f"backbone.fea_decode_{kind}.{level}.{t}.0")
        for kind, x in (("spa", spatial), ("chan", channel))
    ]
    name = f"backbone.fea_fuse.{level}.{t}"
    y = conv(conv(torch.cat(both, 1), w, f"{name}.0"), w, f"{name}.1", padding=1)
    return conv(F.gelu(batch_norm(y, w, f"{name}.2")), w, f"{name}.4", padding=kernel // 2)


def derive_vit(image, w, windows, reweight, levels):
    """Logits at a quarter of the patch size; prompts and pixels kept apart throughout."""
    X = F.conv2d(image, w["backbone.patch_embed.proj.weight"], w["backbone.patch_embed.proj.bias"], stride=16)
    h, wd = X.shape[-2:]
    X = X.flatten(2).transpose(1, 2) + w["backbone.pos_embed"][:, 1:]
    P = w["backbone.task_prompts"].expand(len(X), -1, -1)
    T, C, d = P.shape[1], P.shape[2], P.shape[2] // HEADS
    total = dict.fromkeys(NAMES, 0)
    for j in range(4):
        name = f"backbone.blocks.{j}"
        p, x = (layer_norm(item, w, f"{name}.norm1", 1e-6) for item in (P, X))
        q, k, v = linear(torch.cat([p, x], 1), w, f"{name}.attn.qkv").split(C, dim=-1)
        out, scores = [], []
        for head in range(HEADS):
            part = slice(head * d, (head + 1) * d)
            scores.append(torch.einsum("bqc,bkc->bqk", q[..., part], k[..., part]))
            out.append((scores[-1] / d**0.5).softmax(-1) @ v[..., part])
        S, out = torch.stack(scores, 1), linear(torch.cat(out, -1), w, f"{name}.attn.proj")
        c = linear(p, w, f"{name}.attn.token_trans")
        inside = [
            [n for n in range(h * wd) if (n // wd * windows // h, n % wd * windows // wd) == (row, column)]
            for row in range(windows)
            for column in range(windows)
        ]
        K = torch.stack([c[..., places] @ x[:, places] for places in inside], -1)
        K = K.unflatten(-1, (windows, windows))
        if j < 3:  # nothing reads the prompts of the last block
            P = P + linear(c, w, f"{name}.attn.token_trans1")
        P = P + out[:, :T]
        X = X + out[:, T:]
        P, X = (
            item + mlp(layer_norm(item, w, f"{name}.norm2", 1e-6), w, f"{name}.mlp.fc1", f"{name}.mlp.fc2")
            for item in (P, X)
        )
        if j not in levels:
            continue
        level = levels.index(j)
        Y = layer_norm(X, w, "backbone.norm", 1e-6) if j == 3 else X
        Y = Y.transpose(1, 2).reshape(len(X), C, h, wd)
        found = {
            t: gated(Y, S[:, :, i, T:].unflatten(-1, (h, wd)), K[:, i], w, level, t, 1, 1)
            for i, t in enumerate(NAMES)
        }
        for i, t in enumerate(NAMES):
            if reweight:
                name = f"backbone.ctr_attn_conv.{level}.{t}"
                a = conv(F.gelu(conv(S[:, :, i : i + 1, :T], w, f"{name}.0")), w, f"{name}.2")
                total[t] = total[t] + sum(a[..., u : u + 1] * found[o] for u, o in enumerate(NAMES))
            else:
                total[t] = total[t] + found[t]
    logits = {}
    for t in NAMES:
        y = conv(bilinear(total[t], (4 * h, 4 * wd)), w, f"heads.{t}.mt_proj.0", padding=1)
        logits[t] = conv(F.gelu(batch_norm(y, w, f"heads.{t}.mt_proj.1")), w, f"heads.{t}.linear_pred")
    return logits


def own_logits(network, image):
    features = network.decoder(network.backbone(image)).features
    return {name: network.heads[name](features[name]) for name in NAMES}


@pytest.mark.conformance("taskprompter", "formulas", "layout")
@compares("taskprompter")
@pytest.mark.parametrize(("windows", "reweight"), [(2, HEADS), (1, None)])
def test_converted_vit_predicts_as_in_the_authors_code(windows, reweight):
    def forward(w, image):
        return derive_vit(image, w, windows, reweight, [0, 1, 2, 3])

    image = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    check_outputs("taskprompter", vit(windows, reweight), forward, image, run=own_logits)


def derive_swin(image, w):
    x = bilinear(image, [round(0.75 * side) for side in image.shape[-2:]])
    x = F.conv2d(x, w["backbone.patch_embed.proj.weight"], w["backbone.patch_embed.proj.bias"], stride=4)
    x = layer_norm(x.permute(0, 2, 3, 1), w, "backbone.patch_embed.norm")
    P = w["backbone.task_prompts"].expand(len(x), -1, -1)
    total, first = dict.fromkeys(NAMES, 0), None
    for i, heads in enumerate((2, 4)):
        for j in range(2):
            name = f"backbone.layers.{i}.blocks.{j}"
            B, h, wd, C = x.shape
            p, n = (layer_norm(item, w, f"{name}.norm1") for item in (P, x))
            y, spatial, S = window_attention(n, w, f"{name}.attn", heads, 2 * j, 4, p)
            chan = y.reshape(B, h * wd, C).transpose(1, 2)
            k, v = linear(chan, w, f"{name}.chan_kv").chunk(2, dim=-1)
            q = linear(linear(P, w, f"{name}.token_trans"), w, f"{name}.chan_q")
            K = q @ k.transpose(1, 2)
            if f"{name}.chan_proj.weight" in w:
                c = linear((K / k.shape[-1] ** 0.5).softmax(-1) @ v, w, f"{name}.chan_proj")
                P = P + spatial + linear(c, w, f"{name}.token_trans1")
                P = P + mlp(layer_norm(P, w, f"{name}.norm2"), w, f"{name}.mlp.fc1", f"{name}.mlp.fc2")
            x = x + y
            x = x + mlp(layer_norm(x, w, f"{name}.norm2"), w, f"{name}.mlp.fc1", f"{name}.mlp.fc2")
        if i == 0:
            name = "backbone.layers.0.downsample"
            corners = [x[:, a::2, b::2] for a, b in ((0, 0), (1, 0), (0, 1), (1, 1))]
            x = layer_norm(torch.cat(corners, -1), w, f"{name}.norm")
            x = linear(x, w, f"{name}.reduction")
            P = linear(P, w, f"{name}.task_prompts_up")
            K = linear(K, w, f"{name}.process_chan_attn")
            S = conv(S.flatten(1, 2), w, f"{name}.spa_attn_ds", stride=2, padding=1).unflatten(1, (heads, -1))
            Y = x
        else:
            Y = layer_norm(x, w, "backbone.norm")
        for index, t in enumerate(NAMES):
            F_t = gated(Y.permute(0, 3, 1, 2), S[:, :, index], K[:, index, :, None, None], w, i, t, 3, 2)
            first = F_t.shape[-2:] if first is None else first
            total[t] = total[t] + bilinear(F_t, first)
    logits = {}
    for t in NAMES:
        y, head = conv(total[t], w, f"backbone.multi_scale_fuse.{t}", padding=1), f"heads.{t}.mt_proj"
        y = F.conv_transpose2d(y, w[f"{head}.0.weight"], w[f"{head}.0.bias"], stride=2)
        y = conv(F.gelu(batch_norm(y, w, f"{head}.1")), w, f"{head}.3", padding=1)
        logits[t] = conv(F.gelu(batch_norm(y, w, f"{head}.4")), w, f"heads.{t}.linear_pred")
    return logits


@compares("taskprompter_swin")
@pytest.mark.parametrize("size", [(128, 128), (96, 192)])
def test_converted_swin_predicts_as_in_the_authors_code(size):
    """Grids of 24 x 24 and 12 x 12, whole windows of 4; of 18 x 36 and 9 x 18, which are padded."""
    mask = {"backbone.layers.0.blocks.1.attn_mask": torch.zeros(4, 16, 16, dtype=torch.float64)}

    def forward(w, image):
        return derive_swin(image, w)

    image = torch.randn(1, 3, *size, dtype=torch.float64)
    check_outputs("taskprompter_swin", swin(size), forward, image, run=own_logits, extra=mask)


@pytest.mark.parametrize("make", [vit, swin])
def test_every_parameter_learns(make):
    network = make().train()
    size = tuple(round(side / network.backbone.image_scale) for side in network.backbone.image_size)
    sum(item.square().mean() for item in network(torch.randn(2, 3, *size)).values()).backward()
    idle = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


@pytest.mark.conformance("taskprompter", "subset = whole")
def test_a_subset_of_tasks_and_what_tasks_share():
    image = torch.randn(1, 3, 64, 96)
    for reweight in (HEADS, None):
        network = vit(reweight=reweight)
        alone = network(image, ["depth"])
        assert list(alone) == ["depth"]
        torch.testing.assert_close(alone["depth"], network(image)["depth"])
        with torch.no_grad():
            network.decoder.levels[0].fuse["semseg"][4].bias.add_(1)
        moved = (network(image, ["depth"])["depth"] - alone["depth"]).abs().max() > 1e-5
        assert moved == (reweight is not None)


@pytest.mark.parametrize("make", [vit, swin])
def test_bfloat16_channels_last_and_recomputed_blocks(make):
    network = make()
    size = tuple(round(side / network.backbone.image_scale) for side in network.backbone.image_size)
    image = torch.randn(1, 3, *size)
    full = network(image)["depth"]
    last = network.to(memory_format=torch.channels_last)(image.to(memory_format=torch.channels_last))
    torch.testing.assert_close(last["depth"], full, rtol=1e-4, atol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        assert network(image)["depth"].isfinite().all()
    network.backbone.train()
    network.backbone.grad_checkpointing = True
    for module in network.modules():
        if hasattr(module, "drop_prob"):
            module.drop_prob = 0.0
    again = network(image)["depth"]
    torch.testing.assert_close(again, full, rtol=1e-4, atol=1e-4)
    again.sum().backward()
    assert network.backbone.task_prompts.grad.any()


def test_sizes_and_backbones_that_do_not_fit():
    network = vit()
    assert network(torch.randn(1, 3, 60, 90))["depth"].shape[-2:] == (60, 90)  # padded to 64 x 96
    with pytest.raises(ValueError, match=r"belong to images of 64x96, got 96x96.*img_size=\(96, 96\)"):
        network(torch.randn(1, 3, 96, 96))
    with pytest.raises(ValueError, match="belong to images of 96x192, got 72x144"):
        swin()(torch.randn(1, 3, 72, 144))
    with pytest.raises(ValueError, match="grid of 4x6 does not divide into 4x4 windows"):
        vit(windows=4)
    decoder = TaskPrompterDecoder(channels=(4,), strides=(16,), tasks=TASKS)
    with pytest.raises(TypeError, match="TaskPrompts"):
        decoder(Pyramid.of([torch.randn(1, 4, 2, 2)], (16,)))
    cfg = {"backbone": {"type": "TimmBackbone", "name": "resnet10t"}, "adapters": [{"type": "TaskPrompts"}]}
    with pytest.raises(TypeError, match="neither a plain ViT"):
        build_network(
            {**cfg, "decoder": {"type": "TaskPrompterDecoder"}, "head": {"type": "ConvHead"}}, TASKS
        )


@pytest.mark.conformance("taskprompter", "layout")
@pytest.mark.parametrize(("make", "source"), [(vit, "taskprompter"), (swin, "taskprompter_swin")])
def test_there_and_back_is_the_identity_but_for_dead_parameters(make, source):
    network = make(tasks=get_protocol("pascal-invpt").tasks) if make is vit else make()
    official, report = revert(network.state_dict(), source)
    ours, there = convert({f"module.{key}": value for key, value in official.items()}, source)
    assert set(there.dropped) == {f"module.{key}" for key in report.rebuilt}
    network.load_state_dict(ours)
    again, _ = revert(ours, source)
    assert again.keys() == official.keys()
    assert all(torch.equal(again[key], official[key]) for key in official)
    if make is vit:
        assert sorted(report.rebuilt) == [
            f"backbone.blocks.3.attn.token_trans1.{name}" for name in ("bias", "weight")
        ]
        assert not official["backbone.pos_embed"][:, 0].any()
        assert "heads.sal.linear_pred.bias" in official

"""InvPT: an independent derivation from the formulas, official names and costs, behaviour.

As for MTMamba, `revert` takes our weights to the authors' names, where plain tensor code follows the paper:
so modules and conversion are checked at once.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from converted import check_outputs, compares
from plain import batch_norm, bilinear, conv, layer_norm, linear, mlp, to_map, to_tokens, vit_block
from torch.nn import functional as F

from mtvision.core.pyramid import Pyramid
from mtvision.core.registry import HEADS
from mtvision.models.convert import ConversionError, convert, revert
from mtvision.models.convert.invpt import ORDER
from mtvision.models.decoders import InvPTDecoder
from mtvision.models.decoders.invpt import DEAD
from mtvision.models.factory import build_network
from mtvision.protocols import get_protocol
from mtvision.protocols.tasks import depth, normals, semseg
from mtvision.report.cost import measure_cost

TASKS = (semseg(("sky", "road", "car")), depth(), normals())
NAMES = [task.name for task in TASKS]
KEYS = Path(__file__).resolve().parents[3] / "shared" / "reference" / "keys" / "keys_invpt_vitL_nyud.txt"
FLAT = {"channels": (12,) * 4, "strides": (16,) * 4}
SWIN = {"channels": (4, 8, 12, 16), "strides": (4, 8, 16, 32)}


def shake(module, seed=0):
    """Unit-gain random weights, so that attention is far from uniform."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for key, value in module.state_dict().items():
            last = key.rpartition(".")[2]
            if last == "num_batches_tracked":
                continue
            if last == "running_var":
                value.uniform_(0.5, 2)
            elif value.ndim < 2:
                value.normal_(1.0 if last == "weight" else 0.0, 0.3)
            else:
                value.normal_(0, value[0].numel() ** -0.5)
    return module


def decoder_and_heads(sizes=FLAT, width=16):
    decoder = InvPTDecoder(**sizes, tasks=TASKS, width=width, hidden=10)
    heads = {
        t.name: HEADS.build({"type": "ConvHead"}, in_channels=decoder.out_channels[t.name], task=t)
        for t in TASKS
    }
    return (
        shake(torch.nn.ModuleDict({"decoder": decoder, "heads": torch.nn.ModuleDict(heads)})).double().eval()
    )


def flat(size=(4, 6), batch=2):
    torch.manual_seed(1)
    return Pyramid.of([torch.randn(batch, 12, *size, dtype=torch.float64) for _ in range(4)], FLAT["strides"])


def block(tokens, grid, i, w, message):
    """One UP-Transformer block on the tokens (B, T h w, C) of all tasks; loops over heads and tasks."""
    h, wd = grid
    name = f"multi_task_decoder.invpt.invpt_stages.{i}.blocks.0"
    C = tokens.shape[-1]
    n = layer_norm(tokens, w, f"{name}.norm1").split(h * wd, dim=1)
    maps = [part.transpose(1, 2).reshape(-1, C, h, wd) for part in n]
    q, k = [], []
    for t, x in enumerate(maps):
        y = F.conv2d(x, w[f"{name}.attn.conv_proj_q.{t}.conv.weight"], stride=2, padding=1, groups=C)
        q.append(batch_norm(y, w, f"{name}.attn.conv_proj_q.{t}.bn"))
        k.append(F.avg_pool2d(x, 2 ** (i + 1), ceil_mode=True))
    hq, wq = q[0].shape[-2:]
    flat_q = torch.cat([x.flatten(2).transpose(1, 2) for x in q], 1)
    flat_k = torch.cat([x.flatten(2).transpose(1, 2) for x in k], 1)
    Q, K, V = (
        linear(x, w, f"{name}.attn.proj_{p}") for p, x in (("q", flat_q), ("k", flat_k), ("v", flat_k))
    )
    heads, half = [], C // 2
    for head in range(2):
        part = slice(head * half, (head + 1) * half)
        heads.append(torch.einsum("bqc,bkc->bqk", Q[..., part], K[..., part]) / C**0.5)
    A = torch.stack(heads, 1)
    if i:
        up = []
        for t in range(len(maps)):
            part = message[:, :, t * (hq // 2) * (wq // 2) : (t + 1) * (hq // 2) * (wq // 2)]
            B, heads_, _, keys = part.shape
            grid_ = part.permute(0, 1, 3, 2).reshape(B * heads_, keys, hq // 2, wq // 2)
            up.append(bilinear(grid_, (hq, wq)).reshape(B, heads_, keys, hq * wq).permute(0, 1, 3, 2))
        both = torch.cat([A, torch.cat(up, 2)], 1)
        weight, bias = w[f"{name}.attn.fuse_attn.weight"], w[f"{name}.attn.fuse_attn.bias"]
        A = torch.einsum("oi,biqk->boqk", weight[:, :, 0, 0], both) + bias[:, None, None]
    mixed = [A[:, head].softmax(-1) @ V[..., head * half : (head + 1) * half] for head in range(2)]
    y = linear(torch.cat(mixed, -1), w, f"{name}.attn.proj")
    back = [
        bilinear(part.transpose(1, 2).reshape(-1, C, hq, wq), (h, wd)).flatten(2).transpose(1, 2)
        for part in y.split(hq * wq, dim=1)
    ]
    tokens = tokens + torch.cat(back, 1)
    normed = layer_norm(tokens, w, f"{name}.norm2")
    return tokens + mlp(normed, w, f"{name}.mlp.fc1", f"{name}.mlp.fc2"), A


def derive(levels, w):
    """Logits and preliminary logits of every task."""
    d, v = "multi_task_decoder", "multi_task_decoder.invpt"
    h, wd = levels[3].shape[-2] // 2, levels[3].shape[-1] // 2
    z = bilinear(levels[3], (h, wd))
    x, early = {}, {}
    for t in NAMES:
        a = z
        for j in range(2):
            name = f"{d}.preliminary_decoder.{t}.{j}"
            a = F.relu(batch_norm(F.conv2d(a, w[f"{name}.conv.weight"], padding=1), w, f"{name}.bn1"))
        head = f"{d}.intermediate_head.{t}"
        early[t] = F.conv2d(a, w[f"{head}.weight"], w[f"{head}.bias"])
        mix = f"{v}.mix_proj.{t}.0"
        x[t] = F.conv2d(torch.cat([a, early[t]], 1), w[f"{mix}.weight"], w[f"{mix}.bias"])
    skip1 = F.conv2d(levels[1], w[f"{d}.scale_embed.1.weight"], w[f"{d}.scale_embed.1.bias"], padding=1)
    skip2 = F.conv_transpose2d(
        levels[0],
        w[f"{d}.scale_embed.0.weight"],
        w[f"{d}.scale_embed.0.bias"],
        stride=2,
        padding=1,
        output_padding=1,
    )
    message, total = None, dict.fromkeys(NAMES, 0)
    for i in range(3):
        if i:
            for ti, t in enumerate(NAMES):
                y = bilinear(x[t], [2 * side for side in x[t].shape[-2:]])
                for conv, bn in ((1, 2), (4, 5)):
                    name = f"{v}.invpt_stages.{i}.patch_embed.{ti}.proj"
                    y = F.conv2d(y, w[f"{name}.{conv}.weight"], padding=2, dilation=2)
                    y = F.relu(batch_norm(y, w, f"{name}.{bn}"))
                x[t] = y + (skip1, skip2)[i - 1]
        grid = x[NAMES[0]].shape[-2:]
        tokens = torch.cat([x[t].flatten(2).transpose(1, 2) for t in NAMES], 1)
        tokens, message = block(tokens, grid, i, w, message)
        parts = tokens.split(grid[0] * grid[1], dim=1)
        joined = layer_norm(torch.cat(parts, -1), w, f"{v}.norm_mts.{i}")
        for ti, t in enumerate(NAMES):
            x[t] = parts[ti].transpose(1, 2).reshape(len(tokens), -1, *grid)
            C = x[t].shape[1]
            y = joined[..., ti * C : (ti + 1) * C].transpose(1, 2).reshape(x[t].shape)
            if i:
                name = f"{v}.redu_chan.{i}.{ti}"
                y = F.conv2d(y, w[f"{name}.weight"], w[f"{name}.bias"])
            total[t] = total[t] + bilinear(y, (8 * h, 8 * wd))
    logits = {}
    for t in NAMES:
        name = f"{v}.mt_proj.{t}"
        y = F.conv2d(total[t], w[f"{name}.0.weight"], w[f"{name}.0.bias"], padding=1)
        y = F.relu(batch_norm(y, w, f"{name}.1"))
        logits[t] = F.conv2d(y, w[f"heads.{t}.linear_pred.weight"], w[f"heads.{t}.linear_pred.bias"])
    return logits, early


@pytest.mark.conformance("invpt", "formulas")
def test_agrees_with_an_independent_derivation():
    both, maps = decoder_and_heads(), flat((8, 12))
    weights, _ = revert(both.state_dict(), "invpt")
    want, early = derive(maps.maps, weights)
    features = both["decoder"](maps).features
    for name in NAMES:
        got = both["heads"][name](features[name])
        assert want[name].std() > 0.05  # the comparison is about something
        torch.testing.assert_close(got, want[name], rtol=1e-9, atol=1e-9)
    preliminary = both["decoder"]._start(maps, NAMES)[0]
    assert set(preliminary) == set(early)
    changed = {key: value.clone() for key, value in weights.items()}
    changed["multi_task_decoder.invpt.invpt_stages.2.blocks.0.attn.fuse_attn.weight"][0, 0] += 1
    assert (derive(maps.maps, changed)[0]["depth"] - want["depth"]).abs().max() > 1e-4


def derive_network(w, image):
    """Logits of a ViT of four blocks, whose class token is dropped from the maps."""
    x = conv(image, w, "backbone.patch_embed.proj", stride=16)
    grid, levels = x.shape[-2:], []
    token = w["backbone.cls_token"].expand(len(x), -1, -1)
    x = torch.cat([token, to_tokens(x)], 1) + w["backbone.pos_embed"]
    for j in range(4):
        x = vit_block(x, w, f"backbone.blocks.{j}", 2)
        y = layer_norm(x, w, "backbone.norm", 1e-6) if j == 3 else x
        levels.append(to_map(y[:, 1:], grid))
    return {name: bilinear(item, image.shape[-2:]) for name, item in derive(levels, w)[0].items()}


@pytest.mark.conformance("invpt", "formulas", "layout")
@compares("invpt")
def test_converted_weights_predict_as_in_the_authors_code():
    network = tiny(TASKS, size=(64, 128))
    image = torch.randn(2, 3, 64, 128, dtype=torch.float64)
    # A constant added to all keys or to all scores of one query changes nothing.
    check_outputs("invpt", network, derive_network, image, idle=(".proj_k.bias", ".fuse_attn.bias"))


def test_preliminary_predictions_are_supervised_in_training():
    both, maps = decoder_and_heads(), flat()
    assert both["decoder"](maps).auxiliary == []
    both.train()
    found = both["decoder"](maps, ["depth"]).auxiliary
    assert [(item.task, item.weight, tuple(item.logits.shape)) for item in found] == [
        ("depth", 1.0, (2, 1, 2, 3))
    ]


@pytest.mark.parametrize("sizes", [FLAT, SWIN])
def test_every_parameter_learns_and_a_subset_is_the_same(sizes):
    both = decoder_and_heads(sizes).float()
    size = (64, 96)
    maps = Pyramid.of(
        [
            torch.randn(2, c, size[0] // s, size[1] // s)
            for c, s in zip(sizes["channels"], sizes["strides"], strict=True)
        ],
        sizes["strides"],
    )
    alone = both["decoder"](maps, ["depth"]).features
    assert list(alone) == ["depth"]
    assert alone["depth"].shape[-2:] == (16, 24)  # stride 4
    torch.testing.assert_close(alone["depth"], both["decoder"](maps).features["depth"])
    both.train()
    output = both["decoder"](maps)
    loss = sum(both["heads"][t](output.features[t]).square().mean() for t in NAMES)
    (loss + sum(item.logits.square().mean() for item in output.auxiliary)).backward()
    idle = [name for name, p in both.named_parameters() if p.grad is None or not p.grad.any()]
    # A constant added to all keys of one query, or to all channels before a norm, changes nothing.
    rounding = {
        name for name, p in both.named_parameters() if p.grad is not None and p.grad.abs().max() < 1e-9
    }
    assert idle == []
    assert all("proj_k.bias" in name or "fuse.bias" in name for name in rounding)


@pytest.mark.parametrize("size", [(5, 7), (2, 2), (3, 6), (9, 4)])
def test_odd_grids_and_a_batch_of_one(size):
    both = decoder_and_heads()
    features = both["decoder"](flat(size, batch=1)).features
    half = [max(side // 2, 1) for side in size]
    assert features["semseg"].shape == (1, 16, 8 * half[0], 8 * half[1])
    assert all(item.isfinite().all() for item in features.values())


def test_strides_and_widths_that_do_not_fit():
    with pytest.raises(ValueError, match=r"strides double or are all equal, got \(4, 8, 32\)"):
        InvPTDecoder(channels=(4, 8, 16), strides=(4, 8, 32), tasks=TASKS)
    with pytest.raises(ValueError, match="give a multiple of 8"):
        InvPTDecoder(**FLAT, tasks=TASKS, width=20)


def tiny(tasks, size=64):
    cfg = {
        "backbone": {"type": "TimmBackbone", "name": "vit_tiny_patch16_224", "embed_dim": 12, "depth": 4},
        "decoder": {"type": "InvPTDecoder", "width": 16, "hidden": 8},
        "head": {"type": "ConvHead"},
    }
    cfg["backbone"] |= {"num_heads": 2, "img_size": size}
    return build_network(cfg, tasks)


@pytest.mark.conformance("invpt", "layout")
@pytest.mark.parametrize("protocol", ["nyud-invpt", "pascal-invpt"])
def test_there_and_back_is_the_identity_but_for_dead_parameters(protocol):
    network = shake(tiny(get_protocol(protocol).tasks))
    official, report = revert(network.state_dict(), "invpt")
    names = [ORDER[i] for i in range(6) if f"heads.{ORDER[i]}.linear_pred.bias" in official]
    assert ("sal" in names) == (protocol == "pascal-invpt")
    assert all(any(f"invpt.{name}." in k or f"decoder.{name}." in k for name in DEAD) for k in report.rebuilt)
    assert len(report.rebuilt) == 6 + 2 * len(names)
    prefixed = {f"module.{key}": value for key, value in official.items()}
    ours, dropped = convert(prefixed, "invpt")
    assert set(dropped.dropped) == {f"module.{key}" for key in report.rebuilt}
    assert network.load_state_dict(ours) is not None
    again, _ = revert(ours, "invpt")
    assert again.keys() == official.keys()
    assert all(torch.equal(again[key], official[key]) for key in official)
    with pytest.raises(ConversionError, match="have no counterpart"):
        convert({**official, "multi_task_decoder.invpt.other.weight": torch.zeros(1)}, "invpt")


def listed(path):
    rows = [line.rstrip("\n").split("\t") for line in path.read_text().splitlines() if line[0] != "#"]
    return {row[0]: tuple(int(n) for n in row[1].strip("(),").split(",") if n.strip()) for row in rows}


def official_size(protocol):
    with torch.device("meta"):
        vit = {"type": "TimmBackbone", "name": "vit_large_patch16_384"}
        vit["img_size"] = get_protocol(protocol).train_size
        cfg = {"backbone": vit, "decoder": {"type": "InvPTDecoder"}, "head": {"type": "ConvHead"}}
        return build_network(cfg, get_protocol(protocol).tasks)


@pytest.mark.conformance("invpt", "layout")
@pytest.mark.skipif(not KEYS.is_file(), reason="list of official keys not here")
def test_the_full_model_has_the_official_names_and_shapes():
    state, _ = revert(official_size("nyud-invpt").state_dict(), "invpt")
    assert {key: tuple(value.shape) for key, value in state.items()} == listed(KEYS)


@pytest.mark.conformance("invpt", "counts")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("protocol", "parameters", "macs"), [("nyud-invpt", 402.093, 601.9), ("pascal-invpt", 422.930, 672.4)]
)
def test_official_size_and_cost(protocol, parameters, macs):
    """Ours and the dead parameters make the official count; they compute a dead 3x3 convolution as well."""
    network = official_size(protocol)
    state, report = revert(network.state_dict(), "invpt")
    dead = sum(state[key].numel() for key in report.rebuilt)
    own = sum(p.numel() for p in network.parameters())
    assert (own + dead) / 1e6 == pytest.approx(parameters, abs=5e-4)
    height, width = get_protocol(protocol).train_size
    unused = 9 * 1024 * 576 * (height // 16) * (width // 16)
    counted = measure_cost(network, (height, width), meta=True)["macs"]["total"]
    assert counted / 1e9 == pytest.approx(macs, rel=0.01)
    assert (counted + unused) / 1e9 == pytest.approx(macs, abs=0.06)

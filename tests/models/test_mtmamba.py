"""MTMamba and MTMamba++: published sizes and costs, an independent derivation from the formulas, behaviour.

The derivation works on the authors' names and layout: `revert` takes our weights there, plain tensor code
follows the papers. So it checks the modules and the conversion at once.
"""

from __future__ import annotations

import pytest
import torch
from converted import check_outputs, compares
from plain import batch_norm, bilinear, layer_norm
from plain_scans import ss2d
from plain_swin import mmseg_swin
from timm.layers import set_fused_attn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from mtvision.core.pyramid import Pyramid
from mtvision.core.registry import HEADS
from mtvision.models.convert import revert
from mtvision.models.decoders import MTMambaDecoder, MTMambaPlusDecoder
from mtvision.models.factory import build_network
from mtvision.ops import use_backend
from mtvision.protocols import get_protocol
from mtvision.protocols.tasks import depth, normals, semseg

TASKS = (semseg(("sky", "road", "car")), depth(), normals())
NAMES = [task.name for task in TASKS]
SMALL = {"channels": (4, 8, 16), "strides": (4, 8, 16)}

# (decoder, protocol, parameters, multiply-accumulates without and of the scans): docs/mamba.md.
PUBLISHED = [
    ("MTMambaDecoder", "nyud-invpt", 307_999_137, 456.50, 81.72),
    ("MTMambaDecoder", "pascal-invpt", 335.858e6, 526.23, 102.17),
    ("MTMambaDecoder", "cityscapes-mtmamba", 252.272e6, 665.49, 89.40),
    ("MTMambaPlusDecoder", "nyud-invpt", 315.021e6, 446.91, 75.43),
    ("MTMambaPlusDecoder", "pascal-invpt", 343.232e6, 511.89, 95.79),
    ("MTMambaPlusDecoder", "cityscapes-mtmamba", 258.596e6, 668.98, 76.63),
]


@pytest.mark.conformance("{decoder}", "counts")
@pytest.mark.slow
@pytest.mark.parametrize(("decoder", "protocol", "parameters", "rest", "scans"), PUBLISHED)
def test_official_sizes_and_costs(decoder, protocol, parameters, rest, scans):
    made_for = get_protocol(protocol)
    swin = {"type": "SwinBackbone", "name": "swin_large_patch4_window12_384"}
    set_fused_attn(False)  # the fused operator hides its products from the counter
    try:
        with torch.device("meta"):
            cfg = {"backbone": swin, "decoder": {"type": decoder}, "head": {"type": "ConvHead"}}
            network = build_network(cfg, made_for.tasks).eval()
    finally:
        set_fused_attn(True)
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(parameters, abs=500)
    assert sum(p.numel() for p in network.backbone.parameters()) == 195_201_204
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.empty(1, 3, *made_for.train_size, device="meta"))
    scan = counter.get_flop_counts()["Global"][torch.ops.mtvision.selective_scan_2d]
    assert scan / 2e9 == pytest.approx(scans, abs=0.006)
    assert (counter.get_total_flops() - scan) / 2e9 == pytest.approx(rest, abs=0.006)


# ------------------------------------------------------------ the formulas, on the authors' names


def expand(x, w, name, factor):
    B, h, w_, _ = x.shape
    wide = x @ w[f"{name}.expand.weight"].T
    out = torch.empty(B, h * factor, w_ * factor, wide.shape[-1] // factor**2, dtype=x.dtype)
    for p1 in range(factor):
        for p2 in range(factor):
            first = (p1 * factor + p2) * out.shape[-1]
            out[:, p1::factor, p2::factor] = wide[..., first : first + out.shape[-1]]
    return layer_norm(out, w, f"{name}.norm")


def ctm(x, w, s):
    """Feature-level exchange of MTMamba."""
    name = f"block_3.{s}"
    G = ss2d(layer_norm(torch.cat(list(x.values()), -1), w, f"{name}.norm_share"), w, f"{name}.op_share")
    out = {}
    for t in x:
        n = layer_norm(x[t], w, f"{name}.norm.{t}")
        g = torch.sigmoid(n @ w[f"{name}.in_proj.{t}.weight"].T)
        P = ss2d(n, w, f"{name}.op.{t}")
        out[t] = x[t] + (g * G + (1 - g) * P) @ w[f"{name}.out_proj.{t}.weight"].T
    return out


def s_ctm(x, w, s):
    """Semantic-aware exchange of MTMamba++."""
    name = f"block_ctm.{s}.0"
    S = layer_norm(torch.cat(list(x.values()), -1), w, f"{name}.norm_share").permute(0, 3, 1, 2)
    S = F.conv2d(S, w[f"{name}.conv_share.0.weight"], w[f"{name}.conv_share.0.bias"])
    S = F.conv2d(S, w[f"{name}.conv_share.1.weight"], w[f"{name}.conv_share.1.bias"], padding=1)
    S = S.permute(0, 2, 3, 1)
    return {t: x[t] + ss2d(layer_norm(x[t], w, f"{name}.norm.{t}"), w, f"{name}.op.{t}", S) for t in x}


def derive(maps, w, plus):
    """Logits of the whole decoder with its 1x1 heads."""
    maps = [m.permute(0, 2, 3, 1) for m in maps]
    x = dict.fromkeys(NAMES, maps[-1])
    for s, skip in enumerate(reversed(maps[:-1])):
        for t in NAMES:
            joined = torch.cat([expand(x[t], w, f"expand_layers.{t}_{s}", 2), skip], -1)
            weight = w[f"concat_layers.{t}_{s}.weight"].flatten(1)
            x[t] = joined @ weight.T + w[f"concat_layers.{t}_{s}.bias"]
            for k in range(2):
                block = f"block_stm.{t}_{s}.{k}" if plus else f"block_{k + 1}.{t}_{s}"
                x[t] = x[t] + ss2d(layer_norm(x[t], w, f"{block}.norm"), w, f"{block}.op")
        x = s_ctm(x, w, s) if plus else ctm(x, w, s)
    logits = {}
    for t in NAMES:
        if plus:
            y, head = x[t].permute(0, 3, 1, 2), f"final_expand.{t}"
            y = F.conv2d(y, w[f"{head}.0.weight"], w[f"{head}.0.bias"], padding=1)
            y = F.relu(batch_norm(y, w, f"{head}.1"))
        else:
            y = expand(x[t], w, f"final_expand.{t}", 4).permute(0, 3, 1, 2)
        logits[t] = F.conv2d(y, w[f"final_project.{t}.weight"], w[f"final_project.{t}.bias"])
    return logits


def start(plus, seed=0):
    """Small decoder and heads, newly made."""
    torch.manual_seed(seed)
    if plus:
        decoder = MTMambaPlusDecoder(**SMALL, tasks=TASKS, states=3, head_channels=8)
    else:
        decoder = MTMambaDecoder(**SMALL, tasks=TASKS, states=3)
    heads = torch.nn.ModuleDict(
        {
            t.name: HEADS.build({"type": "ConvHead"}, in_channels=decoder.out_channels[t.name], task=t)
            for t in TASKS
        }
    )
    return torch.nn.ModuleDict({"decoder": decoder, "heads": heads})


def decoder_and_heads(plus):
    """The same with unit-gain random weights, so that gates and scans are far from trivial."""
    both = start(plus).double().eval()
    with torch.no_grad():
        for key, value in both.state_dict().items():
            last = key.rpartition(".")[2]
            if last == "num_batches_tracked":
                continue
            if last == "running_var":
                value.uniform_(0.5, 2)
            elif last == "dt_projs_bias":
                value.normal_(-1, 0.5)
            elif value.ndim < 2 or last == "A_logs":
                value.normal_(1.0 if "norm" in key and last == "weight" else 0.0, 0.3)
            else:
                value.normal_(0, (value.shape[-1] if value.ndim == 3 else value[0].numel()) ** -0.5)
    return both


def pyramid(size=(32, 48), batch=2):
    maps = [
        torch.randn(batch, c, size[0] // s, size[1] // s, dtype=torch.float64)
        for c, s in zip(SMALL["channels"], SMALL["strides"], strict=True)
    ]
    return Pyramid.of(maps, SMALL["strides"])


@pytest.mark.conformance("mtmamba plus={plus}", "formulas")
@pytest.mark.parametrize("plus", [False, True])
def test_agrees_with_an_independent_derivation(plus):
    both, maps = decoder_and_heads(plus), pyramid((16, 32))
    weights, _ = revert(both.state_dict(), "mtmamba_plus" if plus else "mtmamba")
    features = both["decoder"](maps).features
    want = derive(maps.maps, weights, plus)
    for name in NAMES:
        got = both["heads"][name](features[name])
        assert want[name].std() > 0.05  # the comparison is about something
        torch.testing.assert_close(got, want[name], rtol=1e-7, atol=1e-7)


TINY_SWIN = {"name": "swin_tiny_patch4_window7_224", "embed_dim": 8, "depths": (2, 2, 1), "window_size": 5}
TINY_SWIN |= {"levels": (0, 1, 2), "num_heads": (2, 2, 4)}


@pytest.mark.conformance("{source}", "formulas", "layout")
@compares("mtmamba", "mtmamba_plus")
@pytest.mark.parametrize(("source", "decoder"), [("mtmamba", "MTMamba"), ("mtmamba_plus", "MTMambaPlus")])
def test_converted_weights_predict_as_in_the_authors_code(source, decoder):
    """The whole network. The Swin's maps, 8 x 16 to 2 x 4, are padded to windows of 5."""
    cfg = {
        "backbone": {"type": "SwinBackbone", **TINY_SWIN},
        "decoder": {"type": f"{decoder}Decoder", "states": 2},
        "head": {"type": "ConvHead"},
    }

    def forward(w, image):
        maps = mmseg_swin(image, w, TINY_SWIN["depths"], TINY_SWIN["num_heads"], TINY_SWIN["window_size"])
        logits = derive(maps, w, plus=source == "mtmamba_plus")
        return {name: bilinear(item, image.shape[-2:]) for name, item in logits.items()}

    image = torch.randn(1, 3, 32, 64, dtype=torch.float64)
    check_outputs(source, build_network(cfg, TASKS), forward, image)


@pytest.mark.parametrize("plus", [False, True])
def test_the_derivation_notices_a_changed_weight(plus):
    """Guards the test above: one number of an exchange weight must show."""
    both, maps = decoder_and_heads(plus), pyramid((16, 32), batch=1)
    weights, _ = revert(both.state_dict(), "mtmamba_plus" if plus else "mtmamba")
    before = derive(maps.maps, weights, plus)
    key = "block_ctm.0.0.conv_share.0.bias" if plus else "block_3.0.op_share.dt_projs_bias"
    weights[key] = weights[key].clone()
    weights[key].view(-1)[0] += 1
    after = derive(maps.maps, weights, plus)
    assert all((before[name] - after[name]).abs().max() > 1e-4 for name in NAMES)


@pytest.mark.parametrize(("plus", "stride"), [(False, 1), (True, 4)])
def test_resolution_of_features(plus, stride):
    features = decoder_and_heads(plus)["decoder"](pyramid((16, 32), batch=1)).features
    assert {tuple(item.shape[2:]) for item in features.values()} == {(16 // stride, 32 // stride)}


def test_odd_maps_are_cropped_to_the_backbones():
    maps = [torch.randn(1, c, h, w) for c, h, w in ((4, 13, 9), (8, 7, 5), (16, 4, 3))]
    features = MTMambaPlusDecoder(**SMALL, tasks=TASKS).eval()(Pyramid.of(maps, (4, 8, 16))).features
    assert features["depth"].shape == (1, 2, 13, 9)


def test_levels_of_one_stride_become_a_pyramid():
    """A plain ViT: four maps of stride 16 end at stride 4, then at the image."""
    decoder = MTMambaDecoder(channels=(8,) * 4, strides=(16,) * 4, tasks=TASKS, widths=(8, 8, 4)).eval()
    maps = [torch.randn(1, 8, 2, 3) for _ in range(4)]
    assert decoder(Pyramid.of(maps, (16,) * 4)).features["depth"].shape == (1, 4, 32, 48)


def test_drop_path_falls_from_the_first_block_to_the_last():
    decoder = MTMambaDecoder(channels=(4, 8, 16, 32), strides=(4, 8, 16, 32), tasks=TASKS)
    rates = [
        getattr(block.drop_path, "drop_prob", 0.0)
        for stage in decoder.stages
        for block in (*stage.blocks["depth"], stage.exchange)
    ]
    assert rates == pytest.approx([0.2, 0.175, 0.15, 0.125, 0.1, 0.075, 0.05, 0.025, 0.0])


def test_bad_strides_say_what_is_needed():
    with pytest.raises(ValueError, match=r"strides double or are all equal, got \(4, 8, 32\)"):
        MTMambaDecoder(channels=(4, 8, 16), strides=(4, 8, 32), tasks=TASKS)
    with pytest.raises(ValueError, match="give 2, one per stage"):
        MTMambaDecoder(**SMALL, tasks=TASKS, widths=(8,))


@pytest.mark.slow
@pytest.mark.parametrize("plus", [False, True])
def test_twenty_steps_of_training_do_not_depend_on_the_backend(plus):
    """Losses of the fast kernel and of the written-out scan, same data and start, agree to 1e-4."""

    def train(backend):
        both = start(plus, seed=1)
        maps = Pyramid.of([item.float() for item in pyramid((32, 32)).maps], SMALL["strides"])
        optimizer = torch.optim.AdamW(both.parameters(), lr=2e-4)
        losses = []
        with use_backend(backend):
            for _ in range(20):
                features = both["decoder"](maps).features
                loss = sum((both["heads"][t](features[t]) - 1).square().mean() for t in NAMES)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
        return losses

    fast, slow = train("auto"), train("reference")
    assert fast == pytest.approx(slow, rel=1e-4)
    assert fast[-1] < fast[0]

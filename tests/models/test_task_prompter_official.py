"""TaskPrompter's released models: sizes, costs and names, on the meta device."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mtvision.models.convert import revert
from mtvision.models.factory import build_network
from mtvision.protocols import get_protocol
from mtvision.report.cost import measure_cost

KEYS = Path(__file__).resolve().parents[3] / "shared" / "reference" / "keys"


def official_vit(protocol, name, width, out_width, windows, reweight):
    backbone = {"type": "TimmBackbone", "name": name, "img_size": get_protocol(protocol).train_size}
    decoder = {"type": "TaskPrompterDecoder", "width": width, "out_width": out_width, "reweight": reweight}
    cfg = {"backbone": backbone, "adapters": [{"type": "TaskPrompts", "windows": windows}]}
    cfg |= {"decoder": decoder, "head": {"type": "ConvHead", "hidden": out_width, "activation": "gelu"}}
    with torch.device("meta"):
        return build_network(cfg, get_protocol(protocol).tasks)


def official_swin():
    backbone = {"type": "SwinBackbone", "name": "swin_base_patch4_window12_384", "img_size": (768, 1536)}
    decoder = {"type": "TaskPrompterDecoder", "width": 256, "out_width": 450, "kernel": 3, "smooth": True}
    prompts = {"type": "TaskPrompts", "image_scale": 0.75, "extra": ("3ddet",)}
    cfg = {"backbone": {**backbone, "level_norms": False}, "adapters": [prompts]}
    cfg |= {"decoder": {**decoder, "gate_upscale": 2, "upscale": 1}, "head": {"type": "DeconvHead"}}
    with torch.device("meta"):
        return build_network(cfg, get_protocol("cityscapes3d-taskprompter").tasks)


def total_with_dead(network, source):
    """Parameters of ours and of what conversion leaves out, a row of the position embedding among them."""
    state, report = revert(network.state_dict(), source)
    learnable = [key for key in report.rebuilt if not any(n in key for n in ("running", "num_", "_index"))]
    row = network.backbone.task_prompts.shape[1] if source == "taskprompter" else 0
    return sum(p.numel() for p in network.parameters()) + sum(state[key].numel() for key in learnable) + row


@pytest.mark.conformance("taskprompter", "counts")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "parameters", "macs"),
    [
        (("nyud-invpt", "vit_large_patch16_384", 768, 768, 4, None), 513_505_709, 839.7),
        (("pascal-invpt", "vit_large_patch16_384", 300, 350, 1, 16), 401.105e6, 496.6),
        (("pascal-invpt", "vit_base_patch16_384", 780, 1024, 4, 12), 418.332e6, 1153.4),
    ],
)
def test_official_vits_size_and_cost(options, parameters, macs):
    network = official_vit(*options)
    assert total_with_dead(network, "taskprompter") == pytest.approx(parameters, abs=500)
    counted = measure_cost(network, get_protocol(options[0]).train_size, meta=True)["macs"]["total"]
    assert counted / 1e9 == pytest.approx(macs, rel=0.001)


@pytest.mark.conformance("taskprompter", "counts")
@pytest.mark.slow
def test_official_swins_size_and_cost():
    """Without the third task's branch, whose convolutions are added here."""
    network = official_swin()
    assert total_with_dead(network, "taskprompter_swin") == pytest.approx(291.559e6, abs=500)
    counted = measure_cost(network, (1024, 2048), meta=True)["macs"]["total"]
    grids = ((256, 96 * 192), (512, 48 * 96), (1024, 24 * 48), (1024, 24 * 48))
    branch = sum(area * (2 * 256 * c + 512 * 450 + 18 * 450**2) for c, area in grids)
    assert (counted + branch) / 1e9 == pytest.approx(1943.6, rel=0.002)


def listed(name):
    rows = [line.split("\t") for line in (KEYS / name).read_text().splitlines() if line[0] != "#"]
    return {row[0]: tuple(int(n) for n in row[1].strip("(),").split(",") if n.strip()) for row in rows}


@pytest.mark.conformance("taskprompter", "layout")
@pytest.mark.slow
@pytest.mark.skipif(not KEYS.is_dir(), reason="lists of official keys not here")
def test_the_full_models_have_the_official_names_and_shapes():
    network = official_vit("nyud-invpt", "vit_large_patch16_384", 768, 768, 4, None)
    state, _ = revert(network.state_dict(), "taskprompter")
    assert {k: tuple(v.shape) for k, v in state.items()} == listed("keys_taskprompter_vitL_nyud.txt")
    state, _ = revert(official_swin().state_dict(), "taskprompter_swin")
    official = {k: v for k, v in listed("keys_taskprompter_swinB_cs3d.txt").items() if "attn_mask" not in k}
    assert {k: tuple(v.shape) for k, v in state.items()} == official

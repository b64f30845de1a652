"""The two HRNets, each against a forward pass written from plain tensor operations on its own weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from disturbed import disturb
from safetensors.torch import save_file
from torch.nn import functional as F

from mtvision.models.backbones import HRNetBackbone
from mtvision.recipe.config import load_config

ROOT = Path(__file__).parents[2]
NAME = "hrnet_w18_small_v2"
SURVEY = {"upsampling": "bilinear", "bn_momentum": 0.01}
CONFIGS = sorted(
    str(path.relative_to(ROOT / "configs"))
    for path in (ROOT / "configs").glob("*/*.py")
    if 'name="hrnet' in path.read_text(encoding="utf-8")
)


class Plain:
    """HRNet's forward pass on a state dict with timm's (and the authors') names.

    Training passes move the running statistics of that state dict.
    """

    def __init__(self, state, mode, momentum=0.1, *, training=False):
        self.state, self.mode, self.momentum, self.training = state, mode, momentum, training

    def conv(self, conv, norm, x, stride=1):
        weight = self.state[f"{conv}.weight"]
        x = F.conv2d(x, weight, None, stride, weight.shape[-1] // 2)
        names = ("running_mean", "running_var", "weight", "bias")
        tensors = (self.state[f"{norm}.{name}"] for name in names)
        return F.batch_norm(x, *tensors, self.training, self.momentum)

    def block(self, name, x):
        """BasicBlock or Bottleneck, whichever the names say."""
        y, count = x, 3 if f"{name}.conv3.weight" in self.state else 2
        for index in range(1, count + 1):
            y = self.conv(f"{name}.conv{index}", f"{name}.bn{index}", y)
            y = y.relu() if index < count else y
        if f"{name}.downsample.0.weight" in self.state:
            x = self.conv(f"{name}.downsample.0", f"{name}.downsample.1", x)
        return (x + y).relu()

    def count(self, prefix):
        keys = (key.removeprefix(prefix) for key in self.state if key.startswith(prefix))
        return len({key.split(".")[0] for key in keys})

    def blocks(self, name, x):
        for index in range(self.count(f"{name}.")):
            x = self.block(f"{name}.{index}", x)
        return x

    def transition(self, name, maps):
        """Maps of the next stage: a new branch starts at the coarsest map, a 3x3 may change the width."""
        maps, coarsest = list(maps), maps[-1]
        for index in range(len(maps) + 1):
            part = f"{name}.{index}"
            if f"{part}.0.weight" in self.state:
                maps[index] = self.conv(f"{part}.0", f"{part}.1", maps[index]).relu()
            elif f"{part}.0.0.weight" in self.state:
                maps.append(self.conv(f"{part}.0.0", f"{part}.0.1", coarsest, stride=2).relu())
        return maps

    def fuse(self, name, maps):
        result = []
        for i, target in enumerate(maps):
            total = torch.zeros_like(target)
            for j, x in enumerate(maps):
                part = f"{name}.{i}.{j}"
                if j > i:
                    x = self.conv(f"{part}.0", f"{part}.1", x)
                    align = {"align_corners": False} if self.mode == "bilinear" else {}
                    x = F.interpolate(x, target.shape[-2:], mode=self.mode, **align)
                for step in range(i - j):
                    x = self.conv(f"{part}.{step}.0", f"{part}.{step}.1", x, stride=2)
                    x = x.relu() if step < i - j - 1 else x
                total = total + x
            result.append(total.relu())
        return result

    def __call__(self, image):
        x = F.pad(image, (0, -image.shape[-1] % 32, 0, -image.shape[-2] % 32))
        for index in (1, 2):
            x = self.conv(f"conv{index}", f"bn{index}", x, stride=2).relu()
        maps = [self.blocks("layer1", x)]
        for stage in (2, 3, 4):
            maps = self.transition(f"transition{stage - 1}", maps)
            for module in range(self.count(f"stage{stage}.")):
                part = f"stage{stage}.{module}"
                maps = [self.blocks(f"{part}.branches.{index}", x) for index, x in enumerate(maps)]
                maps = self.fuse(f"{part}.fuse_layers", maps)
        return maps


def plain(backbone, *arguments, **options):
    state = {key.removeprefix("model."): value.clone() for key, value in backbone.state_dict().items()}
    return Plain(state, *arguments, **options)


@pytest.fixture(scope="module")
def weights():
    torch.manual_seed(0)
    return disturb(HRNetBackbone(NAME)).double().state_dict()


def build(weights, **options):
    backbone = HRNetBackbone(NAME, **options).double()
    backbone.load_state_dict(weights)  # strict: one file fits both networks
    return backbone


@pytest.mark.parametrize(("options", "mode"), [({}, "nearest"), (SURVEY, "bilinear")])
def test_outputs_are_those_of_the_formulas(weights, options, mode):
    backbone, image = build(weights, **options).eval(), torch.randn(2, 3, 67, 90).double()
    with torch.no_grad():
        mine, by_formula = backbone(image).maps, plain(backbone, mode)(image)
        other = plain(backbone, {"nearest": "bilinear", "bilinear": "nearest"}[mode])(image)
    assert [item.shape[1] for item in mine] == [18, 36, 72, 144]
    for index, item in enumerate(mine):
        torch.testing.assert_close(item, by_formula[index], rtol=1e-8, atol=1e-8)
        assert (item - other[index]).abs().max() > 0.01 * item.abs().max()


@pytest.mark.parametrize(
    ("options", "mode", "momentum"),
    [({}, "nearest", 0.1), (SURVEY, "bilinear", 0.01), ({"upsampling": "bilinear"}, "bilinear", 0.1)],
)
def test_running_statistics_move_by_the_momentum(weights, options, mode, momentum):
    backbone, image = build(weights, **options).train(), torch.randn(2, 3, 64, 96).double()
    reference = plain(backbone, mode, momentum, training=True)
    with torch.no_grad():
        backbone(image)
        reference(image)
    moved = {key.removeprefix("model."): value for key, value in backbone.state_dict().items()}
    names = [key for key in moved if key.endswith(("running_mean", "running_var"))]
    assert len(names) > 100
    for key in names:
        torch.testing.assert_close(moved[key], reference.state[key], rtol=1e-8, atol=1e-8)
        assert not torch.equal(moved[key], weights[f"model.{key}"])


def test_it_gives_the_branches_of_timm(tmp_path):
    torch.manual_seed(0)
    whole = timm.create_model(NAME).eval()
    file = tmp_path / "weights.safetensors"
    save_file(whole.state_dict(), file)
    backbone = HRNetBackbone(NAME, pretrained=str(file)).eval()
    survey = HRNetBackbone(NAME, pretrained=str(file), **SURVEY)
    mine, loaded = survey.state_dict(), backbone.state_dict()
    assert mine.keys() == loaded.keys()
    assert all(torch.equal(mine[key], loaded[key]) for key in mine)
    assert (backbone.channels, backbone.strides) == ((18, 36, 72, 144), (4, 8, 16, 32))
    assert sum(item.numel() for item in backbone.parameters()) == pytest.approx(3.86e6, rel=0.002)
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        whole.incre_modules = None  # timm then returns the branches themselves
        expected = whole.forward_features(image)
        for mine, branch in zip(backbone(image).maps, expected, strict=True):
            torch.testing.assert_close(mine, branch)


def test_refusals():
    with pytest.raises(ValueError, match="not an HRNet"):
        HRNetBackbone("resnet18")
    with pytest.raises(ValueError, match="upsampling='cubic'; choose 'nearest' or 'bilinear'"):
        HRNetBackbone(NAME, upsampling="cubic")


def test_every_hrnet_is_found():
    assert len(CONFIGS) == 16


@pytest.mark.parametrize("name", CONFIGS)
def test_rows_of_the_papers_have_their_network(name):
    config = load_config(ROOT / "configs" / name)
    backbone, text = config["model"]["backbone"], (ROOT / "configs" / name).read_text(encoding="utf-8")
    described = " ".join(text.split('"""')[1].split())
    if backbone["type"] == "HRNetBackbone" and "_invpt_" in name:  # rows of ATRC's tables
        assert (backbone["upsampling"], "bn_momentum" in backbone) == ("bilinear", False)
        assert "HRNet: ATRC's, bilinear fusions and BatchNorm momentum 0.1." in described
    elif backbone["type"] == "HRNetBackbone":
        assert {key: backbone.get(key) for key in SURVEY} == SURVEY
        assert "HRNet: the survey's, bilinear fusions and BatchNorm momentum 0.01." in described
    else:
        assert "HRNet: timm's, nearest-neighbour fusions and BatchNorm momentum 0.1," in described

"""The two HRNets, each against a forward pass written from plain tensor operations on its own weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from disturbed import disturb
from plain_hrnet import PlainHRNet
from safetensors.torch import save_file
from torch.nn import functional as F

from mtvision.models.backbones import HRNetBackbone
from mtvision.recipe.config import load_config

ROOT = Path(__file__).parents[2]
NAME = "hrnet_w18_small_v2"
SURVEY = {"upsampling": "bilinear", "bn_momentum": 0.01}
CONFIGS = sorted(
    str(path.relative_to(ROOT / "configs")) for path in (ROOT / "configs").glob("*/*_hrnet_*.py")
)


class Plain(PlainHRNet):
    """The forward pass on a copy of a backbone's tensors, padded as the backbone pads.

    Training passes move the running statistics of that copy.
    """

    def __init__(self, backbone, mode, momentum=0.1, *, training=False):
        def norm(x, w, name):
            tensors = (w[f"{name}.{item}"] for item in ("running_mean", "running_var", "weight", "bias"))
            return F.batch_norm(x, *tensors, training, momentum)

        state = {key: value.clone() for key, value in backbone.state_dict().items()}
        super().__init__(state, "model.", mode, norm)

    def __call__(self, image):
        return super().__call__(F.pad(image, (0, -image.shape[-1] % 32, 0, -image.shape[-2] % 32)))


@pytest.fixture(scope="module")
def weights():
    torch.manual_seed(0)
    return disturb(HRNetBackbone(NAME)).double().state_dict()


def build(weights, **options):
    backbone = HRNetBackbone(NAME, **options).double()
    backbone.load_state_dict(weights)  # strict: one file fits both networks
    return backbone


@pytest.mark.slow
@pytest.mark.parametrize(("options", "mode"), [({}, "nearest"), (SURVEY, "bilinear")])
def test_outputs_are_those_of_the_formulas(weights, options, mode):
    backbone, image = build(weights, **options).eval(), torch.randn(2, 3, 67, 90).double()
    with torch.no_grad():
        mine, by_formula = backbone(image).maps, Plain(backbone, mode)(image)
        other = Plain(backbone, {"nearest": "bilinear", "bilinear": "nearest"}[mode])(image)
    assert [item.shape[1] for item in mine] == [18, 36, 72, 144]
    for index, item in enumerate(mine):
        torch.testing.assert_close(item, by_formula[index], rtol=1e-8, atol=1e-8)
        assert (item - other[index]).abs().max() > 0.01 * item.abs().max()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "mode", "momentum"),
    [({}, "nearest", 0.1), (SURVEY, "bilinear", 0.01), ({"upsampling": "bilinear"}, "bilinear", 0.1)],
)
def test_running_statistics_move_by_the_momentum(weights, options, mode, momentum):
    backbone, image = build(weights, **options).train(), torch.randn(2, 3, 64, 96).double()
    reference = Plain(backbone, mode, momentum, training=True)
    with torch.no_grad():
        backbone(image)
        reference(image)
    moved = backbone.state_dict()
    names = [key for key in moved if key.endswith(("running_mean", "running_var"))]
    assert len(names) > 100
    for key in names:
        torch.testing.assert_close(moved[key], reference.w[key], rtol=1e-8, atol=1e-8)
        assert not torch.equal(moved[key], weights[key])


@pytest.mark.slow
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

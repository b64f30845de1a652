"""Every published data set runs through its protocol's presets and collates into batches."""

from __future__ import annotations

import pytest
import torch

from mtvision.core.sample import SampleKey, collate
from mtvision.data.mtan_npy import MtanNpy
from mtvision.data.nyudv2 import NYUDv2
from mtvision.data.pascal_context import PascalContext
from mtvision.protocols import get_protocol

SIZE = (24, 32)


def batch_of(dataset, epoch=0):
    return collate([dataset[SampleKey(epoch=epoch, index=index)] for index in range(len(dataset))])


@pytest.mark.parametrize("preset", ["invpt-train", "invpt-eval"])
def test_invpt_presets(miniature, tmp_path, preset):
    transforms = {"preset": preset, "size": SIZE}
    nyud = NYUDv2(miniature.nyud(tmp_path / "n"), split="train", check=False, transforms=transforms)
    pascal = PascalContext(
        miniature.pascal(tmp_path / "p"), split="train", check=False, transforms=transforms
    )
    for data in (nyud, pascal):
        batch = batch_of(data)
        assert batch.image.shape == (3, 3, *SIZE)
        assert sorted(batch.labels) == sorted(data.protocol.task_names)
        assert all(label.shape[-2:] == SIZE for label in batch.labels.values())
        again = batch_of(data)
        for task, label in batch.labels.items():
            assert torch.equal(label.nan_to_num(nan=-9), again.labels[task].nan_to_num(nan=-9))


def test_padding_at_evaluation_is_centred_and_ignored(miniature, tmp_path):
    """17x23 in 24x32: 3 rows above, 4 below, 4 columns left, 5 right."""
    transforms = {"preset": "invpt-eval", "size": SIZE}
    root = miniature.nyud(tmp_path / "n")
    padded = NYUDv2(root, split="val", check=False, transforms=transforms)[0]
    plain = NYUDv2(root, split="val", check=False)[0]
    inside = (slice(3, 20), slice(4, 27))
    for task, label in padded.labels.items():
        content = label[..., *inside]
        assert torch.equal(content.nan_to_num(nan=-9), plain.labels[task].nan_to_num(nan=-9))
        border = label.clone()
        border[..., *inside] = float("nan") if label.is_floating_point() else 255
        assert (border.isnan() if label.is_floating_point() else border == 255).all()
    assert (padded.image[:, :3] == 0).all()  # after normalisation: the mean colour


@pytest.mark.parametrize("preset", ["survey-train", "survey-pascal-train", "survey-eval"])
def test_survey_presets(miniature, tmp_path, preset):
    transforms = {"preset": preset, "size": SIZE}
    nyud = NYUDv2(miniature.nyud(tmp_path / "n", packaging="survey"), split="train", packaging="survey",
                  check=False, transforms=transforms)  # fmt: skip
    pascal = PascalContext(
        miniature.pascal(tmp_path / "p"), split="train", check=False, transforms=transforms,
        protocol=get_protocol("pascal-survey"),
    )  # fmt: skip
    for data in (nyud, pascal):
        assert batch_of(data).image.shape == (3, 3, *SIZE)


@pytest.mark.parametrize("preset", ["mtan-train", "mtan-eval"])
@pytest.mark.parametrize("kind", ["nyuv2", "cityscapes"])
def test_mtan_presets(miniature, tmp_path, preset, kind):
    protocol = get_protocol("nyuv2-mtan" if kind == "nyuv2" else "cityscapes-mtan-7")
    root = miniature.mtan(tmp_path / kind, kind=kind, count=3)
    data = MtanNpy(root, split="train", check=False, protocol=protocol, transforms=preset)
    batch = batch_of(data)
    assert batch.image.shape == (3, 3, 12, 16)
    assert 0 <= batch.image.min() <= batch.image.max() <= 1 + 1e-6  # used raw, without ImageNet statistics


def test_quirk_31_zooming_divides_inverse_depth_or_multiplies_it(miniature, tmp_path):
    root = miniature.mtan(tmp_path / "c", kind="cityscapes", count=3)
    transforms = [{"type": "RandomScaleCrop", "scales": (1.5,)}]
    protocol = get_protocol("cityscapes-mtan-7")
    divided, multiplied = (
        MtanNpy(root, split="train", check=False, protocol=protocol, transforms=transforms, zoom_fix=fix)[0]
        for fix in (False, True)
    )
    ratio = multiplied.labels["depth"] / divided.labels["depth"]
    valid = torch.isfinite(ratio)
    assert valid.any()
    torch.testing.assert_close(ratio[valid], torch.full_like(ratio[valid], 2.25))

"""The public interface: its names, what importing it costs, and everything from a checkpoint alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from people import photo, write_checkpoint, write_photo
from PIL import Image

import mtvision
from mtvision.core.naming import UnknownNameError
from mtvision.runtime.checkpoint import CheckpointError

NAMES = [
    *(
        "Model",
        "Record",
        "Result",
        "RunConfig",
        "Task",
        "__version__",
        "build",
        "evaluate",
        "from_pretrained",
    ),
    *("init", "list_recipes", "load", "load_config", "push_to_hub", "score", "train"),
]
"""All public names. Taking one away breaks other people's code; a new one is a promise."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("network"))


@pytest.fixture(scope="module")
def model(checkpoint):
    return mtvision.load(checkpoint)


def test_the_inventory_of_public_names():
    assert dir(mtvision) == NAMES
    assert all(callable(getattr(mtvision, name)) for name in NAMES if name != "__version__")
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        _ = mtvision.lod


def test_importing_the_package_imports_nothing_else():
    code = (
        "import sys; before = set(sys.modules); import mtvision; new = set(sys.modules) - before; "
        "print(sorted(name for name in new if name.split('.')[0] not in sys.stdlib_module_names))"
    )
    root = Path(mtvision.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True, cwd=root
    )
    assert done.stdout.strip() == "['mtvision']"


def test_a_model_says_what_it_is(model):
    assert list(model.tasks) == ["depth", "semseg"]
    assert model.tasks["depth"].unit == "m"
    assert model.cost((32, 32))["macs"]["total"] > 0
    assert "depth, semseg" in repr(model)
    with pytest.raises(ValueError, match=r"no image size of its own; give one: shape=\(H, W\)"):
        model.cost()


def test_one_picture_in_every_form_gives_one_result(model, tmp_path):
    path = write_photo(tmp_path / "a.png")
    expected = model.predict(path)
    tensor = torch.from_numpy(photo()).permute(2, 0, 1)
    for given in (str(path), photo(), tensor, tensor.float() / 255, Image.open(path)):
        result = model.predict(given)
        assert isinstance(result, mtvision.Result)
        for task in model.tasks:
            np.testing.assert_array_equal(result[task], expected[task])
    assert expected["depth"].shape == (1, 24, 40)
    assert expected["semseg"].dtype == np.uint8


def test_a_list_gives_a_list(model, tmp_path):
    for name in "ab":
        write_photo(tmp_path / "in" / f"{name}.png")
    results = model.predict([tmp_path / "in", photo(), np.zeros((8, 9), np.uint8)], batch=3)
    assert [item.name for item in results] == ["a", "b", "image1", "image2"]
    assert results[3]["semseg"].shape == (8, 9)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (np.zeros((8, 9, 3)) + 2, ValueError, "found real values 2..2, expected 0..1"),
        (np.zeros((8, 9, 3), np.int32), ValueError, "found int32, expected uint8"),
        (np.zeros((2, 8, 9, 3), np.uint8), ValueError, r"Several are a list: model.predict\(list\(batch\)\)"),
        (torch.zeros(8, 9, 3), ValueError, r"found tensor \(8, 9, 3\), expected \(3, H, W\)"),
        (7, TypeError, "picture 0 is a int"),
        ("gone.png", FileNotFoundError, "gone.png does not exist"),
        (str(Path(__file__).parent), ValueError, "no image or video|names"),
    ],
)
def test_what_is_no_picture_is_refused(model, given, error, message):
    with pytest.raises(error, match=message):
        model.predict(given)


def test_a_result_is_maps_pictures_and_files(model, tmp_path):
    result = model.predict(photo())
    assert set(result) == {"semseg", "depth"}
    assert result.panel(["depth"]).shape[2] == 3
    assert result.overlay("semseg").shape == (24, 40, 3)
    assert result.statistics()["depth"]["unit"] == "m"
    assert result._repr_png_().startswith(b"\x89PNG")
    assert "data:image/png;base64," in result._repr_html_()
    assert "semseg 24×40 uint8" in repr(result)
    files = result.save(tmp_path / "out", ["panel", "npz", "png"])
    assert sorted(path.name for path in files) == ["image.npz", "image.png", "image.png", "image.png"]
    assert result.save(tmp_path / "x.jpg") == [tmp_path / "x.jpg"]
    np.testing.assert_array_equal(np.load(tmp_path / "out/image.npz")["depth"], result["depth"])
    with pytest.raises(FileExistsError, match="exist already"):
        result.save(tmp_path / "out")
    with pytest.raises(UnknownNameError, match="Did you mean 'depth'"):
        result["dept"]


def test_a_checkpoint_of_every_form(checkpoint, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "iter_10.pth").write_bytes(checkpoint.read_bytes())
    assert list(mtvision.load(run).tasks) == ["depth", "semseg"]
    assert list(mtvision.load(str(checkpoint), tasks="depth").tasks) == ["depth"]
    with pytest.raises(CheckpointError, match=r"no checkpoint iter_\*\.pth"):
        mtvision.load(tmp_path)
    with pytest.raises(ValueError, match="expected hf:owner/name"):
        mtvision.load("hf:alone")
    with pytest.raises(TypeError, match="the folder of a run, demo, or hf:owner/name; got 5"):
        mtvision.load(5)


def test_evaluation_needs_the_checkpoint_alone(model, checkpoint):
    scores = mtvision.evaluate(model)
    assert mtvision.evaluate(checkpoint) == scores
    assert 0 <= scores["semseg"]["miou"] <= 1
    again = mtvision.evaluate(model, {"type": "TinyDiscs", "length": 3, "split": "test"}, batch_size=2)
    assert scores.keys() == again.keys()
    with pytest.raises(ValueError, match="expected 'test', 'val', a data set"):
        mtvision.evaluate(model, "trial")


def test_a_network_is_built_from_the_name_of_a_recipe():
    assert mtvision.list_recipes("nothing of the kind") == []
    (name,) = mtvision.list_recipes("synthetic/demo")
    built = mtvision.build(name, options=["tasks=depth"])
    assert list(built.tasks) == ["depth"]
    with pytest.raises(TypeError, match="with_options"):
        mtvision.build(built.config, options=["seed=1"])


def test_scores_of_arrays_and_tensors():
    label = np.full((4, 4), 2.0)
    label[0] = np.nan
    assert mtvision.score(np.full((4, 4), 3.0), label, "depth")["rmse"] == 1
    tensor = torch.full((1, 4, 4), 3.0)
    assert mtvision.score([tensor, tensor], [tensor, tensor + 1], "depth")["abs_err"] == 0.5
    ids = np.array([[0, 1], [1, 255]], np.uint8)
    assert mtvision.score(ids % 2, ids, "semseg", num_classes=2)["miou"] == 1
    assert (
        mtvision.score(np.zeros((2, 2)), ids[:1].repeat(2, 0), "semseg", protocol="nyud-invpt")["miou"] >= 0
    )
    up = np.zeros((3, 2, 2), np.float32)
    up[2] = 1
    assert mtvision.score(up, up, "normals")["mean"] == 0
    edge = np.eye(12, dtype=np.float32)
    assert mtvision.score(edge, edge, "edge")["odsF"] > 0.9
    assert mtvision.score(edge, edge.astype(np.uint8), "saliency")["mae"] == 0
    with pytest.raises(ValueError, match="give num_classes="):
        mtvision.score(ids, ids, "semseg")
    with pytest.raises(TypeError, match="a list of predictions and a list of labels"):
        mtvision.score([ids], ids, "semseg", num_classes=2)

"""The first look says what a set holds, and stops before the first step where it cannot be right."""

from __future__ import annotations

import json

import cv2
import data_problems as problems
import discs
import numpy as np
import pytest
import torch

from mtvision.core.sample import Meta, RawSample
from mtvision.data.cityscapes import Cityscapes
from mtvision.data.dataset import DenseDataset
from mtvision.data.folder import FolderDataset
from mtvision.data.nyudv2 import NYUDv2
from mtvision.data.pascal_context import PascalContext
from mtvision.engine.building import training_module
from mtvision.engine.start.look import LOOK_FILE, FirstLookError, first_look
from mtvision.engine.start.losses import LossAtStart, first_images, judge_losses, losses_at_start
from mtvision.engine.start.reading import judge_splits, read_splits, spread
from mtvision.engine.training import train
from mtvision.protocols import get_protocol, own_protocol
from mtvision.recipe.building import network_of
from mtvision.recipe.config import load_config
from mtvision.recipe.data import build_dataset
from mtvision.recipe.sections import EvaluationSettings, TrainingSettings
from mtvision.recipe.settings import Settings
from mtvision.runtime.progress import messages

SIZE = (12, 16)


class Arrays(DenseDataset):
    """One label a task and image, given by a function of the image's number."""

    def __init__(self, protocol, labels, *, count=8, split="train", first=0, usual=None):
        self.labels, self.first, self.usual = labels, first, usual or {}
        super().__init__(
            ids=[f"im{i}" for i in range(count)], protocol=protocol, split=split, check_split=False
        )

    def read(self, index):
        image = np.random.default_rng(self.first + index).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
        labels = {name: make(np.random.default_rng([1, index])) for name, make in self.labels.items()}
        meta = Meta(id=self.ids[index], size=SIZE, original_size=SIZE)
        return RawSample(image=image, labels=labels, tasks=self.tasks, meta=meta)

    def usual_classes(self):
        return self.usual


def found(dataset, level="error", count=8):
    """`where: text` of the findings of a level."""
    findings = judge_splits(read_splits({"train": dataset}, count))
    return [f"{item.where}: {item.text}" for item in findings if item.level == level]


def filled(*values):
    return lambda _: np.broadcast_to(np.asarray(values, np.float32), (*SIZE, len(values))).copy()


def ids(value):
    return lambda _: np.full(SIZE, value, np.uint8)


def thin(inside, outside=0.0):
    """An edge map with one line."""

    def make(rng):
        edge = np.full((*SIZE, 1), outside, np.float32)
        edge[rng.integers(SIZE[0])] = inside
        return edge

    return make


def stored_normals(tilt):
    """Unit vectors as (v + 1) / 2, of surfaces that face the camera more or less."""

    def make(rng):
        vectors = rng.normal(0, tilt, (*SIZE, 3)) + np.array([0, 0, 1])
        return ((vectors / np.linalg.norm(vectors, axis=2, keepdims=True) + 1) / 2).astype(np.float32)

    return make


def metres(low, high, factor=1.0, sentinel=None):
    def make(rng):
        depth = (rng.uniform(low, high, (*SIZE, 1)) * factor).astype(np.float32)
        if sentinel is not None:
            depth[0] = sentinel
        return depth

    return make


CLASSES = {"type": "semseg", "class_names": ["a", "b", "c"]}
CONTRADICTIONS = {
    "ignored-classes": (CLASSES, ids(255), "no pixel has a label"),
    "ignored-depth": ({"type": "depth"}, filled(np.nan), "no pixel has a label"),
    "ignored-saliency": ({"type": "saliency"}, ids(255), "no pixel has a label"),
    "one-class": (CLASSES, ids(0), "every labelled pixel is class 0"),
    "last-class": (CLASSES, ids(2), "every labelled pixel is class 2"),
    "all-salient": ({"type": "saliency"}, ids(1), "every labelled pixel is class 1"),
    "edges-of-255": ({"type": "edge"}, thin(1 / 255), "edges end at 0.0039"),
    "edges-of-65535": ({"type": "edge"}, thin(1 / 65535), "edges end at 1.5e-05"),
    "edges-of-annotators": ({"type": "edge"}, thin(5 / 255), "edges end at 0.02"),
    "edges-inverted": ({"type": "edge"}, thin(0.0, 1.0), "the maps are inverted"),
    "edges-inverted-soft": ({"type": "edge"}, thin(0.1, 0.9), "the maps are inverted"),
    "no-edge": ({"type": "edge"}, filled(0), "no edge at all"),
    "normals-facing": ({"type": "normals"}, stored_normals(0.3), "do not have length 1"),
    "normals-tilted": ({"type": "normals"}, stored_normals(0.6), "do not have length 1"),
    "normals-any": ({"type": "normals"}, stored_normals(3), "do not have length 1"),
    "room-in-mm": ({"type": "depth"}, metres(0.8, 4, 1000), "not metres"),
    "street-in-mm": ({"type": "depth"}, metres(5, 60, 1000), "not metres"),
    "room-in-cm": ({"type": "depth"}, metres(0.8, 4, 100), "not metres"),
}


ROWS = [
    (problems.ALL_IGNORED, ["ignored-"]),
    (problems.ONE_CLASS, ["one-class", "last-class", "all-salient"]),
    (problems.EDGES_AT_START, ["edges-", "no-edge"]),
    (problems.NORMALS_SHIFTED, ["normals-"]),
    (problems.DEPTH_UNITS, ["room-", "street-"]),
]


@pytest.mark.parametrize("name", problems.marked(CONTRADICTIONS, ROWS))
def test_contradictions_are_errors(name):
    task, label, text = CONTRADICTIONS[name]
    errors = found(Arrays(own_protocol("mine", {"it": task}), {"it": label}))
    assert len(errors) == 1
    assert errors[0].startswith("train it: ")
    assert text in errors[0]


SOUND = {
    "classes": (CLASSES, lambda rng: rng.integers(0, 3, SIZE).astype(np.uint8)),
    "edges": ({"type": "edge"}, thin(1.0)),
    "soft-edges": ({"type": "edge"}, thin(0.2)),
    "normals": ({"type": "normals"}, lambda rng: (stored_normals(1)(rng) * 2 - 1).astype(np.float32)),
    "plane": ({"type": "normals"}, filled(2 / 3, 1 / 3, 2 / 3)),
    "far": ({"type": "depth"}, metres(2, 90)),
}


@pytest.mark.parametrize("name", SOUND)
def test_sound_sets_have_no_error(name):
    task, label = SOUND[name]
    assert found(Arrays(own_protocol("mine", {"it": task}), {"it": label})) == []


@problems.DEPTH_MARKS
def test_a_sentinel_among_depths_is_an_oddity():
    for sentinel in (655.35, 65.535 * 1000):
        data = Arrays(own_protocol("mine", {"depth": {}}), {"depth": metres(1, 9, sentinel=sentinel)})
        (text,) = found(data, "warning") if sentinel < 1000 else found(data, "error")
        assert f"depth reaches {sentinel:g}" in text


def test_a_rare_class_is_looked_for_in_more_images():
    """Eight images without foreground prove nothing; the ninth has some."""
    protocol = own_protocol("mine", {"saliency": {}})
    data = Arrays(protocol, {"saliency": ids(0)}, count=40)
    data.labels = {"saliency": lambda rng: np.full(SIZE, rng.integers(0, 9) == 0, np.uint8)}
    assert found(data, count=2) == []


def nyud(stored, shift):
    """NYUD's ids 0..39 from a stored map: wall 25 %, floor 12 %, the rest even; `shift` is subtracted."""

    def make(rng):
        shares = np.r_[0.10, 0.25, 0.12, np.full(stored - 2, 0.53 / (stored - 2))]
        label = rng.choice(stored + 1, SIZE, p=shares / shares.sum()).astype(np.int64)
        label = np.maximum(label - shift, 0)  # what was done before
        return np.where(label == 0, 255, label - 1).astype(np.uint8)

    return make


@pytest.mark.parametrize(
    ("label", "right"),
    [(nyud(40, 0), True), (nyud(40, 1), False), (nyud(13, 0), False), (nyud(38, 1), False)],
    ids=["published", "shifted", "13 classes", "38 classes, shifted"],
)
@problems.NYUD_SHIFTED
def test_nyud_of_another_numbering(label, right):
    protocol = get_protocol("nyud-invpt").select(["semseg"])
    data = Arrays(protocol, {"semseg": label}, usual=NYUDv2.usual_classes(None))
    errors = found(data)
    assert (errors == []) == right
    assert right or "of another packaging" in errors[0]
    assert found(Arrays(protocol, {"semseg": label}, count=7, usual=data.usual)) == []  # too few to tell


def mostly(main):
    return lambda rng: np.where(rng.random(SIZE) < 0.9, main, 18).astype(np.uint8)


@pytest.mark.parametrize(
    ("kind", "protocol", "usual", "other"),
    [(Cityscapes, "cityscapes-mtmamba", 0, 7), (PascalContext, "pascal-invpt", 0, 15)],
)
@problems.PACKAGINGS
def test_classes_that_nearly_every_image_has(kind, protocol, usual, other):
    protocol = get_protocol(protocol).select(["semseg"])
    known = kind.usual_classes(None)
    for main, errors in ((usual, 0), (other, 1)):
        assert len(found(Arrays(protocol, {"semseg": mostly(main)}, usual=known))) == errors


@problems.TWO_SPLITS
@pytest.mark.parametrize(
    ("first", "count", "said"),
    [
        (0, 30, "are the same picture"),  # the same names and pictures
        (1, 4, "'im1' and 'im0' are the same picture"),  # under other names
        (2, 4, "'im2' and 'im0' are the same picture"),
        (1000, 30, None),  # the same names of other pictures
    ],
)
def test_one_picture_in_two_splits(first, count, said):
    protocol = own_protocol("mine", {"depth": {}})
    depth = {"depth": metres(1, 9)}

    sets = {
        "train": Arrays(protocol, depth, count=count),
        "test": Arrays(protocol, depth, count=count, split="test", first=first),
    }
    errors = [item.text for item in judge_splits(read_splits(sets, 4)) if item.level == "error"]
    assert errors == [] if said is None else said in errors[0]


def test_scoring_on_the_training_files_themselves_is_said_and_allowed(tmp_path):
    """Who looks whether a network can overfit names one folder twice; a copy of it is an accident."""
    protocol = own_protocol("mine", {"depth": {}})

    class Filed(Arrays):
        def files_of(self, task):
            return {f"image/{name}": tmp_path / name for name in self.ids}

    def findings(*splits, kind=Filed):
        sets = {name: kind(protocol, {"depth": metres(1, 9)}, count=12, split=name) for name in splits}
        return [(item.level, item.where) for item in judge_splits(read_splits(sets, 4))]

    assert findings("train", "test") == [("warning", "train, test")]
    assert ("error", "train, test") in findings("train", "test", kind=Arrays)
    assert findings("val", "test", kind=Arrays) == [("warning", "val, test")]


@problems.PACKAGINGS
def test_ids_of_another_set_name_the_file(tmp_path):
    """459 and 60 classes in files of a task with 21, of a folder."""
    for folder in ("images", "semseg"):
        (tmp_path / folder).mkdir()
    for name, top in (("a", 20), ("b", 59)):
        cv2.imwrite(str(tmp_path / "images" / f"{name}.png"), np.zeros((*SIZE, 3), np.uint8))
        cv2.imwrite(str(tmp_path / "semseg" / f"{name}.png"), np.full(SIZE, top, np.uint8))
    names = [f"class {index}" for index in range(21)]
    data = FolderDataset(
        tmp_path, labels={"semseg": "semseg"}, protocol=own_protocol("m", {"semseg": {"class_names": names}})
    )
    assert any("b.png: class id 59 out of range" in text for text in found(data))


def at_start(**losses):
    whole = sum(losses.values())
    return {name: LossAtStart(value, 1.0, value / whole, telling=True) for name, value in losses.items()}


def judged(losses, *, weighs=True):
    items = judge_losses(losses, ["a", "b"], own=True, weighs=weighs)
    return [(item.level, item.where, item.text) for item in items]


@problems.DROWNING
@pytest.mark.parametrize(("large", "small", "share"), [(19.0, 1.0, 95), (1e4, 0.7, 100), (0.93, 0.07, 93)])
def test_a_loss_that_drowns_the_others_is_said_with_the_remedy(large, small, share):
    ((level, where, text),) = judged(at_start(a=large, b=small))
    assert (level, where) == ("warning", "loss a")
    assert f"{share}% of the sum" in text
    assert "training.init_from_data=True" in text
    assert judged(at_start(a=large, b=small), weighs=False) == []  # of gradients the scale does not matter
    assert judged(at_start(a=8.9, b=1.1)) == []


def test_a_loss_of_zero_is_an_error_where_labels_differ():
    assert judged(at_start(a=0.0, b=1.0))[0][:2] == ("error", "loss a")
    flat = {name: LossAtStart(1.0 * (name == "b"), 1.0, None, telling=False) for name in "ab"}
    assert judged(flat)[0][:2] == ("warning", "loss a")
    assert judged({"a": at_start(a=1.0)["a"]})[0][:2] == ("warning", "loss b")  # without a label


def short(folder, *options, text=discs.CONFIG):
    options = ("training.val_interval=0", "training.iterations=3", *options)
    return load_config(discs.write_config(folder, text), options)


def parts(config):
    settings = Settings.of(config)
    module = training_module(config, settings, network_of(config, settings.protocol))
    data = build_dataset("train_data", config["train_data"], settings.protocol, 0)
    return settings, module, data


def test_the_network_and_random_states_are_as_before(tmp_path):
    _, module, data = parts(short(tmp_path))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    modes = [item.training for item in module.modules()]
    state = torch.get_rng_state()
    losses = losses_at_start(module, first_images(data, 4, seed=0), "fp32")
    assert torch.equal(torch.get_rng_state(), state)
    assert [item.training for item in module.modules()] == modes
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])
    assert losses["semseg"].share + losses["depth"].share == pytest.approx(1)
    assert losses["depth"].weight == 0.5


def lines(folder):
    return (folder / "losses.jsonl").read_text()


def test_a_run_is_the_same_without_a_look(tmp_path, capsys):
    train(short(tmp_path), tmp_path / "with")
    assert "First look, train: 9 of 12 images, 32x32" in capsys.readouterr().err
    train(short(tmp_path, "training.first_look=0"), tmp_path / "without")
    assert "No first look at the data (training.first_look=0)." in capsys.readouterr().err
    assert lines(tmp_path / "with") == lines(tmp_path / "without")
    seen = json.loads((tmp_path / "with" / LOOK_FILE).read_text())
    assert set(seen["splits"]) == {"train", "val"}
    assert seen["splits"]["val"]["read"] == 7
    assert set(seen["losses"]) == set(seen["constant"]) == {"semseg", "depth"}
    assert not (tmp_path / "without" / LOOK_FILE).exists()


class Empty(discs.TinyDiscs):
    """Discs without a labelled pixel of class maps."""

    def read(self, index):
        raw = super().read(index)
        raw.labels["semseg"] = np.full_like(raw.labels["semseg"], 255)
        return raw


def test_errors_stop_before_the_first_step_or_are_said(tmp_path, capsys):
    settings, module, data = parts(short(tmp_path))
    empty = Empty(protocol=settings.protocol, split="train")
    console = messages()
    with pytest.raises(FirstLookError) as stopped:
        first_look(settings, module, {"train": empty, "val": data}, 4, tmp_path, console)
    text = str(stopped.value)
    assert "train semseg: no pixel has a label" in text
    assert "are the same picture" in text  # all findings at once
    assert 'training.first_look_errors="warn"' in text
    settings, module, _ = parts(short(tmp_path, "training.first_look_errors=warn"))
    first_look(settings, module, {"train": empty}, 4, tmp_path, console)
    assert "error: train semseg: no pixel has a label" in capsys.readouterr().err
    assert json.loads((tmp_path / LOOK_FILE).read_text())["losses"]["semseg"]["loss"] == 0


@problems.CONSTANT
def test_the_constant_row_and_the_look_are_on_by_default():
    assert EvaluationSettings().constant_predictor > 0
    assert TrainingSettings().first_look > 0
    assert spread(795, 4) == [0, 198, 397, 596]
    assert spread(3, 8) == [0, 1, 2]

"""PASCAL-Context: all five tasks from the published files, and what goes wrong with copies of it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from skimage.morphology import thin

from mtvision.data.decode import DecodeError
from mtvision.data.derive import edges_from_classes
from mtvision.data.pascal_context import PascalContext
from mtvision.data.pascal_context.labels import (
    NORMALS_CLASSES,
    human_parts_from_objects,
    read_label_map,
    read_objects,
)
from mtvision.data.pascal_context.persons import images_with_person
from mtvision.data.prepare.pascal_context import precompute_labels
from mtvision.protocols.pascal_context import voc_palette


@pytest.fixture
def root(miniature, tmp_path, monkeypatch):
    monkeypatch.setenv("MTVISION_CACHE", str(tmp_path / "cache"))
    return miniature.pascal(tmp_path / "PASCALContext")


def indices(path):
    return np.array(Image.open(path))


def test_ids_follow_the_list_and_tasks_the_protocol(root):
    data = PascalContext(root, split="train", check=False)
    assert data.ids == ["2008_000008", "2008_000002", "2010_000101"]
    assert tuple(data.read(0).labels) == ("semseg", "human_parts", "saliency", "normals", "edge")


def test_semseg_prefers_voc12_and_background_is_a_class(root):
    data = PascalContext(root, split="train", check=False)
    voc12 = data.read(1).labels["semseg"]
    assert np.array_equal(voc12, indices(root / "semseg" / "VOC12" / "2008_000002.png"))
    assert voc12[0, 0] == 255
    assert 0 in voc12
    other = data.read(2).labels["semseg"]
    assert np.array_equal(other, indices(root / "semseg" / "pascal-context" / "2010_000101.png"))


def test_human_parts_are_painted_in_file_order(root):
    parts = PascalContext(root, split="train", check=False).read(1).labels["human_parts"]
    expected = np.zeros((18, 24), np.int64)
    expected[1:4, 1:5] = 1  # head
    expected[3:8, 1:5] = 2  # the torso comes later and covers
    expected[4:6, 5:8] = 4  # lower left arm
    expected[9:11, 1:3] = 6  # right foot
    assert np.array_equal(parts, expected)


def test_quirk_09_images_without_parts_are_ignored_throughout(root):
    data = PascalContext(root, split="train", check=False)
    assert (data.read(0).labels["human_parts"] == 255).all()
    assert 0 in data.read(1).labels["human_parts"]


def test_saliency_is_strictly_above_one_half(root):
    data = PascalContext(root, split="train", check=False)
    gray = indices(root / "sal_distill" / "2008_000008.png")
    assert set(np.unique(gray)) == {0, 100, 127, 128, 255}
    assert np.array_equal(data.read(0).labels["saliency"], (gray >= 128).astype(int))


def test_normals_are_masked_by_class(root):
    assert len(NORMALS_CLASSES) == 170
    assert {284, 427} <= NORMALS_CLASSES  # person, tvmonitor
    assert 360 not in NORMALS_CLASSES  # sky
    normals = PascalContext(root, split="train", check=False).read(0).labels["normals"]
    context = read_label_map(root / "pascal-context" / "trainval" / "2008_000008.mat")
    assert np.array_equal(np.isnan(normals[..., 0]), context == 360)
    on_disk = np.array(Image.open(root / "normals_distill" / "2008_000008.png")) / 255 * 2 - 1
    keep = context != 360
    assert np.allclose(normals[keep], on_disk[keep], atol=1e-6)


def test_edges_are_the_thinned_laplacian_of_the_context_map(root):
    edge = PascalContext(root, split="train", check=False).read(0).labels["edge"]
    context = read_label_map(root / "pascal-context" / "trainval" / "2008_000008.mat")
    padded = np.pad(context, 1, mode="reflect")
    response = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:] - 4 * context
    assert np.array_equal(edge[..., 0], thin(response != 0))


def test_precomputed_labels_are_the_same(root):
    for split in ("train", "val"):
        computed = [PascalContext(root, split=split, check=False).read(i).labels for i in range(2)]
        for name in PascalContext(root, split=split, check=False).ids:
            precompute_labels((root, name))
        data = PascalContext(root, split=split, check=False)
        assert data.label_paths(data.ids[0], "edge")[0].suffix == ".png"
        for index, labels in enumerate(computed):
            for task, label in data.read(index).labels.items():
                np.testing.assert_array_equal(label, labels[task])
                assert label.dtype == labels[task].dtype
    strict = PascalContext(root, split="train", check=False, derived="compute")
    assert strict.label_paths(strict.ids[0], "edge")[0].suffix == ".mat"


def test_parts_alone_use_only_images_of_persons(root):
    data = PascalContext(root, split="train", check=False, tasks=["human_parts"])
    assert data.ids == ["2008_000002"]
    both = PascalContext(root, split="train", check=False, tasks=["human_parts", "semseg"])
    assert len(both) == 3


def test_quirk_26_nothing_is_written_into_the_data_set(root, tmp_path):
    before = sorted((path, path.stat().st_mtime_ns) for path in root.rglob("*"))
    PascalContext(root, split="val", check=False, tasks=["human_parts"])
    data = PascalContext(root, split="val", check=False)
    for index in range(len(data)):
        data[index]
    assert sorted((path, path.stat().st_mtime_ns) for path in root.rglob("*")) == before
    assert len(list((tmp_path / "cache").rglob("*.json"))) == 1


def test_quirk_26_a_shipped_list_of_categories_is_used_if_complete(root):
    ids = ["2008_000008", "2008_000002", "2010_000101"]
    path = root / "ImageSets" / "Parts" / "train.txt"
    path.parent.mkdir()
    path.write_text(json.dumps({ids[0]: [15], ids[1]: [-1], ids[2]: [3, 15]}))
    assert images_with_person(root, "train", ids) == [ids[0], ids[2]]
    path.write_text(json.dumps({ids[0]: [15]}))  # another list of ids: read the annotations instead
    assert images_with_person(root, "train", ids) == [ids[1]]


def test_quirk_24_class_lists_do_not_depend_on_the_working_folder(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert np.isfinite(PascalContext(root, split="train", check=False).read(0).labels["normals"]).any()


def test_quirk_25_runs_on_this_numpy(root):
    """`np.float` and `np.array(copy=False)` stop the published loaders here."""
    assert not hasattr(np, "float")
    assert len(PascalContext(root, split="val", check=False)[0].labels) == 5


def test_quirk_07_evaluation_edges_come_from_the_459_classes(root):
    data = PascalContext(root, split="train", check=False, tasks=["semseg"])
    assert set(np.unique(data.boundary_segmentation(0))) == {284, 360, 427}


def test_counts_are_those_of_the_paper(root):
    with pytest.raises(ValueError, match="found 3 images, the protocol has 4998"):
        PascalContext(root, split="train")
    with pytest.raises(ValueError, match="found 2 images, the protocol has 5105"):
        PascalContext(root, split="val", tasks=["human_parts"])


def test_copy_without_distilled_labels_says_which_tasks_are_off(root):
    for path in (root / "normals_distill").iterdir():
        path.unlink()
    with pytest.raises(
        FileNotFoundError, match=r"3 of 3 images.*normals_distill/ is in the original.*cannot be derived"
    ):
        PascalContext(root, split="train", check=False)
    tasks = ["semseg", "human_parts", "saliency", "edge"]
    assert len(PascalContext(root, split="train", check=False, tasks=tasks)) == 3


def test_colour_version_of_a_class_map_stops(root, miniature):
    path = root / "semseg" / "VOC12" / "2008_000002.png"
    miniature.write_png(path, np.zeros((18, 24, 3), np.uint8))
    with pytest.raises(DecodeError, match=r"2008_000002.png: the label file is a colour picture"):
        PascalContext(root, split="train", check=False)[1]


def test_mat_files_of_another_structure_stop(root):
    context = root / "pascal-context" / "trainval" / "2008_000008.mat"
    savemat(context, {"labels": np.zeros((18, 24))})
    data = PascalContext(root, split="train", check=False)
    with pytest.raises(ValueError, match=r"2008_000008.mat: has no variable 'LabelMap'"):
        data[0]
    savemat(context, {"LabelMap": np.full((18, 24), 460)})
    with pytest.raises(ValueError, match=r"holds ids 460..460, expected 0..459"):
        data[0]
    context.write_bytes(b"MATLAB 5.0")
    with pytest.raises(ValueError, match="not a readable MATLAB file"):
        data[0]
    parts = root / "human_parts" / "2008_000002.mat"
    savemat(parts, {"anno": np.zeros((3, 3))})
    with pytest.raises(ValueError, match=r"2008_000002.mat: 'anno' is not PASCAL-Part's structure"):
        data[1]


def test_resized_normals_stop(root, miniature):
    miniature.write_png(root / "normals_distill" / "2008_000008.png", np.zeros((36, 48, 3), np.uint8))
    with pytest.raises(DecodeError, match=r"normals are 36x48 but the classes.*18x24"):
        PascalContext(root, split="train", check=False)[0]


def test_unknown_part_and_wrong_mask_size_stop(tmp_path, miniature):
    size = (6, 8)
    mask = miniature.box(size, 0, 0, 3, 3)
    objects = miniature.part_objects([("person", 15, mask, [("wing", mask)])])
    miniature.save_parts(tmp_path / "a.mat", objects)
    with pytest.raises(ValueError, match="unknown part 'wing'"):
        human_parts_from_objects(read_objects(tmp_path / "a.mat"), size, "a.mat")
    miniature.save_parts(tmp_path / "b.mat", miniature.part_objects([("person", 15, mask, [("head", mask)])]))
    with pytest.raises(ValueError, match=r"mask of part 'head' has size \(6, 8\)"):
        human_parts_from_objects(read_objects(tmp_path / "b.mat"), (9, 9), "b.mat")


@pytest.mark.parametrize(("folder", "count"), [("voc_samples", 21), ("person_part_samples", 7)])
def test_real_palette_files_decode_to_ids(real_data, root, folder, count):
    """Index files as PASCAL VOC ships them: the ids of the colours that a viewer shows."""
    for path in sorted((real_data / folder).glob("*.png")):
        (root / "semseg" / "VOC12" / "2008_000002.png").write_bytes(path.read_bytes())
        (root / "JPEGImages" / "2008_000002.jpg").write_bytes(path.with_suffix(".jpg").read_bytes())
        label = PascalContext(root, split="train", check=False, tasks=["semseg"])[1].labels["semseg"].numpy()
        assert set(np.unique(label)) <= set(range(count)) | {255}
        colours = np.array(Image.open(path).convert("RGB"))
        palette = np.array([*voc_palette(count), (224, 224, 192)])  # the last is VOC's colour of 255
        assert np.array_equal(palette[np.minimum(label, count)], colours)


def test_edges_of_a_real_map_are_one_pixel_wide(real_data):
    path = real_data / "person_part_samples" / "2008_002176.png"
    label = np.array(Image.open(path).convert("L")).astype(np.int64)
    edge = edges_from_classes(label)[..., 0]
    blocks = edge[:-1, :-1] + edge[1:, :-1] + edge[:-1, 1:] + edge[1:, 1:]
    assert 0.005 < edge.mean() < 0.1
    assert (blocks == 4).sum() == 0  # no 2x2 block is full

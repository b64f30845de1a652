"""FolderDataset on miniature folders: every encoding by known pixels, every mistake by its message."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from skimage.morphology import thin as slow_thin

from mtvision.core.instances import encode_instances
from mtvision.core.naming import UnknownNameError
from mtvision.core.registry import DATASETS
from mtvision.core.sample import collate
from mtvision.core.task import IGNORE
from mtvision.data.decode import DecodeError
from mtvision.data.derive import boundaries_from_classes, edges_from_classes, thin, without_void
from mtvision.data.folder import FolderDataset
from mtvision.protocols import own_protocol

H, W = 12, 16
RNG = np.random.default_rng(0)
TASKS = {"semseg": {"class_names": ["a", "b", "c"]}, "depth": {}, "normals": {}, "edge": {}, "saliency": {}}
PROTOCOL = own_protocol("own", TASKS)
ONE = own_protocol("one", {"semseg": TASKS["semseg"]})


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, array)
    else:
        Image.fromarray(array).save(path)


@pytest.fixture
def root(tmp_path):
    for name in ("p", "q", "sub/r"):
        save(tmp_path / f"images/{name}.png", RNG.integers(0, 256, (H, W, 3)).astype(np.uint8))
        save(tmp_path / f"semseg/{name}.png", RNG.integers(0, 3, (H, W)).astype(np.uint8))
    return tmp_path


def one(root, label, task="semseg", **options):
    """The label of image `p` as read from disk."""
    protocol = own_protocol("x", {task: TASKS[task]})
    dataset = FolderDataset(root, labels={task: label}, protocol=protocol, **options)
    return dataset.read(dataset.ids.index("p")).labels[task]


def only_p(root, folder, array, suffix=".png"):
    for name in ("p", "q", "sub/r"):
        save(root / folder / f"{name}{suffix}", array)


def test_ids_labels_and_subfolders(root):
    dataset = FolderDataset(root, labels={"semseg": "semseg"}, protocol=ONE)
    assert dataset.ids == ["p", "q", "sub/r"]
    for index, name in enumerate(dataset.ids):
        raw = dataset.read(index)
        np.testing.assert_array_equal(raw.labels["semseg"], np.array(Image.open(root / f"semseg/{name}.png")))
        np.testing.assert_array_equal(raw.image, np.array(Image.open(root / f"images/{name}.png")))
        assert dataset.source(index, "semseg") == str(root / f"semseg/{name}.png")
        assert dataset.source(index) == str(root / f"images/{name}.png")
    assert len(dataset.files()) == 6


def test_class_maps(root):
    ids = np.array(Image.open(root / "semseg/p.png"))
    only_p(root, "void", np.where(ids == 2, 11, ids).astype(np.uint8))
    expected = np.where(ids == 2, IGNORE, ids)
    np.testing.assert_array_equal(one(root, {"folder": "void", "ignore": [11]}), expected)
    only_p(root, "mapped", (ids.astype(np.uint16) * 100 + 7))
    mapped = one(root, {"folder": "mapped", "ids": {"7": 2, 107: 1}, "ignore": [207]})
    np.testing.assert_array_equal(mapped, np.choose(ids, [2, 1, IGNORE]))
    only_p(root, "floats", ids.astype(np.float32) - 1, ".npy")
    negative = one(root, {"folder": "floats", "ignore": [-1]})
    np.testing.assert_array_equal(negative, np.choose(ids, [IGNORE, 0, 1]))


def test_depth(root):
    only_p(root, "millimetres", np.full((H, W), 1500, np.uint16))
    depth = one(root, {"folder": "millimetres", "scale": 1000}, "depth")
    assert depth.shape == (H, W, 1)
    assert (depth == 1.5).all()
    metres = np.full((H, W), 2.0)
    metres[0, :3] = (0, np.inf, -1)
    only_p(root, "metres", metres, ".npy")
    depth = one(root, "metres", "depth")
    assert np.isnan(depth[0, :3]).all()
    assert (depth[1:] == 2).all()


def test_normals(root):
    vectors = np.tile(np.float32([0.0, 0.6, 0.8]), (H, W, 1))
    vectors[0, 0] = 0
    only_p(root, "n", vectors, ".npy")
    normals = one(root, "n", "normals")
    assert np.isnan(normals[0, 0]).all()
    np.testing.assert_allclose(normals[1, 1], [0, 0.6, 0.8])
    swapped = one(root, {"folder": "n", "axes": ["-x", "z", "y"]}, "normals")
    np.testing.assert_allclose(swapped[1, 1], [0, 0.8, 0.6])
    only_p(root, "bytes", np.full((H, W, 3), 255, np.uint8))
    assert (one(root, "bytes", "normals") == 1).all()


def test_edge_and_saliency(root):
    gray = np.zeros((H, W), np.uint8)
    gray[3:5] = 255
    only_p(root, "gray", gray)
    np.testing.assert_array_equal(one(root, "gray", "edge")[..., 0], gray / 255)
    mask = one(root, {"folder": "gray", "encoding": "mask"}, "saliency")
    np.testing.assert_array_equal(mask, gray // 255)
    with pytest.raises(DecodeError, match=r"gray/p.png: holds 255 and no 1.*encoding='mask'.*encoding='ids'"):
        one(root, "gray", "saliency")
    kept = one(root, {"folder": "gray", "encoding": "ids"}, "saliency")
    np.testing.assert_array_equal(kept, gray)


def test_derived_edges(root):
    protocol = own_protocol("two", {"semseg": TASKS["semseg"], "edge": {}})
    labels = {"semseg": "semseg", "edge": {"derive": "edges_from_classes", "source": "semseg"}}
    raw = FolderDataset(root, labels=labels, protocol=protocol).read(0)
    np.testing.assert_array_equal(raw.labels["edge"], edges_from_classes(raw.labels["semseg"]))
    alone = FolderDataset(root, labels=labels, protocol=protocol, tasks=["edge"])
    assert list(alone.read(0).labels) == ["edge"]  # the source is read, not returned
    assert "edges_from_classes of" in alone.source(0, "edge")
    np.testing.assert_array_equal(alone.read(0).labels["edge"], raw.labels["edge"])


def test_derivations_by_hand():
    label = np.zeros((5, 6), np.uint8)
    label[:, 3:] = 1
    border = boundaries_from_classes(label)[..., 0]
    assert border.sum(axis=0).tolist() == [0, 0, 5, 0, 0, 0]
    edges = edges_from_classes(label)[..., 0]
    assert edges.sum() == pytest.approx(5, abs=1)  # two columns thinned to one
    assert edges[:, [0, 1, 4, 5]].sum() == 0
    label[0, 0] = IGNORE
    assert np.isnan(without_void(edges[..., None], label)[:2, :2]).all()
    assert np.isfinite(without_void(edges[..., None], label)[2:, 2:]).all()
    ramp = np.repeat(np.arange(3, dtype=np.uint8), 2)[None].repeat(4, axis=0)[:, [0, 2, 4]]  # columns 0, 1, 2
    assert edges_from_classes(ramp).sum() < 12  # the Laplacian of a ramp is zero: a quirk, copied


def test_thinning_equals_scikit_image():
    for seed in range(60):
        rng = np.random.default_rng(seed)
        mask = rng.random(tuple(rng.integers(1, 30, 2))) < rng.random()
        np.testing.assert_array_equal(thin(mask), slow_thin(mask))


def test_partial_labels(root):
    (root / "semseg/q.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"semseg/q.png.*missing, and 0 others of 3.*partial=True"):
        FolderDataset(root, labels={"semseg": "semseg"}, protocol=ONE)
    dataset = FolderDataset(root, labels={"semseg": "semseg"}, protocol=ONE, partial=True)
    assert [list(dataset.read(k).labels) for k in range(3)] == [["semseg"], [], ["semseg"]]
    batch = collate([dataset[0], dataset[1]])
    assert batch.present["semseg"].tolist() == [True, False]


def test_several_roots(root):
    other = root / "second"
    save(other / "images/p.png", np.zeros((H, W, 3), np.uint8))
    save(other / "semseg/p.png", np.zeros((H, W), np.uint8))
    joined = FolderDataset([root, other], labels={"semseg": "semseg"}, protocol=ONE)
    assert joined.ids == [f"{root.name}/p", f"{root.name}/q", f"{root.name}/sub/r", "second/p"]
    assert (joined.read(3).image == 0).all()
    with pytest.raises(ValueError, match="a root occurs twice"):
        FolderDataset([root, root], labels={"semseg": "semseg"}, protocol=ONE)


def test_lists_of_ids_and_splits(root):
    (root / "lists").mkdir()
    (root / "lists/val.txt").write_text("q\np\n")
    labels = {"semseg": "semseg"}
    listed = FolderDataset(root, labels=labels, protocol=ONE, ids="lists/{split}.txt", split="val")
    assert listed.ids == ["q", "p"]
    assert FolderDataset(root, labels=labels, protocol=ONE, ids=["sub/r"]).ids == ["sub/r"]
    with pytest.raises(FileNotFoundError, match=r"train.txt: no such list"):
        FolderDataset(root, labels=labels, protocol=ONE, ids="lists/{split}.txt")
    with pytest.raises(FileNotFoundError, match=r"names 'nobody', but .*1 of 2 are missing"):
        FolderDataset(root, labels=labels, protocol=ONE, ids=["p", "nobody"])
    with pytest.raises(ValueError, match="'p' occurs twice"):
        FolderDataset(root, labels=labels, protocol=ONE, ids=["p", "p"])


def test_suffixes(tmp_path):
    save(tmp_path / "all/x_rgb.png", np.zeros((H, W, 3), np.uint8))
    save(tmp_path / "all/x_ids.png", np.zeros((H, W), np.uint8))
    dataset = FolderDataset(
        tmp_path,
        images="all",
        image_suffix="_rgb.png",
        labels={"semseg": {"folder": "all", "suffix": "_ids.png"}},
        protocol=ONE,
    )
    assert dataset.ids == ["x"]


@pytest.mark.parametrize("suffix", ["_mask.png", ".jpg.png", "-gt.png"])
def test_a_suffix_that_labels_have_is_proposed(root, suffix):
    for name in ("p", "q", "sub/r"):
        (root / f"semseg/{name}.png").rename(root / f"semseg/{name}{suffix}")
    with pytest.raises(FileNotFoundError, match=rf"'p{suffix}' is there; .* say suffix='{suffix}'"):
        one(root, "semseg")
    assert one(root, {"folder": "semseg", "suffix": suffix}).shape == (H, W)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n"


@pytest.mark.parametrize("ending", [".png", ".npy", ".npz", ".tif"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (POINTER, "a pointer of Git LFS instead of the file. Run `git lfs pull`"),
        (b"/annex/objects/SHA256E-s9--0.png\n", "a pointer of git-annex .* `git annex get .`"),
        (b"\xef\xbb\xbf\r\n<html><body>404</body></html>", "a web page instead of the file"),
    ],
)
def test_pointers_and_web_pages_are_named(root, content, words, ending):
    (root / "semseg/p.png").rename(root / f"semseg/p{ending}")
    (root / f"semseg/p{ending}").write_bytes(content)
    with pytest.raises(DecodeError, match=rf"p{ending}: {words}"):
        one(root, "semseg")
    (root / "images/p.png").write_bytes(content)
    with pytest.raises(DecodeError, match=rf"images/p.png: {words}"):
        one(root, "semseg")


def test_mistakes_in_the_files(root):
    labels = {"semseg": "semseg"}
    save(root / "semseg/p.png", np.full((H, W), 9, np.uint8))
    with pytest.raises(ValueError, match=r"semseg/p.png: class id 9 out of range; semseg has the ids 0..2"):
        FolderDataset(root, labels=labels, protocol=ONE)[0]
    save(root / "semseg/p.png", np.zeros((H + 1, W), np.uint8))
    with pytest.raises(ValueError, match=r"semseg/p.png: the semseg label is 13x16"):
        FolderDataset(root, labels=labels, protocol=ONE)[0]
    content = (root / "images/q.png").read_bytes()
    (root / "images/q.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(DecodeError, match=r"images/q.png: the file is truncated"):
        FolderDataset(root, labels=labels, protocol=ONE)[1]
    save(root / "semseg/q.npy", np.zeros((H, W), np.uint8))
    with pytest.raises(ValueError, match=r"have the same name"):
        FolderDataset(root, labels=labels, protocol=ONE)
    only_p(root, "fractions", np.full((H, W), 0.5), ".npy")
    with pytest.raises(DecodeError, match=r"p.npy: class ids must be whole numbers"):
        one(root, "fractions")
    only_p(root, "nine", np.full((H, W), 9, np.uint8))
    with pytest.raises(
        DecodeError, match=r"nine/p.png: id 9 has no entry in ids=; add it there or to ignore="
    ):
        one(root, {"folder": "nine", "ids": {0: 0}})


def test_depth_mistakes(root):
    only_p(root, "d", np.full((H, W), 100, np.uint16))
    with pytest.raises(DecodeError, match=r"d/p.png: depth in a PNG needs scale="):
        one(root, "d", "depth")
    only_p(root, "d8", np.full((H, W), 100, np.uint8))
    with pytest.raises(DecodeError, match=r"d8/p.png: the depth file has 8 bits"):
        one(root, {"folder": "d8", "scale": 1000}, "depth")
    assert np.allclose(one(root, {"folder": "d8", "scale": 1000, "bits": 8}, "depth"), 0.1)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"labels": {"semseg": "gone"}}, FileNotFoundError, r"gone: no such folder. Check root="),
        ({"images": "gone"}, FileNotFoundError, r"gone: no such folder"),
        ({"image_suffix": ".gif"}, ValueError, r"no image \(looked for .gif\)"),
        ({"labels": {}}, ValueError, r"no labels for the task semseg of protocol 'one'"),
        ({"labels": {"semsg": "semseg"}}, UnknownNameError, r"Did you mean 'semseg'"),
        ({"labels": {"semseg": {"foldr": "x"}}}, UnknownNameError, r"option of the semseg labels 'foldr'"),
        ({"labels": {"semseg": {"folder": "semseg", "scale": 2}}}, ValueError, "'scale' does not apply"),
        ({"labels": {"semseg": {}}}, ValueError, "give either folder= or derive="),
        (
            {"labels": {"semseg": {"derive": "edges_from_classes", "source": "semseg"}}},
            ValueError,
            "makes a map of 0 and 1",
        ),
        ({"root": []}, ValueError, "root is empty"),
        ({"protocol": None}, ValueError, "own_protocol"),
    ],
)
def test_mistakes_in_the_config(root, options, error, message):
    given = {"root": root, "labels": {"semseg": "semseg"}, "protocol": ONE} | options
    with pytest.raises(error, match=message):
        FolderDataset(**given)


def test_derive_mistakes(root):
    protocol = own_protocol("two", {"semseg": TASKS["semseg"], "edge": {}})

    def build(**edge):
        FolderDataset(root, labels={"semseg": "semseg", "edge": edge}, protocol=protocol)

    with pytest.raises(UnknownNameError, match="edges_from_classes"):
        build(derive="edges_from_class", source="semseg")
    with pytest.raises(ValueError, match="needs source="):
        build(derive="edges_from_classes")
    with pytest.raises(UnknownNameError, match="semseg"):
        build(derive="edges_from_classes", source="semsg")
    with pytest.raises(ValueError, match="must be a class map from files"):
        build(derive="edges_from_classes", source="edge")


def test_camvid_from_a_config_of_ten_lines(real_data):
    config = {
        "type": "FolderDataset",
        "root": str(real_data / "camvid"),
        "split": "train",
        "images": "{split}",
        "labels": {
            "semseg": {"folder": "{split}annot", "ignore": [11]},
            "edge": {"derive": "edges_from_classes", "source": "semseg"},
        },
        "transforms": "light",
    }
    names = [
        "sky",
        "building",
        "pole",
        "road",
        "sidewalk",
        "tree",
        "sign",
        "fence",
        "car",
        "pedestrian",
        "bicyclist",
    ]
    protocol = own_protocol("camvid", {"semseg": {"class_names": names}, "edge": {}})
    train = DATASETS.build(config, protocol=protocol, seed=0)
    val = DATASETS.build({**config, "split": "val", "transforms": "tensor"}, protocol=protocol, seed=0)
    assert (len(train), len(val)) == (72, 36)
    batch = collate([train[0], train[1]])
    assert tuple(batch.image.shape) == (2, 3, 360, 480)
    assert set(batch.labels["semseg"].unique().tolist()) <= {*range(11), IGNORE}
    sample = val[5]
    void = (sample.labels["semseg"] == IGNORE).float().mean()
    assert 0 < void < 0.2
    assert 0.005 < sample.labels["edge"].mean() < 0.06


def test_instances(root):
    """Ids of `encode_instances` in 16-bit PNGs and NumPy files; anything else names the file."""
    classes, ids = np.full((H, W), -1), np.zeros((H, W), dtype=int)
    classes[:4], classes[6:9], ids[:4, 8:] = 1, 0, 7
    label = encode_instances(classes, ids)
    task = {"instance": {"class_names": ["cat", "dog"]}}
    for folder, suffix, stored in (("i", ".png", label.astype(np.uint16)), ("n", ".npy", label)):
        only_p(root, folder, stored, suffix)
        dataset = FolderDataset(root, labels={"instance": folder}, protocol=own_protocol("x", task))
        read = dataset.read(0).labels["instance"]
        np.testing.assert_array_equal(read, label)
        assert set(np.unique(read)) == {0, 256, 512, 513}
    only_p(root, "f", label.astype(np.float32), ".npy")
    dataset = FolderDataset(root, labels={"instance": "f"}, protocol=own_protocol("x", task))
    with pytest.raises(DecodeError, match=r"f/p.npy: instances are an integer map .* found float32"):
        dataset.read(0)


@pytest.mark.parametrize("prefix", ["depth_gt_", "d", "caf\u00e9 "])
def test_labels_named_after_a_prefix(prefix, tmp_path):
    for name in ("a", "sub/b"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.zeros((H, W, 3), np.uint8)).save(f"{path}.png")
        label = np.full((H, W), 1500, np.uint16)
        Image.fromarray(label).save(path.with_name(f"{prefix}{path.name}.png"))
    options = {"images": ".", "protocol": own_protocol("x", {"depth": {}})}
    depth = {"folder": ".", "prefix": prefix, "scale": 1000}
    dataset = FolderDataset(tmp_path, ids=["a", "sub/b"], labels={"depth": depth}, **options)
    assert float(dataset.read(1).labels["depth"].mean()) == 1.5
    assert dataset.parameters()["prefix"] == {"depth": prefix}
    depth["prefix"] = f"x{prefix}"
    with pytest.raises(FileNotFoundError, match=rf"sub/x{prefix}b.png \(or .*this depth label is missing"):
        FolderDataset(tmp_path, ids=["sub/b"], labels={"depth": depth}, **options)


@pytest.mark.parametrize(
    ("ids", "expected"),
    [(["b*"], ["b1", "b2"]), (["sub/*", "a"], ["sub/b3", "a"]), (["*b*3", "b1"], ["sub/b3", "b1"])],
)
def test_patterns_of_ids(ids, expected, tmp_path):
    for folder in ("images", "semseg"):
        (tmp_path / folder / "sub").mkdir(parents=True)
        for name in ("a", "b1", "b2", "sub/b3"):
            Image.fromarray(np.zeros((H, W), np.uint8)).save(tmp_path / folder / f"{name}.png")
    options = {
        "labels": {"semseg": "semseg"},
        "protocol": own_protocol("x", {"semseg": {"class_names": ["a", "b"]}}),
    }
    assert FolderDataset(tmp_path, ids=ids, **options).ids == expected
    with pytest.raises(ValueError, match=r"ids=\['z\*'\]: no image matches; there are 4: 'a', 'b1', 'b2'"):
        FolderDataset(tmp_path, ids=["z*"], **options)
    with pytest.raises(ValueError, match="b1"):
        FolderDataset(tmp_path, ids=["b*", "b1"], **options)

"""What a stored number means is decided by the content of the set: every pair of levels, format and width."""

from __future__ import annotations

from pathlib import Path

import cv2
import data_problems as problems
import numpy as np
import pytest
import tifffile
from PIL import Image

from mtvision.data.decode import DecodeError
from mtvision.data.maps.encoding import decide, decide_files
from mtvision.data.maps.evidence import measure
from mtvision.data.maps.files import Storage, read_map
from mtvision.data.maps.options import MapOptions
from mtvision.protocols import own_protocol
from mtvision.protocols.entries import build_task
from mtvision.protocols.tasks import edge, saliency

H, W = 12, 16
RNG = np.random.default_rng(0)
MASKS = [RNG.random((H, W)) < share for share in (0.1, 0.3, 0.5)]
SOFT = [RNG.integers(0, 256, (H, W)).astype(np.uint8) for _ in range(3)]
EDGE, SALIENCY, DEPTH, NORMALS = edge(), saliency(), build_task("depth"), build_task("normals")
TWO = build_task("semseg", class_names=["a", "b"])
MANY = build_task("semseg", class_names=["a", "b", "c", "d"])


def store(path, array):
    """Write an array; `.1.png` has one bit, `.p.png` a palette, `.c.png` colours."""
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".npz":
        np.savez(path, array)
    elif path.suffix in (".tif", ".tiff"):
        tifffile.imwrite(path, array, photometric="rgb" if array.ndim == 3 else "minisblack")
    elif path.suffix == ".pfm":
        cv2.imwrite(str(path), array.astype(np.float32))
    elif path.name.endswith(".1.png"):
        Image.fromarray(array.astype(bool)).save(path)
    elif path.name.endswith(".p.png"):
        picture = Image.fromarray(array, mode="P")
        picture.putpalette([(7 * index) % 256 for index in range(768)])
        picture.save(path)
    elif path.name.endswith(".c.png"):
        Image.fromarray(np.repeat(array[..., None], 3, axis=2)).save(path)
    else:
        Image.fromarray(array).save(path, **({"quality": 60} if path.suffix in (".jpg", ".webp") else {}))
    return path


def files(folder, ending, arrays):
    folder.mkdir(exist_ok=True)
    return [store(folder / f"{index}{ending}", array) for index, array in enumerate(arrays)]


def decided(task, paths, **options):
    return decide_files(task, paths, MapOptions.of(options, task, "the test"))


def levels(low, high, kind):
    return [np.where(mask, high, low).astype(kind) for mask in MASKS]


TWO_LEVELS = {
    "8-bit 0/1": (".png", levels(0, 1, np.uint8)),
    "8-bit 0/255": (".png", levels(0, 255, np.uint8)),
    "8-bit 0/128": (".png", levels(0, 128, np.uint8)),
    "1 bit": (".1.png", levels(0, 1, np.uint8)),
    "palette": (".p.png", levels(0, 1, np.uint8)),
    "gray stored as RGB": (".c.png", levels(0, 255, np.uint8)),
    "BMP": (".bmp", levels(0, 1, np.uint8)),
    "16-bit 0/1": (".png", levels(0, 1, np.uint16)),
    "16-bit 0/255": (".png", levels(0, 255, np.uint16)),
    "16-bit 0/65535": (".png", levels(0, 65535, np.uint16)),
    "TIFF 0/255": (".tif", levels(0, 255, np.uint8)),
    "TIFF 16-bit 0/1": (".tiff", levels(0, 1, np.uint16)),
    "TIFF of real numbers": (".tif", levels(0, 1, np.float32)),
    "PFM": (".pfm", levels(0, 1, np.float32)),
    "NPY of Booleans": (".npy", levels(0, 1, bool)),
    "NPY uint8 0/255": (".npy", levels(0, 255, np.uint8)),
    "NPY int64 0/255": (".npy", levels(0, 255, np.int64)),
    "NPY int32 0/1": (".npy", levels(0, 1, np.int32)),
    "NPY float64 0/1": (".npy", levels(0, 1, np.float64)),
    "NPY float32 0/255": (".npy", levels(0, 255, np.float32)),
    "NPZ": (".npz", levels(0, 1, np.uint8)),
}


@pytest.mark.parametrize("name", TWO_LEVELS)
@problems.EDGE_LEVELS
def test_edges_of_two_levels_become_0_and_1(name, tmp_path):
    ending, arrays = TWO_LEVELS[name]
    paths = files(tmp_path, ending, arrays)
    encoding = decided(EDGE, paths)
    for path, mask in zip(paths, MASKS, strict=True):
        label = encoding.read(path)
        assert label.dtype == np.float32
        np.testing.assert_array_equal(label[..., 0], mask)
    assert len(encoding.describe()) == 1
    assert "→" in encoding.describe()[0]


@pytest.mark.parametrize("name", TWO_LEVELS)
@pytest.mark.parametrize("task", [SALIENCY, TWO], ids=lambda task: task.name)
@problems.MASK_LEVELS
def test_classes_of_two_levels_are_read_or_refused(name, task, tmp_path):
    """0 and 255 may mean two classes, or one class and no label: that is refused, and nothing else."""
    ending, arrays = TWO_LEVELS[name]
    paths = files(tmp_path, ending, arrays)
    top = max(int(array.max()) for array in arrays)
    if top == 255:
        with pytest.raises(DecodeError, match=r"0\..*holds 255 and no 1.*encoding='mask'.*encoding='ids'"):
            decided(task, paths)
        kept = decided(task, paths, encoding="ids").read(paths[0])
        np.testing.assert_array_equal(kept, np.where(MASKS[0], 255, 0))
    for options in ({"encoding": "mask"}, *([] if top == 255 else [{}])):
        for path, mask in zip(paths, MASKS, strict=True):
            np.testing.assert_array_equal(decided(task, paths, **options).read(path), mask)


SOFT_MAPS = {
    "8 bits": (".png", SOFT, 255),
    "16 bits": (".png", [item.astype(np.uint16) * 257 for item in SOFT], 65535),
    "8 bits in 16": (".tif", [item.astype(np.uint16) for item in SOFT], 255),
    "int64": (".npy", [item.astype(np.int64) for item in SOFT], 255),
    "real": (".npy", [item / 255 for item in SOFT], 1),
    "real 0..255": (".npz", [item.astype(np.float32) for item in SOFT], 255),
    "half": (".npy", [(item / 255).astype(np.float16) for item in SOFT], 1),
    "TIFF": (".tif", [(item / 255).astype(np.float32) for item in SOFT], 1),
}


@pytest.mark.parametrize("name", SOFT_MAPS)
@problems.SOFT_MAPS
def test_soft_maps_become_shares(name, tmp_path):
    ending, arrays, top = SOFT_MAPS[name]
    paths = files(tmp_path, ending, arrays)
    encoding = decided(EDGE, paths)
    for path, array in zip(paths, arrays, strict=True):
        np.testing.assert_allclose(encoding.read(path)[..., 0], array.astype(np.float64) / top, atol=1e-6)
    if top == 1:  # soft saliency is cut at one half, and that is said
        cut = decided(SALIENCY, paths)
        np.testing.assert_array_equal(cut.read(paths[0]), arrays[0] > 0.5)
        assert "above 0.5 = saliency" in cut.describe()[0]
    else:
        with pytest.raises(DecodeError, match="expected two levels. Say encoding='mask'"):
            decided(SALIENCY, paths)


REFUSED = {
    "annotators counted": (EDGE, ".png", [item % 6 for item in SOFT], "largest number in 3 files is 5"),
    "per cent": (EDGE, ".npy", [item % 101 for item in SOFT], "is 100, so it is not known what means 1"),
    "12 bits": (EDGE, ".png", [item.astype(np.uint16) * 16 for item in SOFT], "is 4080, so it is not known"),
    "logits": (EDGE, ".npy", [item - 100.0 for item in SOFT], "probabilities in 0..1.*Apply the sigmoid"),
    "0..2": (EDGE, ".npy", [item / 100 for item in SOFT], "is 2.5"),
    "both 0/1 and 0/255": (
        EDGE,
        ".png",
        [MASKS[0].astype(np.uint8), *levels(0, 255, np.uint8)],
        "1 of 4 files hold 0 and 1 and nothing else",
    ),
    "0, 1 and 255": (
        EDGE,
        ".png",
        [np.where(soft < 20, 255, mask).astype(np.uint8) for soft, mask in zip(SOFT, MASKS, strict=True)],
        "255 stands apart. Say ignore=255",
    ),
    "annotators and 255": (
        EDGE,
        ".npy",
        [np.where(item < 20, 255, item % 6) for item in SOFT],
        "stands apart",
    ),
    "trimap": (SALIENCY, ".png", [item // 86 for item in SOFT], "expected two levels"),
    "classes 1 and 2": (TWO, ".png", levels(1, 2, np.uint8), "found 8-bit PNG holding 1 and 2"),
    "-1 and 1": (SALIENCY, ".npy", levels(-1, 1, np.int64), "Map the numbers to class ids with ids="),
    "millimetres": (DEPTH, ".npy", [item.astype(np.int32) * 20 for item in SOFT], "need scale="),
    "real millimetres": (DEPTH, ".npy", [item * 20.0 for item in SOFT], "are no metres. Say scale="),
    "fractions of millimetres": (
        DEPTH,
        ".tif",
        [(item * 20.3 + 0.5).astype("f4") for item in SOFT],
        "no metres",
    ),
    "depth in JPEG": (DEPTH, ".jpg", SOFT, "must be stored without loss, found 8-bit JPEG"),
    "ids in JPEG": (MANY, ".jpg", [item % 4 for item in SOFT], "JPEG changes ids"),
    "half a depth PNG": (DEPTH, ".png", SOFT, "needs scale="),
}


SAID = [
    (problems.SOFT_TOPS, ["annotators", "0, 1 and 255", "per cent", "12 bits", "logits", "0..2", "both"]),
    (problems.LOSSY, ["depth in JPEG", "ids in JPEG"]),
    (problems.DEPTH_UNITS, ["millimetres", "real milli", "fractions", "half a depth"]),
]


@pytest.mark.parametrize("name", problems.marked(REFUSED, SAID))
def test_what_cannot_be_told_is_refused_with_the_option(name, tmp_path):
    task, ending, arrays, words = REFUSED[name]
    paths = files(tmp_path, ending, arrays)
    with pytest.raises(DecodeError, match=words) as caught:
        decided(task, paths).read(paths[0])
    assert str(paths[0]) in str(caught.value)


def test_a_mark_for_no_label_beside_0_and_1(tmp_path):
    marked = np.where(SOFT[0] < 20, 255, MASKS[0]).astype(np.uint8)
    (path,) = files(tmp_path, ".png", [marked])
    found = decide_files(EDGE, [path], MapOptions(ignore=255)).read(path)[..., 0]
    np.testing.assert_array_equal(found, np.where(marked == 255, np.nan, MASKS[0]))


def test_options_settle_what_was_refused(tmp_path):
    counted = files(tmp_path, ".png", [item % 6 for item in SOFT])
    np.testing.assert_allclose(
        decided(EDGE, counted, scale=5).read(counted[0])[..., 0], SOFT[0] % 6 / 5, atol=1e-6
    )
    mixed = files(tmp_path / "mixed", ".png", [MASKS[0].astype(np.uint8), SOFT[1]])
    share = decided(EDGE, mixed, encoding="share").read(mixed[0])
    np.testing.assert_allclose(share[..., 0], MASKS[0] / 255, atol=1e-7)
    depth = files(tmp_path / "depth", ".npy", [item.astype(np.int32) * 20 for item in SOFT])
    read = decided(DEPTH, depth, scale=1000).read(depth[0])
    np.testing.assert_allclose(read[..., 0], np.where(SOFT[0], SOFT[0] / 50, np.nan), rtol=1e-6)


@pytest.mark.parametrize("ending", [".jpg", ".webp"])
@problems.LOSSY
def test_masks_with_ringing_are_cut(ending, tmp_path):
    square = np.zeros((64, 64), dtype=np.uint8)
    square[13:45, 6:37] = 255
    paths = files(tmp_path, ending, [square, square.T.copy()])
    assert len(np.unique(read_map(paths[0]).values)) > 2
    for task in (SALIENCY, TWO):
        np.testing.assert_array_equal(decided(task, paths).read(paths[0]), square // 255)
    edges = decided(EDGE, paths, encoding="mask").read(paths[1])
    np.testing.assert_array_equal(edges[..., 0], square.T // 255)


def test_antialiased_masks_are_cut_and_said(tmp_path):
    large = np.zeros((96, 96), dtype=np.uint8)
    large[20:70, 20:70] = 255
    large[20, 20:70] = large[69, 20:70] = 140
    paths = files(tmp_path, ".png", [large])
    encoding = decided(SALIENCY, paths)
    np.testing.assert_array_equal(encoding.read(paths[0]), large > 127.5)
    assert "above 127.5" in encoding.describe()[0]


def test_a_later_file_that_contradicts_is_named(tmp_path):
    paths = files(tmp_path, ".png", levels(0, 1, np.uint8))
    encoding = decided(EDGE, paths)
    other = store(tmp_path / "other.png", SOFT[0])
    with pytest.raises(DecodeError, match=r"other.png: holds .*, but .* are 8-bit PNG holding 0 and 1"):
        encoding.read(other)
    wide = store(tmp_path / "wide.png", levels(0, 1, np.uint16)[0])
    with pytest.raises(DecodeError, match=r"wide.png: found 16-bit PNG, but .* are 8-bit PNG"):
        encoding.read(wide)
    real = decided(EDGE, files(tmp_path / "real", ".npy", [item / 255 for item in SOFT]))
    outside = store(tmp_path / "outside.npy", SOFT[0] / 100)
    with pytest.raises(DecodeError, match=r"outside.npy: holds "):
        real.read(outside)
    nothing = decided(EDGE, files(tmp_path / "nothing", ".png", [np.zeros((H, W), np.uint8)] * 3))
    with pytest.raises(DecodeError, match=r"other.png: holds .* holding 0\."):
        nothing.read(other)


RARE = {
    "8-bit 0/255": (".png", 255, np.uint8),
    "8-bit 0/1": (".png", 1, np.uint8),
    "16-bit 0/65535": (".png", 65535, np.uint16),
    "NPY 0/255": (".npy", 255, np.int64),
    "TIFF 0/1": (".tif", 1, np.uint16),
}


@pytest.mark.parametrize("name", RARE)
@pytest.mark.parametrize("task", [SALIENCY, EDGE], ids=lambda task: task.name)
@problems.RARE_STORAGE
def test_a_few_masks_of_another_storage_among_many(task, name, tmp_path):
    """A sample does not find them. With `encoding="mask"` their levels come from the file itself."""
    paths = files(tmp_path, ".1.png", levels(0, 1, np.uint8))
    ending, top, kind = RARE[name]
    rare, empty = files(tmp_path / "rare", ending, [levels(0, top, kind)[0], np.zeros((H, W), kind)])
    encoding = decided(task, paths, encoding="mask")
    np.testing.assert_array_equal(encoding.read(rare).reshape(H, W), MASKS[0])
    assert encoding.read(empty).max() == 0
    with pytest.raises(DecodeError, match=r"found .*, but the files that were looked at are 1-bit PNG"):
        decided(task, paths).read(rare)


def unit_vectors():
    vectors = RNG.normal(size=(40, 50, 3))
    return vectors / np.linalg.norm(vectors, axis=2, keepdims=True)


@pytest.mark.parametrize(
    ("ending", "stored"),
    [
        (".png", lambda v: np.round((v + 1) / 2 * 255).astype(np.uint8)),
        (".tif", lambda v: np.round((v + 1) / 2 * 255).astype(np.uint8)),
        (".tif", lambda v: np.round((v + 1) / 2 * 65535).astype(np.uint16)),
        (".npy", lambda v: np.round((v + 1) / 2 * 255).astype(np.uint8)),
        (".npy", lambda v: np.round((v + 1) / 2 * 255).astype(np.int64)),
        (".npy", lambda v: v),
        (".npz", lambda v: v.astype(np.float16)),
    ],
)
def test_directions(ending, stored, tmp_path):
    vectors = unit_vectors()
    paths = files(tmp_path, ending, [stored(vectors)])
    np.testing.assert_allclose(decided(NORMALS, paths).read(paths[0]), vectors, atol=0.005)


@pytest.mark.parametrize("top", [1, 255])
@problems.NORMALS_SHIFTED
def test_directions_that_are_shifted_in_real_numbers_are_refused(top, tmp_path):
    vectors = unit_vectors()
    paths = files(tmp_path, ".npy", [(vectors + 1) / 2 * top])
    with pytest.raises(DecodeError, match="encoding='shifted'"):
        decided(NORMALS, paths)
    read = decided(NORMALS, paths, encoding="shifted").read(paths[0])
    np.testing.assert_allclose(read, vectors, atol=0.01)


def test_unit_vectors_without_negative_parts_stay(tmp_path):
    paths = files(tmp_path, ".npy", [np.abs(unit_vectors())])
    assert "→ v" in decided(NORMALS, paths).describe()[0]


def test_invalid_values_and_colours(tmp_path):
    millimetres = (SOFT[0].astype(np.uint16) + 1) * 20
    millimetres[0, :4] = 65535
    paths = files(tmp_path / "d", ".png", [millimetres])
    raw = decided(DEPTH, paths, scale=1000)
    assert "65535 covers 2.1% of the pixels" in raw.doubts[0]
    assert "invalid=[65535]" in raw.doubts[0]
    for name in ("invalid", "ignore"):
        settled = decided(DEPTH, paths, scale=1000, **{name: 65535})
        assert settled.doubts == ()
        assert np.isnan(settled.read(paths[0])[0, :4]).all()
        assert np.nanmax(settled.read(paths[0])) < 6
    colours = np.round((unit_vectors() + 1) / 2 * 255).astype(np.uint8)
    for place, colour in enumerate([(0, 0, 0), (128, 128, 128)]):
        marked = colours.copy()
        marked[:6] = colour
        paths = files(tmp_path / f"n{place}", ".png", [marked])
        assert str(colour) in decided(NORMALS, paths).doubts[0]
        settled = decided(NORMALS, paths, invalid=[(0, 0, 0), (128, 128, 128)])
        read = settled.read(paths[0])
        assert settled.doubts == ()
        assert np.isnan(read[:6]).all()
        assert np.isfinite(read[6:]).all()
    number = decided(NORMALS, paths, invalid=128).read(paths[0])  # all channels hold it
    assert np.isnan(number[:6]).all()


def test_clipped_depth_is_no_sentinel(tmp_path):
    depth = np.linspace(1, 9.9, H * W).reshape(H, W)
    depth[-2:] = 10
    assert decided(DEPTH, files(tmp_path, ".npy", [depth])).doubts == ()


@pytest.mark.parametrize("options", [{"invalid": [(0, 0)]}, {"ignore": [0]}, {"scale": 2}])
def test_options_that_do_not_suit_directions(options):
    with pytest.raises(ValueError, match=r"does not apply|a colour of 2 numbers, the task has 3 channels"):
        MapOptions.of(options, NORMALS, "labels of normals")


def test_evidence_adds_up():
    """Counting files one by one gives what counting all pixels at once gives."""
    storage = Storage("NPY", "i", 64)
    for seed in range(40):
        rng = np.random.default_rng(seed)
        top = int(rng.choice([2, 9, 300, 70000]))
        parts = [rng.integers(-top * (seed % 2), top, (4, 5, 1)) for _ in range(3)]
        first, *others = [measure(Path("x"), storage, part) for part in parts]
        total = first
        for other in others:
            total = total + other
        whole = measure(Path("x"), storage, np.concatenate(parts))
        for name in ("pixels", "low", "high", "above", "below", "at_low", "at_high", "values"):
            assert getattr(total, name) == getattr(whole, name), (seed, name)
        assert total.files == 3


def test_a_decision_of_evidence_alone():
    seen = measure(Path("x.png"), Storage("PNG", "u", 8), np.array([[[0], [1]]], np.uint8))
    assert decide(EDGE, [seen]).describe() == ["8-bit PNG holding 0 and 1 → mask, 1 = edge"]


@pytest.mark.parametrize("count", [256, 300])
@pytest.mark.parametrize("kind", ["semseg", "instance"])
@problems.WIDE_PROTOCOL
def test_wide_ids_are_refused_when_the_protocol_is_made(count, kind):
    names = [f"class {index}" for index in range(count)]
    with pytest.raises(
        ValueError, match=rf"task '{kind}' has {count} classes, expected at most 25[45]: id 255"
    ):
        own_protocol("wide", {kind: {"class_names": names}})
    own_protocol("wide", {kind: {"class_names": names[:254]}})


def test_a_format_that_opencv_was_built_without(tmp_path):
    (tmp_path / "a.exr").write_bytes(b"v/1\x01" + bytes(60))
    with pytest.raises(DecodeError, match=r"a.exr: .*reads no EXR. Convert the files to TIFF or NPY"):
        read_map(tmp_path / "a.exr")

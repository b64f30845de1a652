"""Labels of any number of channels come out of every kind of file alike."""

import cv2
import numpy as np
import pytest
import tifffile

from mtvision.data.decode import DecodeError
from mtvision.data.folder import FolderDataset
from mtvision.data.folder_labels import FolderLabel
from mtvision.data.maps.encoding import decide_files
from mtvision.data.maps.options import MapOptions
from mtvision.protocols import own_protocol
from mtvision.protocols.entries import build_task

SHARES = np.random.default_rng(0).integers(1, 256, (4, 5, 6)).astype(np.float64) / 255


def task(channels, **fields):
    return build_task("albedo", label="values", label_channels=channels, **fields)


def read_values(path, task, **options):
    """A file decoded by its own content and the options."""
    return decide_files(task, [path], MapOptions.of(options, task, "the test")).read(path)


def read_label(options, task, path):
    label = FolderLabel.of(options, task)
    return decide_files(task, [path], label.map_options(task)).read(path)


def png(path, array):
    """Colours are given in the order red, green, blue, alpha."""
    swapped = array[..., [2, 1, 0, *range(3, array.shape[2])]] if array.ndim == 3 else array
    cv2.imwrite(str(path), swapped)
    return path


def tiff(path, array):
    several = array.ndim == 3 and array.shape[2] > 1
    tifffile.imwrite(path, array, photometric="minisblack", planarconfig="contig" if several else None)
    return path


def planar(path, array):
    tifffile.imwrite(path, array.transpose(2, 0, 1), photometric="minisblack", planarconfig="separate")
    return path


def pages(path, array):
    tifffile.imwrite(path, array.transpose(2, 0, 1), photometric="minisblack")
    return path


def npy(path, array):
    np.save(path, array)
    return path


def npz(path, array):
    np.savez(path, label=array)
    return path


INTEGERS = [("png", png, (1, 3, 4)), ("tif", tiff, (1, 2, 3, 6))]
REALS = [
    ("tiff", tiff, (1, 2, 3, 6)),
    ("tif", planar, (2, 3, 6)),
    ("TIF", pages, (2, 6)),
    ("npy", npy, (1, 2, 6)),
    ("npz", npz, (1, 3)),
]


@pytest.mark.parametrize(
    ("ending", "write", "channels"),
    [(ending, write, count) for ending, write, counts in INTEGERS for count in counts],
)
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_integers_of_a_picture_become_shares(ending, write, channels, kind, tmp_path):
    shares = SHARES[..., :channels] if channels > 1 else SHARES[..., 0]
    stored = np.round(shares * np.iinfo(kind).max).astype(kind)
    label = read_values(write(tmp_path / f"a.{ending}", stored), task(channels))
    assert label.shape == (4, 5, channels)
    assert label.dtype == np.float32
    np.testing.assert_allclose(label, SHARES[..., :channels], atol=1e-6)


@pytest.mark.parametrize(
    ("ending", "write", "channels"),
    [(ending, write, count) for ending, write, counts in REALS for count in counts],
)
def test_real_numbers_stay(ending, write, channels, tmp_path):
    stored = (7 * SHARES[..., :channels]).astype(np.float32)
    stored[1, 2, 0], stored[2, 2, 0] = np.nan, np.inf
    label = read_values(write(tmp_path / f"a.{ending}", stored), task(channels))
    expected = np.where(np.isfinite(stored), stored, np.nan)
    np.testing.assert_array_equal(label, expected)
    assert np.isnan(label).sum() == 2


def test_a_scale_divides_what_is_stored(tmp_path):
    stored = np.array([[[100, 200, 50]]], dtype=np.uint8)
    for path in (png(tmp_path / "a.png", stored), npy(tmp_path / "b.npy", stored)):
        np.testing.assert_array_equal(read_values(path, task(3), scale=100), [[[1, 2, 0.5]]])
    np.testing.assert_array_equal(read_values(tmp_path / "b.npy", task(3)), stored)


@pytest.mark.parametrize("value", [-99.99, -3.4028235e38, 0.1])
def test_ignored_values_are_compared_as_the_file_has_them(value, tmp_path):
    stored = np.array([[value, 1.0]], np.float32)
    np.save(tmp_path / "a.npy", stored)
    for path in (tmp_path / "a.npy", tiff(tmp_path / "a.tif", stored)):
        label = read_values(path, task(1), ignore=(value,))
        assert np.isnan(label[0, 0, 0])
        assert label[0, 1, 0] == 1


def test_ignored_where_all_channels_are(tmp_path):
    stored = np.array([[[0, 0, 0], [0, 9, 0], [255, 255, 255], [0, 255, 0]]], dtype=np.uint8)
    label = read_values(png(tmp_path / "a.png", stored), task(3), ignore=(0, 255))
    assert np.isnan(label).all(axis=2).tolist() == [[True, False, True, True]]
    assert np.isfinite(label[0, 1]).all()


def test_transparent_pixels_have_no_label(tmp_path):
    stored = np.array([[[9, 8, 7, 0], [51, 102, 153, 255]]], dtype=np.uint8)
    label = read_values(png(tmp_path / "a.png", stored), task(3))
    assert np.isnan(label[0, 0]).all()
    np.testing.assert_allclose(label[0, 1], [0.2, 0.4, 0.6], atol=1e-6)
    four = read_values(tmp_path / "a.png", task(4))
    np.testing.assert_allclose(four[0, 0], np.array([9, 8, 7, 0]) / 255, atol=1e-6)


def test_a_palette_gives_its_colours(tmp_path):
    from PIL import Image

    picture = Image.new("P", (2, 1))
    picture.putpalette([10, 20, 30, 40, 50, 60])
    picture.putdata([0, 1])
    picture.save(tmp_path / "a.png")
    label = read_values(tmp_path / "a.png", task(3), scale=1)
    np.testing.assert_array_equal(label, [[[10, 20, 30], [40, 50, 60]]])


RGB = np.array([[[1, 2, 3], [4, 5, 6]]], dtype=np.uint8)


@pytest.mark.parametrize(
    ("write", "name", "array", "channels", "words"),
    [
        (
            png,
            "a.png",
            RGB,
            1,
            "found 3 channels, expected 1, the label_channels of task 'albedo'. It has col",
        ),
        (png, "a.png", RGB[..., 0], 3, "found 1 channel, expected 3, .* Give the task label_channels=1"),
        (png, "a.png", RGB, 2, "found 3 channels, expected 2, .* Give the task label_channels=3, or convert"),
        (
            npy,
            "a.npy",
            SHARES.transpose(2, 0, 1),
            6,
            r"found 5 channels, .*as array.transpose\(1, 2, 0\) gives",
        ),
        (npy, "a.npy", SHARES[None], 6, r"found float64 of shape \(1, 4, 5, 6\), expected numbers"),
        (npy, "a.npy", SHARES.astype(complex), 6, "found complex128"),
    ],
)
def test_another_number_of_channels(write, name, array, channels, words, tmp_path):
    with pytest.raises(DecodeError, match=f"{name}: {words}"):
        read_values(write(tmp_path / name, array), task(channels))


def test_three_equal_channels_are_one(tmp_path):
    gray = np.repeat(RGB[..., :1], 3, axis=2)
    np.testing.assert_array_equal(read_values(png(tmp_path / "a.png", gray), task(1), scale=1), RGB[..., :1])


def test_unreadable_files(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"II*\x00nothing")
    (tmp_path / "b.npz").write_bytes(b"PK nothing")
    (tmp_path / "c.png").write_bytes(b"nothing")
    np.savez(tmp_path / "d.npz", one=RGB, two=RGB)
    for name, words in {
        "a.tif": "not a readable TIFF", "b.npz": "not an archive", "c.png": "not a readable picture",
        "d.npz": "found the arrays one, two, expected one",
    }.items():  # fmt: skip
        with pytest.raises(DecodeError, match=f"{name}: {words}"):
            read_values(tmp_path / name, task(3))


def test_depth_and_directions_as_tiff(tmp_path):
    depth = build_task("depth")
    metres = tiff(tmp_path / "a.tif", np.array([[1.5, 0, -1, np.nan]], dtype=np.float32))
    read = read_label("x", depth, metres)
    np.testing.assert_array_equal(read, [[[1.5], [np.nan], [np.nan], [np.nan]]])
    millimetres = tiff(tmp_path / "b.tif", np.array([[1500, 65535]], dtype=np.uint16))
    with pytest.raises(
        DecodeError, match=r"b.tif: found integers, which need scale=, the units on disk per me"
    ):
        read_label("x", depth, millimetres)
    options = {"folder": "x", "scale": 1000, "ignore": 65535}
    np.testing.assert_array_equal(read_label(options, depth, millimetres), [[[1.5], [np.nan]]])
    stored = png(tmp_path / "c.png", np.array([[1500, 65535]], dtype=np.uint16))
    np.testing.assert_array_equal(read_label(options, depth, stored), [[[1.5], [np.nan]]])
    normals = build_task("normals")
    vectors = tiff(tmp_path / "d.tif", np.array([[[0, 0, 1], [0, 0, 0]]], dtype=np.float32))
    read = read_label("x", normals, vectors)
    np.testing.assert_array_equal(read, [[[0, 0, 1], [np.nan] * 3]])


@pytest.mark.parametrize(
    ("options", "name", "words"),
    [
        ({"scale": 0}, "albedo", "scale must be above 0"),
        ({"scale": 2}, "semseg", "'scale' does not apply"),
        ({"ignore": [0]}, "normals", "'ignore' does not apply"),
        ({"bits": 8}, "albedo", "'bits' does not apply"),
    ],
)
def test_options_that_do_not_apply(options, name, words):
    tasks = {
        "albedo": task(3),
        "semseg": build_task("semseg", class_names=["a"]),
        "normals": build_task("normals"),
    }
    with pytest.raises(ValueError, match=f"labels of {name}: .*{words}"):
        FolderLabel.of({"folder": "x", **options}, tasks[name])


def test_a_folder_of_mixed_files(tmp_path):
    for folder in ("images", "albedo"):
        (tmp_path / folder).mkdir()
    for name in "abc":
        png(tmp_path / "images" / f"{name}.png", np.zeros((4, 5, 3), dtype=np.uint8))
    stored = (SHARES[..., :3] * 255).round().astype(np.uint8)
    png(tmp_path / "albedo" / "a.png", stored)
    tiff(tmp_path / "albedo" / "b.tif", (stored / 255).astype(np.float32))
    npy(tmp_path / "albedo" / "c.npy", stored / 255)
    protocol = own_protocol("x", {"albedo": {"label": "values", "label_channels": 3}})
    data = FolderDataset(tmp_path, labels={"albedo": "albedo"}, protocol=protocol)
    labels = [data[index].labels["albedo"] for index in range(3)]
    assert labels[0].shape == (3, 4, 5)
    for label in labels:
        np.testing.assert_allclose(label.numpy(), SHARES[..., :3].transpose(2, 0, 1), atol=1e-6)

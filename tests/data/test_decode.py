"""Decoding of each file type by known pixels, and one clear error per kind of broken file."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image

from mtvision.data.decode import DecodeError, read_image
from mtvision.data.maps.encoding import decide_files
from mtvision.data.maps.files import read_npy
from mtvision.data.maps.fixed import read_gray, read_label_png, read_normals_png
from mtvision.data.maps.options import MapOptions
from mtvision.protocols.tasks import depth

RNG = np.random.default_rng(0)
IDS = RNG.integers(0, 21, (13, 17)).astype(np.uint8)
RGB = RNG.integers(0, 256, (13, 17, 3)).astype(np.uint8)


def read_depth(path, **options):
    """Depth in metres by the rule for folders."""
    return decide_files(depth(), [path], MapOptions.of(options, depth(), "the test")).read(path)


def save(path, array, mode=None, **options):
    image = Image.fromarray(array) if mode is None else Image.fromarray(array, mode=mode)
    if mode == "P":
        image.putpalette([int(v) for v in RNG.integers(0, 256, 768)])
    image.save(path, **options)
    return path


def test_image_is_rgb(tmp_path):
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.png", RGB)), RGB)
    gray = read_image(save(tmp_path / "g.png", IDS))
    np.testing.assert_array_equal(gray, np.repeat(IDS[..., None], 3, axis=2))
    clear = np.dstack([RGB, np.zeros((13, 17), np.uint8)])
    np.testing.assert_array_equal(read_image(save(tmp_path / "t.png", clear)), RGB)  # transparency is dropped


def test_image_is_not_rotated_by_exif(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    assert read_image(save(tmp_path / "a.jpg", RGB, exif=exif)).shape == (13, 17, 3)


@pytest.mark.parametrize("bits", [None, 8])
def test_palette_files_give_indices_not_colours(tmp_path, bits):
    options = {} if bits is None else {"bits": bits}
    np.testing.assert_array_equal(read_label_png(save(tmp_path / "a.png", IDS, "P", **options)), IDS)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_narrow_files_give_their_stored_numbers(tmp_path, bits):
    ids = IDS % 2**bits
    np.testing.assert_array_equal(read_label_png(save(tmp_path / "p.png", ids, "P", bits=bits)), ids)
    path = tmp_path / "g.png"
    cv2.imwrite(str(path), ids * (255 // (2**bits - 1)))
    if bits == 1:
        Image.fromarray(ids.astype(bool)).save(path)  # a true one-bit gray file
        np.testing.assert_array_equal(read_label_png(path), ids)


def test_gray_and_16_bit_labels(tmp_path):
    np.testing.assert_array_equal(read_label_png(save(tmp_path / "a.png", IDS)), IDS)
    wide = IDS.astype(np.uint16) * 300
    np.testing.assert_array_equal(read_label_png(save(tmp_path / "b.png", wide)), wide)


def test_depth(tmp_path):
    stored = np.array([[0, 5000], [1, 65535]], np.uint16)
    found = read_depth(save(tmp_path / "d.png", stored), scale=5000)
    assert found.shape == (2, 2, 1)
    assert np.isnan(found[0, 0, 0])
    np.testing.assert_allclose(found[..., 0].ravel()[1:], [1.0, 0.0002, 13.107], rtol=1e-6)
    with pytest.raises(DecodeError, match=r"d8.png: the depth file has 8 bits per channel, expected 16"):
        read_depth(save(tmp_path / "d8.png", stored.astype(np.uint8)), scale=5000)
    with pytest.raises(ValueError, match="scale must be above 0"):
        read_depth(tmp_path / "d.png", scale=0)


def test_normals(tmp_path):
    normals = read_normals_png(save(tmp_path / "n.png", RGB))
    np.testing.assert_allclose(normals, 2.0 * RGB.astype(np.float64) / 255 - 1, atol=1e-6)
    assert (normals != 0).all()  # 8 bits cannot say "no normal"


def test_soft_maps(tmp_path):
    np.testing.assert_array_equal(read_gray(save(tmp_path / "s.png", IDS)), IDS)
    repeated = np.repeat(IDS[..., None], 3, axis=2)
    np.testing.assert_array_equal(read_gray(save(tmp_path / "r.png", repeated)), IDS)
    with pytest.raises(DecodeError, match="with colours"):
        read_gray(save(tmp_path / "c.png", RGB))


def test_npy(tmp_path):
    np.save(tmp_path / "a.npy", IDS)
    np.testing.assert_array_equal(read_npy(tmp_path / "a.npy"), IDS)
    np.save(tmp_path / "o.npy", np.array([{"a": 1}], dtype=object))
    with pytest.raises(DecodeError, match=r"o.npy: not a plain NumPy array"):
        read_npy(tmp_path / "o.npy")
    (tmp_path / "b.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-9])
    with pytest.raises(DecodeError, match=r"b.npy"):
        read_npy(tmp_path / "b.npy")


@pytest.mark.fault("a cut PNG or JPEG in the data", expected="refused by name")
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "p.jpg"])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.97])
def test_truncated_pictures_are_refused(tmp_path, name, kept):
    options = {"progressive": True} if name == "p.jpg" else {}
    whole = save(tmp_path / name, np.kron(RGB, np.ones((9, 9, 1), np.uint8)), **options).read_bytes()
    (tmp_path / name).write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(DecodeError, match=rf"{name}: the file is truncated .* Copy or unpack it again"):
        read_image(tmp_path / name)


def test_jpeg_with_thumbnail_and_trailing_bytes_is_read(tmp_path):
    path = save(tmp_path / "a.jpg", RGB)
    path.write_bytes(path.read_bytes() + b"\0" * 100)
    assert read_image(path).shape == (13, 17, 3)


def test_errors_name_file_and_remedy(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone.png: no such file. Check"):
        read_image(tmp_path / "gone.png")
    (tmp_path / "empty.png").write_bytes(b"")
    with pytest.raises(DecodeError, match=r"empty.png: the file is empty"):
        read_image(tmp_path / "empty.png")
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(DecodeError, match=r"text.png: not a readable picture"):
        read_image(tmp_path / "text.png")
    with pytest.raises(DecodeError, match=r"c.png: the label file is a colour picture"):
        read_label_png(save(tmp_path / "c.png", RGB))
    with pytest.raises(DecodeError, match=r"j.jpg: a label map must be a PNG"):
        read_label_png(save(tmp_path / "j.jpg", IDS))


def test_damaged_png_inside(tmp_path):
    path = save(tmp_path / "a.png", np.kron(RGB, np.ones((9, 9, 1), np.uint8)))
    content = bytearray(path.read_bytes())
    content[60:90] = b"\xff" * 30
    path.write_bytes(bytes(content))
    with pytest.raises(DecodeError, match=r"a.png"):
        read_image(path)


def test_real_samples(real_data):
    found = read_depth(real_data / "nyud_samples/depth_gt_000433.png", scale=5000)
    assert 0.4 < np.nanmin(found) < np.nanmax(found) < 10
    parts = read_label_png(real_data / "person_part_samples/2008_002176.png")
    assert set(np.unique(parts)) <= set(range(7))

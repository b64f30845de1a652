"""Limits are compared before anything is allocated; the message names the file, both sizes and the remedy."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
import zlib

import data_problems as problems
import numpy as np
import pytest
from PIL import Image

from mtvision.core.files.arrays import load_npy, load_npz
from mtvision.core.files.foreign import DecodeError
from mtvision.core.files.headers import picture_header
from mtvision.core.files.limits import FileLimits, TooLargeError, file_limits
from mtvision.core.naming import UnknownNameError
from mtvision.data.decode import read_bytes, read_image
from mtvision.data.maps.fixed import read_gray, read_label_png
from mtvision.evaluation.predict.reading import read_picture
from mtvision.evaluation.prediction_files import PredictionFiles
from mtvision.protocols.tasks import semseg

SIDE = 30_000


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width=SIDE, height=SIDE, colour=2, bits=8, stored=100_000):
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    chunks = (chunk(b"IHDR", head), chunk(b"IDAT", bytes(stored)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def encoded(kind, **options):
    file = io.BytesIO()
    Image.new("RGB", (20, 10)).save(file, kind, **options)
    return bytearray(file.getvalue())


def jpeg():
    data = encoded("JPEG")
    place = data.index(b"\xff\xc0")
    data[place + 5 : place + 9] = struct.pack(">HH", SIDE, SIDE)
    return bytes(data)


def bmp():
    data = encoded("BMP")
    data[18:26] = struct.pack("<ii", SIDE, -SIDE)
    return bytes(data)


def gif():
    data = encoded("GIF")
    data[6:10] = struct.pack("<HH", SIDE, SIDE)
    return bytes(data)


def webp():
    data = encoded("WEBP", lossless=True)
    data[21:25] = struct.pack("<I", 16383 | 16383 << 14)
    return bytes(data)


def tiff(order="<"):
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, 2)
    tags = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, SIDE) for tag in (256, 257))
    return start + tags + bytes(100)


LARGE = {
    "a.png": png(stored=2_500_000),
    "gray.png": png(colour=0, bits=16),
    "one_bit.png": png(colour=0, bits=1),
    "a.jpg": jpeg(),
    "a.bmp": bmp(),
    "a.gif": gif(),
    "a.webp": webp(),
    "a.tif": tiff(),
    "motorola.tif": tiff(">"),
}


@pytest.mark.fault("a small file of 30000 x 30000 pixels", expected="refused before it takes memory")
@pytest.mark.parametrize("read", [read_image, read_gray, read_picture], ids=lambda item: item.__name__)
@pytest.mark.parametrize("name", LARGE)
@problems.BOMBS
def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(name, read, tmp_path, monkeypatch):
    monkeypatch.setenv("MTVISION_LIMITS", "pixels=200M")
    path = tmp_path / name
    path.write_bytes(LARGE[name])
    tracemalloc.start()
    try:
        with pytest.raises(TooLargeError) as caught:
            read(path)
        assert tracemalloc.get_traced_memory()[1] < 3 * len(LARGE[name]) + 2**20
    finally:
        tracemalloc.stop()
    assert str(path) in str(caught.value)
    assert "pixels; expected at most 200 million. Reduce it, or allow more with" in str(caught.value)
    assert 'MTVISION_LIMITS="pixels=' in str(caught.value)


def test_labels_and_predictions_have_the_same_limit(tmp_path):
    path = tmp_path / "semseg" / "a.png"
    path.parent.mkdir()
    path.write_bytes(png(colour=0))
    task = semseg(("a", "b"))
    found = PredictionFiles.find(tmp_path, [task])
    for read in (lambda: read_label_png(path), lambda: found.read(task, "a", (SIDE, SIDE))):
        with pytest.raises(TooLargeError, match="a.png: 30000 x 30000 pixels; expected at most 268 million"):
            read()


def test_the_limit_may_be_raised(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(png(200, 200))
    monkeypatch.setenv("MTVISION_LIMITS", "pixels=39999")
    with pytest.raises(TooLargeError, match='"pixels=40e3"'):
        read_bytes(path)
    monkeypatch.setenv("MTVISION_LIMITS", "pixels=40e3")
    assert len(read_bytes(path)) == len(png(200, 200))
    monkeypatch.setenv("MTVISION_LIMITS", "decoded_bytes=100kB, pixels=1e6")
    with pytest.raises(TooLargeError, match=r"117\.2 KiB once decoded; expected at most 97\.7 KiB"):
        read_bytes(path)
    monkeypatch.setenv("MTVISION_LIMITS", "file_bytes=64KiB")
    with pytest.raises(TooLargeError, match=r"97\.7 KiB; expected at most 64 KiB"):
        read_bytes(path)


@pytest.mark.parametrize(("value", "size"), [("1e9", 10**9), ("4GiB", 2**32), ("512k", 512_000), ("7b", 7)])
def test_values_of_the_variable(value, size, monkeypatch):
    monkeypatch.setenv("MTVISION_LIMITS", f"file_bytes={value}")
    assert file_limits() == FileLimits(file_bytes=size)


def test_mistakes_in_the_variable_are_named(monkeypatch):
    monkeypatch.setenv("MTVISION_LIMITS", "pixel=3")
    with pytest.raises(
        UnknownNameError, match="Unknown limit in MTVISION_LIMITS 'pixel'. Did you mean 'pixels'"
    ):
        file_limits()
    for value in ("0", "-1", "much", "", "1e"):
        monkeypatch.setenv("MTVISION_LIMITS", f"pixels={value}")
        with pytest.raises(ValueError, match="no positive number. Write for example pixels=4e9"):
            file_limits()


@pytest.mark.parametrize("stored", [100, 5000])
@problems.BOMBS
def test_a_header_that_promises_more_than_the_bytes_can_hold(stored, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png(10_000, 10_000, stored=stored))
    with pytest.raises(DecodeError, match=r"a.png: the header promises 10000 x 10000 pixels, more than"):
        read_image(path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF", "WEBP"])
def test_sizes_are_those_of_pillow(kind):
    for size in ((20, 10), (1, 300), (257, 3)):
        file = io.BytesIO()
        Image.new("RGB", size).save(file, kind)
        header = picture_header(file.getvalue())
        assert (header.width, header.height) == size
        assert picture_header(file.getvalue()[:7]) is None


def npy(shape, descr="<f4", values=b""):
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + values


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (npy("(1099511627776, 4)"), "promises 17592186044416 bytes of values, the file has 0"),
        (npy("(2, 2)", values=bytes(15)), "promises 16 bytes of values, the file has 15"),
        (npy("(2, 1)", values=bytes(16)), "promises 8 bytes of values, the file has 16"),
        (npy("(1,)", "|O", bytes(8)), "Python objects"),
        (npy("(-1,)"), "shape"),
        (b"PK\x03\x04 as numpy.savez", "it is a zip archive, as numpy.savez writes it"),
        (b"\x93NUMPY\x09\x00", "version"),
        (b"", "the file is empty"),
    ],
)
@problems.ARRAYS
def test_arrays_whose_header_does_not_fit(content, words, tmp_path):
    path = tmp_path / "a.npy"
    path.write_bytes(content)
    with pytest.raises(DecodeError) as caught:
        load_npy(path)
    assert str(caught.value).startswith(f"{path}: not a plain NumPy array (")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("kind", ["<f4", ">u2", "?", "<f8"])
def test_arrays_are_those_of_numpy(kind, order, tmp_path):
    array = np.asarray(np.arange(24).reshape(2, 3, 4) % 7, dtype=kind, order=order)
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "a.npz", one=array, two=array[0, 0, 0])
    found = load_npz(tmp_path / "a.npz")
    for item in (load_npy(tmp_path / "a.npy"), found["one"]):
        np.testing.assert_array_equal(item, array)
        assert item.dtype == array.dtype
    assert found["two"].shape == ()


@problems.BOMBS
@pytest.mark.fault("an .npz that unpacks to too much", expected="refused before it takes memory")
def test_an_archive_that_unpacks_to_too_much(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, np.zeros(10**6, np.uint8))
    monkeypatch.setenv("MTVISION_LIMITS", "decoded_bytes=500kB")
    with pytest.raises(TooLargeError, match="976.7 KiB once decoded; expected at most 488.3 KiB"):
        load_npz(path)


@pytest.mark.parametrize("place", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@problems.CHECKSUMS
def test_a_changed_byte_of_an_archive_is_noticed(place, compression, tmp_path):
    path = tmp_path / "a.npz"
    save = np.savez if compression == zipfile.ZIP_STORED else np.savez_compressed
    save(path, np.random.default_rng(0).random(1000))
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 4
    path.write_bytes(data)
    with pytest.raises(DecodeError, match=r"a\.npz: not an archive of NumPy arrays \("):
        load_npz(path)

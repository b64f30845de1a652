"""Pictures are read as a person sees them, whatever the format."""

from __future__ import annotations

import io
import os
import struct
import zlib

import cv2
import data_problems as problems
import numpy as np
import pytest
from people import photo
from PIL import Image, ImageOps

from mtvision.data.decode import DecodeError, read_image
from mtvision.evaluation.predict.reading import read_picture

ORIENTATION = 0x0112


def save(path, image, **options):
    image.save(path, **options)
    return path


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
@problems.PREDICT_EXIF
def test_every_orientation_is_turned_upright(suffix, orientation, tmp_path):
    image = Image.fromarray(photo())
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options = {".tif": {"tiffinfo": {ORIENTATION: orientation}}, ".webp": {"exif": exif, "lossless": True}}
    path = save(tmp_path / f"a{suffix}", image, **options.get(suffix, {"exif": exif}))
    if suffix == ".tif":
        image.getexif()[ORIENTATION] = orientation
        expected = np.asarray(ImageOps.exif_transpose(image))
    else:
        with Image.open(path) as stored:
            expected = np.asarray(ImageOps.exif_transpose(stored).convert("RGB"))
    pixels = read_picture(path)
    assert pixels.shape == ((40, 24, 3) if orientation > 4 else (24, 40, 3))
    np.testing.assert_allclose(pixels.astype(int), expected, atol=2)
    assert pixels.flags["C_CONTIGUOUS"]


@pytest.mark.parametrize("value", [0, 9, 255])
def test_orientations_that_do_not_exist_change_nothing(value, tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = value
    path = save(tmp_path / "a.png", Image.fromarray(photo()), exif=exif)
    np.testing.assert_array_equal(read_picture(path), photo())


def test_plain_files_have_the_pixels_that_data_sets_read(tmp_path):
    for suffix in (".png", ".jpg"):
        path = save(tmp_path / f"a{suffix}", Image.fromarray(photo()))
        np.testing.assert_array_equal(read_picture(path), read_image(path))


GRAY = photo()[..., 0]
ALPHA = np.dstack([photo(), np.where(GRAY > 100, 255, 0).astype(np.uint8)])
ON_WHITE = np.where(ALPHA[..., 3:] > 0, photo(), 255)


def through_pillow(image, **options):
    return lambda path: image.save(path, **options)


def through_opencv(array):
    return lambda path: cv2.imwrite(str(path), array)


KINDS = {
    "gray.png": (through_pillow(Image.fromarray(GRAY)), np.dstack([GRAY] * 3)),
    "gray.jpg": (through_pillow(Image.fromarray(GRAY), quality=100), np.dstack([GRAY] * 3)),
    "bits.png": (through_pillow(Image.fromarray(GRAY > 99)), np.dstack([np.where(GRAY > 99, 255, 0)] * 3)),
    "alpha.png": (through_pillow(Image.fromarray(ALPHA)), ON_WHITE),
    "alpha.webp": (through_pillow(Image.fromarray(ALPHA), lossless=True), ON_WHITE),
    "alpha.tif": (through_pillow(Image.fromarray(ALPHA)), ON_WHITE),
    "gray alpha.png": (
        through_pillow(Image.fromarray(np.dstack([GRAY, ALPHA[..., 3]]))),
        np.dstack([np.where(ALPHA[..., 3] > 0, GRAY, 255)] * 3),
    ),
    "palette.png": (through_pillow(Image.fromarray(ON_WHITE // 64 * 64).quantize(64)), ON_WHITE // 64 * 64),
    "palette.gif": (through_pillow(Image.fromarray(ON_WHITE // 64 * 64).quantize(64)), ON_WHITE // 64 * 64),
    "one colour.png": (
        through_pillow(Image.fromarray(photo()), transparency=(230, 30, 30)),
        np.where((photo() == [230, 30, 30]).all(axis=2)[..., None], 255, photo()),
    ),
    "cmyk.tif": (through_pillow(Image.fromarray(photo()).convert("CMYK")), photo()),
    "cmyk.jpg": (through_pillow(Image.fromarray(photo()).convert("CMYK"), quality=100), photo()),
    "16 bits.png": (through_opencv(photo()[..., ::-1].astype(np.uint16) * 257), photo()),
    "16 bits gray.png": (through_opencv(GRAY.astype(np.uint16) * 257), np.dstack([GRAY] * 3)),
    "16 bits.tif": (through_opencv(photo()[..., ::-1].astype(np.uint16) * 257), photo()),
    "16 bits gray.tif": (through_opencv(GRAY.astype(np.uint16) * 257), np.dstack([GRAY] * 3)),
    "real.tif": (through_opencv(photo()[..., ::-1].astype(np.float32) / 255), photo()),
    "real gray.tif": (through_pillow(Image.fromarray(GRAY.astype(np.float32) / 255)), np.dstack([GRAY] * 3)),
    "a.bmp": (through_pillow(Image.fromarray(photo())), photo()),
    "a.ppm": (through_pillow(Image.fromarray(photo())), photo()),
    "a.avif": (through_pillow(Image.fromarray(photo()), quality=100), photo()),
    "progressive.jpg": (through_pillow(Image.fromarray(photo()), quality=100, progressive=True), photo()),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_file_becomes_rgb_of_8_bits(name, tmp_path):
    write, expected = KINDS[name]
    path = tmp_path / name
    write(path)
    pixels = read_picture(path)
    assert pixels.dtype == np.uint8
    exact = not name.endswith((".jpg", ".avif"))
    assert np.abs(pixels.astype(int) - expected).mean() <= (1 if exact else 12)
    if exact and "palette" not in name:
        np.testing.assert_allclose(pixels.astype(int), expected, atol=1)


def test_of_an_animation_the_first_picture_is_read(tmp_path):
    first, second = (Image.fromarray(np.full((8, 8, 3), value, np.uint8)) for value in (0, 255))
    for suffix in (".gif", ".webp", ".png", ".tif"):
        path = save(tmp_path / f"a{suffix}", first, save_all=True, append_images=[second])
        assert read_picture(path).max() < 5


def test_a_wrong_ending_does_not_matter(tmp_path):
    path = save(tmp_path / "a.jpg", Image.fromarray(photo()), format="PNG")
    np.testing.assert_array_equal(read_picture(path), photo())


def encoded(suffix, **options):
    stream = io.BytesIO()
    Image.fromarray(photo(200, 300)).save(stream, format=suffix, **options)
    return stream.getvalue()


def flipped(content, position):
    return content[:position] + bytes([content[position] ^ 64]) + content[position + 1 :]


DAMAGED = {
    "empty": b"",
    "text": b"hello, this is no picture at all",
    "cut png": encoded("PNG")[:-30],
    "flipped png": flipped(encoded("PNG"), 5000),
    "cut jpeg": encoded("JPEG")[:2000],
    "cut webp": encoded("WEBP")[:400],
    "cut tiff": encoded("TIFF")[:5000],
    "cut bmp": encoded("BMP")[:5000],
    "cut gif": encoded("GIF")[:3000],
    "only a signature": b"\x89PNG\r\n\x1a\n",
    "heic": b"\0\0\0\x18ftypheic" + bytes(40),
    "html": b"<!DOCTYPE html><title>404</title>",
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "npy": b"\x93NUMPY\x01\x00" + bytes(60),
}


@pytest.mark.parametrize("kind", DAMAGED)
@problems.DAMAGED_PICTURES
def test_damaged_files_are_refused_by_name(kind, tmp_path, capfd):
    path = tmp_path / "some.png"
    path.write_bytes(DAMAGED[kind])
    with pytest.raises(DecodeError, match=r"some\.png: "):
        read_picture(path)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((4, 4), 7.5, np.float32), "real values up to 7.5, expected 0..1"),
        (np.full((4, 4), np.nan, np.float32), "negative or infinite"),
        (np.full((4, 4), -1, np.float32), "negative or infinite"),
        (np.full((4, 4), 70000, np.int32), "integers up to 70000"),
    ],
)
def test_values_that_are_no_picture_are_refused(values, message, tmp_path):
    path = tmp_path / "a.tif"
    Image.fromarray(values).save(path)
    with pytest.raises(DecodeError, match=message):
        read_picture(path)


def test_pictures_and_files_that_are_too_large_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    path = save(tmp_path / "large.png", Image.new("1", (6, 6)))
    content = path.read_bytes()
    head = b"IHDR" + struct.pack(">II", 60_000, 60_000) + content[24:29]
    path.write_bytes(content[:12] + head + struct.pack(">I", zlib.crc32(head)) + content[33:])
    with pytest.raises(DecodeError, match="60000 x 60000 pixels; expected at most 268 million"):
        read_picture(path)
    monkeypatch.setenv("MTVISION_LIMITS", "file_bytes=10")
    with pytest.raises(DecodeError, match="expected at most 10 bytes"):
        read_picture(path)


def test_a_file_without_permission_is_named(tmp_path):
    path = save(tmp_path / "a.png", Image.fromarray(photo()))
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(PermissionError, match=r"a\.png"):
        read_picture(path)


def test_colours_of_12_bits_in_a_png_of_16_are_not_black(tmp_path, caplog):
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), photo()[..., ::-1].astype(np.uint16) * 16)
    assert (read_picture(path) == photo()).all()
    assert "a.png: 16 bits of which 12 are used" in caplog.text


@pytest.mark.parametrize(("top", "bits"), [(255, 8), (1023, 10), (4095, 12), (16000, 14), (65535, 16)])
@problems.DEEP_PHOTOGRAPHS
def test_16_bits_that_a_camera_fills_in_part_are_not_black(top, bits, tmp_path, caplog):
    values = np.linspace(0, top, 96).reshape(8, 12).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), values)
    assert np.array_equal(read_picture(tmp_path / "a.png")[..., 0], values >> (bits - 8))
    assert ("shown as a picture of" in caplog.text) == (bits < 16)


def test_a_photograph_with_a_film_behind_it_is_whole(tmp_path):
    """The film may hold the bytes of a scan and no end."""
    image = Image.fromarray(photo())
    whole = save(tmp_path / "a.jpg", image).read_bytes()
    (tmp_path / "b.jpg").write_bytes(whole + b"ftypmp42" + b"\xff\xda" * 3 + bytes(50))
    assert np.array_equal(read_picture(tmp_path / "b.jpg"), read_picture(tmp_path / "a.jpg"))
    (tmp_path / "c.jpg").write_bytes(whole[:-40])
    with pytest.raises(DecodeError, match="truncated"):
        read_picture(tmp_path / "c.jpg")

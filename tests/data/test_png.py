"""The fast PNG decoder gives what Pillow gives, leaves rare kinds to others, and refuses every damage."""

from __future__ import annotations

import io
import logging
import multiprocessing
import struct
import sys
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mtvision.data import png
from mtvision.data.decode import DecodeError, read_image
from mtvision.data.maps.fixed import read_gray, read_label_png

FAST = bool(png.fast_decoders())
needs_package = pytest.mark.skipif(not FAST, reason="kornia-rs is not installed")
SIDES, SEEDS = st.integers(1, 40), st.integers(0, 10**6)
KINDS = {"L": 1, "RGB": 3, "P": 1, "RGBA": 4, "LA": 2, "I;16": 1, "1": 1}
ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def header(height, width, bits, colour, interlaced=0) -> bytes:
    fields = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced)
    return png.PNG_SIGNATURE + chunk(b"IHDR", fields)


def paeth(left, up, corner):
    estimate = left + up - corner
    return min((left, up, corner), key=lambda value: abs(estimate - value))


def filtered(rows: np.ndarray, step: int, rng) -> bytes:
    """Scanlines (H, bytes), each with a filter of its own, straight from the PNG specification."""
    result = bytearray()
    above = np.zeros(rows.shape[1] + step, int)
    for row in rows.astype(int):
        kind, padded = int(rng.integers(5)), np.concatenate([np.zeros(step, int), row])
        left, corner, up = padded[: len(row)], above[: len(row)], above[step:]
        guess = [np.zeros_like(row), left, up, (left + up) // 2]
        guess.append(np.array([paeth(*three) for three in zip(left, up, corner, strict=True)]))
        result.append(kind)
        result += ((row - guess[kind]) % 256).astype(np.uint8).tobytes()
        above = padded
    return bytes(result)


def written(array: np.ndarray, rng, *, interlaced=False, extra=b"") -> bytes:
    """A PNG of gray or RGB pixels with every filter, in several IDAT chunks."""
    bits = 8 * array.dtype.itemsize
    step = array.dtype.itemsize * (1 if array.ndim == 2 else 3)
    parts = [array[y::dy, x::dx] for y, x, dy, dx in ADAM7] if interlaced else [array]
    data = b"".join(
        filtered(
            np.frombuffer(part.astype(f">u{bits // 8}").tobytes(), np.uint8).reshape(len(part), -1), step, rng
        )
        for part in parts
        if part.size
    )
    packed = zlib.compress(data, int(rng.integers(10)))
    cut = int(rng.integers(len(packed)))
    colour = png.GRAY if array.ndim == 2 else png.RGB
    chunks = chunk(b"IDAT", packed[:cut]) + chunk(b"IDAT", packed[cut:]) + chunk(b"IEND", b"")
    return header(*array.shape[:2], bits, colour, int(interlaced)) + extra + chunks


def pixels(rng, height, width, channels, dtype=np.uint8):
    """Smooth in places and noisy in others, so that matches and literals both occur."""
    shape = (height, width) if channels == 1 else (height, width, channels)
    noise = rng.integers(0, np.iinfo(dtype).max + 1, shape)
    return np.where(rng.random(shape) < 0.5, noise, 7).astype(dtype)


@given(SIDES, SIDES, st.sampled_from([1, 3]), st.booleans(), SEEDS)
@settings(max_examples=60, deadline=None)
def test_every_filter_compression_and_number_of_bits(height, width, channels, wide, seed):
    rng = np.random.default_rng(seed)
    array = pixels(rng, height, width, channels, np.uint16 if wide and channels == 1 else np.uint8)
    content = written(array, rng)
    np.testing.assert_array_equal(np.array(Image.open(io.BytesIO(content))), array)
    if FAST:
        found = png.decode_png(content)
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)


@given(SIDES, SIDES, st.sampled_from(sorted(KINDS)), st.booleans(), SEEDS)
@settings(max_examples=80, deadline=None)
def test_readers_agree_with_pillow_on_every_kind(tmp_path_factory, height, width, kind, optimize, seed):
    rng = np.random.default_rng(seed)
    array = pixels(rng, height, width, KINDS[kind], np.uint16 if kind == "I;16" else np.uint8)
    image = (
        Image.fromarray(array > 99) if kind == "1" else Image.fromarray(array, None if kind != "P" else "P")
    )
    if kind == "P":
        image.putpalette(rng.integers(0, 256, 768).astype(np.uint8).tobytes())
    path = tmp_path_factory.mktemp("png") / "a.png"
    image.save(path, optimize=optimize)
    stored = Image.open(path)
    if kind != "I;16":  # which decoders reduce to 8 bits in different ways
        flat = Image.open(path).convert("RGBA").convert("RGB")
        np.testing.assert_array_equal(read_image(path), np.array(flat))
    if kind in ("L", "P", "I;16", "1"):
        np.testing.assert_array_equal(read_label_png(path), np.array(stored).astype(array.dtype))
    if kind in ("L", "I;16"):
        np.testing.assert_array_equal(read_gray(path), array)


@needs_package
@given(SIDES, SIDES, st.sampled_from([1, 3]), SEEDS)
@settings(max_examples=30, deadline=None)
def test_interlaced_and_transparent_files_are_left_to_others(tmp_path_factory, height, width, channels, seed):
    rng = np.random.default_rng(seed)
    array = pixels(rng, height, width, channels)
    shown = array if channels == 3 else np.repeat(array[..., None], 3, axis=2)
    path = tmp_path_factory.mktemp("png") / "a.png"
    for content in (
        written(array, rng, interlaced=True),
        written(array, rng, extra=chunk(b"tRNS", struct.pack(f">{channels}H", *[7] * channels))),
    ):
        assert png.decode_png(content) is None
        path.write_bytes(content)
        np.testing.assert_array_equal(read_image(path), shown)
        if channels == 1:
            np.testing.assert_array_equal(read_label_png(path), array)


@given(st.sampled_from(["L", "RGB", "I;16", "P"]), st.integers(0, 10**6), st.integers(1, 255), SEEDS)
@settings(max_examples=200, deadline=None)
def test_one_damaged_byte_is_refused_or_harmless(tmp_path_factory, kind, position, change, seed):
    """Behind the signature there is no byte whose damage could change a pixel unnoticed."""
    rng = np.random.default_rng(seed)
    array = pixels(rng, 11, 13, KINDS[kind], np.uint16 if kind == "I;16" else np.uint8)
    content = bytearray(written(array, rng))
    if kind == "P":
        image, buffer = Image.fromarray(array, "P"), io.BytesIO()
        image.putpalette(list(range(256)) * 3)
        image.save(buffer, "PNG")
        content = bytearray(buffer.getvalue())
    content[8 + position % (len(content) - 8)] ^= change
    path = tmp_path_factory.mktemp("png") / "damaged.png"
    path.write_bytes(bytes(content))
    reader = read_image if kind == "RGB" else read_label_png
    message = None
    try:
        found = reader(path)
    except DecodeError as error:
        found, message = array, str(error)
    np.testing.assert_array_equal(found, array)
    assert message is None or "damaged.png" in message
    assert message is None or any(remedy in message for remedy in ("again", "Convert", "Reduce it"))


@needs_package
def test_damaged_headers_are_not_believed():
    array = np.zeros((4, 5), np.uint8)
    content = bytearray(written(array, np.random.default_rng(0)))
    content[16] = 0x7F  # two thousand million columns
    assert png.decode_png(bytes(content)) is None
    huge = header(2**20, 2**20, 8, png.GRAY) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    assert png.decode_png(huge) is None
    assert png.decode_png(b"") is None
    assert png.decode_png(png.PNG_SIGNATURE) is None


def test_without_the_package_all_is_the_same_and_one_line_says_so(tmp_path, monkeypatch, caplog):
    rng = np.random.default_rng(0)
    colours, ids = pixels(rng, 9, 12, 3), pixels(rng, 9, 12, 1)
    (tmp_path / "c.png").write_bytes(written(colours, rng))
    (tmp_path / "i.png").write_bytes(written(ids, rng))
    monkeypatch.setitem(sys.modules, "kornia_rs", None)  # `import kornia_rs` fails
    png.fast_decoders.cache_clear()
    try:
        with caplog.at_level(logging.WARNING, logger="mtvision"):
            for _ in range(3):
                np.testing.assert_array_equal(read_image(tmp_path / "c.png"), colours)
                np.testing.assert_array_equal(read_label_png(tmp_path / "i.png"), ids)
                np.testing.assert_array_equal(read_gray(tmp_path / "i.png"), ids)
        lines = [record.getMessage() for record in caplog.records if "kornia-rs" in record.getMessage()]
        assert len(lines) == 1
        assert "decoded by OpenCV" in lines[0]
        png.fast_decoders.cache_clear()
        caplog.clear()
        monkeypatch.setattr(multiprocessing, "parent_process", lambda: "a loader's worker is not the first")
        png.fast_decoders()
        assert not caplog.records
    finally:
        png.fast_decoders.cache_clear()


@needs_package
def test_real_pictures(real_data):
    for path in sorted((real_data / "nyud_samples").glob("*.png")):
        found = png.decode_png(path.read_bytes())
        if found is not None:
            np.testing.assert_array_equal(found, np.array(Image.open(path)))

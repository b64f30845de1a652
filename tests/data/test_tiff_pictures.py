"""TIFF photographs: the pixels as they lie in the file, and what is no photograph refused by name."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from PIL import Image

from mtvision.core.files.foreign import DecodeError
from mtvision.core.files.tiff import as_stored, check_tiff
from mtvision.data.decode import read_image
from mtvision.data.maps.files import read_map

RGB = np.random.default_rng(0).integers(0, 256, (10, 14, 3)).astype(np.uint8)
GRAY = RGB[..., 0]
THREE = np.repeat(GRAY[..., None], 3, axis=2)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_it_is_not_turned(compression, orientation, tmp_path):
    path = tmp_path / "a.tif"
    for array, expected in ((RGB, RGB), (GRAY, THREE)):
        Image.fromarray(array).save(path, compression=compression, tiffinfo={274: orientation})
        assert np.array_equal(read_image(path), expected)
        labels = read_map(path, "ids").values
        assert np.array_equal(labels, array.reshape(labels.shape))


@pytest.mark.parametrize("kind", ["unspecified", "assocalpha", "unassalpha"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_transparency_changes_no_colour(planar, bits, kind, tmp_path):
    path, alpha = tmp_path / "a.tif", np.full((*GRAY.shape, 1), 128, np.uint8)
    values = np.concatenate([RGB, alpha], axis=2)
    stored = values if bits == 8 else values.astype(np.uint16) * 257
    stored = stored if planar == "contig" else np.moveaxis(stored, 2, 0)
    options = {"photometric": "rgb", "planarconfig": planar, "extrasamples": [kind]}
    tifffile.imwrite(path, np.ascontiguousarray(stored), **options)
    assert np.array_equal(read_image(path), RGB)


def test_gray_with_transparency(tmp_path):
    values = np.dstack([GRAY, GRAY[::-1]])
    tifffile.imwrite(
        tmp_path / "a.tif",
        values,
        photometric="minisblack",
        planarconfig="contig",
        extrasamples=["unassalpha"],
    )
    assert np.array_equal(read_image(tmp_path / "a.tif"), THREE)


NO_PICTURES = {
    "numbers with a sign": ((GRAY.astype(np.int16),), {}, "int16 numbers"),
    "small numbers with a sign": (((GRAY // 2).astype(np.int8),), {}, "int8 numbers"),
    "real numbers": (((GRAY / 255).astype(np.float32),), {}, "float32 numbers"),
    "32 bits": ((GRAY.astype(np.uint32),), {}, "uint32 numbers"),
    "pages": ((np.stack([RGB, RGB[::-1]]),), {"photometric": "rgb"}, "2 pages"),
    "bands": (
        (np.concatenate([RGB, RGB[..., :2]], axis=2),),
        {"photometric": "minisblack", "planarconfig": "contig"},
        "5 channels",
    ),
}


@pytest.mark.parametrize("name", NO_PICTURES)
def test_what_is_no_picture_is_refused(name, tmp_path):
    arrays, options, found = NO_PICTURES[name]
    tifffile.imwrite(tmp_path / "a.tif", *arrays, **options)
    with pytest.raises(
        DecodeError, match=rf"a\.tif: found a TIFF of {found}, expected one picture of 8 or 16"
    ):
        read_image(tmp_path / "a.tif")
    Image.fromarray(RGB).convert("LAB").save(tmp_path / "b.tif")
    with pytest.raises(DecodeError, match="CIELAB colours"):
        read_image(tmp_path / "b.tif")


def test_only_what_is_shown_changes(tmp_path):
    path = tmp_path / "a.tif"
    Image.fromarray(RGB).save(path, tiffinfo={274: 6})
    before, after = path.read_bytes(), as_stored(path.read_bytes())
    check_tiff(path, after)
    assert len(after) == len(before)
    assert sum(a != b for a, b in zip(before, after, strict=True)) == 1
    assert as_stored(after) == after


@pytest.mark.parametrize("bits", [1, 8])
def test_bitmaps_hold_indices_as_other_files_with_a_palette_do(bits, tmp_path):
    ids = (np.arange(140).reshape(10, 14) % (2 if bits == 1 else 5)).astype(np.uint8)
    picture = Image.fromarray(ids > 0) if bits == 1 else Image.fromarray(ids, mode="L").convert("P")
    if bits == 8:
        picture.putdata(ids.ravel().tolist())
        picture.putpalette([(31 * index) % 256 for index in range(768)])
    picture.save(tmp_path / "a.bmp")
    stored = read_map(tmp_path / "a.bmp", "ids")
    assert np.array_equal(stored.values[..., 0], ids)
    assert (stored.storage.format, stored.storage.bits) == ("BMP", bits)

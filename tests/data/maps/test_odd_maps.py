"""Maps of other programs: compressions of TIFF, several marks of "no label", mixed sets, odd lengths."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from PIL import Image

from mtvision.data.decode import DecodeError
from mtvision.data.maps.encoding import decide_files
from mtvision.data.maps.evidence import measure
from mtvision.data.maps.files import Storage, read_map
from mtvision.data.maps.options import MapOptions
from mtvision.data.maps.rules import UndecidedError
from mtvision.protocols.entries import build_task

H, W = 12, 16
RNG = np.random.default_rng(1)
MASKS = [(RNG.random((H, W)) < share).astype(np.uint8) for share in (0.2, 0.4, 0.5)]
IDS = RNG.integers(0, 3, (H, W)).astype(np.uint8)
DISTANCE = RNG.uniform(1, 6, (H, W)).astype(np.float32)
TOP = np.arange(H)[:, None] < 3
TWO, MANY = build_task("semseg", class_names=["a", "b"]), build_task("semseg", class_names=["a", "b", "c"])
DEPTH, NORMALS = build_task("depth"), build_task("normals")
COMPRESSIONS = ("tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd", "lzma")


def decided(task, arrays, folder, **options):
    """Decision about NPY files, and the files."""
    paths = [folder / f"{index}.npy" for index in range(len(arrays))]
    for path, array in zip(paths, arrays, strict=True):
        np.save(path, array)
    return decide_files(task, paths, MapOptions.of(options, task, "the test")), paths


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_compressions_of_tiff_that_keep_every_number_are_read_as_such(compression, tmp_path):
    palette = Image.fromarray(IDS, mode="P")
    palette.putpalette([(37 * index) % 256 for index in range(768)])
    pictures = {
        "gray": (Image.fromarray(IDS), IDS, Storage("TIFF", "u", 8)),
        "palette": (palette, IDS, Storage("TIFF", "u", 8)),
        "deep": (
            Image.fromarray(IDS.astype(np.uint16) * 999),
            IDS * np.uint16(999),
            Storage("TIFF", "u", 16),
        ),
        "real": (Image.fromarray(DISTANCE), DISTANCE, Storage("TIFF", "f", 32)),
    }
    for name, (picture, numbers, storage) in pictures.items():
        try:
            picture.save(tmp_path / f"{name}.tif", compression=compression)
        except OSError as error:
            pytest.skip(f"this Pillow writes no {compression}: {error}")
        found = read_map(tmp_path / f"{name}.tif", "ids")
        assert found.storage == storage, name
        assert (found.values[..., 0] == numbers).all(), name


@pytest.mark.parametrize("compression", ["group4", "tiff_lzw", "raw"])
def test_tiff_of_one_bit_holds_0_and_1(compression, tmp_path):
    Image.fromarray(MASKS[0] > 0).save(tmp_path / "a.tif", compression=compression)
    found = read_map(tmp_path / "a.tif", "ids")
    assert found.storage.bits == 1
    assert (found.values[..., 0] == MASKS[0]).all()


def test_jpeg_in_tiff_changes_numbers_and_cmyk_is_no_map(tmp_path):
    Image.fromarray(IDS * 80).save(tmp_path / "jpeg.tif", compression="jpeg")
    assert read_map(tmp_path / "jpeg.tif").storage.lossy
    Image.fromarray(IDS * 80).convert("CMYK").save(tmp_path / "cmyk.tif")
    with pytest.raises(
        DecodeError, match=r"cmyk.tif: a TIFF of SEPARATED colours. Convert it to gray or RGB"
    ):
        read_map(tmp_path / "cmyk.tif")


@pytest.mark.parametrize("kind", [np.int8, np.int16, np.int32, np.int64])
def test_negative_numbers_of_narrow_types_are_counted_right(kind, tmp_path):
    values = np.array([[-128, -90, 0, 127]], kind)[..., None]
    found = measure(tmp_path / "a.npy", Storage("NPY", "i", 8), values)
    assert (found.low, found.high, found.values) == (-128, 127, (-128, -90, 0, 127))


@pytest.mark.parametrize("mark", [254, 250, 201])
def test_ids_with_a_mark_below_255_are_no_mask(mark, tmp_path):
    marked = [np.where(TOP, mark, mask).astype(np.uint8) for mask in MASKS]
    with pytest.raises(UndecidedError, match=f"0, 1 and {mark}, expected two levels.* or ignore="):
        decided(TWO, marked, tmp_path)
    encoding, paths = decided(TWO, marked, tmp_path, ignore=mark)
    assert (encoding.read(paths[0]) == np.where(TOP, 255, MASKS[0])).all()


def test_a_set_of_masks_in_two_encodings_is_refused(tmp_path):
    """Files of 0 and 255 beside files of 0 and 1: the foreground of some would count as "no label"."""
    with pytest.raises(
        UndecidedError, match=r"some of the 3 files .* hold 255 and no 1, others 1 and no 255"
    ):
        decided(TWO, [MASKS[0], MASKS[1] * 255, MASKS[2]], tmp_path)
    void = np.where(TOP, 255, MASKS[1]).astype(np.uint8)
    encoding, paths = decided(TWO, [MASKS[0], void, void * 0 + 255], tmp_path)
    assert encoding.rules[Storage("NPY", "u", 8)].meaning == "ids"
    assert (encoding.read(paths[1]) == void).all()


@pytest.mark.parametrize("task", [TWO, MANY])
@pytest.mark.parametrize("kind", [np.float16, np.float32, ">f8"])
def test_nan_in_real_ids_is_no_label_and_infinity_no_id(task, kind, tmp_path):
    encoding, paths = decided(task, [np.where(TOP, np.nan, MASKS[0]).astype(kind)], tmp_path)
    assert (encoding.read(paths[0]) == np.where(TOP, 255, MASKS[0])).all()
    mapped, paths = decided(task, [np.where(TOP, np.nan, 10 * MASKS[0])], tmp_path, ids={0: 0, 10: 1})
    assert (mapped.read(paths[0]) == np.where(TOP, 255, MASKS[0])).all()
    np.save(paths[0], np.where(TOP, np.inf, MASKS[0]).astype(kind))
    with pytest.raises(DecodeError, match=r"0.npy: .*(whole numbers, found inf|no entry)"):
        decide_files(MANY, paths).read(paths[0])


@pytest.mark.parametrize(
    ("mark", "kind"), [(np.finfo(np.float32).max, np.float32), (123456.789, np.float32), (65504, np.float16)]
)
def test_the_option_that_a_doubt_names_finds_the_mark(mark, kind, tmp_path):
    arrays = [np.where(TOP, mark, DISTANCE).astype(kind)]
    doubt = decided(DEPTH, arrays, tmp_path)[0].doubts[0]
    said = float(doubt.split("invalid=[")[1].split("]")[0])
    encoding, paths = decided(DEPTH, arrays, tmp_path, invalid=said)
    assert (np.isnan(encoding.read(paths[0])[..., 0]) == np.broadcast_to(TOP, (H, W))).all()


def test_a_colour_that_a_doubt_names_is_found_in_real_numbers(tmp_path):
    vectors = RNG.normal(size=(H, W, 3))
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    arrays = [np.where(TOP[..., None], 127 / 255, (vectors + 1) / 2).astype(np.float32)]
    doubt = decided(NORMALS, arrays, tmp_path, encoding="shifted")[0].doubts[0]
    said = [float(item) for item in doubt.split("invalid=[(")[1].split(")]")[0].split(",")]
    encoding, paths = decided(NORMALS, arrays, tmp_path, encoding="shifted", invalid=[said])
    assert np.isnan(encoding.read(paths[0])[:3]).all()
    assert not np.isnan(encoding.read(paths[0])[3:]).any()


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ([DISTANCE / DISTANCE.max()], "exactly 1, as if each map had been divided by its largest distance"),
        ([-DISTANCE, -DISTANCE], "no number is above 0 in the 2 files"),
        ([DISTANCE, -DISTANCE], ""),
        ([DISTANCE / 6.5], ""),
        ([DISTANCE * 0], ""),
    ],
)
def test_lengths_that_are_none_are_said(arrays, words, tmp_path):
    doubts = decided(DEPTH, arrays, tmp_path)[0].doubts
    assert [words in doubt for doubt in doubts] == [True] * bool(words)
    assert not decided(DEPTH, [DISTANCE / DISTANCE.max()], tmp_path, scale=1)[0].doubts


def test_a_big_endian_tiff_and_planes_are_read_as_they_are(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", IDS.astype(np.uint16), byteorder=">", photometric="minisblack")
    assert (read_map(tmp_path / "a.tif", "ids").values[..., 0] == IDS).all()

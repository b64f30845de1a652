"""Damaged files of each format: refused by name, in one line, also where a library notices nothing."""

from __future__ import annotations

import gzip
import json
import pickle
import tracemalloc
import zipfile
from contextlib import suppress

import data_problems as problems
import numpy as np
import pytest
import torch
from PIL import Image
from report_records import make_record
from scipy.io import savemat

from mtvision.core.files.foreign import DecodeError, cause, reading
from mtvision.core.files.json_file import read_json
from mtvision.core.files.mat import load_mat
from mtvision.core.files.tiff import check_tiff
from mtvision.core.naming import ReportedError
from mtvision.data.decode import read_bytes
from mtvision.data.pascal_context.labels import read_label_map
from mtvision.evaluation.prediction_files import PredictionFiles
from mtvision.evaluation.prediction_manifest import PredictionFilesError, read_manifest
from mtvision.metrics.boundary.protocols import LABEL_MAP
from mtvision.metrics.boundary.readers import read_prediction, read_truth
from mtvision.models.convert.files import read_tensors
from mtvision.protocols.tasks import edge, semseg
from mtvision.report.record import Record, RecordError, find_records
from mtvision.runtime.checkpoint import CheckpointError, load_checkpoint

RNG = np.random.default_rng(0)


def flip(path, place):
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 16
    path.write_bytes(data)


@pytest.mark.fault("a prediction PNG with a wrong checksum", expected="refused by name")
@pytest.mark.parametrize("place", [0.4, 0.7, 0.95])
@pytest.mark.parametrize("kind", ["gray", "palette", "16 bits", "edge"])
@problems.CHECKSUMS
def test_predictions_with_a_wrong_checksum_are_not_scored(kind, place, tmp_path):
    task = edge() if kind == "edge" else semseg(tuple(f"c{number}" for number in range(300)))
    array = RNG.integers(0, 200, (30, 40)).astype(np.uint16 if kind == "16 bits" else np.uint8)
    path = tmp_path / task.name / "a.png"
    path.parent.mkdir()
    image = Image.fromarray(array)
    if kind == "palette":
        image.putpalette(list(range(256)) * 3)
    image.save(path)
    files = PredictionFiles.find(tmp_path, [task])
    files.read(task, "a", (30, 40))
    flip(path, place)
    with pytest.raises(DecodeError, match="a.png: the file is damaged"):
        files.read(task, "a", (30, 40))
    if kind != "16 bits" and kind != "palette":
        with pytest.raises(DecodeError, match="a.png: the file is damaged"):
            read_prediction(path)


def mat(path, compressed=True):
    savemat(path, {"LabelMap": RNG.integers(0, 400, (40, 50)).astype(np.uint16)}, do_compression=compressed)
    return path


@pytest.mark.fault("a damaged or cut .mat file", expected="refused by name")
@pytest.mark.parametrize("place", [0.2, 0.5, 0.98])
@problems.MATLAB
def test_matlab_files_with_a_wrong_checksum(place, tmp_path):
    path = mat(tmp_path / "a.mat")
    flip(path, place)
    for read in (load_mat, read_label_map, lambda file: read_truth(file, LABEL_MAP)):
        with pytest.raises(DecodeError, match=r"a\.mat: not a readable MATLAB file \("):
            read(path)


@pytest.mark.fault("a damaged or cut .mat file", expected="refused by name")
@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("size", [0, 3, 127, 140, 300, -1])
@problems.MATLAB
def test_matlab_files_that_were_cut_off(size, compressed, tmp_path):
    path = mat(tmp_path / "a.mat", compressed)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match=r"a\.mat: ") as caught:
        read_label_map(path)
    assert "\n" not in str(caught.value)


@problems.MATLAB
def test_matlab_files_that_are_something_else(tmp_path):
    path = tmp_path / "a.mat"
    for content in (b"\x89HDF\r\n\x1a\n", b"MATLAB 7.3".ljust(124) + b"\x00\x02IM"):
        path.write_bytes(content + bytes(500))
        with pytest.raises(DecodeError, match="a.mat: MATLAB 7.3 files are not read; save it with -v7"):
            load_mat(path)
    np.savez(tmp_path / "b.npz", np.ones(3))
    path.write_bytes((tmp_path / "b.npz").read_bytes())
    with pytest.raises(DecodeError, match="a.mat: not a readable MATLAB file"):
        load_mat(path)


@pytest.mark.fault("an .npy file that is a zip archive", expected="refused by name")
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@problems.ARRAYS
def test_npy_files_that_are_zip_archives(save, tmp_path):
    path = tmp_path / "edge" / "a.npy"
    path.parent.mkdir()
    with path.open("wb") as file:
        save(file, np.ones((4, 4), np.float32))
    files = PredictionFiles.find(tmp_path, [edge()])
    for read in (lambda: files.read(edge(), "a", (4, 4)), lambda: read_prediction(path)):
        with pytest.raises(DecodeError, match="a.npy: .*it is a zip archive"):
            read()


@pytest.mark.fault("a manifest of another form", expected="refused by name and field")
@pytest.mark.parametrize(
    "content",
    [
        [1, 2],
        None,
        {"version": "1"},
        {"version": True},
        {"tasks": ["semseg"]},
        {"tasks": {"semseg": 3}},
        {"tasks": {"semseg": ["x"]}},
        {"sizes": [[4, 4]]},
        {"sizes": {"a": 4}},
        {"sizes": {"a": [4, "4"]}},
        {"complete": "no"},
        {"tasks": {"../x": ".png"}},
        {"sizes": {"a": [4, 10**400]}},
    ],
)
@problems.MANIFESTS
def test_manifests_of_another_form(content, tmp_path):
    (tmp_path / "predictions.json").write_text(json.dumps(content))
    with pytest.raises(PredictionFilesError, match=r"predictions\.json: "):
        read_manifest(tmp_path)


def record_with(**changes):
    return json.dumps({**make_record().to_json(), **changes})


@pytest.mark.fault(
    "a record with a 400-digit integer, NaN or protocol=-1", expected="refused by name and field"
)
@pytest.mark.parametrize(
    ("text", "words"),
    [
        (record_with(seed=10**399), "an integer of 400 digits"),
        (record_with(scores={"semseg": {"miou": -(10**500)}}), "an integer of 502 digits"),
        ("9" * 6000, "digits"),
        (record_with(world_size=float("nan")), "NaN is no number in JSON"),
        (record_with(world_size=float("-inf")), "-Infinity is no number in JSON"),
        (record_with(method="\ud800"), "half of a character"),
        ("[" * 200_000, "nested too deeply"),
        ('{"a": 1, "a": 2}', "has the key 'a' twice"),
        (record_with(protocol=-1), "protocol"),
        (record_with(protocol=None), "protocol"),
        (record_with(tasks=-1), "tasks"),
        (record_with(scores=[1]), "scores"),
    ],
)
@problems.MANIFESTS
def test_records_that_no_reader_can_trust(text, words, tmp_path):
    path = tmp_path / "record.json"
    path.write_text(text)
    for read in (lambda: Record.load(path), lambda: find_records([path])):
        with pytest.raises(RecordError) as caught:
            read()
        assert "record.json" in str(caught.value)
        assert words in str(caught.value)


def test_emoji_are_whole_characters(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"a": "🚗", "number": 10**40}))
    assert read_json(path, strict=True) == {"a": "🚗", "number": 10**40}


@problems.BOMBS
def test_a_packed_json_file_takes_no_more_memory_than_it_has(tmp_path):
    path = tmp_path / "a.json.gz"
    path.write_bytes(gzip.compress(b"[1]"))
    tracemalloc.start()
    try:
        assert read_json(path, most_bytes=2**33) == [1]
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()
    flip(path, 0.9)
    with pytest.raises(DecodeError, match=r"a\.json\.gz: cannot be read \("):
        read_json(path)


STATE = {"a.weight": torch.arange(600.0).reshape(20, 30), "a.bias": torch.ones(4)}


@pytest.mark.fault(
    "a checkpoint of other code with a wrong checksum", expected="refused; the tensor is named"
)
@pytest.mark.parametrize("place", [0.5, 0.6, 0.7])
@problems.CHECKPOINT_FILES
def test_checkpoints_with_a_wrong_checksum(place, tmp_path):
    path = tmp_path / "a.pth"
    torch.save(STATE, path)
    with zipfile.ZipFile(path) as archive:
        info = max(archive.infolist(), key=lambda item: item.file_size)
    data = bytearray(path.read_bytes())
    data[info.header_offset + 200 + int(place * 2000)] ^= 1
    path.write_bytes(data)
    for read in (load_checkpoint, read_tensors):
        with pytest.raises(ValueError if read is read_tensors else CheckpointError) as caught:
            read(path)
        assert "a.pth" in str(caught.value)
        assert "wrong checksum of '" in str(caught.value)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("protocol", [-1, 0, 1, 3, 4])
@problems.CHECKPOINT_FILES
def test_checkpoints_of_other_pickle_protocols(protocol, tmp_path):
    path = tmp_path / "a.pth"
    for write in (
        lambda file: pickle.dump({"a": [1.0]}, file, protocol=protocol),
        lambda file: torch.save(STATE, file, pickle_protocol=protocol if protocol >= 0 else 5),
    ):
        with path.open("wb") as file:
            write(file)
        with suppress(ReportedError):
            load_checkpoint(path)


@pytest.mark.fault("a file that is no checkpoint", expected="refused by name, in one line")
@pytest.mark.parametrize("name", ["a.pth", "a.safetensors", "a.tar"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x02}", b"{}", bytes(100), b"\xff" * 9])
@problems.CHECKPOINT_FILES
def test_checkpoints_that_are_something_else(name, content, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    for read in (load_checkpoint, read_tensors):
        with pytest.raises(ValueError if read is read_tensors else CheckpointError) as caught:
            read(path)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate"])
@pytest.mark.parametrize("left", [4, 60, 0.4, 0.9])
@problems.DAMAGED_PICTURES
def test_a_tiff_whose_strips_are_cut_off(compression, left, tmp_path):
    path = tmp_path / "a.tif"
    Image.fromarray(RNG.integers(0, 255, (60, 70)).astype(np.uint8)).save(path, compression=compression)
    content = path.read_bytes()
    check_tiff(path, content)
    path.write_bytes(content[: int(left * len(content)) if left < 1 else left])
    with pytest.raises(DecodeError, match=r"a\.tif: not a readable TIFF, or one that was cut off \("):
        read_bytes(path)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "it needs more memory than there is"),
        (RecursionError("maximum"), "it is nested too deeply"),
        (IndexError("list index out of range"), "IndexError: list index out of range"),
        (ValueError(""), "ValueError"),
        (ValueError("one\ntwo"), "one"),
        (OSError(21, "Is a directory", "x"), "Is a directory"),
        (ValueError("bell \a and \ud800"), "bell ? and ?"),
        (OSError("cannot identify image file <_io.BytesIO object at 0x7f>"), "cannot identify image file"),
    ],
)
def test_causes_are_one_printable_line(error, words):
    assert cause(error) == words
    with pytest.raises(DecodeError) as caught, reading("a", "not b", "Do c."):
        raise error
    assert str(caught.value) == f"a: not b ({words}). Do c."


def test_errors_of_our_own_and_missing_files_keep_their_kind():
    for given, expected in ((DecodeError("x: y."), "x: y."), (FileNotFoundError(2, "no"), "a: no such file")):
        with pytest.raises(type(given), match=expected), reading("a", "not b", "Do c."):
            raise given

"""A small slice of `make fuzz`, in this process: no changed file is read wrong or fails without its name."""

from __future__ import annotations

import json
import random
import struct

import data_problems as problems
import numpy as np
import pytest
from fuzz.__main__ import as_json, main, table
from fuzz.attempt import BAD, BARE, GOOD, NAMELESS, REFUSED, SAME, judge, outcome_of, reference
from fuzz.mutations import mutated
from fuzz.readers import READERS, digest
from fuzz.seeds import MAKERS, WITH_CHECKSUM, seed

from mtvision.core.files.foreign import DecodeError
from mtvision.core.files.mat import load_mat

EACH = 6


def test_every_kind_has_a_maker_and_a_reader():
    assert MAKERS.keys() == READERS.keys()
    assert set(READERS) >= WITH_CHECKSUM


def test_mutations_are_always_the_same():
    first = [mutated("png_gray", seed("png_gray"), random.Random(number))[0] for number in range(30)]
    assert first == [mutated("png_gray", seed("png_gray"), random.Random(number))[0] for number in range(30)]
    assert len(set(first)) > 20


def test_outcomes(tmp_path):
    def fail(error):
        raise error

    path = tmp_path / "a.png"
    assert outcome_of(path, lambda: [1])[0] == SAME
    assert outcome_of(path, lambda: fail(ValueError("a.png: of a test, not of the suite")))[0] == BARE
    assert outcome_of(path, lambda: fail(ZeroDivisionError("a.png")))[0] == BARE
    assert outcome_of(tmp_path / "b.mat", lambda: load_mat(tmp_path / "b.mat"))[0] == REFUSED
    assert outcome_of(tmp_path / "c.mat", lambda: load_mat(tmp_path / "b.mat"))[0] == NAMELESS


def test_digests_differ_by_value_type_and_shape():
    values = (
        np.zeros(4),
        np.zeros((2, 2)),
        np.zeros(4, np.float32),
        np.ones(4),
        [0.0] * 4,
        {"a": 1},
        {"a": 2},
    )
    assert len({digest(value) for value in values}) == len(values)


@pytest.mark.slow
@pytest.mark.parametrize("kind", READERS)
@problems.CHANGED_FILES
def test_changed_files_are_refused_by_name_or_read(kind, tmp_path):
    reference(kind)
    results = [judge(kind, number, tmp_path / str(number)) for number in range(EACH)]
    assert [result for result in results if result.outcome in BAD] == []
    assert kind in table(results)
    assert sum(as_json(results)["kinds"][kind][name] for name in GOOD) == EACH


@pytest.mark.slow
def test_the_command_prints_the_table_as_json(capfd):
    assert main(["--count", "4", "--only", "bmp", "ids", "--json"]) == 0
    printed = json.loads(capfd.readouterr().out)
    assert printed["files"] == 4
    assert printed["kinds"].keys() == {"bmp", "ids"}
    assert printed["bad"] == []


@pytest.mark.parametrize("kind", ["mat", "mat_deflate"])
@pytest.mark.parametrize(("place", "value"), [(944, 0x8004), (944, 0x80), (944, 0), (468, 0x80), (472, 99)])
@problems.MATLAB
def test_matlab_files_that_crash_scipy_are_refused(kind, place, value, tmp_path):
    """Found by `make fuzz`: scipy looks a type up in a table without looking at its length."""
    import zlib

    content = seed(kind)
    parts, position = [content[:128]], 128
    variables = b""
    while position < len(content):
        number, size = struct.unpack_from("<II", content, position)
        data = content[position + 8 : position + 8 + size]
        variables += zlib.decompress(data) if number == 15 else content[position : position + 8 + size]
        position += 8 + size
    changed = variables[:place] + struct.pack("<I", value) + variables[place + 4 :]
    position = 0
    while position < len(changed):
        (size,) = struct.unpack_from("<I", changed, position + 4)
        element = changed[position : position + 8 + size]
        packed = zlib.compress(element)
        parts.append(struct.pack("<II", 15, len(packed)) + packed if kind == "mat_deflate" else element)
        position += 8 + size
    path = tmp_path / "a.mat"
    path.write_bytes(b"".join(parts))
    with pytest.raises(DecodeError, match=r"a\.mat: not a readable MATLAB file \("):
        load_mat(path)

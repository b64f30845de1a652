"""Lists of ids as people write them: encodings, ends of lines, comments, endings, paths, columns."""

from __future__ import annotations

import os

import data_problems as problems
import numpy as np
import pytest
from PIL import Image

from mtvision.cli.results.evaluate_boundaries import main as evaluate_boundaries
from mtvision.core.files import text
from mtvision.core.files.ids import lines_of, matched_ids
from mtvision.core.files.text import read_ids, read_lines, read_text, split_lines
from mtvision.data.folder import FolderDataset
from mtvision.data.published import read_split
from mtvision.protocols import own_protocol

ONE = own_protocol("one", {"semseg": {"class_names": ["a", "b"]}})
NAMES = ("a", "b", "b #1", "sub/c", "\u00fc", "d e")
CLEAN = "a\nb\n\u00fc\n"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    for kind in ("images", "labels"):
        for name in NAMES:
            path = folder / kind / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.zeros((4, 4), np.uint8)).save(path)
    return folder


def ids_of(root, content, name="list.txt"):
    (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    labels = {"semseg": "labels"}
    dataset = FolderDataset(root, labels=labels, protocol=ONE, ids=name)
    return dataset.ids, dataset.remarks()


GOOD = {
    "UTF-8": CLEAN.encode(),
    "UTF-8 with a mark": CLEAN.encode("utf-8-sig"),
    "UTF-16 LE": b"\xff\xfe" + CLEAN.encode("utf-16-le"),
    "UTF-16 BE": b"\xfe\xff" + CLEAN.encode("utf-16-be"),
    "UTF-32": CLEAN.encode("utf-32"),
    "Windows": CLEAN.replace("\n", "\r\n").encode(),
    "old Mac": CLEAN.replace("\n", "\r").encode(),
    "mixed": "a\r\nb\r\u00fc\n".encode(),
    "no last end": CLEAN.strip().encode(),
    "blank lines": "\n\n a \n\t\nb\t \n\u00fc \n\n".encode(),
    "comments": "# train split\na  # first\nb\t# second\n   # nothing\n\u00fc\n".encode(),
    "decomposed": "a\nb\nu\u0308\n".encode(),
    "marks of direction": "a\u200f\n\u200eb\n\u00fc\u2028\n".encode(),
    "two marks": b"\xef\xbb\xbfa\n" + "\ufeffb\n\u00fc\u200b\xa0\n".encode(),
}


@pytest.mark.parametrize("kind", GOOD)
@problems.LISTS
def test_lists_are_read_as_editors_write_them(kind, root):
    assert ids_of(root, GOOD[kind]) == (["a", "b", "\u00fc"], ())
    assert read_split(root / "list.txt") == ["a", "b", "\u00fc"]


@pytest.mark.parametrize(
    "content",
    [
        "a.png\nsub/c.png\n",
        "images/a\nimages/sub/c\n",
        "images/a.jpg\nimages/sub/c.PNG\n",
        "./a\n./sub/c\n",
        "../images/a.png\n../images/sub/c.png\n",
        "images\\a.png\r\nimages\\sub\\c.png\r\n",
        "ROOT/images/a.png\nROOT/images/sub/c.png\n",
        "PARENT/images/a\nPARENT/images/sub/c\n",
        "/home/me/set/images/a.png\n/home/me/set/images/sub/c.png\n",
        "C:\\set\\images\\a.png\r\nC:\\set\\images\\sub\\c.png\r\n",
        "file:///set/images/a.png\nfile:///set/images/sub/c.png\n",
        "/a.png\n/sub/c.png\n",
    ],
)
@problems.LIST_PATHS
def test_file_names_and_paths_of_images_are_ids_and_this_is_said_once(content, root):
    content = content.replace("ROOT", str(root)).replace("PARENT", root.name)
    ids, remarks = ids_of(root, content)
    assert ids == ["a", "sub/c"]
    first = content.split()[0]
    assert remarks == (f"{root}/list.txt: 2 ids are file names or paths; '{first}' is read as 'a'.",)


def test_an_id_may_hold_blanks_and_what_looks_like_a_comment(root):
    assert ids_of(root, "b #1\nd e # with a blank\nb # the other\n") == (["b #1", "d e", "b"], ())


BAD = {
    "twice": ("a\nb\n\na\n", "id 'a' occurs twice, in lines 1 and 4"),
    "twice in two ways": ("a\nb\na.png\n", r"id 'a' occurs twice \(as 'a' and 'a.png'\), in lines 1 and 3"),
    "empty": ("", "holds no id"),
    "only comments": ("# a\n\n  # b\n", "holds no id"),
    "Latin-1": ("a\n\u00fc\n".encode("latin-1"), "line 2: not UTF-8 .byte 0xfc.*Save the file as UTF-8"),
    "Windows-1252": ("a\r\nb\r\n\u201ca\u201d".encode("cp1252"), "line 3: not UTF-8 .byte 0x93"),
    "NUL bytes": (b"a\0b\n", "NUL bytes"),
    "UTF-16 without a mark": (CLEAN.encode("utf-16-le"), "perhaps UTF-16 without a byte-order mark"),
    "half a character": (b"\xff\xfea\0b", "no text"),
    "a picture": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "no text, expected UTF-8. It is a binary file"),
    "gzip": (b"\x1f\x8b\x08\x08\xc0\xff\xee", "no text"),
    "control characters": ("a\x1b[0m\n", "no text"),
    "header": ("image_id\na\nb\n", r"names 'image_id'.*If it is the header of a table, remove it"),
    "pairs": ("images/a.png labels/a.png\nimages/b.png labels/b.png\n", "looks like several columns"),
    "VOC": ("a  1\nb -1\n", "looks like several columns; expected one id a line.*ids="),
    "CSV": ("a,b\n", "several columns"),
    "tabs": ("a\tb\n", "several columns"),
    "a blank that is none": ("sub\u00a0c\n", r"It holds U\+00A0 \(NO-BREAK SPACE\), which cannot be seen"),
    "a hyphen that is none": ("a\u00adb\n", r"It holds U\+00AD \(SOFT HYPHEN\)"),
    "quoted": ('"a",\n', "in quotation marks or ends in a comma"),
    "without its folder": ("c\n", "'sub/c' has this name; ids hold the sub-folder too"),
    "another split": ("val/a\n", "names 'val/a', but .*1 of 1 are missing, the first in line 1"),
    "another case": ("A\n", "'a' differs in upper and lower case"),
    "unknown": (
        "a\n# x\nz\n",
        "names 'z', but .*1 of 2 are missing, the first in line 3.*Ids are file names",
    ),
}


@pytest.mark.parametrize("kind", BAD)
@problems.LIST_MISTAKES
def test_lists_that_cannot_be_right_are_refused_by_name(kind, root):
    content, message = BAD[kind]
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        ids_of(root, content)
    assert f"{root}/list.txt" in str(error.value)


@pytest.mark.parametrize(
    "kind", ["twice", "empty", "Latin-1", "NUL bytes", "a picture", "VOC", "CSV", "tabs"]
)
@problems.LIST_MISTAKES
def test_lists_of_published_sets_are_refused_for_the_same_reasons(kind, tmp_path):
    content, message = BAD[kind]
    path = tmp_path / "train.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message.removesuffix(".*ids=")) as error:
        read_split(path)
    assert str(path) in str(error.value)


def test_lists_of_published_sets_may_hold_file_names(tmp_path, caplog):
    images = tmp_path / "JPEGImages"
    images.mkdir()
    for name in ("2008_1.jpg", "2008_2.JPG", "._2008_1.jpg"):
        (images / name).touch()
    path = tmp_path / "train.txt"
    path.write_text("JPEGImages/2008_1.jpg\n2008_2.jpg\n2008_3.jpg\n")
    assert read_split(path, images, (".jpg",)) == ["2008_1", "2008_2", "2008_3.jpg"]
    assert "2 ids are file names or paths" in caplog.text
    os.rename(path, tmp_path / "Train.txt")
    with pytest.raises(
        FileNotFoundError, match=r"train\.txt: the list of image ids is missing. There is 'Tr"
    ):
        read_split(path, images, (".jpg",))


def test_the_boundary_tool_reads_lists_in_the_same_way(root, tmp_path, capsys):
    listed = tmp_path / "list.txt"
    listed.write_text("a\na\n")
    arguments = [str(root / "images"), str(root / "labels"), "--protocol", "bsds", "--images", str(listed)]
    with pytest.raises(ValueError, match="id 'a' occurs twice, in lines 1 and 2"):
        evaluate_boundaries([*arguments, "--subset"])
    listed.write_bytes("\ufeffa.png # first\r\nA\r\n".encode())
    with pytest.raises(
        FileNotFoundError, match=r"1 of 2 images have no ground truth: A. 'a' differs in upper"
    ):
        evaluate_boundaries([*arguments, "--subset"])


def test_only_line_feeds_and_carriage_returns_end_lines():
    assert split_lines("a\x85b\u2028c\x0bd\r\ne\rf\ng") == ["a\x85b\u2028c\x0bd", "e", "f", "g"]


def test_lines_have_numbers_and_files_are_checked_first(tmp_path, monkeypatch):
    path = tmp_path / "x.txt"
    path.write_text("# head\n\na # c\n")
    assert [tuple(line) for line in read_lines(path)] == [("a", 3, "a # c")]
    with pytest.raises(FileNotFoundError, match="a folder, expected a text file"):
        read_text(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"X\.txt: no such file. There is 'x\.txt', which differs"):
        read_ids(tmp_path / "X.txt")
    monkeypatch.setattr(text, "MAX_BYTES", 5)
    with pytest.raises(ValueError, match="14 bytes, expected a list of at most 5"):
        read_ids(path)


def test_a_line_that_may_mean_two_images_means_none(tmp_path):
    known = {"images/a", "a"}
    found = matched_ids(
        lines_of(["images/a.png"]), known, where="ids=", folder=tmp_path / "images", endings=(".png",)
    )
    assert [line.text for line in found.missing] == ["images/a.png"]


@pytest.mark.parametrize("ids", [[1], ["a", None], [["a"]]])
def test_ids_that_are_no_text_are_refused(ids, root):
    with pytest.raises(TypeError, match="ids= holds .*, expected texts. Write ids in quotation marks"):
        FolderDataset(root, labels={"semseg": "labels"}, protocol=ONE, ids=ids)

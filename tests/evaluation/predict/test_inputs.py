"""Inputs as people name them: which files are found, and what their outputs are called."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import data_problems as problems
import pytest
from people import write_photo

from mtvision.evaluation.predict.inputs import Source, find_inputs
from mtvision.evaluation.predict.names import output_names


def found_names(texts, tmp_path):
    found = find_inputs([str(text) for text in texts], tmp_path / "out")
    return output_names(found.sources), found


@problems.INPUTS
def test_a_folder_is_searched_with_its_sub_folders_and_what_is_left_out_is_counted(tmp_path):
    for name in ("b.JPG", "a.png", "sea/c.webp", "sea/d.MP4", ".hidden.png", "._a.png", "__MACOSX/a.png"):
        write_photo(tmp_path / "in" / name)
    for name in ("notes.txt", "x.tfw", "sea/README", ".git/e.png"):
        write_photo(tmp_path / "in" / name)
    names, found = found_names([tmp_path / "in"], tmp_path)
    assert names == ["a", "b", "sea/c", "sea/d"]
    assert [source.kind for source in found.sources] == ["image", "image", "image", "video"]
    assert found.summary() == (
        "left out, as no picture or video: 1 .tfw, 1 .txt, 1 without ending; left out: "
        "1 resource fork (._a.png), 2 hidden (.hidden.png), 1 system folder (__MACOSX/)"
    )
    assert found.problems == {}


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["a/x.jpg", "b/x.jpg"], ["a/x", "b/x"]),
        (["a/x.jpg", "a/x.png"], ["x.jpg", "x.png"]),
        (["a/x.jpg", "a/x.png", "b/x.jpg"], ["x.jpg", "x.png", "b/x"]),
        (["a/s/x.jpg", "b/s/x.jpg", "y.jpg"], ["a/s/x", "b/s/x", "y"]),
        (["a/x.jpg", "b/X.png"], ["a/x", "b/X"]),
        (["a/x.jpg", "a/X.JPG"], ["x.jpg", "X.JPG-2"]),
        (["a/caf\u00e9.png", "a/cafe\u0301.jpg"], ["caf\u00e9.png", "cafe\u0301.jpg"]),
        (["a/x.png/y.jpg", "a/z.png/y.jpg"], ["x_png/y", "z_png/y"]),
        (["a/.x.png"], ["_.x"]),
        (["a/x.tar.png"], ["x.tar"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
@problems.OWN_NAMES
def test_no_two_inputs_share_a_name(files, names):
    sources = [Source(file, "image", Path(file), tuple(file.split("/"))) for file in files]
    assert output_names(sources) == names


@problems.OWN_NAMES
def test_long_and_refused_names_become_ones_that_a_file_system_takes(tmp_path):
    sources = [
        Source(text, "image", None, ("host", text))
        for text in ("ä" * 200 + ".png", "ä" * 201 + ".png", "a?b:c.png", "x.png", "x.png")
    ]
    long, longer, odd, first, second = output_names(sources)
    assert long != longer
    assert all(
        (tmp_path / f".{name}.0123456789ab.part.png").open("wb").close() is None for name in (long, longer)
    )
    assert (odd, first, second) == ("a_b_c", "x.png", "x.png-2")


@problems.DAMAGED_INPUTS
def test_a_folder_in_which_folders_are_called_like_pictures(tmp_path):
    write_photo(tmp_path / "in/x.png/inner.jpg")
    write_photo(tmp_path / "in/x.jpg")
    (tmp_path / "in/y.png").mkdir()
    names, found = found_names([tmp_path / "in"], tmp_path)
    assert names == ["x", "x_png/inner"]
    assert list(found.problems.values()) == [f"{tmp_path / 'in/y.png'}: an empty folder, no picture."]


def test_an_input_given_twice_is_used_once(tmp_path):
    path = write_photo(tmp_path / "in/a.png")
    os.symlink(path, tmp_path / "in/link.png")
    names, found = found_names([path, tmp_path / "in", f"{tmp_path}/in/*.png", path], tmp_path)
    assert names == ["a"]
    assert found.summary() == "repetitions left out: 5"


def test_linked_folders_are_followed_broken_links_are_listed_and_circular_ones_counted(tmp_path):
    write_photo(tmp_path / "in/a.png")
    write_photo(tmp_path / "elsewhere/b.png")
    os.symlink(tmp_path / "elsewhere", tmp_path / "in/more")
    os.symlink(tmp_path / "in", tmp_path / "in/again")
    os.symlink("gone.png", tmp_path / "in/b.png")
    os.symlink("c.png", tmp_path / "in/c.png")
    names, found = found_names([tmp_path / "in"], tmp_path)
    assert names == ["a", "more/b"]
    assert found.dropped == [("again/", "link to a folder that holds it")]
    assert len(found.problems) == 2
    assert "a link to gone.png, which is gone" in found.problems[str(tmp_path / "in/b.png")]


@problems.INPUTS
def test_globs_are_expanded_here_and_go_through_folders(tmp_path):
    for name in ("a.png", "b.txt", "sub/c.png", "sub/deep/d.png", "[e].png"):
        write_photo(tmp_path / "in" / name)
    assert found_names([f"{tmp_path}/in/*"], tmp_path)[0] == ["[e]", "a", "c", "deep/d"]
    assert found_names([f"{tmp_path}/in/**/*.png"], tmp_path)[0] == ["[e]", "a", "c", "d"]
    assert found_names([f"{tmp_path}/in/[e].png"], tmp_path)[0] == ["[e]"]  # the file, not the pattern


LISTS = {
    "lines": lambda names: "\n".join(names).encode(),
    "windows": lambda names: b"\xef\xbb\xbf" + "\r\n".join([*names, "", " "]).encode(),
    "find -print0": lambda names: "\0".join(names).encode() + b"\0",
}


@pytest.mark.parametrize("kind", LISTS)
@problems.INPUTS
def test_standard_input_is_a_list_of_paths(kind, tmp_path, monkeypatch):
    paths = [write_photo(tmp_path / "in" / name) for name in ("a b.png", "ü.png")]
    content = LISTS[kind]([str(path) for path in paths])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert found_names(["-"], tmp_path)[0] == ["a b", "ü"]


MISTAKES = {
    "gone.png": "gone.png does not exist.",
    "0": "0 does not exist. A camera is camera:0.",
    "camera:front": "camera:front: expected a number behind camera:",
    "*.nothing": "*.nothing: no file matches",
    "ftp://host/a.png": "expected an address that begins with http:// or https://",
    "https:///a.png": "expected an address that begins with http:// or https://",
    "EMPTY": "no image or video in this folder or below it.",
    "TEXTS": "no image or video in this folder or below it (left out, as no picture or video: 1 .txt).",
    "/dev/null": "a device or a pipe",
    "~nobody-of-this-name/a.png": "no such home folder",
    "http://[x/a.jpg": "no address (Invalid IPv6 URL)",
    "n" * 5000: "File name too long",
}


@pytest.mark.parametrize("text", MISTAKES, ids=lambda text: text[:20])
@problems.DAMAGED_INPUTS
def test_an_input_that_cannot_be_used_is_named(text, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/a.txt").touch()
    places = {"EMPTY": str(tmp_path / "empty"), "TEXTS": str(tmp_path / "texts")}
    given = places.get(text, text)
    with pytest.raises(ValueError) as error:
        find_inputs([given], tmp_path / "out")
    assert MISTAKES[text] in str(error.value)
    good = write_photo(tmp_path / "good.png")
    found = find_inputs([given, str(good)], tmp_path / "out")  # the rest continues
    assert [source.path for source in found.sources] == [good]
    assert MISTAKES[text] in found.problems[given]


def test_outputs_are_no_inputs(tmp_path):
    write_photo(tmp_path / "in/a.png")
    write_photo(tmp_path / "in/out/a.png")
    assert output_names(find_inputs([str(tmp_path / "in")], tmp_path / "in/out").sources) == ["a"]
    pattern = str(tmp_path / "in/**/*.png")
    assert output_names(find_inputs([pattern], tmp_path / "in/out").sources) == ["a"]
    with pytest.raises(ValueError, match="is a folder of inputs"):
        find_inputs([str(tmp_path / "in")], tmp_path / "in/../in")


def test_two_hard_links_are_two_inputs_and_a_tilde_may_begin_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.link(write_photo(tmp_path / "a.png"), tmp_path / "~b.png")
    assert output_names(find_inputs(["a.png", "~b.png"], tmp_path / "out").sources) == ["a", "~b"]


def test_files_without_an_ending_are_known_by_their_first_bytes(tmp_path):
    picture = write_photo(tmp_path / "photo")
    film = tmp_path / "film"
    film.write_bytes(b"\0\0\0\x18ftypmp42" + bytes(20))
    heic = tmp_path / "heic"
    heic.write_bytes(b"\0\0\0\x18ftypheic" + bytes(20))
    found = find_inputs([str(picture), str(film), str(heic)], tmp_path / "out")
    assert [source.kind for source in found.sources] == ["image", "video", "image"]


def test_addresses_have_the_name_of_their_last_part(tmp_path):
    addresses = [
        "http://host/a/one%20two.png?x=1#y",
        "https://host/film.mp4?t=3",
        "http://host",
        "http://host/a.png?1",
    ]
    names, found = found_names(addresses, tmp_path)
    assert names == ["one two", "film", "host", "a"]
    assert [source.kind for source in found.sources] == ["image", "video", "image", "image"]
    assert all(source.is_url for source in found.sources)

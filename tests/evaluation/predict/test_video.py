"""Videos are read whole or said to be cut, and written so that they play."""

from __future__ import annotations

import logging
import sys

import cv2
import data_problems as problems
import numpy as np
import pytest
from people import write_video

from mtvision.evaluation.predict import video
from mtvision.evaluation.predict.video import Frames, VideoError, VideoFile


def ramp(count, size=(48, 64)):
    return [np.full((*size, 3), (40 * index, 90, 200), dtype=np.uint8) for index in range(count)]


def write(path, pictures, rate=5.0):
    with VideoFile(path, rate) as file:
        for picture in pictures:
            file.write(picture)


@pytest.fixture(params=["h264", "mpeg4"])
def codec(request, monkeypatch):
    if request.param == "h264":
        pytest.importorskip("av")
    monkeypatch.setattr(video, "has_h264", lambda: request.param == "h264")
    return request.param


@problems.VIDEO_CODECS
def test_what_is_written_can_be_read(codec, tmp_path):
    write(tmp_path / "a.mp4", ramp(5))
    frames = Frames(tmp_path / "a.mp4", "a.mp4")
    assert (frames.total, frames.rate) == (5, 5.0)
    read = list(frames)
    assert len(read) == 5
    for picture, expected in zip(read, ramp(5), strict=True):
        assert np.abs(picture.astype(int) - expected).mean() < 12
    if codec == "h264":
        capture = cv2.VideoCapture(str(tmp_path / "a.mp4"))
        code = int(capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little")
        assert code in (b"avc1", b"h264")
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize("rate", [0.5, 23.976, 29.97, 30, 59.94, 120])
def test_rates_are_kept(codec, rate, tmp_path):
    write(tmp_path / "a.mp4", ramp(3), rate)
    assert Frames(tmp_path / "a.mp4", "a").rate == pytest.approx(rate, rel=2e-3)


def test_sides_are_made_even_and_pictures_of_another_size_fitted(codec, tmp_path):
    write(tmp_path / "a.mp4", [ramp(1, (31, 45))[0], ramp(1, (60, 20))[0], ramp(1, (8, 80))[0]])
    assert {picture.shape for picture in Frames(tmp_path / "a.mp4", "a")} == {(32, 46, 3)}


def test_a_video_that_failed_leaves_nothing(codec, tmp_path):
    def broken():
        yield from ramp(2)
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="disk is full"):
        write(tmp_path / "a.mp4", broken())
    write(tmp_path / "none.mp4", [])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("suffix", "code"), [(".avi", "MJPG"), (".mkv", "MJPG"), (".mp4", "mp4v")])
@problems.CUT_VIDEOS
def test_a_cut_video_gives_its_frames_and_then_says_so(suffix, code, tmp_path):
    whole = write_video(tmp_path / f"a{suffix}", 40, code=code)
    assert len(list(Frames(whole, "a"))) == 40
    assert len(list(Frames(whole, "a", limit=7))) == 7
    content = whole.read_bytes()
    cut = tmp_path / f"cut{suffix}"
    cut.write_bytes(content[: len(content) // 2])
    read: list[np.ndarray] = []
    with pytest.raises(VideoError, match=f"the cut {suffix}: (ends after|not a video|no frame)"):
        read.extend(Frames(cut, f"the cut {suffix}"))
    assert len(read) < 40
    assert bool(read) == (suffix != ".mp4")  # whose index was at its end


@problems.CUT_VIDEOS
def test_a_cut_video_with_its_index_first_gives_what_is_there(tmp_path):
    pytest.importorskip("av")
    whole = tmp_path / "a.mp4"
    noise = np.random.default_rng(0).integers(0, 256, (30, 48, 64, 3), dtype=np.uint8)
    write(whole, noise)
    assert len(list(Frames(whole, "a"))) == 30
    content = whole.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(VideoError, match=r"cut: ends after \d+ of 30 frames"):
        list(Frames(tmp_path / "cut.mp4", "cut"))


@pytest.mark.parametrize("content", [b"", b"text", b"\0\0\0\x18ftypmp42" + bytes(500)])
@problems.CUT_VIDEOS
def test_files_that_are_no_videos_are_named(content, tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    with pytest.raises(VideoError, match="holiday: not a video that can be read"):
        list(Frames(path, "holiday"))


def test_an_absent_camera_is_named():
    with pytest.raises(VideoError, match="camera:63: no such camera"):
        Frames(63, "camera:63")


@problems.VIDEO_CODECS
def test_without_pyav_one_line_says_what_browsers_do(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "av", None)
    video.has_h264.cache_clear()
    with caplog.at_level(logging.WARNING, "mtvision"):
        assert not video.has_h264()
        assert not video.has_h264()
    assert len(caplog.records) == 1
    assert "mtvision[video]" in caplog.text
    video.has_h264.cache_clear()

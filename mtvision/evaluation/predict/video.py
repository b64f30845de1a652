"""Videos and cameras, frame by frame, and videos of pictures in H.264."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from mtvision.data.pictures import silent_opencv
from mtvision.runtime.atomic import atomic_path

_log = logging.getLogger("mtvision")
DEFAULT_RATE = 25.0
RATES = (0.1, 240.0)
"""Frames per second that are believed; some files and cameras state none, or the ticks of a clock."""


class VideoError(OSError):
    """A video that cannot be opened, or that ends too early; the message names it."""


class Frames:
    """The frames of a video or camera, RGB (H, W, 3), uint8, upright.

    Args:
        source: a file, or the number of a camera.
        name: what messages call it.
        limit: most frames; None = all.

    Raises:
        VideoError: it cannot be opened.
    """

    def __init__(self, source: Path | int, name: str, limit: int | None = None) -> None:
        self.name = name
        with silent_opencv():
            self._capture = cv2.VideoCapture(source if isinstance(source, int) else str(source))
        if not self._capture.isOpened():
            what = "no such camera" if isinstance(source, int) else "not a video that can be read, or cut off"
            raise VideoError(f"{name}: {what}. Try another player; convert it to H.264 in .mp4.")
        rate = float(self._capture.get(cv2.CAP_PROP_FPS))
        self.rate = rate if RATES[0] <= rate <= RATES[1] else DEFAULT_RATE
        stated = 0 if isinstance(source, int) else int(max(self._capture.get(cv2.CAP_PROP_FRAME_COUNT), 0))
        self._stated, self._limit = stated, limit
        self.total = min(stated, limit) if limit and stated else stated or limit or 0
        """How many are expected; 0 = unknown."""

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        """The frames.

        Raises:
            VideoError: no frame, or fewer than the file states.
        """
        count, seconds = 0, 0.0
        try:
            while self._limit is None or count < self._limit:
                with silent_opencv():
                    read, frame = self._capture.read()
                if not read:
                    break
                count += 1
                seconds = float(self._capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000
                yield _rgb(frame)
        finally:
            self._capture.release()
        if not count:
            raise VideoError(f"{self.name}: no frame could be read; convert it to H.264 in .mp4.")
        # Matroska states no number of frames. OpenCV guesses it from the duration, so both must fall short.
        too_few = count < self._stated - 1 and (self._limit is None or count < self._limit)
        if too_few and seconds + 2 / self.rate < 0.98 * self._stated / self.rate:
            raise VideoError(
                f"{self.name}: ends after {count} of {self._stated} frames; the file is cut off or "
                "damaged. What was read is predicted; copy the file again for the rest."
            )


def _rgb(frame: NDArray[Any]) -> NDArray[np.uint8]:
    if frame.ndim == 2:
        frame = np.repeat(frame[..., None], 3, axis=2)
    return np.ascontiguousarray(frame[..., 2::-1], dtype=np.uint8)


class PictureSink(Protocol):
    """Takes pictures of one size, one after another."""

    def write(self, picture: NDArray[np.uint8]) -> None:
        """Add a picture."""

    def close(self) -> None:
        """Complete the file."""


class VideoFile:
    """A video that appears whole, or not at all, when it is closed.

    It is H.264 with PyAV (extra `video`), which browsers play; without it MPEG-4 part 2 by OpenCV. The first
    picture decides the size; later ones are cut off or filled with white. Sides are made even.

    Args:
        path: `.mp4`.
        rate: frames per second.
    """

    def __init__(self, path: Path, rate: float) -> None:
        self.path, self._rate = path, rate
        self._parts = ExitStack()
        self._sink: PictureSink | None = None
        self._size = (0, 0)

    def write(self, picture: NDArray[np.uint8]) -> None:
        """Add a picture (H, W, 3).

        Raises:
            OSError: the file cannot be written.
        """
        if self._sink is None:
            self._size = (-(-picture.shape[0] // 2) * 2, -(-picture.shape[1] // 2) * 2)
            # both libraries choose the format by the ending
            temporary = self._parts.enter_context(atomic_path(self.path, suffix=".part.mp4"))
            self._sink = _sink(temporary, self._rate, self._size)
            self._parts.callback(self._sink.close)
        frame = np.full((*self._size, 3), 255, dtype=np.uint8)
        part = picture[: self._size[0], : self._size[1]]
        frame[: part.shape[0], : part.shape[1]] = part
        self._sink.write(frame)

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._parts.__exit__(kind, error, trace)


def _sink(path: Path, rate: float, size: tuple[int, int]) -> PictureSink:
    return _H264(path, rate, size) if has_h264() else _Mpeg4(path, rate, size)


@lru_cache(maxsize=1)
def has_h264() -> bool:
    """Whether PyAV is there with an H.264 encoder; if not, one line in the log says what that means."""
    try:
        import av

        av.codec.Codec("h264", "w")
    except (ImportError, ValueError, AttributeError) as error:
        _log.warning(
            "videos are written as MPEG-4 part 2, which browsers may not play: %s. "
            "`pip install 'mtvision[video]'` writes H.264.",
            error,
        )
        return False
    return True


class _H264:
    def __init__(self, path: Path, rate: float, size: tuple[int, int]) -> None:
        import av

        self._container = av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"})
        stream = self._container.add_stream("h264", rate=Fraction(rate).limit_denominator(1001))
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"  # the only layout that every browser plays
        stream.options = {"crf": "18", "preset": "medium"}
        self._stream, self._frame = stream, av.VideoFrame.from_ndarray

    def write(self, picture: NDArray[np.uint8]) -> None:
        frame = self._frame(picture, format="rgb24")
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        self._container.mux(self._stream.encode())
        self._container.close()


class _Mpeg4:
    def __init__(self, path: Path, rate: float, size: tuple[int, int]) -> None:
        code = cv2.VideoWriter.fourcc(*"mp4v")
        self._writer = cv2.VideoWriter(str(path), code, round(rate, 3), (size[1], size[0]))
        if not self._writer.isOpened():
            raise OSError(f"{path.name}: OpenCV cannot write .mp4. `pip install 'mtvision[video]'`.")

    def write(self, picture: NDArray[np.uint8]) -> None:
        self._writer.write(np.ascontiguousarray(picture[..., ::-1]))

    def close(self) -> None:
        self._writer.release()

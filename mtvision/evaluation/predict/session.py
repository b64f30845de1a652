"""From inputs to outputs: read, predict and write; what fails is remembered, and the rest continues."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePath
from typing import Any, TypeVar
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from mtvision.core.context import Context
from mtvision.core.files.foreign import ForeignError, foreign_errors
from mtvision.evaluation.overlap import ahead
from mtvision.evaluation.predict.download import downloaded
from mtvision.evaluation.predict.inputs import CAMERA, Source
from mtvision.evaluation.predict.outputs import Places
from mtvision.evaluation.predict.reading import read_picture
from mtvision.evaluation.predict.statistics import mean_statistics, statistics
from mtvision.evaluation.predict.video import Frames, VideoError, VideoFile
from mtvision.evaluation.predict.writing import CocoFiles, write_image, write_maps
from mtvision.evaluation.predictor import Prediction, Predictor
from mtvision.visualize import panel
from mtvision.visualize.overlays import overlay

T = TypeVar("T")
WRITERS = 2
"""Threads that draw and compress; together they take longer than a small network."""
Image = NDArray[np.uint8]


@dataclass
class Result:
    """What became of one input.

    Args:
        source: the input.
        outputs: written files.
        size: (H, W) of the image or video.
        frames: of a video.
        tasks: {task: statistics}.
        seconds: from reading to the last file; images of one batch share its time.
        error: why nothing, or not everything, was made.
    """

    source: Source
    outputs: list[Path] = field(default_factory=list)
    size: tuple[int, int] | None = None
    frames: int | None = None
    tasks: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        """A line of `--json`; keys without a value are left out."""
        plain = {
            "input": self.source.text,
            "outputs": [str(path) for path in self.outputs],
            "size": None if self.size is None else list(self.size),
            "frames": self.frames,
            "tasks": self.tasks,
            "seconds": round(self.seconds, 3),
            "error": self.error,
        }
        return {key: value for key, value in plain.items() if value is not None}


class Session:
    """Predicts inputs one after another.

    Args:
        predictor: the network.
        places: where outputs go.
        context: run-time state of a conditional network.
        batch: most images that pass the network together.
        frames: most frames of a video or camera; None = all.
    """

    def __init__(
        self,
        predictor: Predictor,
        places: Places,
        *,
        context: Context | None = None,
        batch: int = 1,
        frames: int | None = None,
    ) -> None:
        self._predictor, self._places, self._context = predictor, places, context
        self._batch, self._limit = batch, frames
        self._coco: CocoFiles | None = None

    def run(self, named: Iterable[tuple[Source, str]]) -> Iterator[Result]:
        """Predict inputs with the names of their outputs; results come in the same order.

        While the network computes, one thread reads the next images and others write the last. COCO files
        number what they hold, so that a single thread writes them.
        """
        count = 1 if self._places.numbers() else WRITERS
        runs = ((group, None if moving else _Images.of(group)) for moving, group in _runs(named, self._batch))
        with ThreadPoolExecutor(count) as writer:
            written: deque[Future[list[Result]]] = deque()
            for group, images in ahead(runs):
                while written and (images is None or len(written) > count):
                    yield from written.popleft().result()
                if images is None:
                    yield from (self._video(source, name) for source, name in group)
                else:
                    written.append(writer.submit(self._written, images, self._predict_all(images.read)))
            while written:
                yield from written.popleft().result()

    def finish(self) -> list[Path]:
        """Write what belongs to all inputs together.

        Raises:
            OSError: it cannot be written.
        """
        return self._coco.write(self._places) if self._coco is not None else []

    def _written(self, images: _Images, predictions: Sequence[Prediction | None]) -> list[Result]:
        for (result, name, image), prediction in zip(images.read, predictions, strict=True):
            if prediction is not None:
                _attempt(result, self._write, result, name, image, prediction)
        for result in images.results:
            result.seconds = (time.perf_counter() - images.start) / len(images.results)
        return images.results

    def _predict_all(self, named: Sequence[tuple[Result, str, Image]]) -> Sequence[Prediction | None]:
        """Together; if that fails, each alone, so that one image cannot spoil the others."""
        if not named:
            return []
        read = [(result, image) for result, _, image in named]
        trial = Result(read[0][0].source)
        together = _attempt(trial, self._predictor.batch, [image for _, image in read], self._context)
        if together is not None:
            return together
        if len(read) == 1:
            read[0][0].error = trial.error
            return [None]
        return [_attempt(result, self._predictor, image, self._context) for result, image in read]

    def _write(self, result: Result, name: str, image: Image, prediction: Prediction) -> None:
        kinds = self._places.kinds(result.source)
        result.size = (image.shape[0], image.shape[1])
        result.tasks = self._statistics(prediction)
        for path in write_image(self._places, kinds, name, image, prediction):
            result.outputs.append(path)
        result.outputs += self._add_to_coco(kinds, result.source.text, prediction)

    def _add_to_coco(self, kinds: Sequence[str], file: str, prediction: Prediction) -> list[Path]:
        """The files that will hold the masks, once `finish` writes them."""
        if "coco" not in kinds:
            return []
        self._coco = self._coco or CocoFiles(self._places.tasks)
        self._coco.add(file, prediction)
        return [self._places.coco(task) for task in self._coco.tasks]

    def _statistics(self, prediction: Prediction) -> dict[str, Any]:
        return {task.name: statistics(task, prediction[task.name]) for task in self._places.tasks}

    def _video(self, source: Source, name: str) -> Result:
        start, result = time.perf_counter(), Result(source)
        _attempt(result, self._predict_video, result, name)
        result.seconds = time.perf_counter() - start
        return result

    def _predict_video(self, result: Result, name: str) -> None:
        """Predict the frames; a camera ends with Ctrl-C or after `frames`."""
        found: list[dict[str, Any]] = []
        with _opened(result.source, self._limit) as frames, ExitStack() as stack:
            files = _VideoFiles(stack, self._places, self._places.kinds(result.source), name, frames.rate)
            iterator = iter(frames)
            try:
                while images := _some(iterator, self._batch, result):
                    for image, prediction in zip(
                        images, self._predictor.batch(images, self._context), strict=True
                    ):
                        files.write(len(found), image, prediction)
                        frame = f"{result.source.text}#{len(found)}"
                        files.note(self._add_to_coco(files.kinds, frame, prediction))
                        found.append(self._statistics(prediction))
                        result.size = (image.shape[0], image.shape[1])
            except KeyboardInterrupt:
                if result.source.kind != "camera" or not found:
                    raise
        result.outputs += files.paths if found else []
        result.frames = len(found)
        result.tasks = {task: mean_statistics([item[task] for item in found]) for task in (found or [{}])[0]}


@dataclass
class _Images:
    """Images that pass the network together.

    Args:
        results: of all, in order.
        read: (result, name, picture) of those that could be read.
        start: when reading began.
    """

    results: list[Result]
    read: list[tuple[Result, str, Image]]
    start: float

    @classmethod
    def of(cls, group: Sequence[tuple[Source, str]]) -> _Images:
        """The pictures of some inputs."""
        found = cls([Result(source) for source, _ in group], [], time.perf_counter())
        for result, (source, name) in zip(found.results, group, strict=True):
            image = _attempt(result, read_source, source)
            if image is not None:
                found.read.append((result, name, image))
        return found


Group = list[tuple[Source, str]]


class _VideoFiles:
    """Everything that is written of one video."""

    def __init__(
        self, stack: ExitStack, places: Places, kinds: Sequence[str], name: str, rate: float
    ) -> None:
        self.kinds, self._places, self._name = kinds, places, name
        self.paths: list[Path] = []
        self._panel = self._overlays = None
        if "panel" in kinds:
            self._panel = stack.enter_context(VideoFile(places.panel(name, ".mp4"), rate))
            self.paths.append(self._panel.path)
        if "overlay" in kinds:
            self._overlays = [
                stack.enter_context(VideoFile(places.overlay(name, task, ".mp4"), rate))
                for task in places.tasks
            ]
            self.paths += [file.path for file in self._overlays]

    def note(self, paths: Sequence[Path]) -> None:
        """Remember further files of this video."""
        self.paths += [path for path in paths if path not in self.paths]

    def write(self, index: int, image: Image, prediction: Mapping[str, NDArray[Any]]) -> None:
        """One frame."""
        if self._panel is not None:
            self._panel.write(panel(image, prediction, self._places.tasks))
        for task, file in zip(self._places.tasks, self._overlays or (), strict=False):
            file.write(overlay(image, task, prediction[task.name]))
        self.paths += write_maps(self._places, self.kinds, f"{self._name}/{index:06d}", prediction)


def _runs(named: Iterable[tuple[Source, str]], size: int) -> Iterator[tuple[bool, list[tuple[Source, str]]]]:
    """Consecutive images, at most `size` together; videos and cameras one by one."""
    group: list[tuple[Source, str]] = []
    for source, name in named:
        if source.kind == "image":
            group.append((source, name))
        if group and (len(group) == size or source.kind != "image"):
            yield False, group
            group = []
        if source.kind != "image":
            yield True, [(source, name)]
    if group:
        yield False, group


def _some(frames: Iterator[Image], size: int, result: Result) -> list[Image]:
    """The next frames; at a video's damaged end those before it, and the error in the result."""
    images: list[Image] = []
    try:
        for frame in islice(frames, size):
            images.append(frame)  # noqa: PERF402  what was read before an error counts
    except VideoError as error:
        result.error = str(error)
    return images


def _attempt(result: Result, action: Callable[..., T], *arguments: Any) -> T | None:
    """The action's value; a failure becomes the result's error."""
    try:
        with foreign_errors():
            return action(*arguments)
    except ForeignError as error:
        result.error = _line(result.source, error.error)
        return None


def _line(source: Source, error: Exception) -> str:
    """One line that names the input."""
    lines = str(error).splitlines() or [""]
    known = isinstance(error, OSError | ValueError)
    text = " ".join(lines) if known else f"{type(error).__name__}: {lines[0]}"
    named = source.text in text
    return text if named else f"{source.text}: {text}"


def read_source(source: Source) -> Image:
    """The picture of a file or an address, RGB (H, W, 3).

    Raises:
        OSError, ValueError: it cannot be had or read.
    """
    if not source.is_url:
        assert source.path is not None
        return read_picture(source.path)
    with downloaded(source.text, PurePath(urlsplit(source.text).path).suffix) as path:
        try:
            return read_picture(path)
        except (OSError, ValueError) as error:  # the message names the temporary file
            raise ValueError(str(error).replace(str(path), source.text)) from error


@contextmanager
def _opened(source: Source, limit: int | None) -> Iterator[Frames]:
    if source.kind == "camera":
        yield Frames(int(source.text.removeprefix(CAMERA)), source.text, limit)
    elif source.path is not None:
        yield Frames(source.path, source.text, limit)
    else:
        with downloaded(source.text, PurePath(urlsplit(source.text).path).suffix) as path:
            yield Frames(path, source.text, limit)

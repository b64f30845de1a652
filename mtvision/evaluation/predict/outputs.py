"""Which files a prediction is written to, planned before anything is computed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mtvision.core.naming import look_up
from mtvision.core.task import Task
from mtvision.evaluation.predict.inputs import Source

IMAGE_KINDS = {
    "panel": "NAME.png: the image beside all predictions, with legends; of a video NAME.mp4",
    "overlay": "overlay/TASK/NAME.png: a prediction over the image, at its size; of a video .mp4",
    "npz": "NAME.npz: all raw maps: class ids, metres, unit vectors, probabilities",
    "npy": "TASK/NAME.npy: one raw map a task",
    "png": "TASK/NAME.png: class and instance ids, other values in 16 bits",
}
"""{kind of output of one picture: what it writes}"""
KINDS = {**IMAGE_KINDS, "coco": "coco/TASK.json: masks of classes and instances as COCO run lengths"}
"""{kind: what it writes}"""
DEFAULT_IMAGE, DEFAULT_VIDEO = ("panel", "npz"), ("panel",)
LISTED = 3
"""How many files an error names."""


def parse_kinds(text: str) -> tuple[str, ...]:
    """The value of `--save`.

    Raises:
        UnknownNameError: a kind that there is not.
    """
    kinds = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    for kind in kinds:
        look_up("kind of output", kind, KINDS)
    if not kinds:
        raise ValueError(f"--save: expected one or more of {', '.join(KINDS)}.")
    return kinds


class Places:
    """Paths of all outputs.

    Args:
        out: the output folder.
        tasks: those that are predicted.
        kinds: what is written; None = `DEFAULT_IMAGE` and `DEFAULT_VIDEO`.
    """

    def __init__(self, out: Path, tasks: Sequence[Task], kinds: Sequence[str] | None = None) -> None:
        self.out = out
        self.tasks = tuple(tasks)
        self._kinds = kinds

    def kinds(self, source: Source) -> tuple[str, ...]:
        """What is written of an input."""
        if self._kinds is not None:
            return tuple(self._kinds)
        return DEFAULT_IMAGE if source.kind == "image" else DEFAULT_VIDEO

    def numbers(self) -> bool:
        """Whether an output numbers what it holds, so that the order in which it is written counts."""
        return "coco" in (self._kinds or ())

    def panel(self, name: str, suffix: str) -> Path:
        """The panel; `suffix` is `.png` or `.mp4`."""
        return self.out / f"{name}{suffix}"

    def overlay(self, name: str, task: Task, suffix: str) -> Path:
        """The overlay of a task."""
        return self.out / "overlay" / task.name / f"{name}{suffix}"

    def maps(self, name: str) -> Path:
        """The archive of all maps."""
        return self.out / f"{name}.npz"

    def map(self, name: str, task: Task, suffix: str) -> Path:
        """The map of a task; `suffix` is `.npy` or `.png`."""
        return self.out / task.name / f"{name}{suffix}"

    def coco(self, task: Task) -> Path:
        """The COCO file of a task."""
        return self.out / "coco" / f"{task.name}.json"

    def planned(self, source: Source, name: str) -> list[Path]:
        """Files of an input; of a video the folders of its frames' maps. COCO files belong to the run."""
        return self._planned(name, self.kinds(source), moving=source.kind != "image")

    def planned_image(self, name: str) -> list[Path]:
        """Files of an image that is no file."""
        return self._planned(name, DEFAULT_IMAGE if self._kinds is None else self._kinds, moving=False)

    def _planned(self, name: str, kinds: Sequence[str], *, moving: bool) -> list[Path]:
        suffix = ".mp4" if moving else ".png"
        paths = [self.panel(name, suffix)] if "panel" in kinds else []
        if "overlay" in kinds:
            paths += [self.overlay(name, task, suffix) for task in self.tasks]
        if "npz" in kinds:
            paths.append(self.out / name if moving else self.maps(name))
        endings = {"npy": [".npy"], "png": [".png", ".npy"]}  # what 16 bits cannot hold becomes an array
        for kind in endings.keys() & set(kinds):
            for task in self.tasks:
                paths += [self.map(name, task, "" if moving else ending) for ending in endings[kind]]
        return list(dict.fromkeys(paths))


def check_outputs(
    planned: Mapping[str, Sequence[Path]], protected: Iterable[Path], *, overwrite: bool
) -> None:
    """Refuse outputs that would replace something.

    Args:
        planned: {what it is of: files and folders}.
        protected: inputs, checkpoint and config: they are never replaced, not through links either.
        overwrite: earlier outputs may be replaced.

    Raises:
        FileExistsError: a file exists already.
        ValueError: two outputs have one path, or one is an input.
    """
    taken: dict[str, str] = {}
    for text, paths in planned.items():
        for path in paths:
            other = taken.setdefault(str(path).casefold(), text)
            if other != text:
                raise ValueError(f"{path} would be an output of {other} and of {text}; predict them apart.")
    for text, paths in planned.items():
        for path in paths:
            for parent in path.parents:  # the frames of a video are a folder
                other = taken.get(str(parent).casefold(), text)
                if other != text:
                    raise ValueError(
                        f"{path}, an output of {text}, would lie among those of {other}; predict them apart."
                    )
    inputs = {identity: path for path in protected if (identity := _identity(path))}
    existing = []
    for text, paths in planned.items():
        for path in paths:
            identity = _identity(path)
            if identity in inputs:
                raise ValueError(
                    f"{path}: the output of {text} would replace {inputs[identity]}. Choose another --out."
                )
            if identity and not (path.is_dir() and not any(path.iterdir())):
                existing.append(path)
    if existing and not overwrite:
        rest = f" and {len(existing) - LISTED} more" if len(existing) > LISTED else ""
        raise FileExistsError(
            f"{', '.join(map(str, existing[:LISTED]))}{rest} exist already. Choose another --out, or replace "
            "them with --overwrite."
        )


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_dev, status.st_ino)

"""Your own data: one folder of images, one folder of label files per task."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from mtvision.core.naming import look_up
from mtvision.core.registry import DATASETS, DERIVATIONS
from mtvision.core.sample import Meta, RawSample
from mtvision.core.task import Task
from mtvision.core.values import Count, OptionsOf
from mtvision.data.dataset import DenseDataset
from mtvision.data.decode import read_image
from mtvision.data.derive import without_void
from mtvision.data.folder_labels import Array, FolderLabel
from mtvision.data.png import fast_decoders
from mtvision.data.transforms import TransformConfig
from mtvision.protocols import Protocol

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")


@DATASETS.register_module()
class FolderDataset(DenseDataset):
    """Images and labels in folders, matched by file name; see `datasets/own_data.md`.

    An image's id is its path within the image folder without the ending. Its label is the file of the same
    path and name in the task's folder. All files are listed when the data set is made, and none is opened.

    Args:
        root: folder, or several of the same layout whose images are joined.
        labels: {task: folder, or options of `FolderLabel`}; all tasks of the protocol.
        images: folder of the images, relative to the root; `{split}` stands for the split's name, here and in
            `labels` and `ids`.
        ids: which images, in order: a text file in each root (an id a line), or a list; None = all, sorted.
        image_suffix: what follows the id in an image's name, e.g. `_rgb.png`; None = any picture.
        partial: labels are optional per image; a missing file is then an absent task.
        protocol: tasks of the data, see `mtvision.protocols.own_protocol`.
        split: name of the split.
        transforms: see `DenseDataset`.
        seed: see `DenseDataset`.
        tasks: restrict to these tasks.

    Raises:
        FileNotFoundError: a folder, a listed image, or without `partial` a label file does not exist.
        ValueError: no image is found, two files claim one name, or the options contradict one another.
        UnknownNameError: an unknown task or option.
    """

    def __init__(
        self,
        root: str | Path | Sequence[str | Path],
        *,
        labels: Mapping[
            str, str | Annotated[Mapping[str, Any], OptionsOf("mtvision.data.folder_labels:FolderLabel")]
        ],
        images: str = "images",
        ids: str | Sequence[str] | None = None,
        image_suffix: str | None = None,
        partial: bool = False,
        protocol: Protocol | None = None,
        split: str = "train",
        transforms: TransformConfig = "tensor",
        seed: Count = 0,
        tasks: Sequence[str] | None = None,
    ) -> None:
        full = self.choose_protocol(protocol, None)
        chosen = self.choose_protocol(full, tasks)
        specs = _label_specs(full, chosen, labels, partial)
        roots = [Path(item) for item in ([root] if isinstance(root, str | Path) else root)]
        self.partial = partial
        self._specs = specs
        self._all_tasks = full.known_tasks
        self._images: dict[str, Path] = {}
        self._labels: dict[str, dict[str, Path]] = {name: {} for name in specs}
        for folder, prefix in zip(roots, _prefixes(roots), strict=True):
            self._add_root(folder, prefix, images.format(split=split), image_suffix, ids, split)
        super().__init__(
            ids=list(self._images),
            protocol=chosen,
            split=split,
            transforms=transforms,
            seed=seed,
        )
        fast_decoders()  # says here, once, if there are none, and not in every worker

    def _add_root(
        self,
        root: Path,
        prefix: str,
        images: str,
        image_suffix: str | None,
        ids: str | Sequence[str] | None,
        split: str,
    ) -> None:
        found = index_files(root / images, image_suffix, IMAGE_SUFFIXES)
        names = sorted(found) if ids is None else _listed(root, ids, split, found, root / images)
        if not names:
            raise ValueError(
                f"{root / images}: no image (looked for {image_suffix or ', '.join(IMAGE_SUFFIXES)})."
            )
        self._images.update({prefix + name: found[name] for name in names})
        for task, spec in self._specs.items():
            if spec.folder is None:
                continue
            folder = root / spec.folder.format(split=split)
            if self.partial and not folder.is_dir():
                continue
            endings = spec.suffixes(self._all_tasks[task])
            files = index_files(folder, spec.suffix, endings)
            missing = [name for name in names if name not in files]
            if missing and not self.partial:
                ending = spec.suffix or f"{endings[0]} (or {', '.join(endings[1:])})"
                raise FileNotFoundError(
                    f"{folder / missing[0]}{ending}: this {task} label is missing, "
                    f"and {len(missing) - 1} others of {len(names)}. Add the files, or set partial=True if "
                    "labels are optional."
                )
            self._labels[task].update({prefix + name: files[name] for name in names if name in files})

    def read(self, index: int) -> RawSample:
        """Decode one image and the labels it has."""
        name = self.ids[index]
        image = read_image(self._images[name])
        size = image.shape[:2]
        decoded: dict[str, Array] = {}
        labels = {}
        for task in self.tasks:
            label = self._label(task, name, decoded)
            if label is not None:
                labels[task] = label
        return RawSample(
            image=image, labels=labels, tasks=self.tasks, meta=Meta(id=name, size=size, original_size=size)
        )

    def _label(self, task: str, name: str, decoded: dict[str, Array]) -> Array | None:
        if task not in decoded:
            spec = self._specs.get(task)
            if spec is None:
                return None
            if spec.derive is not None and spec.source is not None:
                source = self._label(spec.source, name, decoded)
                if source is None:
                    return None
                derived = DERIVATIONS[spec.derive](source)
                decoded[task] = without_void(derived, source) if spec.ignore_void else derived
            else:
                path = self._labels[task].get(name)
                if path is None:
                    return None
                decoded[task] = spec.read(path, self._all_tasks[task])
        return decoded[task]

    def source(self, index: int, task: str | None = None) -> str:
        """File of the image (`task=None`) or of one label."""
        name = self.ids[index]
        if task is None:
            return str(self._images[name])
        spec = self._specs[task]
        if spec.derive is not None and spec.source is not None:
            return f"{spec.derive} of {self.source(index, spec.source)}"
        return str(self._labels[task][name])

    def files(self) -> dict[str, Path]:
        """{`image` or task, slash, id: path} of every file."""
        entries = {f"image/{name}": path for name, path in self._images.items()}
        for task, files in self._labels.items():
            entries.update({f"{task}/{name}": path for name, path in files.items()})
        return entries

    def files_of(self, task: str | None) -> dict[str, Path]:
        """Those of the images, or of one task's labels."""
        start = f"{task or 'image'}/"
        return {name: path for name, path in self.files().items() if name.startswith(start)}

    def parameters(self) -> Mapping[str, Any]:
        """Options of the label files."""
        return {task: str(spec) for task, spec in self._specs.items()}


def index_files(folder: Path, suffix: str | None, accepted: Sequence[str]) -> dict[str, Path]:
    """{path within `folder` without the ending: file}, hidden files left out.

    Args:
        folder: looked through with its subfolders.
        suffix: files must end in this, which is cut off; None = any of `accepted`.
        accepted: endings in lower case.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: two files have one name, as `a.png` and `a.npy`.
    """
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder}: no such folder. Check root=, images= and labels= (paths are relative to the root)."
        )
    found: dict[str, Path] = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            ending = suffix if suffix is not None else os.path.splitext(name)[1]
            if name.startswith(".") or not name.endswith(ending):
                continue
            if suffix is None and ending.lower() not in accepted:
                continue
            path = Path(parent, name)
            key = path.relative_to(folder).as_posix()[
                : len(path.relative_to(folder).as_posix()) - len(ending)
            ]
            if key in found:
                raise ValueError(
                    f"{path} and {found[key].name} have the same name; remove one or say which with suffix=."
                )
            found[key] = path
    return found


def _listed(
    root: Path, ids: str | Sequence[str], split: str, found: Mapping[str, Path], folder: Path
) -> list[str]:
    if isinstance(ids, str):
        path = root / ids.format(split=split)
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such list of image ids (ids='{ids}').")
        names = [line.strip() for line in path.read_text().splitlines() if line.strip()]
        origin = str(path)
    else:
        names, origin = list(ids), "ids="
    missing = [name for name in names if name not in found]
    if missing:
        raise FileNotFoundError(
            f"{origin} names '{missing[0]}', but {folder} has no such image ({len(missing)} of {len(names)} "
            "are "
            "missing). Ids are file names without the ending."
        )
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{origin}: the id '{twice}' occurs twice.")
    return names


def _prefixes(roots: Sequence[Path]) -> list[str]:
    """What makes ids of several roots distinct: their paths below the folder they share."""
    if not roots:
        raise ValueError("FolderDataset: root is empty; give one folder or several.")
    if len(roots) == 1:
        return [""]
    absolute = [path.resolve() for path in roots]
    if len(set(absolute)) != len(absolute):
        raise ValueError(f"FolderDataset: a root occurs twice: {[str(path) for path in roots]}.")
    shared = Path(os.path.commonpath(absolute))
    return [f"{path.relative_to(shared).as_posix() if path != shared else path.name}/" for path in absolute]


def _label_specs(
    full: Protocol,
    chosen: Protocol,
    labels: Mapping[str, str | Mapping[str, Any]],
    partial: bool,
) -> dict[str, FolderLabel]:
    """Options of the chosen tasks and of those they are derived from."""
    every: dict[str, Task] = full.known_tasks  # a chosen task may be derived from one that is not
    specs = {
        name: FolderLabel.of(config, look_up("task in labels", name, every))
        for name, config in labels.items()
    }
    lacking = [name for name in chosen.task_names if name not in specs]
    if lacking and not partial:
        raise ValueError(
            f"FolderDataset: no labels for the task {', '.join(lacking)} of protocol '{full.id}'. Add "
            f"labels={{'{lacking[0]}': folder}}, or restrict the data set with tasks=[...], or set "
            "partial=True."
        )
    needed: dict[str, FolderLabel] = {}
    for name in chosen.task_names:
        spec = specs.get(name)
        if spec is None:
            continue
        if spec.source is not None:
            source = look_up(f"source of the {name} labels", spec.source, specs)
            if source.derive is not None or every[spec.source].label != "classes":
                raise ValueError(f"labels of {name}: source='{spec.source}' must be a class map from files.")
            needed[spec.source] = source
        needed[name] = spec
    return needed

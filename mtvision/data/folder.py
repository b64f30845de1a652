"""Your own data: one folder of images, one folder of label files per task."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from mtvision.core.files.droppings import original_of
from mtvision.core.files.find import FoundFiles, find_files
from mtvision.core.files.ids import MatchedIds, lines_of, matched_ids, without_patterns
from mtvision.core.files.names import case_hint, composed, differs_in_case, of_split, stored
from mtvision.core.files.text import read_ids
from mtvision.core.naming import look_up
from mtvision.core.registry import DATASETS, DERIVATIONS
from mtvision.core.sample import Meta, RawSample
from mtvision.core.task import Task
from mtvision.core.values import Count, OptionsOf
from mtvision.data.dataset import DenseDataset
from mtvision.data.decode import read_image
from mtvision.data.derive import without_void
from mtvision.data.folder_labels import FolderLabel
from mtvision.data.maps.encoding import Array, Encoding, decide_files
from mtvision.data.maps.files import LOSSY_SUFFIXES, SUFFIXES
from mtvision.data.maps.photographs import PhotographDepth
from mtvision.data.png import fast_decoders
from mtvision.data.transforms import TransformConfig
from mtvision.protocols import Protocol
from mtvision.runtime.launch import is_main_process

_log = logging.getLogger("mtvision")

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
CHECK = "Check root=, images= and labels= (paths are relative to the root)."


@DATASETS.register_module()
class FolderDataset(DenseDataset):
    """Images and labels in folders, matched by file name; see `datasets/own_data.md`.

    An image's id is its path within the image folder without the ending. Its label is the file of the same
    path and name in the task's folder. All files are listed when the data set is made. A few of them, spread
    over each folder, are opened then, to decide what the numbers in them mean (`mtvision.data.maps`).
    Which files count is in `mtvision.core.files.find`; what is left out is logged and in `remarks`.

    Args:
        root: folder, or several of the same layout whose images are joined.
        labels: {task: folder, or options of `FolderLabel`}; all tasks of the protocol.
        images: folder of the images, relative to the root; `{split}` stands for the split's name, here and in
            `labels` and `ids`.
        ids: which images, in order: a text file in each root (an id a line), or a list; None = all, sorted.
            In a list `*` stands for any characters, e.g. `["train*"]`.
        image_suffix: what follows the id in an image's name, e.g. `_rgb.png`; None = any picture.
        partial: labels are optional per image; a missing file is then an absent task.
        protocol: tasks of the data, see `mtvision.protocols.own_protocol`.
        split: name of the split.
        transforms: see `DenseDataset`.
        seed: see `DenseDataset`.
        tasks: restrict to these tasks.

    Raises:
        FileNotFoundError: a folder, a listed image, or without `partial` a label file does not exist.
        ValueError: no image is found, two files claim one name, the options contradict one another, or the
            content of the labels allows several meanings.
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
        self._remarks: list[str] = []
        self._images: dict[str, Path] = {}
        self._labels: dict[str, dict[str, Path]] = {name: {} for name in specs}
        self._encodings: dict[str, dict[str, Encoding]] = {name: {} for name in specs}
        self._encoding_of: dict[str, dict[str, Encoding]] = {name: {} for name in specs}
        self._photographs: dict[str, PhotographDepth] = {}
        for folder, prefix in zip(roots, _prefixes(roots), strict=True):
            self._add_root(folder, prefix, of_split(images, split), image_suffix, ids, split)
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
        found = find_files(root / images, IMAGE_SUFFIXES, suffix=image_suffix, hint=CHECK)
        self._say(found.summary(f"images in {found.folder}"))
        if not found.files:
            wanted = image_suffix or ", ".join(IMAGE_SUFFIXES)
            there = f" There are: {found.reasons()}." if found.reasons() else ""
            raise ValueError(f"{found.folder}: no image (looked for {wanted}).{there}")
        names = list(found.files)
        if ids is not None:
            endings = (*IMAGE_SUFFIXES, image_suffix) if image_suffix else IMAGE_SUFFIXES
            listed = _listed(root, ids, split, found, endings)
            self._say(listed.remark())
            names = listed.ids
        if not names:
            raise ValueError("ids=[] names no image; leave it out for all images.")
        self._images.update({prefix + name: found.files[name] for name in names})
        depth = PhotographDepth.of([found.files[name] for name in names])
        if depth is not None:
            self._photographs.update(dict.fromkeys([prefix + name for name in names], depth))
        for task, spec in self._specs.items():
            if spec.folder is None:
                continue
            folder = stored(root / of_split(spec.folder, split))
            if self.partial and not folder.is_dir():
                continue
            accepted = SUFFIXES
            labels = find_files(folder, accepted, suffix=spec.suffix, prefix=spec.prefix, hint=CHECK)
            if not labels.files:
                lossy = find_files(folder, LOSSY_SUFFIXES, suffix=spec.suffix, prefix=spec.prefix, hint=CHECK)
                labels = lossy if lossy.files else labels
            self._say(labels.summary(f"{task} labels in {labels.folder}"))
            files = labels.files
            missing = [name for name in names if name not in files]
            if missing and not self.partial:
                ending = spec.suffix or f"{accepted[0]} (or {', '.join(accepted[1:])})"
                raise FileNotFoundError(
                    f"{_label_path(folder, spec.prefix, missing[0])}{ending}: this {task} label is missing, "
                    f"and {len(missing) - 1} others of {len(names)}. "
                    f"{_why_missing(missing[0], labels, found.files)}Add the files, or set partial=True if "
                    "labels are optional."
                )
            if missing:
                self._say(_only_in_case(task, missing, labels))
            self._add_labels(
                task, spec, {prefix + name: files[name] for name in names if name in files}, prefix
            )

    def _add_labels(self, task: str, spec: FolderLabel, files: Mapping[str, Path], prefix: str) -> None:
        """Note label files of one folder, and decide what the numbers in them mean."""
        encoding = decide_files(
            self._all_tasks[task], files.values(), spec.map_options(self._all_tasks[task])
        )
        self._labels[task].update(files)
        self._encodings[task][prefix] = encoding
        self._encoding_of[task].update(dict.fromkeys(files, encoding))
        for doubt in encoding.doubts:
            if is_main_process():
                _log.warning("labels of %s: %s", prefix + task, doubt)

    def _say(self, remark: str) -> None:
        if remark and remark not in self._remarks:
            self._remarks.append(remark)
            if is_main_process():
                _log.warning("%s", remark)

    def read(self, index: int) -> RawSample:
        """Decode one image and the labels it has."""
        name = self.ids[index]
        depth = self._photographs.get(name)
        image = read_image(self._images[name]) if depth is None else depth.read(self._images[name])
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
                decoded[task] = self._encoding_of[task][name].read(path)
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

    def remarks(self) -> Sequence[str]:
        """What the folders hold that is left out, and how ids of lists were read."""
        return tuple(self._remarks)

    def parameters(self) -> Mapping[str, Any]:
        """Options of the label files, and what the numbers in them were found to mean."""
        decided = {
            task: sorted({item.statement() for item in found.values()} - {""})
            for task, found in self._encodings.items()
        }
        more = {
            "encodings": {task: texts for task, texts in decided.items() if texts},
            "invalid": {task: spec.invalid for task, spec in self._specs.items() if spec.invalid != ()},
            "prefix": {task: spec.prefix for task, spec in self._specs.items() if spec.prefix},
            "images": sorted({depth.statement() for depth in self._photographs.values()}),
        }
        specs = {task: str(spec) for task, spec in self._specs.items()}
        return {**specs, **{name: value for name, value in more.items() if value}}

    def encodings(self) -> Mapping[str, Encoding]:
        """{task, after the root's name where there are several: what the numbers in its files mean}."""
        return {
            prefix + task: encoding
            for task, found in self._encodings.items()
            for prefix, encoding in found.items()
        }


def _listed(
    root: Path, ids: str | Sequence[str], split: str, images: FoundFiles, endings: Sequence[str]
) -> MatchedIds:
    if isinstance(ids, str):
        path = stored(root / of_split(ids, split))
        if not path.is_file():
            raise FileNotFoundError(
                f"{path}: no such list of image ids (ids='{ids}'). {case_hint(path)}".rstrip()
            )
        lines, where = read_ids(path), str(path)
    else:
        lines, where = lines_of(without_patterns(ids, images.files)), "ids="
    known = images.files
    found = matched_ids(lines, known, where=where, folder=images.folder, endings=endings)
    if found.missing:
        first = found.missing[0]
        why = found.explain(known) or "Ids are file names without the ending."
        raise FileNotFoundError(
            f"{where} names '{first.text}', but {images.folder} has no such image ({len(found.missing)} of "
            f"{len(lines)} are missing, the first in line {first.number}). {why}"
        )
    return found


def _label_path(folder: Path, prefix: str, name: str) -> Path:
    path = folder / name
    return path.with_name(prefix + path.name)


def _only_in_case(task: str, missing: Sequence[str], labels: FoundFiles) -> str:
    """A remark about labels that are not used because their names differ in case."""
    folded = {name.casefold(): name for name in labels.files}
    found = [(name, folded[name.casefold()]) for name in missing if name.casefold() in folded]
    if not found:
        return ""
    image, label = found[0]
    return (
        f"{task} labels in {labels.folder}: {len(found)} are not used, because their names differ from those "
        f"of the images in upper and lower case ('{label}' and '{image}')."
    )


def _why_missing(name: str, files: FoundFiles, images: Mapping[str, Path]) -> str:
    """Sentences about a label that is missing, each ending in a blank."""
    text = ""
    original, other = original_of(name), differs_in_case(name, files.files)
    if other is not None:
        text += f"'{files.files[other].name}' differs in upper and lower case; rename it. "
    if original in images:
        text += f"The image seems to be a copy of '{original}', made by a file manager; remove it. "
    longer = next((path.name for key, path in files.files.items() if _adds_suffix(name, key)), None)
    if longer is not None:
        suffix = composed(longer).removeprefix(name.rpartition("/")[2])
        text += f"'{longer}' is there; if it is the label, say suffix='{suffix}'. "
    reasons = files.reasons()
    return f"{text}Left out of {files.folder}: {reasons}. " if reasons else text


def _adds_suffix(name: str, key: str) -> bool:
    """Whether a key is a name and a word more: `a_mask` and `a`, not `10` and `1`."""
    return key.startswith(name) and key[len(name) :][:1] in ("_", "-", ".", " ")


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

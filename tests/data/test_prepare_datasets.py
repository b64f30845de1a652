"""Preparation from raw releases and tarballs: what is written, resuming, damaged input."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from mtvision.data.derive import edges_from_classes
from mtvision.data.pascal_context.labels import read_label_map
from mtvision.data.prepare import prepare_cityscapes, prepare_nyudv2, prepare_pascal_context
from mtvision.data.prepare.pascal_context import context_to_voc
from mtvision.data.prepare.work import Outcome, copy_file, run_jobs, write_compared, write_png
from mtvision.runtime.atomic import atomic_path

QUIET = {"progress": False, "expected": None}


@pytest.fixture(scope="module")
def nyu_release(miniature, tmp_path_factory):
    return miniature.nyu_release(tmp_path_factory.mktemp("nyu"), count=5)


@pytest.fixture(scope="module")
def nyu_prepared(nyu_release, tmp_path_factory):
    target = tmp_path_factory.mktemp("prepared") / "NYUDv2"
    return target, prepare_nyudv2(nyu_release, target, **QUIET)


def read(path):
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


@pytest.mark.slow
def test_nyud_release_becomes_the_packaged_layout(nyu_prepared):
    target, outcome = nyu_prepared
    assert outcome.problems == []
    assert (outcome.written, outcome.kept) == (25, 0)
    assert (target / "gt_sets" / "train.txt").read_text().split() == ["0001", "0004", "0005"]
    assert (target / "gt_sets" / "val.txt").read_text().split() == ["0002", "0003"]
    image = read(target / "images" / "0004.png")
    assert image.shape == (425, 560, 3)
    assert image[0, 0, ::-1].tolist() == [13, 20, 30]  # row 45, column 40 of frame index 3, RGB
    segmentation = read(target / "segmentation" / "0004.png")
    assert segmentation[0, 0] == 1  # label 21 -> class 1
    assert segmentation[-1, -1] == 40
    assert segmentation[100 - 45, 100 - 40] == 0  # unlabelled
    depth = np.load(target / "depth" / "0004.npy")
    assert depth.dtype == np.float32
    assert depth[0, 0] == pytest.approx(2 + 0.04 + 0.09)


def test_nyud_edges_separate_instances_of_one_class(nyu_prepared):
    edge = read(nyu_prepared[0] / "edge" / "0001.png")
    assert set(np.unique(edge)) == {0, 255}
    assert (edge[240 - 45 - 2 : 240 - 45 + 2, 400] == 255).any()  # the border between two instances
    assert not edge[:40, 400].any()


def test_nyud_normals_are_unit_vectors_up_to_the_encoding(nyu_prepared):
    normals = read(nyu_prepared[0] / "normals" / "0001.png")[..., ::-1] / 255 * 2 - 1
    assert np.abs(np.linalg.norm(normals, axis=2) - 1).max() < 0.01


def test_nyud_note_says_what_is_not_comparable(nyu_prepared):
    note = json.loads((nyu_prepared[0] / "prepared.json").read_text())
    assert note["data"] == "nyudv2"
    assert any("normals scores are not comparable" in line for line in note["notes"])
    assert any("edge scores are not comparable" in line for line in note["notes"])


def test_nyud_resumes_where_it_stopped(nyu_release, nyu_prepared):
    target, _ = nyu_prepared
    before = (target / "depth" / "0005.npy").read_bytes()
    (target / "depth" / "0005.npy").unlink()
    (target / "edge" / "0002.png").write_bytes(b"")  # an empty file is no file
    outcome = prepare_nyudv2(nyu_release, target, **QUIET)
    assert (outcome.written, outcome.kept) == (2, 23)
    assert (target / "depth" / "0005.npy").read_bytes() == before
    assert not list(target.rglob("*.part"))


def test_nyud_wrong_counts_are_a_problem(nyu_release, nyu_prepared):
    outcome = prepare_nyudv2(nyu_release, nyu_prepared[0], progress=False)
    assert outcome.problems == [
        "NYUD-v2 train: 3 images, the published split has 795.",
        "NYUD-v2 val: 2 images, the published split has 654.",
    ]


def test_nyud_missing_or_wrong_files_are_named(nyu_release, tmp_path):
    for name in ("nyu_depth_v2_labeled.mat", "splits.mat"):
        (tmp_path / name).symlink_to(nyu_release / name)
    with pytest.raises(FileNotFoundError, match=r"classMapping40.mat.*894 labels to 40 classes"):
        prepare_nyudv2(tmp_path, tmp_path / "out", **QUIET)
    (tmp_path / "classMapping40.mat").symlink_to(nyu_release / "splits.mat")
    with pytest.raises(ValueError, match=r"classMapping40.mat: has no variable 'mapClass'"):
        prepare_nyudv2(tmp_path, tmp_path / "out", **QUIET)
    (tmp_path / "train.txt").write_text("0001\n")
    (tmp_path / "val.txt").write_text("1450\n")
    with pytest.raises(ValueError, match="no frame '1450'"):
        prepare_nyudv2(tmp_path, tmp_path / "out", **QUIET)
    (tmp_path / "val.txt").write_text("0001\n")
    with pytest.raises(ValueError, match="frame 0001 is in both splits"):
        prepare_nyudv2(tmp_path, tmp_path / "out", **QUIET)


def test_nyud_damaged_release_is_named(tmp_path):
    (tmp_path / "nyu_depth_v2_labeled.mat").write_bytes(b"MATLAB 7.3")
    with pytest.raises(ValueError, match=r"nyu_depth_v2_labeled.mat: is not a readable HDF5.*2.8 GB"):
        prepare_nyudv2(tmp_path, tmp_path / "out", **QUIET)


def pack(folder: Path, archive: Path) -> Path:
    with tarfile.open(archive, "w:gz") as file:
        file.add(folder, arcname=folder.name)
    return archive


def test_nyud_tarball_is_unpacked_and_verified(miniature, tmp_path):
    root = miniature.nyud(tmp_path / "NYUDv2")
    (root / "edge" / "0007.png").unlink()
    source = tmp_path / "downloads"
    source.mkdir()
    pack(root, source / "NYUDv2.tar.gz")
    target = tmp_path / "out"
    outcome = prepare_nyudv2(source, target, **QUIET)
    assert outcome.problems == [f"{target / 'edge' / '0007.png'}: not in the archive."]
    assert (target / "images" / "0001.png").read_bytes() == (root / "images" / "0001.png").read_bytes()
    again = prepare_nyudv2(source, target, **QUIET)
    assert again.written == 0


@pytest.mark.fault(
    "a cut or damaged archive of a data set", expected="named; what was unpacked before is resumed"
)
def test_truncated_tarball_is_named(miniature, tmp_path):
    root = miniature.nyud(tmp_path / "NYUDv2")
    archive = pack(root, tmp_path / "NYUDv2.tar.gz")
    archive.write_bytes(archive.read_bytes()[:-3000])
    with pytest.raises(ValueError, match=r"NYUDv2.tar.gz: the archive is damaged or incomplete"):
        prepare_nyudv2(tmp_path, tmp_path / "out", **QUIET)


@pytest.mark.fault("an archive member that leaves the folder", expected="refused; nothing is written outside")
def test_archive_member_outside_the_target_is_refused(tmp_path):
    (tmp_path / "evil.txt").write_text("x")
    with tarfile.open(tmp_path / "NYUDv2.tar.gz", "w:gz") as file:
        file.add(tmp_path / "evil.txt", arcname="../../evil.txt")
    with pytest.raises(ValueError, match="points outside"):
        prepare_nyudv2(tmp_path, tmp_path / "out", **QUIET)


@pytest.fixture
def voc(miniature, tmp_path):
    return miniature.voc_release(tmp_path / "downloads")


def test_pascal_releases_become_the_packaged_layout(voc, tmp_path):
    target = tmp_path / "PASCALContext"
    outcome = prepare_pascal_context(voc, target, precompute=True, **QUIET)
    assert outcome.problems == []
    assert sorted(outcome.off) == ["normals", "saliency"]
    assert "distilled" in outcome.off["normals"]
    ids = (target / "ImageSets" / "Context" / "train.txt").read_text().split()
    assert ids == ["2008_000008", "2008_000002", "2010_000101"]  # the order of the list is kept
    assert (target / "semseg" / "VOC12" / "2008_000002.png").is_file()
    # an image without a VOC2012 segmentation: sky is background, person 15, tvmonitor 20
    derived = read(target / "semseg" / "pascal-context" / "2010_000101.png")
    context = read_label_map(target / "pascal-context" / "trainval" / "2010_000101.mat")
    expected = np.select([context == 284, context == 427], [15, 20], 0)
    assert np.array_equal(derived, expected)
    edge = read(target / "edge" / "2010_000101.png")
    assert np.array_equal(edge / 255, edges_from_classes(context)[..., 0])
    assert prepare_pascal_context(voc, target, precompute=True, **QUIET).written == 0


def test_pascal_releases_may_still_be_archives(voc, tmp_path):
    for folder in ("VOCdevkit", "trainval", "Annotations_Part"):
        archive = pack(voc / folder, voc / f"{folder}.tar.gz")
        assert archive.is_file()
        (voc / folder).rename(tmp_path / f"moved_{folder}")
    target = tmp_path / "PASCALContext"
    assert prepare_pascal_context(voc, target, **QUIET).problems == []
    assert (target / "human_parts" / "2009_000009.mat").is_file()


def test_pascal_missing_image_is_a_problem_and_the_rest_goes_on(voc, tmp_path):
    (voc / "Annotations_Part" / "2008_000002.mat").unlink()
    target = tmp_path / "PASCALContext"
    outcome = prepare_pascal_context(voc, target, **QUIET)
    assert len(outcome.problems) == 1
    assert "2008_000002.mat: missing, though '2008_000002' is in the split lists" in outcome.problems[0]
    assert (target / "JPEGImages" / "2009_000009.jpg").is_file()


def test_pascal_damaged_annotation_is_named(voc, tmp_path):
    (voc / "trainval" / "2009_000009.mat").write_bytes(b"nonsense")
    outcome = prepare_pascal_context(voc, tmp_path / "out", **QUIET)
    assert len(outcome.problems) == 1
    assert "2009_000009.mat: not a readable MATLAB file" in outcome.problems[0]


def test_pascal_copy_without_distilled_labels_turns_the_tasks_off(miniature, tmp_path):
    root = miniature.pascal(tmp_path / "PASCALContext")
    for folder in ("normals_distill", "sal_distill"):
        for path in (root / folder).iterdir():
            path.unlink()
    pack(root, tmp_path / "PASCALContext.tar.gz")
    outcome = prepare_pascal_context(tmp_path, tmp_path / "out", **QUIET)
    assert sorted(outcome.off) == ["normals", "saliency"]
    assert "a copy without it circulates" in outcome.off["saliency"]


def test_context_classes_are_found_by_name(voc):
    mapping = context_to_voc(voc / "labels.txt")
    assert len(mapping) == 20
    assert (mapping[2], mapping[397], mapping[284], mapping[427]) == (1, 11, 15, 20)


def test_context_list_without_a_class_is_refused(tmp_path):
    (tmp_path / "labels.txt").write_text("1: accordion\n2: aeroplane\n")
    with pytest.raises(ValueError, match="no class 'bicycle'"):
        context_to_voc(tmp_path / "labels.txt")


def test_cityscapes_zips(miniature, tmp_path):
    source = miniature.cityscapes_zips(tmp_path)
    target = tmp_path / "out"
    outcome = prepare_cityscapes(source, target, **QUIET)
    assert outcome.problems == []
    assert outcome.written == 16
    original = source / "unpacked"
    for path in sorted(target.rglob("*.png")):
        assert path.read_bytes() == (original / path.relative_to(target)).read_bytes()
    (target / "disparity" / "val" / "munster" / "munster_000000_000019_disparity.png").write_bytes(b"cut")
    again = prepare_cityscapes(source, target, **QUIET)
    assert (again.written, again.kept) == (1, 15)


@pytest.mark.fault(
    "a cut or damaged archive of a data set", expected="named; what was unpacked before is resumed"
)
def test_cityscapes_damaged_member_is_named(miniature, tmp_path):
    source = miniature.cityscapes_zips(tmp_path)
    archive = source / "disparity_trainvaltest.zip"
    content = bytearray(archive.read_bytes())
    position = content.find(b"IDAT") + 8
    content[position] ^= 0xFF
    archive.write_bytes(bytes(content))
    outcome = prepare_cityscapes(source, tmp_path / "out", **QUIET)
    assert "disparity_trainvaltest.zip: 'disparity/train/aachen" in outcome.problems[0]
    assert "Download it again" in outcome.problems[0]
    assert "disparity/train: 1 files are missing, first aachen" in outcome.problems[1]


def _half_a_file(path):
    with atomic_path(path) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError


def test_a_failed_write_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError):
        _half_a_file(tmp_path / "a.bin")
    assert list(tmp_path.iterdir()) == []


def test_an_array_that_is_no_picture_is_refused(tmp_path):
    with pytest.raises(TypeError, match="not int64"):
        write_png(tmp_path / "a.png", np.zeros((4, 4), np.int64))
    assert list(tmp_path.iterdir()) == []


def _job(number: int) -> Outcome:
    if number == 2:
        raise ValueError("number 2 is bad")
    return Outcome(written=number)


def test_one_bad_job_does_not_stop_the_others():
    outcome = run_jobs(_job, [1, 2, 3], workers=1, title="jobs", progress=False)
    assert (outcome.written, outcome.problems) == (4, ["number 2 is bad"])


@pytest.mark.slow
def test_two_processes_write_the_same_as_one(nyu_release, nyu_prepared, tmp_path):
    outcome = prepare_nyudv2(nyu_release, tmp_path / "out", workers=2, **QUIET)
    assert outcome.written == 25
    for path in sorted((tmp_path / "out").rglob("*.[pnt]*")):
        assert path.read_bytes() == (nyu_prepared[0] / path.relative_to(tmp_path / "out")).read_bytes()


def test_the_list_of_the_boundary_benchmark_is_kept_or_missed(voc, tmp_path):
    target = tmp_path / "PASCALContext"
    outcome = prepare_pascal_context(voc, target, **QUIET)
    assert any("Their list is not among the downloaded files" in note for note in outcome.notes)
    lists = voc / "tool" / "gt_sets"
    for name, ids in (("NYUD", "0001\n"), ("PASCALContext", "2009_000009\n")):
        (lists / name).mkdir(parents=True)
        (lists / name / "test_new.txt").write_text(ids)
    outcome = prepare_pascal_context(voc, target, **QUIET)
    kept = target / "ImageSets" / "Context" / "test_new.txt"
    assert kept.read_text() == "2009_000009\n"
    assert outcome.problems == []
    assert not any("list" in note for note in outcome.notes)
    kept.write_text("0001\n")
    outcome = prepare_pascal_context(voc, target, **QUIET)
    assert "test_new.txt: '0001' is not in val.txt" in outcome.problems[0]


@pytest.mark.parametrize("writer", [write_compared, copy_file])
def test_a_file_that_does_not_hold_what_was_written_is_no_file(tmp_path, monkeypatch, writer):
    source = tmp_path / "source"
    source.write_bytes(b"content")
    monkeypatch.setattr(Path, "write_bytes", lambda self, content: self.open("wb").close())
    monkeypatch.setattr("shutil.copyfile", lambda _, target: target.write_bytes(b""))
    target = tmp_path / "out" / "file"
    with pytest.raises(OSError, match="Check the disk"):
        writer(*((target, b"content") if writer is write_compared else (source, target)))
    assert list(target.parent.iterdir()) == []


def test_unpacking_shows_how_far_it_is(miniature, tmp_path, capsys):
    pack(miniature.nyud(tmp_path / "NYUDv2"), tmp_path / "NYUDv2.tar.gz")
    prepare_nyudv2(tmp_path, tmp_path / "out", expected=None)
    assert "NYUDv2.tar.gz" in capsys.readouterr().err

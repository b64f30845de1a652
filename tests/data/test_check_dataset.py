"""The check finds what would corrupt a score, and says nothing about a clean copy."""

from __future__ import annotations

import io
import json

import cv2
import numpy as np
import pytest
from PIL import Image

from mtvision.cli.data.check_dataset import main as check_main
from mtvision.cli.data.prepare_dataset import main as prepare_main
from mtvision.core.sample import Meta, RawSample
from mtvision.data.check import collect, judge, judge_overlap
from mtvision.data.check.jpeg import is_patched_jpeg
from mtvision.data.check.layouts import known_copies
from mtvision.data.cityscapes import Cityscapes
from mtvision.data.dataset import DenseDataset
from mtvision.data.folder import FolderDataset
from mtvision.data.mtan_npy import MtanNpy
from mtvision.data.nyudv2 import NYUDv2
from mtvision.data.pascal_context import PascalContext
from mtvision.protocols import get_protocol, own_protocol


@pytest.fixture
def nyud(miniature, tmp_path):
    return miniature.nyud(tmp_path / "NYUDv2")


def check(dataset):
    statistics = collect(dataset, range(len(dataset)))
    return judge(dataset, statistics), statistics


def errors(findings):
    return [f"{item.where}: {item.text}" for item in findings if item.level == "error"]


class InMemory(DenseDataset):
    """Arrays given by a test."""

    def __init__(self, protocol, samples):
        self.samples = samples
        super().__init__(ids=[f"im{i}" for i in range(len(samples))], protocol=protocol, split="train")

    def read(self, index):
        image, labels = self.samples[index]
        meta = Meta(id=self.ids[index], size=image.shape[:2], original_size=image.shape[:2])
        return RawSample(image=image, labels=labels, tasks=self.tasks, meta=meta)


def picture(seed=0, size=(8, 10)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def test_statistics_by_hand():
    protocol = own_protocol("mine", {"semseg": {"class_names": ["a", "b", "c"]}, "depth": {}})
    label = np.array([[0, 0, 1, 255]])
    depth = np.array([[1.0, 3.0, np.nan, np.nan]], np.float32)[..., None]
    image = picture(0, (1, 4))
    data = InMemory(
        protocol, [(image, {"semseg": label, "depth": depth}), (picture(1, (1, 4)), {"semseg": label})]
    )
    findings, statistics = check(data)
    semseg, counted = statistics.tasks["semseg"], statistics.tasks["depth"]
    assert dict(semseg.histogram) == {0: 4, 1: 2}
    assert (semseg.images, semseg.pixels, semseg.unlabelled, semseg.ignored) == (2, 8, 2, 0.25)
    assert (counted.images, counted.low, counted.high, counted.sums) == (1, 1, 3, [4])
    assert [item.text for item in findings if item.level == "warning"] == ["classes that never occur: c."]


def test_sharing_the_work_changes_nothing(nyud):
    data = NYUDv2(nyud, split="train", check=False)
    whole = collect(data, range(3))
    parts = collect(data, [0])
    parts.add(collect(data, [1, 2]))
    assert parts.sizes == whole.sizes
    assert parts.tasks["semseg"] == whole.tasks["semseg"]
    assert parts.tasks["depth"].histogram == whole.tasks["depth"].histogram
    assert parts.tasks["normals"].sums == pytest.approx(whole.tasks["normals"].sums)


def test_wrong_counts_and_frames_are_errors(nyud):
    findings, _ = check(NYUDv2(nyud, split="train", check=False))
    texts = errors(findings)
    assert texts[0].startswith("train: 3 images, the protocol has 795")
    assert "not 425x560 (height x width) but, e.g., 17x23 (3 images)" in texts[1]
    assert "Google Drive" in texts[1]


def test_missing_and_damaged_files_are_named(nyud):
    (nyud / "normals" / "0001.png").unlink()
    path = nyud / "edge" / "0003.png"
    path.write_bytes(path.read_bytes()[:-15])
    findings, statistics = check(NYUDv2(nyud, split="train", check=False, missing_labels="absent"))
    texts = "\n".join(errors(findings))
    assert f"train normals: 1 files are missing, first {nyud / 'normals' / '0001.png'}" in texts
    assert "0003.png: the file is truncated" in texts
    assert list(statistics.failures) == ["0003"]


def encoded(values, size=(8, 10)):
    return np.broadcast_to(np.asarray(values, np.float32), (*size, len(values))).copy()


@pytest.mark.parametrize(
    ("task", "label", "level", "text"),
    [
        ("normals", encoded((0.2, 0.1, 0.2)), "error", "100% of the vectors do not have length 1"),
        ("depth", encoded((2400,)), "error", "not metres"),
        ("edge", encoded((1,)), "error", "inverted"),
        ("edge", encoded((0,)), "error", "no edge at all"),
        ("edge", encoded((0.3,)), "note", "neither 0 nor 1"),
        ("depth", encoded((np.nan,)), "error", "no pixel has a label"),
    ],
)
@pytest.mark.parametrize("name", ["", "second"])
def test_values_of_another_encoding(task, label, level, text, name):
    """Of the task, and of a second one of its kind."""
    protocol = own_protocol("mine", {name or task: {"type": task}})
    findings, _ = check(InMemory(protocol, [(picture(), {name or task: label})]))
    found = [(item.level, item.where) for item in findings if text in item.text]
    assert found == [(level, f"train {name or task}")]


def test_normals_without_a_facing_axis_are_suspicious():
    vectors = np.random.default_rng(0).normal(size=(8, 10, 3))
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    protocol = own_protocol("mine", {"normals": {}})
    findings, _ = check(InMemory(protocol, [(picture(), {"normals": vectors.astype(np.float32)})]))
    assert "no axis has one sign" in findings[0].text
    vectors[..., 2] = np.abs(vectors[..., 2])
    assert check(InMemory(protocol, [(picture(), {"normals": vectors.astype(np.float32)})]))[0] == []


def test_one_class_everywhere_is_an_error():
    protocol = own_protocol("mine", {"semseg": {"class_names": ["a", "b"]}})
    label = np.ones((8, 10), np.int64)
    data = InMemory(protocol, [(picture(0), {"semseg": label}), (picture(1), {"semseg": label})])
    assert "every labelled pixel is class 1" in errors(check(data)[0])[0]


def test_labels_of_another_class_set_are_an_error():
    protocol = get_protocol("nyud-invpt").select(["semseg"])
    label = np.arange(80).reshape(8, 10) % 13
    data = InMemory(own_protocol("mine", {"semseg": {"class_names": protocol.tasks[0].class_names}}),
                    [(picture(i), {"semseg": label}) for i in range(50)])  # fmt: skip
    assert "ids end at 12 of 40" in errors(check(data)[0])[0]


def test_odd_pictures_are_listed():
    protocol = own_protocol("mine", {"edge": {}})
    edge = encoded((0.0,))
    edge[2, 2] = 1
    flat = np.full((8, 10, 3), 7, np.uint8)
    gray = np.repeat(picture(3)[..., :1], 3, axis=2)
    data = InMemory(protocol, [(image, {"edge": edge}) for image in (flat, gray, picture(), picture())])
    texts = [item.text for item in check(data)[0]]
    assert "1 images show nothing (one colour): im0." in texts
    assert "2 images have no colour: im0, im1." in texts
    assert "1 images are repeated under another name: im2 = im3." in texts


def test_pictures_in_two_splits_are_an_error(nyud):
    target = nyud / "images" / "0002.png"
    target.write_bytes((nyud / "images" / "0007.png").read_bytes())
    train, val = (NYUDv2(nyud, split=split, check=False) for split in ("train", "val"))
    statistics = {data.split: collect(data, range(len(data))) for data in (train, val)}
    findings = judge_overlap(statistics, {"train": train.ids, "val": val.ids})
    assert [item.text.split(":")[0] for item in findings] == ["'0007' and '0002' are the same picture"]


def test_number_names_in_two_splits_are_no_overlap(miniature, tmp_path):
    root = miniature.mtan(tmp_path / "nyuv2", count=2)
    label = np.load(root / "val" / "image" / "0.npy")
    np.save(root / "val" / "image" / "0.npy", label * 0.9)
    sets = {split: MtanNpy(root, split=split, check=False) for split in ("train", "val")}
    statistics = {split: collect(data, range(len(data))) for split, data in sets.items()}
    assert judge_overlap(statistics, {split: data.ids for split, data in sets.items()}) == []


def test_quirk_06_the_number_of_unscored_disparities_is_told(miniature, tmp_path):
    data = Cityscapes(miniature.cityscapes(tmp_path / "c"), split="train", check=False)
    findings, statistics = check(data)
    counted = statistics.tasks["depth"]
    stored, raw = (
        [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in sorted((tmp_path / folder).rglob(kind))]
        for folder, kind in (("c/disparity/train", "*.png"), ("c/gtFine/train", "*_labelIds.png"))
    )
    beyond = sum(int(((p == 30000) & (r != 10)).sum()) for p, r in zip(stored, raw, strict=True))
    assert counted.beyond == beyond > 0
    notes = [item.text for item in findings if item.level == "note" and item.where == "train depth"]
    assert f"({beyond} pixels) are 80 or more and are left out of the score" in notes[1]
    assert "negative: invalid pixels that the loss learns" in notes[0]


def test_known_copies(miniature, tmp_path):
    survey = miniature.nyud(tmp_path / "survey", packaging="survey")
    assert "packaging='survey'" in known_copies("NYUDv2", survey)[0]
    pascal = miniature.pascal(tmp_path / "pascal")
    assert known_copies("PascalContext", pascal) == []
    for path in (pascal / "normals_distill").iterdir():
        path.unlink()
    assert "a copy without the distilled labels circulates" in known_copies("PascalContext", pascal)[0]
    mtan = miniature.mtan(tmp_path / "mtan")
    assert "MtanNpy" in known_copies("NYUDv2", mtan)[0]
    zips = miniature.cityscapes_zips(tmp_path / "zips")
    assert "still packed" in known_copies("Cityscapes", zips)[0]


def test_pascal_parts_without_label_are_counted(miniature, tmp_path):
    data = PascalContext(miniature.pascal(tmp_path / "p"), split="train", check=False)
    _, statistics = check(data)
    assert statistics.tasks["human_parts"].empty == ["2008_000008", "2010_000101"]
    assert statistics.tasks["human_parts"].images == 3


def test_command_line_reports_and_fails(nyud, tmp_path, capsys):
    out, drawn = tmp_path / "report.json", tmp_path / "sheet.png"
    arguments = ["--dataset", "NYUDv2", "--root", str(nyud), "--workers", "1", "--quiet"]
    code = check_main([*arguments, "--json", str(out), "--sheet", str(drawn)])
    assert code == 1
    printed = capsys.readouterr().out
    for text in (
        "NYUD-v2, InvPT protocol, train",
        "refridgerator",
        "3 images, the protocol has 795",
        "error(s)",
    ):
        assert text in printed
    content = json.loads(out.read_text())
    assert check_main([*arguments, "--json", "-"]) == 1
    assert json.loads(capsys.readouterr().out) == content  # JSON and nothing else
    assert content["splits"]["val"]["read"] == 2
    assert content["splits"]["train"]["sizes"] == {"17x23": 3}
    for split in ("train", "val"):
        assert cv2.imread(str(tmp_path / f"sheet_{split}.png")) is not None


def test_command_line_accepts_a_clean_copy(miniature, tmp_path, capsys, monkeypatch):
    """A MTAN set of the published size would pass; here the protocol's counts are replaced."""
    from dataclasses import replace

    from mtvision import protocols

    root = miniature.mtan(tmp_path / "nyuv2", count=3)
    small = replace(get_protocol("nyuv2-mtan"), id="small", splits={"train": 3, "val": 2})
    monkeypatch.setitem(protocols.PROTOCOLS, "small", small)
    code = check_main(
        ["--dataset", "MtanNpy", "--root", str(root), "--protocol", "small", "--workers", "1", "--quiet"]
    )
    printed = capsys.readouterr().out
    assert "Nothing found that would corrupt a score" in printed
    assert code == 0


def test_command_line_explains_a_folder_it_cannot_open(miniature, tmp_path, capsys):
    root = miniature.nyud(tmp_path / "survey", packaging="survey")
    code = check_main(["--dataset", "NYUDv2", "--root", str(root), "--workers", "1", "--quiet"])
    printed = " ".join(capsys.readouterr().out.split())
    assert code == 1
    assert "read it with packaging='survey'" in printed
    assert "3 of 3 images" in printed


def test_command_line_reads_a_config(miniature, tmp_path, capsys):
    root = miniature.pascal(tmp_path / "p")
    config = tmp_path / "config.py"
    config.write_text(
        "protocol = 'pascal-invpt'\ntasks = ['semseg', 'edge']\n"
        + "".join(
            f"{split}_data = dict(dataset=dict(type='PascalContext', root={str(root)!r}, split={split!r}))\n"
            for split in ("train", "val")
        )
    )
    code = check_main([str(config), "--workers", "1", "--quiet"])
    printed = capsys.readouterr().out
    assert code == 1
    assert "2 images, the protocol has 5105" in printed
    assert "saliency" not in printed


def test_preparing_then_checking(miniature, tmp_path, capsys):
    source, target = miniature.cityscapes_zips(tmp_path), tmp_path / "out"
    arguments = ["cityscapes", str(source), str(target), "--quiet", "--workers", "1"]
    assert prepare_main(arguments) == 1
    assert "Cityscapes train: 3 images, the published split has 2975" in capsys.readouterr().out
    assert prepare_main([*arguments, "--any-count"]) == 0
    assert "16 were there already" in capsys.readouterr().out.replace("\n", " ")


def test_notes_of_the_preparation_are_repeated(miniature, tmp_path, capsys):
    release, target = miniature.voc_release(tmp_path / "d"), tmp_path / "PASCALContext"
    arguments = ["pascal_context", str(release), str(target), "--quiet", "--workers", "1", "--any-count"]
    assert prepare_main([*arguments, "--precompute"]) == 0
    assert "task 'saliency' is off" in capsys.readouterr().out.replace("\n", " ")
    check_main(["--dataset", "PascalContext", "--root", str(target), "--workers", "1", "--quiet"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "prepared saliency: off: the field's saliency maps are distilled" in printed
    assert "semseg scores may differ slightly" in printed


@pytest.mark.slow
def test_two_processes_count_the_same(nyud):
    data = NYUDv2(nyud, split="train", check=False)
    assert collect(data, range(3), workers=2) == collect(data, range(3))


def jpeg(**options):
    pixels = np.random.default_rng(0).integers(0, 255, (4, 6, 3), np.uint8)
    file = io.BytesIO()
    picture = Image.fromarray(pixels).resize((240, 160)).convert(options.pop("mode", "RGB"))
    picture.save(file, "JPEG", quality=95, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda content: content, False),
        (
            lambda content: content[: len(content) // 2] + bytes(300) + content[len(content) // 2 + 300 :],
            True,
        ),
        (lambda content: content[: len(content) // 2] + b"\xff\xd9", True),
        (lambda content: content + b"a film", False),
        (lambda content: b"BM" + content, False),
    ],
    ids=["sound", "zeros in the middle", "cut, with an end marker", "something behind", "no JPEG"],
)
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"mode": "L"}], ids=str)
def test_jpeg_files_with_lost_bytes(damage, found, options, tmp_path):
    (tmp_path / "a.jpg").write_bytes(damage(jpeg(**options)))
    assert is_patched_jpeg(tmp_path / "a.jpg") == found


def test_jpeg_files_of_four_colours_are_not_judged(tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg(mode="CMYK"))
    assert not is_patched_jpeg(tmp_path / "a.jpg")
    assert not is_patched_jpeg(tmp_path / "absent.jpg")


def test_photographs_with_lost_bytes_are_named(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "semseg").mkdir()
    content = jpeg()
    for name, stored in {"a": content, "b": content[:2000] + b"\xff\xd9"}.items():
        (tmp_path / f"images/{name}.jpg").write_bytes(stored)
        Image.fromarray(np.eye(160, 240, dtype=np.uint8)).save(tmp_path / f"semseg/{name}.png")
    protocol = own_protocol("mine", {"semseg": {"class_names": ["a", "b"]}})
    data = FolderDataset(tmp_path, labels={"semseg": "semseg"}, protocol=protocol)
    findings, statistics = check(data)
    assert statistics.patched == ["b"]
    assert any("1 images are damaged JPEG files" in item.text for item in findings)

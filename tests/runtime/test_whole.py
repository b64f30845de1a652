"""Checkpoints that are whole: damage is found, named and passed over."""

from __future__ import annotations

import random
import threading

import pytest
import torch

from mtvision.runtime.atomic import atomic_file, remove_temporaries, set_aside
from mtvision.runtime.checkpoint import CheckpointError, find_checkpoint, load_checkpoint, save_checkpoint
from mtvision.runtime.checkpoint_writer import CheckpointWriter
from mtvision.runtime.whole import MANIFEST, checkpoints_of, damage, enter, newest_whole


def saved(folder, step=1, entered=True):
    path = folder / f"iter_{step}.pth"
    generator = torch.Generator().manual_seed(step)
    state = {f"layer{i}.weight": torch.rand(50, generator=generator) for i in range(12)}
    save_checkpoint(path, {"meta": {"iter": step, "note": "x" * 300}, "state_dict": state}, entered=entered)
    return path


def flip(path, place, bit):
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


@pytest.mark.fault("a flipped bit in a checkpoint", expected="refused wherever the bit is, 120 of 120")
def test_120_flipped_bits_are_found(tmp_path):
    path = saved(tmp_path)
    whole, draw = path.read_bytes(), random.Random(0)
    for count in range(120):
        flip(path, (len(whole) * count) // 120 + draw.randrange(len(whole) // 120), draw.randrange(8))
        with pytest.raises(CheckpointError, match=r"iter_1.pth is damaged: it has another SHA-256"):
            load_checkpoint(path)
        path.write_bytes(whole)
    assert load_checkpoint(path)["meta"]["iter"] == 1


@pytest.mark.fault(
    "a flipped bit in a checkpoint without its manifest", expected="refused, or without effect"
)
def test_no_flipped_bit_is_silent_without_a_manifest(tmp_path):
    path = saved(tmp_path, entered=False)
    whole, draw, found = path.read_bytes(), random.Random(1), 0
    expected = load_checkpoint(path)
    for count in range(60):
        flip(path, (len(whole) * count) // 60 + draw.randrange(len(whole) // 60), draw.randrange(8))
        try:
            content = load_checkpoint(path)
        except CheckpointError:
            found += 1
        else:  # in a field of the zip format that is not loaded
            assert content["meta"] == expected["meta"]
            torch.testing.assert_close(content["state_dict"], expected["state_dict"], rtol=0, atol=0)
        path.write_bytes(whole)
    assert found > 20  # small tensors: most of this file are headers and padding


def make_folder(path):
    path.unlink()
    path.mkdir()


DAMAGE = {
    "empty": (lambda path: path.write_bytes(b""), "is empty"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-99]), "bytes, checkpoints.json says"),
    "flipped": (lambda path: flip(path, 700, 3), "has another SHA-256 than checkpoints.json says"),
    "zeroed head": (lambda path: path.write_bytes(bytes(99) + path.read_bytes()[99:]), "another SHA-256"),
    "a folder of its name": (make_folder, "is a folder"),
    "not a checkpoint": (lambda path: path.write_bytes(b"not a zip"), "has 9 bytes"),
}


@pytest.mark.parametrize("entered", [True, False])
@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.fault(
    "the newest checkpoint is empty, cut, flipped, a folder", expected="the one before is taken"
)
def test_the_newest_whole_checkpoint_is_taken(tmp_path, kind, entered):
    for step in (9, 10):
        saved(tmp_path, step, entered)
    harm, words = DAMAGE[kind]
    harm(tmp_path / "iter_10.pth")
    newest, damaged = newest_whole(tmp_path)
    assert newest.path == tmp_path / "iter_9.pth" == find_checkpoint(tmp_path)
    assert list(damaged) == [tmp_path / "iter_10.pth"]
    if entered:
        assert words in damaged[tmp_path / "iter_10.pth"]


def test_names_that_only_look_like_checkpoints_are_left_alone(tmp_path):
    for name in ("iter_5 copy.pth", "iter_x.pth", "iter_7.pth.damaged", "best.pth"):
        (tmp_path / name).touch()
    assert checkpoints_of(tmp_path) == {}
    assert checkpoints_of(tmp_path / "absent") == {}


@pytest.mark.fault("killed between manifest and checkpoint", expected="the old file still counts as whole")
def test_the_file_that_was_to_be_replaced_stays_valid(tmp_path):
    path = saved(tmp_path)
    enter(path, "0" * 64, 5)
    assert damage(path) == ""
    saved(tmp_path)
    assert damage(path) == ""


@pytest.mark.fault("a damaged manifest", expected="the checksums of the checkpoint's own format count")
def test_a_damaged_manifest_does_not_condemn_checkpoints(tmp_path):
    path = saved(tmp_path)
    (tmp_path / MANIFEST).write_text('{"files": {"iter_1.pth"')
    assert load_checkpoint(path)["meta"]["iter"] == 1
    flip(path, path.read_bytes().index(b"layer3.weight"), 0)
    with pytest.raises(CheckpointError, match="wrong checksum"):
        load_checkpoint(path)


def test_a_checkpoint_that_was_replaced_on_purpose_can_be_used(tmp_path):
    path = saved(tmp_path)
    torch.save({"w": torch.ones(2)}, path)
    with pytest.raises(CheckpointError, match=r"remove its entry from .*checkpoints.json"):
        load_checkpoint(path)
    (tmp_path / MANIFEST).unlink()
    assert load_checkpoint(path)["state_dict"]["w"].sum() == 2


def test_the_background_writer_copies_and_waits(tmp_path):
    begun, go_on, names = threading.Event(), threading.Event(), []

    def hold(done):
        names.append(done.path.name)
        begun.set()
        assert go_on.wait(60)

    writer = CheckpointWriter(in_background=True, done=hold)
    weights = torch.zeros(3)
    writer.write(tmp_path / "iter_1.pth", {"state_dict": {"w": weights}})
    weights += 1  # as the next step does
    assert begun.wait(60)
    go_on.set()
    writer.write(tmp_path / "iter_2.pth", {"state_dict": {"w": weights}})
    weights += 1
    writer.write(tmp_path / "iter_3.pth", {"state_dict": {"w": weights}}, wait=True)
    found = [
        load_checkpoint(tmp_path / f"iter_{step}.pth")["state_dict"]["w"][0].item() for step in (1, 2, 3)
    ]
    assert found == [0, 1, 2]
    assert names == ["iter_1.pth", "iter_2.pth", "iter_3.pth"]


@pytest.mark.fault("a checkpoint cannot be written in the background", expected="the error ends the run")
def test_errors_of_the_background_writer_come_out(tmp_path):
    (tmp_path / "iter_1.pth").mkdir()
    writer = CheckpointWriter(in_background=True)
    writer.write(tmp_path / "iter_1.pth", {"state_dict": {}})
    with pytest.raises(OSError, match="iter_1.pth"):
        writer.finish()
    writer.finish()  # it is told once


@pytest.mark.fault(
    "killed while a file is written", expected="the temporary file is removed at the next start"
)
def test_only_our_temporary_files_are_removed(tmp_path):
    for name in (".lock", ".iter_5.pth.part", ".notes.0123456789ab", "losses.jsonl"):
        (tmp_path / name).touch()
    writing = atomic_file(tmp_path / "iter_5.pth")
    writing.__enter__()
    assert len(list(tmp_path.iterdir())) == 5
    (removed,) = remove_temporaries(tmp_path)
    assert removed.startswith(".iter_5.pth.")
    assert removed.endswith(".part")
    assert len(list(tmp_path.iterdir())) == 4
    assert remove_temporaries(tmp_path / "absent") == []


def test_what_is_in_the_way_is_renamed(tmp_path):
    for expected in ("a.damaged", "a.damaged-2", "a.damaged-3"):
        (tmp_path / "a").mkdir()
        assert set_aside(tmp_path / "a", "damaged").name == expected


def test_a_checkpoint_says_its_size_and_time(tmp_path):
    done = save_checkpoint(tmp_path / "a.pth", {"state_dict": {"w": torch.zeros(500_000)}})
    assert str(done).startswith("checkpoint a.pth: 2.00 MB in ")
    assert not (tmp_path / MANIFEST).exists()

"""The cache returns what was decoded, bit for bit, and refuses to serve other data."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from mtvision.cli.data.prepare_dataset import main as prepare_main
from mtvision.core.sample import SampleKey
from mtvision.core.task import IGNORE
from mtvision.data.array_cache import StaleCacheError, encode, write_cache
from mtvision.data.cityscapes import Cityscapes
from mtvision.data.mtan_npy import MtanNpy
from mtvision.data.nyudv2 import NYUDv2
from mtvision.data.pascal_context import PascalContext
from mtvision.protocols.tasks import depth, semseg


@pytest.fixture
def makers(miniature, tmp_path):
    """{name: function of the constructor's options}."""
    nyud, pascal = miniature.nyud(tmp_path / "n"), miniature.pascal(tmp_path / "p")
    cityscapes, mtan = miniature.cityscapes(tmp_path / "c"), miniature.mtan(tmp_path / "m", count=3)
    return {
        "nyud": lambda **options: NYUDv2(nyud, split="train", check=False, **options),
        "pascal": lambda **options: PascalContext(pascal, split="train", check=False, **options),
        "cityscapes": lambda **options: Cityscapes(cityscapes, split="train", check=False, **options),
        "mtan": lambda **options: MtanNpy(mtan, split="train", check=False, **options),
    }


@pytest.mark.parametrize("name", ["nyud", "pascal", "cityscapes", "mtan"])
def test_cached_samples_are_the_decoded_ones(makers, tmp_path, name):
    plain = makers[name]()
    size = write_cache(plain, tmp_path / "cache")
    assert size == (tmp_path / "cache" / "train" / "arrays.bin").stat().st_size > 0
    cached = makers[name](cache=tmp_path / "cache")
    for index in range(len(plain)):
        a, b = plain.read(index), cached.read(index)
        assert a.meta == b.meta
        assert np.array_equal(a.image, b.image)
        assert a.image.dtype == b.image.dtype
        assert a.labels.keys() == b.labels.keys()
        for task, label in a.labels.items():
            assert label.tobytes() == b.labels[task].astype(label.dtype).tobytes()  # NaN included
        for task, label in plain[index].labels.items():
            torch.testing.assert_close(cached[index].labels[task], label, rtol=0, atol=0, equal_nan=True)


def test_augmented_samples_are_the_same(makers, tmp_path):
    write_cache(makers["nyud"](), tmp_path / "cache")
    transforms = {"preset": "invpt-train", "size": (16, 16)}
    plain, cached = makers["nyud"](transforms=transforms), makers["nyud"](
        transforms=transforms, cache=tmp_path / "cache"
    )  # fmt: skip
    for epoch in range(4):
        key = SampleKey(epoch=epoch, index=1)
        assert torch.equal(plain[key].image, cached[key].image)
        for task, label in plain[key].labels.items():
            torch.testing.assert_close(cached[key].labels[task], label, rtol=0, atol=0, equal_nan=True)


def test_some_tasks_of_a_cache(makers, tmp_path):
    write_cache(makers["pascal"](), tmp_path / "cache")
    few = makers["pascal"](tasks=["semseg", "edge"], cache=tmp_path / "cache")
    assert sorted(few.read(0).labels) == ["edge", "semseg"]
    write_cache(few, tmp_path / "small")
    with pytest.raises(StaleCacheError, match="cached human_parts is not there"):
        makers["pascal"](cache=tmp_path / "small")


def test_changed_files_or_options_make_a_cache_stale(makers, tmp_path):
    data = makers["nyud"]()
    write_cache(data, tmp_path / "cache")
    np.save(data.label_paths("0001", "depth")[0], np.ones((17, 24), np.float32))
    with pytest.raises(StaleCacheError, match="cached depth was made from other files"):
        makers["nyud"](cache=tmp_path / "cache")
    write_cache(makers["cityscapes"](), tmp_path / "cache2")
    with pytest.raises(StaleCacheError):
        makers["cityscapes"](sky_fix=True, cache=tmp_path / "cache2")


def test_no_cache_or_half_a_cache_is_named(makers, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no complete cache of split 'train'.*--cache"):
        makers["nyud"](cache=tmp_path / "nowhere")
    data = makers["nyud"]()
    data.image_path("0007").write_bytes(b"")
    with pytest.raises(ValueError, match="0007.png: the file is empty"):
        write_cache(data, tmp_path / "half")
    with pytest.raises(FileNotFoundError, match="no complete cache"):
        makers["nyud"](cache=tmp_path / "half")


def test_a_valid_cache_is_kept(makers, tmp_path):
    write_cache(makers["nyud"](), tmp_path / "cache")
    path = tmp_path / "cache" / "train" / "arrays.bin"
    before = path.stat().st_mtime_ns
    write_cache(makers["nyud"](), tmp_path / "cache")
    assert path.stat().st_mtime_ns == before


def test_never_inside_the_data_set(makers):
    data = makers["nyud"]()
    with pytest.raises(ValueError, match="lies inside the data set"):
        write_cache(data, data.root / "cache")


def test_it_travels_to_worker_processes_without_the_file(makers, tmp_path):
    write_cache(makers["nyud"](), tmp_path / "cache")
    data = makers["nyud"](cache=tmp_path / "cache")
    first = data[0].image
    content = pickle.dumps(data)
    assert len(content) < 20_000
    assert torch.equal(pickle.loads(content)[0].image, first)


def test_encoding_takes_one_byte_where_it_is_exact():
    ids, table = encode(np.array([[0, IGNORE]]), semseg(["a", "b"]))
    assert (ids.dtype, table) == (np.uint8, None)
    few = np.array([[0.25, np.nan, -0.0, 0.0]], np.float32)[..., None]
    positions, table = encode(few, depth())
    assert positions.dtype == np.uint8
    assert table[positions].tobytes() == few.tobytes()
    many = np.arange(257, dtype=np.float32).reshape(1, 257, 1)
    assert encode(many, depth())[0] is many


def test_the_command_writes_a_cache_of_the_tasks_that_are_on(miniature, tmp_path, capsys):
    release, target = miniature.voc_release(tmp_path / "d"), tmp_path / "PASCALContext"
    arguments = ["pascal_context", str(release), str(target), "--quiet", "--workers", "1", "--any-count"]
    assert prepare_main([*arguments, "--cache", str(tmp_path / "cache")]) == 0
    assert "3 decoded samples" in " ".join(capsys.readouterr().out.split())
    tasks = ["semseg", "human_parts", "edge"]
    data = PascalContext(target, split="val", check=False, tasks=tasks, cache=tmp_path / "cache")
    plain = PascalContext(target, split="val", check=False, tasks=tasks)
    assert torch.equal(data[1].labels["edge"], plain[1].labels["edge"])


@pytest.mark.slow
def test_two_processes_write_the_same_cache(makers, tmp_path):
    write_cache(makers["nyud"](), tmp_path / "one")
    write_cache(makers["nyud"](), tmp_path / "two", workers=2)
    for name in ("arrays.bin", "index.json"):
        assert (tmp_path / "one/train" / name).read_bytes() == (tmp_path / "two/train" / name).read_bytes()

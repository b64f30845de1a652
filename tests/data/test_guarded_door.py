"""Archives in parts, caches by content, kernels from private folders."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import tracemalloc
import warnings
import zipfile
from pathlib import Path

import data_problems as problems
import numpy as np
import pytest

from mtvision.core.compiled import library
from mtvision.core.files.arrays import load_npy, load_npz
from mtvision.core.files.foreign import DecodeError
from mtvision.core.files.json_file import read_json
from mtvision.core.files.limits import TooLargeError
from mtvision.core.files.mat import load_mat
from mtvision.core.files.pictures import read_bytes
from mtvision.core.files.text import read_text
from mtvision.data.array_cache import StaleCacheError, write_cache
from mtvision.data.nyudv2 import NYUDv2
from mtvision.data.prepare.pcd import read_pcd
from mtvision.data.prepare.sources import unpack_tar
from mtvision.ops.scan.build import LIBRARY


def archive(path, *members, mode="w:gz"):
    with tarfile.open(path, mode) as file:
        for name, content, kind in members:
            info = tarfile.TarInfo(name)
            info.type, info.size = kind, len(content)
            info.linkname = "../outside" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            file.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.fault("a large member in a small archive", expected="streamed; never whole in memory")
@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
@problems.ARCHIVES
def test_a_large_member_is_never_whole_in_memory(mode, tmp_path, monkeypatch):
    large = bytes(40 * 2**20)
    path = archive(tmp_path / "a.tar.gz", ("d/a.bin", large, tarfile.REGTYPE), mode=mode)
    tracemalloc.start()
    try:
        assert unpack_tar(path, tmp_path / "out").written == 1
        assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    finally:
        tracemalloc.stop()
    assert (tmp_path / "out" / "d" / "a.bin").read_bytes() == large
    assert unpack_tar(path, tmp_path / "out").kept == 1
    monkeypatch.setenv("MTVISION_LIMITS", "file_bytes=39MiB")
    with pytest.raises(TooLargeError, match="member 'd/a.bin': 40 MiB; expected at most 39"):
        unpack_tar(path, tmp_path / "other")
    assert not list((tmp_path / "other").rglob("*.*"))


@pytest.mark.fault("an archive member that leaves the folder", expected="refused; nothing is written outside")
@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("a", tarfile.SYMTYPE, "is a link"),
        ("a", tarfile.LNKTYPE, "is a link"),
        ("a", tarfile.FIFOTYPE, "neither a file nor a folder"),
        ("a", tarfile.CHRTYPE, "neither a file nor a folder"),
        ("../a", tarfile.REGTYPE, "points outside"),
        ("b/../../a", tarfile.REGTYPE, "points outside"),
        ("/a", tarfile.REGTYPE, "points outside"),
    ],
)
@problems.ARCHIVES
def test_members_that_could_leave_the_folder_are_refused(name, kind, words, tmp_path):
    path = archive(tmp_path / "a.tar.gz", (name, b"", kind))
    with pytest.raises(ValueError, match=words) as caught:
        unpack_tar(path, tmp_path / "in" / "out")
    assert str(path) in str(caught.value)
    assert not (tmp_path / "in" / "out").exists()


@pytest.fixture
def cached(miniature, tmp_path):
    root = miniature.nyud(tmp_path / "data")
    write_cache(NYUDv2(root, split="train", check=False), tmp_path / "cache")
    return lambda: NYUDv2(root, split="train", check=False, cache=tmp_path / "cache"), root


@pytest.mark.fault("a changed file of equal size and time", expected="the array cache is stale")
@pytest.mark.parametrize("folder", ["images", "segmentation", "depth"])
@problems.CACHES
def test_a_changed_pixel_in_a_file_of_equal_size_and_time(cached, folder):
    make, root = cached
    make()
    path = sorted((root / folder).iterdir())[0]
    names = {item.split(".")[0] for item in make().ids}
    path = next(item for item in sorted((root / folder).iterdir()) if item.stem in names)
    times, data = path.stat(), bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert path.stat().st_size == times.st_size
    with pytest.raises(StaleCacheError, match="was made from other files"):
        make()


def test_files_that_were_copied_or_touched_keep_their_cache(cached):
    make, root = cached
    for path in root.rglob("*.png"):
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
        os.utime(path, (5, 5))
    assert make().read(0) is not None


@pytest.mark.fault("a cut array cache", expected="refused by name")
def test_a_cut_off_cache_is_noticed(cached, tmp_path):
    make, _ = cached
    path = tmp_path / "cache" / "train" / "arrays.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StaleCacheError, match=r"arrays\.bin: \d+ bytes, expected \d+"):
        make()
    for text in ("[1]", "{}", "{"):
        (tmp_path / "cache" / "train" / "index.json").write_text(text)
        with pytest.raises(ValueError, match=r"index\.json: "):
            make()


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """A folder of kernels with one in it; compiling is pretended."""
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    built = []
    monkeypatch.setattr(
        library,
        "_compile",
        lambda compiler, source, target: built.append(target) or target.write_bytes(b"new"),
    )
    path = LIBRARY.built("c++")
    assert built == [path]
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert LIBRARY.built("c++") == path
    built.clear()
    return path, built


@pytest.mark.fault(
    "the compiled kernel lies where others may write", expected="not loaded; built again in a private folder"
)
@pytest.mark.parametrize("mode", [0o777, 0o702, 0o1777])
@pytest.mark.parametrize("part", ["folder", "file"])
@problems.KERNELS
def test_a_kernel_that_others_may_have_written_is_not_loaded(mode, part, kernel, caplog):
    path, built = kernel
    (path.parent if part == "folder" else path).chmod(mode)
    private = LIBRARY.built("c++")
    assert private != path
    assert built == [private]
    assert stat.S_IMODE(private.parent.stat().st_mode) == 0o700
    assert "others may write to" in caplog.text
    assert "TORCH_EXTENSIONS_DIR" in caplog.text


@pytest.mark.fault(
    "the compiled kernel lies where others may write", expected="not loaded; built again in a private folder"
)
@pytest.mark.parametrize("user", [12345, 54321])
@problems.KERNELS
def test_a_kernel_of_another_user_is_not_loaded(user, kernel, caplog, tmp_path, monkeypatch):
    path, _ = kernel
    try:
        os.chown(path, user, -1)
    except PermissionError:
        monkeypatch.setattr(os, "getuid", lambda: user)
    assert LIBRARY.built("c++") != path
    assert "belongs to user" in caplog.text


@pytest.mark.parametrize("read", [read_bytes, read_json, load_npy, load_npz, load_mat, read_pcd])
def test_pipes_are_refused_and_not_waited_for(read, tmp_path):
    path = tmp_path / "a"
    os.mkfifo(path)
    with pytest.raises(DecodeError, match=r"/a: a device or a pipe, expected a file"):
        read(path)
    with pytest.raises(DecodeError, match=r"/dev/zero: a device or a pipe"):
        read(Path("/dev/zero"))
    with pytest.raises(FileNotFoundError, match=r"/a: a device or a pipe, expected a text file"):
        read_text(path)


def test_an_archive_with_two_arrays_of_one_name_is_refused(tmp_path):
    content = io.BytesIO()
    np.save(content, np.zeros(3))
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archived, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(2):
            archived.writestr("depth.npy", content.getvalue())
    with pytest.raises(DecodeError, match=r"a\.npz: .*'depth\.npy' is in it twice"):
        load_npz(tmp_path / "a.npz")

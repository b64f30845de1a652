"""Commit, versions and hashes; nothing of the machine."""

import hashlib
import subprocess

import pytest

from mtvision.report.provenance import (
    absolute_paths,
    code_version,
    config_entry,
    now,
    package_versions,
    without_paths,
)
from mtvision.runtime.whole import file_sha256


def git(folder, *arguments):
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


def test_commit_and_dirty_flag(tmp_path):
    git(tmp_path, "init", "-q")
    (tmp_path / "a.py").write_text("1")
    git(tmp_path, "add", "a.py")
    git(tmp_path, "commit", "-qm", "one")
    clean = code_version(tmp_path)
    assert len(clean["commit"]) == 40
    assert clean["dirty"] is False
    (tmp_path / "untracked").write_text("x")
    assert code_version(tmp_path) == clean
    (tmp_path / "a.py").write_text("2")
    assert code_version(tmp_path) == {"commit": clean["commit"], "dirty": True}
    ignored = tmp_path / "site-packages"
    ignored.mkdir()
    assert code_version(ignored) == {"commit": None, "dirty": None}  # somebody else's repository


def test_no_checkout(tmp_path):
    assert code_version(tmp_path) == {"commit": None, "dirty": None}


def test_versions_of_what_is_installed():
    versions = package_versions(("numpy", "surely-not-installed"))
    assert set(versions) == {"python", "numpy"}


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("root = '/home/me/data'", ["/home/me/data"]),
        ("root='/data', x", ["/data"]),
        ("see /mnt/a/b.txt now", ["/mnt/a/b.txt"]),
        ("~/data/x", ["~/data/x"]),
        (r"root = 'C:\data\x'", [r"C:\data\x"]),
        ("https://a.org/b/c and 12 images/s, and/or, data/nyud, a / b, ~5/10", []),
    ],
)
def test_absolute_paths(text, paths):
    assert absolute_paths(text) == paths
    assert absolute_paths(without_paths(text)) == []


def test_a_config_has_one_hash_on_every_machine():
    here = config_entry("a", "seed = 3\ndata = dict(root='/home/me/nyud')\n")
    there = config_entry("a", "seed = 3\ndata = dict(root='/mnt/disk2/nyud')\n")
    assert here == there
    assert here["text"] == "seed = 3\ndata = dict(root='<path>/nyud')\n"
    assert here["sha256"] == hashlib.sha256(here["text"].encode()).hexdigest()


def test_seeds_share_a_row_and_nothing_else_does():
    one, two = (config_entry("a", f"lr = 1\nseed = {seed}\nx = dict(seed=4)\n") for seed in (1, 22))
    assert one["row_sha256"] == two["row_sha256"]
    assert one["sha256"] != two["sha256"]
    other = config_entry("a", "lr = 1\nseed = 1\nx = dict(seed=5)\n")
    assert other["row_sha256"] != one["row_sha256"]


def test_file_hash_and_time(tmp_path):
    (tmp_path / "a").write_bytes(b"abc" * 100_000)
    assert file_sha256(tmp_path / "a") == hashlib.sha256(b"abc" * 100_000).hexdigest()
    assert now().endswith("Z")

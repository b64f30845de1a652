"""Shared networks: one file, the hub by its HTTP interface, no code of others."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import numpy as np
import pytest
import yaml
from people import photo, write_checkpoint
from report_records import make_record

import mtvision
from mtvision.cli.main import call
from mtvision.runtime.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from mtvision.runtime.whole import file_sha256
from mtvision.share.card import eval_results, model_card
from mtvision.share.hub import ShareError, record_of, write_shared
from mtvision.share.weights import save_shared, share_checkpoint

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("network"))


def test_one_file_holds_everything(checkpoint, tmp_path):
    path = share_checkpoint(str(checkpoint), tmp_path / "model.safetensors", licence="CC-BY-4.0")
    meta = load_checkpoint(path)["meta"]
    assert meta["licence"] == "CC-BY-4.0"
    (tmp_path / "usual").touch()
    assert path.stat().st_mode == (tmp_path / "usual").stat().st_mode
    assert set(meta["tasks"]) == {"depth", "semseg"}
    before, after = mtvision.load(checkpoint), mtvision.load(path)
    for task in before.tasks:
        np.testing.assert_array_equal(before.predict(photo())[task], after.predict(photo())[task])
    saved = after.save(tmp_path / "again.safetensors")
    assert load_checkpoint(saved)["meta"]["licence"] == "CC-BY-4.0"


def test_16_bits_are_half_the_size_and_almost_the_same(checkpoint, tmp_path):
    whole = share_checkpoint(str(checkpoint), tmp_path / "whole.safetensors")
    half = share_checkpoint(str(checkpoint), tmp_path / "half.safetensors", half=True)
    assert half.stat().st_size < 0.7 * whole.stat().st_size
    depth = [mtvision.load(path).predict(photo())["depth"] for path in (whole, half)]
    np.testing.assert_allclose(*depth, atol=1e-2)


def test_what_cannot_be_shared_is_refused(tmp_path):
    import torch

    with pytest.raises(ValueError, match="end the name with that"):
        save_shared(tmp_path / "a.pth", {}, {})
    with pytest.raises(ValueError, match="beyond 16 bits"):
        save_shared(tmp_path / "a.safetensors", {"a": torch.tensor([1e6])}, {}, half=True)
    bare = write_checkpoint(tmp_path, with_config=False)
    with pytest.raises(CheckpointError, match="holds no config, so that others could not use it"):
        share_checkpoint(str(bare), tmp_path / "a.safetensors")


def test_the_files_of_a_repository(checkpoint, tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    weights = run / "iter_1.pth"
    weights.write_bytes(checkpoint.read_bytes())
    record = make_record(checkpoint={"sha256": file_sha256(weights), "file": weights.name})
    record.save(run / "record.json")
    assert call("share", [str(run), "--out", str(tmp_path / "out"), "--licence", "MIT"]) == 0
    names = {"model.safetensors", "README.md", ".eval_results/mtvision.yaml", "record.json"}
    printed = {line.removeprefix(f"{tmp_path / 'out'}/") for line in capsys.readouterr().out.splitlines()}
    assert printed == names
    card = (tmp_path / "out/README.md").read_text()
    head = yaml.safe_load(card.split("---")[1])
    assert head["license"] == "mit"
    assert head["pipeline_tag"] == "depth-estimation"
    assert "## Scores" in card
    assert list(mtvision.load(tmp_path / "out").tasks) == ["depth", "semseg"]
    weights.write_bytes(weights.read_bytes() + b"x")
    assert record_of(weights) is None  # the record of another file


def test_scores_as_the_hub_reads_them():
    record = make_record()
    entries = yaml.safe_load(eval_results(record))
    assert {item["dataset"]["task_id"] for item in entries} == {task["name"] for task in record.tasks}
    for item in entries:
        name = item["dataset"]["task_id"]
        headline = next(task["headline"] for task in record.tasks if task["name"] == name)
        assert item["value"] == record.scores[name][headline]
        assert item["dataset"]["id"] == f"mtvision/{record.protocol}"
    assert "No record lies beside" in model_card("a/b", {"tasks": ["depth"], "config": "name = 'a'"})


def test_plugins_of_a_stranger_are_not_imported(checkpoint, tmp_path, monkeypatch):
    content = load_checkpoint(checkpoint)
    marker = tmp_path / "ran"
    (tmp_path / "stranger.py").write_text(f"open({str(marker)!r}, 'w').close()\n")
    content["meta"]["config"] += "\nplugins = ['stranger']\n".replace(
        "'stranger'", repr(str(tmp_path / "stranger.py"))
    )
    path = tmp_path / "evil.pth"
    save_checkpoint(
        path,
        {
            "meta": {**content["meta"], "config": _one_plugins(content["meta"]["config"])},
            "state_dict": content["state_dict"],
        },
    )
    from mtvision.recipe.from_checkpoint import config_of_checkpoint

    with pytest.raises(CheckpointError, match="They are not imported, because the file comes from the hub"):
        config_of_checkpoint(load_checkpoint(path), path, trusted=False)
    assert not marker.exists()


def _one_plugins(text):
    """The text with the last of two assignments of `plugins`."""
    lines = text.splitlines()
    places = [index for index, line in enumerate(lines) if line.startswith("plugins = ")]
    return "\n".join(line for index, line in enumerate(lines) if index not in places[:-1]) + "\n"


class Hub(BaseHTTPRequestHandler):
    """What `huggingface_hub` needs of the hub: one repository in memory."""

    files: ClassVar[dict[str, bytes]] = {}

    def log_message(self, *_):
        pass

    def _answer(self, content, code=200, **headers):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self):
        place = self.path.split("?")[0]
        name = place.rpartition("/resolve/main/")[2]
        if "/resolve/main/" in place and place.startswith("/me/rooms/") and name in self.files:
            content = self.files[name]
            etag = f'"{hashlib.sha256(content).hexdigest()}"'
            self._answer(content, ETag=etag, X_Repo_Commit=COMMIT, Accept_Ranges="bytes")
        elif place.startswith("/api/models/me/rooms"):
            self._answer({"id": "me/rooms", "sha": COMMIT, "siblings": []})
        else:
            self._answer({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.startswith("/api/repos/create"):
            self._answer({"url": f"http://{self.headers['Host']}/me/rooms"})
        elif self.path == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            asked = json.loads(body)["files"]
            self._answer(
                {
                    "files": [
                        {"path": item["path"], "uploadMode": "regular", "shouldIgnore": False}
                        for item in asked
                    ]
                }
            )
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            address = f"http://{self.headers['Host']}/me/rooms/commit/{COMMIT}"
            self._answer({"success": True, "commitOid": COMMIT, "commitUrl": address})
        else:
            self._answer({}, 404)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    from huggingface_hub import constants

    Hub.files = {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_TOKEN", "hf_none")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # read once, when it was imported
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    yield server
    server.shutdown()
    server.server_close()


def test_up_to_the_hub_and_down_again(checkpoint, hub, tmp_path, monkeypatch, capsys):
    address = mtvision.push_to_hub(checkpoint, "me/rooms", licence="CC-BY-4.0")
    assert address.endswith(f"/me/rooms/commit/{COMMIT}")
    assert Hub.files.keys() == {"model.safetensors", "README.md"}
    model = mtvision.from_pretrained("me/rooms", revision="main")
    assert model.meta["licence"] == "CC-BY-4.0"
    (tmp_path / "a.png").write_bytes(mtvision.load(checkpoint).predict(photo())._repr_png_())
    words = ["hf:me/rooms", str(tmp_path / "a.png"), "--out", str(tmp_path / "out")]
    assert call("predict", words) == 0
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert list(mtvision.load("hf:me/rooms").tasks) == ["depth", "semseg"]  # from the cache
    with pytest.raises(ShareError, match="HF_HUB_OFFLINE is set and the cache has no copy"):
        mtvision.load("hf:me/other")
    with pytest.raises(ShareError, match="nothing is uploaded"):
        mtvision.push_to_hub(checkpoint, "me/rooms")


def test_what_the_hub_refuses_is_one_line(hub):
    with pytest.raises(ShareError, match="me/nothing: cannot download: the hub has no such repository"):
        mtvision.load("hf:me/nothing")
    with pytest.raises(ShareError, match="it holds no model.safetensors|no such"):
        mtvision.load("hf:me/rooms")


def test_a_model_is_uploaded_as_it_is(checkpoint, hub):
    mtvision.load(checkpoint, tasks="depth").push_to_hub("me/rooms", licence="MIT")
    assert list(mtvision.load("hf:me/rooms").tasks) == ["depth"]
    assert b"license: mit" in Hub.files["README.md"]


def test_shared_files_are_listed(checkpoint, tmp_path):
    written = write_shared(checkpoint, tmp_path / "out", name="rooms")
    assert [path.name for path in written] == ["model.safetensors", "README.md"]


def test_files_of_a_folder_are_kept(checkpoint, tmp_path, capsys):
    readme = tmp_path / "README.md"
    readme.write_text("My project")
    words = [str(checkpoint), "--out", str(tmp_path)]
    assert call("share", words) == 2
    assert "README.md exist already. Choose another folder" in capsys.readouterr().err
    assert readme.read_text() == "My project"
    assert not (tmp_path / "model.safetensors").exists()
    assert call("share", [*words, "--overwrite"]) == 0
    assert "My project" not in readme.read_text()

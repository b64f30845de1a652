"""Curves end up where they should, and a logger that breaks never stops a run."""

from __future__ import annotations

import http.server
import json
import logging
import socket
import threading

import cv2
import discs
import numpy as np
import pytest
from wandb_runs import read_runs

from mtvision.engine.training import train
from mtvision.recipe.config import load_config
from mtvision.recipe.sections import LoggingSettings
from mtvision.tracking.loggers import NUMBERS, Loggers, record_summary
from mtvision.tracking.run import RunFacts
from mtvision.tracking.run_id import run_id_of
from mtvision.tracking.wandb_client import _has_key, start_wandb_run


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """W&B without key, server and home folder."""
    pytest.importorskip("wandb")
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_MODE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB__DISABLE_STATS", "true")


def final_numbers(record):
    return {f"final/{name}": value for name, value in record_summary(record).items()}


def test_tensorboard_holds_losses_scores_pictures_and_cost(tmp_path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    options = ["logging.tensorboard=true", "balancer.type=Uncertainty"]
    record = train(load_config(discs.write_config(tmp_path), options), tmp_path / "run")
    events = event_accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    for name in ("loss/depth", "weight/depth", "lr"):
        assert [item.step for item in events.Scalars(name)] == [4, 8, 12]
    rows = [json.loads(line) for line in (tmp_path / "run" / "losses.jsonl").read_text().splitlines()]
    mean = np.mean([row["weight/depth"] for row in rows[:4]])
    assert events.Scalars("weight/depth")[0].value == pytest.approx(mean, rel=1e-6)
    assert [item.step for item in events.Scalars("val/depth/rmse")] == [6]
    final = final_numbers(record)
    assert {"final/depth/rmse", "final/cost/parameters", "final/cost/macs", "final/hours"} <= final.keys()
    for name, value in final.items():
        (item,) = events.Scalars(name)
        assert (item.step, item.value) == (12, pytest.approx(value, rel=1e-6))
    assert [item.step for item in events.Scalars("share/depth")] == [4, 8, 12]
    shares = [events.Scalars(f"share/{task}")[1].value for task in ("semseg", "depth")]
    parts = [np.mean([row[f"weight/{task}"] for row in rows[4:8]]) for task in ("semseg", "depth")]
    parts = [
        part * np.mean([row[f"loss/{task}"] for row in rows[4:8]])
        for part, task in zip(parts, ("semseg", "depth"), strict=True)
    ]
    assert shares == pytest.approx([part / sum(parts) for part in parts], rel=1e-6)
    assert [item.step for item in events.Images("predictions/disc-0")] == [6]
    hyperparameters = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    assert b"balancer.type" in hyperparameters and b"Uncertainty" in hyperparameters  # noqa: PT018
    assert "custom_scalars__config__" in events.summary_metadata
    (picture,) = [name for name in events.Tags()["images"] if name.startswith("pictures/")]
    (shown,) = events.Images(picture)
    stored = cv2.imread(str(next((tmp_path / "run" / "pictures").glob("*.png"))))
    assert (cv2.imdecode(np.frombuffer(shown.encoded_image_string, np.uint8), 1) == stored).all()


@pytest.mark.slow
def test_wandb_holds_losses_scores_pictures_and_cost(tmp_path, offline):
    options = ["logging.wandb=true", "logging.project=a-project", "balancer.type=Uncertainty"]
    options.append("logging.artifacts=checkpoint")
    record = train(load_config(discs.write_config(tmp_path), options), tmp_path / "run")
    (run,) = read_runs(tmp_path / "run")
    assert run.run.project == "a-project"
    assert run.config["optimizer"] == {"type": "AdamW", "lr": 0.01}
    rows = [json.loads(line) for line in (tmp_path / "run" / "losses.jsonl").read_text().splitlines()]
    for name in ("loss/depth", "weight/depth"):
        expected = [np.mean([row[name] for row in rows[i : i + 4]]) for i in (0, 4, 8)]
        assert run.values(name) == pytest.approx(expected, rel=1e-6)
    assert run.values("lr") == [rows[i]["lr"] for i in (3, 7, 11)]
    assert len(run.values("val/depth/rmse")) == 1
    assert run.values("iteration") == [4, 6, 8, 12]
    assert (run.run.run_id, run.run.run_group[:4]) == (run_id_of(tmp_path / "run"), "run ")
    table = json.loads(next((tmp_path / "run" / "wandb").rglob("*.table.json")).read_text())
    assert table["columns"] == ["iteration", "image id", "image", "depth"]
    assert [row[:2] for row in table["data"]] == [[6, "disc-0"]]
    for what in ("prediction", "label"):
        assert run.values(f"predictions/disc-0/masks/semseg {what}/_type") == ["mask"]
    kept = {item.type: item for item in run.artifacts}
    paths = [item.path for item in kept["run_table"].manifest.contents]
    assert sum(path.endswith(".mask.png") for path in paths) == 2
    assert kept["record"].name == f"record-{run.run.run_id}"
    assert [item.path for item in kept["model"].manifest.contents] == ["iter_12.pth"]
    found = {name: run.summary[name] for name in final_numbers(record)}
    assert found == pytest.approx(final_numbers(record), rel=1e-6)
    picture = next((tmp_path / "run" / "pictures").glob("*.png"))
    assert run.values(f"pictures/{picture.stem}/_type") == ["image-file"]
    (path,) = run.values(f"pictures/{picture.stem}/path")
    (copy,) = (tmp_path / "run" / "wandb").glob(f"offline-run-*/files/{path}")
    assert (cv2.imread(str(copy)) == cv2.imread(str(picture))).all()


def warnings_of(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "mtvision"]


def test_a_dead_server_does_not_stop_training(tmp_path, offline, monkeypatch, caplog):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]  # closed again before the run starts
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
    config = load_config(discs.write_config(tmp_path), ["logging.wandb=true", "training.iterations=4"])
    with caplog.at_level(logging.WARNING, logger="mtvision"):
        record = train(config, tmp_path / "run")
    (message,) = warnings_of(caplog)
    assert f"http://127.0.0.1:{port} does not answer: [Errno" in message
    assert f"written offline. Upload it later with `wandb sync {tmp_path / 'run' / 'wandb'}" in message
    (run,) = read_runs(tmp_path / "run")
    assert run.summary["final/depth/rmse"] == pytest.approx(record.scores["depth"]["rmse"])


def test_a_missing_key_does_not_stop_training(tmp_path, offline, monkeypatch, caplog):
    monkeypatch.setenv("WANDB_MODE", "online")
    with caplog.at_level(logging.WARNING, logger="mtvision"):
        loggers = Loggers(LoggingSettings(wandb=True), tmp_path, RunFacts(name="a", config={}, run_id="abc"))
        loggers.scalars({"a": 1.5}, 1)
        loggers.finish({})
    (message,) = warnings_of(caplog)
    assert "no API key for https://api.wandb.ai; set WANDB_API_KEY" in message
    (run,) = read_runs(tmp_path)
    assert run.values("a") == [1.5]


class FakeRun:
    def __init__(self, refuse):
        self.refuse, self.summary = refuse, {}

    def define_metric(self, name, **options):
        pass

    def finish(self):
        if self.refuse:
            raise TimeoutError("uploads took longer than 120 s")


class FakeWandb:
    """A client whose server answers and then breaks."""

    def __init__(self, *, refuse_init=False, refuse_finish=False):
        self.calls, self.torn_down = [], 0
        self.refuse_init, self.refuse_finish = refuse_init, refuse_finish

    class Settings:
        model_fields = dict.fromkeys(("init_timeout", "finish_timeout", "finish_timeout_raises"))

        def __init__(self, **values):
            self.__dict__.update(values)

    def init(self, *, mode, settings, **options):
        self.calls.append((mode, settings.__dict__))
        if mode == "online" and self.refuse_init:
            raise RuntimeError("401 unauthorised\nmore lines")
        return FakeRun(self.refuse_finish)

    def teardown(self):
        self.torn_down += 1


@pytest.fixture
def living_server(offline, monkeypatch):
    """A server that answers everything with 404."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(404)

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_port}")
    yield
    server.shutdown()
    server.server_close()


def test_a_server_that_refuses_the_run_leaves_an_offline_one(tmp_path, living_server, caplog):
    client = FakeWandb(refuse_init=True)
    start_wandb_run(client, tmp_path, project="p")
    assert [mode for mode, _ in client.calls] == ["online", "offline"]
    assert client.torn_down == 1
    (message,) = warnings_of(caplog)
    assert "RuntimeError: 401 unauthorised)" in message
    assert client.calls[0][1] == {
        "init_timeout": 30.0, "finish_timeout": 120.0, "finish_timeout_raises": True
    }  # fmt: skip


def test_a_server_that_dies_during_training_is_reported_at_the_end(
    tmp_path, living_server, caplog, monkeypatch
):
    monkeypatch.setattr("mtvision.tracking.wandb_run.import_wandb", lambda: FakeWandb(refuse_finish=True))
    loggers = Loggers(LoggingSettings(wandb=True), tmp_path, RunFacts(name="a", config={}, run_id="abc"))
    loggers.finish({"a": 1.0})
    line = f"WandbLogger stopped: TimeoutError: uploads took longer than 120 s; {NUMBERS}"
    assert warnings_of(caplog) == loggers.failures == [line]


def test_a_key_counts_for_its_own_server_only(tmp_path, offline, monkeypatch):
    assert not _has_key()
    (tmp_path / ".netrc").write_text("machine other.host login user password x\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert not _has_key()
    monkeypatch.setenv("WANDB_BASE_URL", "https://other.host/path")
    assert _has_key()


def test_a_broken_logger_is_reported_once_and_dropped(tmp_path, caplog):
    class Broken:
        def scalars(self, values, step):
            raise ConnectionError("server is gone")

    loggers = Loggers(LoggingSettings(), tmp_path, RunFacts(name="a", config={}, run_id="a"))
    loggers._active.append(Broken())
    with caplog.at_level(logging.WARNING, logger="mtvision"):
        loggers.scalars({"a": 1.0}, 1)
        loggers.scalars({"a": 1.0}, 2)
    line = f"Broken stopped: ConnectionError: server is gone; {NUMBERS}"
    assert warnings_of(caplog) == loggers.failures == [line]
    assert not loggers.active


def test_nothing_is_logged_by_default(tmp_path):
    train(load_config(discs.write_config(tmp_path)), tmp_path / "run")
    assert not (tmp_path / "run" / "tensorboard").exists()
    assert not (tmp_path / "run" / "wandb").exists()

"""Curves end up where they should, and a logger that breaks never stops a run."""

from __future__ import annotations

import logging
import time

import discs
import numpy as np
import pytest

from mtvision.engine.config import load_config
from mtvision.engine.loggers import Loggers
from mtvision.engine.settings import LoggingSettings
from mtvision.engine.training import train


def test_tensorboard_holds_losses_and_scores(tmp_path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    config = load_config(discs.write_config(tmp_path), ["logging.tensorboard=true"])
    record = train(config, tmp_path / "run")
    events = event_accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert [item.step for item in events.Scalars("loss/depth")] == [4, 8, 12]
    assert [item.step for item in events.Scalars("val/depth/rmse")] == [6]
    final = events.Scalars("final/depth/rmse")[0].value
    assert final == pytest.approx(record.scores["depth"]["rmse"], rel=1e-6)


def log_records(content: bytes):
    """Payloads of a W&B run file: a 7-byte header, then LevelDB's log format in blocks of 32 KiB."""
    position, parts = 7, b""
    while position + 7 <= len(content):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        size, kind = int.from_bytes(content[position + 4 : position + 6], "little"), content[position + 6]
        parts += content[position + 7 : position + 7 + size]
        position += 7 + size
        if kind in (1, 4):  # a whole record, or the last part of one
            yield parts
            parts = b""


@pytest.mark.slow
def test_wandb_writes_an_offline_run_that_can_be_read_back(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2

    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    loggers = Loggers(
        LoggingSettings(wandb=True), tmp_path, name="a run", config={"seed": 3}, run_id="abc123"
    )
    loggers.scalars({"loss/depth": 0.5}, 7)
    loggers.image("picture", np.zeros((4, 4, 3), np.uint8), 7)
    loggers.finish({"depth/rmse": 0.25})
    (file,) = (tmp_path / "wandb").glob("offline-run-*/run-abc123.wandb")
    values: dict[str, str] = {}
    for _ in range(300):  # W&B's own process writes the file, a little after `finish` on a busy machine
        for data in log_records(file.read_bytes()):
            entry = wandb_internal_pb2.Record()
            entry.ParseFromString(data)
            for item in (*entry.history.item, *entry.summary.update):
                values["/".join(item.nested_key) or item.key] = item.value_json
        if "final/depth/rmse" in values:
            break
        time.sleep(0.2)
    assert float(values["loss/depth"]) == 0.5
    assert float(values["final/depth/rmse"]) == 0.25


def test_a_broken_logger_is_reported_once_and_dropped(tmp_path, caplog):
    class Broken:
        def scalars(self, values, step):
            raise ConnectionError("server is gone")

    loggers = Loggers(LoggingSettings(), tmp_path, name="a", config={}, run_id="a")
    loggers._active.append(Broken())
    with caplog.at_level(logging.WARNING, logger="mtvision"):
        loggers.scalars({"a": 1.0}, 1)
        loggers.scalars({"a": 1.0}, 2)
    assert [record.message for record in caplog.records] == [
        "Broken stopped: ConnectionError: server is gone"
    ]


def test_nothing_is_logged_by_default(tmp_path):
    train(load_config(discs.write_config(tmp_path)), tmp_path / "run")
    assert not (tmp_path / "run" / "tensorboard").exists()
    assert not (tmp_path / "run" / "wandb").exists()

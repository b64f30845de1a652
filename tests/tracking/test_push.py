"""Records in W&B: one run each, one table of all, written by the real client and read back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from report_records import make_gain, make_record
from wandb_runs import read_runs

from mtvision.cli.results.leaderboard import main
from mtvision.tracking import push as module
from mtvision.tracking.push import push, run_name, table_rows


@pytest.fixture
def records():
    runs = [make_record(0.5 + 0.01 * seed, 0.6, seed=seed) for seed in range(2)]
    return [
        *(replace(run, gain=make_gain(run)) for run in runs),
        make_record(float("nan"), 0.5, method="B", row="b"),
    ]


@pytest.fixture
def offline(monkeypatch, tmp_path):
    pytest.importorskip("wandb")
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_MODE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB__DISABLE_STATS", "true")


@pytest.mark.slow
def test_a_push_can_be_read_back(tmp_path, records, offline):
    done = push(records, project="board", folder=tmp_path)
    assert (done.runs, len(done.folders), done.failed) == (4, 4, {})
    assert done.hint == "wandb sync " + " ".join(map(str, done.folders))
    runs = {run.run.display_name: run for run in read_runs(tmp_path, 4)}
    assert runs.keys() == {*map(run_name, records), "results"}
    first = runs["ParallelDecoder / tiny / synthetic-scenes, seed 1"]
    assert first.summary["semseg/miou"] == 0.51
    assert first.summary["cost/parameters"] == 1_234_567
    assert first.summary["gain_percent"] == records[1].gain["percent"]
    assert (first.config["method"], first.config["seed"]) == ("ParallelDecoder", 1)
    assert first.config["record"] == records[1].to_json()
    assert (first.run.job_type, list(first.run.tags)) == ("record", ["synthetic-scenes", "ours"])
    assert "semseg/miou" not in runs[run_name(records[2])].summary  # NaN is not a number to plot
    (artifact,) = [item for item in runs["results"].artifacts if item.name == "results"]
    assert artifact.type == "table"
    (file,) = [entry.local_path for entry in artifact.manifest.contents if entry.path.endswith(".table.json")]
    table = json.loads(Path(file).read_text())
    columns, rows = table_rows(records)
    assert (table["columns"], table["data"]) == (columns, rows)


def test_the_table_names_directions_and_leaves_gaps(records):
    columns, rows = table_rows(records)
    assert {"semseg/miou ↑", "depth/rmse ↓", "gain_percent", "cost/macs"} <= set(columns)
    table = [dict(zip(columns, row, strict=True)) for row in rows]
    assert [row["depth/rmse ↓"] for row in table] == [0.6, 0.6, 0.5]
    assert table[2]["semseg/miou ↑"] is None
    assert table[2]["gain_percent"] is None


def test_pushing_again_updates_the_same_runs(records):
    ids = [module._run_options(record, "")["id"] for record in records]
    assert len(set(ids)) == 3
    assert ids == [module._run_options(record, "")["id"] for record in records]


def test_one_run_that_fails_does_not_lose_the_others(tmp_path, records, offline, monkeypatch):
    started = []

    def start(wandb, folder, **options):
        started.append(options["name"])
        raise ConnectionError("gone")

    monkeypatch.setattr(module, "start_wandb_run", start)
    done = push(records, project="board", folder=tmp_path)
    assert len(started) == 4
    assert done.runs == 0
    assert done.failed["results table"] == "ConnectionError: gone"


def test_nothing_to_push(tmp_path):
    with pytest.raises(ValueError, match="no records to push"):
        push([], project="a", folder=tmp_path)


def test_the_command_pushes_record_files(tmp_path, records, offline, capsys):
    for index, record in enumerate(records):
        record.save(tmp_path / f"results/{index}.json")
    assert main(["push", str(tmp_path / "results"), "--project", "board", "--dir", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "3 records: 4 W&B runs, 4 of them offline." in said
    assert "wandb sync" in said
    names = {run.run.display_name for run in read_runs(tmp_path, 4)}
    assert {run_name(record) for record in records} <= names

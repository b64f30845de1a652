"""The demo on real pictures: its grid, its parts, and what it says without data."""

from __future__ import annotations

import runpy
from argparse import Namespace
from collections import defaultdict
from pathlib import Path

import pytest

from mtvision.core.naming import UnknownNameError
from mtvision.protocols import get_protocol
from mtvision.report.record import find_records

TOOL = Path(__file__).parents[2] / "tools" / "real_demo.py"


@pytest.fixture(scope="module")
def tool():
    return runpy.run_path(str(TOOL))


def test_every_config_of_the_grid_is_there_and_rows_are_enough(tool):
    for name, item in tool["SETS"].items():
        configs = {file for files, _, _ in item.parts().values() for file in files}
        assert all(file.is_file() for file in configs), name
        shipped = set((tool["CONFIGS"] / item.folder).glob("*_1xb4_*.py"))
        assert configs == shipped
    assert len(tool["SETS"]["mosd"].decoders) == len(tool["SETS"]["bsds_sod"].decoders) == 8
    assert len(tool["SETS"]["camvid"].decoders) == 4
    assert len(tool["RULES"]) == 5


def test_seeds_are_outermost_and_single_task_networks_first(tool, tmp_path):
    parts = tool["wanted"](["camvid.parallel", "camvid.single", "camvid.tuned"])
    assert parts == ["camvid.single", "camvid.parallel", "camvid.tuned"]
    runs = tool["planned"](parts, [0, 1], tmp_path, tmp_path / "work")
    assert [(run.method, run.seed) for run in runs] == [
        (method, seed) for seed in (0, 1) for method in ("single-task semseg", "single-task edge", "parallel")
    ]
    assert all(f"train_data.dataset.root={tmp_path}/camvid" in run.options for run in runs)


def test_the_first_part_takes_at_most_an_hour(tool, tmp_path):
    """Seven runs, of six minutes at most."""
    parts = tool["wanted"](tool["FIRST"])
    assert len(tool["planned"](parts, [0], tmp_path, tmp_path / "work")) <= 9


def test_unknown_parts_and_absent_data_are_named(tool, tmp_path, capsys):
    with pytest.raises(UnknownNameError, match="mosd.decoder"):
        tool["wanted"](["mosd.decoder"])
    with pytest.raises(SystemExit):
        tool["main"](["--data", str(tmp_path), "--part", "mosd.decoder"])
    assert "--part: Unknown part 'mosd.decoder'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        tool["main"](["--data", str(tmp_path), "--part", "mosd.single"])
    assert "datasets/mosd.md" in capsys.readouterr().err


def test_runs_are_listed_with_their_states(tool, tmp_path, capsys):
    (tmp_path / "camvid").mkdir()
    words = ["--data", str(tmp_path), "--part", "camvid.parallel", "--seeds", "0", "--list"]
    assert tool["main"]([*words, "--work-dir", str(tmp_path / "w"), "--results", str(tmp_path / "r")]) == 0
    assert "parallel_lite0_camvid_1xb4_200_seed0\n1 new" in capsys.readouterr().out


def arguments(tmp_path, *, seeds=(0, 1, 2), results=TOOL.parents[1] / "results"):
    """Of the command; the data folder is the one of the committed records."""
    return Namespace(data=Path("/data"), work_dir=tmp_path / "work", results=results, seeds=list(seeds))


def test_the_row_with_the_best_edges_is_scored_with_all_thresholds(tool, tmp_path, monkeypatch):
    """Of the rows with all tasks; the slow way to its mean is a list of committed records."""
    edges = defaultdict(list)
    for record in find_records([TOOL.parents[1] / "results" / "bsds_sod"]):
        if set(record.task_names) == {"edge", "saliency"} and "weights" not in record.method:
            edges[record.method].append(record.scores["edge"]["odsF"])
    best = max(edges, key=lambda method: sum(edges[method]))
    assert all(len(values) == 3 for values in edges.values())
    runs = tool["edge_rows"]("bsds_sod", arguments(tmp_path))
    expected = [(method, seed) for method in ("single-task edge", best) for seed in range(3)]
    assert [(run.method, run.seed) for run in runs] == expected

    called = []
    monkeypatch.setitem(tool["score_fully"].__globals__, "call", lambda *words: called.append(words) or 0)
    monkeypatch.setitem(tool["score_fully"].__globals__, "edge_rows", lambda *_: runs[:3])
    out = arguments(tmp_path, results=tmp_path / "results")
    done = out.results / "full_thresholds" / "bsds_sod" / f"{runs[1].name}.json"
    done.parent.mkdir(parents=True)
    done.touch()
    assert tool["score_fully"]("bsds_sod", out) == 0
    assert [words[0] for _, words in called] == [str(runs[0].work_dir), str(runs[2].work_dir)]
    assert all("evaluation.metric_options.edge.thresholds=99" in words for _, words in called)


def test_full_thresholds_need_a_row(tool, tmp_path, capsys):
    assert tool["edge_rows"]("bsds_sod", arguments(tmp_path, seeds=[7])) == []
    assert tool["score_fully"]("bsds_sod", arguments(tmp_path, seeds=[7])) == 1
    assert "bsds_sod.full: no two rows have records of the seeds 7" in capsys.readouterr().err


def test_thresholds_of_the_part_are_the_protocols(tool):
    for item in tool["SETS"].values():
        (edge,) = [task for task in get_protocol(item.protocol).tasks if task.name == "edge"]
        assert edge.metrics[0]["thresholds"] == tool["THRESHOLDS"]


def records(tool):
    """Committed ones of the three sets; docs/real_pictures.md says what these tests assert."""
    results = TOOL.parents[1] / "results"
    return find_records([results / name for name in tool["SETS"]])


def better(record, task, value, other):
    sign = 1 if record.task(task)["higher_is_better"] else -1
    return sign * (value - other) > 0


BELOW = {("mosd", "mtmamba", 1, "depth")}
"""What does not beat the constant predictor; docs/real_pictures.md names each."""


def test_all_else_beats_the_constant_predictor(tool):
    found = records(tool)
    assert {record.protocol for record in found} == {item.protocol for item in tool["SETS"].values()}
    below = set()
    for record in found:
        for task in record.task_names:
            headline = record.task(task)["headline"]
            value, constant = record.scores[task][headline], record.constant[task][headline]
            if not better(record, task, value, constant):
                below.add((record.protocol, record.method, record.seed, task))
    assert below == BELOW


def test_imagenet_weights_beat_random_ones_in_every_task(tool):
    rows = {(item.protocol, item.method, item.seed): item for item in records(tool)}
    pairs = [
        (rows[protocol, "parallel", seed], item)
        for (protocol, method, seed), item in rows.items()
        if method == "parallel from scratch" and (protocol, "parallel", seed) in rows
    ]
    assert {one.protocol for one, _ in pairs} == {item.protocol for item in tool["SETS"].values()}
    for one, other in pairs:
        for task in one.task_names:
            headline = one.task(task)["headline"]
            values = one.scores[task][headline], other.scores[task][headline]
            assert better(one, task, *values), (one.protocol, one.seed, task, values)

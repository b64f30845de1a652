"""The search for the weights of a plain sum: rounds, choice, cost, and going on after a stop."""

from __future__ import annotations

import ast
import json
from argparse import Namespace
from dataclasses import replace
from math import log
from pathlib import Path

import discs
import pytest
from report_records import make_record

from mtvision.cli import launch
from mtvision.recipe.config import load_config
from mtvision.report.comparable.gains import gains_grid, gains_over, search_cost
from mtvision.report.provenance import config_entry
from mtvision.report.record import Record
from mtvision.sweep.local import Outcome
from mtvision.sweep.sums import plain_sums
from mtvision.sweep.weight_search import (
    FILE,
    SearchInterruptedError,
    SearchPlan,
    candidates,
    search_weights,
)

PLAN = SearchPlan(candidates=4, eta=2, held_out=0.3)
BEST = 3.0
"""Ratio of the weights of the two tasks at which the pretended scores are best."""


def weights_of(run):
    values = [text.partition("=")[2] for text in run.options if text.startswith("balancer=")]
    return ast.literal_eval(values[-1])["weights"]


class Trainer:
    """Pretends to train: writes records whose scores are best where semseg / depth = `BEST`."""

    def __init__(self, *, stop_after=None, broken=(), late=()):
        self.trained, self.stop_after, self.broken = [], stop_after, broken
        self.late = late
        """Lengths of trainings in which semseg has hardly begun."""

    def __call__(self, runs):
        return [self.one(run) for run in runs]

    def one(self, run):
        if self.stop_after is not None and len(self.trained) >= self.stop_after:
            return Outcome(run, None, "not started", interrupted=True)
        self.trained.append(run)
        if len(self.trained) - 1 in self.broken:
            return Outcome(run, None, "exit code 3")
        weights = weights_of(run)
        miss = abs(log(weights["semseg"] / weights["depth"] / BEST))
        config = load_config(run.config, [*run.options, f"seed={run.seed}"])
        record = make_record(
            0.002 * len(self.trained) if run.iterations in self.late else 0.5 / (1 + miss),
            0.6 * (1 + miss) + 0.001 * run.seed,
            seed=run.seed,
            method=run.method,
            config=config_entry(run.config.stem, config.text),
            training={"iterations": run.iterations, "hours": run.iterations / 100},
        )
        record.save(run.work_dir / "record.json")
        return Outcome(run, record)


def searched(folder, trainer, **changes):
    folder.mkdir(exist_ok=True)
    config = discs.write_config(folder)
    return search_weights(
        Path(config), replace(PLAN, **changes), folder=folder / "search", train=trainer, say=lambda text: None
    )


def test_the_best_ratio_wins_and_the_cost_is_counted(tmp_path):
    trainer = Trainer()
    found = searched(tmp_path, trainer)
    whole = load_config(discs.write_config(tmp_path))["training"]["iterations"]
    lengths = [run.iterations for run in trainer.trained]
    assert lengths == [round(whole / 2)] * 4 + [whole] * 2
    tried = [row["weights"] for row in found.rounds[0]["candidates"]]
    best = min(tried, key=lambda item: abs(log(item["semseg"] / item["depth"] / BEST)))
    assert found.weights == best
    assert found.cost["iterations"] == sum(lengths)
    assert found.cost["runs"] == pytest.approx(sum(lengths) / whole)
    assert found.cost["hours"] == pytest.approx(sum(lengths) / 100)
    assert json.loads((tmp_path / "search" / FILE).read_text())["weights"] == best


def test_candidates_are_judged_on_held_out_training_images(tmp_path):
    trainer = Trainer()
    searched(tmp_path, trainer)
    run = trainer.trained[0]
    config = load_config(run.config, [*run.options, f"seed={run.seed}"])
    plain = load_config(run.config)
    seen, judges = config["train_data"]["dataset"], (config["test_data"] or config["val_data"])["dataset"]
    assert (seen["part"], seen["held_out"]) == ("rest", 0.3)
    assert dict(seen["dataset"]) == dict(judges["dataset"]) == dict(plain["train_data"]["dataset"])
    assert judges.get("part", "held_out") == "held_out"
    assert run.seed == PLAN.seed


@pytest.mark.slow
def test_a_search_that_was_stopped_goes_on_and_chooses_the_same(tmp_path):
    whole = searched(tmp_path / "a", Trainer())
    with pytest.raises(SearchInterruptedError, match="run the same command"):
        searched(tmp_path / "b", Trainer(stop_after=3))
    rest = Trainer()
    assert searched(tmp_path / "b", rest).weights == whole.weights
    assert len(rest.trained) == 6 - 3
    again = Trainer()
    assert searched(tmp_path / "b", again).cost == whole.cost
    assert again.trained == []


def test_a_candidate_that_fails_is_out_and_none_left_is_an_error(tmp_path):
    found = searched(tmp_path / "a", Trainer(broken=(0,)))
    assert found.rounds[0]["candidates"][0]["gain"] is None
    assert found.weights != found.rounds[0]["candidates"][0]["weights"]
    with pytest.raises(ValueError, match="round 1 has no record with finite scores of any candidate"):
        searched(tmp_path / "b", Trainer(broken=range(4)))


def test_a_task_that_has_hardly_begun_is_judged_in_a_later_round(tmp_path):
    """Ratios to 0.002 say nothing: the order of the first round is that of depth alone."""
    said = []
    config = Path(discs.write_config(tmp_path))
    whole = load_config(config)["training"]["iterations"]
    found = search_weights(
        config, PLAN, folder=tmp_path / "a", train=Trainer(late=[round(whole / 2)]), say=said.append
    )
    assert [row["left_out"] for row in found.rounds] == [["semseg"], []]
    assert "round 1 does not judge semseg: no candidate is far enough from 0" in said
    for row in found.rounds[0]["candidates"]:
        misses = [
            abs(log(weights["semseg"] / weights["depth"] / BEST))
            for weights in (row["weights"], found.rounds[0]["candidates"][0]["weights"])
        ]
        depth = [0.6 * (1 + miss) + 0.001 * PLAN.seed for miss in misses]
        assert row["gain"] == pytest.approx(100 * (depth[1] - depth[0]) / depth[1])
    assert found.weights == searched(tmp_path / "b", Trainer()).weights


def test_scores_that_are_all_near_0_choose_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("mtvision.sweep.weight_search.base_scores", lambda record: {})
    with pytest.raises(ValueError, match="round 1 has every score too near 0 to compare candidates"):
        searched(tmp_path, Trainer())


def test_candidates_keep_the_geometric_mean_and_begin_with_own_and_equal_weights():
    found = candidates({"a": 2.0, "b": 0.5}, PLAN)
    assert found[:2] == [{"a": 2.0, "b": 0.5}, {"a": 1.0, "b": 1.0}]
    assert len(found) == 4
    for item in found:
        assert item["a"] * item["b"] == pytest.approx(1.0, rel=0.01)
        assert 1 / PLAN.spread <= item["a"] / 2.0 <= PLAN.spread * 1.01


@pytest.mark.parametrize("wrong", [{"candidates": 1}, {"eta": 1}, {"held_out": 0.0}, {"spread": 1.0}])
def test_plans_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="needs at least 2 candidates"):
        SearchPlan(**wrong)


def test_both_sums_join_the_grid_and_the_tuned_one_carries_the_cost(tmp_path):
    config = discs.write_config(tmp_path)
    trainer = Trainer()
    (sums,) = plain_sums(
        [config], PLAN, seeds=[0, 1, 2], work_dir=tmp_path / "work", train=trainer, say=lambda text: None
    )
    assert [run.method for run in sums.runs] == [sums.equal] * 3 + [sums.tuned] * 3
    assert weights_of(sums.runs[0]) == {"semseg": 1.0, "depth": 1.0}
    assert weights_of(sums.runs[3]) == sums.found.weights
    records = [sums.costed(outcome.record) for outcome in trainer(sums.runs)]
    search = records[3].training["weight_search"]
    assert search["runs"] == sums.found.cost["runs"]
    assert "weight_search" not in records[0].training
    rule = [
        replace(item, method="rule", config={**item.config, "name": "rule"}, training={"hours": 0.2})
        for item in records[:3]
    ]
    grid = gains_grid([*records, *rule], sums.equal, sums.tuned)
    names = [row.cells[0].text for row in grid.rows]
    assert names == [sums.equal, sums.tuned, "rule"]
    tuned = dict(zip([column.key for column in grid.columns], grid.rows[1].cells, strict=True))
    assert tuned["equal/gain"].value == pytest.approx(gains_over(records, sums.equal)[sums.tuned].mean)
    hours = sums.runs[0].iterations / 100
    assert tuned["cost"].value == pytest.approx((3 * hours + sums.found.cost["hours"]) / (3 * hours))
    marked = grid.rows[2].cells[5]
    assert marked.mark
    assert any("not at equal cost" in text for _, text in grid.notes)
    each = hours + sums.found.cost["hours"] / 3  # as much per seed as the tuned sum
    one = gains_grid([*records, replace(rule[0], training={"hours": each})], sums.equal, sums.tuned)
    assert not one.rows[2].cells[5].mark  # one seed costs less than three in total, but not per seed


def test_records_in_the_results_get_the_cost_of_the_search(tmp_path):
    """A run's record is copied when it ends; what its weights cost is known to the command alone."""
    trainer, results = Trainer(), tmp_path / "results"
    (sums,) = plain_sums(
        [discs.write_config(tmp_path)], PLAN, seeds=[0], work_dir=tmp_path / "work", train=trainer, say=print
    )
    plain = [outcome.record for outcome in trainer(sums.runs)]
    files = [results / f"{run.name}.json" for run in sums.runs]
    for record, file in zip(plain, files, strict=True):
        record.save(file)
    before = [file.read_bytes() for file in files]
    launch._keep(sums.runs, plain, Namespace(results=results))
    assert [file.read_bytes() for file in files] == before
    launch._keep(sums.runs, list(map(sums.costed, plain)), Namespace(results=results))
    assert [search_cost(Record.load(file)) for file in files] == [
        None,
        {**sums.found.cost, "candidates": PLAN.candidates, "held_out": PLAN.held_out},
    ]
    launch._keep(sums.runs, plain, Namespace(results=results))  # a launch without the search keeps it
    assert search_cost(Record.load(files[1])) is not None
    assert len(list(results.iterdir())) == 2


def test_equal_weights_that_nothing_beats_are_one_row(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "BEST", 1.0)
    config = discs.write_config(tmp_path)
    trainer = Trainer()
    (sums,) = plain_sums(
        [config], PLAN, seeds=[0, 1], work_dir=tmp_path / "work", train=trainer, say=lambda text: None
    )
    assert sums.equal == sums.tuned == sums.runs[0].method
    assert sums.equal.endswith("equal and tuned weights")
    assert len(sums.runs) == 2
    records = [sums.costed(outcome.record) for outcome in trainer(sums.runs)]
    rule = [replace(item, method="rule", config={**item.config, "name": "rule"}) for item in records]
    grid = gains_grid([*records, *rule], sums.equal, sums.tuned)
    assert [row.cells[0].text for row in grid.rows] == [sums.equal, "rule"]
    assert all(len(row.cells) == len(grid.columns) for row in grid.rows)
    cells = dict(zip([column.key for column in grid.columns], grid.rows[1].cells, strict=True))
    assert cells["equal/gain"].value == cells["tuned/gain"].value == 0


def test_gains_are_paired_over_seeds():
    def row(method, values):
        return [
            make_record(miou, 0.5, seed=seed, method=method, row=method) for seed, miou in enumerate(values)
        ]

    records = [*row("sum", (0.50, 0.40)), *row("rule", (0.55, 0.42))]
    found = gains_over(records, "sum")["rule"]
    gains = [100 * 0.5 * (0.05 / 0.50), 100 * 0.5 * (0.02 / 0.40)]  # half of two tasks; depth is equal
    assert found.mean == pytest.approx(sum(gains) / 2)
    assert found.interval[0] < found.mean < found.interval[1]
    assert (found.count, found.p_holm) == (2, found.p)

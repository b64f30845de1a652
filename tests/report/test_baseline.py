"""Gains over single-task networks of the same records, and paired differences over seeds."""

from dataclasses import replace
from itertools import product
from math import sqrt
from statistics import mean, stdev

import pytest
from report_records import TASKS, make_record
from scipy import stats

from mtvision.core.naming import UnknownNameError
from mtvision.metrics.gain import headline_gain
from mtvision.protocols.tasks import depth, semseg
from mtvision.report.baseline import Baseline, fold_single_task, gain_over, with_gain
from mtvision.report.paired import paired_differences, paired_grid, paired_t, sign_flip
from mtvision.report.provenance import config_entry
from mtvision.report.render import render_markdown
from mtvision.report.schema_check import violations
from mtvision.report.table import build_grid

TRAINED = {"training": {"iterations": 300}}


def single(task, value, seed=0, lr=1e-3, **changes):
    entry = next(item for item in TASKS if item["name"] == task)
    text = f"optimizer = dict(lr={lr})\nseed = {seed}\ntasks = ['{task}']\n"
    values = {
        "method": f"single {task}", "tasks": [entry], "scores": {task: {entry["headline"]: value}},
        "seed": seed, "config": config_entry("single", text), **TRAINED,
    }  # fmt: skip
    return make_record(**{**values, **changes})


def multi(miou, rmse, seed=0, lr=1e-3, **changes):
    text = f"optimizer = dict(lr={lr})\nseed = {seed}\n"
    return make_record(miou, rmse, seed=seed, **{"config": config_entry("multi", text), **TRAINED, **changes})


SINGLE = [single("semseg", 0.3 + 0.1 * seed, seed) for seed in range(3)] + [
    single("depth", 0.7 + 0.1 * seed, seed) for seed in range(3)
]


def test_gain_over_single_task_networks_is_the_metrics_gain():
    record = multi(0.5, 0.6)
    (*_, changed) = with_gain([*SINGLE, record])
    baseline = {"semseg": {"miou": 0.4}, "depth": {"rmse": 0.8}}
    expected = headline_gain((semseg(("a", "b")), depth()), record.scores, baseline)
    assert changed.gain["percent"] == pytest.approx(expected.percent, rel=1e-12)
    assert changed.gain["percent"] == pytest.approx(25.0)
    assert changed.gain["parts"] == pytest.approx(expected.parts)
    assert changed.gain["baseline"]["name"] == "single-task networks trained the same way (mean of 3 seeds)"
    assert violations(changed.to_json()) == []
    assert record.gain is None


def test_a_gain_over_a_negative_score_has_the_direction_of_the_task():
    base = Baseline("x", {"semseg": {"miou": -0.2}, "depth": {"rmse": 0.6}})
    record = make_record(-0.1, 0.6)
    gain = gain_over(record, base)
    assert gain["parts"] == pytest.approx({"semseg": 50, "depth": 0})
    assert not any("gain.parts" in text for text in violations(replace(record, gain=gain).to_json()))


def test_no_gain_is_a_ratio_to_almost_nothing():
    """An instance AP of 0.05 % beside 7.65 % had a gain of 15,000 %."""
    problems = []
    low = [replace(item, scores={"semseg": {"miou": 0.0099}}) for item in SINGLE[:3]]
    (*_, record) = with_gain([*low, *SINGLE[3:], multi(0.5, 0.8)], problems=problems)
    assert record.gain is None
    assert "the baseline of semseg miou is 0.0099, so near 0 that a ratio to it says nothing" in problems[0]
    errors = [replace(item, scores={"depth": {"rmse": 0.005}}) for item in SINGLE[3:]]
    (*_, record) = with_gain([*SINGLE[:3], *errors, multi(0.4, 0.01)])  # a small error is a good baseline
    assert record.gain["parts"]["depth"] == pytest.approx(-100)


def test_of_two_single_task_runs_with_one_seed_the_newer_counts():
    newer = replace(SINGLE[0], scores={"semseg": {"miou": 0.6}}, created="2026-02-01T00:00:00Z")
    (*_, changed) = with_gain([*SINGLE, newer, multi(0.5, 0.8)])
    assert changed.gain["parts"] == pytest.approx({"semseg": 0.0, "depth": 0.0})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"backbone": "large"}, "nearest in backbone"),
        ({"training": {"iterations": 600}}, "nearest in iterations"),
        ({"effective_batch": 8}, "nearest in batch"),
        ({"precision": {"train": "bf16", "evaluation": "fp32"}}, "nearest in precision"),
        ({"provenance": "smoke"}, "nearest in provenance"),
        ({"data": {"train": {"images": 9}, "test": None}}, "nearest in training images"),
    ],
)
def test_single_task_networks_trained_otherwise_do_not_count(change, reason):
    with pytest.raises(ValueError, match=f"task semseg has no single-task network.*{reason}.*tasks="):
        with_gain([*SINGLE, multi(0.5, 0.6, **change)])


def test_a_missing_or_ambiguous_single_task_network_is_named():
    with pytest.raises(ValueError, match="task depth has no single-task network.*there is none"):
        with_gain([*SINGLE[:3], multi(0.5, 0.6)])
    others = [replace(single("depth", 0.5, lr=lr), method=f"d{lr}") for lr in (0.1, 0.2)]
    with pytest.raises(ValueError, match="2 single-task configurations trained alike: d0.1 .1 seeds., d0.2"):
        with_gain([*SINGLE[:3], *others, multi(0.5, 0.6)])
    (*_, changed) = with_gain([*SINGLE, *others, multi(0.5, 0.8)])
    assert changed.gain["parts"]["depth"] == pytest.approx(0.0)  # the one with the record's optimizer
    with pytest.raises(ValueError, match="depth rmse is nan"):
        with_gain([*SINGLE, multi(0.5, float("nan"))])


def test_rows_without_a_baseline_can_be_left_without_gain():
    problems = []
    records = [*SINGLE, multi(0.5, 0.6), *(multi(0.5, 0.6, seed, backbone="large") for seed in range(2))]
    changed = with_gain(records, problems=problems)
    assert [record.gain is not None for record in changed] == [False] * 6 + [True, False, False]
    assert len(problems) == 1
    assert "/ large: task semseg has no single-task network" in problems[0]


def test_baselines_of_the_protocol_are_looked_up():
    with pytest.raises(UnknownNameError, match="baseline of protocol synthetic-scenes 'nothing'"):
        with_gain([multi(0.5, 0.6)], "nothing")


def test_single_task_runs_become_one_row():
    records = with_gain([*SINGLE, *(multi(0.5, 0.6, seed) for seed in range(3))])
    text = render_markdown(build_grid(fold_single_task(records)))
    lines = [line for line in text.splitlines() if line.startswith(("| single", "| Par"))]
    assert lines == [
        "| single-task (2 networks) | tiny | 40.00 ± 10.00 | 0.8000 ± 0.1000 |  | 2.47 | 5.00 | 3 |",
        "| ParallelDecoder | tiny | 50.00 ± 0.00 | 0.6000 ± 0.0000 | 25.00 ± 0.00 | 1.23 | 2.50 | 3 |",
    ]
    backwards = fold_single_task([*SINGLE[::-1], multi(0.5, 0.6)])
    assert backwards[0].task_names == ("semseg", "depth")  # as the rows with several tasks have them
    lonely = [single("depth", 0.5)]
    assert fold_single_task(lonely) == lonely


def test_published_rows_stand_first_and_rows_can_be_sorted():
    paper = replace(multi(0.3, 0.9), provenance="paper", source="somebody", method="Paper", config=None)
    records = [
        replace(multi(value, 0.5), method=name) for name, value in (("A", 0.2), ("B", 0.4), ("C", 0.3))
    ]
    grid = build_grid([*records, paper])
    assert [(row.kind, row.cells[0].text) for row in grid.rows] == [
        ("published", "Paper"), ("result", "A"), ("result", "B"), ("result", "C")
    ]  # fmt: skip
    assert [row.cells[0].text for row in grid.sorted_by("semseg").rows] == ["Paper", "B", "C", "A"]
    assert [row.cells[0].text for row in grid.sorted_by("method").rows] == ["Paper", "A", "B", "C"]
    with pytest.raises(UnknownNameError, match="column to sort by 'gian'"):
        grid.sorted_by("gian")


def test_paired_tests_equal_scipy_and_enumeration():
    values = [0.03, 0.05, 0.01, -0.01]
    assert paired_t(values) == pytest.approx(stats.ttest_1samp(values, 0).pvalue, rel=1e-9)
    sums = [abs(sum(s * v for s, v in zip(flip, values, strict=True))) for flip in product((1, -1), repeat=4)]
    assert sign_flip(values) == sum(item >= abs(sum(values)) - 1e-12 for item in sums) / 16
    assert sign_flip([1.0, 2.0, 3.0]) == 2 / 8
    assert 1 / 4096 <= sign_flip([0.1] * 13) < 0.002
    assert (paired_t([0.0, 0.0]), paired_t([1.0, 1.0])) == (1.0, 0.0)


def paired_records():
    base = [multi(0.40 + 0.05 * seed, 0.6, seed) for seed in range(3)]
    noise = [0.001, -0.001, 0.0]
    better = [
        replace(multi(0.45 + 0.05 * seed + noise[seed], 0.6 + noise[seed], seed), method="B")
        for seed in range(3)
    ]
    lonely = [replace(multi(0.5, 0.5, 2), method="C")]
    return [*base, *better, *lonely]


def test_a_constant_lead_is_found_although_seeds_vary_more():
    found = {
        (item.method, item.task): item for item in paired_differences(paired_records(), "ParallelDecoder")
    }
    item = found["B", "semseg"]
    differences = [0.051, 0.049, 0.05]
    assert item.mean == pytest.approx(mean(differences))
    assert item.std == pytest.approx(stdev(differences))
    assert item.p == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, rel=1e-6)
    assert item.p_sign == 0.25
    assert item.verdict == "better"
    power = stats.nct.sf(stats.t.isf(0.025, 2), 2, item.detectable / item.std * sqrt(3))
    assert power == pytest.approx(0.8, abs=1e-6)
    assert found["B", "depth"].verdict == "not told apart"
    assert found["C", "semseg"].verdict == "one common seed, no test"
    assert found["C", "depth"].mean == pytest.approx(0.1)  # lower error counts as better


def test_many_rows_need_stronger_evidence():
    records = paired_records()[:6]
    p = {item.task: item.p for item in paired_differences(records, "ParallelDecoder")}
    clones = [replace(record, method=f"{record.method}{k}") for k in range(9) for record in records[3:]]
    many = paired_differences([*records[:3], *clones], "ParallelDecoder")
    assert max(item.p_holm for item in many if item.task == "semseg") == pytest.approx(9 * p["semseg"])
    assert {item.p_holm for item in many if item.task == "depth"} == {1.0}


def test_the_paired_table_is_honest_about_three_seeds():
    text = render_markdown(paired_grid(paired_records()[:6], "ParallelDecoder"))
    assert "| B | semseg mIoU | +5.00 ± 0.10 | 3 | <0.001 |" in text.replace("&lt;", "<")
    assert "cannot go below 0.25" in text
    assert "'not told apart' does not mean equal" in text
    with pytest.raises(UnknownNameError, match="method to compare with 'X'"):
        paired_grid(paired_records(), "X")
    twins = [*paired_records(), replace(multi(0.5, 0.6), backbone="other")]
    with pytest.raises(ValueError, match="2 rows have the method 'ParallelDecoder'"):
        paired_grid(twins, "ParallelDecoder")

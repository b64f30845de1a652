"""A lead inside the noise of the seeds is not bold; a larger one carries its interval and its p."""

from pathlib import Path
from statistics import mean, stdev

import pytest
from report_records import make_record
from scipy import stats

from mtvision.report.baseline import SINGLE_TASK, fold_single_task, with_gain
from mtvision.report.comparable.leads import Lead, lead
from mtvision.report.paired import BEST, paired_differences, paired_grid
from mtvision.report.record import find_records
from mtvision.report.table import build_grid, render_table

ROOT = Path(__file__).parents[2]


def rows(**values):
    """{method: mIoU of its seeds} as records; RMSE is the same for all."""
    return [
        make_record(value, 0.5, seed=seed, method=name, row=name)
        for name, seeds in values.items()
        for seed, value in enumerate(seeds)
    ]


def ranks(records):
    grid = build_grid(records, columns=["method", "semseg"])
    return {row.cells[0].text: row.cells[1].rank for row in grid.rows}, [text for _, text in grid.notes]


def test_a_lead_inside_the_noise_is_not_bold():
    found, notes = ranks(rows(a=[0.50, 0.40, 0.42], b=[0.43, 0.44, 0.41], c=[0.1, 0.1, 0.1]))
    assert found == {"a": 0, "b": 0, "c": 0}
    differences = [0.07, -0.04, 0.01]
    p = stats.ttest_1samp(differences, 0).pvalue
    half = stats.t.ppf(0.975, 2) * stdev(differences) / 3**0.5
    low, high = (f"{100 * (mean(differences) + side * half):.2f}" for side in (-1, 1))
    assert notes == [
        "semseg mIoU: not bold, the lead is inside the noise: a leads b by 1.33 "
        f"(95 % interval {low} to {high}, paired t over 3 seeds, p = {p:.2g})."
    ]


def test_a_lead_beyond_the_noise_is_bold_and_carries_its_interval():
    found, notes = ranks(rows(a=[0.50, 0.40, 0.45], b=[0.41, 0.30, 0.36], c=[0.15, 0.05, 0.1]))
    assert found == {"a": 1, "b": 2, "c": 0}  # seeds vary by 5, the differences by less than 1
    assert len(notes) == 1
    assert notes[0].startswith("semseg mIoU: a leads b by 9.33 (95 % interval ")


def test_the_leader_must_be_told_from_every_row():
    found, notes = ranks(rows(a=[0.50, 0.51, 0.52], b=[0.30, 0.31, 0.32], c=[0.6, 0.5, 0.1]))
    assert found == {"a": 0, "b": 0, "c": 0}
    assert "a leads c by" in notes[0]


def test_lower_is_better_turns_the_sign():
    records = [
        make_record(0.5, value, seed=seed, method=name, row=name)
        for name, values in {"a": [0.40, 0.41, 0.42], "b": [0.50, 0.511, 0.52]}.items()
        for seed, value in enumerate(values)
    ]
    text = render_table(records, "markdown", columns=["method", "depth"])
    assert "| a | **0.4100** ± 0.0100 |" in text
    assert "depth RMSE m: a leads b by 0.1003 (95 % interval 0.0989 to 0.1018, paired t over 3 seeds" in text


def test_one_seed_does_not_lead_rows_that_show_their_noise():
    found, notes = ranks(rows(a=[0.6], b=[0.43, 0.44, 0.41]))
    assert found == {"a": 0, "b": 0}
    assert notes == ["semseg mIoU: not bold, the lead was not tested: a leads b by 17.33 (1 common seed)."]


def test_rows_of_one_number_are_ranked_by_it():
    untested = ["Where rows have one seed, bold marks the best number: no lead was tested."]
    assert ranks(rows(a=[0.6], b=[0.4])) == ({"a": 1, "b": 0}, untested)
    assert ranks(rows(a=[0.6, 0.7, 0.6], b=[0.4])) == ({"a": 1, "b": 0}, untested)
    assert ranks(rows(a=[0.6])) == ({"a": 0}, [])


@pytest.mark.parametrize(("other", "rank"), [([0.5, 0.4], 0), ([0.55, 0.352], 1)])
def test_two_seeds_are_tested(other, rank):
    """Differences of 0.05 and 0.248 are noise, 0.05 and 0.0502 are not."""
    found, notes = ranks(rows(a=[0.6, 0.4022], b=other))
    assert found == {"a": rank, "b": 0}
    assert "paired t over 2 seeds" in notes[0]


def test_three_seeds_that_are_not_common_prove_nothing():
    other = [make_record(0.1, 0.5, seed=seed, method="b", row="b") for seed in (7, 8, 9)]
    found, notes = ranks([*rows(a=[0.5, 0.5, 0.5]), *other])
    assert found == {"a": 0, "b": 0}
    assert "not tested: a leads b by 40.00 (0 common seeds)" in notes[0]


def test_equal_and_constant_differences():
    equal = {0: 0.5, 1: 0.4, 2: 0.3}
    assert lead(equal, equal, higher_is_better=True) == Lead(0.0, (0.0, 0.0), 1.0, 3)
    better = {seed: value + 0.25 for seed, value in equal.items()}
    found = lead(better, equal, higher_is_better=True)
    assert found.holds
    assert found.mean == pytest.approx(0.25)


def test_the_committed_lead_of_less_than_its_spread_is_not_bold():
    records = with_gain(find_records([ROOT / "results/tiny_synthetic"]), SINGLE_TASK)
    text = render_table(fold_single_task(records), "markdown", columns=["method", "gain"])
    assert "| ditask | 11.45 ± 0.93 |" in text
    assert "| c\\_poly | 10.80 ± 1.63 |" in text
    assert "**" not in text.partition("| method")[2]
    assert "Δm %: not bold, the lead is inside the noise: ditask leads c\\_poly" in text


def test_rows_of_one_method_are_named_with_what_parts_them():
    networks = {"tiny": [0.4, 0.42, 0.44], "small": [0.43, 0.41, 0.42]}
    records = [
        make_record(value, 0.5, seed=seed, method="a", row=backbone, backbone=backbone)
        for backbone, values in networks.items()
        for seed, value in enumerate(values)
    ]
    grid = build_grid([*records, *rows(b=[0.5, 0.45, 0.47])], columns=["method", "backbone", "semseg"])
    assert "b leads a, tiny by" in grid.notes[0][1]


def test_differences_to_the_best_row_of_each_score():
    records = rows(a=[0.50, 0.40, 0.45], b=[0.41, 0.30, 0.36], c=[0.1, 0.1, 0.1])
    found = [item for item in paired_differences(records, BEST) if item.task == "semseg"]
    assert [item.method for item in found] == ["b", "c"]
    assert found[0].mean == pytest.approx(-mean([0.09, 0.10, 0.09]))
    low, high = found[0].interval
    half = stats.t.ppf(0.975, 2) * stdev([0.09, 0.10, 0.09]) / 3**0.5
    assert (low, high) == pytest.approx((found[0].mean - half, found[0].mean + half))
    grid = paired_grid(records, BEST)
    assert grid.title == "Differences from the best row of each score"
    place = [column.key for column in grid.columns].index("interval")
    assert grid.rows[0].cells[place].text == f"{100 * low:+.2f} to {100 * high:+.2f}"

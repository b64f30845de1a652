"""The ledger of transfer: intervals against closed forms, verdicts, references, and what is not compared."""

from __future__ import annotations

from dataclasses import replace
from math import sqrt

import numpy as np
import pytest
import torch
from report_records import TASKS, make_record

from mtvision.core.naming import UnknownNameError
from mtvision.evaluation.evaluator import SampleEvaluator
from mtvision.protocols.tasks import depth, semseg
from mtvision.report.comparable.ledger import bootstrap, ledger, ledger_grid, pseudo_values
from mtvision.report.paired import holm
from mtvision.report.provenance import config_entry
from mtvision.report.record import Record
from mtvision.report.render import render_markdown
from mtvision.report.schema_check import violations

IMAGES = 40
RNG = np.random.default_rng(0)
PARTS = RNG.normal(0.5, 0.05, IMAGES)
"""Of a score that is a mean over images."""


def left_out(parts):
    """{image: mean of the other images}."""
    return {f"{i:03}": float(np.delete(parts, i).mean()) for i in range(len(parts))}


def row(method, parts, seed=0, errors=2 * PARTS, **changes):
    """A record whose semseg score is the mean of parts, and whose depth error likewise, if given."""
    both = {"semseg": ("miou", parts), "depth": ("rmse", errors)}
    chosen = {task: pair for task, pair in both.items() if pair[1] is not None}
    scores = {task: {name: float(np.mean(values))} for task, (name, values) in chosen.items()}
    without = {task: left_out(values) for task, (_, values) in chosen.items()}
    entries = [entry for entry in TASKS if entry["name"] in chosen]
    text = f"name = '{method}'\nseed = {seed}\n"
    known = {
        "training": {"iterations": 300, "hours": 0.1},
        "config": config_entry(method, text),
        "seed": seed,
    }
    known |= {"method": method, "tasks": entries, "scores": scores, "leave_one_out": without}
    return make_record(**{**known, **changes})


def test_parts_of_a_mean_are_the_values_of_the_images():
    found = pseudo_values(row("a", PARTS), "semseg", "miou")
    assert list(found.values()) == pytest.approx(PARTS, abs=1e-12)


def test_the_interval_is_that_of_the_mean_over_images():
    (low, high), p = bootstrap([PARTS - 0.5], float((PARTS - 0.5).mean()))
    half = 1.96 * PARTS.std() / sqrt(IMAGES)
    assert (high - low) / 2 == pytest.approx(half, rel=0.03)
    assert (low + high) / 2 == pytest.approx((PARTS - 0.5).mean(), abs=0.05 * half)
    assert 0 < p <= 1
    assert bootstrap([PARTS * 0], 0.0) == ((0.0, 0.0), 1.0)


def test_seeds_that_differ_widen_the_interval():
    flat = np.zeros((3, IMAGES))
    (low, high), _ = bootstrap(flat + np.array([[-1.0], [0.0], [1.0]]), 0.0)
    assert high - low > 1.5  # images alone: 0
    assert low == pytest.approx(-high, abs=0.05)


def test_holm_multiplies_and_never_falls():
    assert holm([0.01, 0.04, None, 0.03]) == pytest.approx([0.03, 0.06, None, 0.06])
    assert holm([]) == []


@pytest.mark.parametrize(
    ("shift", "verdict"), [(0.05, "better"), (-0.05, "worse"), (0.0, "no difference shown")]
)
def test_verdicts_follow_the_shift_and_the_direction_of_the_score(shift, verdict):
    noise = RNG.normal(0, 0.01, (3, IMAGES))
    base = [row("parallel", PARTS, seed, 2 * PARTS) for seed in range(3)]
    other = [row("new", PARTS + shift + noise[s], s, 2 * PARTS - shift + noise[s]) for s in range(3)]
    found = ledger([*base, *other], "parallel")
    assert [(item.task, item.seeds, item.images, item.hours) for item in found] == [
        ("semseg", 3, IMAGES, 1.0),
        ("depth", 3, IMAGES, 1.0),
    ]
    assert {item.verdict for item in found} == {verdict}
    assert all(item.interval[0] <= item.mean <= item.interval[1] for item in found)


def test_the_search_for_weights_counts_once_for_all_seeds():
    searched = {"iterations": 300, "hours": 0.1, "weight_search": {"hours": 0.6}}
    base = [row("parallel", PARTS, seed) for seed in range(3)]
    tuned = [row("tuned", PARTS, seed, training=searched) for seed in range(3)]
    assert ledger([*base, *tuned], "parallel")[0].hours == pytest.approx((0.3 + 0.6) / 0.3)
    assert ledger([*base, *tuned], "tuned")[0].hours == pytest.approx(0.3 / (0.3 + 0.6))


def test_one_seed_is_said():
    found = ledger([row("parallel", PARTS), row("new", PARTS + 0.05)], "parallel")
    assert [item.verdict for item in found] == ["better, one seed", "no difference shown"]
    text = render_markdown(ledger_grid([row("parallel", PARTS), row("new", PARTS + 0.05)], "parallel"))
    assert "covers the images only" in text
    assert "1 better, 0 worse" in text


def test_single_task_networks_are_the_reference_of_their_task():
    single = [
        row("single-task semseg", PARTS, errors=None),
        row("single-task depth", None, errors=2 * PARTS),
    ]
    found = ledger([*single, row("new", PARTS - 0.05, errors=2 * PARTS - 0.1)], "single-task")
    assert [(item.method, item.task, item.verdict) for item in found] == [
        ("new", "semseg", "worse, one seed"),
        ("new", "depth", "better, one seed"),
    ]


def test_other_test_labels_are_not_compared():
    """One changed pixel of a test label changes its fingerprint."""
    base, new = row("parallel", PARTS), row("new", PARTS + 0.05)
    scored = {"images": IMAGES, "split": "test", "fingerprint": "a" * 64}
    base = replace(base, scored={**scored, "labels": {"semseg": "b" * 64}})
    new = replace(new, scored={**scored, "labels": {"semseg": "c" * 64}})
    assert [item.task for item in ledger([base, new], "parallel")] == []
    assert "No row of several tasks shares" in render_markdown(ledger_grid([base, new], "parallel"))


def test_records_without_scores_of_images_are_not_tested():
    base, new = row("parallel", PARTS), row("new", PARTS + 0.05, leave_one_out=None)
    item = ledger([base, new], "parallel")[0]
    assert (item.images, item.p, item.verdict) == (0, None, "not tested: no scores without each image")


def test_an_unknown_reference_is_named():
    with pytest.raises(UnknownNameError, match="parallell"):
        ledger([row("parallel", PARTS)], "parallell")
    with pytest.raises(ValueError, match="no record of one task"):
        ledger([row("parallel", PARTS, errors=PARTS)], "single-task")


def test_records_keep_scores_without_each_image():
    record = replace(row("a", PARTS), leave_one_out={"semseg": {"001": 0.5, "002": float("nan")}})
    assert violations(record.to_json()) == []
    again = Record.from_json(record.to_json())
    assert str(again.leave_one_out) == str(record.leave_one_out)


def test_the_evaluator_leaves_each_image_out():
    """Against an evaluator that never saw the image."""
    generator = torch.Generator().manual_seed(0)
    labels = {name: torch.randint(0, 2, (4, 5), generator=generator) for name in "abc"}
    depths = {name: torch.rand(1, 4, 5, generator=generator) + 1 for name in "abc"}

    def scored(names):
        evaluator = SampleEvaluator((semseg(("x", "y")), depth()))
        for name in names:
            guess = torch.zeros(4, 5).long()
            evaluator.add(
                name, {"semseg": (guess, labels[name]), "depth": (torch.ones(1, 4, 5), depths[name])}
            )
        evaluator.evaluate(len(names))
        return evaluator

    whole = scored("abc").leave_one_out()
    for name in "abc":
        rest = scored([other for other in "abc" if other != name]).scores()
        assert whole["semseg"][name] == pytest.approx(rest["semseg"]["miou"], abs=1e-12)
        assert whole["depth"][name] == pytest.approx(rest["depth"]["rmse"], abs=1e-12)
    assert scored("a").leave_one_out() == {}

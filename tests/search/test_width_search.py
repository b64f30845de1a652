"""Costs add up, searches keep budgets, measures of controllability have their closed forms."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from mtvision.architecture.widths import WidthConfig
from mtvision.core.context import current_context
from mtvision.core.sample import Batch
from mtvision.models import build_network
from mtvision.models.adapters.slimmable import slimming_of
from mtvision.protocols.tasks import depth, semseg
from mtvision.search import BudgetError, SearchProblem, WidthSearcher, WidthTable
from mtvision.search.controllability import (
    Outcome,
    adherence,
    hypervolume,
    preference_grid,
    relative_errors,
    task_range,
    uniformity,
)
from mtvision.search.cost_table import CostTable, count_macs, make_cost_table
from mtvision.search.width_table import normalise, parse_preference

TASKS = (semseg(("sky", "road", "car")), depth())
NAMES = ("semseg", "depth")
ENCODER, DECODERS = (0.25, 0.5, 1.0), (0.25, 0.5, 1.0)
SIZE = (64, 64)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    cfg = {
        "backbone": {"type": "TimmBackbone", "name": "regnetx_002"},
        "decoder": {"type": "ParallelDecoder", "width": 32},
        "head": {"type": "ConvHead"},
        "adapters": [{"type": "Slimmable"}],
    }
    return build_network(cfg, TASKS).eval()


@pytest.fixture(scope="module")
def cost(network):
    return make_cost_table(network, SIZE, ENCODER, DECODERS, latency=2)


@pytest.fixture(scope="module")
def table(cost):
    """Wider is better, the decoder more than the encoder."""
    grid = list(itertools.product(ENCODER, DECODERS))
    return WidthTable(cost, {name: {(e, d): 0.2 * e + 0.5 * d - 0.7 for e, d in grid} for name in NAMES})


@pytest.mark.slow
def test_predicted_cost_is_the_counted_cost(network, cost):
    rng = np.random.default_rng(0)
    for _ in range(8):
        stages = tuple(float(item) for item in rng.choice(ENCODER, 4))
        widths = WidthConfig(stages, {name: float(rng.choice(DECODERS)) for name in NAMES})
        assert cost.cost(widths) == pytest.approx(count_macs(network, SIZE, widths)["total"], rel=0.01)
    full = count_macs(network, SIZE, WidthConfig())
    assert cost.cost(cost.largest()) == full["total"]
    assert full["other"] == full["shared"] == 0


@pytest.mark.slow
def test_cost_is_monotone_in_every_width(cost):
    for stages in itertools.product(ENCODER, repeat=4):
        value = cost.cost(WidthConfig(stages, dict.fromkeys(NAMES, 0.5)))
        for index, ratio in enumerate(stages):
            if ratio < 1:
                wider = (*stages[:index], ENCODER[ENCODER.index(ratio) + 1], *stages[index + 1 :])
                assert cost.cost(WidthConfig(wider, dict.fromkeys(NAMES, 0.5))) > value
    costs = [cost.cost(WidthConfig(0.5, {"semseg": own, "depth": 0.5})) for own in DECODERS]
    assert costs == sorted(set(costs))


@pytest.mark.slow
def test_tables_survive_json_and_name_missing_widths(table):
    again = WidthTable.from_plain(json.loads(json.dumps(table.to_plain())))
    assert again.cost.stages == table.cost.stages
    assert again.quality == table.quality
    assert again.choose(0.4, {"depth": 1}) == table.choose(0.4, {"depth": 1})
    assert {len(table.cost.latency["stages"]), len(table.cost.latency["tasks"])} == {4, 2}
    with pytest.raises(ValueError, match="no entry for the width"):
        table.cost.cost(WidthConfig(0.3))
    assert CostTable.from_plain(table.cost.to_plain()).largest() == table.cost.largest()
    with pytest.raises(ValueError, match="terms missing.*Delete the file"):
        CostTable.from_plain({key: item for key, item in table.cost.to_plain().items() if key != "terms"})


def test_choices_never_exceed_the_budget(table):
    least = table.cost.cost(table.cost.smallest()) / table.cost.cost(table.cost.largest())
    rng = np.random.default_rng(0)
    for _ in range(200):
        budget = float(rng.uniform(least, 1))
        weights = dict(zip(NAMES, rng.dirichlet([0.3, 0.3]).tolist(), strict=True))
        choice = table.choose(budget, weights, kappa=float(rng.uniform(0, 3)))
        assert choice.cost <= choice.budget
        assert choice.cost == table.cost.cost(choice.widths)
        assert table.cost.cost(table.uniform(budget)) <= choice.budget


def test_the_preferred_task_gets_the_wider_decoder(table):
    for budget in (0.2, 0.35, 0.5, 0.7, 0.9):
        mine = table.choose(budget, {"semseg": 1}).widths.decoders
        other = table.choose(budget, {"depth": 1}).widths.decoders
        assert mine["semseg"] > other["semseg"]
        assert mine["depth"] == min(DECODERS)
    assert table.choose(1.0).widths == WidthConfig(1.0, dict.fromkeys(NAMES, 1.0))
    assert table.choose(1e12, {"depth": 1}).widths.decoders["depth"] == 1.0


@pytest.mark.slow
def test_budgets_hold_where_tasks_share_layers():
    """PAD-Net's tasks read one another and share a layer that is as wide as the widest of them."""
    torch.manual_seed(0)
    cfg = {
        "backbone": {"type": "TimmBackbone", "name": "resnet10t", "channels": (16, 24, 32, 48)},
        "decoder": {"type": "PADNetDecoder", "width": 32},
        "head": {"type": "ConvHead"},
        "adapters": [{"type": "Slimmable"}],
    }
    shared = build_network(cfg, TASKS).eval()
    cost = make_cost_table(shared, SIZE, (0.5, 1.0), DECODERS)
    quality = {(e, d): e + d for e in cost.encoder for d in DECODERS}
    table = WidthTable(cost, dict.fromkeys(NAMES, quality))
    least = cost.cost(cost.smallest()) / cost.cost(cost.largest())
    for budget in (least, 0.4, 0.6, 0.8):
        for preference in ({"semseg": 1}, {"semseg": 3, "depth": 1}, None):
            choice = table.choose(budget, preference)
            assert count_macs(shared, SIZE, choice.widths)["total"] == pytest.approx(choice.cost, rel=1e-3)
            assert choice.cost <= choice.budget
    chosen = table.choose(0.6, {"semseg": 1}).widths.decoders
    assert chosen["semseg"] > chosen["depth"] == min(DECODERS)


def test_an_impossible_budget_names_the_smallest_one(table):
    least = table.cost.cost(table.cost.smallest())
    share = least / table.cost.cost(table.cost.largest())
    for attempt in (table.choose, table.uniform):
        with pytest.raises(BudgetError, match=rf"smallest configuration needs {least / 1e6:.3f} million"):
            attempt(0.99 * least)
    with pytest.raises(BudgetError, match=f"{share:.4f} of the full network"):
        table.choose(0.5 * share)
    assert table.choose(float(least)).cost == least
    with pytest.raises(ValueError, match="share of the full network"):
        table.choose(0.0)


def problem(network, **options):
    """The slimmer the better for `semseg`'s fourth stage; otherwise wide is good. Counts evaluations."""
    batch = Batch(image=torch.randn(2, 3, *SIZE), labels={}, present={}, meta=[])
    seen = []

    def evaluate(context):
        with network.context(context or current_context()):
            widths = slimming_of(network).widths()
        seen.append(widths)
        stages = widths.stages
        value = sum(stages[:3]) + 2 * (1 - stages[3])
        return {"semseg": 1 + value + widths.tasks["semseg"], "depth": 5 / (1 + widths.tasks["depth"])}

    made = SearchProblem(
        network=network,
        tasks=TASKS,
        held_out=lambda: iter([batch]),
        evaluate=evaluate,
        losses=lambda context: {},
        options=options,
    )
    return made, seen


@pytest.mark.slow
def test_search_caches_refines_and_keeps_the_budget(network, tmp_path):
    cache = tmp_path / "table.json"
    made, seen = problem(network, budget=0.5, preference="semseg=2,depth=1", cache=cache)
    options = {"encoder": ENCODER, "decoders": DECODERS, "calibration": 1}
    rule = WidthSearcher(**options, population=0).search(made)
    assert len(seen) == 1 + len(ENCODER) * len(DECODERS)
    assert rule["cost"] <= rule["budget"]
    assert json.loads(json.dumps(rule)) == rule
    count = len(seen)
    refined = WidthSearcher(**options, population=8, generations=4, mutation=0.3).search(made)
    assert len(seen) > count
    assert refined["value"] > rule["value"]
    assert refined["cost"] <= refined["budget"]
    stages = refined["widths"]["encoder"]
    assert isinstance(stages, list)
    assert stages[3] < max(stages)
    assert WidthTable.load(cache).refined
    count = len(seen)
    WidthSearcher(**options, population=0).search(made)
    assert len(seen) == count  # nothing is measured again
    with torch.no_grad():
        next(iter(network.parameters())).add_(0.1)
    WidthSearcher(**options, population=0).search(made)
    assert len(seen) == count + 1 + len(ENCODER) * len(DECODERS)  # a table of other weights is made again
    count = len(seen)
    WidthSearcher(**{**options, "decoders": (1.0,)}, population=0).search(made)
    assert len(seen) == count + 1 + len({*ENCODER, 1.0})
    WidthSearcher(**options, population=0).search(made)
    again = WidthSearcher(**options, population=8, generations=4, mutation=0.3, cache=cache).search(made)
    assert again["cost"] <= again["budget"]
    values = [row["value"] for row in refined["log"]]
    assert values == sorted(values)


@pytest.mark.slow
def test_every_generation_keeps_its_better_half_and_logs_its_best(network):
    made, seen = problem(network, budget=0.6, preference="semseg=1")
    options = {"encoder": ENCODER, "decoders": DECODERS, "calibration": 1, "mutation": 0.5}
    result = WidthSearcher(**options, population=6, generations=4).search(made)
    full = sum([1.0] * 3) + 2  # `semseg` of the whole network: 1 + 3 + 2 * 0 + 1
    for row in result["log"]:
        stages = row["encoder"]
        widths = [item for item in seen if list(item.stages) == stages]
        assert widths, stages
        scores = [1 + sum(stages[:3]) + 2 * (1 - stages[3]) + item.tasks["semseg"] for item in widths]
        assert any(row["value"] == pytest.approx(score / full - 1) for score in scores)
    grid = 1 + len(ENCODER) * len(DECODERS)
    assert len({tuple(item.stages) for item in seen[grid:]}) > 6 + 1  # children of later generations, too


def test_costs_are_counted_at_the_size_of_the_images(network):
    made, _ = problem(network)
    batch = Batch(image=torch.randn(1, 3, 64, 96), labels={}, present={}, meta=[])
    made = replace(made, held_out=lambda: iter([batch]))
    found = WidthSearcher(encoder=(1.0,), decoders=(1.0,), calibration=1, population=0).table(made)
    assert tuple(found.cost.size) == (64, 96)


def test_search_says_what_is_possible(network, tmp_path):
    made, _ = problem(network, budget=0.001, cache=tmp_path / "t.json")
    with pytest.raises(BudgetError, match="smallest configuration needs"):
        WidthSearcher(encoder=ENCODER, decoders=DECODERS, calibration=1, population=0).search(made)


def test_preferences():
    assert normalise({"depth": 3.0}, NAMES) == {"semseg": 0.0, "depth": 1.0}
    assert normalise(None, NAMES) == {"semseg": 0.5, "depth": 0.5}
    assert parse_preference(" semseg=2, depth=1") == {"semseg": 2.0, "depth": 1.0}
    for wrong in ({"depth": -1}, {"depth": 0}):
        with pytest.raises(ValueError, match="preference"):
            normalise(wrong, NAMES)
    with pytest.raises(ValueError, match="expected TASK=WEIGHT"):
        parse_preference("semseg")
    grid = preference_grid(("a", "b", "c"))
    assert len(grid) == 10
    assert all(sum(row.values()) == pytest.approx(1) for row in grid)
    assert {"a": 0.25, "b": 0.5, "c": 0.25} in grid
    assert {"a": 0.5, "b": 0.0, "c": 0.5} in grid


def test_hypervolume_of_boxes():
    pytest.importorskip("pymoo")
    assert hypervolume([{"a": 1.0, "b": 0.5}], 2.0) == pytest.approx(1.5)
    both = hypervolume([{"a": 1.0, "b": 1.5}, {"a": 1.5, "b": 1.0}], 2.0)
    assert both == pytest.approx(0.5 + 0.5 - 0.25)
    assert hypervolume([{"a": 3.0, "b": 1.0}], 2.0) == 0


def test_other_measures():
    assert uniformity({"a": 0.5, "b": 0.5}, {"a": 1.0, "b": 1.0}) == pytest.approx(1)
    assert uniformity({"a": 0.8, "b": 0.2}, {"a": 1.0, "b": 4.0}) == pytest.approx(1)
    expected = 1 - (0.8 * np.log(1.6) + 0.2 * np.log(0.4))
    assert uniformity({"a": 0.8, "b": 0.2}, {"a": 1.0, "b": 1.0}) == pytest.approx(expected)
    scores = {"semseg": 40.0, "depth": 0.5}
    assert relative_errors(TASKS, scores, {"semseg": 50.0, "depth": 0.4}) == pytest.approx(
        {"semseg": 1.25, "depth": 1.25}
    )
    rows = [
        Outcome(
            0.5, {"semseg": own, "depth": 1 - own}, WidthConfig(), 0.4, {"semseg": 30 + own, "depth": own}, {}
        )
        for own in (0.0, 1.0)
    ]
    assert task_range(TASKS[0], rows, 0.5) == pytest.approx(1)
    assert task_range(TASKS[1], rows, 0.5) == pytest.approx(1)
    middle = Outcome(
        0.5, {"semseg": 0.5, "depth": 0.5}, WidthConfig(), 0.4, {"semseg": 90.0, "depth": 9.0}, {}
    )
    assert task_range(TASKS[0], [*rows, middle], 0.5) == pytest.approx(1), "only the ends count"
    assert np.isnan(task_range(TASKS[0], rows[:1], 0.5))
    assert np.isnan(task_range(TASKS[0], rows, 0.25))
    assert adherence(rows) == pytest.approx({"worst": 0.8, "mean": 0.8})

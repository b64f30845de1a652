"""What papers report besides the last checkpoint's scores."""

from __future__ import annotations

import itertools
import json

import discs
import pytest

from mtvision.core.naming import UnknownNameError
from mtvision.engine.training import train
from mtvision.protocols import get_protocol
from mtvision.recipe.config import load_config
from mtvision.recipe.selection import COMPAT_BASES, average_last_10, best_compat
from mtvision.recipe.settings import Settings


def test_quirk_20_the_rule_with_misplaced_bases_is_an_option():
    """Bases in percent, scores in fractions: an mIoU twice as high counts less than a degree."""
    protocol = get_protocol("pascal-invpt")
    rows = [
        {"scores": {"semseg/miou": 0.8, "normals/mean": 14.0}},
        {"scores": {"semseg/miou": 0.4, "normals/mean": 13.0}},
        {"scores": {"semseg/miou": 0.8, "normals/mean": 14.5}},
    ]
    assert best_compat(rows, protocol) == [1]
    with pytest.raises(UnknownNameError, match="Known: cityscapes-mtmamba, nyud-invpt, pascal-invpt"):
        best_compat(rows, discs.PROTOCOL)


@pytest.mark.parametrize("name", COMPAT_BASES)
def test_every_score_counts_by_its_relative_change(name):
    """Eleven percent of one base outweigh ten of another, towards better values only."""
    bases = COMPAT_BASES[name]
    at_bases = {score: base for score, (base, _) in bases.items()}

    def row(score, change):
        base, sign = bases[score]
        return {"scores": at_bases | {score: base * (1 + sign * change)}}

    for one, other in itertools.permutations(bases, 2):
        rows = [row(one, 0.10), row(other, 0.11), row(other, -0.5)]
        assert best_compat(rows, get_protocol(name)) == [1]
    assert {score for score, (_, sign) in bases.items() if sign < 0} == bases.keys() & {
        "depth/rmse",
        "normals/mean",
    }


def test_bases_are_those_of_the_released_code():
    values = {name: {score: base for score, (base, _) in rows.items()} for name, rows in COMPAT_BASES.items()}
    assert values == {
        "nyud-invpt": {"semseg/miou": 0.55, "depth/rmse": 0.49, "normals/mean": 18.40},
        "pascal-invpt": {
            "semseg/miou": 80.89,
            "human_parts/miou": 71.71,
            "saliency/maxF_compat": 85.28,
            "normals/mean": 13.47,
        },
        "cityscapes-mtmamba": {"semseg/miou": 80.0, "depth/rmse": 1.0},
    }


def test_quirk_34_the_last_ten_evaluations_can_be_averaged(tmp_path):
    options = ["training.iterations=11", "training.val_interval=1", "training.checkpoint_interval=0"]
    options += ["evaluation.pictures=0", "evaluation.select=average_last_10"]
    record = train(load_config(discs.write_config(tmp_path), options), tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "validations.jsonl").read_text().splitlines()]
    assert [row["iter"] for row in rows] == list(range(1, 11))
    chosen = json.loads((tmp_path / "run" / "selection.json").read_text())
    assert chosen["iterations"] == list(range(2, 12))
    values = [*(row["scores"]["depth/rmse"] for row in rows[1:]), record.scores["depth"]["rmse"]]
    mean = sum(values) / 10
    assert chosen["scores"]["depth/rmse"] == pytest.approx(mean)
    assert record.checkpoint["iteration"] == 11
    options = ["evaluation.select=best_compat", "training.val_interval=0"]
    config = load_config(discs.write_config(tmp_path), options)
    with pytest.raises(ValueError, match=r"set training\.val_interval"):
        Settings.of(config)
    with pytest.raises(ValueError, match="needs ten evaluations, there are 2"):
        average_last_10(rows[:2], discs.PROTOCOL)

"""A multi-task checkpoint scored on some of its tasks: the same scores, and a record that says what it is."""

from __future__ import annotations

import logging
from dataclasses import replace

import discs
import numpy as np
import pytest

from mtvision.core.registry import METRICS
from mtvision.engine.records import _with_gain
from mtvision.engine.training import evaluate_checkpoint, train
from mtvision.evaluation.predictor import Predictor
from mtvision.protocols import get_protocol
from mtvision.recipe.building import tasks_of_checkpoint, trained_network
from mtvision.recipe.config import load_config
from mtvision.recipe.settings import protocol_of
from mtvision.report.baseline import is_single_task
from mtvision.report.comparable.key import conflicts
from mtvision.report.comparable.task_entry import describe_tasks
from mtvision.report.record import Record
from mtvision.runtime.checkpoint import CheckpointError, load_checkpoint, save_checkpoint

SHORT = [
    "training.iterations=2",
    "training.val_interval=0",
    "training.checkpoint_interval=0",
    "evaluation.pictures=0",
]
DECODERS = {
    "tasks that do not talk": [],
    "tasks that read one another": [
        "model.decoder={'type': 'PADNetDecoder'}",
        "model.head={'type': 'ResidualHead'}",
    ],
}


@pytest.fixture(scope="module", params=DECODERS)
def trained(request, tmp_path_factory):
    """Config file, options, record of both tasks, checkpoint."""
    folder = tmp_path_factory.mktemp("run")
    options = [*SHORT, *DECODERS[request.param]]
    file = discs.write_config(folder)
    record = train(load_config(file, options), folder / "work")
    return file, options, record, folder / "work/iter_2.pth"


def scored(trained, folder, *options):
    file, common, _, checkpoint = trained
    return evaluate_checkpoint(load_config(file, [*common, *options]), folder, checkpoint, quiet=True)


@pytest.mark.slow
def test_scores_are_those_of_the_whole_network(trained, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "mtvision"):
        record = scored(trained, tmp_path, "tasks=depth")
    (line,) = [item.getMessage() for item in caplog.records]
    assert "iter_2.pth also has the tasks semseg; they are left out" in line
    assert record.scores == {"depth": trained[2].scores["depth"]}
    assert record.task_names == ("depth",)
    assert record.cost["tasks"] == ["depth"]


def test_the_record_is_no_single_task_baseline(trained, tmp_path):
    record = scored(trained, tmp_path, "tasks=depth")
    assert record.checkpoint["tasks"] == ["semseg", "depth"]
    assert not is_single_task(record)
    file, options, _, _ = trained
    alone = train(load_config(file, [*options, "tasks=depth"]), tmp_path / "alone")
    assert alone.checkpoint["tasks"] == ["depth"]
    assert is_single_task(alone)


def test_predictions_are_those_of_the_whole_network(trained):
    file, options, _, checkpoint = trained
    image = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    maps = []
    for extra in ([], ["tasks=depth"]):
        config = load_config(file, [*options, *extra])
        protocol = protocol_of(config)
        network, _ = trained_network(config, protocol, checkpoint, other_tasks=True)
        maps.append(Predictor(network, protocol)(image))
    assert list(maps[1]) == ["depth"]
    assert (maps[0]["depth"] == maps[1]["depth"]).all()


def test_other_weights_are_never_left_out(trained, tmp_path):
    file, options, _, checkpoint = trained
    config = load_config(file, [*options, "tasks=depth"])
    content = load_checkpoint(checkpoint)
    content["state_dict"]["network.backbone.stranger"] = content["state_dict"][
        "network.heads.depth.logits.weight"
    ]
    save_checkpoint(tmp_path / "odd.pth", content)
    with pytest.raises(CheckpointError, match=r"backbone\.stranger"):
        trained_network(config, protocol_of(config), tmp_path / "odd.pth", other_tasks=True)
    with pytest.raises(
        CheckpointError, match="of another architecture"
    ):  # searches take networks as they are
        trained_network(config, protocol_of(config), checkpoint)


def test_a_checkpoint_of_fewer_tasks_is_refused(trained, tmp_path):
    file, options, _, _ = trained
    train(load_config(file, [*options, "tasks=depth"]), tmp_path)
    config = load_config(file, options)
    with pytest.raises(CheckpointError, match="missing"):
        trained_network(config, protocol_of(config), tmp_path / "iter_2.pth", other_tasks=True)


def test_heads_tell_the_tasks_of_a_bare_state_dict(trained):
    file, options, _, checkpoint = trained
    protocol = protocol_of(load_config(file, [*options, "tasks=depth"]))
    content = load_checkpoint(checkpoint)
    assert tasks_of_checkpoint({"meta": {}, "state_dict": content["state_dict"]}, protocol) == [
        "depth",
        "semseg",
    ]
    assert sorted(tasks_of_checkpoint(content, protocol)) == ["depth", "semseg"]


def test_a_part_of_the_tasks_compares_with_the_whole(trained, tmp_path, monkeypatch):
    whole, part = trained[2], scored(trained, tmp_path / "a", "tasks=depth")
    protocol = protocol_of(load_config(trained[0], trained[1]))
    assert whole.protocol_digest == part.protocol_digest == protocol.digest()
    assert whole.scored["labels"].keys() == {"semseg", "depth"}
    assert part.scored["labels"].keys() == {"depth"}
    assert conflicts(whole, part) == {}
    assert whole.replaced == []

    class Mine(METRICS["depth"]):
        """Scores as ours does, which nobody can know."""

    monkeypatch.setitem(METRICS, "depth", Mine)
    replaced = scored(trained, tmp_path / "b", "tasks=depth")
    assert [(item["table"], item["name"]) for item in replaced.replaced] == [("metric", "depth")]
    assert conflicts(whole, replaced).keys() == {"depth: replaced metric"}


def test_a_replaced_metric_gets_no_gain_over_the_protocols_baselines():
    protocol = get_protocol("nyud-invpt").select(["depth"])
    (name,) = protocol.baselines
    record = Record(
        protocol=protocol.id, method="m", backbone="b", provenance="ours",
        tasks=describe_tasks(protocol.tasks), scores={"depth": {"rmse": 0.5}},
        protocol_digest=protocol.digest(),
    )  # fmt: skip
    assert _with_gain(record, protocol, name).gain["percent"] > 0
    mine = [{"table": "metric", "name": "depth", "by": "mine.Depth"}]
    without = _with_gain(replace(record, replaced=mine), protocol, name)
    assert without.gain is None
    assert "depth: replaced metric: metric depth by mine.Depth against nothing" in without.notes[0]
    assert _with_gain(replace(record, replaced=mine), protocol, {"depth": 0.6}).gain is not None

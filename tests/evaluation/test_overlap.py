"""What runs at the same time gives what runs one after another."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from mtvision.core.sample import collate
from mtvision.data.synthetic import SyntheticScenes
from mtvision.evaluation.evaluator import SampleEvaluator
from mtvision.evaluation.overlap import Behind, ahead
from mtvision.evaluation.scoring import evaluate, predict_batch
from mtvision.metrics import Metric
from mtvision.models.factory import build_network
from mtvision.protocols import SYNTHETIC

PROTOCOL = SYNTHETIC.select(["semseg", "depth", "normals"])
PATIENCE = 20  # seconds


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    backbone = {"type": "TimmBackbone", "name": "test_resnet.r160_in1k", "pretrained": False}
    model = {"backbone": backbone, "decoder": {"type": "ParallelDecoder", "width": 8}}
    return build_network({**model, "head": {"type": "ConvHead"}}, PROTOCOL.tasks).eval()


@pytest.mark.parametrize("workers", [0, 1])
def test_scores_are_those_of_one_after_another(network, workers):
    data = SyntheticScenes(split="val", length=5, size=(32, 48))
    loader = DataLoader(data, batch_size=2, num_workers=workers, collate_fn=collate)
    seen = []
    evaluator = SampleEvaluator(PROTOCOL.tasks, save=lambda name, maps: seen.append(name))
    scores = evaluate(network, loader, evaluator)
    plain = SampleEvaluator(PROTOCOL.tasks)
    for batch in DataLoader(data, batch_size=2, collate_fn=collate):
        plain.process(predict_batch(network, PROTOCOL.tasks, batch), batch)
    plain.evaluate(len(data))
    assert scores == plain.scores()  # bit for bit
    for name, sums in plain.per_image.items():
        for task, values in sums.items():
            for key, value in values.items():
                assert np.array_equal(evaluator.per_image[name][task][key], value)
    assert seen == list(data.ids)


def test_maps_stay_where_the_network_made_them_if_their_metric_says_so(network, monkeypatch):
    evaluator = SampleEvaluator(SYNTHETIC.tasks)
    assert evaluator.on_device == {"semseg", "depth", "normals", "human_parts"}  # edges and saliency do not
    batch = collate([SyntheticScenes(split="val", length=1, size=(32, 48))[0]])
    moved = []
    monkeypatch.setattr(torch.Tensor, "cpu", lambda self: moved.append(tuple(self.shape)) or self)
    predict_batch(network, PROTOCOL.tasks, batch, stay={"depth"})
    assert moved == [(1, 32, 48), (1, 3, 32, 48)]  # classes and normals


def test_labels_follow_the_predictions_to_their_device():
    seen = []

    @dataclass(frozen=True)
    class Devices(Metric):
        on_device: ClassVar[bool] = True

        def check_prediction(self, prediction, label):
            pass

        def measure(self, prediction, label):
            seen.append((prediction.device.type, label.device.type))
            return {}

    evaluator = SampleEvaluator(PROTOCOL.tasks)
    evaluator.metrics = dict.fromkeys(evaluator.metrics, Devices())
    batch = collate([SyntheticScenes(split="val", length=1, size=(32, 48))[0]])
    maps = {name: torch.empty(label.shape[1:], device="meta") for name, label in batch.labels.items()}
    evaluator.process([maps], batch)
    assert seen == [("meta", "meta")] * 3


def test_a_batch_is_measured_while_the_next_is_computed(network):
    """The measurement of the first batch waits until the second is in the network."""
    computed, reached, waits = threading.Event(), [], []

    class Waiting(SampleEvaluator):
        def process(self, predictions, batch):
            if not waits:
                waits.append(computed.wait(PATIENCE))
            super().process(predictions, batch)

    def forward(*_):
        reached.append(1)
        if len(reached) == 2:
            computed.set()

    hook = network.register_forward_pre_hook(forward)
    data = SyntheticScenes(split="val", length=3, size=(32, 48))
    evaluate(network, DataLoader(data, collate_fn=collate), Waiting(PROTOCOL.tasks))
    hook.remove()
    assert waits == [True]


def test_the_next_item_is_made_while_one_is_worked_on():
    made = threading.Event()

    def items():
        yield "first"
        made.set()
        yield "second"

    iterator = ahead(items())
    assert next(iterator) == "first"
    assert made.wait(PATIENCE)
    assert list(iterator) == ["second"]


def test_errors_come_out_in_order():
    def fail(text):
        raise ValueError(text)

    def broken():
        yield 1
        fail("no second item")

    with pytest.raises(ValueError, match="no second item"):
        list(ahead(broken()))
    behind = Behind()
    behind(fail, "first")
    with pytest.raises(ValueError, match="first"):
        behind(print, "second")
    behind.close()
    with pytest.raises(ValueError, match="last"), Behind() as behind:
        behind(fail, "last")

    def stopped():
        with Behind() as behind:
            behind(fail, "hidden")
            raise KeyError("the caller's")

    with pytest.raises(KeyError, match="the caller's"):
        stopped()


def test_whoever_stops_early_leaves_no_thread():
    before = threading.active_count()
    iterator = ahead(range(9))
    next(iterator)
    iterator.close()
    assert threading.active_count() == before

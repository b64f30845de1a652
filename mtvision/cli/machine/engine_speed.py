"""Steps, evaluation and prediction beside the loops that people write."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader

from mtvision.cli.machine.balancer_speed import MODELS, NAMES, SIZE, TASKS
from mtvision.cli.machine.timings import Variants
from mtvision.core.registry import BALANCERS, STEPS
from mtvision.core.sample import collate
from mtvision.data.synthetic import SyntheticScenes
from mtvision.engine.module import TrainingModule
from mtvision.engine.optimization.wrapper import PrecisionOptimWrapper
from mtvision.evaluation.evaluator import SampleEvaluator
from mtvision.evaluation.predict.inputs import find_inputs
from mtvision.evaluation.predict.names import output_names
from mtvision.evaluation.predict.outputs import Places
from mtvision.evaluation.predict.reading import read_picture
from mtvision.evaluation.predict.session import Session
from mtvision.evaluation.predictor import Predictor
from mtvision.evaluation.scoring import evaluate, predict_batch
from mtvision.models.factory import build_network
from mtvision.protocols import SYNTHETIC
from mtvision.visualize import panel, write_picture

MODEL = MODELS["ResNet-18"]
PICTURES = 8


def _module(rule: str) -> TrainingModule:
    torch.manual_seed(0)
    weights = dict.fromkeys(NAMES, 1.0)
    balancer = BALANCERS.build({"type": rule}, tasks=list(NAMES), default_weights=weights)
    return TrainingModule(
        build_network(MODEL, TASKS), TASKS, balancer, STEPS.build({"type": "PlainStep"})
    ).train()


def _optimizer(module: TrainingModule) -> torch.optim.Optimizer:
    return torch.optim.SGD(module.parameters(), lr=1e-4)


def steps() -> Variants:
    """A training step of a ResNet-18 against a bare loop; the first step of a rule over gradients."""
    dataset = SyntheticScenes(split="train", length=4, size=SIZE, tasks=NAMES)
    batch = collate([dataset[index] for index in range(4)])
    bare, plain, gradients = _module("FixedWeights"), _module("FixedWeights"), _module("UPGrad")
    optimizer = _optimizer(bare)
    wrapped, wrapped_too = (PrecisionOptimWrapper(_optimizer(item)) for item in (plain, gradients))

    def loop() -> None:
        output = bare.network.outputs(batch.image, size=batch.label_size)
        loss = torch.stack(list(bare.losses(output, batch).values())).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()

    def first() -> object:
        gradients.step = STEPS.build({"type": "PlainStep"})  # it knows no roles yet
        return gradients.train_step(batch, wrapped_too)

    return {
        "bare loop": loop,
        "the suite's step": lambda: plain.train_step(batch, wrapped),
        "UPGrad": lambda: gradients.train_step(batch, wrapped_too),
        "UPGrad, first step": first,
    }


def evaluation() -> Variants:
    """Scores of a ResNet-18 on 16 rooms of 240x320, against reading, computing and measuring in turn."""
    tasks = [task for task in TASKS if task.name != "edge"]  # its metric takes longer than all else
    names = [task.name for task in tasks]
    dataset = SyntheticScenes(split="val", length=16, size=(240, 320), tasks=names)
    torch.manual_seed(0)
    network = build_network(MODEL, tasks).eval()

    def loader() -> DataLoader[Any]:
        return DataLoader(dataset, batch_size=2, collate_fn=collate)

    def in_turn() -> object:
        evaluator = SampleEvaluator(tasks)
        for batch in loader():
            evaluator.process(predict_batch(network, tasks, batch), batch)
        return evaluator.evaluate(len(dataset))

    return {
        "one after another": in_turn,
        "the suite's evaluation": lambda: evaluate(network, loader(), SampleEvaluator(tasks)),
    }


def prediction() -> Variants:
    """Panels and maps of a folder of 480x640 photographs, against a loop that reads, predicts, writes."""
    place = tempfile.TemporaryDirectory(prefix="mtvision-speed-")
    folder, numbers = Path(place.name) / "in", itertools.count()
    folder.mkdir()
    scenes = SyntheticScenes(split="val", length=PICTURES, size=(480, 640), scenes=("room",))
    for index in range(PICTURES):
        image = np.ascontiguousarray(scenes.rendering(index).image[..., ::-1])
        cv2.imwrite(str(folder / f"{index}.jpg"), image)
    torch.manual_seed(0)
    network = build_network(MODEL, TASKS)
    predictor = Predictor(network, SYNTHETIC.select(NAMES), size=(240, 320))
    found = find_inputs([str(folder)])
    names = output_names(found.sources)

    def places() -> Places:
        return Places(Path(place.name) / f"out{next(numbers)}", predictor.protocol.tasks)

    def naive() -> None:
        goal = places()
        for source, name in zip(found.sources, names, strict=True):
            assert source.path is not None
            image = read_picture(source.path)
            maps = predictor(image)
            write_picture(goal.panel(name, ".png"), panel(image, maps, predictor.protocol.tasks))
            np.savez_compressed(goal.maps(name), **maps)  # type: ignore[arg-type]

    def session() -> None:
        list(Session(predictor, places()).run(zip(found.sources, names, strict=True)))

    return {"read, predict, write in turn": naive, "mtvision predict": session}

"""The row of the best constant maps: fitted on training images, scored on the others."""

from __future__ import annotations

import data_problems as problems
import discs
import numpy as np
import pytest

from mtvision.evaluation.scoring import measure_constant, scores_of
from mtvision.recipe.data import evaluation_loader
from mtvision.recipe.sections import EvaluationSettings


def labels(dataset, positions):
    """All depths and class ids of some images."""
    samples = [dataset[index].labels for index in positions]
    return (
        np.concatenate([item["depth"].numpy().ravel() for item in samples]).astype(np.float64),
        np.concatenate([item["semseg"].numpy().ravel() for item in samples]),
    )


@pytest.mark.parametrize("images", [2, 5, 100])
@problems.CONSTANT
def test_constants_come_from_evenly_spaced_training_images(images):
    options = {"protocol": discs.PROTOCOL, "transforms": "tensor"}
    train = discs.TinyDiscs(split="train", length=9, **options)
    test = discs.TinyDiscs(split="test", length=7, **options)
    loader = evaluation_loader(test, {"batch_size": 3, "num_workers": 0})
    settings = EvaluationSettings(constant_predictor=images)
    scores = scores_of(measure_constant(discs.PROTOCOL, train, loader, settings), loader)
    count = min(images, len(train))
    fitted, _ = labels(train, [index * len(train) // count for index in range(count)])
    depths, classes = labels(test, range(len(test)))
    error = np.sqrt(np.mean((depths - fitted.mean()) ** 2))
    assert scores["depth"]["rmse"] == pytest.approx(error, rel=1e-5)
    # Ground everywhere: its IoU is its share of the pixels, that of the discs is nothing.
    assert scores["semseg"]["miou"] == pytest.approx(np.mean(classes == 0) / 2)

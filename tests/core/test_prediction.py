"""From logits to predictions: values of every activation, dtypes, untouched inputs."""

import pytest
import torch

from mtvision.core.prediction import to_prediction
from mtvision.protocols.tasks import depth, edge, normals, saliency, semseg


def logits(*values: float) -> torch.Tensor:
    return torch.tensor(values).reshape(1, -1, 1, 1)


def test_argmax():
    result = to_prediction(semseg(["a", "b", "c"]), logits(0.1, 2, -1))
    assert result.dtype == torch.int64
    assert result.tolist() == [[[1]]]


def test_positive_and_identity():
    assert to_prediction(depth(), logits(-2)).item() == 0
    assert to_prediction(depth(), logits(3.5)).item() == 3.5
    assert to_prediction(depth(family="mtan"), logits(-2)).item() == -2


def test_unit():
    result = to_prediction(normals(), logits(3, 0, -4)).flatten()
    torch.testing.assert_close(result, torch.tensor([0.6, 0, -0.8]))


def test_sigmoid_once():
    assert to_prediction(edge(), logits(0)).item() == 0.5
    assert to_prediction(edge(), logits(2)).item() == pytest.approx(0.880797)


def test_foreground_is_the_softmax_probability_of_class_1():
    result = to_prediction(saliency(), logits(1, 3))
    assert result.shape == (1, 1, 1, 1)
    assert result.item() == pytest.approx(0.880797)  # sigmoid(3 - 1)


TASKS = [
    semseg(["a", "b"]), depth(), depth(family="mtan"), normals(), edge(), saliency(),
    saliency(family="survey"),
]  # fmt: skip


@pytest.mark.parametrize("task", TASKS, ids=lambda task: f"{task.name}-{task.activation}")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_float32_out_and_input_untouched(task, dtype):
    given = torch.randn(2, task.out_channels, 3, 4).to(dtype)
    before = given.clone()
    result = to_prediction(task, given)
    assert torch.equal(given, before)
    if task.label == "classes" and task.activation == "argmax":
        assert result.shape == (2, 3, 4)
    else:
        assert result.dtype == torch.float32
        assert result.shape[-2:] == (3, 4)


def test_a_batch_of_one_keeps_its_axis():
    assert to_prediction(edge(), torch.zeros(1, 1, 3, 4)).shape == (1, 1, 3, 4)


def test_wrong_channels():
    with pytest.raises(
        ValueError, match=r"normals: logits have shape \(1, 2, 1, 1\), expected \(B, 3, H, W\)"
    ):
        to_prediction(normals(), logits(1, 2))

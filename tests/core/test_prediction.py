"""From logits to predictions: values of every activation, dtypes, untouched inputs."""

import pytest
import torch
from torch.nn import functional as F

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


def test_unit_vectors_are_those_of_torch():
    values = torch.randn(2, 3, 9, 11, generator=torch.Generator().manual_seed(0))
    values[0, :, 2, 3], values[0, :, 4, 5] = 0.0, 1e-15
    values.requires_grad_()
    found = to_prediction(normals(), values)
    torch.testing.assert_close(found, F.normalize(values, dim=1), rtol=0, atol=2e-7)
    assert found[0, :, 2, 3].tolist() == [0.0, 0.0, 0.0]
    found.sum().backward()
    assert values.grad.isfinite().all()


def test_the_first_of_equal_classes_is_chosen():
    values = torch.randint(3, (2, 7, 8, 9), generator=torch.Generator().manual_seed(0)).float()
    found = to_prediction(semseg([str(index) for index in range(7)]), values)
    assert found.numpy().tolist() == values.numpy().argmax(1).tolist()

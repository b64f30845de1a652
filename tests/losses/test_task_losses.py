"""TaskLosses: which tasks, deep supervision, sizes; check_finite: who is to blame."""

import math

import pytest
import torch

from mtvision.core.naming import UnknownNameError
from mtvision.core.output import Auxiliary, NetworkOutput
from mtvision.core.sample import Batch, Meta, Sample, collate
from mtvision.losses import L1Loss, NonFiniteLossError, TaskLosses, check_finite
from mtvision.protocols import PROTOCOLS, SYNTHETIC
from mtvision.protocols.tasks import depth, edge, human_parts, normals, saliency, semseg

TASKS = [semseg(["a", "b", "c"]), depth()]


def sample(name: str, **labels: torch.Tensor) -> Sample:
    return Sample(torch.zeros(3, 4, 4), labels, Meta(id=name, size=(4, 4), original_size=(4, 4)))


@pytest.fixture
def batch() -> Batch:
    both = {"semseg": torch.zeros(4, 4, dtype=torch.int64), "depth": torch.ones(1, 4, 4)}
    return collate([sample("both", **both), sample("no-depth", semseg=torch.ones(4, 4, dtype=torch.int64))])


def logits() -> dict[str, torch.Tensor]:
    return {"semseg": torch.randn(2, 3, 4, 4), "depth": torch.randn(2, 1, 4, 4)}


def test_every_loss_named_in_a_protocol_exists():
    for protocol in PROTOCOLS.values():
        assert list(TaskLosses(protocol.tasks).losses) == list(protocol.task_names)


@pytest.mark.parametrize("family", ["invpt", "survey", "mtan"])
def test_every_family_builds(family):
    tasks = [
        semseg(["a"], family=family),
        depth(family=family),
        normals(family=family),
        edge(family=family),
        saliency(family=family),
        human_parts(),
    ]
    assert len(TaskLosses(tasks).losses) == 6


def test_only_tasks_with_label_and_logits(batch):
    output = logits()
    assert list(TaskLosses(TASKS)(NetworkOutput(output), batch)) == ["semseg", "depth"]
    assert list(TaskLosses(TASKS[:1])(NetworkOutput(output), batch)) == ["semseg"]
    assert list(TaskLosses(TASKS)(NetworkOutput({"depth": output["depth"]}), batch)) == ["depth"]
    unlabelled = collate([sample("nothing")])
    assert TaskLosses(TASKS)(NetworkOutput(output), unlabelled) == {}


def test_samples_without_the_task_do_not_count(batch):
    output = logits()
    losses = TaskLosses(TASKS)(NetworkOutput(output), batch)
    expected = L1Loss()(output["depth"][:1], batch.labels["depth"][:1])
    assert losses["depth"] == expected


def test_deep_supervision_belongs_to_its_task(batch):
    output, early = logits(), torch.randn(2, 1, 4, 4)
    extra = [Auxiliary("depth", early, 0.5), Auxiliary("depth", output["depth"], 2.0)]
    plain = TaskLosses(TASKS)(NetworkOutput(output), batch)
    deep = TaskLosses(TASKS)(NetworkOutput(output, extra), batch)
    first = L1Loss()(early, batch.labels["depth"])
    torch.testing.assert_close(deep["depth"], 3 * plain["depth"] + 0.5 * first)
    assert deep["semseg"] == plain["semseg"]


def test_deep_supervision_of_an_unknown_task(batch):
    output = NetworkOutput(logits(), [Auxiliary("dept", torch.zeros(2, 1, 4, 4))])
    with pytest.raises(UnknownNameError, match="deep supervision 'dept'. Did you mean 'depth'"):
        TaskLosses(TASKS)(output, batch)


def test_label_of_another_size_names_the_task(batch):
    output = logits() | {"depth": torch.zeros(2, 1, 8, 8)}
    with pytest.raises(ValueError, match=r"depth: logits.*\(2, 1, 8, 8\).*\(2, 1, 4, 4\).*label_size"):
        TaskLosses(TASKS)(NetworkOutput(output), batch)


def test_finite_losses_pass(batch):
    check_finite(TaskLosses(TASKS)(NetworkOutput(logits()), batch), batch)
    check_finite({}, batch)


def test_non_finite_loss_names_task_value_and_samples(batch):
    losses = {"semseg": torch.tensor(1.0), "depth": torch.tensor(math.nan)}
    with pytest.raises(NonFiniteLossError, match="loss of depth is nan; samples: both") as caught:
        check_finite(losses, batch)
    assert caught.value.tasks == ["depth"]
    assert caught.value.ids == {"depth": ["both"]}  # the other sample has no depth label


def test_the_sample_at_fault_is_found_from_the_logits(batch):
    output = logits()
    output["semseg"][1, 0, 2, 2] = math.inf
    output = NetworkOutput(output)
    losses = TaskLosses(TASKS)(output, batch)
    with pytest.raises(NonFiniteLossError, match="semseg") as caught:
        check_finite(losses, batch, output)
    assert caught.value.ids == {"semseg": ["no-depth"]}


def test_the_sample_at_fault_is_found_from_the_label(batch):
    batch.labels["depth"][0, 0, 0, 0] = math.inf
    losses = TaskLosses(TASKS)(NetworkOutput(logits()), batch)
    with pytest.raises(NonFiniteLossError) as caught:
        check_finite(losses, batch)
    assert caught.value.ids == {"depth": ["both"]}
    both = collate([sample(name, depth=torch.ones(1, 4, 4)) for name in ("sound", "broken")])
    both.labels["depth"][1, 0, 2, 3] = math.inf
    with pytest.raises(NonFiniteLossError) as caught:
        check_finite({"depth": torch.tensor(math.inf)}, both)
    assert caught.value.ids == {"depth": ["broken"]}


def test_synthetic_protocol_end_to_end():
    shapes = {task.name: (1, task.out_channels, 4, 4) for task in SYNTHETIC.tasks}
    labels = {
        task.name: torch.zeros(4, 4, dtype=torch.int64)
        if task.label == "classes"
        else torch.zeros(task.label_channels, 4, 4)
        for task in SYNTHETIC.tasks
    }
    output = NetworkOutput({name: torch.randn(shape) for name, shape in shapes.items()})
    losses = TaskLosses(SYNTHETIC.tasks)(output, collate([sample("x", **labels)]))
    assert list(losses) == list(SYNTHETIC.task_names)
    check_finite(losses, collate([sample("x", **labels)]), output)

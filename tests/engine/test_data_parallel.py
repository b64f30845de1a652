"""What a training step costs and says under data parallelism: one process in a gloo group of its own."""

from __future__ import annotations

import io

import discs
import pytest
import torch
import torch.distributed as dist
from rich.console import Console
from torch import nn

from mtvision.core.sample import collate
from mtvision.engine import ranks
from mtvision.engine.building import training_module, with_kept_batch
from mtvision.engine.hooks import UnreachedHook
from mtvision.engine.module import DistributedModule, UnreachedError
from mtvision.engine.optimization.wrapper import PrecisionOptimWrapper
from mtvision.engine.run_dir.journal import Journal
from mtvision.recipe.building import network_of
from mtvision.recipe.config import load_config
from mtvision.recipe.data import build_dataset
from mtvision.recipe.differences import ResumeError
from mtvision.recipe.settings import Settings

pytestmark = pytest.mark.filterwarnings("ignore:.broadcast_buffers:FutureWarning")  # of torch 2.14


@pytest.fixture
def group():
    """A group of one process."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture
def wrapped(group, tmp_path):
    """Makes (DDP module, batch of four images, optimizer)."""

    def make(*options):
        config = load_config(discs.write_config(tmp_path), options)
        settings = Settings.of(config)
        module = training_module(config, settings, network_of(config, settings.protocol))
        data = build_dataset("train_data", config["train_data"], settings.protocol, 0)
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        batch = collate([data[index] for index in range(4)])
        return DistributedModule(module), batch, PrecisionOptimWrapper(optimizer)

    return make


@pytest.mark.parametrize("parts", [1, 4])
def test_accumulation_reduces_gradients_once_a_step(wrapped, parts):
    """Every bucket once, however many parts a batch has."""
    model, batch, optimizer = wrapped(f"training.micro_batches={parts}")
    reduced = []

    def count(_, bucket):
        reduced.append(bucket.index())
        future = torch.futures.Future()
        future.set_result(bucket.buffer())
        return future

    model.register_comm_hook(None, count)
    for step in range(2):  # torch groups the buckets anew after the first step
        reduced.clear()
        model.train_step(batch, optimizer)
        assert len(reduced) == len(set(reduced)) >= 1, step


@pytest.mark.fault(
    "a loss that is computed and not used", expected="one line with the parameters and the task"
)
def test_unused_parameters_are_named_in_one_line(wrapped, monkeypatch):
    model, batch, optimizer = wrapped()
    combine = type(model.module.balancer).combine

    def forgetful(self, losses):
        return combine(self, {name: loss for name, loss in losses.items() if name != "depth"})

    monkeypatch.setattr(type(model.module.balancer), "combine", forgetful)
    model.train_step(batch, optimizer)
    with pytest.raises(UnreachedError, match=r"heads\.depth\.\* \(2 tensors\).*has to use every loss"):
        model.train_step(batch, optimizer)


def test_parameters_that_no_loss_reaches_are_said_once():
    class Runner:
        """As much of a runner as the hook looks at."""

        iter, max_iters = 0, 100

    runner = Runner()
    runner.plain_model = nn.ModuleDict(
        {"used": nn.Linear(2, 2), "spare": nn.Linear(2, 2), "late": nn.Linear(2, 2)}
    )
    runner.optim_wrapper = PrecisionOptimWrapper(torch.optim.SGD(runner.plain_model.parameters(), lr=0.1))
    text = io.StringIO()
    UnreachedHook(3, Journal(Console(file=text, width=400), None)).before_train(runner)
    for step in range(5):
        runner.iter = step
        used = runner.plain_model["late" if step == 1 else "used"]
        used(torch.ones(1, 2)).sum().backward()
        runner.optim_wrapper.step()
    assert text.getvalue() == (
        "2 of 6 parameters had no gradient until iteration 3; no loss depends on them: spare.* (2 tensors).\n"
    )


@pytest.mark.parametrize(
    ("processes", "micro_batches", "expected"),
    [(1, 1, (8, 2)), (4, 2, (2, 1)), (8, 1, (1, 1)), (2, 4, (4, 4))],
)
def test_the_batch_of_a_checkpoint_is_dealt_to_other_processes(tmp_path, processes, micro_batches, expected):
    """No process has more images in memory at once than the config says."""
    option = f"training.micro_batches={micro_batches}"
    config = load_config(discs.write_config(tmp_path), [option])
    earlier = [{"after": 0, "processes": 1, "images": 3}, {"after": 5, "processes": 2, "images": 4}]
    kept = with_kept_batch(config, earlier, processes)
    assert (kept["train_data"]["batch_size"], kept["training"]["micro_batches"]) == expected
    with pytest.raises(ResumeError, match=r"the 8 images of a step \(2 x 4\).*Start 1, 2, 4, 8 processes"):
        with_kept_batch(config, earlier, 3)


def test_evaluations_have_the_statistics_of_the_main_process(monkeypatch):
    """Those of checkpoints. Otherwise a resumed run would score otherwise than one that was not stopped."""
    network = nn.Sequential(nn.BatchNorm2d(2), nn.ReLU())
    network.register_buffer("grid", torch.zeros(3), persistent=False)
    monkeypatch.setattr(ranks, "number_of_ranks", lambda: 2)
    monkeypatch.setattr(dist, "broadcast", lambda tensor, source: tensor.fill_(7 + source))
    with ranks.statistics_of_main(network):
        assert [float(item.max()) for item in network.buffers()] == [0, 7, 7, 7]
    assert [float(item.max()) for item in network.buffers()] == [0, 0, 1, 0]

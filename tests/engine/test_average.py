"""The moving average of the weights against its recursion, and what checkpoints hold of it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mtvision.engine.average import AverageHook


def network_of(value: float) -> nn.BatchNorm1d:
    """Weight and running mean are `value`, the counter of batches is its integer part."""
    network = nn.BatchNorm1d(2)
    fill(network, value)
    return network


def fill(network: nn.BatchNorm1d, value: float) -> None:
    with torch.no_grad():
        network.weight.fill_(value)
        network.running_mean.fill_(-value)
        network.num_batches_tracked.fill_(int(value))


def runner_of(network: nn.Module) -> SimpleNamespace:
    return SimpleNamespace(plain_model=SimpleNamespace(network=network))


def averaged(momentum: float, values: list[float]) -> tuple[AverageHook, SimpleNamespace]:
    runner = runner_of(network_of(0.0))
    hook = AverageHook(momentum)
    hook.before_run(runner)
    for value in values:
        fill(runner.plain_model.network, value)
        hook.after_train_iter(runner)
    return hook, runner


def saved(hook: AverageHook, runner: SimpleNamespace) -> dict:
    network = runner.plain_model.network
    checkpoint = {"state_dict": {f"network.{name}": item for name, item in network.state_dict().items()}}
    checkpoint["state_dict"]["balancer.scale"] = torch.tensor(5.0)
    hook.before_save_checkpoint(runner, checkpoint)
    return checkpoint


@pytest.mark.parametrize("momentum", [0.1, 0.5])
def test_average_follows_its_recursion(momentum):
    """It starts as the weights after the first iteration; buffers move as weights do."""
    values = [1.0, 4.0, -2.0, 8.0]
    expected = values[0]
    for value in values[1:]:
        expected = (1 - momentum) * expected + momentum * value
    hook, runner = averaged(momentum, values)
    state = saved(hook, runner)["state_dict"]
    torch.testing.assert_close(state["network.weight"], torch.full((2,), expected))
    torch.testing.assert_close(state["network.running_mean"], torch.full((2,), -expected))
    assert state["balancer.scale"] == 5, "only the network is averaged"


def test_checkpoint_holds_both_and_loads_again():
    hook, runner = averaged(0.25, [1.0, 3.0])
    checkpoint = saved(hook, runner)
    assert checkpoint["averaged_steps"] == 2
    assert set(checkpoint["trained_network"]) == {
        f"network.{name}" for name in runner.plain_model.network.state_dict()
    }
    assert checkpoint["trained_network"]["network.weight"].tolist() == [3, 3]
    assert checkpoint["state_dict"]["network.weight"].tolist() == [1.5, 1.5]

    other, fresh = AverageHook(0.25), runner_of(network_of(7.0))
    other.before_run(fresh)
    other.after_load_checkpoint(fresh, checkpoint)
    assert checkpoint["state_dict"]["network.weight"].tolist() == [3, 3], (
        "training goes on with its own weights"
    )
    fresh.plain_model.network.load_state_dict(
        {
            name.removeprefix("network."): item
            for name, item in checkpoint["state_dict"].items()
            if name.startswith("network.")
        }
    )
    for one, where in ((hook, runner), (other, fresh)):
        fill(where.plain_model.network, 5.0)
        one.after_train_iter(where)
        assert saved(one, where)["state_dict"]["network.weight"].tolist() == [2.375, 2.375]
        assert saved(one, where)["averaged_steps"] == 3


def test_checkpoint_without_an_average_starts_one_anew():
    hook, runner = AverageHook(0.5), runner_of(network_of(0.0))
    hook.before_run(runner)
    plain = {"state_dict": {f"network.{name}": item for name, item in network_of(4.0).state_dict().items()}}
    hook.after_load_checkpoint(runner, plain)
    assert hook.average.module.weight.tolist() == [4, 4]
    assert int(hook.average.n_averaged) == 0


def test_evaluation_sees_the_average_and_training_does_not():
    hook, runner = averaged(0.5, [1.0, 3.0])
    hook.before_val_epoch(runner)
    assert runner.plain_model.network.weight.tolist() == [2, 2]
    hook.after_val_epoch(runner)
    assert runner.plain_model.network.weight.tolist() == [3, 3]
    assert hook.average.module.weight.tolist() == [2, 2]


@pytest.mark.parametrize("momentum", [0, 1, -0.1, 1.1])
def test_momentum_lies_between_0_and_1(momentum):
    with pytest.raises(ValueError, match="training.ema must lie between 0 and 1"):
        AverageHook(momentum)

"""A network that becomes NaN is neither stepped, nor saved, nor loaded; single bad steps can be left out."""

from __future__ import annotations

import json
import math

import data_problems as problems
import discs
import pytest
import torch
from torch import nn

from mtvision.core.non_finite import (
    NonFiniteError,
    NonFiniteGradientError,
    NonFiniteWeightsError,
    in_words,
    non_finite,
)
from mtvision.engine.evaluate import evaluate_checkpoint
from mtvision.engine.module import TrainingModule
from mtvision.engine.optimization.wrapper import LEAST_SCALE, PATIENCE, PrecisionOptimWrapper, total_norm
from mtvision.engine.training import train
from mtvision.losses.task_losses import NonFiniteLossError
from mtvision.recipe.config import load_config
from mtvision.runtime.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from mtvision.steps.gradients import matrix as matrix_file

pytestmark = pytest.mark.slow  # most tests train a run

INF, NAN = math.inf, math.nan


def run(tmp_path, *options, resume=None):
    """Train the discs for 12 iterations with a checkpoint every 5."""
    config = load_config(discs.write_config(tmp_path), list(options))
    return train(config, tmp_path / "run", resume=resume)


def rows(tmp_path):
    return [json.loads(line) for line in (tmp_path / "run" / "losses.jsonl").read_text().splitlines()]


def poison(monkeypatch, when, value=NAN, name="network.decoder"):
    """Give one gradient of the named module a non-finite value in steps `when`; the losses stay finite."""
    step = PrecisionOptimWrapper.is_sound
    counted = iter(range(1, 99))

    def is_sound(self, watched=None):
        if next(counted) in when:
            self.optimizer.param_groups[0]["params"][-1].grad.view(-1)[0] = value
        return step(self, watched)

    monkeypatch.setattr(PrecisionOptimWrapper, "is_sound", is_sound)


@pytest.mark.fault(
    "a gradient of NaN or infinity", expected="stops; no such weights are saved; resuming works"
)
@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("options", [(), ("training.clip_grad=1.0",)])
def test_a_gradient_that_is_not_finite_stops_the_run(tmp_path, monkeypatch, value, options):
    poison(monkeypatch, {8}, value)
    with pytest.raises(NonFiniteGradientError, match=r"iteration 8: gradients: 1 value of network") as caught:
        run(tmp_path, *options)
    assert "iter_5.pth, from before this" in str(caught.value)
    assert non_finite(load_checkpoint(tmp_path / "run" / "iter_5.pth")["state_dict"].items()) == {}
    assert not (tmp_path / "run" / "iter_12.pth").exists()
    assert not (tmp_path / "run" / "record.json").exists()


def test_the_message_says_when_there_is_no_checkpoint(tmp_path, monkeypatch):
    poison(monkeypatch, {3})
    with pytest.raises(NonFiniteGradientError, match="No checkpoint was written before this"):
        run(tmp_path)


@pytest.mark.fault(
    "a gradient of NaN or infinity", expected="stops; no such weights are saved; resuming works"
)
def test_resume_goes_on_after_a_stop(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        poison(patched, {8})
        with pytest.raises(NonFiniteGradientError):
            run(tmp_path)
    record = run(tmp_path, resume="auto")
    assert record.training["iterations"] == 12
    assert len(rows(tmp_path)) == 12


@pytest.mark.fault("an infinite gradient in the last step", expected="exit code 1")
def test_an_infinite_gradient_in_the_last_step_is_no_success(tmp_path, monkeypatch):
    poison(monkeypatch, {12}, INF)
    with pytest.raises(NonFiniteGradientError, match="iteration 12"):
        run(tmp_path)


def test_single_steps_can_be_left_out_and_are_counted(tmp_path, monkeypatch):
    poison(monkeypatch, {3, 8, 9})
    record = run(tmp_path, "training.non_finite=skip")
    assert [row["iter"] for row in rows(tmp_path) if "skipped" in row] == [3, 8, 9]
    assert record.training["skipped_steps"] == 3
    assert non_finite(load_checkpoint(tmp_path / "run" / "iter_12.pth")["state_dict"].items()) == {}


def test_a_loss_of_nan_is_left_out_with_the_statistics_of_norms(tmp_path, monkeypatch):
    """The forward pass of a NaN image has changed running means; they are put back."""
    original, counted = TrainingModule.forward, iter(range(1, 99))

    def forward(self, batch, counts=None):
        if next(counted) == 4:
            batch.image[0] = torch.nan
        return original(self, batch, counts)

    monkeypatch.setattr(TrainingModule, "forward", forward)
    record = run(tmp_path, "training.non_finite=skip", "training.first_look=0")
    assert record.training["skipped_steps"] == 1
    (row,) = [row for row in rows(tmp_path) if "skipped" in row]
    assert row["iter"] == 4
    assert all(math.isfinite(value) for value in row.values())


def test_many_in_a_row_stop_the_run_all_the_same(tmp_path, monkeypatch):
    poison(monkeypatch, set(range(2, 99)))
    with pytest.raises(
        NonFiniteGradientError, match=f"iteration {PATIENCE + 2}.*{PATIENCE + 1} steps in a row"
    ):
        run(tmp_path, "training.non_finite=skip", "training.iterations=40")


@pytest.mark.fault("every step is left out", expected="exit code 1")
def test_a_run_whose_every_step_is_left_out_is_no_success(tmp_path, monkeypatch):
    poison(monkeypatch, set(range(1, 99)))
    with pytest.raises(NonFiniteError, match="all 12 steps were left out"):
        run(tmp_path, "training.non_finite=skip")
    assert not (tmp_path / "run" / "record.json").exists()


@pytest.fixture
def sick_rows(monkeypatch):
    """Makes gradients of the seventh step NaN: those of the losses that are given to it."""
    passes, counted = matrix_file._passes, iter(range(1, 99))

    def spoil(*losses):
        def sick(*given):
            now = next(counted) == 7
            for key, found in passes(*given):
                bad = now and key in losses
                yield key, [item * torch.nan if bad and item is not None else item for item in found]

        monkeypatch.setattr(matrix_file, "_passes", sick)

    return spoil


def test_jacobian_rows_stop_before_the_aggregator(tmp_path, sick_rows):
    sick_rows("depth")
    with pytest.raises(NonFiniteGradientError, match="iteration 7: .* for the loss of depth"):
        run(tmp_path, "balancer.type=UPGrad", "step.products=matrix")


def test_jacobian_rows_can_be_left_out(tmp_path, sick_rows):
    sick_rows("depth", "semseg")
    options = ("balancer.type=UPGrad", "step.products=matrix", "training.non_finite=skip")
    record = run(tmp_path, *options)
    assert record.training["skipped_steps"] == 1


@pytest.mark.fault("weights that overflow", expected="not written; earlier checkpoints stay")
def test_weights_that_overflow_are_not_written(tmp_path, monkeypatch):
    """An update that overflows; the checkpoint comes before the next step, whose loss would show it."""
    step, counted = torch.optim.SGD.step, iter(range(1, 99))

    def overflow(self, *given, **named):
        result = step(self, *given, **named)
        if next(counted) == 10:
            with torch.no_grad():
                self.param_groups[0]["params"][0].view(-1)[0] = torch.inf
        return result

    monkeypatch.setattr(torch.optim.SGD, "step", overflow)
    with pytest.raises(
        NonFiniteWeightsError, match=r"iter_10.pth is not written: after iteration 10 1 value of"
    ):
        run(tmp_path, "optimizer.type=SGD", "optimizer.lr=0.001", "optimizer.momentum=0")
    assert sorted(path.name for path in (tmp_path / "run").glob("*.pth")) == ["iter_5.pth"]


def test_a_loss_names_the_image_also_under_upgrad(tmp_path):
    with pytest.raises(NonFiniteLossError, match=r"loss of depth is inf; samples: disc-3\.") as caught:
        run(tmp_path, "balancer.type=UPGrad", "train_data.dataset.broken=3")
    assert caught.value.ids == {"depth": ["disc-3"]}


@pytest.mark.fault("a checkpoint of NaN weights", expected="refused by the name of the tensor")
@pytest.mark.parametrize("value", [NAN, INF])
@problems.SICK_WEIGHTS
def test_a_checkpoint_of_sick_weights_is_refused(tmp_path, value):
    run(tmp_path)
    path = tmp_path / "run" / "iter_12.pth"
    content = torch.load(path, weights_only=True)
    name = next(key for key, item in content["state_dict"].items() if item.is_floating_point())
    content["state_dict"][name].view(-1)[:2] = value
    save_checkpoint(path, content)
    with pytest.raises(CheckpointError, match=rf"iter_12.pth: 2 values of {name} .* NaN or infinite"):
        load_checkpoint(path)
    config = load_config(discs.write_config(tmp_path))
    with pytest.raises(CheckpointError, match="NaN or infinite"):
        evaluate_checkpoint(config, tmp_path / "test", path)
    with pytest.raises(CheckpointError, match="NaN or infinite"):
        train(config, tmp_path / "run", resume="auto")
    with pytest.raises(CheckpointError, match="NaN or infinite"):
        train(config.with_options({"training.load_from": str(path)}), tmp_path / "other")


def wrapper_of(precision="fp32", non_finite="stop", values=(1.0, 2.0)):
    weight = nn.Parameter(torch.tensor(values))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    return weight, PrecisionOptimWrapper(optimizer, precision=precision, non_finite=non_finite)


def test_fp16_halves_its_scale_until_the_scale_is_no_excuse():
    weight, wrapper = wrapper_of("fp16")
    halved = 0
    while wrapper.scale(torch.tensor(1.0)) > LEAST_SCALE:
        weight.grad = torch.tensor([INF, 1.0])
        assert not wrapper.is_sound()
        if not wrapper.may_skip(losses_are_finite=True):
            break
        wrapper.skip()
        halved += 1
    assert halved == 16  # from 2^16 to 1
    weight.grad = torch.tensor([INF, 1.0])
    assert not wrapper.is_sound()
    assert not wrapper.may_skip(losses_are_finite=True)
    assert weight.tolist() == [1, 2]


def test_fp16_does_not_excuse_a_loss():
    weight, wrapper = wrapper_of("fp16")
    weight.grad = torch.tensor([1.0, 1.0])
    wrapper.scale(torch.tensor(1.0))
    assert not wrapper.is_sound(torch.tensor([NAN]))
    assert not wrapper.may_skip(losses_are_finite=False)


def test_a_sound_step_ends_a_row():
    weight, wrapper = wrapper_of(non_finite="skip")
    for value in (*[NAN] * PATIENCE, 1.0, *[NAN] * PATIENCE):
        weight.grad = torch.tensor([value, 1.0])
        if wrapper.is_sound():
            wrapper.step()
        else:
            assert wrapper.may_skip(losses_are_finite=True)
            wrapper.skip()
    assert not wrapper.may_skip(losses_are_finite=True)
    assert weight.tolist() == [0, 1]


def test_total_norm():
    gradients = [torch.tensor([3.0]), torch.zeros(2, 2), torch.tensor([4.0], dtype=torch.float64)]
    assert float(total_norm(gradients)) == 5
    assert math.isnan(float(total_norm([torch.tensor([1.0, NAN]), torch.tensor([INF])])))


def test_non_finite_counts_and_names():
    huge = torch.full((4,), 3e38)
    tensors = {
        "a": torch.tensor([NAN, 1.0, INF]),
        "huge": huge,
        "steps": torch.tensor(7),
        "b": torch.tensor(-INF),
    }
    found = non_finite(tensors.items())
    assert found == {"a": 2, "b": 1}  # the sum of `huge` overflows, its values do not
    assert in_words(found, len(tensors)) == "2 values of a, 1 value of b (2 of 4 tensors)"
    many = dict.fromkeys("abcde", 1)
    assert in_words(many, 9) == "1 value of a, 1 value of b, 1 value of c, … (5 of 9 tensors)"


@problems.ALL_IGNORED
def test_labels_that_are_all_missing_are_told(tmp_path, monkeypatch, capsys):
    """A loss of 0 without a labelled pixel looks like success; it is counted and said."""
    original = discs.TinyDiscs.read

    def read(self, index):
        sample = original(self, index)
        if self.split == "train":
            sample.labels["semseg"][:] = 255
        return sample

    monkeypatch.setattr(discs.TinyDiscs, "read", read)
    record = run(tmp_path, "training.log_interval=4", "training.first_look_errors=warn")
    assert record.training["unlabelled_steps"] == {"semseg": 12}
    assert all(row["unlabelled/semseg"] == 1 and row["loss/semseg"] == 0 for row in rows(tmp_path))
    said = capsys.readouterr().err
    assert said.count("no labelled pixel of semseg in iterations 1 to 4: its loss is 0") == 1
    assert "of depth" not in said

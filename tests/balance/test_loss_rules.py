"""Rules over losses: equality with torchjd, loops written from the papers, partial labels, options."""

import pytest
import torch
import torchjd.scalarization as theirs
from rule_loops import coba_weights
from torch import nn

from mtvision.balance import FAMO, CoBa, Scalarizer, SmoothTchebycheff
from mtvision.core.naming import UnknownNameError

TASKS = ("semseg", "depth", "edge")


def leaf(*values: float, names: tuple[str, ...] = TASKS) -> dict[str, torch.Tensor]:
    return {
        name: torch.tensor(value, dtype=torch.float64, requires_grad=True)
        for name, value in zip(names, values, strict=True)
    }


def gradients(balancer, losses) -> list[float]:
    return [item.item() for item in torch.autograd.grad(balancer.combine(losses), list(losses.values()))]


# ---------------------------------------------------------------------------------------- torchjd's


def test_dwa_equals_torchjd_and_the_paper():
    balancer, direct = Scalarizer(tasks=TASKS, scalarizer="DWA", period=2), theirs.DWA()
    epochs = torch.rand(3, 2, 3, dtype=torch.float64) + 0.1
    for epoch in epochs:
        for values in epoch:
            found = balancer.combine(dict(zip(TASKS, values, strict=True)))
            assert found.item() == direct(values).item()
        direct.step()
    means = epochs.mean(dim=1)
    rates = means[2] / means[1]
    weights = 3 * torch.exp(rates / 2) / torch.exp(rates / 2).sum()
    assert gradients(balancer, leaf(1.0, 2.0, 3.0)) == pytest.approx(weights.tolist())


def test_preferences_and_learnt_scales_follow_the_tasks_present():
    preference = {"semseg": 3.0, "depth": 2.0, "edge": 1.0}
    balancer = Scalarizer(tasks=TASKS, scalarizer="PBI", theta=0.0, preference=preference)
    values = torch.tensor([2.0, 5.0], dtype=torch.float64)
    direction = torch.tensor([3.0, 1.0]).double() / 10**0.5
    found = balancer.combine({"semseg": values[0], "edge": values[1]})
    assert found.item() == pytest.approx((values @ direction).item())
    learnt = Scalarizer(tasks=TASKS, scalarizer="IMTLL")
    learnt.combine({"depth": torch.tensor(3.0)}).backward()
    (scale,) = learnt.parameters()
    assert scale.grad.tolist() == [0, 2, 0]  # e^0 · 3 − 1


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"scalarizer": "DAW"}, UnknownNameError, "Did you mean 'DWA'"),
        ({"scalarizer": "DWA", "temprature": 1}, UnknownNameError, "Did you mean 'temperature'"),
        ({"scalarizer": "STCH"}, TypeError, "STCH needs mu"),
        ({"scalarizer": "DWA", "preference": dict.fromkeys(TASKS, 1.0)}, ValueError, "these do: COSMOS, PBI"),
        ({"scalarizer": "DWA", "reference": dict.fromkeys(TASKS, 1.0)}, ValueError, "takes no reference"),
    ],
)
def test_bad_options_of_scalarizers(options, error, message):
    with pytest.raises(error, match=message):
        Scalarizer(tasks=TASKS, **options)


def test_rules_with_state_per_task_refuse_missing_tasks():
    balancer = Scalarizer(tasks=TASKS, scalarizer="DWA")
    with pytest.raises(ValueError, match="DWA keeps state for every task.*GeometricMean"):
        balancer.combine(leaf(1.0, 2.0, names=("semseg", "edge")))


def test_state_of_another_rule_is_refused():
    state = FAMO(tasks=TASKS).state_dict()
    with pytest.raises(ValueError, match="holds the state of FAMO, the config asks for CoBa"):
        CoBa(tasks=TASKS).load_state_dict(state)
    state = Scalarizer(tasks=TASKS, scalarizer="Sum").state_dict()
    with pytest.raises(ValueError, match="holds the state of Sum, the config asks for Mean"):
        Scalarizer(tasks=TASKS, scalarizer="Mean").load_state_dict(state)


# ------------------------------------------------------------------------------ smooth Tchebycheff


def test_smooth_tchebycheff_step_by_step():
    balancer = SmoothTchebycheff(tasks=TASKS, mu=0.5, warmup=3, nadir=2)
    seen = torch.rand(3, 3, dtype=torch.float64) + 0.2
    for values in seen:
        found = balancer.combine(dict(zip(TASKS, values, strict=True)))
        assert found.item() == pytest.approx(values.log().sum().item())
    nadir = seen[1:].mean(dim=0)
    values = torch.rand(3, dtype=torch.float64) + 0.2
    expected = 3 * 0.5 * torch.exp((values / nadir).log() / 0.5).sum().log()
    found = balancer.combine(dict(zip(TASKS, values, strict=True)))
    assert found.item() == pytest.approx(expected.item())


# -------------------------------------------------------------------------------------------- FAMO


def test_famo_equals_torchjd_on_two_quadratics():
    ours, direct = FAMO(tasks=("a", "b")), theirs.FAMO(2).double()
    weights = [torch.tensor([1.5, -0.7], dtype=torch.float64, requires_grad=True) for _ in range(2)]

    def losses(point):
        return torch.stack([(point - 1).square().sum() + 0.1, 9 * (point + 1).square().sum() + 0.1])

    for _ in range(6):
        for index, point in enumerate(weights):
            values = losses(point)
            total = direct(values) if index else ours.combine(dict(zip("ab", values, strict=True)))
            (gradient,) = torch.autograd.grad(total, point)
            with torch.no_grad():
                point.sub_(0.05 * gradient)
                after = losses(point)
            if index:
                direct.update(after)
            else:
                ours.observe(dict(zip("ab", after, strict=True)))
    torch.testing.assert_close(*weights, rtol=1e-12, atol=0)
    assert ours.memory["logits"].tolist() == pytest.approx(next(direct.parameters()).tolist())
    assert abs(float(ours.memory["logits"][0])) > 1e-3


def test_famo_forgets_an_update_that_was_left_out():
    balancer = FAMO(tasks=TASKS)
    balancer.combine(leaf(9.0, 1.0, 1.0))  # its update was left out: no observation
    balancer.combine(leaf(2.0, 1.0, 1.0))
    balancer.observe(leaf(2.0, 1.0, 1.0))
    assert balancer.memory["logits"].tolist() == [0, 0, 0]


# -------------------------------------------------------------------------------------------- CoBa


@pytest.mark.parametrize("observations", [3, 5, 9])
def test_coba_equals_a_loop_over_the_released_formulas(observations):
    history = torch.rand(observations, 3, dtype=torch.float64) + 0.5
    balancer = CoBa(tasks=TASKS, warmup=3, history=6)
    for row in history:
        balancer.observe(dict(zip(TASKS, row, strict=True)))
    expected = coba_weights(history, 5.0, 3, 6)
    assert gradients(balancer, leaf(1.0, 2.0, 3.0)) == pytest.approx(expected.tolist(), rel=1e-9)
    assert expected.std() > 1e-3


def test_coba_starts_equal_and_divides_by_the_weights_present():
    balancer = CoBa(tasks=TASKS, warmup=2, history=3)
    assert gradients(balancer, leaf(1.0, 2.0, 3.0)) == pytest.approx([1 / 3] * 3)
    for loss in (1.0, 0.9, 0.7):
        balancer.observe(
            {"semseg": torch.tensor(1.0), "depth": torch.tensor(loss), "edge": torch.tensor(1.0)}
        )
    both = gradients(balancer, leaf(1.0, 1.0, names=("semseg", "depth")))
    assert sum(both) == pytest.approx(1)
    assert both[0] != pytest.approx(both[1], rel=1e-3)
    with pytest.raises(ValueError, match="history at least warmup"):
        CoBa(tasks=TASKS, warmup=9, history=3)


def test_learnt_parameters_are_found_by_the_optimizer():
    assert isinstance(next(Scalarizer(tasks=TASKS, scalarizer="IMTLL").parameters()), nn.Parameter)
    for balancer in (FAMO(tasks=TASKS), Scalarizer(tasks=TASKS, scalarizer="PBI", theta=1.0)):
        assert list(balancer.parameters()) == []

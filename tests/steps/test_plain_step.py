"""PlainStep on one process: equality with torchjd and autograd, accumulation, precision, partial labels."""

import pytest
import torch
from step_toy import NAMES, ToyForward, gradients, make_batch, make_samples, make_toy
from torchjd.aggregation import UPGrad as TheirUPGrad
from torchjd.autojac import backward, jac_to_grad

from mtvision.balance import FixedWeights, LogSum, TorchJD, Uncertainty, UPGrad
from mtvision.core.naming import UnknownNameError
from mtvision.core.non_finite import NonFiniteGradientError
from mtvision.core.registry import STEPS
from mtvision.core.sample import collate
from mtvision.steps import LossReport, PlainStep, StepProblem

SHARED = ("trunk", "own", "exchange")


def run(balancer, batches, *, network=None, step=None, regulariser=0.0, autocast=None, **options):
    """Gradients and logs of the toy after a step on every batch."""
    network = network or make_toy()
    step = step or PlainStep()
    forward = ToyForward(network, regulariser, autocast)
    problem = StepProblem(forward, balancer, list(network.named_parameters()), **options)
    logs = [step(problem, batch) for batch in batches]
    return gradients(network), logs


def assert_same(ours, theirs, rtol=1e-10, atol=1e-14):
    assert ours.keys() == theirs.keys()
    for name, gradient in ours.items():
        if gradient is None or theirs[name] is None:
            assert gradient is theirs[name] is None, name
        else:
            torch.testing.assert_close(
                gradient, theirs[name], rtol=rtol, atol=atol, msg=lambda m, n=name: f"{n}: {m}"
            )


def task_gradients(batch, network=None):
    """{task: {parameter: gradient}} by one ordinary backward pass per task."""
    result = {}
    for name in NAMES:
        network = make_toy()
        losses = ToyForward(network)(batch).losses
        if name in losses:
            losses[name].backward()
            result[name] = gradients(network)
    return result


# ---------------------------------------------------------------------------------------------- jacobian


def test_equals_torchjds_own_procedure_on_a_cross_task_decoder():
    """torchjd: `backward` on all parameters that several losses reach, `jac_to_grad`, plain heads."""
    batch = make_batch(3)
    ours, _ = run(UPGrad(tasks=NAMES), [batch])
    network = make_toy()
    losses = list(ToyForward(network)(batch).losses.values())
    shared = [item for name, item in network.named_parameters() if name.startswith(SHARED)]
    heads = list(network.heads.parameters())
    for item, gradient in zip(heads, torch.autograd.grad(sum(losses), heads, retain_graph=True), strict=True):
        item.grad = gradient
    backward(losses, inputs=shared)
    jac_to_grad(shared, TheirUPGrad())
    assert_same(ours, gradients(network))


def test_the_balancer_sees_every_tasks_gradient_of_the_shared_parameters():
    batch, seen = make_batch(2), {}

    class Spy(UPGrad):
        def aggregate(self, jacobian, tasks):
            seen["jacobian"], seen["tasks"] = jacobian.clone(), tuple(tasks)
            return super().aggregate(jacobian, tasks)

    run(Spy(tasks=NAMES), [batch])
    expected = task_gradients(batch)
    rows = [
        torch.cat([g.reshape(-1) for name, g in expected[task].items() if name.startswith(SHARED)])
        for task in NAMES
    ]
    assert seen["tasks"] == NAMES
    torch.testing.assert_close(seen["jacobian"], torch.stack(rows), rtol=1e-12, atol=1e-15)


def test_heads_get_the_plain_gradient_of_their_own_loss():
    batch = make_batch(2)
    ours, _ = run(UPGrad(tasks=NAMES), [batch])
    for task, expected in task_gradients(batch).items():
        torch.testing.assert_close(ours[f"heads.{task}.weight"], expected[f"heads.{task}.weight"])


def test_summing_the_rows_is_plain_training():
    """With `Sum` as aggregator both kinds of balancer must agree, regulariser included."""
    batches = [make_batch(2), make_batch(3, seed=5)]
    jacobian, logs = run(TorchJD(tasks=NAMES, aggregator="Sum"), batches, regulariser=0.1)
    scalar, plain_logs = run(FixedWeights(tasks=NAMES), batches, regulariser=0.1)
    assert_same(jacobian, scalar)
    assert [float(log["total"]) for log in logs] == pytest.approx([float(log["total"]) for log in plain_logs])


def test_parameters_that_no_loss_reaches_are_left_alone():
    for balancer in (UPGrad(tasks=NAMES), FixedWeights(tasks=NAMES)):
        ours, _ = run(balancer, [make_batch(2)])
        assert ours["unused.weight"] is None
        assert ours["frozen"] is None


def test_auxiliary_losses_are_added_after_the_balancer():
    batch = make_batch(2)
    with_term, logs = run(UPGrad(tasks=NAMES), [batch], regulariser=0.5)
    without, _ = run(UPGrad(tasks=NAMES), [batch])
    trunk = make_toy().trunk
    torch.testing.assert_close(
        with_term["trunk.weight"] - without["trunk.weight"], trunk.weight.detach(), rtol=1e-9, atol=1e-12
    )
    assert_same(
        {k: v for k, v in with_term.items() if "trunk" not in k},
        {k: v for k, v in without.items() if "trunk" not in k},
    )
    assert float(logs[0]["auxiliary/decay"]) > 0


def test_overrides_change_roles():
    batch = make_batch(2)
    expected = task_gradients(batch)
    ours, _ = run(
        UPGrad(tasks=NAMES), [batch], role_overrides={"exchange.*": "task:edge", "trunk.*": "architecture"}
    )
    torch.testing.assert_close(ours["exchange.weight"], expected["edge"]["exchange.weight"])
    total = sum(item["trunk.weight"] for item in expected.values())
    torch.testing.assert_close(ours["trunk.weight"], total)


def test_forcing_a_dead_parameter_to_be_shared_does_not_wake_it():
    ours, _ = run(UPGrad(tasks=NAMES), [make_batch(1)], role_overrides={"unused.*": "shared"})
    assert ours["unused.weight"] is None


def test_gradients_add_up_and_each_batch_is_aggregated_by_itself():
    first, second = make_batch(2), make_batch(2, seed=7)
    both, _ = run(UPGrad(tasks=NAMES), [first, second])
    one, _ = run(UPGrad(tasks=NAMES), [first])
    two, _ = run(UPGrad(tasks=NAMES), [second])
    assert_same(both, {name: None if g is None else g + two[name] for name, g in one.items()})


# ------------------------------------------------------------------------------------------- accumulation


@pytest.mark.parametrize("make", [FixedWeights, Uncertainty])
def test_two_half_batches_equal_one_batch(make):
    """Balancers linear in the losses: halves of the batch, each loss halved."""
    samples = make_samples(4)
    whole_balancer, half_balancer = make(tasks=NAMES).double(), make(tasks=NAMES).double()
    whole, _ = run(whole_balancer, [collate(samples)])
    halves, _ = run(
        half_balancer,
        [collate(samples[:2]), collate(samples[2:])],
        scale=lambda loss: loss / 2,
        backward=lambda loss: (loss / 2).backward(),
    )
    assert_same(halves, whole)
    for a, b in zip(half_balancer.parameters(), whole_balancer.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_two_half_batches_equal_one_batch_for_a_linear_aggregator():
    samples = make_samples(4)
    whole, _ = run(TorchJD(tasks=NAMES, aggregator="Mean"), [collate(samples)])
    halves, _ = run(
        TorchJD(tasks=NAMES, aggregator="Mean"),
        [collate(samples[:2]), collate(samples[2:])],
        scale=lambda loss: loss / 2,
    )
    assert_same(halves, whole)


def test_balancer_gradients_add_up():
    balancer = Uncertainty(tasks=NAMES)
    run(balancer, [make_batch(2)])
    once = balancer.log_variance.grad.clone()
    run(balancer, [make_batch(2)])
    torch.testing.assert_close(balancer.log_variance.grad, 2 * once)


# ----------------------------------------------------------------------------------------- scale, precision


@pytest.mark.parametrize("aggregator", ["UPGrad", "PCD", "GradVac", "ExcessMTL"])
def test_loss_scale_is_invisible_to_the_balancer(aggregator):
    """fp16 training multiplies losses by 2^16 and divides gradients later: nothing else may change."""
    batches = [make_batch(2), make_batch(2, seed=3)]
    plain, _ = run(TorchJD(tasks=NAMES, aggregator=aggregator), batches, regulariser=0.1)
    scaled, _ = run(
        TorchJD(tasks=NAMES, aggregator=aggregator),
        batches,
        regulariser=0.1,
        scale=lambda loss: loss * 2.0**16,
    )
    assert_same({k: None if v is None else v / 2.0**16 for k, v in scaled.items()}, plain)


def test_overflow_stops_before_the_aggregator():
    """An aggregator would spread an infinite row over all tasks, or fail in its own words."""
    network = make_toy().float()
    batch = make_batch(2)
    batch.image = batch.image.float()
    with pytest.raises(NonFiniteGradientError, match="loss of semseg, depth, edge"):
        run(UPGrad(tasks=NAMES), [batch], network=network, scale=lambda loss: loss * 1e39)


@pytest.mark.parametrize("make", [FixedWeights, UPGrad])
def test_bf16_autocast_is_close_to_full_precision(make):
    batch = make_batch(2)
    batch.image = batch.image.float()
    exact, _ = run(make(tasks=NAMES), [batch], network=make_toy().float())
    rough, logs = run(make(tasks=NAMES), [batch], network=make_toy().float(), autocast=torch.bfloat16)
    for name, gradient in exact.items():
        if gradient is not None:
            assert rough[name].dtype == torch.float32
            assert (rough[name] - gradient).norm() < 0.1 * gradient.norm() + 1e-3
    assert all(value.dtype == torch.float32 for name, value in logs[0].items() if name.startswith("loss"))


# ------------------------------------------------------------------------------------------ partial labels


def test_a_task_without_labels_is_dropped():
    batch = make_batch(2, lacking={0: {"depth"}, 1: {"depth"}})
    ours, logs = run(UPGrad(tasks=NAMES), [batch])
    assert ours["heads.depth.weight"] is None
    assert set(logs[0]) == {"loss/semseg", "loss/edge", "weight/semseg", "weight/edge", "total"}
    expected = task_gradients(batch)
    rows = torch.stack([expected[name]["exchange.weight"].reshape(-1) for name in ("semseg", "edge")])
    everything = [
        torch.cat(
            [g.reshape(-1) for k, g in expected[name].items() if g is not None and k.startswith(SHARED)]
        )
        for name in ("semseg", "edge")
    ]
    weights = TheirUPGrad().gramian_weighting(torch.stack(everything) @ torch.stack(everything).T)
    torch.testing.assert_close(ours["exchange.weight"].reshape(-1), weights @ rows, rtol=1e-9, atol=1e-12)


def test_a_single_task_needs_no_balancer():
    lacking = {0: {"depth", "edge"}}
    ours, logs = run(UPGrad(tasks=NAMES), [make_batch(1, lacking=lacking)])
    plain, _ = run(FixedWeights(tasks=NAMES), [make_batch(1, lacking=lacking)])
    assert_same(ours, plain)
    assert not any(name.startswith("weight") for name in logs[0])


def test_roles_are_found_once_for_each_set_of_tasks(monkeypatch):
    import mtvision.steps.gradients.layout as module

    calls = []
    original = module.find_reach
    monkeypatch.setattr(
        module, "find_reach", lambda losses, named: calls.append(1) or original(losses, named)
    )
    full, partial = make_batch(2), make_batch(2, lacking={0: {"edge"}, 1: {"edge"}})
    network = make_toy()
    step = PlainStep()
    run(UPGrad(tasks=NAMES), [full, partial, full, partial], network=network, step=step)
    assert len(calls) == 2
    network.trunk.weight.requires_grad_(False)  # another phase of training
    network.zero_grad()
    ours, _ = run(UPGrad(tasks=NAMES), [full], network=network, step=step)
    assert len(calls) == 3
    assert ours["trunk.weight"] is None


@pytest.mark.parametrize("make", [FixedWeights, UPGrad])
def test_a_batch_without_any_label_names_its_images(make):
    batch = make_batch(1, lacking={0: set(NAMES)})
    with pytest.raises(ValueError, match="image-0: no label of any task"):
        run(make(tasks=NAMES), [batch])


@pytest.mark.parametrize("make", [FixedWeights, LogSum, Uncertainty, UPGrad])
def test_a_loss_of_a_task_the_balancer_does_not_know(make):
    with pytest.raises(UnknownNameError, match="'edge'"):
        run(make(tasks=("semseg", "depth")), [make_batch(1)])


# --------------------------------------------------------------------------------------------------- rest


def test_logs():
    _, [log] = run(FixedWeights(tasks=NAMES, weights={"semseg": 1, "depth": 2, "edge": 50}), [make_batch(2)])
    assert set(log) == {*(f"loss/{n}" for n in NAMES), *(f"weight/{n}" for n in NAMES), "total"}
    assert not any(value.requires_grad for value in log.values())
    total = sum(log[f"weight/{name}"] * log[f"loss/{name}"] for name in NAMES)
    assert float(log["total"]) == pytest.approx(float(total))


def test_scalar_step_is_autograd():
    batch = make_batch(2)
    ours, _ = run(LogSum(tasks=NAMES), [batch])
    network = make_toy()
    sum((loss + 1e-8).log() for loss in ToyForward(network)(batch).losses.values()).backward()
    assert_same(ours, gradients(network))


def test_who_averages_gradients():
    step = STEPS.build({"type": "PlainStep"})
    assert step.averages_gradients(UPGrad(tasks=NAMES))
    assert not step.averages_gradients(FixedWeights(tasks=NAMES))


def test_nothing_to_train_is_an_error():
    network = make_toy().requires_grad_(False)
    problem = StepProblem(
        lambda _: LossReport({"semseg": torch.tensor(1.0)}),
        UPGrad(tasks=NAMES),
        list(network.named_parameters()),
    )
    with pytest.raises(ValueError, match="no trainable parameter"):
        PlainStep()(problem, make_batch(1))

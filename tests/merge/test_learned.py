"""Mergers that learn: gradients, starting points, known answers, and what published code does otherwise."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from merge_problems import NAMES, TASKS, images, linear_state, predict, problem_of

from mtvision.core.naming import UnknownNameError
from mtvision.core.sample import Batch
from mtvision.merge import MergeError, TaskVectors, merge
from mtvision.merge.learned import concrete
from mtvision.merge.learned.atlas import division
from mtvision.merge.learned.mixture import LearnedCoefficients, Mixture
from mtvision.merge.learned.objective import Objective, entropy, log_probabilities, relative_error
from mtvision.merge.learned.tinting import imitation
from mtvision.protocols.tasks import edge, normals, saliency, values

LEARNED = ("adamerging", "atlas", "concrete", "tinting")
CPU = torch.device("cpu")


@pytest.fixture(params=[torch.float32, torch.float64], ids=str)
def dtype(request):
    return request.param


@pytest.fixture
def base():
    return linear_state(0)


@pytest.fixture
def parents(base):
    return {name: linear_state(seed, near=base) for seed, name in enumerate(NAMES, start=1)}


@pytest.fixture
def problem(parents):
    return problem_of(images(truth=parents["semseg"]))


@pytest.mark.parametrize("per", ["task", "layer"])
@pytest.mark.parametrize("kind", ["entropy", "parents", "labels"])
def test_gradients_of_coefficients_are_finite_differences(kind, per, base, parents, problem):
    vectors = TaskVectors(base, parents)
    lambdas = LearnedCoefficients(vectors, per, 0.3)
    mixture = Mixture(vectors, CPU)
    goal = Objective(problem, kind, mixture.parent, {"values": 0.5})
    batch = next(iter(problem.batches()))

    def loss(values):
        lambdas.values = values
        return goal(mixture.state(lambdas.scale, lambdas.shares), batch)

    assert lambdas.values.shape == (2, 3 if per == "layer" else 1, 1)
    start = lambdas.values.detach() + 0.1 * torch.arange(lambdas.values.numel()).reshape(lambdas.values.shape)
    assert torch.autograd.gradcheck(loss, start.requires_grad_())


@pytest.mark.parametrize("rescale", ["tensors", "network"])
def test_gradients_of_mask_logits_are_finite_differences(rescale, base, parents, problem):
    vectors = TaskVectors(base, parents)
    lambdas, mixture = LearnedCoefficients(vectors, "task", 0.3), Mixture(vectors, CPU)
    goal = Objective(problem, "entropy", mixture.parent)
    masks = concrete._Masks(mixture.shapes, 0.5, rescale, 0)
    drawn, batch = masks.drawn(), next(iter(problem.batches()))

    def loss(*logits):
        masks.logits = dict(zip(mixture.shapes, logits, strict=True))
        return goal(mixture.state(concrete._masked(lambdas, masks.of(drawn)), lambdas.shares), batch)

    assert torch.autograd.gradcheck(loss, tuple(masks.logits.values()))


@pytest.mark.parametrize("method", LEARNED)
def test_without_a_step_nothing_changes(method, dtype):
    """The result is that of task arithmetic with the first coefficients, to the last bit."""
    base = linear_state(0, dtype=dtype)
    parents = {name: linear_state(seed, near=base, dtype=dtype) for seed, name in enumerate(NAMES, start=1)}
    problem = problem_of([], dtype=dtype)
    scale = 0.0 if method == "atlas" else 0.3
    found = merge(method, base, parents, problem=problem, steps=0)
    expected = merge("task_arithmetic", base, parents, scale=scale)
    own = {name: item for state in problem.own.values() for name, item in state.items()}
    for name, item in found.items():
        assert torch.equal(item, {**expected, **own}[name]), name
        assert item.dtype == {**expected, **own}[name].dtype
    assert (found.keys() - expected.keys()) == (set(own) if method == "tinting" else set())


@pytest.mark.parametrize("method", LEARNED)
def test_what_is_minimised_falls(method, base, parents, problem):
    kinds = {"atlas": "labels", "tinting": "parents"}
    options = {"problem": problem, "lr": 0.02}
    start, found = (merge(method, base, parents, steps=steps, **options) for steps in (0, 30))
    mixture = Mixture(TaskVectors(base, parents), CPU)
    goal = Objective(problem, kinds.get(method, "entropy"), mixture.parent)
    before, after = (
        sum(float(goal(state, batch)) for batch in problem.batches()) for state in (start, found)
    )
    assert after < before - 0.01
    assert problem.record["updates"] == (60 if method == "tinting" else 30)
    assert len(problem.record["losses"]) == min(50, problem.record["updates"])
    coefficients = problem.record["coefficients"]
    layers = ["mix.weight", "mix.bias", "out.weight"]
    assert {task: list(per) for task, per in coefficients.items()} == dict.fromkeys(NAMES, layers)


@pytest.mark.parametrize("method", LEARNED)
def test_seeds_decide(method, base, parents, problem):
    first, again = (merge(method, base, parents, problem=problem, steps=3) for _ in range(2))
    assert all(torch.equal(item, again[name]) for name, item in first.items())
    if method in ("concrete", "tinting"):
        seeds = [merge(method, base, parents, problem=problem, steps=3, seed=seed) for seed in range(4)]
        assert len({tuple(item["mix.weight"].flatten().tolist()) for item in seeds}) > 1


def rows(state, batch, names):
    """A linear network: every task reads one row of the shared weight."""
    logits = torch.einsum("oc,bchw->bohw", state["w"], batch.image)
    maps = {name: logits[:, row : row + 1] for row, name in enumerate(("a", "b"))}
    return {name: maps[name] * state.get(f"heads.{name}.scale", 1.0) for name in names}


ROWS = tuple(replace(values(), name=name) for name in ("a", "b"))


def test_atlas_finds_the_coefficients_of_the_labels():
    stream = torch.Generator().manual_seed(3)
    base, one, two = ({"w": torch.randn(2, 3, generator=stream, dtype=torch.float64)} for _ in range(3))
    parents = {"a": one, "b": two}
    truth = merge("task_arithmetic", base, parents, scale={"a": 0.7, "b": 0.2})
    batches = images(count=4)
    for batch in batches:
        batch.labels.update(rows(truth, batch, ("a", "b")))
    problem = problem_of(batches, predict=rows, tasks=ROWS)
    found = merge("atlas", base, parents, problem=problem, steps=400, lr=0.005)
    assert problem.record["coefficients"]["a"]["*"] == pytest.approx(0.7, abs=0.02)
    assert problem.record["coefficients"]["b"]["*"] == pytest.approx(0.2, abs=0.02)
    torch.testing.assert_close(found["w"], truth["w"], rtol=0, atol=0.05)


def apart():
    """A base and two parents, each of which changes the row of its own task only."""
    base = {"w": torch.zeros(2, 3, dtype=torch.float64)}
    own = torch.tensor([[1.0, -2.0, 0.5], [0.3, 1.0, 2.0]], dtype=torch.float64)
    parents = {
        name: {"w": own * torch.eye(2, dtype=torch.float64)[:, [row]]} for row, name in enumerate("ab")
    }
    return base, parents, own


def test_adamerging_finds_the_parents_where_they_do_not_interfere():
    base, parents, own = apart()
    problem = problem_of(images(count=4), predict=rows, tasks=ROWS)
    found = merge("adamerging", base, parents, problem=problem, per="task", steps=300, lr=0.01)
    torch.testing.assert_close(found["w"], own, rtol=0, atol=0.05)
    assert problem.record["coefficients"]["b"]["*"] == pytest.approx(1.0, abs=0.02)


def test_a_mask_drops_what_disturbs():
    """Parent a also changes an entry that task b reads and does not need."""
    base, parents, _ = apart()
    parents["a"]["w"] = torch.tensor([[1.0, -2.0, 0.5], [0.0, 0.0, 2.0]], dtype=torch.float64)
    parents["b"]["w"] = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.5, 0.0]], dtype=torch.float64)
    problem = problem_of(images(count=4), predict=rows, tasks=ROWS)
    options = {"per": "task", "scale": 1.0, "steps": 150, "lr": 0.05, "coefficient_lr": 1e-9}
    found = merge("concrete", base, parents, problem=problem, objective="parents", **options)["w"]
    mask = found / merge("task_arithmetic", base, parents, scale=1.0)["w"]
    low, high = problem.record["mask_range"]
    assert float(mask[1, 2]) == pytest.approx(low)
    assert low < 0.5
    assert float(mask.flatten()[:5].min()) > 2 * low
    assert float(mask.max()) == pytest.approx(high)


def test_tinting_learns_heads_with_the_coefficients():
    base, parents, own = apart()
    problem = problem_of(images(count=4), predict=rows, tasks=ROWS)
    given = {task: dict(state) for task, state in problem.own.items()}
    found = merge("tinting", base, parents, problem=problem, scale=0.5, steps=150, lr=1e-3)
    scales = torch.stack([found["heads.a.scale"], found["heads.b.scale"]])
    torch.testing.assert_close(scales[:, None] * found["w"], own, rtol=0, atol=0.1)
    assert float(scales.min()) > 1.2
    assert given == {task: dict(state) for task, state in problem.own.items()}
    assert problem.record["tuned"] == ["heads.a.scale", "heads.b.scale"]


def test_coefficients_outside_0_and_1_learn_unless_asked_otherwise(base, parents, problem):
    """The authors' code cuts coefficients off, which stops their gradient: `limits="unit"`."""
    options = {"problem": problem, "scale": 1.5, "steps": 3, "lr": 0.1}
    free = merge("adamerging", base, parents, **options)
    cut = merge("adamerging", base, parents, limits="unit", **options)
    one = merge("task_arithmetic", base, parents, scale=1.0)
    assert all(torch.equal(item, one[name]) for name, item in cut.items())
    assert not torch.equal(
        free["mix.weight"], merge("task_arithmetic", base, parents, scale=1.5)["mix.weight"]
    )


def test_partitions_move_vectors_too_and_differ_between_equal_shapes(base, parents, problem):
    """The authors' code moves matrices only and shares one division per shape."""
    found = merge("atlas", base, parents, problem=problem, steps=5, partitions=2)
    assert all(not torch.equal(found[name], base[name]) for name in ("mix.weight", "mix.bias", "out.weight"))
    shape = torch.Size((50,))
    assert not torch.equal(division(0, "a", shape, 2), division(0, "b", shape, 2))
    assert not torch.equal(division(0, "a", shape, 2), division(1, "a", shape, 2))
    assert len(problem.record["coefficients"]["semseg"]["mix.bias"]) == 2


def test_masks_of_single_numbers():
    """Divided by the mean of its tensor, a single number always has the mask 1."""
    shapes = {"scale": torch.zeros(()), "w": torch.zeros(9)}
    for rescale, is_one in (("tensors", True), ("network", False)):
        masks = concrete._Masks(shapes, 0.5, rescale, 0)
        found = masks.of(masks.drawn())
        assert (found["scale"].item() == 1.0) == is_one
        plain = masks.of(None)
        assert all(torch.equal(item, torch.ones_like(item)) for item in plain.values())


def test_relaxed_masks_are_their_formula():
    masks = concrete._Masks({"w": torch.zeros(5, dtype=torch.float64)}, 0.5, "tensors", 4)
    masks.logits["w"].data += torch.linspace(-1, 1, 5, dtype=torch.float64)
    u = torch.rand(5, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    raw = torch.sigmoid((u.logit() + masks.logits["w"]) / 0.5)
    torch.testing.assert_close(masks.of(masks.drawn())["w"], raw / raw.mean(), rtol=1e-12, atol=0)


def test_one_logit_and_two_have_one_entropy():
    logit = torch.randn(2, 1, 3, 3, dtype=torch.float64)
    single = log_probabilities(edge(), logit)
    double = log_probabilities(saliency(), torch.cat([torch.zeros_like(logit), logit], dim=1))
    torch.testing.assert_close(single, double)
    assert 0 < float(entropy(single)) < 0.6932
    assert log_probabilities(values(), logit) is None


def test_the_surrogate_has_no_unit():
    logits, wanted = torch.randn(2, 2, 1, 4, 4, dtype=torch.float64)
    first = relative_error(values(), logits, wanted)
    torch.testing.assert_close(relative_error(values(), 100 * logits, 100 * wanted), first)
    assert float(relative_error(values(), wanted, wanted)) == 0.0
    vectors = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    assert float(relative_error(normals(), 5 * vectors, vectors)) < 1e-12
    flat = torch.ones(1, 1, 2, 2)
    assert bool(relative_error(values(), flat, flat).isfinite())


def test_agreement_leaves_out_pixels(problem):
    """Of three pixels the networks agree, or the parent is the more confident, in two."""
    merged = torch.tensor([[2.0, 0.0, 0.0], [3.0, 0.0, 0.0], [1.0, 0.0, 0.0]]).T[None, :, None]
    wanted = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 5.0, 0.0]]).T[None, :, None]
    each = -torch.log_softmax(merged, dim=1)[0, [0, 1, 1], 0, [0, 1, 2]]
    whole = imitation(problem, "semseg", merged, wanted, "all")
    part = imitation(problem, "semseg", merged, wanted, "agreeing")
    torch.testing.assert_close(whole, each.mean())
    torch.testing.assert_close(part, each[[0, 2]].mean())


@pytest.mark.parametrize("method", LEARNED)
def test_what_cannot_be_learned_from(method, base, parents, problem):
    with pytest.raises(MergeError, match=f"{method} learns from images"):
        merge(method, base, parents)
    with pytest.raises(MergeError, match="one parent per task: parents are semseg, tasks are semseg, values"):
        merge(method, base, {"semseg": parents["semseg"]}, problem=problem)
    with pytest.raises(MergeError, match="no held-out image"):
        merge(method, base, parents, problem=problem_of([]), steps=1)
    broken = [Batch(item.image * torch.nan, item.labels, item.present, item.meta) for item in images()]
    for item, labelled in zip(broken, problem.batches(), strict=True):
        item.labels.update(labelled.labels)
    with pytest.raises(MergeError, match=f"{method}: the loss of step 1 is nan. Use a lower"):
        merge(method, base, parents, problem=problem_of(broken), steps=1)


def test_names_that_do_not_exist(base, parents, problem):
    with pytest.raises(UnknownNameError, match="Unknown task in weights 'valeus'. Did you mean 'values'"):
        merge("adamerging", base, parents, problem=problem, weights={"valeus": 2.0})
    with pytest.raises(MergeError, match=r"layers: 'head.\*' matches no tensor. Did you mean .*heads"):
        merge("tinting", base, parents, problem=problem, layers=["head.*"])
    with pytest.raises(MergeError, match="match no tensor of values"):
        merge("tinting", base, parents, problem=problem, layers=["heads.semseg.*"])


def test_labels_that_are_absent_change_nothing(base, parents):
    found = merge("atlas", base, parents, problem=problem_of(images()), steps=2)
    assert torch.equal(found["mix.weight"], base["mix.weight"])


def test_the_mixture_is_what_merge_tensors_makes(base, parents):
    """Learning and the result see one network, statistics and counters included."""
    vectors = TaskVectors(base, parents)
    lambdas, mixture = (
        LearnedCoefficients(vectors, "layer", {"semseg": 0.4, "values": -0.2}),
        Mixture(vectors, CPU),
    )
    found = mixture.state(lambdas.scale, lambdas.shares)
    expected = merge("task_arithmetic", base, parents, scale={"semseg": 0.4, "values": -0.2})
    assert found.keys() == expected.keys()
    for name, item in found.items():
        torch.testing.assert_close(item.detach(), expected[name])
    for task, state in parents.items():
        for name, item in mixture.parent(task).items():
            if "batches" not in name:
                torch.testing.assert_close(item, state[name])


def test_predictions_are_those_of_the_problem(base):
    assert set(predict(base, images()[0], NAMES)) == {task.name for task in TASKS}

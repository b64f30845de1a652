"""Equality with slow loops written from the formulas, and relations between mergers."""

from __future__ import annotations

import merge_loops as loops
import pytest
import torch
from merge_states import random_state, weights

from mtvision.core.naming import UnknownNameError
from mtvision.core.registry import MERGERS
from mtvision.merge import MergeError, merge
from mtvision.ops.kth_largest import kth_largest
from mtvision.testing import check_merger

KEEP_ALL = {  # options with which a method keeps every entry of the sum of task vectors
    "task_arithmetic": {},
    "ties": {"density": 1.0},
    "dare": {"drop": 0.0},
    "breadcrumbs": {"keep": 1.0, "outliers": 0.0},
    "consensus": {"agreeing": 0},
    "average": {},
    "tall_masks": {"task": "semseg"},
    "emr": {"task": "semseg"},
}
PURE = [name for name in MERGERS if "problem" not in MERGERS.parameters(name)]
OF_A_TASK = [name for name in PURE if "task" in MERGERS.parameters(name)]
ADDITIVE = ["task_arithmetic", "dare", "breadcrumbs", "consensus"]


def identical(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        if value.dtype == torch.float64:  # arithmetic is not finer than that
            torch.testing.assert_close(value, other[name], rtol=1e-12, atol=1e-13)
        assert torch.equal(value, other[name]) or value.dtype == torch.float64, name
        assert value.dtype == other[name].dtype, name


def close(one, other, rtol=1e-6):
    for name, value in weights(other).items():
        torch.testing.assert_close(
            one[name], value, rtol=rtol, atol=1e-7, msg=lambda text, n=name: f"{n}: {text}"
        )


def from_entries(base, places, entries):
    """The base plus entries at places, as a state of weights."""
    found = {name: item.clone().double() for name, item in weights(base).items()}
    for (name, index), value in zip(places, entries, strict=True):
        found[name].view(-1)[index] += value
    return {name: item.to(base[name].dtype) for name, item in found.items()}


def test_every_method_is_tested_here():
    assert set(PURE) == set(KEEP_ALL)


@pytest.mark.parametrize("method", PURE)
def test_identities_hold_in_double_precision(method):
    """Those of single precision are in tests/testing/test_batteries.py, for mergers that learn too."""
    keep_all = {name: value for name, value in KEEP_ALL[method].items() if name != "task"}
    check_merger(MERGERS[method], dtype=torch.float64, keep_all=keep_all).raise_if_failed()


@pytest.mark.parametrize("method", ADDITIVE)
def test_keeping_all_is_task_arithmetic(method, base, parents):
    merged = merge(method, base, parents, **KEEP_ALL[method], scale=0.7)
    identical(merged, merge("task_arithmetic", base, parents, scale=0.7))


def test_average_is_the_mean(base, parents):
    mean = {
        name: torch.stack([state[name] for state in parents.values()]).double().mean(dim=0).to(item.dtype)
        for name, item in base.items()
        if item.is_floating_point()
    }
    merged = merge("average", base, parents)
    for name, item in mean.items():
        torch.testing.assert_close(merged[name], item, rtol=1e-6, atol=1e-7)
    third = merge("task_arithmetic", base, parents, scale=1 / 3)
    close(third, merged)


def test_average_by_weights(base, parents):
    merged = merge("average", base, parents, weights={"semseg": 3, "depth": 0, "edge": 1})
    expected = {n: 0.75 * parents["semseg"][n] + 0.25 * parents["edge"][n] for n in weights(base)}
    close(merged, expected, rtol=1e-5)


@pytest.mark.parametrize("density", [0.0, 0.1, 0.2, 0.55, 1.0])
@pytest.mark.parametrize(
    "options",
    [{}, {"combine": "sum"}, {"one_more": True}, {"zero_sum": "majority"}],
    ids=str,
)
def test_ties_is_its_formula(base, parents, density, options):
    places, _, vectors = loops.deltas(base, parents)
    entries = [0.6 * value for value in loops.ties(vectors, density, **options)]
    merged = merge("ties", base, parents, density=density, scale=0.6, **options)
    close(merged, from_entries(base, places, entries))


def test_ties_where_entries_cancel():
    base = {"w": torch.zeros(3)}
    parents = {"a": {"w": torch.tensor([0.5, 1.0, 2.0])}, "b": {"w": torch.tensor([-0.5, 1.0, 2.0])}}
    zero = merge("ties", base, parents, density=1.0)
    majority = merge("ties", base, parents, density=1.0, zero_sum="majority")
    assert zero["w"].tolist() == [0.0, 1.0, 2.0]
    assert majority["w"].tolist() == [0.5, 1.0, 2.0]


def test_dare_keeps_its_share_and_its_mean(base):
    big = {"w": torch.zeros(20000)}
    child = {"w": torch.ones(20000)}
    merged = merge("dare", big, {"a": child}, drop=0.9, scale=1.0)["w"]
    assert set(merged.tolist()) == {0.0, torch.tensor(1 / (1 - 0.9)).item()}
    assert 0.09 < float((merged > 0).float().mean()) < 0.11
    again = merge("dare", big, {"a": child}, drop=0.9, scale=1.0)["w"]
    other = merge("dare", big, {"a": child}, drop=0.9, scale=1.0, seed=1)["w"]
    assert torch.equal(merged, again)
    assert not torch.equal(merged, other)
    both = merge("dare", big, {"a": child, "b": child}, drop=0.9, scale=1.0)["w"]
    assert len(set(both.tolist())) == 3  # parents drop different entries


@pytest.mark.parametrize(("keep", "outliers"), [(0.2, 0.1), (0.4, 0.0), (0.05, 0.3), (1.0, 0.5)])
def test_breadcrumbs_is_its_formula(base, parents, keep, outliers):
    places, _, vectors = loops.deltas(base, parents)
    entries = loops.breadcrumbs_of_tensors(places, vectors, keep, outliers)
    merged = merge("breadcrumbs", base, parents, keep=keep, outliers=outliers, scale=1.0)
    close(merged, from_entries(base, places, entries))
    entries = loops.breadcrumbs_of_rows(base, places, vectors, keep, outliers)
    merged = merge("breadcrumbs", base, parents, keep=keep, outliers=outliers, scale=1.0, axis="last")
    close(merged, from_entries(base, places, entries))


def test_breadcrumbs_of_rows_masks_whole_kernels_as_the_authors_code_does(base, parents):
    """And the default does not."""
    name = "stages.0.conv.weight"
    released = merge("breadcrumbs", base, parents, axis="last")
    assert torch.equal(released[name], base[name])
    assert not torch.equal(merge("breadcrumbs", base, parents)[name], base[name])


@pytest.mark.parametrize("of", ["sum", "ties"])
def test_tall_masks_and_consensus_are_their_formulas(base, parents, of):
    places, _, vectors = loops.deltas(base, parents)
    columns = list(zip(*vectors, strict=True))
    total = [sum(column) for column in columns] if of == "sum" else loops.ties(vectors, 0.2, "sum")
    limits = {"semseg": 0.2, "depth": 0.4, "edge": 0.6}
    masks = loops.tall(vectors, total, [limits[task] for task in sorted(limits)])
    for index, task in enumerate(sorted(limits)):
        entries = [value if on else 0.0 for on, value in zip(masks[index], total, strict=True)]
        merged = merge("tall_masks", base, parents, task=task, threshold=limits, of=of)
        close(merged, from_entries(base, places, entries))
        assert torch.equal(merged["stages.0.norm.running_var"], parents[task]["stages.0.norm.running_var"])
    for agreeing in (0, 1, 2, 3):
        used = [sum(column) >= agreeing for column in zip(*masks, strict=True)]
        entries = [0.3 * value if on else 0.0 for on, value in zip(used, total, strict=True)]
        merged = merge("consensus", base, parents, threshold=limits, agreeing=agreeing, of=of)
        close(merged, from_entries(base, places, entries))


def test_the_comparison_of_tall_masks_is_strict():
    parents = {"a": {"w": torch.tensor([1.0])}, "b": {"w": torch.tensor([2.0])}}
    merged = merge("tall_masks", {"w": torch.zeros(1)}, parents, task="a", threshold=0.5)
    assert merged["w"].tolist() == [0.0]


@pytest.mark.parametrize("zero_sum", ["zero", "negative"])
@pytest.mark.parametrize("rescale", ["entries", "tensors"])
def test_emr_is_its_formula(base, parents, zero_sum, rescale):
    balanced = "stages.1.scale"  # an entry at which task vectors add up to 0
    for task, value in {"semseg": 1.0, "depth": -1.0, "edge": 0.0}.items():
        parents[task][balanced] = base[balanced].round() + value
    base[balanced] = base[balanced].round()
    places, _, vectors = loops.deltas(base, parents)
    for index, task in enumerate(sorted(parents)):
        entries = loops.emr(places, vectors, index, zero_sum, rescale)
        merged = merge("emr", base, parents, task=task, zero_sum=zero_sum, rescale=rescale)
        close(merged, from_entries(base, places, entries))


@pytest.mark.parametrize("method", [name for name in PURE if "coefficients" in MERGERS.parameters(name)])
def test_coefficients_of_patterns(method, base, parents):
    """The tensors of a pattern are those of a merge with that scale; the first pattern wins."""
    first, second = "stages.0.*", "stages.*"
    options = KEEP_ALL[method]
    patterns = {first: 0.25, second: 0.5}
    merged = merge(method, base, parents, **options, coefficients=patterns)
    quarter = merge(method, base, parents, **options, coefficients={"*": 0.25})
    half = merge(method, base, parents, **options, coefficients={"*": 0.5})
    for name in base:
        other = quarter if name.startswith("stages.0.") else half
        assert torch.equal(merged[name], other[name])
    assert not torch.equal(quarter["stages.0.conv.weight"], half["stages.0.conv.weight"])


def test_coefficients_of_tasks(base, parents):
    scale = {"semseg": 0.5, "depth": 0.0, "edge": -0.25}
    merged = merge("task_arithmetic", base, parents, scale=scale, coefficients={"stages.1.*": 0.0})
    for name, item in weights(base).items():
        moved = sum(value * (parents[task][name] - item) for task, value in scale.items())
        expected = item if name.startswith("stages.1.") else item + moved
        torch.testing.assert_close(merged[name], expected, rtol=1e-5, atol=1e-6)


def test_variances_stay_positive(base, parents):
    for scale in (-1.0, 0.3, 5.0):
        merged = merge("task_arithmetic", base, parents, scale=scale)
        variances = torch.stack([s["stages.0.norm.running_var"] for s in (base, *parents.values())])
        found = merged["stages.0.norm.running_var"]
        assert bool((found >= variances.amin(dim=0) - 1e-6).all())
        assert bool((found <= variances.amax(dim=0) + 1e-6).all())


def test_half_precision_is_merged_in_double_and_rounded_once():
    base = random_state(0, dtype=torch.bfloat16)
    parents = {name: random_state(seed, near=base, dtype=torch.bfloat16) for seed, name in enumerate("ab", 1)}
    merged = merge("average", base, parents)
    exact = merge(
        "average",
        *({n: x.double() if x.is_floating_point() else x for n, x in base.items()},),
        {
            name: {n: x.double() if x.is_floating_point() else x for n, x in state.items()}
            for name, state in parents.items()
        },
    )
    for name, item in merged.items():
        assert torch.equal(item, exact[name].to(item.dtype)), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_kth_largest_is_that_of_a_sort(dtype):
    stream = torch.Generator().manual_seed(3)
    parts = [torch.randn(shape, generator=stream, dtype=dtype) for shape in ((50,), (3, 4, 5), ())]
    parts += [torch.zeros(7, dtype=dtype), torch.full((5,), 1e-30, dtype=dtype)]
    ordered = torch.cat([item.flatten() for item in parts]).abs().sort(descending=True).values
    for k in (1, 2, 10, 57, 100, 110, 111, 112, 113, 118, 122, 123):
        assert kth_largest(lambda: parts, k, dtype) == ordered[k - 1].item()
    assert kth_largest(lambda: parts, 0, dtype) == float("inf")
    with pytest.raises(ValueError, match="k is 124, but there are 123 numbers"):
        kth_largest(lambda: parts, 124, dtype)


def without(state, name):
    return {key: item for key, item in state.items() if key != name}


NAN = torch.full((4,), torch.nan)
WRONG = {
    "no parents": (lambda b: {}, {}, "at least one parent"),
    "missing": (
        lambda b: {"a": without(b, "stages.1.scale")},
        {},
        r"1 tensors are missing \(stages.1.scale\)",
    ),
    "more": (lambda b: {"a": {**b, "x": b["stages.1.scale"]}}, {}, r"1 are unknown to the base \(x\)"),
    "shape": (
        lambda b: {"a": {**b, "stages.0.norm.bias": torch.ones(5)}},
        {},
        r"stages.0.norm.bias: shape \(5,\)",
    ),
    "kind": (
        lambda b: {"a": {**b, "stages.1.index": torch.ones(6)}},
        {},
        "stages.1.index: torch.float32 in parent",
    ),
    "whole": (
        lambda b: {"a": b, "b": {**b, "stages.1.index": torch.zeros(6, dtype=torch.int64)}},
        {},
        "stages.1.index: the whole numbers of the parents differ",
    ),
    "nan": (
        lambda b: {"a": {**b, "stages.0.norm.bias": NAN}},
        {},
        "stages.0.norm.bias: parent 'a' has values that are NaN",
    ),
    "pattern": (
        lambda b: {"a": b},
        {"coefficients": {"stage.0.*": 1}},
        r"'stage.0.\*' matches no tensor. Did you mean .*'stages.0.\*'",
    ),
    "far pattern": (
        lambda b: {"a": b},
        {"coefficients": {"q": 1}},
        "'q' matches no tensor. Names begin with stages",
    ),
    "no coefficient": (lambda b: {"a": b, "b": b}, {"scale": {"a": 1}}, "scale has no coefficient of b"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_does_not_fit_is_refused_in_one_line(what):
    base = random_state(0)
    make, options, message = WRONG[what]
    with pytest.raises(MergeError, match=message) as error:
        merge("task_arithmetic", base, make(base), **options)
    assert "\n" not in str(error.value)


def test_names_that_do_not_exist(base, parents):
    with pytest.raises(UnknownNameError, match="Unknown merger 'tie'. Did you mean 'ties'"):
        merge("tie", base, parents)
    with pytest.raises(UnknownNameError, match="Unknown ties argument 'densty'. Did you mean 'density'"):
        merge("ties", base, parents, densty=0.2)
    with pytest.raises(UnknownNameError, match="Unknown task in scale 'dept'. Did you mean 'depth'"):
        merge("task_arithmetic", base, parents, scale={"dept": 1, "semseg": 1, "edge": 1})
    for method in OF_A_TASK:
        with pytest.raises(UnknownNameError, match="Unknown parent 'dept'. Did you mean 'depth'"):
            merge(method, base, parents, task="dept")


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("dare", {"drop": 1.0}),
        ("dare", {"drop": -0.1}),
        ("ties", {"density": 1.5}),
        ("breadcrumbs", {"keep": -1.0}),
        ("breadcrumbs", {"outliers": 1.5}),
        ("average", {"weights": {"semseg": 0, "depth": 0, "edge": 0}}),
        ("average", {"weights": {"semseg": -1, "depth": 2, "edge": 2}}),
        ("ties", {"coefficients": {"*": {"semseg": 1, "depth": 0, "edge": 0}}}),
    ],
    ids=str,
)
def test_options_out_of_range(method, options, base, parents):
    with pytest.raises(MergeError):
        merge(method, base, parents, **options)


@pytest.mark.parametrize("method", KEEP_ALL)
def test_pieces_and_memory_formats_change_nothing(method, base, parents, monkeypatch):
    """Large tensors are merged in pieces; convolutions may be stored channels last."""
    options = {"task": "depth"} if method in OF_A_TASK else {}
    expected = merge(method, base, parents, **options)
    monkeypatch.setattr("mtvision.merge.vectors.PIECE", 5)
    name = "stages.0.conv.weight"
    states = [dict(base), *(dict(state) for state in parents.values())]
    for state in states:
        state[name] = state[name].contiguous(memory_format=torch.channels_last)
    found = merge(method, states[0], dict(zip(parents, states[1:], strict=True)), **options)
    close(found, expected)
    assert found[name].shape == expected[name].shape

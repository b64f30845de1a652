"""How batteries run and report, on a small battery of numbers."""

from __future__ import annotations

import pytest
import torch

from mtvision.core.naming import UnknownNameError
from mtvision.testing import Battery, PropertyError
from mtvision.testing.numbers import TOLERANCES, close, same

NUMBERS: Battery[float] = Battery("number", call="check_number(value, only=['{name}'])")


@NUMBERS.property(look="value > 0")
def is_positive(case: float) -> None:
    """The number is above zero.

    More detail.
    """
    if case <= 0:
        raise PropertyError(f"the number is {case}.")


@NUMBERS.property(look="1 / value")
def has_an_inverse(case: float) -> None:
    """The number has an inverse."""
    assert 1 / case


def test_a_report_lists_what_passed_failed_and_was_skipped():
    report = NUMBERS.run("minus one", -1.0, skip={})
    assert (report.passed, report.failed) == (("has_an_inverse",), {"is_positive": "the number is -1.0."})
    assert not report.ok
    skipped = NUMBERS.run("minus one", -1.0, skip={"is_positive": "it is a debt"})
    assert (skipped.ok, skipped.skipped) == (True, {"is_positive": "it is a debt"})
    skipped.raise_if_failed()
    assert NUMBERS.run("one", 1.0, only=["is_positive"]).passed == ("is_positive",)


def test_a_failure_says_what_was_claimed_found_and_how_to_look():
    with pytest.raises(PropertyError) as caught:
        NUMBERS.run("minus one", -1.0).raise_if_failed()
    assert str(caught.value).splitlines() == [
        "number minus one: 1 passed, 1 failed, 0 skipped",
        "  is_positive: failed",
        "    claim: The number is above zero.",
        "    found: the number is -1.0.",
        "    look:  value > 0",
        "           check_number(value, only=['is_positive'])",
        "  has_an_inverse: passed",
    ]


def test_what_the_class_raises_is_the_finding():
    report = NUMBERS.run("zero", 0.0)
    assert report.failed["has_an_inverse"] == "ZeroDivisionError: float division by zero"
    with pytest.raises(PropertyError) as caught:
        NUMBERS.run("zero", 0.0, only=["has_an_inverse"]).raise_if_failed()
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_names_and_reasons_are_checked():
    with pytest.raises(UnknownNameError, match="Did you mean 'is_positive'"):
        NUMBERS.run("one", 1.0, only=["is_positiv"])
    with pytest.raises(UnknownNameError, match="property of the number battery 'x'"):
        NUMBERS.run("one", 1.0, skip={"x": "because"})
    with pytest.raises(ValueError, match=r"skip\['is_positive'\] needs a reason"):
        NUMBERS.run("one", 1.0, skip={"is_positive": " "})


def test_a_property_needs_a_claim_and_a_name_of_its_own():
    battery: Battery[int] = Battery("x")
    with pytest.raises(ValueError, match="'silent' needs a docstring"):

        @battery.property(look="")
        def silent(case: int) -> None: ...


def test_comparisons_say_where_and_how_much():
    zeros = torch.zeros(2, 3)
    other = zeros.clone()
    other[1, 2] = 0.5
    same(zeros, zeros.clone(), "map")
    with pytest.raises(PropertyError, match=r"map: 0.5 at \(1, 2\), expected 0; difference 0.5"):
        same(other, zeros, "map")
    with pytest.raises(PropertyError, match=r"map: shape \(2, 3\), expected \(3, 2\)"):
        close(zeros, zeros.T, "map")
    with pytest.raises(PropertyError, match="map: dtype torch.float32, expected torch.float64"):
        same(zeros, zeros.double(), "map")
    nan = torch.tensor([torch.nan, 1.0])
    same(nan, nan.clone(), "map")
    with pytest.raises(PropertyError, match="difference inf"):
        close(nan, torch.zeros(2), "map")


@pytest.mark.parametrize("dtype", list(TOLERANCES))
def test_tolerances_are_shares_of_the_size(dtype):
    want = torch.tensor([1000.0, -1000.0], dtype=torch.float64)
    close(want + 900 * TOLERANCES[dtype], want, "map", dtype)
    with pytest.raises(PropertyError):
        close(want + 1200 * TOLERANCES[dtype], want, "map", dtype)

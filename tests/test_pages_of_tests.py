"""Pages that tests make: every marked test has its row, and every row a test."""

from __future__ import annotations

import re
from pathlib import Path

import outcomes
import pytest
from collected import COLLECTED
from conformance import ADAPTED, BATTERY, GROUPS, PROPERTIES, REST, cells_of, filled, method_of
from outcomes import MATRIX, Row, page_of, rows_in_page, rows_of, words_of

ROOT = Path(__file__).parents[1]
PAGES = {"fault": "reliability.md", "problem": "data_problems.md"}
FAULT = ("a disk | full", "the record is kept")


def test_outcomes_are_counted():
    rows = [
        Row(FAULT, ["passed", "passed"]),
        Row(("b", "x"), ["passed", "failed"]),
        Row(("c", "y"), ["skipped"]),
    ]
    text = page_of("fault", rows)
    assert "| a disk \\| full | the record is kept | as said, 2 tests |\n" in text
    assert "| b | x | 1 of 2 tests failed |\n| c | y | not tried here |\n" in text
    assert rows_in_page(text) == {FAULT, ("b", "x"), ("c", "y")}
    with_figures = page_of("fault", rows, ["12 kills."])
    assert with_figures == f"{text}\n## Measured in the last run\n\n12 kills.\n"


def test_problems_stand_under_their_kind():
    rows = [Row(("values", "b", "x"), ["passed"]), Row(("ids", "a", "y"), ["passed"])]
    text = page_of("problem", rows)
    assert text.index("## What a value means") < text.index("| b | x | as said, 1 test |")
    assert text.index("| b |") < text.index("## Many classes") < text.index("| a | y |")


def test_words_of_markers_are_checked():
    mark = pytest.mark.fault
    assert words_of(mark("a", expected="b").mark) == ("a", "b")
    for wrong in (mark("a"), mark("a", "b", "c"), mark("a", expect="b"), mark("a", expected="")):
        with pytest.raises(ValueError, match="marker fault: found"):
            words_of(wrong.mark)
    with pytest.raises(ValueError, match="the kind 'x' is none of values"):
        words_of(pytest.mark.problem("x", "a", "b").mark)


def test_a_run_writes_its_page(pytester):
    pytester.makepyfile(
        """
        import pytest
        @pytest.mark.parametrize("n", [0, 1])
        @pytest.mark.fault("a", expected="b")
        def test_a(n, record_property):
            record_property("measured", f"{n} kills")
            assert n == 0
        def test_other(): pass
        """
    )
    pytester.makeini("[pytest]\nmarkers = fault: x")
    pytester.inline_run("--page", "fault=page.md", plugins=[outcomes])
    text = (pytester.path / "page.md").read_text()
    assert "| a | b | 1 of 2 tests failed |\n" in text
    assert text.endswith("\n0 kills\n\n1 kills\n")


def test_cells_are_outcomes_of_the_tests_that_name_them(pytester):
    pytester.makepyfile(
        """
        import pytest
        @pytest.mark.parametrize("decoder", ["InvPTDecoder", "mlore/x"])
        @pytest.mark.conformance("{decoder}", "bf16", "export")
        def test_a(decoder):
            assert decoder == "InvPTDecoder"
        @pytest.mark.conformance("UPGrad", "resume")
        def test_b(): pytest.skip("no")
        """
    )
    pytester.makeini("[pytest]\nmarkers = conformance: x")
    pytester.inline_run("--page", "conformance=page.md", plugins=[outcomes])
    text = (pytester.path / "page.md").read_text()
    assert "| method | export | bf16 |" in text
    assert "| InvPT | 1 | 1 |" in text
    assert "| MLoRE | **1 of 1 failed** | **1 of 1 failed** |" in text
    assert "| UPGrad | not tried |" in text
    cells = {("Decoders", name, column) for name in ("InvPT", "MLoRE") for column in ("bf16", "export")}
    assert filled(text) == {*cells, (REST, "UPGrad", "resume")}


def test_words_of_cells_are_checked():
    assert cells_of("{kind} x", ["bf16"], {"kind": "y"}) == [(REST, "y x", "bf16")]
    assert method_of("MixtureOfExperts-orthogonal") == (ADAPTED, "M³ViT")
    assert method_of("TADFormer-dynamic") == (ADAPTED, "TADFormer")  # found in the registry, as any adapter
    for wrong in (["bf17"], []):
        with pytest.raises(ValueError, match="marker conformance: found the properties"):
            cells_of("a", wrong, {})
    assert set(BATTERY.values()) <= set(PROPERTIES)
    names = [name for group in GROUPS.values() for names in group.values() for name in names]
    assert len(set(names)) == len(names)


def test_every_problem_with_data_was_tried_with_two_variations():
    text = (ROOT / "docs" / PAGES["problem"]).read_text()
    counts = [int(count) for count in re.findall(r"\| as said, (\d+) tests? \|", text)]
    assert len(counts) == len(rows_in_page(text)) > 70
    assert min(counts) >= 3


@pytest.fixture
def collected(request):
    """All tests; collecting is left to the session, so these tests say where it has not all of them."""
    if request.config.args_source.name == "ARGS":
        pytest.skip("only a run without paths knows all markers")
    return request.config.stash[COLLECTED]


@pytest.mark.slow
@pytest.mark.parametrize("marker", PAGES)
def test_pages_are_current(marker, collected):
    found = {words_of(mark)[-2:] for item in collected for mark in item.iter_markers(marker)}
    assert rows_in_page((ROOT / "docs" / PAGES[marker]).read_text()) == found


@pytest.mark.slow
def test_the_matrix_is_current(collected):
    """A cell that is filled has a test, and a test that is not long has its cell."""
    quick = [item for item in collected if not item.get_closest_marker("long")]
    found = {cell for item in quick for cell in rows_of(item, MATRIX)}
    assert filled((ROOT / "docs" / "conformance.md").read_text()) == found

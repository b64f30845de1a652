"""The parts of mutation testing that decide what is sampled, what is run and what is counted."""

from __future__ import annotations

import ast
from dataclasses import replace

import pytest
from mutation.candidates import Candidate, Places
from mutation.judge import Judge
from mutation.plan import chunks
from mutation.reach import Cost, Reach, lines_of, merge
from mutation.sample import quotas, sample
from mutation.session import (
    Equivalent,
    Result,
    Session,
    changed_lines,
    code_digest,
    read_equivalents,
    split,
)
from mutation.summary import count, markdown


def candidate(number: int, module: str = "mtvision/losses/a.py", operator: str = "Number") -> Candidate:
    return Candidate(module, "f", number, 4, f"x = {number}", 0, operator, 0)


def result(number: int, outcome: str = "killed", **other: object) -> Result:
    one = Result(
        str(number), "mtvision/losses/a.py", number, "Number", f"x = {number}", f"x = {number + 1}", "s"
    )
    return replace(one, outcome=outcome, **other)


MODULES = {
    "mtvision/losses/a.py": [candidate(number) for number in range(1, 31)],
    "mtvision/metrics/b.py": [candidate(number, "mtvision/metrics/b.py") for number in range(1, 4)],
    "mtvision/metrics/c.py": [],
}


def test_the_sample_depends_on_the_seed_alone():
    first, again, other = (sample(MODULES, 12, seed) for seed in (0, 0, 1))
    assert first == again != other
    assert len(first) == len({one.id for one in first}) == 12
    assert {one.module for one in first} == {name for name, found in MODULES.items() if found}


def test_an_edit_moves_only_the_changes_near_it():
    """Ten lines above shift every line number; one changed line can replace at most one change."""
    shifted = [replace(one, line=one.line + 10) for one in MODULES["mtvision/losses/a.py"]]
    assert [one.id for one in sample({"a": shifted}, 8, 0)] == [
        one.id for one in sample({"a": MODULES["mtvision/losses/a.py"]}, 8, 0)
    ]
    edited = [replace(shifted[0], text="y = 1"), *shifted[1:]]
    before, after = ({one.id for one in sample({"a": found}, 8, 0)} for found in (shifted, edited))
    assert len(before - after) <= 1


def test_a_place_is_changed_once_and_only_to_a_valid_program():
    options = [candidate(1, operator=f"Binary_Add_{name}") for name in ("Sub", "Mul", "Div")]
    taken = sample({"a": options}, 3, 0, lambda one: one.operator.endswith("Mul"))
    assert [one.operator for one in taken] == ["Binary_Add_Mul"]


def test_quotas_add_up():
    shares = quotas({"a": 7, "b": 1, "c": 100, "d": 13}, 40)
    assert sum(shares.values()) == 40
    assert all(1 <= shares[name] <= count for name, count in {"a": 7, "b": 1, "c": 100, "d": 13}.items())
    assert quotas({"a": 2, "b": 1}, 40) == {"a": 2, "b": 1}


SOURCE = '''"""Doc."""
from typing import TYPE_CHECKING

LIMIT = 1 + 2


@dataclass
class Thing:
    size: int | None = 3

    def grow(self, by: int | None = 4, *, twice=5 * 6) -> int | None:
        if by is None:
            raise ValueError(f"{self.size + 1} is too small")
        return (self.size
                + by)

    def rest(self):
        return 7


@functools.cache
def table(size):
    return list(size)
'''


@pytest.mark.parametrize(
    ("text", "matters"),
    [
        ("1 + 2", True),
        ("int | None = 3", False),
        ("= 3", True),
        ("int | None = 4", False),
        ("= 4", True),
        ("5 * 6", True),
        ("-> int | None", False),
        ("self.size + 1", False),
        ("@dataclass", False),
        ("7", True),
    ],
)
def test_what_cannot_matter_is_left_alone(text, matters):
    line = next(number for number, one in enumerate(SOURCE.splitlines(), 1) if text in one)
    column = SOURCE.splitlines()[line - 1].index(text) + (3 if text.startswith("->") else 0)
    assert Places(SOURCE).matters((line, column)) == matters


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("LIMIT", 1, 23),
        ("size: int", 8, 18),
        ("twice", 12, 15),
        ("by is None", 12, 12),
        ("+ by", 14, 15),
        ("list(size)", 1, 23),
    ],
)
def test_lines_that_show_that_a_statement_ran(text, first, last):
    """Default values belong to the body of their function, attributes to their class, kept results to all."""
    line = next(number for number, one in enumerate(SOURCE.splitlines(), 1) if text in one)
    found = lines_of(SOURCE, line)
    assert (found.start, found.stop - 1) == (first, last)


def test_cosmic_ray_makes_what_was_announced():
    pytest.importorskip("cosmic_ray")
    from mutation.candidates import candidates, mutated

    found = candidates("mtvision/losses/thing.py", SOURCE)
    assert not any(one.text.startswith(("raise", "@", '"""', "from")) for one in found)
    by_number = next(one for one in found if one.text == "return 7")
    text = mutated(by_number, SOURCE)
    ast.parse(text)
    assert changed_lines(SOURCE, text) in {("return 7", "return 8"), ("return 7", "return 6")}
    products = [one for one in found if "_Mul_" in one.operator]
    assert {one.text for one in products} == {
        "def grow(self, by: int | None = 4, *, twice=5 * 6) -> int | None:"
    }
    assert len({one.column for one in products}) == 1, "the bare * of keyword-only parameters is no product"


def reach() -> Reach:
    tests = {"t/a.py::fast": Cost(0.1, False), "t/a.py::long": Cost(9, False), "t/b.py::slow": Cost(3, True)}
    lines = {"mtvision/losses/a.py": {1: ["t/a.py::fast"], 2: list(tests), 3: ["t/b.py::slow"]}}
    return Reach(
        tests, lines, {"mtvision/losses/a.py": "a = 1\nb = 2\nc = 3\n"}, {"t/a.py": "1", "t/b.py": "2"}
    )


def test_reach_survives_a_file(tmp_path):
    reach().save(tmp_path / "reach.json.gz")
    assert Reach.load(tmp_path / "reach.json.gz") == reach()
    assert Reach.load(tmp_path / "none") == Reach()


def test_lines_of_an_edited_module_are_found_by_their_text():
    body = "def f():\n    a = 1\n    b = 2\n    return a + b\n"
    known = Reach({"t::x": Cost(1, False)}, {"m": {3: ["t::x"]}}, {"m": body}, {})
    assert known.tests_of("m", '"""New."""\n\n' + body, 5) == ["t::x"]
    assert known.tests_of("m", '"""New."""\n\n' + body, 4) == []
    changed = body.replace("b = 2", "b = 3")
    assert known.tests_of("m", changed, 3) == ["t::x"], "a changed line keeps the tests of the old one"


def test_test_files_can_be_forgotten_and_merged():
    old = reach()
    old.forget(["t/a.py"])
    assert list(old.tests) == ["t/b.py::slow"]
    assert old.lines["mtvision/losses/a.py"] == {1: [], 2: ["t/b.py::slow"], 3: ["t/b.py::slow"]}
    new = Reach(
        {"t/a.py::new": Cost(1, False)}, {"mtvision/losses/a.py": {3: ["t/a.py::new"]}}, {}, {"t/a.py": "3"}
    )
    both = merge(old, new)
    assert both.lines["mtvision/losses/a.py"][3] == ["t/a.py::new", "t/b.py::slow"]
    assert both.digests == {"t/a.py": "3", "t/b.py": "2"}


def test_cheap_tests_come_first_and_slow_ones_last():
    tests = reach().tests
    assert chunks(list(tests), tests, "mtvision/losses/a.py") == [
        ["t/a.py::fast"],
        ["t/a.py::long"],
        ["t/b.py::slow"],
    ]
    many = {f"t/{name}.py::{number}": Cost(1, False) for name in "abcdefgh" for number in range(3)}
    parts = chunks(list(many), many, "mtvision/losses/g.py")
    assert sorted(name for part in parts for name in part) == sorted(many)
    assert parts[0][0].startswith("t/g.py"), "the file named after the module comes first"
    assert all(len({name.split("::")[0] for name in part}) <= 4 for part in parts)


class PretendTree:
    """Fails the given tests, and with a change also those in `notices`."""

    def __init__(self, broken=(), notices=()):
        self.broken, self.notices = broken, notices
        self.runs = []

    def run(self, chunks, seconds, change=None):
        names = [name for chunk in chunks for name in chunk]
        self.runs.append((names, change is not None))
        failing = {*self.broken, *(self.notices if change else ())}
        by = next((name for name in names if name in failing), "")
        return {"outcome": "failed" if by else "passed", "by": by, "seconds": 1.0}


@pytest.fixture
def judge(tmp_path):
    pytest.importorskip("cosmic_ray")
    from mutation.candidates import candidates

    sources = {"mtvision/losses/a.py": "a = 1\nb = 2\nc = 3\n"}
    judge = Judge(sources, reach(), Session(tmp_path / "results.jsonl"))
    return judge, candidates("mtvision/losses/a.py", sources["mtvision/losses/a.py"])[0]


def test_a_test_that_fails_anyway_kills_nothing(judge):
    judge, change = judge
    tree = PretendTree(broken=["t/a.py::fast"], notices=["t/b.py::slow"])
    found = judge(change, result(1, ""), tree)
    assert (found.outcome, found.by, found.slow) == ("killed", "t/b.py::slow", True)
    assert found.passed == {"t/b.py": "2"}


def test_only_new_tests_meet_a_known_survivor(judge):
    judge, change = judge
    found = judge(change, result(1, ""), PretendTree())
    assert (found.outcome, found.passed) == ("survived", {"t/a.py": "1", "t/b.py": "2"})
    judge.session.add(found)
    assert judge(change, result(1, ""), PretendTree()) is None, "nothing changed"
    judge.reach.digests["t/b.py"] = "3"
    tree = PretendTree()
    assert judge(change, result(1, ""), tree).outcome == "survived"
    assert tree.runs == [(["t/b.py::slow"], True)]
    tree = PretendTree()
    assert judge(change, replace(result(1, ""), source="another"), tree).outcome == "survived"
    assert len(tree.runs[0][0]) == 3, "another module, so everything runs"


def test_no_test_no_run(judge):
    judge, change = judge
    judge.reach.lines.clear()
    tree = PretendTree()
    assert judge(change, result(1, ""), tree).outcome == "unreached"
    assert tree.runs == []


def test_results_outlive_the_process(tmp_path):
    session = Session(tmp_path / "deep" / "results.jsonl")
    session.add(result(1, "survived"))
    session.add(result(2, "killed", by="t/a.py::x", passed={"t/a.py": "1"}))
    session.add(result(1, "killed", by="t/b.py::x", passed={"t/b.py": "1"}))
    again = Session(session.path)
    assert again.results == session.results
    assert again.results["1"].by == "t/b.py::x"
    assert again.known(result(2, ""), {"t/a.py": "1"}) == again.results["2"]
    assert again.known(result(2, ""), {"t/a.py": "2"}) is None, "the test that killed it is another one today"


def test_new_words_make_no_new_module():
    spoken = SOURCE.replace('"""Doc."""', '"""Another text."""').replace("return 7", "return 7  # seven")
    assert code_digest(spoken) == code_digest(SOURCE)
    assert code_digest(SOURCE.replace("return 7", "return 8")) != code_digest(SOURCE)


def test_equivalent_changes_are_counted_apart():
    listed = [
        Equivalent("mtvision/losses/a.py", f"x = {number}", f"x = {number + 1}", "same") for number in (3, 4)
    ]
    results = [result(1), result(2, slow=True), result(3, "survived"), result(4), result(5, "unreached")]
    counting, same = split(results, listed)
    assert [one.line for one, _ in same] == [3]
    assert len(counting) == 4, "a killed change makes a difference, whatever the list says"
    assert count(results, listed) == {"losses": [5, 2, 1, 0, 1, 1], "all": [5, 2, 1, 0, 1, 1]}
    text = markdown(results, listed)
    assert (
        "Of 4 changes that make a difference, 3 are killed (75.0%), 2 of them by fast tests (50.0%)" in text
    )
    assert "mtvision/losses/a.py:5 (unreached, 5)" in text
    assert "a.py:3" not in text


def test_an_entry_without_a_reason_is_refused(tmp_path):
    path = tmp_path / "equivalent.toml"
    path.write_text('[[equivalent]]\nmodule = "a"\nbefore = "b"\nafter = "c"\nreason = " "\n')
    with pytest.raises(ValueError, match="entry 1: expected the fields"):
        read_equivalents(path)
    assert read_equivalents(tmp_path / "none") == []

"""Every rule against a loop written from its paper's formula, and against an answer that is known in full."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch
from rule_loops import LATER, RATE
from rule_tables import ANSWERS, LOOPS, ROUGHLY

from mtvision.testing.kinds.balancers import aggregated
from mtvision.testing.modules import Setting

sys.path.insert(0, str(Path(__file__).parents[1] / "testing"))
from examples import EXAMPLES

RULES = {item.label: item for item in EXAMPLES if item.kind == "balancer"}
WITH_A_SOLVER = {"TorchJD-CAGrad"}  # `mtvision[solvers]`
TASKS = ("first", "second", "third")


def made(label, tasks=TASKS):
    return RULES[label].build(Setting(dtype=torch.float64), Path()).build(tasks)


def ask(balancer, rows, losses):
    """The shared gradient; the rule's own parameters take a step of plain descent."""
    names = balancer.tasks
    values = dict(zip(names, losses, strict=True))
    if balancer.combines:
        shared = torch.zeros_like(rows[0], requires_grad=True)
        total = balancer.combine(
            {name: row @ shared + values[name] for name, row in zip(names, rows, strict=True)}
        )
        total.backward()
        found = shared.grad
        later = zip(names, losses * torch.tensor(LATER[: len(names)], dtype=losses.dtype), strict=True)
        balancer.observe(dict(later))
    else:
        balancer.see_losses(values)
        found = aggregated(balancer, rows, names)
    with torch.no_grad():
        for item in balancer.parameters():
            item.sub_(RATE * item.grad)
            item.grad = None
    return found


def batches(count=4):
    generator = torch.Generator().manual_seed(3)
    for _ in range(count):
        rows = torch.randn(3, 6, dtype=torch.float64, generator=generator)
        losses = torch.rand(3, dtype=torch.float64, generator=generator) + 0.3
        yield rows * torch.tensor([[1.0], [2.0], [0.5]]), losses


def test_every_rule_has_a_loop_and_an_answer():
    """A rule without them has to be added to `tests/support/rule_tables.py`."""
    assert set(LOOPS) - WITH_A_SOLVER == set(RULES) - WITH_A_SOLVER
    assert set(ANSWERS) == set(LOOPS)
    assert set(ROUGHLY) <= set(LOOPS)


@pytest.mark.conformance("{label}", "formulas")
@pytest.mark.parametrize("label", RULES)
def test_a_rule_equals_a_loop_over_its_formula(label):
    """Four batches, so that state counts; random rules draw the numbers that a loop draws."""
    balancer, loop = made(label), LOOPS[label]()
    tolerance, _ = ROUGHLY.get(label, (1e-6, ""))
    for rows, losses in batches():
        found = ask(balancer, rows, losses)
        with torch.random.fork_rng([]):
            wanted = loop(rows, losses)
        torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance * float(rows.norm()))


@pytest.mark.parametrize("label", ROUGHLY)
def test_only_as_roughly_as_said(label):
    """Where a tolerance is wide, rule and loop do differ by more than rounding."""
    if label not in RULES:
        pytest.skip("needs mtvision[solvers]")
    balancer, loop = made(label), LOOPS[label]()
    pairs = [(ask(balancer, rows, losses), loop(rows, losses)) for rows, losses in batches()]
    assert max(float((found - wanted).abs().max()) for found, wanted in pairs) > 1e-12


@pytest.mark.conformance("{label}", "formulas")
@pytest.mark.parametrize("label", RULES)
def test_a_rule_gives_the_answer_that_is_known(label):
    rows, losses, expected, why = ANSWERS[label]
    rows, losses = (torch.tensor(item, dtype=torch.float64) for item in (rows, losses))
    found = ask(made(label, TASKS[: len(rows)]), rows, losses)
    wanted = torch.tensor(expected, dtype=torch.float64)
    tolerance = max(1e-5, ROUGHLY.get(label, (0, ""))[0])
    assert torch.allclose(found, wanted, rtol=tolerance, atol=tolerance), (
        f"{found.tolist()} for {list(expected)}: {why}"
    )


def test_every_rule_has_a_row_in_the_docs():
    """Its name, or the name that another library has for it, stands in the first cell of a table."""
    folder = Path(__file__).parents[2] / "docs" / "balancing"
    rows = [
        line.split("|")[1]
        for page in ("gradients", "losses", "further_passes")
        for line in (folder / f"{page}.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("|")
    ]
    cells = " ".join(rows)
    names = {item.name for item in RULES.values()} - {"Scalarizer", "TorchJD"}
    names |= {label.partition("-")[2] for label in RULES if label.startswith(("Scalarizer-", "TorchJD-"))}
    assert {name for name in names if not re.search(rf'[`"]{name}[`"(]', cells)} == set()

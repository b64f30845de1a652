"""Numbers of options: what is no number of its range is refused before anything is read."""

from __future__ import annotations

import argparse

import pytest

from mtvision.cli.common import numeric
from mtvision.cli.main import command_line
from mtvision.core.values import Count, Factor, Part, Positive, Rate, Share
from mtvision.recipe.sections import Seed

GOOD = {
    Count: [("0", 0), ("7", 7)],
    Positive: [("1", 1), (" 12 ", 12)],
    Seed: [("0", 0), ("4294967295", 2**32 - 1)],
    Rate: [("1e-3", 0.001), ("2", 2.0)],
    Factor: [("0", 0.0)],
    Share: [("0", 0.0), ("1", 1.0)],
    Part: [("0.999", 0.999)],
}
BAD = {
    Count: ["-1", "1.5", "many", "", "nan", "9" * 30],
    Positive: ["0", "-3", "2.0", "1e3"],
    Seed: ["-1", "4294967296"],
    Rate: ["0", "-1", "nan", "inf", "1e400", "1,5"],
    Factor: ["-0.1", "-inf"],
    Share: ["1.01", "-1e-9"],
    Part: ["0", "1", "2"],
}


@pytest.mark.parametrize("kind", GOOD, ids=str)
def test_a_number_is_read_and_keeps_its_type(kind):
    for text, value in GOOD[kind]:
        found = numeric(kind)(text)
        assert found == value
        assert type(found) is type(value)
    for text in BAD[kind]:
        with pytest.raises(argparse.ArgumentTypeError, match="expected an? (integer|number) .*, got "):
            numeric(kind)(text)


COMMANDS = {
    "cost c.py --plan --gpus 0": "--gpus: expected an integer of at least 1, got '0'",
    "cost c.py --plan --rate -1": "--rate: expected a number above 0, got '-1'",
    "cost c.py --shape 0 5": "--shape: expected an integer of at least 1, got '0'",
    "merge c.py --base b --parents a=b --out o --held-out 1": "--held-out: expected a number above 0 below 1",
    "surgery c.py x --parents a=b --out o --steps 0": "--steps: expected an integer of at least 1, got '0'",
    "pareto c.py x --images 0": "--images: expected an integer of at least 1, got '0'",
    "rounds c.py --recalibrate -1": "--recalibrate: expected an integer of at least 0, got '-1'",
    "launch c.py --seeds 0 -1": "--seeds: expected an integer between 0 and 4294967295, got '-1'",
    "train c.py --seed 1.5": "--seed: expected an integer between 0 and 4294967295, got '1.5'",
    "check-dataset c.py --workers 3000": "--workers: expected an integer between 1 and 256, got '3000'",
    "benchmark scan --repeats 0": "--repeats: expected an integer of at least 1, got '0'",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_name_the_option(command, capsys):
    try:
        code = command_line(command.split())
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert f"argument {COMMANDS[command]}" in capsys.readouterr().err

"""Options of runs: a command has those that it reads, so that none is taken without effect."""

from __future__ import annotations

import importlib
import inspect
import re

import pytest

from mtvision.cli import main as commands
from mtvision.cli.common import RUN_OPTIONS
from mtvision.cli.main import command_line

READS = {
    "work-dir": r"work_dir_of\(arguments|arguments\.work_dir",
    "seed": r"read_config\(arguments|config_of\(arguments",
    "amp": r"read_config\(arguments|config_of\(arguments",
    "launcher": r"arguments\.launcher",
    "resume": r"arguments\.resume",
}
"""{option: what the source of a command that reads it holds}."""


def sources():
    """{command: source of its module}, of those whose parser takes a config."""
    found = {}
    for name, (module, _) in commands.COMMANDS.items():
        source = inspect.getsource(importlib.import_module(f"mtvision.cli.{module}"))
        if "= make_parser(" in source:
            found[name] = source
    return found


SOURCES = sources()


@pytest.mark.parametrize("name", SOURCES)
def test_a_command_reads_the_options_that_it_has(name):
    assert len(SOURCES) >= 10
    taken = re.search(r"make_parser\([^()]*(\([^()]*\))?", SOURCES[name])[0]
    for option in RUN_OPTIONS:
        reads = re.search(READS[option], SOURCES[name]) is not None
        if f'"{option}"' in taken:
            assert reads, option
        elif option not in ("seed", "amp"):
            assert not reads, option


@pytest.mark.parametrize(
    "words",
    [
        "cost c.py --resume",
        "cost c.py --amp",
        "browse-dataset c.py --launcher none",
        "merge c.py --base a --parents b=c d=e --out f --work-dir g",
        "pareto c.py x --resume",
        "test c.py x --resume",
    ],
)
def test_other_options_are_unknown(words, capsys):
    with pytest.raises(SystemExit) as stop:
        command_line(words.split())
    assert stop.value.code == 2
    assert "unrecognized arguments: --" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("cost c.py --gpus 4", "--gpus is read with --plan only"),
        ("cost c.py --growth --rate 1e9", "--rate is read with --plan only"),
        ("launch c.py --nodes 2", "--nodes is read with --print only"),
        ("test c.py x --prediction-format 8bit", "--prediction-format is read with --save-predictions only"),
        ("share demo --out a --private", "--private is read with --push only"),
        ("share demo --push a/b --overwrite", "--overwrite is read with --out only"),
        ("check-dataset c.py --root data", "--root is read with --dataset only"),
        (
            "check-dataset --dataset NYUDv2 --root a --cfg-options seed=1",
            "--cfg-options is read with CONFIG only",
        ),
        ("table --write README.md --sort gain", "--sort is read with RESULTS only"),
        ("table results --check README.md", "RESULTS are in the documents"),
    ],
)
def test_an_option_without_the_one_that_reads_it_is_refused(words, message, capsys):
    with pytest.raises(SystemExit) as stop:
        command_line(words.split())
    assert stop.value.code == 2
    assert message in capsys.readouterr().err

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

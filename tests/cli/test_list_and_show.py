"""`mtvision list` and `mtvision show`: every kind of entry, plugins included."""

from __future__ import annotations

import json

import pytest

from mtvision.cli.main import command_line
from mtvision.core.naming import UnknownNameError
from mtvision.core.registry import DECODERS, tables
from mtvision.core.registry.described import described, table_of

FOREIGN = {"optimizer", "schedule"}  # classes of torch and mmengine


def printed(capsys, *arguments):
    assert command_line(list(arguments)) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("table", tables().values(), ids=lambda table: table.name)
def test_every_shipped_entry_has_a_place_and_a_first_line(table):
    for name in table:
        if table.shipped(name) is None:  # of another test
            continue
        entry = described(table, name)
        assert entry.name == name
        if table.name not in FOREIGN:
            assert entry.summary, f"{table.name} {name} has no docstring"
            assert entry.module.startswith("mtvision.")
            assert entry.file is not None
            assert entry.file.is_file()


def test_a_place_is_where_the_class_stands():
    entry = described(DECODERS, "TaskExpertDecoder")
    assert entry.file.name == "task_expert.py"
    assert entry.file.read_text().splitlines()[entry.line - 1] == "class TaskExpertDecoder(Decoder):"
    assert entry.place == f"{entry.file}:{entry.line}"


@pytest.mark.parametrize("word", ["decoder", "decoders", "DECODERS", "Decoder"])
def test_a_kind_has_several_words(word):
    assert table_of(word, tables()) is DECODERS


def test_words_of_two_parts():
    assert table_of("label-derivation", tables()).name == "label derivation"
    assert table_of("transforms_preset", tables()).name == "transforms preset"
    with pytest.raises(UnknownNameError, match="Did you mean 'decoder'"):
        table_of("decodrs", tables())


def test_kinds_are_listed_with_their_numbers(capsys):
    counts = json.loads(printed(capsys, "list", "--json"))
    assert counts == {table.name: len(table) for table in tables().values()}
    lines = printed(capsys, "list").splitlines()
    assert [line.rsplit(None, 1)[0].strip() for line in lines] == sorted(counts)


def test_entries_are_filtered_by_words(capsys):
    names = [item["name"] for item in json.loads(printed(capsys, "list", "decoders", "mamba", "--json"))]
    assert names == ["MTMambaDecoder", "MTMambaPlusDecoder"]
    text = printed(capsys, "list", "decoders", "mamba")
    assert [line.split()[0] for line in text.splitlines()] == names
    assert "no decoder holds 'nothing like it'" in printed(capsys, "list", "decoders", "nothing like it")


def test_show_prints_arguments_documentation_and_uses(capsys):
    text = printed(capsys, "show", "decoder", "MTMambaDecoder")
    assert text.startswith("decoder MTMambaDecoder\n")
    assert "    channels: Sequence[int],\n" in text
    assert "Supplied by the suite, never by a config: channels, strides, tasks." in text
    named = text.splitlines()[-1].removeprefix("Named in: ").split(", ")
    assert "mtmamba/mtmamba_tiny_synthetic_1xb8_300" in named
    assert "mosd/mtmamba_lite0_mosd_1xb4_240" in named  # its base names many decoders, of which it takes one
    assert not [name for name in named if "mtmamba" not in name]


def test_a_protocol_is_named_by_the_bases_of_configs(capsys):
    shown = json.loads(printed(capsys, "show", "protocol", "nyud-invpt", "--json"))
    assert shown["summary"] == "NYUD-v2, InvPT protocol"
    assert "mtmamba/mtmamba_swin_large_nyud_invpt_8xb1_50k" in shown["used_in"]
    assert "mtmamba/mtmamba_tiny_synthetic_1xb8_300" not in shown["used_in"]


def test_an_unknown_name_lists_near_ones(capsys):
    assert command_line(["show", "decoder", "MTMambaDecodr"]) == 2
    assert "Did you mean 'MTMambaDecoder'" in capsys.readouterr().err


@pytest.mark.slow
def test_a_plugin_is_listed_and_shown_in_another_process(tmp_path):
    import subprocess
    import sys

    plugin = tmp_path / "ownlab.py"
    plugin.write_text(
        "from mtvision.core.registry import DECODERS\n\n\n@DECODERS.register_module()\n"
        'class OwnDecoder:\n    """Mine."""\n\n    def __init__(self, channels, strides, tasks, width=3):\n'
        "        pass\n"
    )

    def run(*arguments):
        line = [sys.executable, "-m", "mtvision.cli.main", *arguments, "--plugin", str(plugin)]
        return subprocess.run(line, capture_output=True, text=True, check=True).stdout

    (entry,) = json.loads(run("list", "decoders", "OwnDecoder", "--json"))
    assert (entry["summary"], entry["module"], entry["file"]) == ("Mine", "ownlab", str(plugin))
    shown = run("show", "decoder", "OwnDecoder")
    assert f"{plugin}:4" in shown
    assert "    width=3,\n" in shown
    assert "Named in: no shipped config" in shown

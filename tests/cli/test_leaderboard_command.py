"""`mtvision leaderboard`: exit codes, what is printed, what is written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from board_records import nyud_records, write_site

from mtvision.cli.main import call
from mtvision.cli.results.leaderboard import SUBCOMMANDS

ROOT = Path(__file__).parents[2]


def test_check_passes_and_fails(tmp_path, capsys):
    record = nyud_records()[0]
    record.save(tmp_path / "a.json")
    assert call("leaderboard", ["check", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "1 records, 0 violations, 0 notes.\n"
    data = record.to_json()
    data["provenance"] = "mine"
    (tmp_path / "b.json").write_text(json.dumps(data))
    assert call("leaderboard", ["check", str(tmp_path)]) == 1
    out = capsys.readouterr()
    assert f"{tmp_path / 'b.json'}:" in out.out
    assert 'violation: provenance: found "mine" (string), expected one of' in out.out
    assert "    next: correct the field; docs/records.md says what it holds." in out.out
    assert out.err == "2 records, 1 violation, 0 notes.\n"


def test_notes_fail_only_when_strict(tmp_path, capsys):
    data = nyud_records()[0].to_json()
    data["code"]["dirty"] = True
    (tmp_path / "a.json").write_text(json.dumps(data))
    assert call("leaderboard", ["check", str(tmp_path)]) == 0
    assert "note: code.dirty" in capsys.readouterr().out
    assert call("leaderboard", ["check", "--strict", str(tmp_path)]) == 1


def test_the_records_of_this_repository_pass(capsys):
    assert call("leaderboard", ["check", str(ROOT / "results")]) == 0, capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--published", "memroy"], "Unknown certainty 'memroy'. Did you mean 'memory'?"),
        (["--baseline", "singel-task"], "Unknown baseline 'singel-task'. Did you mean 'single-task'?"),
    ],
)
def test_names_that_no_table_has_are_refused(options, words, tmp_path, capsys):
    nyud_records()[0].save(tmp_path / "a.json")
    assert call("leaderboard", ["build", str(tmp_path), "--out", str(tmp_path / "site"), *options]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "site").exists()


def test_build_writes_one_file(tmp_path, capsys):
    results, runs = write_site(tmp_path)
    site = tmp_path / "site"
    arguments = ["build", str(results), "--out", str(site), "--runs", *map(str, runs), "--pictures", "1"]
    assert call("leaderboard", arguments) == 0
    out = capsys.readouterr().out
    assert f"{site / 'index.html'}: 38 records" in out
    assert "2 of them have a work directory" in out
    assert [file.name for file in site.iterdir()] == ["index.html"]
    first = (site / "index.html").read_bytes()
    assert call("leaderboard", arguments) == 0
    assert (site / "index.html").read_bytes() == first
    assert (
        call("leaderboard", ["build", str(results), "--out", str(site), "--published", "--title", "T"]) == 0
    )
    text = (site / "index.html").read_text(encoding="utf-8")
    assert "<title>T</title>" in text
    assert 'class="badge paper"' not in text


def test_mistakes_are_explained(tmp_path, capsys):
    assert call("leaderboard", ["check", str(tmp_path / "none")]) == 2
    assert "does not exist; give record files" in capsys.readouterr().err
    assert call("leaderboard", ["build", str(tmp_path), "--out", str(tmp_path / "site")]) == 2
    assert "no records to show" in capsys.readouterr().err
    nyud_records()[0].save(tmp_path / "a.json")
    arguments = ["build", str(tmp_path), "--out", str(tmp_path / "site"), "--published", "rumour"]
    assert call("leaderboard", arguments) == 2
    assert "rumour" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        call("leaderboard", [])


@pytest.mark.parametrize("name", ["check", "build"])
def test_help(name, capsys):
    assert name in SUBCOMMANDS
    with pytest.raises(SystemExit) as stop:
        call("leaderboard", [name, "--help"])
    assert stop.value.code == 0
    assert f"mtvision leaderboard {name}" in capsys.readouterr().out


def test_the_tool_is_the_command():
    command = [sys.executable, str(ROOT / "tools" / "leaderboard.py"), "check", str(ROOT / "results")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "0 violations" in done.stdout

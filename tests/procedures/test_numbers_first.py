"""Searches and reports write their numbers first; a drawing that fails costs only itself."""

from __future__ import annotations

import errno
import json
from types import SimpleNamespace

import pytest

from mtvision.cli.procedures.search import show
from mtvision.procedures import control_report, trade_off

pytestmark = pytest.mark.slow  # every test is a run


def fail(*arguments, **options):
    raise OSError(errno.ENOSPC, "No space left on device")


def said(caplog):
    return [record.getMessage().partition(": ")[0] for record in caplog.records]


def test_affinities_are_printed_where_they_cannot_be_drawn(tmp_path, monkeypatch, capsys, caplog):
    monkeypatch.setattr("mtvision.visualize.write_picture", fail)
    found = {"affinities": {"tasks": ["a", "b"], "mean": [[1.0, 0.25], [0.25, 1.0]], "measure": "affinity"}}
    show(found, tmp_path / "architecture.json")
    assert "0.250" in capsys.readouterr().out
    assert said(caplog) == ["architecture.affinity.png"]


@pytest.mark.parametrize("broken", ["plot_cost_curve", "markdown"])
def test_the_numbers_of_a_curve_outlive_its_plot_and_table(broken, tmp_path, monkeypatch, caplog):
    found = {
        "cost": {"expected_macs": 2.0, "macs": 2, "parameters": 1},
        "scores": {},
        "tree": {"levels": [[["a"]]]},
    }
    monkeypatch.setattr(trade_off, "_adapter_place", lambda config: 0)
    monkeypatch.setattr(trade_off, "_searched", lambda config, request: found)
    monkeypatch.setattr(trade_off, "plot_cost_curve", lambda rows, tasks, path: path.write_text("plot"))
    monkeypatch.setattr(trade_off, broken, fail)
    config = SimpleNamespace(with_options=lambda options: None)
    request = trade_off.SearchRequest(work_dir=tmp_path)
    result = trade_off.trade_off(config, request, [1.0, 0.0], [])
    assert json.loads((tmp_path / "trade_off.json").read_text()) == result
    assert said(caplog) == ["trade_off.png" if broken == "plot_cost_curve" else "trade_off.md"]
    assert len(list(tmp_path.iterdir())) == 2


FILES = {
    "tables": "controllability.md",
    "plot_trade_off": "trade_off.png",
    "plot_widths": "widths.png",
    "_page": "page.html",
}


@pytest.mark.parametrize("broken", FILES)
def test_every_part_of_a_report_is_written_on_its_own(broken, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(control_report, "tables", lambda result, tasks: [])
    for name in ("plot_trade_off", "plot_widths"):
        monkeypatch.setattr(control_report, name, lambda result, tasks, path: path.write_text("plot"))
    monkeypatch.setattr(control_report, "_page", lambda *_: "page")
    monkeypatch.setattr(control_report, broken, fail)
    controlled = SimpleNamespace(settings=SimpleNamespace(protocol=SimpleNamespace(tasks=())))
    written = control_report.write_report(controlled, {}, tmp_path)
    assert {path.name for path in written} == set(FILES.values()) - {FILES[broken]}
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in written}
    assert said(caplog) == [FILES[broken]]

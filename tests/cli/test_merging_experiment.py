"""The merging demo: what it trains and scores, how it chooses a scale, and that nothing is done twice."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

from mtvision.core.registry import MERGERS
from mtvision.recipe.check import check_config
from mtvision.recipe.settings import Settings

TOOL = Path(__file__).parents[2] / "tools" / "merging_experiment.py"


@pytest.fixture(scope="module")
def tool():
    return runpy.run_path(str(TOOL))


@pytest.fixture
def ladder(tool, tmp_path):
    return tool["Ladder"](
        "scenes", tool["PROBLEMS"]["scenes"], 1, data=tmp_path, folder=tmp_path / "work",
        results=tmp_path / "results", size=tool["Size"](),
    )  # fmt: skip


def test_every_rung_is_a_merger_with_its_options(tool):
    for rung in tool["RUNGS"].values():
        MERGERS.check_config({"type": rung.method, **rung.options})
        assert not rung.chosen or "scale" in MERGERS.parameters(rung.method)


@pytest.mark.parametrize("name", ["scenes", "mosd", "camvid", "bsds_sod"])
def test_nothing_is_trained_or_scored_on_what_chooses_coefficients(tool, name, tmp_path):
    problem = tool["PROBLEMS"][name]
    ladder = tool["Ladder"](
        name, problem, 0, data=tmp_path, folder=tmp_path, results=None, size=tool["Size"]()
    )
    trained, whole = ladder.config["train_data"]["dataset"], ladder.judging["train_data"]["dataset"]
    assert (trained["type"], trained["part"], trained["held_out"]) == ("HeldOutImages", "rest", 0.2)
    assert trained["dataset"] == whole
    judged, scored = ladder.judging["val_data"]["dataset"], ladder.config[ladder.section]["dataset"]
    assert judged["split"] == "train"
    assert scored.get("dataset", scored)["split"] != "train"
    for config in (ladder.config, ladder.judging):
        check_config(config)
        assert sorted(Settings.of(config).protocol.task_names) == sorted(problem.tasks)
        assert config["seed"] == 0


def test_the_scale_with_the_least_held_out_loss_is_kept(tool, ladder, tmp_path, monkeypatch):
    losses = {0.3: 1.2, 0.6: 1.1, 1.0: 1.5}

    def merge(out, rung, **options):
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(str(options["scale"]))
        return out

    monkeypatch.setattr(ladder, "_merge", merge)
    monkeypatch.setattr(ladder, "_loss", lambda config, file: losses[float(file.read_text())])
    folder = tmp_path / "TIES"
    assert ladder._merged(folder, tool["RUNGS"]["TIES"]).read_text() == "0.6"
    assert sorted(path.name for path in folder.iterdir()) == ["choice.json", "merged.pth"]
    assert json.loads((folder / "choice.json").read_text())["scale"] == 0.6


def test_a_rung_with_a_record_is_not_made_again(tool, ladder, monkeypatch):
    class Done:
        whole = True

        def save(self, path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("{}")

    names = {"Record": type("Record", (), {"load": staticmethod(lambda path: Done())})}
    monkeypatch.setitem(ladder._once.__func__.__globals__, "Record", names["Record"])
    folder = ladder._place("average, heads tuned")
    folder.mkdir(parents=True)
    (folder / "record.json").write_text("{}")
    ladder._once("average, heads tuned", lambda folder: pytest.fail("made again"))
    kept = [path.name for path in ladder._results.iterdir()]
    assert kept == ["scenes_average_heads_tuned_seed1.json"]


def test_real_sets_that_are_not_there_are_left_out(tool, tmp_path, monkeypatch, capsys):
    ran, main = [], tool["main"]
    monkeypatch.setattr(tool["Ladder"], "run", lambda self: ran.append((self.name, self.seed)))
    monkeypatch.setitem(main.__globals__, "call", lambda command, words: 0)
    words = ["--seeds", "0", "3", "--data", str(tmp_path), "--work-dir", str(tmp_path / "work")]
    monkeypatch.setattr(sys, "argv", [str(TOOL), *words])
    main()
    assert ran == [("scenes", 0), ("scenes", 3)]
    assert "mosd is left out: no folder" in capsys.readouterr().out

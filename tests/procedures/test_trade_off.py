"""One search per weight of the expected cost: the ends of the curve, files, resuming, refusals."""

from __future__ import annotations

import json
from types import SimpleNamespace

import discs
import pytest

from mtvision.cli.main import call
from mtvision.procedures import trade_off as module

pytestmark = pytest.mark.slow

SUPERNET = """
step = dict(type="SearchStep", held_out=0.4)
search = dict(type="{searcher}", held_out=0.4)
optimizer["architecture_lr"] = 0.3
training.update(iterations={steps}, checkpoint_interval={steps}, val_interval=0)
"""


def config_in(folder, mixing, searcher, steps):
    adapter = (
        f"adapters=[dict(type='BranchingSearch', mixing='{mixing}', cuts='blocks', copies=[2, 2, 2], "
        f"iterations={steps}, warmup=0, cost_weight=0.0, image_size=(32, 32))],\n    decoder="
    )
    text = discs.CONFIG.replace("decoder=", adapter, 1) + SUPERNET.format(searcher=searcher, steps=steps)
    return discs.write_config(folder, text)


def search(config, work, *arguments):
    return call("search", [str(config), "--work-dir", str(work), *map(str, arguments)])


def found_in(folder):
    return json.loads((folder / "architecture.json").read_text())


@pytest.mark.parametrize(
    ("mixing", "searcher"), [("straight_through", "LTBSearcher"), ("streams", "BMTASSearcher")]
)
def test_the_ends_of_the_curve(tmp_path, mixing, searcher):
    """A huge λ shares everything; λ = 0 is the plain search, number for number."""
    config = config_in(tmp_path, mixing, searcher, 24)
    assert search(config, tmp_path / "curve", "--cost-weights", 1e9, 0) == 0
    assert search(config, tmp_path / "plain") == 0
    none, huge = (found_in(tmp_path / "curve" / f"cost_weight_{name}") for name in ("0", "1e+09"))
    plain = found_in(tmp_path / "plain")
    for key in ("tree", "cost", "affinities", "log", "scores"):
        assert none[key] == plain[key]
    assert huge["cost"]["macs"] == huge["cost"]["shared"]["macs"]
    assert huge["cost"]["expected_macs"] < plain["cost"]["expected_macs"]
    rows = json.loads((tmp_path / "curve" / "trade_off.json").read_text())["rows"]
    assert [row["cost_weight"] for row in rows] == [0, 1e9]
    assert rows[0]["scores"] == plain["scores"]
    assert set(rows[0]["scores"]) == {"semseg", "depth"}
    assert (tmp_path / "curve" / "trade_off.png").is_file()
    assert (tmp_path / "curve" / "trade_off.md").read_text().count("\n") == 4
    assert (tmp_path / "curve" / "cost_weight_0" / "architecture.tree.png").is_file()


def test_resuming_reads_what_is_finished_and_weights_can_be_added(tmp_path, monkeypatch, capsys):
    config, work = config_in(tmp_path, "straight_through", "LTBSearcher", 2), tmp_path / "curve"
    searched = []

    def counting(config, request):
        searched.append(request.work_dir.name)
        return original(config, request)

    original = module.search
    monkeypatch.setattr(module, "search", counting)
    assert search(config, work, "--cost-weights", 0, 2) == 0
    before = (work / "cost_weight_0" / "architecture.json").read_text()
    assert search(config, work, "--cost-weights", 0, 1, 2) == 2  # as any search: resume or overwrite
    assert "--resume" in capsys.readouterr().err
    (work / "cost_weight_2" / "architecture.json").unlink()
    searched.clear()
    assert search(config, work, "--cost-weights", 0, 1, 2, "--resume") == 0
    assert searched == ["cost_weight_1", "cost_weight_2"]
    assert (work / "cost_weight_0" / "architecture.json").read_text() == before
    rows = json.loads((work / "trade_off.json").read_text())["rows"]
    assert [row["cost_weight"] for row in rows] == [0, 1, 2]
    searched.clear()
    changed = ["--resume", "--cfg-options", "optimizer.lr=0.02"]
    search(config, work, "--cost-weights", 0, *changed)
    assert searched == ["cost_weight_0"]  # another config is another search


def test_what_has_no_cost_weight_is_refused(tmp_path, capsys):
    config = discs.write_config(tmp_path, discs.CONFIG + "search = dict(type='RSASearcher')\n")
    assert search(config, tmp_path / "work", "--cost-weights", 0, 1) == 2
    assert "BranchingSearch" in capsys.readouterr().err
    config = config_in(tmp_path, "streams", "BMTASSearcher", 2)
    assert search(config, tmp_path / "work", "--cost-weights", 1, 1) == 2
    assert "different numbers" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        search(config, tmp_path / "work", "--cost-weights", -1)
    assert "expected a number of at least 0, got '-1'" in capsys.readouterr().err
    checkpoint = tmp_path / "some.pth"
    assert search(config, tmp_path / "work", checkpoint, "--cost-weights", 1) == 2
    assert "leave CHECKPOINT out" in capsys.readouterr().err


def test_table_leaves_out_scores_that_nobody_measured():
    row = {"cost_weight": 2.0, "expected_macs": 3e6, "macs": 2_500_000, "parameters": 1e5,
           "levels": [[["a", "b"]], [["a"], ["b"]]]}  # fmt: skip
    task = SimpleNamespace(name="a", headline="miou", higher_is_better=True)
    columns, rows = module.trade_off_table({"rows": [{**row, "scores": {}}]}, [task])
    assert rows == [["2", "3 M", "2.5 M", "0.1 M", "1 2"]]
    assert len(columns) == 5
    columns, rows = module.trade_off_table({"rows": [{**row, "scores": {"a": 0.25}}]}, [task])
    assert (columns[-1], rows[0][-1]) == ("a miou ↑", "0.25")


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize("stored", ["a", "m", "z", None])
def test_a_finished_search_counts_only_for_its_own_config(tmp_path, monkeypatch, stored, resume):
    """The hash is compared for equality: neither an earlier nor a later one in the alphabet will do."""
    path = tmp_path / "architecture.json"
    if stored is not None:
        path.write_text(json.dumps({"search": {"config_sha256": stored}, "from": "disk"}))
    monkeypatch.setattr(module, "search", lambda config, request: {"from": "a search"})
    monkeypatch.setattr(module, "write_architecture", lambda found, path: None)
    request = SimpleNamespace(work_dir=tmp_path, resume=resume)
    found = module._searched(SimpleNamespace(sha256="m"), request)
    assert found["from"] == ("disk" if resume and stored == "m" else "a search")

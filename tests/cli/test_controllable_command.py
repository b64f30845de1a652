"""From a trained slimmable network to tables, a page and predictions under a budget."""

from __future__ import annotations

import json

import cv2
import discs
import numpy as np
import pytest

from mtvision.cli.main import call
from mtvision.core.context import Context
from mtvision.data.decode import read_image
from mtvision.evaluation.predictor import Predictor
from mtvision.recipe.building import trained_network
from mtvision.recipe.config import load_config
from mtvision.recipe.settings import protocol_of
from mtvision.search import WidthTable

pytestmark = pytest.mark.slow

CONFIG = discs.CONFIG.replace(
    'backbone=dict(type="DropoutNet")', 'backbone=dict(type="DropoutNet", width=16)'
)
CONFIG = CONFIG.replace("width=8", "width=16").replace(
    'head=dict(type="ConvHead"),', 'head=dict(type="ConvHead"),\n    adapters=[dict(type="Slimmable")],'
)
CONFIG += """
test_data = dict(dataset=dict(type="TinyDiscs", split="test", length=5, transforms="tensor"), batch_size=3)
step = dict(type="SandwichStep", encoder=[0.5, 1.0], decoders=[0.5, 1.0])
search = dict(type="WidthSearcher", encoder=[0.5, 1.0], decoders=[0.5, 1.0], population=0, calibration=2)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    pytest.importorskip("pymoo")
    folder = tmp_path_factory.mktemp("run")
    config = str(discs.write_config(folder, CONFIG))
    options = ["training.iterations=3", "training.val_interval=0"]
    work = ["--work-dir", str(folder / "work"), "--cfg-options", *options]
    assert call("train", [config, *work]) == 0
    checkpoint = str(folder / "work" / "iter_3.pth")
    arguments = ["--budgets", "0.4", "1", "--separate", f"1={checkpoint}", f"0.5={checkpoint}"]
    arguments += ["--pictures", "1"]
    assert call("controllable", [config, checkpoint, "--work-dir", str(folder / "out"), *arguments]) == 0
    return folder


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "photo.png"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8))
    return path


def test_everything_is_written_and_consistent(run):
    result = json.loads((run / "out" / "controllability.json").read_text())
    assert result["adherence"]["worst"] <= 1
    separate = {item["width"]: item for item in result["separate"]}
    assert separate[1.0]["mean_change"] == pytest.approx(0)  # the network against itself
    half = separate[0.5]["change"]  # slimmed to a half, against the whole network
    assert separate[0.5]["mean_change"] == pytest.approx((half["semseg"] + half["depth"]) / 2)
    assert half["depth"] != 0
    ranges = [value for row in result["range"].values() for value in row.values() if value is not None]
    assert result["raised"]["share"] == np.mean([value > 0 for value in ranges])
    config = load_config(run / "discs_config.py")
    _, meta = trained_network(config, protocol_of(config), run / "out" / "controllable.pth")
    kept = WidthTable.load(run / "out" / "width_table.json")
    assert kept.to_plain() == WidthTable.from_plain(meta["width_table"]).to_plain()
    assert {row["budget"] for row in result["outcomes"]} == {0.4, 1.0}
    assert all(row["cost"] <= row["budget"] for row in result["outcomes"] + result["uniform"])
    full = json.loads((run / "work" / "record.json").read_text())["scores"]
    assert result["full"]["depth"] == pytest.approx(full["depth"]["rmse"])
    page = (run / "out" / "page.html").read_text()
    assert page.count('class="shot"') == 6  # two budgets, three preferences
    assert "http" not in page
    assert page.count("data:image/jpeg;base64,") == 6
    assert "Hypervolume" in (run / "out" / "controllability.md").read_text()
    assert cv2.imread(str(run / "out" / "trade_off.png")) is not None
    assert cv2.imread(str(run / "out" / "widths.png")) is not None


def test_prediction_under_a_budget_is_the_network_at_the_chosen_widths(run, image, tmp_path):
    config, checkpoint = load_config(run / "discs_config.py"), run / "out" / "controllable.pth"
    arguments = [str(checkpoint), str(image), "--out", str(tmp_path / "out")]
    assert call("predict", [*arguments, "--budget", "0.6", "--preference", "depth=1"]) == 0
    written = np.load(tmp_path / "out" / "photo.npz")["depth"]
    protocol = protocol_of(config)
    network, meta = trained_network(config, protocol, checkpoint)
    table = WidthTable.from_plain(meta["width_table"])
    predictor = Predictor(network, protocol, width_table=table)
    picture = read_image(image)
    by_budget = predictor(picture, budget=0.6, preference={"depth": 1})["depth"]
    widths = table.choose(0.6, {"depth": 1}).widths
    assert widths.decoders["semseg"] == 0.5
    by_hand = predictor(picture, Context(widths=widths.to_plain()))["depth"]
    np.testing.assert_array_equal(by_budget, by_hand)
    np.testing.assert_array_equal(by_budget, written)
    assert not np.array_equal(by_budget, predictor(picture)["depth"])


def test_mistakes_get_one_message(run, image, tmp_path, capsys):
    out = ["--out", str(tmp_path / "out")]
    plain, controlled = str(run / "work" / "iter_3.pth"), str(run / "out" / "controllable.pth")
    for checkpoint, options, message in (
        (plain, ["--budget", "0.5"], "tools/controllable.py"),
        (controlled, ["--budget", "0.001"], "smallest configuration needs"),
        (controlled, ["--preference", "edge=1"], "Unknown task in preference 'edge'"),
    ):
        assert call("predict", [checkpoint, str(image), *out, *options]) == 2
        assert message in capsys.readouterr().err

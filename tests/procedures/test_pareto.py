"""A whole front: training with preferences, `mtvision pareto`, and predictions from its file."""

from __future__ import annotations

import json

import discs
import numpy as np
import pytest
import torch
from PIL import Image

import mtvision
from mtvision.cli.main import call
from mtvision.cli.procedures.pareto import main
from mtvision.core.naming import UnknownNameError
from mtvision.engine.training import fit
from mtvision.models.adapters.pareto import manifold_of
from mtvision.recipe.config import load_config
from mtvision.runtime.checkpoint import load_checkpoint

pytestmark = pytest.mark.slow
MANIFOLD = """
model["adapters"] = [dict(type="ParetoManifold", members="whole", points=2)]
step = dict(type="ParetoStep", passes=2, ordering=0.5)
"""
SHORT = ("training.iterations=2", "training.checkpoint_interval=2", "training.val_interval=0")


@pytest.fixture(scope="module")
def front(tmp_path_factory):
    """The folder of a measured front: a run of two steps and what the command makes of it."""
    folder = tmp_path_factory.mktemp("front")
    path = discs.write_config(folder, discs.CONFIG + MANIFOLD)
    run = fit(load_config(path, SHORT), folder / "run", quiet=True)
    words = [str(path), str(run.checkpoint), "--work-dir", str(folder / "front"), "--images", "4"]
    assert main([*words, "--pictures", "1"]) == 0
    return folder / "front"


def test_the_command_measures_every_point_of_the_rays(front):
    found = json.loads((front / "pareto.json").read_text())
    shares = [point["preference"]["semseg"] for point in found["points"]]
    assert shares == [0.0, 0.5, 1.0]
    assert found["points"][1]["errors"] == {"semseg": 1.0, "depth": 1.0}  # relative to equal shares
    assert found["norms"] == 3 + 2 * 4  # of the backbone, and of both decoders
    assert found["images"] == 4
    assert 0 <= found["hypervolume"] <= 4
    for point in found["points"]:
        errors = list(point["errors"].values())
        others = [list(other["errors"].values()) for other in found["points"]]
        beaten = any(all(a <= b for a, b in zip(o, errors, strict=True)) and o != errors for o in others)
        assert point["dominated"] == beaten
    assert len((front / "pareto.md").read_text().splitlines()) == 4 + 3
    assert 'type="range"' in (front / "page.html").read_text()


def test_the_file_answers_for_a_preference(front):
    """`model.predict(picture, preference=...)` with the statistics of the nearest point."""
    model = mtvision.load(front / "pareto.pth")
    assert bool(manifold_of(model.network).calibrated.all())
    picture = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    one, two = (model.predict(picture, preference={name: 1.0})["depth"] for name in ("semseg", "depth"))
    assert not np.array_equal(one, two)
    assert np.array_equal(one, model.predict([picture], preference={"semseg": 3.0})[0]["depth"])
    alike = model.predict(picture)["depth"]
    assert np.array_equal(alike, model.predict(picture, preference={"semseg": 2, "depth": 2})["depth"])
    with pytest.raises(UnknownNameError, match="edge"):
        model.predict(picture, preference={"edge": 1.0})
    with pytest.raises(ValueError, match="table of widths"):
        model.predict(picture, budget=0.5)


def test_the_command_line_answers_for_a_preference(front, tmp_path):
    """`mtvision predict --preference`, as Python does."""
    picture = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "a.png")
    words = [str(front / "pareto.pth"), str(tmp_path / "a.png"), "--out", str(tmp_path / "out")]
    assert call("predict", [*words, "--preference", "depth=1", "--save", "npy"]) == 0
    (file,) = (path for path in (tmp_path / "out").rglob("*.npy") if "depth" in path.as_posix())
    wanted = mtvision.load(front / "pareto.pth").predict(picture, preference={"depth": 1.0})["depth"]
    assert np.array_equal(np.load(file).squeeze(), wanted.squeeze())


def test_statistics_of_the_points_differ_and_are_in_the_checkpoint(front):
    state = load_checkpoint(front / "pareto.pth")["state_dict"]
    assert bool(state["network.manifold.calibrated"].all())
    means = state["network.manifold.means"]
    assert not torch.equal(means[0], means[2])


def test_a_network_without_a_manifold_is_refused(tmp_path, capsys):
    path = discs.write_config(tmp_path, discs.CONFIG)
    run = fit(load_config(path, SHORT), tmp_path / "run", quiet=True)
    assert call("pareto", [str(path), str(run.checkpoint), "--work-dir", str(tmp_path / "front")]) == 2
    assert "no manifold of preferences" in capsys.readouterr().err

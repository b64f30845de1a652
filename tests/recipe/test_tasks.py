"""Runs of some of a protocol's tasks: what a config says about the others is left out, and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from sampling import sampled

from mtvision.core.naming import UnknownNameError
from mtvision.core.shapes import without_values
from mtvision.engine.building import training_module
from mtvision.models.factory import build_network
from mtvision.protocols import PROTOCOLS
from mtvision.recipe.building import without_pretrained
from mtvision.recipe.check import TO_TRAIN, check_config
from mtvision.recipe.config import load_config
from mtvision.recipe.data import build_dataset
from mtvision.recipe.settings import Settings, task_names
from mtvision.report.record import Record
from mtvision.sweep.grid import expand, record_key

ROOT = Path(__file__).parents[2]
LEAVES = sorted(path for path in (ROOT / "configs").rglob("*.py") if "_base_" not in path.parts)
CHOOSES = re.compile(r"dict\(name=.*\btasks=")
"""A phase that chooses tasks itself."""
ALONE = [path for path in LEAVES if path.parent.name != "phases" and not CHOOSES.search(path.read_text())]
RESULTS = ROOT / "results/tiny_synthetic"


def relative(path: Path) -> str:
    return path.relative_to(ROOT / "configs").as_posix()


def built(path, *options):
    """Network (without values), losses and balancer of a config."""
    config = load_config(path, options)
    settings = Settings.of(config)
    with without_values():
        network = build_network(without_pretrained(config["model"]), settings.protocol.tasks)
        return training_module(config, settings, network)


OTHER_MEANING = ("protocol", "labels", "backbone", "tree")
"""Keys below which names of absent tasks may stay.

They are protocols of one's own, sources of derived labels, timm's `depth`, and trees, whose adapter reads the
part of its tasks.
"""


def entries(value, where=()):
    """(path, value) of every entry of the dicts in a config; of texts in lists (path with the text, None)."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key not in OTHER_MEANING:
                yield (*where, key), item
                yield from entries(item, (*where, key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from [((*where, item), None)] if isinstance(item, str) else entries(item, (*where, index))


@pytest.mark.parametrize("path", sampled(ALONE), ids=relative)
def test_every_config_trains_each_of_its_tasks_alone(path):
    """Weights, heads, and options of losses and metrics are those of the task, and nothing names another."""
    whole = load_config(path)
    protocol = Settings.of(whole).protocol
    stated = [(where, value) for where, value in entries(dict(whole)) if value is not None]
    for name in protocol.task_names:
        config = whole.with_options({"tasks": [name]})
        alone = check_config(config, TO_TRAIN).protocol
        assert (alone.task_names, alone.tasks) == ((name,), (protocol.task(name),))
        assert alone.loss_weights == {name: protocol.loss_weights[name]}
        found = list(entries(dict(config)))
        assert {where[-1] for where, _ in found} & set(protocol.known_tasks) <= {name}
        assert [item for item in found if item in stated and item[0][-1] == name] == [
            (where, value) for where, value in stated if where[-1] == name
        ]


def test_baselines_of_protocols_follow_the_tasks():
    """A named baseline is that of the tasks left; one that has no score of a task is refused."""
    path = ROOT / "configs/parallel/parallel_vit_base_nyud_invpt_2xb2_40k.py"
    whole = load_config(path)
    checked = 0
    for protocol_id, protocol in PROTOCOLS.items():
        for baseline, scores in protocol.baselines.items():
            for name in scores:
                options = {"protocol": protocol_id, "tasks": [name], "evaluation.baseline": baseline}
                found = Settings.of(whole.with_options({**options, "evaluation.during_training": {}}))
                assert found.protocol.baselines[baseline] == {name: scores[name]}
                checked += 1
    assert checked > 10


NEAR_COPIES = ("separate50", "separate75", "separate100")  # of separate25: a width is all that differs
NEED_A_TASK = ("sparse_deltas",)  # its base task
SMALL = [
    path
    for path in ALONE
    if ("synthetic" in path.name or "helpers" in path.name)
    and not path.name.startswith((*NEAR_COPIES, *NEED_A_TASK))
]
LARGE = [path for path in ALONE if "synthetic" not in path.name and "helpers" not in path.name]


def one_per_method(paths):
    """The first config of each method: what other sizes and data sets change has tests of its own."""
    real = {"bsds_sod", "camvid"}  # their rows are those of mosd
    chosen = [path for path in paths if path.parent.name not in real]
    return list({(path.parent, path.stem.split("_")[0]): path for path in reversed(chosen)}.values())


@pytest.mark.slow
@pytest.mark.parametrize("path", one_per_method(SMALL), ids=relative)
def test_small_configs_have_a_network_of_each_task(path, monkeypatch):
    monkeypatch.chdir(ROOT)  # a tree is named by its file
    for name in Settings.of(load_config(path)).protocol.task_names:
        module = built(path, f"tasks=['{name}']")
        assert module.network.task_names == (name,)
        assert set(module.losses.losses) == {name}
        assert module.balancer.tasks == (name,)


@pytest.mark.slow
@pytest.mark.parametrize("path", one_per_method(LARGE), ids=relative)
def test_large_configs_have_a_network_of_one_task(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    name = Settings.of(load_config(path)).protocol.task_names[-1]
    assert built(path, f"tasks=['{name}']").network.task_names == (name,)


def test_names_of_tasks():
    assert task_names("depth") == ["depth"]
    assert task_names("depth, edge") == ["depth", "edge"]
    assert task_names(("depth",)) == ["depth"]
    for wrong in (3, [1], {"depth": 1}):
        with pytest.raises(TypeError, match="expected names such as"):
            task_names(wrong)
    for wrong in ([], "", ["depth", ""]):
        with pytest.raises(ValueError, match="Name at least one task"):
            task_names(wrong)


BASE = """
protocol = "synthetic-scenes"
model = dict(
    backbone=dict(type="TimmBackbone", name="vit_tiny_patch16_224", depth=6, embed_dim=96, num_heads=4),
    decoder=dict(type="ParallelDecoder", width=8, task_widths=dict(depth=4, edge=8)),
    head=dict(type="ConvHead"),
    heads=dict(edge=dict(type="ConvHead", hidden=8)),
)
balancer = dict(
    type="Uncertainty", factors=dict(semseg=1, depth=1, normals=1, edge=1, saliency=1, human_parts=1)
)
train_data = dict(dataset=dict(type="SyntheticScenes", split="train"), batch_size=2)
training = dict(loss_options=dict(edge=dict(positive_weight=0.8)))
evaluation = dict(
    metric_options=dict(edge=dict(thresholds=9)),
    during_training=dict(edge=dict(thresholds=3)),
    baseline=dict(semseg=1, depth=1, normals=1, edge=1, saliency=1, human_parts=1),
)
"""


@pytest.fixture
def write(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "config.py"
        path.write_text(text)
        return path

    return write


def test_entries_of_absent_tasks_are_dropped_and_nothing_else(write):
    config = load_config(write(BASE), ["tasks=semseg"])
    assert config["tasks"] == ["semseg"]
    assert config["balancer"] == {"type": "Uncertainty", "factors": {"semseg": 1}}
    assert config["model"]["heads"] == {}
    assert config["model"]["decoder"]["task_widths"] == {}
    assert config["model"]["backbone"]["depth"] == 6  # of the network, no task
    assert config["training"]["loss_options"] == config["evaluation"]["metric_options"] == {}
    assert config["evaluation"]["during_training"] == {}
    assert config["evaluation"]["baseline"] == {"semseg": 1}
    assert "positive_weight" not in config.text
    assert built(write(BASE), "tasks=semseg").network.task_names == ("semseg",)


def test_a_copy_may_have_other_tasks(write):
    config = load_config(write(BASE), ["tasks=semseg"]).with_options({"tasks": ["edge", "depth"]})
    assert config["balancer"]["factors"] == {"depth": 1, "edge": 1}
    assert config["model"]["heads"] == {"edge": {"type": "ConvHead", "hidden": 8}}
    assert config["training"]["loss_options"] == {"edge": {"positive_weight": 0.8}}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("factors=dict(", "factors=dict(dept=1, "),
        ("task_widths=dict(", "task_widths=dict(dept=1, "),
        ("heads=dict(", "heads=dict(dept=dict(type='ConvHead'), "),
        ("loss_options=dict(", "loss_options=dict(dept=dict(), "),
        ("metric_options=dict(", "metric_options=dict(dept=dict(), "),
        ("during_training=dict(", "during_training=dict(dept=dict(), "),
        ("baseline=dict(", "baseline=dict(dept=1, "),
    ],
)
@pytest.mark.parametrize("tasks", ["['depth']", "None"])
def test_names_that_are_no_task_are_refused_before_training(write, old, new, tasks):
    with pytest.raises((UnknownNameError, ValueError), match="dept"):
        built(write(BASE.replace(old, new)), f"tasks={tasks}")


def test_mistakes_in_tasks_and_baselines(write):
    with pytest.raises(UnknownNameError, match=r"'dept'. Did you mean 'depth'"):
        load_config(write(BASE), ["tasks=dept"])
    with pytest.raises(ValueError, match=r"evaluation.baseline has no score of depth"):
        Settings.of(
            load_config(write(BASE.replace("baseline=dict(semseg=1, depth=1", "baseline=dict(semseg=1")))
        )
    with pytest.raises(UnknownNameError, match="baseline of protocol synthetic-scenes"):
        Settings.of(load_config(write(BASE), ["evaluation.baseline=nobody"]))


def test_helpers_that_are_absent_help_nobody():
    path = ROOT / "configs/pad_net/pad_net_helpers_hrnet_w18s_nyud_survey_1xb8_100ep.py"
    helpers = {
        tasks: load_config(path, [f"tasks={tasks}"])["model"]["decoder"]["helpers"]
        for tasks in ("depth", "depth,edge", "edge", "normals,edge", "semseg,depth,normals,edge")
    }
    assert list(helpers.values()) == [[], ["edge"], [], [], ["normals", "edge"]]


def test_labels_may_be_derived_from_an_absent_task(tmp_path, write):
    (tmp_path / "images").mkdir()
    (tmp_path / "classes").mkdir()
    classes = np.zeros((8, 8), np.uint8)
    classes[:, 4:] = 1
    cv2.imwrite(str(tmp_path / "images/a.png"), np.zeros((8, 8, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "classes/a.png"), classes)
    text = f"""
protocol = dict(id="own", tasks=dict(semseg=dict(class_names=["a", "b"]), edge=dict()))
LABELS = dict(semseg="classes", edge=dict(derive="edges_from_classes", source="semseg"))
train_data = dict(dataset=dict(type="FolderDataset", root={str(tmp_path)!r}, labels=LABELS))
"""
    config = load_config(write(text), ["tasks=edge"])
    dataset = build_dataset("train_data", config["train_data"], Settings.of(config).protocol, 0)
    labels = dataset[0].labels
    assert list(labels) == ["edge"]
    assert labels["edge"].sum() > 0
    wrong = load_config(write(text.replace("LABELS = dict(", "LABELS = dict(dept='x', ")), ["tasks=edge"])
    with pytest.raises(UnknownNameError, match="dept"):
        build_dataset("train_data", wrong["train_data"], Settings.of(wrong).protocol, 0)


PLAIN_ROWS = ("", "_resnet18", "_vit", "_swin")
"""Ends of the names of the plain decoder's rows, one per backbone."""


@pytest.mark.parametrize("row", PLAIN_ROWS)
@pytest.mark.parametrize("task", ["semseg", "depth", "normals", "edge"])
def test_committed_single_task_records_are_those_of_the_plain_rows(row, task, tmp_path):
    """`launch` finds the runs finished, and tables find the baseline."""
    name = f"parallel{row}_tiny_synthetic_1xb8_300"
    records = [Record.load(RESULTS / f"{name}_tasks-{task}_seed{seed}.json") for seed in range(3)]
    runs = expand(
        [ROOT / "configs/parallel" / f"{name}.py"],
        seeds=range(3),
        axes={"tasks": [f"['{task}']"]},
        name="single-task {tasks}",
        work_dir=tmp_path,
    )
    assert [(run.fingerprint, run.seed) for run in runs] == [record_key(record) for record in records]
    assert {record.method for record in records} == {run.method for run in runs}


def test_every_committed_single_task_record_is_one_of_these():
    single = [path for path in RESULTS.glob("*.json") if len(json.loads(path.read_text())["tasks"]) == 1]
    assert len(single) == 3 * 4 * len(PLAIN_ROWS)

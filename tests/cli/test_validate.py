"""`mtvision validate`: every stage passes on a sound config and names what is wrong with another."""

from __future__ import annotations

import json
import tempfile

import discs
import pytest
from torch import nn

from mtvision.cli.main import command_line
from mtvision.cli.validate import STAGES
from mtvision.core.registry import BACKBONES, HEADS
from mtvision.models.heads import ConvHead
from mtvision.recipe.shipped import shipped_configs
from mtvision.report.record import Record

NOISE = ("--random-data", "--size", "32", "32")


@HEADS.register_module()
class ShortHead(ConvHead):
    """One channel less than the task has."""

    def forward(self, feature):
        return super().forward(feature)[:, 1:]


@BACKBONES.register_module()
class CuriousNet(discs.DropoutNet):
    """Reads a value in training, which no tensor on the meta device has."""

    def stem(self, image):
        assert not self.training or float(image.abs().sum()) >= 0
        return image


@BACKBONES.register_module()
class PickyNet(discs.DropoutNet):
    """Fails in training, on every device."""

    def stem(self, image):
        return image[:, :2] if self.training else image


@BACKBONES.register_module()
class IdleNet(discs.DropoutNet):
    """Has a layer that nothing uses."""

    def __init__(self, **options):
        super().__init__(**options)
        self.idle = nn.Linear(2, 2)


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A config of the discs; what is written beside it, or as temporary file, is found in `tmp_path`."""
    for name in ("here", "temporary"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return str(discs.write_config(tmp_path))


def left_behind(folder):
    return [*(folder / "here").iterdir(), *(folder / "temporary").glob("mtvision*")]


def report(capsys, *arguments):
    """Run with `--json`: exit code and the entries of the configs."""
    code = command_line(["validate", *map(str, arguments), "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_a_sound_config_passes_all_stages_and_leaves_nothing_behind(config, tmp_path, capsys):
    assert command_line(["validate", config]) == 0
    name, *lines, last = capsys.readouterr().out.splitlines()
    assert name == config
    assert [line.split()[:2] for line in lines] == [["✓", stage] for stage in STAGES]
    assert "train_data 12 images, 32x32; val_data 7 images" in lines[2]
    assert "losses semseg " in lines[3]
    assert "gradients of " in lines[3]
    assert "record.json and 1 picture" in lines[4]
    assert last.startswith(f"{config} is valid: 0.0")
    assert left_behind(tmp_path) == []


def test_json_has_the_facts_of_every_stage(config, capsys):
    code, (entry,) = report(capsys, config, *NOISE)
    assert code == 0
    assert entry["valid"]
    facts = {item["stage"]: item for item in entry["stages"]}
    assert list(facts) == list(STAGES)
    assert facts["build"]["parameters"] == facts["build"]["trainable"] > 0
    assert facts["data"]["train_data"] == {"images": 4, "size": [32, 32], "unlabelled": []}
    assert facts["step"]["losses"].keys() == facts["score"]["scores"].keys() == {"semseg", "depth"}
    assert facts["step"]["without_gradient"] == []


def test_a_warm_up_is_no_longer_than_the_run_it_belongs_to(config, capsys):
    """The trial has one step; entries without an end still end with the run."""
    schedule = (
        "schedule=[{'type': 'LinearLR', 'start_factor': 0.1, 'end': 4}, {'type': 'PolyLR', 'begin': 4}]"
    )
    code, (entry,) = report(capsys, config, *NOISE, "--cfg-options", schedule)
    assert code == 0, entry


def test_until_stops_early_and_keep_keeps_the_run(config, tmp_path, capsys):
    kept = tmp_path / "kept"
    code, (entry,) = report(capsys, config, "--until", "build", "--keep", kept)
    assert (code, [item["stage"] for item in entry["stages"]]) == (0, ["schema", "build"])
    assert not kept.exists()
    assert report(capsys, config, "--keep", kept)[0] == 0
    record = Record.load(kept / "discs_config" / "record.json")
    assert record.scored["images"] == 2
    assert record.cost is None
    code, (entry,) = report(capsys, config, "--keep", kept)
    assert (code, entry["valid"]) == (2, False)
    assert "kept/discs_config exists" in entry["error"]


MISTAKES = {  # option of --cfg-options: the stage that finds it, and parts of its message
    "model.decoder.widht=3": ("schema", ("model.decoder", "'width'")),
    "model.head.type=ShortHead": (
        "build",
        ("model: logits of task 'semseg' have shape (2, 1, ", "expected (2, 2, ", "has 2 channels"),
    ),
    "model.backbone.type=PickyNet": ("build", ("model, on images of ", "channels")),
    "optimizer.lr_factors={'nothing.*': 2}": ("build", ("optimizer, schedule", "'nothing.*'")),
    "training.freeze=['backbonne.*']": ("build", ("training.freeze: ", "backbonne.*")),
    "training.role_overrides={'heads.*': 'task:dept'}": (
        "build",
        ("role of 'heads.*' in training.role_overrides 'task:dept'", "'task:depth'"),
    ),
    "val_data.dataset={'type': 'FolderDataset', 'root': 'nowhere', 'labels': {'semseg': 'a', 'depth': ''}}": (
        "data",
        ("val_data.dataset.root='nowhere'", "nowhere/images"),
    ),
    "train_data.batch_size=0x100": ("data", ("train_data",)),
    "val_data.dataset.without_depth=(0, 1, 2, 3, 4, 5, 6)": (
        "data",
        ("val_data: ", "no labelled pixel of depth in any of 7 images"),
    ),
    "train_data.dataset.broken=0": ("step", ("loss of depth is ", "disc-0")),
    "evaluation.metric_options={'depth': {'max_depth': 1e-6}}": ("score", ("val_data", "task 'depth'")),
}


@pytest.mark.parametrize("option", MISTAKES)
def test_a_mistake_ends_at_its_stage_with_one_line(option, config, tmp_path, capsys):
    stage, parts = MISTAKES[option]
    assert command_line(["validate", config, "--cfg-options", option]) == 2
    out, message = capsys.readouterr()
    assert out.splitlines()[-1] == f"  ✗ {stage}"
    (line,) = [item for item in message.splitlines() if item.startswith("mtvision validate: ")]
    assert all(part in line for part in parts), line
    assert left_behind(tmp_path) == []


def test_a_work_dir_that_cannot_be_written_is_told_first(config, tmp_path, capsys):
    (tmp_path / "file").touch()
    code, (entry,) = report(capsys, config, "--work-dir", tmp_path / "file" / "run")
    assert (code, entry["failed"], entry["stages"]) == (2, "schema", [])
    assert "file is a file" in entry["error"]


def test_several_configs_are_all_tried(config, capsys):
    code = command_line(["validate", "no_such", config, "--until", "build"])
    out, message = capsys.readouterr()
    assert code == 2
    assert "mtvision validate: no_such: config no_such does not exist" in message
    assert "1 of 2 configs are not valid: no_such." in message
    assert f"{config} is valid" in out


def test_what_the_meta_device_cannot_run_is_run_on_the_cpu(config, capsys):
    code, (entry,) = report(
        capsys, config, "--until", "build", "--cfg-options", "model.backbone.type=CuriousNet"
    )
    assert code == 0
    assert "run on the CPU: the meta device cannot (" in entry["stages"][-1]["text"]


def test_parameters_without_a_gradient_are_named(config, capsys):
    options = ("--until", "step", "--cfg-options", "model.backbone.type=IdleNet")
    code, (entry,) = report(capsys, config, *NOISE, *options)
    assert code == 0
    assert entry["stages"][-1]["without_gradient"] == ["backbone.idle.weight", "backbone.idle.bias"]
    assert (
        "no gradient in this step of 2 of 54 parameter tensors: backbone.idle.weight"
        in entry["stages"][-1]["text"]
    )


def test_images_are_chosen_so_that_every_task_has_a_label(config, capsys):
    lacking = "train_data.dataset.without_depth=(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)"
    code, (entry,) = report(capsys, config, "--until", "step", "--cfg-options", lacking)
    assert code == 0
    assert entry["stages"][-1]["losses"].keys() == {"semseg", "depth"}


def test_training_without_labels_of_a_task_is_said(config, capsys):
    lacking = "train_data.dataset.without_depth=(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11)"
    code, (entry,) = report(capsys, config, "--until", "step", "--cfg-options", lacking)
    assert code == 0
    assert entry["stages"][2]["train_data"]["unlabelled"] == ["depth"]
    assert "no label of depth in 12 of them" in entry["stages"][2]["text"]


def test_train_refuses_before_its_first_step_what_cannot_be_scored(config, tmp_path, capsys):
    lacking = "val_data.dataset.without_depth=(0, 1, 2, 3, 4, 5, 6)"
    work_dir = tmp_path / "work"
    assert command_line(["train", config, "--work-dir", str(work_dir), "--cfg-options", lacking]) == 2
    assert "val_data: no labelled pixel of depth in any of 7 images" in capsys.readouterr().err
    assert not work_dir.exists()


QUICK = (  # searches, CNNs and a ViT, of four protocols
    "branching/ltb_narrow_synthetic_units_1xb8_800",
    "branching/rsa_narrow_synthetic_units_1xb8_800",
    "multi_decoder/multi_decoder_resnet18_pascal_survey_1xb6_100ep",
    "multi_decoder/multi_decoder_resnet50_nyud_survey_1xb8_100ep",
    "parallel/parallel_resnet50_nyuv2_mtan_1xb8_200ep",
    "taskprompter/taskprompter_tiny_synthetic_1xb8_300",
)
NEAR_COPIES = ("separate50", "separate75", "separate100")  # of separate25: a width is all that differs
NAMES = [item.name for item in shipped_configs() if not item.file.name.startswith(NEAR_COPIES)]
REAL = ("bsds_sod/", "camvid/")  # their models are those of mosd


def marks(name: str) -> list[pytest.MarkDecorator]:
    return [] if name in QUICK else [pytest.mark.slow, *([pytest.mark.long] if name.startswith(REAL) else [])]


CASES = [pytest.param(name, marks=marks(name)) for name in NAMES]


@pytest.mark.parametrize("name", CASES)
def test_a_shipped_config_can_be_built(name, capsys):
    code, (entry,) = report(capsys, name, "--until", "build")
    assert (code, entry["error"]) == (0, None)


def test_quick_configs_are_shipped():
    assert set(QUICK) <= set(NAMES)

"""Reading configs: defaults, overrides and the messages for every kind of typo."""

from __future__ import annotations

import pytest

from mtvision.core.naming import UnknownNameError
from mtvision.recipe.check import check_config
from mtvision.recipe.config import load_config, parse_option
from mtvision.recipe.settings import Settings

BASE = """
protocol = "synthetic-scenes"
model = dict(backbone=dict(type="TimmBackbone", name="resnet18"), decoder=dict(type="ParallelDecoder"))
train_data = dict(dataset=dict(type="SyntheticScenes", split="train"), batch_size=2)
optimizer = dict(type="AdamW", lr=1e-3)
schedule = [dict(type="PolyLR", end=10)]
training = dict(iterations=10)
"""


@pytest.fixture
def write(tmp_path):
    def write(text: str):
        path = tmp_path / "config.py"
        path.write_text(text)
        return path

    return write


def test_defaults_are_filled_in(write):
    config = load_config(write(BASE))
    settings = Settings.of(config)
    assert settings.training.iterations == 10
    assert settings.training.precision == "fp32"
    assert settings.protocol.id == "synthetic-scenes"
    assert config["balancer"] == {"type": "FixedWeights"}


def test_options_change_values_and_lists(write):
    config = load_config(
        write(BASE),
        ["training.clip_grad=5", "schedule.0.end=3", "optimizer.lr=1e-4", "model.decoder.width=8"],
    )
    assert config["training"]["clip_grad"] == 5
    assert config["schedule"][0]["end"] == 3
    assert config["optimizer"]["lr"] == 1e-4
    assert config["model"]["decoder"]["width"] == 8


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("optimiser.lr=1", "Unknown key of the config 'optimiser'. Did you mean 'optimizer'"),
        ("training.iteratons=1", "Unknown key of training 'iteratons'. Did you mean 'iterations'"),
        ("schedule.1.end=1", "Unknown index of schedule '1'"),
    ],
)
def test_unknown_option_names_its_neighbours(write, option, message):
    with pytest.raises(UnknownNameError, match=message):
        load_config(write(BASE), [option])


def test_a_value_has_no_keys(write):
    with pytest.raises(ValueError, match=r"optimizer\.lr is .* and has no key 'x'. Set optimizer\.lr itself"):
        load_config(write(BASE), ["optimizer.lr.x=1"])


def test_unknown_top_level_and_section_keys(write):
    with pytest.raises(
        UnknownNameError, match="top-level key of config.py 'balencer'. Did you mean 'balancer'"
    ):
        load_config(write(BASE + "balencer = dict(type='LogSum')\n"))
    with pytest.raises(UnknownNameError, match="key of 'training' in config.py 'max_iters'"):
        load_config(write(BASE.replace("iterations=10", "max_iters=10")))


def test_missing_file_lists_what_is_there(write, tmp_path):
    write(BASE)
    with pytest.raises(
        FileNotFoundError, match=r"config .*confg.py does not exist.* In that folder: .*config.py"
    ):
        load_config(tmp_path / "confg.py")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("training = dict(iterations=\n", "was never closed"),
        ("from mmengine.config import read_base\nimport a_missing_package\n", "a_missing_package"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_the_reason(write, text, reason):
    with pytest.raises(ValueError, match=rf"config .*config\.py: .*{reason}"):
        load_config(write(text))


def test_options_add_what_a_config_does_not_state_of_a_task(write):
    """The dicts of a task's options are checked afterwards, so that a new key is no trap."""
    text = 'protocol = dict(id="own", tasks=dict(depth=dict(), near=dict(type="depth")))\n'
    options = ["protocol.tasks.near.max_depth=8", "training.loss_options.depth.x=1"]
    config = load_config(write(text), options)
    assert config["protocol"]["tasks"]["near"] == {"type": "depth", "max_depth": 8}
    with pytest.raises(
        UnknownNameError, match=r"training\.loss_options\.depth\.x: Unknown L1Loss argument 'x'"
    ):
        check_config(config)


def test_options_add_no_task(write):
    text = 'protocol = dict(id="own", tasks=dict(depth=dict(), near=dict(type="depth")))\n'
    with pytest.raises(UnknownNameError, match="'naer'. Did you mean 'near'"):
        load_config(write(text), ["protocol.tasks.naer.label_channels=3"])


def test_options_that_are_no_pairs_are_refused():
    with pytest.raises(ValueError, match="expected key=value, got 'training.iterations'"):
        parse_option("training.iterations")
    with pytest.raises(ValueError, match="--maps: expected key=value, got 'depth.scale'"):
        parse_option("depth.scale", "--maps")


@pytest.mark.parametrize(
    ("text", "value"),
    [("a=1e-4", 1e-4), ("a=None", None), ("a=none", None), ("a=true", True), ("a=x-y", "x-y")],
)
def test_option_values(text, value):
    assert parse_option(text) == ("a", value)


def test_tasks_select_a_part_of_the_protocol(write):
    config = load_config(write(BASE), ["tasks=['depth','semseg']"])
    assert Settings.of(config).protocol.task_names == ("semseg", "depth")
    with pytest.raises(UnknownNameError, match="Did you mean 'depth'"):
        Settings.of(config.with_options({"tasks": ["dept"]}))
    assert Settings.of(config).protocol.task_names == ("semseg", "depth")


def test_bad_values_are_named(write):
    with pytest.raises(ValueError, match="training.iterations must be an integer of at least 1, got 0"):
        Settings.of(load_config(write(BASE), ["training.iterations=0"]))
    with pytest.raises(UnknownNameError, match="training.precision 'bf17'. Did you mean 'bf16'"):
        Settings.of(load_config(write(BASE), ["training.precision=bf17"]))


def test_text_depends_on_content_only(write, tmp_path):
    one = load_config(write(BASE))
    other = tmp_path / "other" / "name.py"
    other.parent.mkdir()
    other.write_text(BASE)
    assert one.text == load_config(other).text
    assert one.text != load_config(other, ["seed=1"]).text


def test_a_mistake_in_a_part_of_a_joint_data_set_names_the_part(write):
    part = 'dict(type="SyntheticScenes", split="train")'
    wrong = 'dict(type="SyntheticScenes", split="train", lenght=3)'
    joint = f'train_data = dict(dataset=dict(type="JointDataset", parts=[{part}, {wrong}]), batch_size=2)'
    head = 'model["head"] = dict(type="ConvHead")\n'
    with pytest.raises(UnknownNameError, match=r"train_data\.dataset\.parts\.1.*lenght.*length"):
        check_config(load_config(write(BASE + head + joint)))

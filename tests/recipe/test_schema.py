"""The JSON schema and the reference page: made from the code, true of the shipped configs."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Annotated

import jsonschema
import pytest

from mtvision.cli.main import call
from mtvision.core.registry import BALANCERS
from mtvision.core.values import Share
from mtvision.recipe.check import TO_TRAIN, load_checked
from mtvision.recipe.config import load_config
from mtvision.recipe.schema.json_schema import config_schema
from mtvision.recipe.schema.reference import reference_page

ROOT = Path(__file__).parents[2]
SHIPPED = (
    "camvid/parallel_lite0_camvid_1xb8_300",
    "kendall/kendall_resnet101_cityscapes_1xb8_100k",
    "branching/bmtas_resnet10t_synthetic_1xb8_200",
    "slimmable/slimmable_regnetx_002_synthetic_1xb8_400",
    "mtmamba/mtmamba_tiny_synthetic_1xb8_300",
    "mtan/mtan_resnet50_nyud_survey_1xb8_100ep",
)


@pytest.fixture(scope="module")
def schema():
    return config_schema()


@pytest.fixture(scope="module")
def validator(schema):
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.fixture(scope="module")
def plain():
    """A completed config as JSON has it."""
    return json.loads(json.dumps(dict(load_config(SHIPPED[0]))))


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_configs_follow_the_schema(validator, name):
    content = json.loads(json.dumps(dict(load_config(name))))
    assert [error.message for error in validator.iter_errors(content)] == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("training.iterations", 0),
        ("training.iteratoins", 5),
        ("training.precision", "fp61"),
        ("evaluation.pictures", "four"),
        ("logging.project", ""),
        ("seed", -1),
        ("model.decoder.type", "ParalelDecoder"),
        ("model.decoder.widht", 3),
        ("model.decoder.width", 0),
        ("model.decoder", {"width": 3}),
        ("optimizer.lr", "fast"),
        ("optimizer.betas", [0.9, "x"]),
        ("train_data.dataset.transforms", "lihgt"),
        ("train_data.dataset.transforms", [{"type": "RandomHorizontalFlip", "p": 2}]),
        ("train_data.dataset.labels", {"semseg": {"fodler": "x"}}),
        ("protocol", "nyud-invtp"),
        ("protocol.tasks.semseg.clas_names", ["a"]),
        ("schedule", [{"type": "PolyLR", "powr": 1}]),
        ("search", {"type": "RSASearcher", "held_out": 2}),
    ],
    ids=str,
)
def test_the_schema_refuses_what_the_check_refuses(validator, plain, key, value):
    content = copy.deepcopy(plain)
    node = content
    *parents, last = key.split(".")
    for name in parents:
        node = node[name]
    node[last] = value
    assert not validator.is_valid(content)


def test_a_class_by_its_path_has_free_arguments(validator, plain):
    content = copy.deepcopy(plain)
    content["model"]["decoder"] = {"type": "mylab.decoders.Mine", "rank": 3}
    assert validator.is_valid(content)


def test_options_have_their_documentation_and_defaults(schema):
    training = schema["$defs"]["TrainingSettings"]["properties"]
    assert training["iterations"] == {
        "type": "integer",
        "minimum": 1,
        "description": "optimizer steps.",
        "default": 1000,
    }
    cases = schema["$defs"]["decoder"]["allOf"]
    parallel = next(item for item in cases if item["if"]["properties"]["type"]["const"] == "ParallelDecoder")
    assert parallel["then"]["properties"]["width"]["description"] == "channels of each task's decoder."
    assert "channels" not in parallel["then"]["properties"]  # the suite supplies it


def test_classes_of_plugins_are_in_the_schema():
    @BALANCERS.register_module()
    class OwnBalancer:
        """Mine.

        Args:
            rate: how fast.
        """

        def __init__(self, *, tasks, rate: Annotated[Share, "fast"] = 0.5) -> None: ...

    try:
        cases = config_schema()["$defs"]["balancer"]["allOf"]
    finally:
        del BALANCERS["OwnBalancer"]
    own = next(item["then"] for item in cases if item["if"]["properties"]["type"]["const"] == "OwnBalancer")
    assert own["properties"]["rate"] == {
        "type": "number", "minimum": 0, "maximum": 1, "description": "how fast.", "default": 0.5
    }  # fmt: skip


def test_the_reference_page_is_current():
    """`mtvision configs reference --out docs/config_reference.md` writes it."""
    assert (ROOT / "docs" / "config_reference.md").read_text(encoding="utf-8") == reference_page()


def test_the_commands_write_both(tmp_path, capsys):
    target = tmp_path / "new" / "schema.json"
    assert call("configs", ["schema", "--out", str(target)]) == 0
    assert json.loads(target.read_text())["$schema"].endswith("2020-12/schema")
    capsys.readouterr()
    assert call("configs", ["reference"]) == 0
    assert capsys.readouterr().out == reference_page()


def test_json_and_yaml_are_configs_too(tmp_path):
    text = (
        "# yaml-language-server: $schema=mtvision.schema.json\n"
        "protocol: synthetic-scenes\n"
        "model:\n"
        "  backbone: {type: TimmBackbone, name: resnet18}\n"
        "  decoder: {type: ParallelDecoder}\n"
        "  head: {type: ConvHead}\n"
        "train_data: {dataset: {type: SyntheticScenes, split: train}}\n"
        "test_data: {dataset: {type: SyntheticScenes, split: test}}\n"
        "optimizer: {lr: 0.001}\n"
    )
    (tmp_path / "config.yaml").write_text(text)
    config, _ = load_checked(tmp_path / "config.yaml", needs=TO_TRAIN)
    (tmp_path / "config.json").write_text(json.dumps(dict(config)))
    again, _ = load_checked(tmp_path / "config.json", needs=TO_TRAIN)
    assert dict(again) == dict(config)

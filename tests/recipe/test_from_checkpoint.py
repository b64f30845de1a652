"""The config in a checkpoint is read as data: a file from anywhere runs nothing."""

from __future__ import annotations

import pytest
import torch

from mtvision.cli.main import call
from mtvision.recipe.config import load_config
from mtvision.recipe.from_checkpoint import config_data, config_of_checkpoint
from mtvision.recipe.shipped import shipped_configs
from mtvision.runtime.checkpoint import CheckpointError

EVIL = {
    "a call": "name = __import__('os').system('touch RUN')\n",
    "a call inside": "model = dict(backbone=dict(type=open('RUN', 'w').name))\n",
    "a call of dict's own": "model = dict.fromkeys([open('RUN', 'w').name])\n",
    "an import": "import os\nname = 'a'\n",
    "a name of another value": "dict = open\nname = dict(file='RUN')\n",
    "a base": "_base_ = ['/tmp/other.py']\n",
    "an import by mmengine": "custom_imports = dict(imports=['antigravity'])\n",
    "a text that mmengine replaces": "name = '{{$X:1}}'\n",
    "a key of a replaced text": "model = {'{{$X:1}}': 1}\n",
    "an attribute": "TOP = 1\nname = TOP.real\n",
    "a comprehension": "tasks = [open('RUN', 'w') for _ in (1,)]\n",
    "no Python": "name = (\n",
    "deep": "name = " + "[" * 400 + "]" * 400 + "\n",
}


@pytest.mark.parametrize("case", EVIL)
def test_what_is_more_than_data_is_refused_and_not_run(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = {"meta": {"config": EVIL[case].replace("RUN", str(tmp_path / "run"))}}
    with pytest.raises(CheckpointError, match=r"a\.pth: line .* is more than data .*--config CONFIG"):
        config_of_checkpoint(content, "a.pth")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("config", shipped_configs()[::9], ids=lambda item: item.name)
def test_completed_configs_are_data(config):
    completed = load_config(config.file)
    again = config_of_checkpoint({"meta": {"config": completed.text}}, "a.pth")
    assert dict(again) == dict(completed)
    assert again.text == completed.text


def test_values_of_every_kind():
    text = "name = 'a'\nmodel = dict(ids={0: 1, 'a.*': (1, -2.5)}, none=None, **{'x y': [True]})\nseed = 3\n"
    assert config_data(text, "a.pth") == {
        "name": "a",
        "model": {"ids": {0: 1, "a.*": (1, -2.5)}, "none": None, "x y": [True]},
        "seed": 3,
    }


def test_a_plugin_that_lies_elsewhere_here_is_named(tmp_path):
    (tmp_path / "parts.py").write_text("WHO = 'here'\n")
    content = {"meta": {"config": "plugins = ['/gone/parts.py']\n"}}
    config = config_of_checkpoint(content, "a.pth", plugins=[str(tmp_path / "parts.py")])
    assert config["plugins"] == [str(tmp_path / "parts.py")]


@pytest.mark.parametrize("command", ["cost", "test"])
def test_commands_without_the_option_say_where_the_config_goes(command, tmp_path, capsys):
    file = tmp_path / "a.pth"
    torch.save({"a": torch.zeros(1)}, file)
    assert call(command, [str(file)]) == 2
    assert "`test` CONFIG CHECKPOINT, `cost` CONFIG alone" in capsys.readouterr().err

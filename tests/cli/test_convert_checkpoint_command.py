"""The command converts both ways, prints its report, and refuses politely."""

from __future__ import annotations

import torch

from mtvision.cli.main import command_line
from mtvision.models.convert import revert


def test_there_and_back(tmp_path, capsys):
    official, _ = revert({"backbone.norm_f.weight": torch.arange(3.0)}, "vim")
    torch.save({"model": {**official, "head.weight": torch.ones(2)}}, tmp_path / "a.pth")
    a, b, c = (str(tmp_path / name) for name in ("a.pth", "b.safetensors", "c.pth"))
    assert command_line(["convert-checkpoint", "--from", "vim", a, b]) == 0
    assert "1 tensors converted, 1 dropped" in capsys.readouterr().out
    assert command_line(["convert-checkpoint", "--to", "vim", b, c]) == 0
    assert torch.load(c, weights_only=True)["model"]["norm_f.weight"].tolist() == [0, 1, 2]


def test_a_wrong_source_is_one_message(tmp_path, capsys):
    torch.save({"model": {"foo": torch.ones(1)}}, tmp_path / "a.pth")
    arguments = ["--from", "vim", str(tmp_path / "a.pth"), str(tmp_path / "b.safetensors")]
    assert command_line(["convert-checkpoint", *arguments]) == 2
    assert "1 keys of the checkpoint have no counterpart: foo" in capsys.readouterr().err
    assert not (tmp_path / "b.safetensors").exists()

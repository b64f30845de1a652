"""Representation Surgery: fresh corrections change nothing, trained ones bring features to the parent's."""

from __future__ import annotations

import discs
import pytest
import torch

from mtvision.cli.main import call
from mtvision.core.sample import Batch, Meta
from mtvision.models.adapters.surgery import Correction
from mtvision.models.factory import build_network
from mtvision.procedures.surgery import train_corrections
from mtvision.recipe.building import network_of
from mtvision.recipe.config import load_config
from mtvision.recipe.settings import protocol_of
from mtvision.runtime.checkpoint import load_checkpoint, save_checkpoint

PLAIN = {
    "backbone": {"type": "DropoutNet"},
    "decoder": {"type": "ParallelDecoder", "width": 8},
    "head": {"type": "ConvHead"},
}


def network(*adapters, seed=0):
    torch.manual_seed(seed)
    return build_network({**PLAIN, "adapters": list(adapters)}, discs.PROTOCOL.tasks).eval()


def test_a_correction_is_the_formula():
    unit, z = Correction(6, 3), torch.randn(2, 6, 4, 5)
    assert torch.equal(unit(z), z)
    torch.nn.init.normal_(unit.up.weight)
    one, two = unit.down.weight[:, :, 0, 0], unit.up.weight[:, :, 0, 0]
    wanted = z - torch.einsum("cr,brhw->bchw", two, torch.einsum("rc,bchw->brhw", one, z).relu())
    assert torch.allclose(unit(z), wanted, atol=1e-6)


def test_a_fresh_surgery_is_the_plain_network():
    plain, own = network(), network({"type": "Surgery", "rank": 4})
    state = {f"backbone.shared.{name[9:]}" if name.startswith("backbone.") else name: item
             for name, item in plain.state_dict().items()}  # fmt: skip
    own.load_state_dict({**own.state_dict(), **state})
    image = torch.rand(2, 3, 32, 32)
    for name, item in own(image).items():
        assert torch.equal(item, plain(image)[name])


def test_only_the_corrections_of_a_task_are_trained_and_their_loss_falls():
    own, teacher = network({"type": "Surgery", "rank": 8}), network(seed=3)
    own.requires_grad_(False)
    before = {name: item.clone() for name, item in own.state_dict().items()}
    meta = [Meta(id="a", size=(32, 32), original_size=(32, 32))]
    batch = Batch(image=torch.rand(1, 3, 32, 32), labels={}, present={}, meta=meta)
    first, last = train_corrections(
        own.backbone, "depth", teacher.backbone, lambda: [batch], steps=80, lr=0.02
    )
    assert last < 0.6 * first
    changed = {name for name, item in own.state_dict().items() if not torch.equal(item, before[name])}
    assert changed
    assert all("corrections.depth." in name for name in changed)
    same, kept = train_corrections(
        own.backbone, "semseg", own.backbone.shared, lambda: [batch], steps=3, lr=0.02
    )
    assert same == kept == 0  # the merged features are the parent's


@pytest.mark.slow
def test_the_command_writes_a_network_that_can_be_read(tmp_path, capsys):
    text = discs.CONFIG.replace(
        'head=dict(type="ConvHead"),',
        'head=dict(type="ConvHead"),\n adapters=[dict(type="Surgery", rank=4)],',
    )
    plain = load_config(discs.write_config(tmp_path))
    protocol = protocol_of(plain)
    for name, tasks in (("merged", ["semseg", "depth"]), ("one", ["semseg"]), ("two", ["depth"])):
        torch.manual_seed(len(name))
        own = plain.with_options({"tasks": tasks})
        state = network_of(own, protocol.select(tasks)).state_dict()
        meta = {"protocol": protocol.id, "tasks": tasks}
        content = {"meta": meta, "state_dict": {f"network.{key}": item for key, item in state.items()}}
        save_checkpoint(tmp_path / f"{name}.pth", content)
    (tmp_path / "with").mkdir()
    config = discs.write_config(tmp_path / "with", text)
    words = [str(config), str(tmp_path / "merged.pth"), "--out", str(tmp_path / "out.pth"), "--steps", "5"]
    parents = [f"semseg={tmp_path / 'one.pth'}", f"depth={tmp_path / 'two.pth'}"]
    assert call("surgery", [*words, "--parents", *parents, "--held-out", "0.4"]) == 0
    assert "difference of features" in capsys.readouterr().out
    content = load_checkpoint(tmp_path / "out.pth")
    assert content["meta"]["surgery"]["steps"] == 5
    assert any("corrections.depth" in name for name in content["state_dict"])
    assert call("surgery", [*words, "--parents", parents[0]]) == 2
    assert "no parent of depth" in capsys.readouterr().err

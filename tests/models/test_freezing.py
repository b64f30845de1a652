"""Frozen parts: weights, running statistics and dropout stand still, everything else learns."""

from __future__ import annotations

import copy
from pathlib import Path

import data_problems as problems
import discs
import pytest
import torch
from torch import nn

from mtvision.architecture.tree import Tree
from mtvision.balance import Uncertainty
from mtvision.engine.optimization.optimizer import build_optimizer
from mtvision.engine.training import fit
from mtvision.models.factory import build_network
from mtvision.models.freezing import FreezeError
from mtvision.recipe.config import load_config
from mtvision.runtime.checkpoint import load_checkpoint

MODEL = {
    "backbone": {"type": "DropoutNet"},
    "decoder": {"type": "ParallelDecoder", "width": 8},
    "head": {"type": "ConvHead"},
}
SHORT = ["training.iterations=3", "training.val_interval=0", "training.checkpoint_interval=2"]


@pytest.fixture
def network():
    return build_network(MODEL, discs.PROTOCOL.tasks)


def run(folder: Path, name: str, *options: str, **arguments):
    config = load_config(discs.write_config(folder), [*SHORT, *options])
    fit(config, folder / name, **arguments)
    state = load_checkpoint(folder / name / "iter_3.pth")["state_dict"]
    return {key: item for key, item in state.items() if torch.is_tensor(item)}


@problems.FREEZING
def test_modules_without_anything_to_train_stay_in_evaluation_mode(network):
    frozen = network.freeze(["backbone.stage0.*", "backbone.stage1.0.*", "heads.depth.*"])
    assert frozen.modules == ("backbone.stage0", "backbone.stage1.0", "heads.depth")
    for mode in (True, False, True):
        network.train(mode)
        assert not network.backbone.stage0[1].training  # batch norm
        assert not network.backbone.stage0[3].training  # dropout
        assert network.backbone.stage1[1].training == mode  # not frozen, behind a frozen convolution
        assert network.training == network.backbone.training == mode
    other = copy.deepcopy(network).train()
    assert not other.backbone.stage0[1].training
    assert nn.SyncBatchNorm.convert_sync_batchnorm(other).train().backbone.stage0[1].training is False
    assert str(frozen).startswith("frozen: 8 tensors, 0.00 of 0.01 M parameters; in evaluation mode: back")


VIT = {"type": "TimmBackbone", "name": "vit_tiny_patch16_224", "embed_dim": 8, "depth": 2, "num_heads": 2}
LORA = {"type": "LowRank", "shared": {"*.attn.qkv": 2}}
HOULSBY = {"type": "Houlsby", "shared": {"*.attn.proj": 2}, "train": ()}
PUBLIC = {"type": "Houlsby", "shared": {"public.*.attn.proj": 2}, "train": ()}
EXPERTS = {"type": "MixtureOfExperts", "experts": 2, "top_k": 1}
TREE = Tree(((("semseg", "depth"),), (("semseg",), ("depth",))), (1, 1)).to_plain()


@pytest.mark.parametrize(
    ("adapters", "added"),
    [
        ([LORA, HOULSBY], {"A", "B", "down", "up"}),
        ([EXPERTS, LORA], {"first", "second", "gate", "A", "B"}),
        ([{"type": "ImplicitVectors"}, LORA], {"z", "A", "B"}),
        ([{"type": "DropClassToken"}, LORA], {"A", "B"}),
        ([{"type": "PublicPrivate"}, PUBLIC], {"architecture_gates", "down", "up"}),
        ([LORA, {"type": "PublicPrivate"}, PUBLIC], {"architecture_gates", "A", "B", "down", "up"}),
        ([LORA, {"type": "TAPS", "layers": ["*.fc1"]}], {"A", "B", "deltas"}),
        ([LORA, {"type": "Branched", "tree": TREE}], {"A", "B"}),
        ([{**LORA, "train": ["*norm*"]}, HOULSBY], {"A", "B", "down", "up", "norm1", "norm2", "norm"}),
        (
            [{**LORA, "train": ["*norm1*"]}, {**HOULSBY, "train": ["*norm2*"]}],
            {"A", "B", "down", "up", "norm1", "norm2"},
        ),
        (
            [{**LORA, "train": ["*norm1*"]}, {"type": "PublicPrivate"}, PUBLIC],
            {"architecture_gates", "A", "B", "down", "up", "norm1"},
        ),
        (
            [{**LORA, "train": ["*norm1*"]}, {"type": "TAPS", "layers": ["*.fc1"]}],
            {"A", "B", "deltas", "norm1"},
        ),
    ],
)
def test_an_adapter_freezes_the_base_and_leaves_what_others_have_added(adapters, added):
    backbone = build_network({**MODEL, "backbone": VIT, "adapters": adapters}, discs.PROTOCOL.tasks).backbone
    seen = set()
    for name, item in backbone.named_parameters():
        mine = added & set(name.split("."))
        seen |= mine
        assert item.requires_grad == bool(mine), name
    assert seen == added


@problems.FREEZING
def test_the_optimizer_gets_none_of_them(network):
    network.freeze(["backbone.*"])
    balancer = Uncertainty(tasks=network.task_names)
    optimizer = build_optimizer(network, balancer, {"type": "SGD", "lr": 0.1, "weight_decay": 0.1})
    held = {id(item) for group in optimizer.param_groups for item in group["params"]}
    for name, item in [*network.named_parameters(), *balancer.named_parameters()]:
        assert (id(item) in held) == (not name.startswith("backbone.")), name
    with pytest.raises(ValueError, match=r"'backbone\.\*', which matches no trainable"):
        build_optimizer(network, balancer, {"type": "SGD", "lr": 0.1, "lr_factors": {"backbone.*": 2.0}})


@problems.FREEZING
def test_wrong_patterns_are_named_with_near_ones(network):
    before = {name: item.requires_grad for name, item in network.named_parameters()}
    with pytest.raises(
        FreezeError, match=r"'bakbone\.\*', which matches.*Did you mean 'backbone\.\*'"
    ) as caught:
        network.freeze(["heads.*", "bakbone.*"])
    assert "Its parts are backbone.*, decoder.*, heads.*" in str(caught.value)
    with pytest.raises(FreezeError, match=r"'backbone', which matches no parameter"):
        network.freeze(["backbone"])
    with pytest.raises(FreezeError, match=r"freezes all \d+ parameters; nothing is left to train"):
        network.freeze(["backbone.*", "decoder.*", "heads.*"])
    assert {name: item.requires_grad for name, item in network.named_parameters()} == before


@problems.FREEZING
def test_exceptions_thaw_what_earlier_patterns_froze(network):
    frozen = network.freeze(["backbone.*", "heads.*", "!*.bias", "!backbone.stage1.*", "heads.depth.*"])
    trained = {name for name, item in network.named_parameters() if item.requires_grad}
    for name in dict(network.named_parameters()):
        last = name.startswith("heads.depth.")  # the last pattern that matches decides
        thawed = name.endswith(".bias") or name.startswith(("backbone.stage1.", "decoder."))
        assert (name in trained) == (thawed and not last), name
    assert "heads.depth" in frozen.modules
    assert not any(path.startswith("backbone.stage1") for path in frozen.modules)
    (sum(item.square().sum() for item in network(torch.randn(2, 3, 32, 32)).values())).backward()
    assert {name for name, item in network.named_parameters() if item.grad is not None} <= trained
    with pytest.raises(FreezeError, match=r"'!heads\.\*', but no earlier pattern froze.*\['backbone"):
        network.freeze(["backbone.*", "!heads.*"])
    with pytest.raises(FreezeError, match=r"'backbone\.\*\.bia', which matches no parameter"):
        network.freeze(["backbone.*", "!backbone.*.bia"])


BALANCERS = {
    "uncertainty and average": ("balancer.type=Uncertainty", "training.ema=0.1"),
    "upgrad": ("balancer.type=UPGrad", "training.micro_batches=2", "training.non_finite=skip"),
}


@pytest.mark.parametrize("case", ["uncertainty and average", pytest.param("upgrad", marks=pytest.mark.slow)])
@problems.FREEZING
def test_a_run_moves_nothing_that_is_frozen_and_resumes_bit_for_bit(case, tmp_path):
    options = [*BALANCERS[case], "training.freeze=['backbone.stage0.*', 'heads.depth.*']"]
    whole = run(tmp_path, "whole", *options)
    first = run(tmp_path, "start", *options, "optimizer.lr=0.0")
    moved = {name for name, item in whole.items() if not torch.equal(item, first[name])}
    frozen = {name for name in first if name.startswith(("network.backbone.stage0.", "network.heads.depth."))}
    assert not moved & frozen
    assert {"network.backbone.stage1.0.weight", "network.heads.semseg.logits.weight"} <= moved
    counter = "network.backbone.stage{}.1.num_batches_tracked"
    assert whole[counter.format(0)] == 0
    assert whole[counter.format(1)] > 0
    joined = run(tmp_path, "joined", *options, resume=str(tmp_path / "whole/iter_2.pth"))
    torch.testing.assert_close(joined, whole, rtol=0, atol=0)


def test_nothing_shared_is_left_for_a_balancer_of_gradients(tmp_path):
    """With a frozen backbone the tasks share nothing: each trains alone, whatever the balancer."""
    ours, plain = (
        run(tmp_path, kind, f"balancer.type={kind}", "training.freeze=['backbone.*']")
        for kind in ("UPGrad", "FixedWeights")
    )
    assert torch.equal(ours["network.backbone.stage0.0.weight"], plain["network.backbone.stage0.0.weight"])
    assert not torch.equal(ours["network.heads.depth.logits.bias"], torch.zeros(1))

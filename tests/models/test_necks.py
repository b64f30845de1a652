"""Necks: implicit vectors, AdaTT's fusion, public and private encoders."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from disturbed import disturb

from mtvision.balance.scalar.weighted import FixedWeights
from mtvision.core.context import current_context, use_context
from mtvision.core.naming import UnknownNameError
from mtvision.core.random import is_held_out
from mtvision.core.roles import is_architecture
from mtvision.core.sample import Batch, Meta
from mtvision.models.adapters import AdaTT, Alignment, ImplicitVectors, PublicPrivate
from mtvision.models.adapters.necks.adatt import SHARED, Fusion
from mtvision.models.adapters.necks.alignment import AlignmentMap
from mtvision.models.adapters.necks.gates import SafeGate
from mtvision.models.factory import build_network
from mtvision.models.network import Network
from mtvision.protocols.tasks import depth, normals
from mtvision.steps import LossReport, StepProblem
from mtvision.steps.search_step import SearchStep
from mtvision.testing.inputs import ToyBackbone

TASKS = (depth(), normals())
NAMES = ("depth", "normals")


def toy():
    return ToyBackbone((4, 6), (4, 8))


def maps(backbone, image, name):
    with torch.no_grad():
        return backbone(image).for_task(name).maps


@pytest.mark.conformance("ImplicitVectors", "formulas")
@pytest.mark.parametrize("mode", ["add", "multiply"])
def test_a_vector_changes_the_channels_of_its_task_alone(mode):
    neck, image = ImplicitVectors(mode=mode).apply(toy(), TASKS), torch.randn(2, 3, 16, 24)
    plain = neck.levels(image)
    z = torch.randn(4)
    neck.neck[0].z["depth"].data = z
    want = plain[0] * z[:, None, None] if mode == "multiply" else plain[0] + z[:, None, None]
    assert torch.equal(maps(neck, image, "depth")[0], want)
    assert torch.equal(maps(neck, image, "depth")[1], plain[1])
    assert all(map(torch.equal, maps(neck, image, "normals"), plain))
    drawn = ImplicitVectors(mode=mode, spread=0.02).apply(toy(), TASKS).neck[1].z["depth"]
    assert 0 < (drawn - float(mode == "multiply")).abs().max() < 0.2


@pytest.mark.conformance("Alignment", "formulas")
def test_alignment_multiplies_every_location_by_the_matrix_of_its_task():
    neck, image = Alignment().apply(toy(), TASKS), torch.randn(2, 3, 16, 24)
    plain = neck.levels(image)
    assert all(map(torch.equal, maps(neck, image, "depth"), plain))  # the identity at first
    matrix = torch.randn(4, 4)
    neck.neck[0].maps["depth"].weight.data = matrix[:, :, None, None]
    want = torch.einsum("ij,bjhw->bihw", matrix, plain[0])
    torch.testing.assert_close(maps(neck, image, "depth")[0], want)
    assert torch.equal(maps(neck, image, "depth")[1], plain[1])
    assert all(map(torch.equal, maps(neck, image, "normals"), plain))


def test_alignment_undoes_a_difference_of_covariance():
    """Two linear tasks whose inputs differ by a rotation need one shared vector once they are aligned."""
    torch.manual_seed(0)
    x, shared = torch.randn(200, 2, 1, 1), torch.tensor([[[[1.0]], [[0.0]]]])
    turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    turned = torch.einsum("ij,bjhw->bihw", turn, x)
    label = torch.nn.functional.conv2d(x, shared)
    layer = AlignmentMap(2, NAMES)
    layer.maps["normals"].weight.data = turn.T[:, :, None, None]
    inputs = {"depth": x, "normals": turned}
    for name in NAMES:
        found = torch.nn.functional.conv2d(layer(inputs, name, {}), shared)
        torch.testing.assert_close(found, label)


@pytest.mark.conformance("AdaTT", "formulas")
def test_fusion_is_gated_experts_plus_own_ones():
    fusion = disturb(Fusion(4, {"depth": 2, "normals": 2, SHARED: 1}, NAMES)).eval()
    states = {name: torch.randn(2, 4, 3, 5) for name in (*NAMES, SHARED)}
    with torch.no_grad():
        found = fusion(states)
        results = [(name, expert(states[name])) for name, own in fusion.experts.items() for expert in own]
        for name in NAMES:
            gate = fusion.gates[name](states[name]).softmax(1)
            want = sum(gate[:, index, None] * item for index, (_, item) in enumerate(results))
            own = [item for owner, item in results if owner == name]
            want = want + sum(weight * item for weight, item in zip(fusion.direct[name], own, strict=True))
            torch.testing.assert_close(found[name], want)
    assert list(found) == list(NAMES)  # the last round has no gate for shared experts
    assert not Fusion(4, dict.fromkeys(NAMES, 1), NAMES).direct  # single experts: unit weights


def test_tasks_are_fused_once():
    neck, calls = AdaTT(own=1, shared=1, rounds=2).apply(toy(), TASKS), []
    neck.neck[0].rounds[1].register_forward_hook(lambda *_: calls.append(1))
    pyramids = neck(torch.randn(2, 3, 16, 24))
    assert not calls
    for name in NAMES:
        pyramids.for_task(name)
    assert len(calls) == 1


@pytest.mark.parametrize("gate", ["softmax", "sigmoid", "gumbel"])
def test_a_gate_that_is_private_gives_the_single_task_network(gate):
    backbone, image = PublicPrivate(gate=gate).apply(toy(), TASKS).eval(), torch.randn(2, 3, 16, 24)
    disturb(backbone.private["depth"])
    far = torch.tensor(200.0)
    alpha = backbone.architecture_gates["depth"].alpha
    alpha.data = far if gate == "gumbel" else torch.stack([-far, far])
    assert all(map(torch.equal, maps(backbone, image, "depth"), backbone.private["depth"](image).maps))
    alpha.data = -alpha.data
    assert all(map(torch.equal, maps(backbone, image, "depth"), backbone.public(image).maps))
    backbone.architecture_gates["depth"].train()()[0].backward()
    assert torch.isfinite(alpha.grad).all()


@pytest.mark.conformance("PublicPrivate", "formulas")
def test_gates_as_released():
    assert SafeGate("softmax")().tolist() == [0.5, 0.5]
    torch.testing.assert_close(SafeGate("sigmoid")().sum(), torch.tensor(2 / (1 + math.exp(-0.5))))
    gate = SafeGate("gumbel").train()
    assert gate(torch.tensor([2.0, 1.0])).tolist() == [1, 0]
    assert gate(torch.tensor([1.0, 2.0])).tolist() == [0, 1]
    assert gate.eval()().tolist() == [0, 1]  # a tie is private
    gate(torch.tensor([2.0, 1.0]))[0].backward()
    logits = torch.tensor([2.0, 1.0], requires_grad=True)
    soft = (logits / 0.1).softmax(0)
    slope = torch.autograd.grad(soft[0], logits)[0] / 0.5 * torch.tensor([-0.25, 0.25])
    torch.testing.assert_close(gate.alpha.grad, slope.sum())
    torch.manual_seed(0)
    drawn = [gate.train()()[0].item() for _ in range(400)]
    assert 140 < sum(drawn) < 260


def test_the_lite_version_keeps_one_encoder_per_task():
    backbone = PublicPrivate(keep={"depth": "public", "normals": "private"}).apply(toy(), TASKS)
    assert (list(backbone.private), list(backbone.architecture_gates)) == (["normals"], [])
    image = torch.randn(2, 3, 16, 24)
    assert all(map(torch.equal, maps(backbone, image, "depth"), backbone.public(image).maps))
    alone = PublicPrivate(keep=dict.fromkeys(NAMES, "private")).apply(toy(), TASKS)
    assert alone.public is None
    assert all(map(torch.equal, maps(alone, image, "depth"), alone.private["depth"](image).maps))
    calls = []
    alone.private["normals"].register_forward_hook(lambda *_: calls.append(1))
    with use_context(replace(current_context(), tasks=("depth",))):
        maps(alone, image, "depth")
    assert not calls  # a task that is not read costs nothing


CONFIG = {
    "backbone": {"type": ToyBackbone},
    "decoder": {"type": "ParallelDecoder", "width": 8, "deep_supervision": 0.5},
    "head": {"type": "ConvHead"},
}


def safe(tasks=TASKS, **options):
    return build_network({**CONFIG, "adapters": [{"type": "PublicPrivate", **options}]}, tasks)


def side(network, which, task):
    """The public or the private way of a network with gates behind decoders, for one task."""
    public = which == "public"
    backbone = network.backbone.public if public else network.backbone.private[task.name]
    return Network(
        backbone,
        getattr(network.decoder, which),
        {item.name: getattr(network.heads[item.name], which) for item in network.tasks},
        network.tasks,
    )


@pytest.mark.parametrize("gate", ["softmax", "sigmoid", "gumbel"])
def test_a_gate_behind_decoders_that_is_private_is_the_single_task_network(gate):
    """Logits and gradients of the private side, deep supervision included, are those of a network alone."""
    torch.manual_seed(0)
    network, image = disturb(safe(behind="decoder", gate=gate)).train(), torch.randn(2, 3, 32, 48)
    far = torch.tensor(200.0)
    for head in network.heads.values():
        head.architecture_gate.alpha.data = far if gate == "gumbel" else torch.stack([-far, far])
    task = TASKS[0]
    alone = copy.deepcopy(side(network, "private", task))
    results = []
    for model in (network, alone):
        output = model.outputs(image, [task.name])
        logits = [output.logits[task.name], *(item.logits for item in output.auxiliary)]
        torch.stack([item.square().sum() for item in logits]).sum().backward()
        results.append(logits)
    assert torch.equal(results[0][0], results[1][0])
    assert len(results[0]) == 2 * len(results[1]) - 1  # both decoders have deep supervision
    found = side(network, "private", task)
    for name, parameter in alone.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(found.get_parameter(name).grad, parameter.grad, msg=name)
    gates = network.heads[task.name].public.logits.weight.grad
    assert not gates.any()


def test_gates_behind_decoders_mix_logits():
    network, image = disturb(safe(behind="decoder", gate="sigmoid")).eval(), torch.randn(2, 3, 32, 48)
    with torch.no_grad():
        for task in TASKS:
            public, private = (
                side(network, which, task).eval()(image)[task.name] for which in ("public", "private")
            )
            weights = network.heads[task.name].architecture_gate.alpha.sigmoid()
            want = weights[0] * public + weights[1] * private
            torch.testing.assert_close(network(image)[task.name], want)
    fresh = safe(behind="decoder")
    one, other = (
        item["depth"].lateral[0][0].weight
        for item in (fresh.decoder.public.decoders, fresh.decoder.private.decoders)
    )
    assert not torch.equal(one, other)  # decoders start apart, as released


@pytest.mark.parametrize("neck", ["AdaTT", "ImplicitVectors"])
def test_a_task_alone_is_read_behind_a_neck_and_passes_per_task(neck):
    vit = {"type": "TimmBackbone", "name": "vit_tiny_patch16_224", "embed_dim": 8, "depth": 2, "num_heads": 2}
    adapters = [{"type": "LowRank", "own": {"*.1.attn.qkv": 2}}, {"type": neck}]
    network, image = (
        disturb(build_network({**CONFIG, "backbone": vit, "adapters": adapters}, TASKS)).eval(),
        torch.randn(1, 3, 32, 48),
    )
    calls = []
    with torch.no_grad():
        whole = network(image)
        network.backbone.shared.model.blocks[1].register_forward_hook(lambda *_: calls.append(1))
        for name in NAMES:
            assert torch.equal(network(image, [name])[name], whole[name])
    assert len(calls) == len(NAMES) * (2 if neck == "AdaTT" else 1)  # a neck that mixes tasks reads all


def test_a_private_encoder_behind_another_neck_reads_the_maps_of_its_task():
    vectors = ImplicitVectors(mode="add").apply(toy(), TASKS)
    vectors.neck[0].z["normals"].data.fill_(3.0)
    backbone = PublicPrivate().apply(vectors, TASKS).eval()
    image = torch.randn(2, 3, 16, 24)
    torch.testing.assert_close(maps(backbone, image, "normals")[0], maps(vectors, image, "normals")[0])


@pytest.mark.parametrize("behind", ["encoder", "decoder"])
def test_held_out_images_train_the_gates_alone(behind):
    """Bi-level training: the step for architectures sees the gates as one."""
    network = disturb(safe(behind=behind))
    named = list(network.named_parameters())
    gates = [item for name, item in named if is_architecture(name)]
    assert len(gates) == 2
    image, ids = torch.randn(4, 3, 32, 48), [f"image-{index}" for index in range(4)]
    held = [is_held_out(name, 0.5) for name in ids]
    assert 0 < sum(held) < 4
    meta = [Meta(id=name, size=(32, 48), original_size=(32, 48)) for name in ids]
    present = torch.ones(4, dtype=torch.bool)
    batch = Batch(image, {"depth": image[:, :1]}, {"depth": present}, meta)

    def forward(part):
        return LossReport({"depth": (network(part.image)["depth"] - part.labels["depth"]).square().mean()})

    problem = StepProblem(forward, FixedWeights(tasks=["depth"]), named)
    network.eval()
    SearchStep(held_out=0.5, look_ahead=1e-6)(problem, batch)
    found = [None if item.grad is None else item.grad.clone() for _, item in named]
    network.zero_grad()
    rest = batch.part([index for index, flag in enumerate(held) if not flag])
    forward(rest).losses["depth"].backward()
    for (name, item), gradient in zip(named, found, strict=True):
        if is_architecture(name):
            assert (gradient is not None and bool(gradient.any())) == ("depth" in name)
        elif item.grad is not None:
            torch.testing.assert_close(gradient, item.grad, msg=name)


def test_bad_options_are_named():
    with pytest.raises(UnknownNameError, match=r"gate in PublicPrivate.gate 'hard'"):
        PublicPrivate(gate="hard")
    with pytest.raises(UnknownNameError, match=r"place in PublicPrivate.behind 'head'"):
        PublicPrivate(behind="head")
    with pytest.raises(ValueError, match="depth with behind='decoder'; the lite version"):
        PublicPrivate(behind="decoder", keep={"depth": "public"})
    adapters = [{"type": "PublicPrivate", "behind": "decoder"}, {"type": "Alignment"}]
    with pytest.raises(ValueError, match=r"Neck of a later adapter takes them. Put PublicPrivate last"):
        build_network({**CONFIG, "adapters": adapters}, TASKS)
    with pytest.raises(UnknownNameError, match="both"):
        PublicPrivate(keep={"depth": "both"})
    with pytest.raises(UnknownNameError, match="edge"):
        PublicPrivate(keep={"edge": "public"}).apply(toy(), TASKS)

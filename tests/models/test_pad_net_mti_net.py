"""PAD-Net and MTI-Net against their formulas on the official names, and what any decoder must do."""

from __future__ import annotations

import pytest
import torch
from converted import check_outputs, compares
from disturbed import disturb
from plain import batch_norm, bilinear, enlarge, same_conv
from plain_cnn import residual_block
from plain_hrnet import PlainHRNet
from torch.nn import functional as F

from mtvision.core.naming import UnknownNameError
from mtvision.core.pyramid import Pyramid, TaskPyramids
from mtvision.models.convert import convert, revert
from mtvision.models.decoders import ConcatDecoder, MTINetDecoder, PADNetDecoder
from mtvision.models.decoders.distillation import Distillation
from mtvision.models.decoders.mti_net import Propagation
from mtvision.models.factory import build_network
from mtvision.protocols.tasks import depth, normals, semseg

TASKS = (semseg(("sky", "road", "car")), depth(), normals())
NAMES = [task.name for task in TASKS]
SHAPES = {"channels": (6, 9, 12, 18), "strides": (4, 8, 16, 32)}
RESNET = {"name": "resnet18", "channels": (6, 9, 12, 18), "stem_type": "deep", "stem_width": 3}
MODELS = {
    "mti_net": {"decoder": {"type": "MTINetDecoder"}, "head": {"type": "HighResolutionHead"}},
    "pad_net": {"decoder": {"type": "PADNetDecoder", "width": 8}, "head": {"type": "ResidualHead"}},
}


def build(model, tasks=TASKS, **options):
    parts = {**MODELS[model], "decoder": {**MODELS[model]["decoder"], **options}}
    return build_network({"backbone": {"type": "TimmBackbone", **RESNET}, **parts}, tasks)


class Official:
    """The authors' layers in evaluation mode, on a state dict with their names."""

    def __init__(self, state):
        self.state = state
        self.main = [t for t in NAMES if any(key.startswith(f"heads.{t}.") for key in state)]

    def conv(self, name, x):
        return same_conv(x, self.state, name)

    def norm(self, name, x):
        return batch_norm(x, self.state, name)

    def block(self, name, x):
        """BasicBlock or Bottleneck, whichever the names say."""
        return residual_block(x, self.state, name)

    def distil(self, name, maps):
        result = {}
        for t in self.main:
            result[t] = maps[t].clone()
            for a in NAMES:
                if a != t:
                    pair = f"{name}.self_attention.{t}.{a}"
                    gate = torch.sigmoid(self.conv(f"{pair}.attention.0", maps[a]))
                    result[t] += self.conv(f"{pair}.conv", maps[a]) * gate
        return result

    def propagate(self, name, maps):
        joined = torch.cat([maps[t] for t in NAMES], dim=1)
        logits = self.block(f"{name}.non_linear.1", self.block(f"{name}.non_linear.0", joined))
        logits = self.conv(f"{name}.non_linear.2", logits)
        groups = [logits[:, at : at + 3].softmax(dim=1) for at in range(0, joined.shape[1], 3)]  # T = 3
        shared = self.block(f"{name}.dimensionality_reduction", joined * torch.cat(groups, dim=1))
        result = {}
        for t in NAMES:
            part, mean = f"{name}.se.{t}.squeeze", shared.mean(dim=(2, 3))
            hidden = F.linear(mean, self.state[f"{part}.0.weight"], self.state[f"{part}.0.bias"]).relu()
            gate = F.linear(hidden, self.state[f"{part}.2.weight"], self.state[f"{part}.2.bias"]).sigmoid()
            result[t] = shared * gate[:, :, None, None] + maps[t]
        return result


def mti_net(official, maps):
    refined, coarser = {}, {}
    for s in (3, 2, 1, 0):
        refined[s] = {}
        for t in NAMES:
            x = torch.cat([maps[s], enlarge(coarser[t], 2)], dim=1) if s < 3 else maps[s]
            for index in (0, 1):
                x = official.block(f"scale_{s}.refinement.{t}.{index}", x)
            refined[s][t] = x
        if s:
            coarser = official.propagate(f"fpm_scale_{s}", refined[s])
    early = {
        (s, t): official.conv(f"scale_{s}.decoders.{t}", x) for s in refined for t, x in refined[s].items()
    }
    final = {s: official.distil(f"distillation_scale_{s}", refined[s]) for s in refined}
    logits = {}
    for t in official.main:
        x = torch.cat([final[0][t], *(enlarge(final[s][t], 2**s) for s in (1, 2, 3))], dim=1)
        head = f"heads.{t}.last_layer"
        logits[t] = official.conv(
            f"{head}.3", official.norm(f"{head}.1", official.conv(f"{head}.0", x)).relu()
        )
    return logits, early


def pad_net(official, maps):
    x = torch.cat([maps[0], *(enlarge(maps[s], 2**s) for s in (1, 2, 3))], dim=1)
    x = official.norm("backbone.1.last_layer.1", official.conv("backbone.1.last_layer.0", x)).relu()
    first, early = {}, {}
    for t in NAMES:
        part = "initial_task_prediction_heads"
        first[t] = official.block(f"{part}.layers.{t}.1", official.block(f"{part}.layers.{t}.0", x))
        early[0, t] = official.conv(f"{part}.conv_out.{t}", first[t])
    final = official.distil("multi_modal_distillation", first)
    logits = {}
    for t in official.main:
        x = official.block(f"heads.{t}.1", official.block(f"heads.{t}.0", final[t]))
        logits[t] = official.conv(f"heads.{t}.2", x)
    return logits, early


@pytest.mark.conformance("{model}", "formulas")
@pytest.mark.parametrize(("model", "reference"), [("mti_net", mti_net), ("pad_net", pad_net)])
def test_as_published(model, reference):
    network, image = disturb(build(model)).eval(), torch.randn(2, 3, 64, 96)
    official = Official(revert(network.state_dict(), f"survey_{model}")[0])
    pyramid = network.backbone(image)
    logits, early = reference(official, pyramid.maps)
    features = network.decoder(pyramid).features
    for name in NAMES:
        torch.testing.assert_close(network.heads[name](features[name]), logits[name], rtol=1e-5, atol=1e-5)
    network.decoder.training = True  # deep supervision, with norms still in evaluation mode
    auxiliary = network.decoder(pyramid).auxiliary
    assert len(auxiliary) == len(early)
    assert {item.weight for item in auxiliary} == {1.0}
    for item, ((_, name), expected) in zip(
        auxiliary, sorted(early.items(), key=lambda e: order(e[0])), strict=True
    ):
        assert item.task == name
        torch.testing.assert_close(item.logits, expected, rtol=1e-5, atol=1e-5)


def order(key):
    return key[0], NAMES.index(key[1])


def test_distillation_by_hand():
    """Messages with a gate of one half and identity convolutions: own feature plus half the others'."""
    layer = Distillation(2, ["a", "b"], ["a", "b", "c"])
    for row in layer.messages.values():
        for message in row.values():
            torch.nn.init.zeros_(message.gate.weight)
            torch.nn.init.dirac_(message.conv.weight)
    maps = {name: torch.randn(1, 2, 3, 4) for name in "abc"}
    expected = maps["b"] + 0.5 * (maps["a"] + maps["c"])
    torch.testing.assert_close(layer(maps, ["b"])["b"], expected)


@pytest.mark.parametrize("axis", ["published", "tasks"])
def test_what_the_softmax_of_the_propagation_sums_over(axis):
    layer, logits = Propagation(4, ["a", "b"], mask_axis=axis), torch.randn(1, 8, 2, 2)
    mask = layer._softmax(logits)[0]
    ones = torch.ones(2, 2)
    pairs = [(0, 1), (6, 7)] if axis == "published" else [(0, 4), (3, 7)]  # channels: four of a, four of b
    for first, second in pairs:
        torch.testing.assert_close(mask[first] + mask[second], ones)
    with pytest.raises(ValueError, match="choose 'published' or 'tasks'"):
        Propagation(4, ["a"], mask_axis="task")


@pytest.mark.parametrize("model", MODELS)
def test_every_weight_learns_and_supervision_only_in_training(model):
    network = build(model)
    output = network.outputs(torch.randn(2, 3, 64, 64))
    losses = [*output.logits.values(), *(item.logits for item in output.auxiliary)]
    sum(item.square().mean() for item in losses).backward()
    assert [name for name, item in network.named_parameters() if item.grad is None] == []
    assert {item.logits.shape[-2:] for item in output.auxiliary} == {(64, 64)}
    assert network.eval().outputs(torch.randn(1, 3, 64, 64)).auxiliary == []


@pytest.mark.parametrize(("model", "reference"), [("mti_net", mti_net), ("pad_net", pad_net)])
def test_official_checkpoints_with_helpers(model, reference):
    """The authors' networks have no head and no distilled features for a helper; ours have a head."""
    everything = revert(disturb(build(model)).state_dict(), f"survey_{model}")[0]
    theirs = {
        key: value
        for key, value in everything.items()
        if not key.startswith("heads.normals.") and ".self_attention.normals." not in key
    }
    head = {"normals": {"type": "ConvHead"}}
    decoder = {**MODELS[model]["decoder"], "helpers": ["normals"]}
    parts = {**MODELS[model], "decoder": decoder, "heads": head}
    network = build_network({"backbone": {"type": "TimmBackbone", **RESNET}, **parts}, TASKS).eval()

    converted, report = convert({f"module.{key}": value for key, value in theirs.items()}, f"survey_{model}")
    assert not report.dropped
    network.load_state_dict(converted)  # strict
    image = torch.randn(2, 3, 64, 96)
    pyramid = network.backbone(image)
    logits, early = reference(Official(theirs), pyramid.maps)
    assert sorted(logits) == ["depth", "semseg"]
    features = network.decoder(pyramid).features
    for name, expected in {**logits, "normals": early[0, "normals"]}.items():
        torch.testing.assert_close(network.heads[name](features[name]), expected, rtol=1e-5, atol=1e-5)

    back, _ = revert(network.state_dict(), f"survey_{model}")
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[key], theirs[key]) for key in back)


def predictions(network, image):
    """Logits and early predictions of our network, whose norms are in evaluation mode."""
    network.decoder.training = True
    output = network.outputs(image)
    return {**output.logits, **numbered((item.task, item.logits) for item in output.auxiliary)}


def numbered(early):
    """Predictions of one task in the order of their scales, e.g. `depth 0`, `depth 1`."""
    counts, result = dict.fromkeys(NAMES, 0), {}
    for name, item in early:
        result[f"{name} {counts[name]}"] = item
        counts[name] += 1
    return result


@compares("survey_mti_net", "survey_pad_net")
@pytest.mark.parametrize("helpers", [[], ["normals"]])
@pytest.mark.parametrize(
    ("model", "reference", "prefix"), [("mti_net", mti_net, "backbone."), ("pad_net", pad_net, "backbone.0.")]
)
def test_converted_weights_predict_as_in_the_authors_code(model, reference, prefix, helpers):
    """The whole network on an HRNet, early predictions too; those of a helper are all that it has."""

    def forward(w, image):
        logits, early = reference(Official(w), PlainHRNet(w, prefix)(image))
        logits |= {name: early.pop((0, name)) for name in helpers}
        rows = ((key[1], early[key]) for key in sorted(early, key=order))
        sized = {**logits, **numbered(rows)}
        return {name: bilinear(item, image.shape[-2:]) for name, item in sized.items()}

    hrnet = {"type": "HRNetBackbone", "name": "hrnet_w18_small_v2", "upsampling": "bilinear"}
    decoder = {**MODELS[model]["decoder"], "helpers": helpers}
    heads = {name: {"type": "ConvHead"} for name in helpers}
    cfg = {"backbone": hrnet, **MODELS[model], "decoder": decoder, "heads": heads}
    image = torch.randn(2, 3, 32, 64, dtype=torch.float64)
    check_outputs(f"survey_{model}", build_network(cfg, TASKS), forward, image, run=predictions)


@pytest.mark.parametrize("model", MODELS)
def test_a_decoder_alone_has_no_helpers(model):
    ours = {key: value for key, value in build(model).state_dict().items() if key.startswith("decoder.")}
    theirs, _ = revert(ours, f"survey_{model}")
    assert convert(theirs, f"survey_{model}")[0].keys() == ours.keys()


@pytest.mark.parametrize("model", MODELS)
def test_subset_sizes_formats(model):
    network = disturb(build(model)).eval()
    image = torch.randn(1, 3, 67, 45)  # a batch of one, odd sides
    full = network(image)
    assert torch.equal(network(image, tasks=["normals"])["normals"], full["normals"])
    calls = []
    network.heads["depth"].register_forward_hook(lambda *_: calls.append("depth"))
    assert [item.task for item in network.train().outputs(image, tasks=["normals"]).auxiliary] == (
        ["normals"] * (4 if model == "mti_net" else 1)
    )
    assert not calls
    network.eval().to(memory_format=torch.channels_last)
    full = network(image)
    last = network(image.to(memory_format=torch.channels_last))
    torch.testing.assert_close(last["depth"], full["depth"], rtol=1e-4, atol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        low = network(image)["depth"]
    assert (low - full["depth"]).abs().max() < 0.1 * full["depth"].abs().max()


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_helper_tasks(model):
    """A helper has early predictions only; its head makes the one of the finest scale."""
    helped = disturb(build(model, helpers=["normals"])).eval()
    head = build_network(
        {
            "backbone": {"type": "TimmBackbone", **RESNET},
            **MODELS[model],
            "decoder": {**MODELS[model]["decoder"], "helpers": ["normals"]},
            "heads": {"normals": {"type": "ConvHead"}},
        },
        TASKS,
    )
    full = build(model)
    state = {k: v for k, v in helped.state_dict().items() if "heads.normals" not in k}
    full.load_state_dict(state, strict=False)
    full.eval()
    image = torch.randn(1, 3, 64, 64)
    for name in ("semseg", "depth"):
        torch.testing.assert_close(helped(image)[name], full(image)[name])
    lost = {k for k in full.state_dict() if k not in head.state_dict()}
    assert all("normals" in name for name in lost)
    assert any("distillation" in name and ".normals." in name for name in lost)
    head.load_state_dict(
        {k: v for k, v in full.state_dict().items() if k in head.state_dict() and "heads.normals" not in k},
        strict=False,
    )
    predict = (
        full.decoder.scales[0].predict["normals"] if model == "mti_net" else full.decoder.predict["normals"]
    )
    head.heads["normals"].logits.load_state_dict(predict.state_dict())
    pyramid = full.backbone(image)
    full.decoder.training = True
    early = next(item for item in full.decoder(pyramid).auxiliary if item.task == "normals")
    full.decoder.training = False
    head.eval()
    mine = head.heads["normals"](head.decoder(head.backbone(image)).features["normals"])
    torch.testing.assert_close(mine, early.logits, rtol=1e-5, atol=1e-5)
    count = [item.task for item in head.train().outputs(torch.randn(2, 3, 64, 64)).auxiliary].count("normals")
    assert count == (3 if model == "mti_net" else 0)
    assert list(head.eval()(image, tasks=["normals"])) == ["normals"]


@pytest.mark.parametrize("kind", [MTINetDecoder, PADNetDecoder])
def test_tasks_may_have_pyramids_of_their_own(kind):
    decoder = kind(**SHAPES, tasks=TASKS, **({"width": 8} if kind is PADNetDecoder else {})).eval()

    def maps():
        return Pyramid.of(
            [torch.randn(1, c, 64 // s, 64 // s) for c, s in zip(*SHAPES.values(), strict=True)],
            (4, 8, 16, 32),
        )

    common = maps()
    same = decoder(TaskPyramids({name: Pyramid.of(common.maps, common.strides) for name in NAMES})).features
    torch.testing.assert_close(same["depth"], decoder(common).features["depth"])
    other = decoder(TaskPyramids({"semseg": common, "depth": maps(), "normals": common})).features
    assert not torch.allclose(other["semseg"], same["semseg"])  # depth's own maps reach the other tasks


@pytest.mark.parametrize("kind", [MTINetDecoder, PADNetDecoder])
def test_refusals(kind):
    with pytest.raises(UnknownNameError, match=r"'dept'. Did you mean 'depth'"):
        kind(**SHAPES, tasks=TASKS, helpers=["dept"])
    with pytest.raises(ValueError, match="at least one task must not be a helper"):
        kind(**SHAPES, tasks=TASKS, helpers=NAMES)
    with pytest.raises(ValueError, match="two levels or more"):
        MTINetDecoder(channels=(8,), strides=(8,), tasks=TASKS)
    with pytest.raises(ValueError, match="multiple of 4"):
        PADNetDecoder(**SHAPES, tasks=TASKS, width=6)
    with pytest.raises(ValueError, match="rising indices from 0 to 3"):
        ConcatDecoder(**SHAPES, tasks=TASKS, levels=[-1, 0])


def test_one_task_alone():
    for model in MODELS:
        network = build(model, TASKS[1:2])
        assert network(torch.randn(2, 3, 64, 64))["depth"].shape == (2, 1, 64, 64)

"""Exported files give what the network gives, at any batch and size, and say what they are."""

from __future__ import annotations

import itertools
import json

import pytest
import torch
from timm.layers import create_conv2d, padding
from torch import nn
from torch.export import Dim

from mtvision.core.naming import UnknownNameError
from mtvision.core.pyramid import size_of
from mtvision.evaluation.export import FORMATS, Parity, Portable, export_network
from mtvision.evaluation.export.portable import ExportError, same_padding, trace
from mtvision.models.decoders import ConcatDecoder, InvPTDecoder, MTMambaDecoder, ParallelDecoder
from mtvision.models.heads import ConvHead
from mtvision.models.layers import gate, resize
from mtvision.models.network import Network
from mtvision.protocols.tasks import depth, edge, normals, semseg
from mtvision.runtime.checkpoint import load_checkpoint
from mtvision.testing.inputs import ToyBackbone, random_image
from mtvision.testing.modules import disturb

TASKS = (semseg(("sky", "road", "car")), depth(), normals(), edge())


def network_of(kind=ConcatDecoder, tasks=TASKS, **options):
    torch.manual_seed(0)
    front = ToyBackbone()
    decoder = kind(channels=front.channels, strides=front.strides, tasks=tasks, **options)
    heads = {task.name: ConvHead(decoder.out_channels[task.name], task) for task in tasks}
    return disturb(Network(front, decoder, heads, tasks)).eval()


QUICK = "pt2"
EACH = [pytest.param(form, marks=[] if form == QUICK else [pytest.mark.slow]) for form in FORMATS]


@pytest.mark.slow
@pytest.mark.parametrize("form", EACH)
def test_a_file_gives_what_the_network_gives_at_three_sizes(form, tmp_path):
    path = tmp_path / f"network{FORMATS[form].ending}"
    done = export_network(network_of(), path, form=form, notes={"protocol": "toy"})
    assert done.holds, [str(item) for item in done.parity]
    assert [item.task for item in done.parity] == [task.name for task in TASKS] * 3
    assert len({item.shape for item in done.parity}) == 3
    assert done.raw == ()


@pytest.mark.long
def test_attention_over_tasks_is_written_as_onnx(tmp_path):
    done = export_network(
        network_of(InvPTDecoder, TASKS[1:3], width=16, hidden=16), tmp_path / "network.onnx"
    )
    assert done.holds, [str(item) for item in done.parity]


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("form", ["onnx", "pt2"])
def test_a_selective_scan_is_part_of_the_file(form, tmp_path):
    network = network_of(MTMambaDecoder, TASKS[1:3], num_blocks=1, states=2)
    path = tmp_path / f"network{FORMATS[form].ending}"
    # Logits: those of normals that are nearly 0, as random weights give, may become any direction.
    done = export_network(network, path, form=form, logits=True)
    assert done.holds, [str(item) for item in done.parity]
    if form == "pt2":
        targets = {str(node.target) for node in torch.export.load(path).graph.nodes}
        assert not any("mtvision" in item for item in targets)


@pytest.mark.slow
def test_onnx_names_its_tensors_and_says_what_it_is(tmp_path):
    import onnxruntime

    path = tmp_path / "a.onnx"
    export_network(network_of(), path, tasks=["depth", "edge"], logits=True, notes={"protocol": "toy"})
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [item.name for item in session.get_inputs()] == ["image"]
    assert [item.name for item in session.get_outputs()] == ["depth", "edge"]
    notes = json.loads(session.get_modelmeta().custom_metadata_map["mtvision"])
    assert notes["outputs"] == {"depth": "logits", "edge": "logits"}
    assert notes["protocol"] == "toy"


def test_weights_with_notes_are_a_checkpoint(tmp_path):
    network, path = network_of(), tmp_path / "a.safetensors"
    export_network(network, path, form="safetensors", notes={"protocol": "toy", "tasks": ["depth"]})
    content = load_checkpoint(path)
    assert content["meta"]["protocol"] == "toy"
    own = network.state_dict()
    assert content["state_dict"].keys() == own.keys()
    assert all(torch.equal(item, own[name]) for name, item in content["state_dict"].items())


def test_predictions_are_those_of_the_suite():
    portable = Portable(network_of())
    image = (random_image(2, (64, 96)).sigmoid() * 255).to(torch.uint8)
    with torch.no_grad():
        found = portable(image)
    assert found["semseg"].dtype == torch.int64
    assert found["semseg"].shape == (2, 64, 96)
    torch.testing.assert_close(found["normals"].norm(dim=1), torch.ones(2, 64, 96))
    assert bool(((found["edge"] >= 0) & (found["edge"] <= 1)).all())


def test_wrong_wishes_are_refused(tmp_path):
    network = network_of()
    with pytest.raises(UnknownNameError, match="export format"):
        export_network(network, tmp_path / "a.onnx", form="onx")
    with pytest.raises(ValueError, match=r"expected a name that ends in \.onnx"):
        export_network(network, tmp_path / "a.pth")


@pytest.mark.slow
def test_a_network_for_one_size_asks_for_it(tmp_path):
    class OneSize(ParallelDecoder):
        def __init__(self, **options):
            super().__init__(**options)
            self.gate = gate.MapGate(8, 1, (16, 24))

        def forward(self, pyramid, tasks=None):
            self.gate(pyramid.maps[0])
            return super().forward(pyramid, tasks)

    network = network_of(OneSize, TASKS[1:2], width=8)
    with pytest.raises(ExportError, match="--size H W"):
        export_network(network, tmp_path / "a.pt2", form="pt2")
    assert export_network(network, tmp_path / "a.pt2", form="pt2", size=(64, 96)).holds


def test_a_map_that_has_the_traced_size_is_resized_at_other_sizes():
    class Enlarged(nn.Module):
        def __init__(self):
            super().__init__()
            self.down, self.up = nn.Conv2d(3, 2, 3, 4, 1), nn.ConvTranspose2d(2, 2, 4, 4)

        def forward(self, image):
            return resize(self.up(self.down(image)), size_of(image))

    module, free = Enlarged().eval(), {2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    with torch.no_grad():
        program = torch.export.export(
            module, (torch.randn(1, 3, 16, 24),), dynamic_shapes=(free,), strict=False
        )
        odd = torch.randn(1, 3, 13, 31)
        torch.testing.assert_close(program.module(check_guards=False)(odd), module(odd))
        assert torch.equal(resize(odd, (13, 31)), odd)


def test_same_padding_is_counted_as_timm_counts_it():
    for size in range(1, 40):
        for kernel, stride, dilation in itertools.product((1, 2, 3, 5), (1, 2, 3, 4), (1, 2)):
            want = padding.get_same_padding(size, kernel, stride, dilation)
            assert same_padding(size, kernel, stride, dilation) == want, (size, kernel, stride, dilation)


def test_tensorflow_padding_is_traced_at_any_size():
    class Padded(ToyBackbone):
        def __init__(self):
            super().__init__()
            self.even = create_conv2d(3, 3, 3, stride=2, padding="same")
            self.odd = create_conv2d(3, 3, 5, stride=2, padding="same")

        def forward(self, image):
            return super().forward(resize(self.odd(self.even(image)), size_of(image)))

    network = network_of()
    network.backbone = Padded()
    portable = Portable(network.eval(), logits=True)
    before = padding.get_same_padding
    program = trace(portable).module()
    assert padding.get_same_padding is before
    for size in ((64, 96), (67, 93)):
        image = torch.randint(256, (1, 3, *size), dtype=torch.uint8)
        found, want = program(image), portable(image)
        assert {name: torch.equal(found[name], want[name]) for name in want} == dict.fromkeys(want, True)


def test_a_difference_is_told():
    assert Parity("depth", (1, 3, 8, 8), 1e-5, False).holds
    assert "too much" in str(Parity("depth", (1, 3, 8, 8), 2e-4, False))
    assert str(Parity("semseg", (1, 3, 8, 8), 0.25, True)).startswith("semseg at 1x3x8x8: 25.00% other")

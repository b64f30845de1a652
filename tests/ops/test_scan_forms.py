"""The scans in files that run without this package: PyTorch's own operators, and ONNX."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.export import Dim

from mtvision.ops import selective_scan, selective_scan_2d, use_backend

STATES = 3


class Sequence(nn.Module):
    """A scan of two groups whose step sizes, B and C are parts of its input."""

    def __init__(self):
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.A = nn.Parameter(-torch.rand(8, STATES, generator=draw) - 0.1)
        self.D, self.bias = (nn.Parameter(torch.randn(8, generator=draw)) for _ in range(2))

    def forward(self, x):
        u, delta, sides = x.split([8, 8, 4 * STATES], dim=1)
        B, C = sides.unflatten(1, (2, 2, STATES)).unbind(1)
        return selective_scan(u, delta, self.A, B, C, self.D, None, self.bias, True)


class Map(nn.Module):
    """Four scans of a map, likewise."""

    def __init__(self):
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.A = nn.Parameter(-torch.rand(4 * 5, STATES, generator=draw) - 0.1)
        self.D, self.bias = (nn.Parameter(torch.randn(4 * 5, generator=draw)) for _ in range(2))

    def forward(self, x):
        delta, B, C = x.unflatten(-1, (4, -1)).split([5, STATES, STATES], dim=-1)
        return selective_scan_2d(x[..., :5], delta, self.A, B, C, self.D, self.bias, True)


def inputs_of(kind, *sizes):
    draw = torch.Generator().manual_seed(1)
    if kind is Sequence:
        return torch.randn(sizes[0], 16 + 4 * STATES, sizes[1] * sizes[2], generator=draw)
    return torch.randn(*sizes, 4 * (5 + 2 * STATES), generator=draw)


SIZES = [(2, 6, 9), (1, 3, 4), (3, 7, 5)]
FREE = {
    Sequence: ({0: Dim.DYNAMIC, 2: Dim.DYNAMIC},),
    Map: ({0: Dim.DYNAMIC, 1: Dim.DYNAMIC, 2: Dim.DYNAMIC},),
}


def traced(kind):
    with torch.no_grad():
        return torch.export.export(
            kind().eval(), (inputs_of(kind, *SIZES[0]),), dynamic_shapes=FREE[kind], strict=False
        )


@pytest.mark.parametrize("kind", [Sequence, Map])
@pytest.mark.parametrize("sizes", SIZES)
def test_the_form_of_programs_equals_the_reference(kind, sizes):
    module, given = kind().double(), inputs_of(kind, *sizes).double()
    with torch.no_grad(), use_backend("reference"):
        want = module(given)
    with torch.no_grad(), use_backend("graph"):
        torch.testing.assert_close(module(given), want, rtol=1e-10, atol=1e-10)


def test_the_form_of_programs_gives_the_last_state():
    draw = torch.Generator().manual_seed(0)
    u, delta = (torch.randn(2, 4, 7, generator=draw, dtype=torch.float64) for _ in range(2))
    A = -torch.rand(4, 3, generator=draw, dtype=torch.float64)
    B, C = (torch.randn(2, 3, 7, generator=draw, dtype=torch.float64) for _ in range(2))
    with torch.no_grad():
        found, want = (
            selective_scan(u, delta, A, B, C, return_last_state=True, backend=name)
            for name in ("graph", "reference")
        )
    torch.testing.assert_close(found, want, rtol=1e-10, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Sequence, Map])
def test_a_program_holds_no_operator_of_ours(kind):
    with use_backend("graph"):
        program = traced(kind)
    assert not any("mtvision" in str(node.target) for node in program.graph.nodes)
    module = kind().eval()
    for sizes in SIZES:
        given = inputs_of(kind, *sizes)
        with torch.no_grad():
            found = program.module(check_guards=False)(given)
            torch.testing.assert_close(found, module(given), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Sequence, Map])
def test_onnx_equals_the_kernel_at_three_sizes(kind, tmp_path):
    import onnxruntime

    from mtvision.ops.scan.onnx_form import onnx_forms

    made = torch.onnx.export(
        traced(kind), (), None, dynamo=True, verbose=False, custom_translation_table=onnx_forms()
    )
    assert sum(node.op_type == "Scan" for node in made.model.graph) == 1
    made.save(str(tmp_path / "scan.onnx"))
    session = onnxruntime.InferenceSession(tmp_path / "scan.onnx", providers=["CPUExecutionProvider"])
    module, name = kind().eval(), session.get_inputs()[0].name
    for sizes in SIZES:
        given = inputs_of(kind, *sizes)
        (found,) = session.run(None, {name: given.numpy()})
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(found), module(given), rtol=1e-4, atol=1e-4)

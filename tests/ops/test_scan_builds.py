"""The C++ kernel built for several instruction sets, and fed with bf16."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mtvision.core.compiled import architecture
from mtvision.ops import available_backends, selective_scan, selective_scan_2d
from mtvision.ops.scan import build, cpp_backend

needs_compiler = pytest.mark.skipif("cpp" not in available_backends(), reason="no C++ compiler here")

# Vector widths in bytes, and what the processor must have to run the build.
BUILDS = [("x86-64-v2", 16, {"sse4_2"}), ("x86-64-v3", 32, {"avx2", "fma"}), ("x86-64-v4", 64, {"avx512dq"})]


def _flags():
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return set(next((line for line in lines if line.startswith("flags")), "").split())


def _arguments(batch, channels, length, states, groups, dtype):
    def draw(*shape):
        return torch.randn(*shape, dtype=torch.float64)

    rates = -torch.rand(channels, states, dtype=torch.float64) * states - 0.1
    sides = [draw(batch, groups, states, length) for _ in range(2)]
    sequences = [draw(batch, channels, length) for _ in range(2)]
    return [x.to(dtype).requires_grad_() for x in (*sequences, rates, *sides, draw(channels), draw(channels))]


def _run(arguments, backend):
    u, delta, A, B, C, D, bias = arguments
    y, last = selective_scan(u, delta, A, B, C, D, None, bias, True, True, backend=backend)
    weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64).to(y.dtype)
    return [y, last, *torch.autograd.grad((y * weight).sum() + last.sum(), arguments)]


@pytest.mark.slow
@pytest.mark.parametrize(("march", "width", "needs"), BUILDS)
@needs_compiler
def test_every_instruction_set_gives_the_same_numbers(march, width, needs, tmp_path, monkeypatch):
    if not needs <= _flags():
        pytest.skip(f"this processor cannot run {march}")
    monkeypatch.setenv("MTVISION_ARCH", march)
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    kernel = build.LIBRARY.load()
    assert kernel.vector_bytes() == width
    monkeypatch.setattr(cpp_backend, "load_kernel", lambda: kernel)
    # 40 channels: whole and broken blocks at each width. 19 states: whole and broken parts of the state.
    for shape in ((1, 40, 131, 19, 2), (2, 33, 70, 16, 1)):
        exact = _arguments(*shape, torch.float64)
        torch.testing.assert_close(_run(exact, "cpp"), _run(exact, "reference"), rtol=1e-10, atol=1e-10)
        single = [x.detach().float().requires_grad_() for x in exact]
        for got, want in zip(_run(single, "cpp"), _run(single, "reference"), strict=True):
            assert ((got - want).abs().max() / want.abs().max()).item() < 4e-6


def test_the_architecture_can_be_chosen(monkeypatch):
    monkeypatch.delenv("MTVISION_ARCH", raising=False)
    assert architecture() == "native"
    native = build.LIBRARY.path("c++")
    monkeypatch.setenv("MTVISION_ARCH", "x86-64-v3")
    assert architecture() == "x86-64-v3"
    assert build.LIBRARY.path("c++") != native


@pytest.mark.parametrize("shape", [(2, 40, 70, 16, 2), (1, 7, 65, 3, 1)])
@needs_compiler
def test_bf16_gives_the_rounded_numbers_of_fp32(shape):
    """The kernel reads bf16 and computes in fp32: rounding comes last, once."""
    half = [x.detach().bfloat16().requires_grad_() for x in _arguments(*shape, torch.float64)]
    wide = [x.detach().float().requires_grad_() for x in half]
    y, last, *grads = _run(half, "cpp")
    weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64).bfloat16()
    u, delta, A, B, C, D, bias = wide
    want, want_last = selective_scan(u, delta, A, B, C, D, None, bias, True, True, backend="cpp")
    exact = torch.autograd.grad((want * weight.float()).sum() + want_last.sum(), wide)
    assert torch.equal(y, want.bfloat16())
    assert torch.equal(last, want_last)
    for got, grad in zip(grads, exact, strict=True):
        assert got.dtype == torch.bfloat16
        assert torch.equal(got, grad.bfloat16())


@pytest.mark.parametrize("backend", ["torch", pytest.param("cpp", marks=needs_compiler)])
def test_bf16_maps_add_up_in_fp32(backend):
    """The four directions meet in fp32; the sum is rounded once."""
    draw = torch.randn
    tensors = [
        draw(1, 5, 6, 20),
        draw(1, 5, 6, 4, 20),
        -torch.rand(80, 4),
        draw(1, 5, 6, 4, 4),
        draw(1, 5, 6, 4, 4),
    ]
    half = [x.bfloat16().requires_grad_() for x in tensors]
    wide = [x.detach().float().requires_grad_() for x in half]
    y, want = (selective_scan_2d(*x, None, None, True, backend=backend) for x in (half, wide))
    assert torch.equal(y, want.bfloat16())
    got, exact = (torch.autograd.grad(out.sum(), x) for out, x in ((y, half), (want, wide)))
    assert all(torch.equal(a, b.bfloat16()) for a, b in zip(got, exact, strict=True))


@needs_compiler
def test_bf16_keeps_what_is_not_a_number():
    u = torch.full((1, 16, 1), float("nan"), dtype=torch.bfloat16)
    one = torch.ones_like(u)
    y = selective_scan(u, one, -torch.ones(16, 1), one[:, :1], one[:, :1], backend="cpp")
    assert y.isnan().all()

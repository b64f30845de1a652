"""The Triton kernels: their logic under the interpreter, and that they compile without a GPU."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

pytest.importorskip("triton")

COMPARE = """
import torch
from mtvision.ops import selective_scan
torch.manual_seed(0)
for B, D, L, N, G, extras in [(2, 6, 70, 3, 2, True), (1, 5, 1, 2, 1, True), (1, 4, 64, 1, 1, False)]:
    kw = dict(dtype=torch.float64)
    u, delta = torch.randn(B, D, L, **kw), torch.randn(B, D, L, **kw) * 9
    A, sides = -torch.rand(D, N, **kw) * N, [torch.randn(B, G, N, L, **kw) for _ in range(2)]
    rows = [torch.randn(D, **kw) for _ in range(2 * extras)]
    arguments = [x.requires_grad_() for x in (u, delta if extras else delta.abs(), A, *sides, *rows)]
    def run(backend):
        skip, bias = arguments[5:] or (None, None)
        y, h = selective_scan(*arguments[:5], skip, None, bias, extras, True, backend=backend)
        return [y, h, *torch.autograd.grad(y.square().sum() + h.square().sum() * extras, arguments)]
    for got, want in zip(run("triton"), run("reference"), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)
"""


@pytest.mark.slow
def test_equals_the_reference_under_the_interpreter():
    # A process of its own: Triton reads the variable when the kernels are defined.
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", COMPARE], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["_forward_kernel", "_backward_kernel"])
@pytest.mark.parametrize("states", [1, 16])
def test_compiles_for_a_gpu(name, states):
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from mtvision.ops.scan import triton_backend

    kernel = getattr(triton_backend, name)
    sizes = {"CHANNELS": 4, "STATES": states, "STEPS": 64}
    fixed = {**dict.fromkeys(("HAS_LAST", "HAS_D", "HAS_BIAS", "SOFTPLUS", "KEEP"), True), **sizes}
    numbers = ("width", "length", "num_states", "chunks")
    kinds = {p: "constexpr" if p in fixed else "i32" if p in numbers else "*fp32" for p in kernel.arg_names}
    constants = {(i,): fixed[p] for i, p in enumerate(kernel.arg_names) if p in fixed}
    source = ASTSource(kernel, signature=kinds, constexprs=constants)
    assert "cubin" in triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter does take CPU tensors")
def test_cpu_tensors_are_refused_with_advice():
    from mtvision.ops import selective_scan

    x, A = torch.ones(1, 2, 3), -torch.ones(2, 1)
    with pytest.raises(RuntimeError, match="needs CUDA tensors; use 'auto'"):
        selective_scan(x, x, A, torch.ones(1, 1, 3), torch.ones(1, 1, 3), backend="triton")

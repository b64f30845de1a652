"""The scan: every backend against the written-out reference, gradients, argument forms, numeric traps."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from mtvision.core.naming import UnknownNameError
from mtvision.ops import available_backends, selective_scan, use_backend
from mtvision.ops.scan import build
from mtvision.ops.scan.operator import scan_op

needs_compiler = pytest.mark.skipif("cpp" not in available_backends(), reason="no C++ compiler here")
FAST = ["torch", pytest.param("cpp", marks=needs_compiler)]

# (batch, channels, steps, states, groups): one step, whole and broken chunks, odd widths, N other than 16.
SHAPES = [
    (1, 4, 1, 16, 4),
    (2, 6, 5, 3, 2),
    (1, 33, 64, 1, 1),
    (1, 40, 131, 16, 2),
    (2, 64, 130, 8, 4),
    (1, 16, 70, 20, 1),
]


def make(shape, dtype=torch.float64, scale=1.0):
    B, D, L, N, G = shape
    kw = {"dtype": dtype}
    u, delta = torch.randn(B, D, L, **kw), torch.randn(B, D, L, **kw) * scale
    A = -torch.rand(D, N, **kw) * N - 0.1
    sides = [torch.randn(B, G, N, L, **kw) for _ in range(2)]
    return [x.requires_grad_() for x in (u, delta, A, *sides, torch.randn(D, **kw), torch.randn(D, **kw))]


def run(arguments, backend, softplus=True):
    """Output, last state and all gradients of a random projection of both."""
    u, delta, A, B, C, D, bias = arguments
    y, last = selective_scan(u, delta, A, B, C, D, None, bias, softplus, True, backend=backend)
    draw = torch.Generator().manual_seed(3)
    weights = [torch.randn(x.shape, generator=draw, dtype=torch.float64).to(x.dtype) for x in (y, last)]
    return [y, last, *torch.autograd.grad((y * weights[0]).sum() + (last * weights[1]).sum(), arguments)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("backend", FAST)
def test_equals_the_reference_in_double(backend, shape):
    arguments = make(shape)
    torch.testing.assert_close(run(arguments, backend), run(arguments, "reference"), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("backend", FAST)
def test_single_precision_is_as_good_as_the_reference(backend):
    arguments = make((1, 48, 300, 16, 2), torch.float32)
    exact = run([x.detach().double().requires_grad_() for x in arguments], "reference")
    for got, want in zip(run(arguments, backend), exact, strict=True):
        assert ((got - want).abs().max() / want.abs().max()).item() < 2e-6


@pytest.mark.parametrize("backend", ["reference", *FAST])
def test_gradients_match_finite_differences(backend):
    arguments = make((1, 4, 5, 3, 2))

    def scan(u, delta, A, B, C, D, bias):
        return selective_scan(u, delta, A, B, C, D, None, bias, True, True, backend=backend)

    assert torch.autograd.gradcheck(scan, arguments)


def test_one_step_by_hand():
    """From a zero state: y = (delta B C + D) u, whatever A is."""
    u, delta = torch.tensor([[[3.0]]]), torch.tensor([[[0.5]]])
    B, C = torch.tensor([[[2.0]]]), torch.tensor([[[7.0]]])
    y = selective_scan(u, delta, torch.tensor([[-5.0]]), B, C, torch.tensor([10.0]))
    assert y.item() == pytest.approx(0.5 * 2 * 7 * 3 + 10 * 3)


@pytest.mark.parametrize("backend", FAST)
def test_an_impulse_decays_exponentially(backend):
    L = 150
    u = F.one_hot(torch.tensor([[0]]), L).double()
    ones = torch.ones(1, 1, L, dtype=torch.float64)
    y = selective_scan(
        u, 0.1 * ones, torch.tensor([[-0.3]], dtype=torch.float64), ones, ones, backend=backend
    )
    want = 0.1 * torch.exp(-0.03 * torch.arange(L, dtype=torch.float64))
    torch.testing.assert_close(y[0, 0], want, rtol=1e-9, atol=0)


@pytest.mark.parametrize("backend", FAST)
def test_all_argument_forms(backend):
    """z, no D, no bias, no softplus, ungrouped B, constant C, against the reference."""
    u, delta, A, B, C, _, _ = make((2, 4, 9, 3, 1))
    z = torch.randn_like(u)
    constant = torch.randn(4, 3, dtype=torch.float64)
    for b, c in ((B[:, 0], C), (B, constant), (constant, constant), (B.expand(2, 4, 3, 9), C)):
        got = selective_scan(u, delta.abs(), A, b, c, z=z, backend=backend)
        torch.testing.assert_close(got, selective_scan(u, delta.abs(), A, b, c, z=z, backend="reference"))
    plain = selective_scan(u, delta.abs(), A, B, C, backend=backend)
    torch.testing.assert_close(
        selective_scan(u, delta.abs(), A, B, C, z=z, backend=backend), plain * F.silu(z)
    )


@pytest.mark.parametrize("backend", FAST)
def test_any_memory_layout(backend):
    """Channels-last sequences, and slices of larger tensors, give the same numbers."""
    arguments = make((2, 24, 70, 4, 2))
    plain = run(arguments, backend)
    u, delta, A, B, C, D, bias = (x.detach() for x in arguments)
    u, delta = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in (u, delta))
    B, C = (torch.cat([x, x], dim=3)[..., :70] for x in (B, C))
    other = run([x.requires_grad_() for x in (u, delta, A, B, C, D, bias)], backend)
    torch.testing.assert_close(plain, other)


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_goes_in_and_out_but_not_through(backend, dtype):
    arguments = [x.detach().to(dtype).requires_grad_() for x in make((1, 8, 90, 4, 2))]
    u, delta, A, B, C, D, bias = arguments
    y, last = selective_scan(u, delta, A, B, C, D, None, bias, True, True, backend=backend)
    assert y.dtype == dtype
    assert last.dtype == torch.float32
    exact = selective_scan(*(x.detach().float() for x in (u, delta, A, B, C, D)), None, bias.float(), True)
    torch.testing.assert_close(y, exact.to(dtype), rtol=1e-2, atol=1e-3)
    assert all(g.dtype == dtype for g in torch.autograd.grad(y.float().sum(), arguments))


def test_autocast_does_not_reach_inside():
    arguments = [x.detach() for x in make((1, 8, 90, 4, 2), torch.float32)]
    u, delta, A, B, C, D, bias = arguments
    plain = selective_scan(u, delta, A, B, C, D, None, bias, True)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(selective_scan(u, delta, A, B, C, D, None, bias, True), plain)


@pytest.mark.parametrize("backend", FAST)
def test_large_steps_stay_finite(backend):
    """Decays of exp(-50000) are zero, not NaN; log-space formulations break here."""
    arguments = make((1, 16, 200, 16, 1), torch.float32, scale=1e3)
    results = run(arguments, backend)
    assert all(x.isfinite().all() for x in results)
    exact = run([x.detach().double().requires_grad_() for x in arguments], "reference")
    torch.testing.assert_close(results[0].double(), exact[0], rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("backend", FAST)
def test_softplus_over_its_whole_range(backend):
    """Against log1p(exp(x)) in double, and its slope, from far below to the identity above 20."""
    delta = torch.cat([torch.linspace(-30, 30, 601), torch.tensor([-100.0, 19.99, 20.01, 100.0])])[
        :, None, None
    ]
    delta.requires_grad_()
    one = torch.ones_like(delta)  # a sequence of one step from a zero state: the output is the step size
    y = selective_scan(one, delta, -one[0], one, one, delta_softplus=True, backend=backend)
    x = delta.detach().double()
    want = torch.where(x > 20, x, torch.log1p(torch.exp(x)))
    torch.testing.assert_close(y.double(), want, rtol=3e-6, atol=1e-13)
    (slope,) = torch.autograd.grad(y.sum(), delta)
    torch.testing.assert_close(slope.double(), torch.sigmoid(x), rtol=3e-6, atol=1e-13)


@pytest.mark.parametrize("backend", FAST)
def test_a_slow_decay_does_not_drift(backend):
    """10 000 steps that forget one part in 10^5 each: an error of one ulp a step would show."""
    L = 10_000
    u = F.one_hot(torch.tensor([[0]]), L).float()
    ones = torch.ones(1, 1, L)
    y = selective_scan(u, ones * 1e-2, torch.tensor([[-1e-3]]), ones, ones, backend=backend)
    assert y[0, 0, -1].item() == pytest.approx(1e-2 * math.exp(-1e-5 * (L - 1)), rel=1e-3)


@pytest.mark.parametrize("threads", [1, 3])
@needs_compiler
def test_threads_do_not_change_the_result(threads):
    arguments = make((1, 80, 400, 16, 2), torch.float32)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        first, again = run(arguments, "cpp"), run(arguments, "cpp")
    finally:
        torch.set_num_threads(before)
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a, b)
    torch.testing.assert_close(first, run(arguments, "torch"), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("backend", FAST)
def test_operator_rules(backend):
    """Schema, fake kernel, autograd registration and tracing agree with the real kernel."""
    arguments = [x.detach() for x in make((1, 8, 70, 4, 2), torch.float32)]
    torch.library.opcheck(scan_op, (*arguments, True, True, backend))
    torch.library.opcheck(scan_op, (*arguments[:5], None, None, False, True, backend))


@pytest.mark.parametrize("backend", FAST)
def test_vmap_and_batched_gradients(backend):
    arguments = make((1, 4, 9, 3, 2))
    u, delta, A, B, C, D, bias = arguments

    def scan(u):
        return selective_scan(u, delta, A, B, C, D, None, bias, True, backend=backend)

    many = torch.randn(3, *u.shape, dtype=torch.float64)
    torch.testing.assert_close(torch.vmap(scan)(many), torch.stack([scan(x) for x in many]))
    directions = torch.randn(3, *u.shape, dtype=torch.float64)
    y = scan(u)
    batched = torch.autograd.grad(y, arguments, directions, is_grads_batched=True, retain_graph=True)
    single = [torch.autograd.grad(y, arguments, d, retain_graph=True) for d in directions]
    torch.testing.assert_close(batched, tuple(torch.stack(parts) for parts in zip(*single, strict=True)))


@pytest.mark.parametrize("backend", FAST)
def test_functional_gradients(backend):
    arguments = [x.detach() for x in make((1, 4, 9, 3, 2))]

    def loss(u, delta, A, B, C, D, bias):
        return selective_scan(u, delta, A, B, C, D, None, bias, True, backend=backend).square().sum()

    got = torch.func.grad(loss, argnums=tuple(range(7)))(*arguments)
    leaves = [x.clone().requires_grad_() for x in arguments]
    torch.testing.assert_close(got, torch.autograd.grad(loss(*leaves), leaves))


def test_flops_follow_the_fields_convention():
    """9BLDN + BLD multiply-accumulates, also without memory for the numbers."""
    from torch.utils.flop_counter import FlopCounterMode

    u = torch.empty(1, 768, 4032, device="meta")
    A, B = torch.empty(768, 16, device="meta"), torch.empty(1, 4, 16, 4032, device="meta")
    with FlopCounterMode(display=False) as counter:
        selective_scan(u, u, A, B, B)
    assert counter.get_total_flops() == 2 * 4032 * 768 * (9 * 16 + 1)


def test_compiles_without_a_graph_break():
    arguments = [x.detach() for x in make((1, 4, 9, 3, 2), torch.float32)]

    def scan(u, delta, A, B, C, D, bias):
        return selective_scan(u, delta, A, B, C, D, None, bias, True) * 2

    compiled = torch.compile(scan, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*arguments), scan(*arguments))


def test_exports():
    class Scan(torch.nn.Module):
        def forward(self, u, delta, A, B):
            return selective_scan(u, delta, A, B, B)

    u, delta, A, B = (x.detach() for x in make((1, 4, 9, 3, 2), torch.float32)[:4])
    program = torch.export.export(Scan(), (u, delta.abs(), A, B))
    torch.testing.assert_close(program.module()(u, delta.abs(), A, B), Scan()(u, delta.abs(), A, B))


def test_inputs_are_left_alone_and_no_states_are_kept_without_gradients():
    arguments = [x.detach() for x in make((1, 8, 130, 4, 2), torch.float32)]
    before = [x.clone() for x in arguments]
    y, _, states = scan_op(*arguments, True, False, "auto")
    assert states.numel() == 0
    for backend in available_backends():
        u, delta, A, B, C, D, bias = arguments
        selective_scan(u, delta, A, B, C, D, None, bias, True, backend=backend)
    torch.testing.assert_close(arguments, before, rtol=0, atol=0)
    assert y.shape == (1, 8, 130)


def test_use_backend_is_obeyed_and_undone(monkeypatch):
    from mtvision.ops.scan import reference

    called = []
    monkeypatch.setattr(reference, "scan", lambda *a, **k: called.append(1) or (a[0], a[0]))
    u, delta, A, B, C, *_ = (x.detach() for x in make((1, 4, 9, 3, 2)))
    with use_backend("reference"):
        selective_scan(u, delta, A, B, C)
    assert called == [1]
    selective_scan(u, delta, A, B, C)
    assert called == [1]


def test_errors_say_what_to_do():
    u, delta, A, B, C, D, _ = (x.detach() for x in make((1, 4, 9, 3, 2)))
    with pytest.raises(UnknownNameError, match="Did you mean 'triton'"):
        selective_scan(u, delta, A, B, C, backend="tritn")
    with pytest.raises(ValueError, match=r"A has shape \(3, 4\), expected \(4, N\)"):
        selective_scan(u, delta, A.T, B, C)
    with pytest.raises(ValueError, match="3 groups, which do not divide the 4 channels"):
        selective_scan(u, delta, A, B[:, [0, 1, 0]], C)
    with pytest.raises(ValueError, match=r"B has shape .* give \(D, N\), \(B, N, L\) or \(B, G, N, L\)"):
        selective_scan(u, delta, A, B[..., :5], C)
    with pytest.raises(ValueError, match=r"D must have shape \(4,\)"):
        selective_scan(u, delta, A, B, C, D[:3])
    with pytest.raises(RuntimeError, match="mamba_ssm.*needs"):
        selective_scan(u, delta, A, B, C, backend="mamba_ssm")


def test_without_a_compiler_one_line_says_so_and_torch_is_used(caplog):
    u, delta, A, B, C, *_ = (x.detach() for x in make((1, 4, 9, 3, 2)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXX", "no-such-compiler")
        build.load_kernel.cache_clear()
        y = selective_scan(u, delta, A, B, C)
        selective_scan(u, delta, A, B, C)
        assert ["no C++ compiler (no-such-compiler)" in r.message for r in caplog.records] == [True]
        with pytest.raises(RuntimeError, match="'cpp' needs a C\\+\\+ compiler"):
            selective_scan(u, delta, A, B, C, backend="cpp")
    build.load_kernel.cache_clear()
    torch.testing.assert_close(y, selective_scan(u, delta, A, B, C))


def test_second_derivatives_are_refused_or_right():
    arguments = make((1, 2, 3, 2, 1))
    u = arguments[0]

    def first(backend):
        y = selective_scan(*arguments[:5], delta_softplus=True, backend=backend)
        return torch.autograd.grad(y.square().sum(), u, create_graph=True)[0]

    assert torch.autograd.grad(first("reference").sum(), u)[0].abs().sum() > 0
    with pytest.raises(RuntimeError, match="for second derivatives use backend='reference'"):
        torch.autograd.grad(first("torch").sum(), u)

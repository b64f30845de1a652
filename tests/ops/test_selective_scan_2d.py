"""The four-direction scan against its definition and against the stacked way of computing it."""

from __future__ import annotations

import pytest
import torch

from mtvision.ops import available_backends, selective_scan_2d, stacked_scan_2d
from mtvision.ops.scan import reference
from mtvision.ops.scan.operator import scan_2d_op

needs_compiler = pytest.mark.skipif("cpp" not in available_backends(), reason="no C++ compiler here")
FAST = ["torch", pytest.param("cpp", marks=needs_compiler)]


def make(B, H, W, E, N, dtype=torch.float64):
    kw = {"dtype": dtype}
    u, delta = torch.randn(B, H, W, E, **kw), torch.randn(B, H, W, 4, E, **kw)
    A = -torch.rand(4 * E, N, **kw) * N - 0.1
    sides = [torch.randn(B, H, W, 4, N, **kw) for _ in range(2)]
    rows = [torch.randn(4 * E, **kw) for _ in range(2)]
    return [x.requires_grad_() for x in (u, delta, A, *sides, *rows)]


def with_gradients(y, arguments):
    weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(5), dtype=y.dtype)
    return [y, *torch.autograd.grad((y * weight).sum(), arguments)]


def test_the_four_orders():
    """The 2 x 3 map 0..5, read by rows, by columns and both backwards."""
    orders = reference.cross_scan(torch.arange(6.0).reshape(1, 1, 2, 3))[0, :, 0].tolist()
    assert orders == [[0, 1, 2, 3, 4, 5], [0, 3, 1, 4, 2, 5], [5, 4, 3, 2, 1, 0], [5, 2, 4, 1, 3, 0]]


def test_merge_undoes_scan_four_times():
    x = torch.randn(2, 3, 4, 5)
    torch.testing.assert_close(reference.cross_merge(reference.cross_scan(x), 4, 5), 4 * x)


def test_sequences_and_maps_are_inverse():
    x = torch.randn(2, 3, 5, 4, 7)
    assert torch.equal(reference.maps(reference.sequences(x), 3, 5), x)
    same = x[..., :1, :].expand_as(x)  # equal in all directions: then it is the cross scan
    assert torch.equal(reference.sequences(same), reference.cross_scan(x[..., 0, :].permute(0, 3, 1, 2)))


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize(
    ("size", "states"), [((2, 3, 5, 6), 3), ((1, 9, 8, 20), 16), ((1, 1, 7, 16), 1), ((1, 70, 1, 4), 5)]
)
def test_equals_the_stacked_reference(backend, size, states):
    arguments = make(*size, states)
    want = with_gradients(stacked_scan_2d(*arguments, True, backend="reference"), arguments)
    got = with_gradients(selective_scan_2d(*arguments, True, backend=backend), arguments)
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("backend", FAST)
def test_gradients_match_finite_differences(backend):
    arguments = make(1, 2, 3, 2, 2)
    assert torch.autograd.gradcheck(lambda *a: selective_scan_2d(*a, True, backend=backend), arguments)


@pytest.mark.parametrize("backend", FAST)
def test_a_quarter_turn_of_the_map_swaps_directions(backend):
    """Transposing the map and exchanging rows with columns among the directions transposes the output."""
    u, delta, A, B, C, D, bias = (x.detach() for x in make(1, 4, 6, 5, 3))
    swap = [1, 0, 3, 2]

    def rows(x):
        return x.unflatten(0, (4, -1))[swap].flatten(0, 1)

    turned = [x.transpose(1, 2)[:, :, :, swap] for x in (delta, B, C)]
    y = selective_scan_2d(
        u.transpose(1, 2), turned[0], rows(A), *turned[1:], rows(D), rows(bias), True, backend=backend
    )
    torch.testing.assert_close(
        y.transpose(1, 2), selective_scan_2d(u, delta, A, B, C, D, bias, True, backend=backend)
    )


@pytest.mark.parametrize("backend", FAST)
def test_operator_rules(backend):
    arguments = [x.detach() for x in make(1, 3, 5, 4, 2, torch.float32)]
    torch.library.opcheck(scan_2d_op, (*arguments, True, True, backend))


@pytest.mark.parametrize("backend", FAST)
def test_any_memory_layout(backend):
    """Directions apart in memory, channels cut from wider tensors, and maps that cannot be walked evenly."""
    plain = make(2, 4, 6, 20, 3)
    u, delta, A, B, C, D, bias = (x.detach() for x in plain)
    apart = delta.permute(3, 0, 1, 2, 4).contiguous().permute(1, 2, 3, 0, 4)
    both = torch.cat([B, C], dim=-1)
    turned = u.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    rows = torch.cat([delta, delta], dim=2)[:, :, :6]
    for u_, delta_ in ((u, apart), (turned, delta), (u, rows)):
        other = [x.requires_grad_() for x in (u_, delta_, A, both[..., :3], both[..., 3:], D, bias)]
        got = with_gradients(selective_scan_2d(*other, True, backend=backend), other)
        want = with_gradients(selective_scan_2d(*plain, True, backend=backend), plain)
        torch.testing.assert_close(got, want)


def test_half_precision_goes_in_and_out():
    arguments = [x.detach().bfloat16() for x in make(1, 3, 5, 4, 2)]
    y = selective_scan_2d(*arguments, True)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y, selective_scan_2d(*(x.float() for x in arguments), True).bfloat16())


def test_flops_count_four_directions():
    from torch.utils.flop_counter import FlopCounterMode

    arguments = [x.detach().to("meta") for x in make(1, 6, 7, 8, 16)]
    with FlopCounterMode(display=False) as counter:
        selective_scan_2d(*arguments)
    assert counter.get_total_flops() == 2 * 42 * 32 * (9 * 16 + 1)


def test_wrong_shapes_are_named():
    u, delta, A, B, C, *_ = (x.detach() for x in make(1, 3, 5, 4, 2))
    with pytest.raises(ValueError, match=r"delta must have shape \(1, 3, 5, 4, 4\)"):
        selective_scan_2d(u, delta[..., :3], A, B, C)
    with pytest.raises(ValueError, match=r"C must have shape \(1, 3, 5, 4, 2\)"):
        selective_scan_2d(u, delta, A, B, C[..., :2, :])

"""The scan as two operators of PyTorch, so that export, compile, the profiler and FLOP counters see them.

`mtvision::selective_scan` works on sequences, `mtvision::selective_scan_2d` on maps. Both take and return one
floating type (fp32 or fp64). u, delta, B and C may also be bf16, with fp32 for the rest. The output is then
bf16. The C++ kernel reads bf16 without a copy; the other backends get copies in fp32. Precision, gating and
argument forms are the business of `interface`.

Shapes: B batch, L steps, D channels, G groups, N states. For a map: H, W, K = 4 directions, E channels, and D
= K * E. Stored states: (B, chunks, N, D), with no chunks where nothing is to be differentiated.
"""

# ruff: noqa: N803, N806, ARG001, ARG004  rules of one operator share its whole list of arguments
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from mtvision.core.roles import WholeGradient
from mtvision.ops.scan import cpp_backend, reference, torch_backend
from mtvision.ops.scan.backends import resolve
from mtvision.ops.scan.constants import CHUNK
from mtvision.ops.scan.cpp_backend import Layout, Placed, Scan, sequence_layout

Optional = Tensor | None
Grads = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]

_INPUTS = "Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? delta_bias, bool softplus"
_FORWARD = f"({_INPUTS}, bool keep, str backend) -> (Tensor, Tensor, Tensor)"
_BACKWARD = (
    f"(Tensor dy, Tensor? dlast, {_INPUTS}, Tensor states, str backend) -> ({', '.join(['Tensor'] * 7)})"
)


def _sequence_problem(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Optional, bias: Optional, softplus: bool
) -> Scan:
    batch, channels, length = u.shape
    groups, states = B.shape[1], A.shape[1]

    def of(x: Tensor) -> Layout:
        b, g, n, t = x.stride()
        return b, g, t, n

    D, bias = (None if x is None else x.contiguous() for x in (D, bias))
    numbers = (batch, groups, channels // groups, states, length, 1, False, softplus)
    layouts = (sequence_layout(u, groups), sequence_layout(delta, groups), of(B), of(C))
    return Scan(*numbers, u, delta, A, B, C, D, bias, *layouts)


def _map_problem(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Optional, bias: Optional, softplus: bool
) -> Scan:
    u, delta, B, C = (_walkable(x) for x in (u, delta, B, C))
    D, bias = (None if x is None else x.contiguous() for x in (D, bias))
    batch, height, width, channels = u.shape
    states, length = A.shape[1], height * width
    numbers = (batch, 4, channels, states, length, height, True, softplus)
    layouts = (_map_layout(u), _map_layout(delta), _map_layout(B), _map_layout(C))
    return Scan(*numbers, u, delta, A, B, C, D, bias, *layouts)


def _map_layout(x: Tensor) -> Layout:
    """Layout of a map (B, H, W, E) that all directions share, or of (B, H, W, 4, E)."""
    batch, _, step, *group, channel = x.stride()
    return batch, group[0] if group else 0, step, channel


def _walkable(x: Tensor) -> Tensor:
    """`x`, copied unless its channels are neighbours and its positions lie at one distance."""
    even = x.shape[1] == 1 or x.stride(1) == x.shape[2] * x.stride(2)
    return x if even and x.stride(-1) == 1 and x.stride(2) > 0 else x.contiguous()


def _by_direction(x: Tensor) -> Tensor:
    """Empty (B, H, W, 4, E), directions apart in memory, as one matrix product per direction makes it."""
    batch, height, width, directions, channels = x.shape
    return x.new_empty(directions, batch, height, width, channels).permute(1, 2, 3, 0, 4)


def _wide(like: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
    """`tensors` in the type of arithmetic, which is that of `like`."""
    return tuple(x.to(like.dtype) for x in tensors)


def _narrow(grads: Grads, u: Tensor, delta: Tensor, B: Tensor, C: Tensor) -> Grads:
    """Gradients in the types of the tensors they belong to."""
    du, ddelta, dA, dB, dC, dD, dbias = grads
    return du.to(u.dtype), ddelta.to(delta.dtype), dA, dB.to(B.dtype), dC.to(C.dtype), dD, dbias


def _scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Optional, bias: Optional,
          softplus: bool, keep: bool, backend: str) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    match resolve(backend, u):
        case "cpp":
            scan = _sequence_problem(u, delta, A, B, C, D, bias, softplus)
            y = torch.empty_like(u)
            return (y, *cpp_backend.forward(scan, y, sequence_layout(y, scan.groups), keep=keep))
        case "triton":
            from mtvision.ops.scan import triton_backend  # imports triton, which is optional

            run = triton_backend.forward
        case _:
            run = torch_backend.forward
    u_R, delta_R, B_R, C_R = _wide(A, u, delta, B, C)
    y, last, states = run(u_R, delta_R, A, B_R, C_R, D, bias, softplus, keep)
    return y.to(u.dtype), last, states


def _scan_backward(dy: Tensor, dlast: Optional, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor,
                   D: Optional, bias: Optional, softplus: bool, states: Tensor,
                   backend: str) -> Grads:  # fmt: skip
    match resolve(backend, u):
        case "cpp":
            scan = _sequence_problem(u, delta, A, B, C, D, bias, softplus)
            placed = [
                Placed(x, sequence_layout(x, scan.groups))
                for x in (dy, torch.empty_like(u), torch.empty_like(delta))
            ]
            g = cpp_backend.backward(scan, placed[0], dlast, states, *placed[1:])
            dB, dC = (x.transpose(2, 3).to(B.dtype).contiguous() for x in (g.B, g.C))
            return placed[1].tensor, placed[2].tensor, g.A, dB, dC, g.D, g.bias
        case "triton":
            from mtvision.ops.scan import triton_backend

            run = triton_backend.backward
        case _:
            run = torch_backend.backward
    dy, u_R, delta_R, B_R, C_R = _wide(A, dy, u, delta, B, C)
    grads = run(dy, dlast, u_R, delta_R, A, B_R, C_R, D, bias, softplus, states)
    return _narrow(grads, u, delta, B, C)


def _stack(u: Tensor, delta: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Four sequences side by side: u, delta (B, 4E, L) and B, C (B, 4, N, L)."""
    four = reference.cross_scan(u.permute(0, 3, 1, 2)).flatten(1, 2)
    return four, reference.sequences(delta).flatten(1, 2), reference.sequences(B), reference.sequences(C)


def _scan_2d(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Optional, bias: Optional,
             softplus: bool, keep: bool, backend: str) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    if resolve(backend, u) == "cpp":
        scan = _map_problem(u, delta, A, B, C, D, bias, softplus)
        y = A.new_empty(u.shape)
        last, states = cpp_backend.forward(scan, y, _map_layout(y), keep=keep)
        return y.to(u.dtype), last, states
    four, delta_K, B_K, C_K = _stack(*_wide(A, u, delta, B, C))
    y, last, states = _scan(four, delta_K, A, B_K, C_K, D, bias, softplus, keep, backend)
    merged = reference.cross_merge(torch.unflatten(y, 1, (4, -1)), *u.shape[1:3])
    return merged.permute(0, 2, 3, 1).to(u.dtype).contiguous(), last, states


def _scan_2d_backward(dy: Tensor, dlast: Optional, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor,
                      D: Optional, bias: Optional, softplus: bool, states: Tensor,
                      backend: str) -> Grads:  # fmt: skip
    if resolve(backend, u) == "cpp":
        scan = _map_problem(u, delta, A, B, C, D, bias, softplus)
        tensors = (_walkable(dy), A.new_empty(u.shape), _by_direction(delta))
        placed = [Placed(x, _map_layout(x)) for x in tensors]
        g = cpp_backend.backward(scan, placed[0], dlast, states, *placed[1:])
        dB, dC = (x.transpose(1, 2).reshape(B.shape).to(B.dtype) for x in (g.B, g.C))
        return tensors[1].to(u.dtype), tensors[2], g.A, dB, dC, g.D, g.bias
    four, delta_K, B_K, C_K = _stack(*_wide(A, u, delta, B, C))
    dy_K = reference.cross_scan(dy.to(A.dtype).permute(0, 3, 1, 2)).flatten(1, 2)
    grads = _scan_backward(dy_K, dlast, four, delta_K, A, B_K, C_K, D, bias, softplus, states, backend)
    size = u.shape[1:3]
    du = reference.cross_merge(torch.unflatten(grads[0], 1, (4, -1)), *size).permute(0, 2, 3, 1).contiguous()
    ddelta = _by_direction(delta).copy_(reference.maps(torch.unflatten(grads[1], 1, (4, -1)), *size))
    dB, dC = (reference.maps(x, *size).contiguous() for x in grads[3:5])
    return _narrow((du, ddelta, grads[2], dB, dC, grads[5], grads[6]), u, delta, B, C)


def _fake(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Optional, bias: Optional,
          softplus: bool, keep: bool, backend: str) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    length = u.shape[2] if u.ndim == 3 else u.shape[1] * u.shape[2]
    chunks = (length + CHUNK - 1) // CHUNK if keep else 0
    y = torch.empty_like(u) if u.ndim == 3 else u.new_empty(u.shape)
    return y, A.new_empty(u.shape[0], *A.shape), A.new_empty(u.shape[0], chunks, A.shape[1], A.shape[0])


def _fake_backward(dy: Tensor, dlast: Optional, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor,
                   D: Optional, bias: Optional, softplus: bool, states: Tensor,
                   backend: str) -> Grads:  # fmt: skip
    du = torch.empty_like(u) if u.ndim == 3 else u.new_empty(u.shape)
    ddelta = torch.empty_like(delta) if u.ndim == 3 else _by_direction(delta)
    row = A.new_empty(A.shape[0])
    dB, dC = (x.new_empty(x.shape) for x in (B, C))
    return du, ddelta, A.new_empty(A.shape), dB, dC, row, torch.empty_like(row)


def _register(name: str, forward: Callable[..., Any], backward: Callable[..., Any]) -> tuple[Any, Any]:
    """Define `mtvision::name` and its backward operator with all their rules; return both."""
    op = torch.library.custom_op(f"mtvision::{name}", forward, mutates_args=(), schema=_FORWARD)
    back = torch.library.custom_op(f"mtvision::{name}_backward", backward, mutates_args=(), schema=_BACKWARD)
    op.register_fake(_fake)
    back.register_fake(_fake_backward)

    if hasattr(torch.library, "register_vmap"):  # torch >= 2.5
        _loop_under_vmap(op, 3)
        _loop_under_vmap(back, 7)
    register_flop_formula(getattr(torch.ops.mtvision, name))(_flops)
    register_flop_formula(getattr(torch.ops.mtvision, f"{name}_backward"))(_backward_flops)
    return op, back


def _loop_under_vmap(op: Any, num_outputs: int) -> None:
    """One call per entry of the mapped axis: per-task gradients have a handful, and each call is parallel."""

    def rule(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Any, Any]:
        def pick(x: Any, dim: int | None, i: int) -> Any:
            return x.select(dim, i) if isinstance(x, Tensor) and dim is not None else x

        results = [op(*map(pick, args, in_dims, [i] * len(args))) for i in range(info.batch_size)]
        return tuple(torch.stack(parts) for parts in zip(*results, strict=True)), (0,) * num_outputs

    torch.library.register_vmap(op, rule)


def _cost(u_shape: tuple[int, ...], A_shape: tuple[int, ...]) -> int:
    length = u_shape[2] if len(u_shape) == 3 else u_shape[1] * u_shape[2]
    channels, states = A_shape
    return u_shape[0] * length * channels * (9 * states + 1)


def _flops(u: Any, delta: Any, A: Any, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    """Twice 9BLDN + BLD: the field's count of a scan is in the unit of its multiply-accumulates."""
    return 2 * _cost(u, A)


def _backward_flops(dy: Any, dlast: Any, u: Any, delta: Any, A: Any, *args: Any, **kwargs: Any) -> int:
    """Twice the forward pass, as for a matrix product; replayed states are not counted."""
    return 4 * _cost(u, A)


scan_op, scan_backward_op = _register("selective_scan", _scan, _scan_backward)
scan_2d_op, scan_2d_backward_op = _register("selective_scan_2d", _scan_2d, _scan_2d_backward)


class SelectiveScan(WholeGradient):
    """Either operator (by the rank of `u`) with gradients.

    Not the operators' own autograd rules: those fail inside `torch.func.grad`.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Optional, bias: Optional,
                softplus: bool, keep: bool, backend: str) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """Output, last state, stored states."""
        op = scan_op if u.ndim == 3 else scan_2d_op
        y, last, states = op(u, delta, A, B, C, D, bias, softplus, keep, backend)
        return y, last, states

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Keep the arguments and the stored states."""
        *tensors, ctx.softplus, ctx.keep, ctx.backend = inputs
        ctx.save_for_backward(*tensors, output[2])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grads_out: Optional) -> tuple[Optional, ...]:
        """Gradients of the tensor arguments."""
        dy, dlast, _ = grads_out
        u, delta, A, B, C, D, bias, states = ctx.saved_tensors
        if not ctx.keep:
            raise RuntimeError(
                "selective scan: called without stored states, so it cannot be differentiated."
            )
        dy = torch.zeros_like(u) if dy is None else dy
        arguments = (dy, dlast, u, delta, A, B, C, D, bias, ctx.softplus, states, ctx.backend)
        grads = SelectiveScanBackward.apply(*arguments)
        dD, dbias = (None if x is None else g for x, g in ((D, grads[5]), (bias, grads[6])))
        return (*grads[:5], dD, dbias, None, None, None)


class SelectiveScanBackward(torch.autograd.Function):
    """Gradients as a Function of their own, which `torch.func.grad` needs; a second derivative is refused."""

    generate_vmap_rule = True

    @staticmethod
    def forward(dy: Tensor, dlast: Optional, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor,
                D: Optional, bias: Optional, softplus: bool, states: Tensor,
                backend: str) -> Grads:  # fmt: skip
        """Gradients of u, delta, A, B, C, D and the bias."""
        op = scan_backward_op if u.ndim == 3 else scan_2d_backward_op
        du, ddelta, dA, dB, dC, dD, dbias = op(
            dy, dlast, u, delta, A, B, C, D, bias, softplus, states, backend
        )
        return du, ddelta, dA, dB, dC, dD, dbias

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Nothing to keep."""

    @staticmethod
    def backward(ctx: Any, *grads: Optional) -> tuple[Optional, ...]:
        """Refuse."""
        raise RuntimeError("selective scan: for second derivatives use backend='reference'.")

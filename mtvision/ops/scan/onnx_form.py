"""The scans in ONNX's operators, for `torch.onnx.export(..., custom_translation_table=onnx_forms())`.

A `Scan` node in a function, which all scans of a network call, holds the recurrence. The exporter need not
trace what is inside. `graph_form` is the same in PyTorch's operators, with the same steps.

Shapes: L steps, B batch, G groups, P channels of a group, N states; H, W a map, E its channels.
"""

# mypy: ignore-errors
# ruff: noqa: ARG001  the arguments are those of the operators
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from onnxscript import FLOAT, graph, script
from onnxscript.onnx_opset import opset18 as op
from onnxscript.values import Opset

DOMAIN = Opset("mtvision", 1)
FIRST = -(2**31) + 1
"""End of a slice that runs backwards to the first entry."""


def onnx_forms() -> dict[Callable[..., Any], Callable[..., Any]]:
    """{operator: its ONNX form}."""
    operators = torch.ops.mtvision
    return {operators.selective_scan.default: _scan, operators.selective_scan_2d.default: _scan_2d}


@script(DOMAIN)
def recurrence(items: FLOAT[...], rates: FLOAT[...], start: FLOAT[...]) -> tuple[FLOAT[...], FLOAT[...]]:
    """Last state (B, G, P, N) and output (L, B, G, P), as `graph_form._advance`."""
    channels = op.Shape(rates, start=1, end=2)
    states = op.Shape(rates, start=2, end=3)
    sizes = op.Concat(channels, channels, states, states, axis=0)
    last_axis = op.Constant(value_ints=[-1])
    before_last = op.Constant(value_ints=[-2])

    @graph()
    def advance(state, item):
        step, drive, B, C = op.Split(item, sizes, axis=-1)
        decay = op.Exp(op.Mul(op.Unsqueeze(step, last_axis), rates))
        gain = op.Mul(op.Unsqueeze(drive, last_axis), op.Unsqueeze(B, before_last))
        after = op.Add(op.Mul(decay, state), gain)
        read = op.ReduceSum(op.Mul(after, op.Unsqueeze(C, before_last)), last_axis, keepdims=0)
        return after, read

    last, y = op.Scan(start, items, body=advance, num_scan_inputs=1)
    return last, y


def _scan(u, delta, A, B, C, D, bias, softplus: bool, keep: bool, backend: str):
    """`mtvision::selective_scan` of sequences; the third output is of no use in inference."""
    groups, channels = B.shape[1], A.shape[0] // B.shape[1]
    step = _step(op.Transpose(delta, perm=[2, 0, 1]), bias, softplus)
    parts = [_grouped(x, groups) for x in (step, op.Mul(step, op.Transpose(u, perm=[2, 0, 1])))]
    items = op.Concat(*parts, *(op.Transpose(x, perm=[3, 0, 1, 2]) for x in (B, C)), axis=-1)
    last, y = _advance(items, op.Reshape(A, op.Constant(value_ints=[groups, channels, -1])))
    y = op.Transpose(op.Reshape(y, op.Constant(value_ints=[0, 0, -1])), perm=[1, 2, 0])
    if D is not None:
        y = op.Add(y, op.Mul(op.Unsqueeze(D, op.Constant(value_ints=[1])), u))
    last = op.Reshape(last, op.Constant(value_ints=[0, -1, A.shape[1]]))
    return y, op.Identity(last), op.Identity(last)


def _scan_2d(u, delta, A, B, C, D, bias, softplus: bool, keep: bool, backend: str):
    """`mtvision::selective_scan_2d` of maps; the second and third output are of no use in inference."""
    by_direction = op.Constant(value_ints=[4, -1])
    batch, height, width = (op.Shape(u, start=axis, end=axis + 1) for axis in range(3))
    step = _step(delta, None if bias is None else op.Reshape(bias, by_direction), softplus)
    drive = op.Mul(step, op.Unsqueeze(u, op.Constant(value_ints=[3])))
    items = op.Concat(step, drive, B, C, axis=-1)
    tail = op.Shape(items, start=3)
    sequence = op.Concat(op.Constant(value_ints=[-1]), batch, tail, axis=0)
    rows = op.Reshape(op.Transpose(items, perm=[1, 2, 0, 3, 4]), sequence)
    columns = op.Reshape(op.Transpose(items, perm=[2, 1, 0, 3, 4]), sequence)
    walks = op.Where(_flags(False, True, False, True), columns, rows)
    walks = op.Where(_flags(False, False, True, True), _reversed(walks), walks)
    last, y = _advance(walks, op.Reshape(A, op.Constant(value_ints=[4, A.shape[0] // 4, -1])))
    y = op.Where(_flags(False, False, True, True), _reversed(y), y)
    tail = op.Concat(batch, op.Shape(y, start=2), axis=0)
    rows = op.Reshape(y, op.Concat(height, width, tail, axis=0))
    columns = op.Transpose(op.Reshape(y, op.Concat(width, height, tail, axis=0)), perm=[1, 0, 2, 3, 4])
    y = op.Where(_flags(False, True, False, True), columns, rows)
    y = op.Transpose(op.ReduceSum(y, op.Constant(value_ints=[3]), keepdims=0), perm=[2, 0, 1, 3])
    if D is not None:
        skip = op.ReduceSum(op.Reshape(D, by_direction), op.Constant(value_ints=[0]), keepdims=0)
        y = op.Add(y, op.Mul(skip, u))
    return y, op.Identity(last), op.Identity(last)


def _advance(items, rates):
    shape = op.Concat(op.Shape(items, start=1, end=2), op.Shape(rates), axis=0)
    start = op.Expand(op.Constant(value_float=0.0), shape)
    return recurrence(items, rates, start)


def _step(delta, bias, softplus: bool):
    raw = delta if bias is None else op.Add(delta, bias)
    return op.Softplus(raw) if softplus else raw


def _grouped(x, groups: int):
    """(L, B, channels) as (L, B, G, P)."""
    return op.Reshape(x, op.Constant(value_ints=[0, 0, groups, -1]))


def _flags(*values: bool):
    """(4, 1): which of the four directions."""
    return op.Reshape(
        op.Cast(op.Constant(value_ints=[*map(int, values)]), to=9), op.Constant(value_ints=[4, 1])
    )


def _reversed(x):
    one, first = op.Constant(value_ints=[-1]), op.Constant(value_ints=[0])
    return op.Slice(x, one, op.Constant(value_ints=[FIRST]), first, one)

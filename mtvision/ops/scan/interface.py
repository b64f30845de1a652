"""`selective_scan` and `selective_scan_2d`: argument forms, precision, gating, choice of a backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mtvision.ops.scan import graph_form, reference
from mtvision.ops.scan.backends import check_backend, chosen_backend, has_mamba_ssm
from mtvision.ops.scan.operator import SelectiveScan

WrittenOut = Callable[..., tuple[Tensor, Tensor]]
"""A scan as calls of PyTorch, not as one operator."""


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(f"selective scan: {message}")


def _grouped(x: Tensor, name: str, u: Tensor, A: Tensor) -> Tensor:
    """B or C as (B, G, N, L)."""
    batch, channels, length = u.shape
    states = A.shape[1]
    if x.ndim == 2:  # constant in time: every channel is its own group, and nothing is copied
        _check(
            x.shape == A.shape, f"{name} has shape {tuple(x.shape)}, constant form needs {tuple(A.shape)}."
        )
        return x[None, :, :, None].expand(batch, channels, states, length)
    grouped = x.unsqueeze(1) if x.ndim == 3 else x
    fits = grouped.ndim == 4 and (grouped.shape[0], *grouped.shape[2:]) == (batch, states, length)
    _check(
        fits,
        f"{name} has shape {tuple(x.shape)}; give (D, N), (B, N, L) or (B, G, N, L). Here B = {batch}, "
        f"D = {channels}, L = {length} and N = {states}.",
    )
    _check(
        grouped.shape[1] > 0 and channels % grouped.shape[1] == 0,
        f"{name} has {grouped.shape[1]} groups, which do not divide the {channels} channels of u.",
    )
    return grouped


def _same_groups(B: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
    groups = max(B.shape[1], C.shape[1])
    _check(
        groups % B.shape[1] == 0 and groups % C.shape[1] == 0,
        "the groups of B and C do not divide one another.",
    )
    B, C = (x if x.shape[1] == groups else x.repeat_interleave(groups // x.shape[1], 1) for x in (B, C))
    return B, C


def _inner_dtype(u: Tensor) -> torch.dtype:
    return torch.float64 if u.dtype == torch.float64 else torch.float32


def _converted(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    bias: Tensor | None,
    *,
    half: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    """The arguments in the type of arithmetic; with `half`, u, delta, B and C stay if all are bf16."""
    inner = _inner_dtype(u)
    if not (half and all(x.dtype == torch.bfloat16 for x in (u, delta, B, C))):
        u, delta, B, C = (x.to(inner) for x in (u, delta, B, C))
    D, bias = (None if x is None else x.to(inner) for x in (D, bias))
    return u, delta, A.to(inner), B, C, D, bias


def _wants_grad(tensors: tuple[Tensor | None, ...]) -> bool:
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
    *,
    backend: str | None = None,
) -> Any:
    """Selective scan of sequences, with the calling convention of mamba-ssm's `selective_scan_fn`.

    h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t, y_t = C_t h_t + D u_t, per channel with N states (Gu and
    Dao, arXiv 2312.00752). Everything inside is fp32 (fp64 for fp64 `u`), also under autocast.

    Args:
        u: input (B, D, L), any floating type.
        delta: step sizes (B, D, L), before bias and softplus.
        A: decay rates (D, N), real, negative for a stable scan.
        B: (D, N) constant in time, (B, N, L), or (B, G, N, L) where channel d uses group d // (D / G).
        C: like B.
        D: weight (D,) of the input in the output.
        z: (B, D, L); the output is multiplied by silu(z).
        delta_bias: (D,), added to delta.
        delta_softplus: apply softplus (the identity above 20) to delta + bias.
        return_last_state: also return h_L.
        backend: one of `mtvision.ops.BACKENDS`; default: what `use_backend` set, else the fastest one here.

    Returns:
        Output (B, D, L) in the type of `u`; with `return_last_state` also h_L (B, D, N) in fp32 (fp64). Both
        can be differentiated once; backend "reference" any number of times.

    Raises:
        ValueError: shapes do not fit together, or A is complex.
        UnknownNameError: no such backend.
        RuntimeError: the backend cannot run here.
    """
    name = chosen_backend() if backend is None else check_backend(backend)
    _check(
        u.ndim == 3 and u.shape == delta.shape,
        f"u {tuple(u.shape)} and delta {tuple(delta.shape)} must both be (B, D, L).",
    )
    _check(not A.is_complex(), "complex A is not supported; vision models use real decays.")
    _check(
        A.ndim == 2 and A.shape[0] == u.shape[1], f"A has shape {tuple(A.shape)}, expected ({u.shape[1]}, N)."
    )
    for label, x in (("D", D), ("delta_bias", delta_bias)):
        _check(x is None or x.shape == (u.shape[1],), f"{label} must have shape ({u.shape[1]},).")
    _check(z is None or z.shape == u.shape, "z must have the shape of u.")
    if name == "mamba_ssm" or (name == "auto" and u.is_cuda and has_mamba_ssm()):
        return _call_mamba_ssm(u, delta, A, B, C, D, z, delta_bias, delta_softplus, return_last_state)

    B, C = _same_groups(_grouped(B, "B", u, A), _grouped(C, "C", u, A))
    calls: dict[str, WrittenOut] = {"reference": reference.scan, "graph": graph_form.scan}
    written_out = calls.get(name)
    half = z is None and written_out is None  # a gate needs the output in fp32
    tensors = _converted(u, delta, A, B, C, D, delta_bias, half=half)
    if written_out is not None:
        y, last = written_out(*tensors, delta_softplus)
    else:
        keep = _wants_grad((u, delta, A, B, C, D, delta_bias))
        y, last, _ = SelectiveScan.apply(*tensors, delta_softplus, keep, name)
    if z is not None:
        y = y * F.silu(z.to(_inner_dtype(u)))
    y = y.to(u.dtype)
    return (y, last) if return_last_state else y


def _call_mamba_ssm(u: Tensor, *args: Any) -> Any:
    if not (u.is_cuda and has_mamba_ssm()):
        raise RuntimeError(
            "selective scan: backend 'mamba_ssm' needs mamba-ssm and CUDA tensors; use 'auto'."
        )
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    delta, A, B, C, D, z, bias, softplus, last = args
    # Its kernels take u, delta, z, B and C in one type and insist on fp32 for the rest.
    delta, B, C, z = (x if x is None or x.ndim == 2 else x.to(u.dtype) for x in (delta, B, C, z))
    A, D, bias = (None if x is None else x.float() for x in (A, D, bias))
    return selective_scan_fn(u, delta, A, B, C, D, z, bias, softplus, last)


def selective_scan_2d(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    *,
    backend: str | None = None,
) -> Tensor:
    """Sum of four selective scans of a map: by rows, by columns, both backwards (VMamba, arXiv 2401.10166).

    Channels come last. Step sizes, B and C depend on the direction. They are stored at their map position,
    not in the order of the scan. Plain linear layers can therefore compute them from the map. The C++ kernel
    walks the map in the four orders; nothing is flipped, transposed or stacked.

    Args:
        u: input (B, H, W, E), any floating type.
        delta: step sizes (B, H, W, 4, E), before bias and softplus.
        A: (4E, N), row k * E + e for direction k.
        B: (B, H, W, 4, N).
        C: (B, H, W, 4, N).
        D: (4E,).
        delta_bias: (4E,).
        delta_softplus: apply softplus (the identity above 20) to delta + bias.
        backend: as in `selective_scan`.

    Returns:
        (B, H, W, E) in the type of `u`.

    Raises:
        ValueError: shapes do not fit together.
        UnknownNameError: no such backend.
        RuntimeError: the backend cannot run here.
    """
    name = chosen_backend() if backend is None else check_backend(backend)
    _check(u.ndim == 4, f"u has shape {tuple(u.shape)}, expected (B, H, W, E).")
    *place, channels = u.shape
    states = A.shape[-1]
    wanted = {"delta": (*place, 4, channels), "A": (4 * channels, states)}
    wanted |= {"B": (*place, 4, states), "C": (*place, 4, states), "D": (4 * channels,)}
    given = {"delta": delta, "A": A, "B": B, "C": C, "D": D, "delta_bias": delta_bias}
    for label, x in given.items():
        shape = wanted.get(label, wanted["D"])
        _check(x is None or x.shape == shape, f"{label} must have shape {tuple(shape)}.")
    stacked = name in ("reference", "mamba_ssm") or (name == "auto" and u.is_cuda and has_mamba_ssm())
    tensors = _converted(u, delta, A, B, C, D, delta_bias, half=not stacked and name != "graph")
    if name == "graph":
        y = graph_form.scan_2d(*tensors, delta_softplus)
    elif stacked:
        y = stacked_scan_2d(*tensors, delta_softplus=delta_softplus, backend=name)
    else:
        keep = _wants_grad((u, delta, A, B, C, D, delta_bias))
        y, _, _ = SelectiveScan.apply(*tensors, delta_softplus, keep, name)
    return y.to(u.dtype)


def stacked_scan_2d(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    *,
    backend: str | None = None,
) -> Tensor:
    """`selective_scan_2d` the usual way: stack four reordered copies, scan once with four groups, merge."""
    four = reference.cross_scan(u.permute(0, 3, 1, 2)).flatten(1, 2)
    steps = reference.sequences(delta).flatten(1, 2)
    B, C = reference.sequences(B), reference.sequences(C)
    y = selective_scan(four, steps, A, B, C, D, None, delta_bias, delta_softplus, backend=backend)
    return reference.cross_merge(torch.unflatten(y, 1, (4, -1)), *u.shape[1:3]).permute(0, 2, 3, 1)

"""Shapes of operators on the meta device, computed once for each operator and its arguments."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode


@contextmanager
def without_values() -> Iterator[None]:
    """Tensors made inside the block are on the meta device, and known shapes are not computed again.

    Example:
        >>> with without_values():
        ...     torch.nn.Linear(2, 3)(torch.zeros(1, 2)).shape
        torch.Size([1, 3])
    """
    with RememberedShapes(), torch.device("meta"):
        yield


class _Made(NamedTuple):
    size: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype

    def new(self) -> Tensor:
        return torch.empty_strided(self.size, self.stride, dtype=self.dtype, device="meta")


_LARGEST = 20_000
"""Entries that are kept; a network has a few hundred."""
_known: dict[Any, tuple[_Made, ...]] = {}
_makes_new: dict[Any, bool] = {}


class RememberedShapes(TorchDispatchMode):
    """Inside the block, an operator on meta tensors of known shapes is not computed again.

    PyTorch finds many shapes of the meta device in Python, which takes up to a millisecond an operator. A
    network repeats its layers, so that most answers are known. Views, changes in place and operators with
    a tensor of values are left to PyTorch.

    Example:
        >>> with RememberedShapes():
        ...     (torch.empty(2, 3, device="meta") + torch.empty(3, device="meta")).shape
        torch.Size([2, 3])
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """The operator's result: new meta tensors if its arguments were seen before."""
        kwargs = kwargs or {}
        key = _key(func, args, kwargs)
        if key is None:
            return func(*args, **kwargs)
        made = _known.get(key)
        if made is None:
            result = func(*args, **kwargs)
            _remember(key, result)
            return result
        return made[0].new() if len(made) == 1 else tuple(item.new() for item in made)


def _key(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """All that shapes of the result depend on; None where they are not remembered."""
    new = _makes_new.get(func)
    if new is None:
        schema = func._schema
        unshared = all(item.alias_info is None for item in (*schema.arguments, *schema.returns))
        new = unshared and {str(item.type) for item in schema.returns} == {"Tensor"}
        _makes_new[func] = new
    if not new:
        return None
    try:
        described = tuple(map(_described, args)), tuple((name, _described(kwargs[name])) for name in kwargs)
        key = func, described, torch.get_default_dtype()
        hash(key)
    except (_NotRememberedError, TypeError):  # a tensor of values; an argument that has no hash
        return None
    return key


class _NotRememberedError(Exception):
    pass


def _described(value: Any) -> Any:
    if isinstance(value, Tensor):
        plain = type(value) in (Tensor, nn.Parameter) and value.device.type == "meta"
        if not plain or value.layout is not torch.strided or value.dtype.is_complex:
            raise _NotRememberedError
        return value.shape, value.stride(), value.dtype
    if isinstance(value, (list, tuple)):
        return tuple(map(_described, value))
    return type(value), value


def _remember(key: Any, result: Any) -> None:
    made = result if isinstance(result, tuple) else (result,)
    if len(_known) < _LARGEST and all(
        type(item) is Tensor and item.device.type == "meta" and item.storage_offset() == 0 for item in made
    ):
        _known[key] = tuple(_Made(item.shape, item.stride(), item.dtype) for item in made)

"""Cost of a network: parameters, multiply-accumulates, latency, memory; in total and per part.

A multiply-accumulate (MAC) is one multiplication and one addition, the unit that papers call "FLOPs" or
"GFLOPs". Counted are convolutions, linear layers, matrix products and attention, fused or not; not
counted are normalisation, activations, interpolation and softmax, as is the field's custom. An
operator of one's own joins by `torch.utils.flop_counter.register_flop_formula` (formulas give 2 per MAC).

Importing this module does not import torch.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from mtvision.report.provenance import processor_model

if TYPE_CHECKING:
    import torch
    from torch import nn

MACS_COUNTED = (
    "multiply-accumulates of convolution, linear, matmul and attention operators (torch dispatcher)"
)
"""What the `macs` of a cost report mean; goes into records."""


@runtime_checkable
class PredictsTasks(Protocol):
    """A network that says which tasks it predicts, such as `mtvision.models.Network`."""

    @property
    def task_names(self) -> tuple[str, ...]:
        """Names of the tasks, in order."""
        ...


@runtime_checkable
class SparselyActive(Protocol):
    """A module of which one input reads a part only, such as a mixture of experts."""

    def inactive_parameters(self) -> int:
        """How many of its numbers one input does not read."""
        ...


def measure_cost(
    network: nn.Module,
    size: tuple[int, int],
    *,
    batch_size: int = 1,
    tasks: Sequence[str] | None = None,
    meta: bool = False,
    latency: bool = False,
    device: str = "cpu",
    repeats: int = 20,
) -> dict[str, Any]:
    """Cost of predicting `tasks` for images of `size`, in evaluation mode, without gradients.

    Parts are `backbone`, `decoder` (what serves several tasks), `decoder/<task>`, `head/<task>`, and `other`.

    Args:
        network: a `mtvision.models.Network`, or another module, whose parts are not told by task. Its mode
            is restored; another device gets a copy.
        size: (H, W) of the image.
        batch_size: images at once. MACs are given per image, latency and memory per batch.
        tasks: names to predict, all by default.
        meta: count without values: seconds for any size and no activations in memory. A network built under
            `with torch.device("meta")` has no weights in memory either.
        latency: measure time too.
        device: where to run (`cpu`, `cuda`, `cuda:1`); ignored with `meta`.
        repeats: timed runs, after a fifth as many to warm up (at least 2).

    Returns:
        Plain data: image_size, batch_size, tasks, parameters {total, trainable, active, parts}, macs {total,
        parts, counted}. Active are the parameters that one token reads; the others are of experts that it is
        not sent to. latency is {median_ms, min_ms, max_ms, repeats, images_per_second, device, threads} or
        None. peak_memory is {bytes, device, counted} of weights and activations together, None with `meta`.

    Raises:
        ValueError: latency of a network without values, or a size that is not positive.
    """
    import torch

    if min(*size, batch_size, repeats) < 1:
        raise ValueError(
            f"cost: size {tuple(size)}, batch_size {batch_size}, repeats {repeats} must be positive."
        )
    on_meta = meta or _device_of(network).type == "meta"
    if on_meta and latency:
        raise ValueError("cost: a network without values (meta) has no latency. Leave out one of the two.")
    place = torch.device("meta" if on_meta else device)
    subject = network if _same_place(_device_of(network), place) else copy.deepcopy(network).to(place)
    image = torch.zeros(batch_size, 3, *size, device=place)
    own = network.task_names if isinstance(network, PredictsTasks) else ()
    names = own if tasks is None else tuple(tasks)

    def run() -> None:
        subject(image, tasks) if tasks is not None else subject(image)

    with torch.no_grad(), _evaluating(subject):
        macs = _count_macs(run, names, batch_size)
        return {
            "image_size": [int(side) for side in size],
            "batch_size": batch_size,
            "tasks": list(names),
            "parameters": _count_parameters(network, own),
            "macs": macs,
            "latency": _latency(run, place, repeats, batch_size) if latency else None,
            "peak_memory": None if on_meta else _peak_memory(run, subject, place),
        }


def _device_of(network: nn.Module) -> torch.device:
    import torch

    first = next(network.parameters(), None)
    return torch.device("cpu") if first is None else first.device


def _same_place(one: torch.device, other: torch.device) -> bool:
    return one.type == other.type and (other.index is None or one.index == other.index)


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    modes = {item: item.training for item in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for item, training in modes.items():
            item.training = training


def _part(path: Sequence[str], tasks: Sequence[str]) -> str:
    """Which part a module path inside the network belongs to."""
    if path[0] == "backbone":
        return "backbone"
    task = next((name for name in path[1:] if name in tasks), None)
    if path[0] == "decoder":
        return "decoder" if task is None else f"decoder/{task}"
    return f"head/{task}" if path[0] == "heads" and task is not None else "other"


def _count_parameters(network: nn.Module, tasks: Sequence[str]) -> dict[str, Any]:
    parts: dict[str, int] = {}
    total = trainable = 0
    for name, parameter in network.named_parameters():
        count = parameter.numel()
        part = _part(name.split("."), tasks)
        parts[part] = parts.get(part, 0) + count
        total += count
        trainable += count if parameter.requires_grad else 0
    idle = sum(item.inactive_parameters() for item in network.modules() if isinstance(item, SparselyActive))
    return {"total": total, "trainable": trainable, "active": total - idle, "parts": parts}


def _count_macs(run: Callable[[], None], tasks: Sequence[str], batch_size: int) -> dict[str, Any]:
    from mtvision.ops.flops import count_flops

    inclusive = count_flops(run)
    total = inclusive.pop("Global", 0)
    parts: dict[str, int] = {}
    for name, count in inclusive.items():
        path = name.split(".")[1:]  # the first is the class of the network
        if path and _is_topmost(path, tasks):
            part = _part(path, tasks)
            parts[part] = parts.get(part, 0) + count
    if "decoder" in parts:
        parts["decoder"] -= sum(count for name, count in parts.items() if name.startswith("decoder/"))
    parts["other"] = total - sum(parts.values())
    per_image = {name: count // (2 * batch_size) for name, count in parts.items() if count}
    return {"total": total // (2 * batch_size), "parts": per_image, "counted": MACS_COUNTED}


def _is_topmost(path: Sequence[str], tasks: Sequence[str]) -> bool:
    """Counts include children: take the backbone, the decoder and what carries a task's name."""
    if path[0] in ("backbone", "decoder") and len(path) == 1:
        return True
    return path[0] in ("decoder", "heads") and path[-1] in tasks and not set(path[1:-1]) & set(tasks)


def _latency(run: Callable[[], None], place: torch.device, repeats: int, batch_size: int) -> dict[str, Any]:
    import torch

    def wait() -> None:
        if place.type == "cuda":
            torch.cuda.synchronize(place)

    for _ in range(max(2, repeats // 5)):
        run()
    times = []
    for _ in range(repeats):
        wait()
        start = time.perf_counter()
        run()
        wait()
        times.append(1000 * (time.perf_counter() - start))
    median = statistics.median(times)
    return {
        "median_ms": median,
        "min_ms": min(times),
        "max_ms": max(times),
        "repeats": repeats,
        "images_per_second": 1000 * batch_size / median,
        "device": _device_name(place),
        "threads": torch.get_num_threads() if place.type == "cpu" else None,
    }


def _device_name(place: torch.device) -> str:
    import torch

    if place.type == "cuda":
        return torch.cuda.get_device_name(place)
    return processor_model()


def _peak_memory(run: Callable[[], None], network: nn.Module, place: torch.device) -> dict[str, Any]:
    import torch

    if place.type == "cuda":
        torch.cuda.synchronize(place)
        torch.cuda.reset_peak_memory_stats(place)
        run()
        torch.cuda.synchronize(place)
        peak, counted = torch.cuda.max_memory_allocated(place), "torch.cuda.max_memory_allocated"
    else:
        peak, counted = _peak_tensor_bytes(run, network), "tensors alive at once, without kernels' workspaces"
    return {"bytes": int(peak), "device": _device_name(place), "counted": counted}


def _peak_tensor_bytes(run: Callable[[], None], network: nn.Module) -> int:
    """Largest total size of storages alive at once: exact and repeatable, unlike the process's size."""
    import weakref

    from torch import Tensor
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __init__(self) -> None:
            super().__init__()  # type: ignore[no-untyped-call]
            self.live = self.peak = 0
            self.sizes: dict[int, int] = {}

        def note(self, tensor: Tensor) -> None:
            storage = tensor.untyped_storage()
            key = id(storage)
            if key in self.sizes:
                return
            self.sizes[key] = storage.nbytes()
            self.live += self.sizes[key]
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self.forget, key)

        def forget(self, key: int) -> None:
            self.live -= self.sizes.pop(key, 0)

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
        ) -> Any:
            result = func(*args, **(kwargs or {}))
            for item in tree_leaves((args, result)):
                if isinstance(item, Tensor):
                    self.note(item)
            return result

    mode = LiveBytes()
    for tensor in (*network.parameters(), *network.buffers()):
        mode.note(tensor)
    with mode:
        run()
    return mode.peak

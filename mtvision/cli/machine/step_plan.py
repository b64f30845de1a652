"""What training would take: time and memory for so many GPUs, images and pixels, and how both grow.

Operations and bytes are counted without values, for any size. Time is measured on one device at small sizes.
A line through two points gives the rate of this network's own kernels, and what a step costs besides.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import exp, fsum, log
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

NUMBER = 4
"""Bytes of a weight, a gradient and a value of the optimizer's state."""
STATES = {"AdamW": 2, "Adam": 2, "SGD": 1}
"""Numbers that an optimizer keeps for each parameter."""
BANDWIDTH = 12.0
"""GB/s between GPUs where none is given: PCI Express 3.0 with 16 lanes, as measured by most."""
REPEATS = 3


@dataclass(frozen=True)
class Rate:
    """How fast a device trains a network: seconds of a step = overhead + MACs / rate.

    Args:
        macs_per_second: of forward and backward pass together.
        overhead: seconds of a step besides.
        device: its name.
        points: (MACs, seconds) that were measured.
    """

    macs_per_second: float
    overhead: float
    device: str
    points: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Counted:
    """A training step without values.

    Args:
        macs: multiply-accumulates of forward and backward pass.
        activations: bytes that the forward pass keeps for the backward pass.
        parameters: all.
        trainable: those with gradients.
        buffers: bytes of buffers.
    """

    macs: int
    activations: int
    parameters: int
    trainable: int
    buffers: int


def count_step(network: nn.Module, size: tuple[int, int], batch: int = 1) -> Counted:
    """Count a training step of a network on the meta device; its mode is restored.

    Args:
        network: without values (`mtvision.core.shapes.without_values`).
        size: (H, W).
        batch: images.
    """
    import torch

    from mtvision.core.shapes import RememberedShapes
    from mtvision.ops.flops import flop_counter

    kept: dict[int, Any] = {}
    own = {item.untyped_storage()._cdata for item in (*network.parameters(), *network.buffers())}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage  # the object lives on, so its address stays its own
        return tensor

    image = torch.zeros(batch, 3, *size, device="meta")
    with _Training(network), RememberedShapes(), flop_counter() as counter:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = _loss(network, image)
        loss.backward()  # type: ignore[no-untyped-call]
    for item in network.parameters():
        item.grad = None
    sizes = [item.numel() for item in network.parameters()]
    return Counted(
        macs=int(counter.get_total_flops()) // 2,
        activations=sum(storage.nbytes() for storage in kept.values()),
        parameters=sum(sizes),
        trainable=sum(item.numel() for item in network.parameters() if item.requires_grad),
        buffers=sum(item.numel() * item.element_size() for item in network.buffers()),
    )


def _loss(network: nn.Module, image: Tensor) -> Tensor:
    """A scalar that reaches every output; deep supervision included."""
    import torch

    from mtvision.models.network import Network

    if isinstance(network, Network):
        output = network.outputs(image)
        maps = [*output.logits.values(), *(item.logits for item in output.auxiliary)]
    else:
        maps = [network(image)]
    return torch.stack([item.float().square().mean() for item in maps]).sum()


class _Training:
    """The network in training mode inside the block."""

    def __init__(self, network: nn.Module) -> None:
        self._modes = {item: item.training for item in network.modules()}
        self._network = network

    def __enter__(self) -> None:
        self._network.train()

    def __exit__(self, *error: object) -> None:
        for item, mode in self._modes.items():
            item.training = mode


def measure_rate(
    network: nn.Module, count: Callable[[tuple[int, int]], int], size: tuple[int, int], device: str = "cpu"
) -> Rate:
    """Time training steps of one image at two sizes, and put a line through both points.

    Args:
        network: with values; moved to the device.
        count: MACs of a step of one image of a size, from `count_step`.
        size: (H, W) of the larger of both; the other has half its sides.
        device: where to run.
    """
    import torch

    place = torch.device(device)
    network = network.to(place)
    points = []
    for sides in ((size[0] // 2, size[1] // 2), size):
        image = torch.zeros(1, 3, *sides, device=place)
        with _Training(network):
            seconds = min(_step_seconds(network, image) for _ in range(REPEATS + 1))
        points.append((count(sides), seconds))
    return line(points, _device_name(place))


def _step_seconds(network: nn.Module, image: Tensor) -> float:
    import torch

    def wait() -> None:
        if image.device.type == "cuda":
            torch.cuda.synchronize(image.device)

    wait()
    start = time.perf_counter()
    _loss(network, image).backward()  # type: ignore[no-untyped-call]
    wait()
    return time.perf_counter() - start


def line(points: Sequence[tuple[int, float]], device: str = "") -> Rate:
    """The rate through two points; without a positive slope the larger point alone gives it."""
    (small, first), (large, last) = points
    if last <= first or large <= small:
        return Rate(large / last, 0.0, device, tuple(points))
    slope = (last - first) / (large - small)
    overhead = max(0.0, first - slope * small)
    return Rate(1 / slope, overhead, device, tuple(points))


def plan(
    counted: Counted,
    rate: Rate,
    *,
    gpus: int,
    batch: int,
    iterations: int,
    optimizer: str = "AdamW",
    bandwidth: float = BANDWIDTH,
) -> dict[str, Any]:
    """Time and memory of training.

    Every GPU has the whole network. Gradients are averaged by a ring: a byte is sent 2 (N - 1) / N times.
    Communication is not hidden behind the backward pass here, so that its time is an upper bound.

    Args:
        counted: of one GPU's batch.
        rate: measured.
        gpus: processes, one GPU each.
        batch: images per GPU.
        iterations: steps.
        optimizer: decides how many numbers are kept for each parameter; unknown ones count as AdamW.
        bandwidth: GB/s between GPUs.

    Raises:
        ValueError: a count or the bandwidth is not positive.
    """
    if min(gpus, batch, iterations) < 1 or bandwidth <= 0:
        raise ValueError(
            f"plan: gpus {gpus}, batch {batch}, iterations {iterations} and bandwidth {bandwidth} must be "
            "positive."
        )
    gradients = NUMBER * counted.trainable
    memory = {
        "weights": NUMBER * counted.parameters + counted.buffers,
        "gradients": gradients,
        "optimizer": gradients * STATES.get(optimizer, 2),
        "activations": counted.activations,
        "buckets": gradients if gpus > 1 else 0,
    }
    compute = rate.overhead + counted.macs / rate.macs_per_second
    communication = 2 * (gpus - 1) / gpus * gradients / (bandwidth * 1e9)
    step = compute + communication
    return {
        "gpus": gpus,
        "batch": batch,
        "iterations": iterations,
        "macs_per_step": counted.macs,
        "memory": {**memory, "total": sum(memory.values())},
        "seconds": {"compute": compute, "communication": communication, "step": step},
        "images_per_second": gpus * batch / step,
        "hours": step * iterations / 3600,
        "measured": asdict(rate),
    }


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Exponent of growth: the least-squares slope of log y over log x.

    Raises:
        ValueError: fewer than two points, or one is not positive.

    >>> round(slope([(1, 3), (2, 12), (4, 48)]), 6)
    2.0
    """
    if len(points) < 2 or min(min(point) for point in points) <= 0:
        raise ValueError(f"slope: expected two positive points or more, found {list(points)}.")
    xs, ys = [log(x) for x, _ in points], [log(y) for _, y in points]
    middle = [fsum(side) / len(side) for side in (xs, ys)]
    above = fsum((x - middle[0]) * (y - middle[1]) for x, y in zip(xs, ys, strict=True))
    below = fsum((x - middle[0]) ** 2 for x in xs)
    if below == 0:
        raise ValueError(f"slope: all points have x = {exp(middle[0]):g}; give different ones.")
    return above / below


def _device_name(place: torch.device) -> str:
    import torch

    from mtvision.report.provenance import processor_model

    return torch.cuda.get_device_name(place) if place.type == "cuda" else processor_model()

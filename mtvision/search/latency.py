"""Measured latency of the parts of a slimmable network at every width."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from mtvision.architecture.widths import WidthConfig
from mtvision.models.adapters.slimmable import Sliced, slimming_of
from mtvision.models.network import Network


@torch.no_grad()
def measure_latency(
    network: Network, size: tuple[int, int], encoder: Sequence[float], decoders: Sequence[float], runs: int
) -> dict[str, Any]:
    """Median milliseconds per part for one image.

    Stages are timed at uniform encoder widths, decoders on a full pyramid.

    Batch norms need no statistics for this: they normalise by the batch, which costs slightly more.
    """
    control = slimming_of(network)
    device = next(network.parameters()).device
    image = torch.zeros(1, 3, *size, device=device)
    stages: list[dict[float, float]] = [{} for _ in range(control.stages)]
    tasks: dict[str, dict[float, float]] = {name: {} for name in control.tasks}
    modes = {item: item.training for item in network.modules()}
    network.train()
    buffers = {name: item.clone() for name, item in network.named_buffers()}
    try:
        for ratio in encoder:
            with network.context(widths=WidthConfig(ratio).to_plain()):
                for index, value in enumerate(_stage_times(network, image, runs)):
                    stages[index][ratio] = value
        with network.context(widths=WidthConfig().to_plain()):
            pyramid = network.backbone(image)
        for own in decoders:
            with network.context(widths=WidthConfig(1.0, dict.fromkeys(control.tasks, own)).to_plain()):
                for name in control.tasks:
                    tasks[name][own] = _median(
                        lambda name=name: network.heads[name](  # type: ignore[misc]
                            network.decoder(pyramid, [name]).features[name]
                        ),
                        device,
                        runs,
                    )
    finally:
        for item, mode in modes.items():
            item.training = mode
        for name, saved in buffers.items():
            network.get_buffer(name).copy_(saved)
    listed = [[[key, value] for key, value in table.items()] for table in stages]
    return {
        "stages": listed,
        "tasks": {name: [[key, value] for key, value in table.items()] for name, table in tasks.items()},
        "device": str(device),
        "threads": torch.get_num_threads(),
        "runs": runs,
    }


def _wait(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return 1000 * time.perf_counter()


def _median(call: Callable[[], Any], device: torch.device, runs: int) -> float:
    times = []
    for _ in range(runs + 1):
        start = _wait(device)
        call()
        times.append(_wait(device) - start)
    return statistics.median(times[1:])


def _stage_times(network: Network, image: Tensor, runs: int) -> list[float]:
    """Per stage, from the start of its first slimmed layer to that of the next stage's."""
    control = slimming_of(network)
    starts = [0.0] * (control.stages + 1)
    seen: set[int] = set()

    def note(module: Any, _: Any) -> None:
        index = int(module.slicing.part.key)
        if index not in seen:
            seen.add(index)
            starts[index] = _wait(image.device)

    layers = [item for item in network.backbone.modules() if isinstance(item, Sliced)]
    handles = [item.register_forward_pre_hook(note) for item in layers]
    samples: list[list[float]] = [[] for _ in range(control.stages)]
    try:
        for run in range(runs + 1):
            seen.clear()
            network.backbone(image)
            starts[-1] = _wait(image.device)
            for index in range(control.stages if run else 0):
                samples[index].append(starts[index + 1] - starts[index])
    finally:
        for handle in handles:
            handle.remove()
    return [statistics.median(item) for item in samples]

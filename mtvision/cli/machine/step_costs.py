"""Time and memory of training steps, as ratios to the first one."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from mtvision.cli.machine.timings import within_turns

Table = dict[str, dict[str, float]]
Made = tuple[Callable[[], object], nn.Module]
"""A step, and the module whose parameters and buffers exist before it."""


class Alive(TorchDispatchMode):
    """The most bytes of tensors made inside that exist at the same time, to 3 %."""

    def __init__(self, earlier: list[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._earlier = {item.untyped_storage().data_ptr() for item in earlier}
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self._most = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and look at the storages of its results.

        Storages that are gone are looked for only where the sum with them would be a new peak by 3 %.
        """
        found = function(*args, **(kwargs or {}))
        for item in found if isinstance(found, tuple | list) else [found]:
            if isinstance(item, Tensor) and item.untyped_storage().data_ptr() not in self._earlier:
                storage = item.untyped_storage()
                _, before = self._alive.get(storage.data_ptr(), (None, 0))
                self._alive[storage.data_ptr()] = (StorageWeakRef(storage), storage.nbytes())  # type: ignore[no-untyped-call]
                self._most += storage.nbytes() - before
        if self._most > 1.03 * self.peak:
            self._alive = {key: pair for key, pair in self._alive.items() if not pair[0].expired()}  # type: ignore[no-untyped-call]
            self._most = sum(size for _, size in self._alive.values())
            self.peak = max(self.peak, self._most)
        return found


def step_costs(
    title: str,
    steps: Mapping[str, Made],
    repeats: int,
    write: Callable[[str], object],
    calls: Mapping[str, int] | None = None,
) -> Table:
    """{step: {`time`, `least`, `most`, `memory`, `trained`}} as ratios to the first step, the baseline.

    Times are medians of the process's own time, taken in turns. Time that other processes take is not part
    of it. `least` and `most` are of the ratios within a turn. Memory is that of tensors made in a step:
    activations, gradients and what a rule needs. Weights and the optimizer are not part of it; the
    optimizer's memory goes with the number of trained values.

    Args:
        title: of the lines.
        steps: {name: (what is timed, its module)}.
        repeats: turns, after one that is not counted.
        write: where each line goes.
        calls: {name: steps that make one turn}, for steps that differ from one call to the next; else 1.
    """
    calls = calls or {}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(repeats + 1):
        for name, (call, _) in steps.items():
            start, count = time.process_time(), calls.get(name, 1)
            for _ in range(count):
                call()
            if turn:
                times[name].append((time.process_time() - start) / count)
    peaks = {}
    for name, (call, network) in steps.items():
        with Alive([*network.parameters(), *network.buffers()]) as seen:
            for _ in range(calls.get(name, 1)):
                call()
        peaks[name] = seen.peak
    baseline = next(iter(steps))
    trained = {
        name: sum(item.numel() for item in module.parameters() if item.requires_grad)
        for name, (_, module) in steps.items()
    }
    medians = {name: statistics.median(values) for name, values in times.items()}
    within = within_turns(times)
    found = {
        name: {
            "time": medians[name] / medians[baseline],
            "least": min(within[name]),
            "most": max(within[name]),
            "memory": peaks[name] / peaks[baseline],
            "trained": trained[name] / trained[baseline],
        }
        for name in steps
    }
    write(f"{title:40} {'time':>8} {'of turns':>14} {'memory':>8} {'trained':>8}   (ratios to {baseline})")
    for name, row in found.items():
        turns = f"{row['least']:.2f} to {row['most']:.2f}"
        write(f"{name:40} {row['time']:8.2f} {turns:>14} {row['memory']:8.2f} {row['trained']:8.3f}")
    return found

"""Speed of slimmable networks: a pass at several widths, and switching; variants to time in turns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from mtvision.architecture.widths import WidthConfig
from mtvision.core.task import Task
from mtvision.models.adapters.slimmable import calibrate, export, slimming_of
from mtvision.models.factory import build_network
from mtvision.models.network import Network

MODEL = {
    "backbone": {"type": "TimmBackbone", "name": "resnet18"},
    "decoder": {"type": "ParallelDecoder", "width": 64},
    "head": {"type": "ConvHead"},
}
SIZE = (192, 256)
SWITCHES = 1000


def variants(tasks: Sequence[Task]) -> Mapping[str, Callable[[], object]]:
    """A pass at several widths, slimmed and exported, against the plain network; switching widths."""
    torch.manual_seed(0)
    plain = build_network(MODEL, tasks).eval()
    slim = build_network({**MODEL, "adapters": [{"type": "Slimmable"}]}, tasks).eval()
    names, image = [task.name for task in tasks], torch.randn(1, 3, *SIZE)
    widths = {ratio: WidthConfig(ratio, dict.fromkeys(names, ratio)) for ratio in (1.0, 0.5, 0.25)}
    calibrate(slim, [image], widths.values())

    def forward(network: Network, ratio: float | None = None) -> Callable[[], object]:
        chosen = None if ratio is None else widths[ratio].to_plain()

        def call() -> object:
            with torch.no_grad(), network.context(widths=chosen):
                return network(image)

        return call

    def switch() -> None:
        control, plains = slimming_of(slim), [item.to_plain() for item in widths.values()]
        for index in range(SWITCHES):
            with slim.context(widths=plains[index % len(plains)]):
                control.widths()

    found: dict[str, Callable[[], object]] = {"plain network": forward(plain)}
    found |= {f"slimmable, width {ratio:g}": forward(slim, ratio) for ratio in widths}
    for ratio in (0.5, 0.25):
        found[f"exported, width {ratio:g}"] = forward(export(slim, widths[ratio]))
    found[f"{SWITCHES} switches of widths"] = switch
    found["one export"] = lambda: export(slim, widths[0.5])
    return found

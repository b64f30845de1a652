"""Tries a converted network at narrow widths, and checks that channels lie where they were expected."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

from mtvision.architecture.widths import WidthConfig
from mtvision.models.adapters.slimmable.layout import JOINS, SPLITS, Followed, joined_axis
from mtvision.models.adapters.slimmable.plan import dry_run
from mtvision.models.adapters.slimmable.width import Slimming, Widths
from mtvision.models.network import Network

PROBE = 0.25
"""Width at which every part is tried once, beside full ones, when a network is converted."""


class _Sizes(TorchFunctionMode):
    """Notes the sizes of what is concatenated or split, outside layers and declared modules."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[tuple[str, tuple[int, ...]]] = []
        self.inside = 0

    def enter(self, *_: Any) -> None:
        """A layer, or a module whose layout is declared, begins."""
        self.inside += 1

    def leave(self, *_: Any) -> None:
        """It ends."""
        self.inside -= 1

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = str(getattr(func, "__name__", ""))
        if not self.inside and (name in JOINS or name in SPLITS):
            pieces = (args[0] if args else (kwargs or {})["tensors"]) if name in JOINS else result
            if all(isinstance(item, Tensor) for item in pieces):
                axis = joined_axis(name, args, kwargs or {}, pieces[0].ndim)
                self.sizes.append((name, tuple(int(item.shape[axis]) for item in pieces)))
        return result


def try_out(network: Network, control: Slimming, followed: Followed, declared: Sequence[str]) -> None:
    """Run every part narrow beside full ones.

    Raises:
        ValueError: widths do not fit together, or slimmed channels are concatenated or split in a way that
            was not followed.
    """
    channels = {task.name: task.out_channels for task in network.tasks}
    wide: list[tuple[str, tuple[int, ...]]] = []
    for widths in _trials(control):
        with ExitStack() as stack:
            seen = _Sizes()
            modules = [item for item in network.modules() if hasattr(item, "channel_axis")]
            for module in (*modules, *(network.get_submodule(path) for path in declared)):
                stack.callback(module.register_forward_pre_hook(seen.enter).remove)
                stack.callback(module.register_forward_hook(seen.leave).remove)
            stack.enter_context(seen)
            try:
                result = dry_run(network, widths, training=True)
            except (RuntimeError, ValueError) as error:
                raise ValueError(
                    f"slimmable: the network does not run at {widths}: {str(error).splitlines()[0]} "
                    "Its layers do not agree on their widths, so it cannot be slimmed."
                ) from error
        for name, logits in result.logits.items():
            if logits.shape[1] != channels[name]:
                raise ValueError(
                    f"slimmable: the logits of '{name}' would be slimmed; its head is not known."
                )
        wide = wide or seen.sizes
        _check(wide, seen.sizes, followed, control.complete(widths))


def _trials(control: Slimming) -> list[WidthConfig]:
    """Full, narrow, every part narrow alone."""
    stages, tasks = (1.0,) * control.stages, dict.fromkeys(control.tasks, 1.0)
    trials = [(stages, tasks), ((PROBE,) * control.stages, dict.fromkeys(control.tasks, PROBE))]
    for index in range(control.stages):
        trials += [(tuple(PROBE if item == index else 1.0 for item in range(control.stages)), tasks)]
    trials += [(stages, {**tasks, name: PROBE}) for name in control.tasks]
    return [WidthConfig(*item) for item in trials]


def _check(
    wide: Sequence[tuple[str, tuple[int, ...]]],
    narrow: Sequence[tuple[str, tuple[int, ...]]],
    followed: Followed,
    widths: Widths,
) -> None:
    names = [name for name, _ in followed.calls]
    if [name for name, _ in wide] != names or [name for name, _ in narrow] != names:
        raise ValueError(
            "slimmable: the network concatenates or splits in another order at other widths, so that "
            "channels cannot be followed through it."
        )
    for (name, full), (_, sizes), (_, runs) in zip(wide, narrow, followed.calls, strict=True):
        expected = full if runs is None else tuple(sum(run.active(widths) for run in piece) for piece in runs)
        if sizes != expected:
            raise ValueError(
                f"slimmable: slimmed channels pass '{name}' (sizes {full}, slimmed {sizes}), so that the "
                "layers behind it would not find theirs: what is joined or split there could not be followed "
                "(DenseNet's blocks, ShuffleNet, gated units). Declare the layout in "
                "mtvision.models.adapters.slimmable.attention.COMPOSITES, or choose another network."
            )
